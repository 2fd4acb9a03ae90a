"""Ranks: the bits of one process from 1, 2 and 4, and what happens when one dies."""

import os
import re
import signal

import pytest
import torch
from waiting import wait_for

import sdegen as sg
from sdegen.engine.ranks import Ranks

# events of 256 numbers: eleven blocks of 256 trajectories
RUN = r"""
import hashlib, sys, time, torch, sdegen as sg
from pathlib import Path
pause = float(sys.argv[1])
def drift(x, t):
    time.sleep(pause)
    return x - x**3
sde = sg.ItoProcess(drift, 0.7)
wanted = [sg.Moments(covariance=False), sg.Histogram(-2, 2, 40), sg.FirstPassage(above=0.3),
          sg.LocalTime(0.0, temperature=1.0), sg.StochasticIntegral(lambda x: x, "ito"), sg.Heat(),
          sg.MeanSquaredDisplacement(coordinates=[0, 7]), sg.PowerSpectrum(),
          sg.ResidenceTimes((-0.1, 0.1), (-0.2, 0.2), bins=9, from_start=True)]
for job in sys.argv[2:]:
    path, threads = Path(job.partition(":")[0]), int(job.partition(":")[2])
    with sg.distributed_context() as ranks:
        Path(f"{path}.{ranks.rank}").write_text(str(__import__("os").getpid()))
        run = sg.run_ensemble(
            sde, torch.zeros(1, 256), [0.0, 0.05, 0.1, 0.15, 0.2], trajectories=2600,
            threads=threads, solver=sg.EulerMaruyama(substeps=3), store=path, resume=True,
            rng=7, ranks=ranks, observables=wanted, progress=False)
    found = hashlib.sha256()
    for result in run.observables.values():
        for value in vars(result).values():
            found.update(torch.as_tensor(0 if value is None else value).contiguous().numpy())
    for chunk in sorted(path.rglob("c/**/*")):
        if chunk.is_file():
            found.update(str(chunk.relative_to(path)).encode() + chunk.read_bytes())
    sys.stdout.write(f"sha256 {found.hexdigest()}\n")  # in one piece: the ranks share a pipe
"""


def launched(programs, folder, ranks, *jobs, pause=0.0):
    """The program, alone or as ranks, started; jobs are name:threads, in their order."""
    arguments = pause, *(folder / job for job in jobs)
    if ranks:
        return programs.ranks(ranks, *arguments, code=RUN, folder=folder)
    return [programs.start(*arguments, code=RUN, folder=folder)]


def digests(started):
    ends = [program.communicate() for program in started]
    assert [program.returncode for program in started] == [0] * len(started), ends
    return [digest for out, _ in ends for digest in re.findall(r"sha256 (\w+)", out)]


def under_torchrun(programs, *line, folder):
    """A program that torchrun starts twice, and tells that the other has died."""
    options = "--standalone", "--nproc-per-node=2"
    return programs.start(*options, *line, module="torch.distributed.run", folder=folder)


def test_one_sha256_over_ranks_threads_and_processes(programs, tmp_path):
    found = [
        digests(launched(programs, tmp_path, 0, "one:1", "two:2")),
        digests(launched(programs, tmp_path, 2, "2-ranks:1")),
        digests(launched(programs, tmp_path, 4, "4-ranks:1")),
    ]
    assert [len(values) for values in found] == [2, 2, 4]  # every rank has the total
    assert len({value for values in found for value in values}) == 1


def test_a_rank_that_dies(programs, tmp_path):
    """Rank 1 is killed; the other says so and stops, and one process goes on with the store."""
    (tmp_path / "run.py").write_text(RUN)
    run = under_torchrun(programs, "run.py", "0.03", "run:1", folder=tmp_path)
    second, records = tmp_path / "run.1", tmp_path / "run" / "progress" / "records" / "c"
    wait_for(
        lambda: second.exists() and records.exists() and len(list(records.iterdir())) >= 2, run
    )
    os.kill(int(second.read_text()), signal.SIGKILL)
    _, err = run.communicate()
    assert run.returncode != 0
    told = (
        r"another rank has died.*: rank 0 of 2: (\d+) of 11 blocks are done.* resume=True goes on"
    )
    found = re.search(told, err)
    assert found, err
    # those of the dead one too
    assert int(found[1]) == len(list(records.glob("*/0"))) < 11
    resumed, whole = digests(launched(programs, tmp_path, 0, "run:2", "whole:2", pause=0.03))
    assert resumed == whole


def test_ranks_on_another_kind_of_processor_are_refused(programs, tmp_path):
    """The second rank is told to use no vectors; the sums of the first would be others."""
    (tmp_path / "run.py").write_text(f"""
import os
if os.environ["RANK"] == "1":
    os.environ["ATEN_CPU_CAPABILITY"] = "default"
{RUN}""")
    run = under_torchrun(programs, "run.py", "0", "run:1", folder=tmp_path)
    _, err = run.communicate()
    assert run.returncode != 0
    assert re.search(r"different bits: cpu is \w+ on rank 0 and DEFAULT on rank 1; start", err), (
        err
    )


def test_a_run_on_gpus_asks_for_as_many(monkeypatch):
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = "4 processes on a machine of 2 CUDA devices: start as many .* --nproc-per-node 2"
    with pytest.raises(ValueError, match=told), sg.distributed_context("cuda"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    told = r"4 processes on a machine without a CUDA device: distributed_context\('cpu'\) shares"
    with pytest.raises(ValueError, match=told), sg.distributed_context("cuda"):
        pass


def test_a_run_on_cpus_needs_no_gpu(monkeypatch):
    """What distributed_context takes depends on where the run is, not on what the machine has."""
    begun = []
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", begun.append)
    group = torch.distributed
    monkeypatch.setattr(group, "init_process_group", lambda kind, **options: begun.append(kind))
    monkeypatch.setattr(group, "destroy_process_group", lambda: None)
    monkeypatch.setattr(group, "get_rank", lambda: 3)
    monkeypatch.setattr(group, "get_world_size", lambda: 4)
    with sg.distributed_context() as ranks:
        assert (ranks, begun) == (Ranks(3, 4, 3, 4), ["gloo"])
    begun.clear()
    with sg.distributed_context("cuda"):
        assert begun == [3, "nccl"]


def test_rank_0_refuses_for_all(programs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run.py").write_text(RUN)
    run = under_torchrun(programs, "run.py", "0", "run:1", folder=tmp_path)
    _, err = run.communicate()
    assert run.returncode != 0
    assert "run is there, but is no store of a run" in err
    # torchrun's own report ends with the message, below its traceback
    last = err.rstrip("= \n").splitlines()[-1]
    assert re.search(r"ValueError: .*run is there, but is no store of a run", last)


def test_the_command_line_under_torchrun_ends_with_what_it_says(programs, tmp_path):
    """In its own words: --resume, from every rank; torchrun reports the message last."""
    (tmp_path / "well.py").write_text("def drift(x, t):\n    return x - x**3\n")
    line = ["simulate", "--sde", "well.py:drift", "--diffusion", "0.7"]
    line += ["--store", "run.zarr", "--trajectories", "10"]
    # what processes of torchrun are told to pass: --store
    ranks = programs.ranks(2, *line, module="sdegen", folder=tmp_path)
    ends = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ends
    assert any("trajectories = 10\n" in out for out, _ in ends)
    again = under_torchrun(programs, "-m", "sdegen", *line, folder=tmp_path)
    _, err = again.communicate()
    assert again.returncode == 1
    last = err.rstrip("= \n").splitlines()[-1]
    assert re.search(r"sdegen simulate: .*run\.zarr exists; pass --resume to go on with it", last)
    assert "resume=True" not in err


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_are_runs_that_cover_all(world):
    blocks = list(range(3, 20))
    shares = [Ranks(rank, world).partition(blocks) for rank in range(world)]
    assert [b for share in shares for b in share] == blocks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_a_rank_by_itself(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with sg.distributed_context() as ranks:
        assert ranks == Ranks(0, 1)
    assert ranks.broadcast_value(lambda: 5) == 5
    row = torch.arange(3, dtype=torch.uint8)
    assert torch.equal(ranks.broadcast(row), row)
    assert torch.equal(ranks.gather(row[None])[0], row[None])
