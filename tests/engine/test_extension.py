"""Stores that are taken on: the files of a run that was asked for all at once, byte by byte."""

import hashlib
import json
import re
import shutil
import time
from dataclasses import dataclass

import pytest
import torch

import sdegen as sg
from sdegen.core.fixed_steps import OneStep
from sdegen.engine import extension
from sdegen.engine.extension import Former, pending

F64 = torch.float64
TIMES = torch.arange(41, dtype=F64) / 10
WELL = sg.ItoProcess(lambda x, t: x - x**3, 0.7)
WANTED = (sg.Moments(), sg.TimeCorrelation(), sg.Histogram(-2, 2, 20))
KRAMERS = sg.UnderdampedLangevin(sg.DoubleWell(), 1.0, 0.5)


def run(path, trajectories, times, **options):
    given = {"observables": WANTED, "solver": sg.EulerMaruyama(substeps=3), "rng": 3} | options
    x0, sde = given.pop("x0", torch.zeros(1, 1)), given.pop("sde", WELL)
    steps = times if isinstance(times, torch.Tensor) else TIMES[:times]
    return sg.run_ensemble(
        sde, x0, steps, trajectories=trajectories, store=path, progress=False, **given
    )


def files(path):
    """sha256 of every file of a store."""
    found = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in found
    }


def same(one, other):
    """Whether two results are equal to the last bit."""
    for name, result in one.observables.items():
        for key, value in vars(result).items():
            if isinstance(value, torch.Tensor):
                theirs = vars(other.observables[name])[key]
                assert torch.equal(value.nan_to_num(), theirs.nan_to_num()), (name, key)
    assert (one.nfe, one.trajectories, one.seed) == (other.nfe, other.trajectories, other.seed)
    return True


@pytest.fixture
def carried(monkeypatch):
    """Numbers of the blocks that went on from their last states, or were tried to."""
    taken = {"went on": [], "computed": []}
    carry = Former._carried

    def watched(self, b, *rest):
        found = carry(self, b, *rest)
        taken["computed" if found is None else "went on"].append(b)
        return found

    monkeypatch.setattr(Former, "_carried", watched)
    return taken


@dataclass(frozen=True)
class Thrice(OneStep):
    """Euler steps of which every third draws two numbers, from one late time on or at all."""

    since: float = -1.0
    evaluations = 1

    def step(self, sde, x, i, noise, memory):
        t, _, dt, root = memory[i]
        if float(t) > self.since and i % 3 == 2:
            noise.normal()
        return sde.add_noise(sg.update(x, sde.drift(x, t), dt), x, t, root, noise), memory


def starts(rows, *, rng):
    return torch.randn(rows, 1, generator=rng, dtype=F64)


CASES = {
    "Euler": ({}, 3),
    "float64, drawn starts": ({"x0": starts}, 3),
    "phase space": ({"sde": KRAMERS, "x0": torch.zeros(1, 2, 1), "solver": None}, 3),
    "phase space, OBABO": (
        {"sde": KRAMERS, "x0": torch.zeros(1, 2, 1), "solver": sg.OBABO(substeps=3)},
        3,
    ),
    "Heun, without observables": ({"solver": sg.Heun(substeps=2), "observables": ()}, 3),
    "a flow": ({"sde": sg.ItoProcess(lambda x: -x, 0.0), "x0": torch.ones(1, 1)}, 3),
    "a boundary": ({"boundary": sg.Reflecting(-1, 1)}, 0),
    "every step": ({"observables": (sg.FirstPassage(above=0.3),)}, 0),
    "the last state alone": ({"keep_path": False}, 0),
    "numbers of two kinds": ({"solver": sg.DRI1()}, 0),
    "trajectories that depend on each other": ({"interacting": True}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_later_times_have_the_bits_of_one_run(name, tmp_path, small_blocks, carried):
    options, blocks = CASES[name]
    run(tmp_path / "a.zarr", 2200, 9, **options)
    longer = run(tmp_path / "a.zarr", 2200, 21, extend=True, threads=2, **options)
    whole = run(tmp_path / "b.zarr", 2200, 21, threads=1, **options)
    assert same(longer, whole)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    assert carried["computed"] == []
    if blocks is not None:
        assert len(carried["went on"]) == blocks if blocks == 0 else len(carried["went on"]) >= 2


@pytest.mark.parametrize(("few", "many"), [(2200, 5000), (2048, 4096), (100, 3000), (100, 130)])
def test_more_trajectories_have_the_bits_of_one_run(few, many, tmp_path, small_blocks):
    run(tmp_path / "a.zarr", few, 5)
    more = run(tmp_path / "a.zarr", many, 5, extend=True)
    assert same(more, run(tmp_path / "b.zarr", many, 5))
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    both = run(tmp_path / "a.zarr", many + 700, 9, extend=True, rng=None)  # the store's seed
    assert same(both, run(tmp_path / "c.zarr", many + 700, 9))
    assert files(tmp_path / "a.zarr") == files(tmp_path / "c.zarr")


def test_starts_and_parameters_of_each_trajectory(tmp_path, small_blocks):
    x0, k = torch.linspace(-1, 1, 3000)[:, None], torch.linspace(1, 2, 3000)[:, None]

    def pull(x, k):
        return -k * x

    def given(n):
        return {"x0": x0[:n], "sde": sg.ItoProcess(pull, 0.5, parameters={"k": k[:n]})}

    run(tmp_path / "a.zarr", 1500, 5, **given(1500))
    run(tmp_path / "a.zarr", 3000, 8, extend=True, **given(3000))
    run(tmp_path / "b.zarr", 3000, 8, **given(3000))
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    other = given(3000) | {"x0": x0 + (torch.arange(3000) == 7)[:, None]}
    run(tmp_path / "c.zarr", 1500, 5, **given(1500))
    with pytest.raises(ValueError, match=r"taken on to this run: x0 holds other numbers"):
        run(tmp_path / "c.zarr", 3000, 5, extend=True, **other)


@pytest.mark.parametrize("since", [-1.0, 0.65])
def test_numbers_that_are_not_where_they_are_looked_for(since, tmp_path, small_blocks, carried):
    """Seen at once, or by the last stored interval, which does not come out again."""
    options = {"solver": Thrice(substeps=2, since=since)}
    run(tmp_path / "a.zarr", 1500, 9, **options)
    run(tmp_path / "a.zarr", 1500, 12, extend=True, **options)
    run(tmp_path / "b.zarr", 1500, 12, **options)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    assert carried["went on"] == []
    assert carried["computed"]


def test_what_is_carried_on_takes_later_steps_alone(tmp_path, small_blocks, monkeypatch):
    taken, step = [], sg.EulerMaruyama.step

    def counted(self, *rest):
        taken.extend([0] * (len(rest[1]) == 100))  # pilots and probes have fewer rows
        return step(self, *rest)

    monkeypatch.setattr(sg.EulerMaruyama, "step", counted)
    run(tmp_path / "a.zarr", 100, 31)
    taken.clear()
    run(tmp_path / "a.zarr", 100, 41, extend=True)
    extended = len(taken)
    taken.clear()
    run(tmp_path / "b.zarr", 100, 41)
    # less 30 intervals of 3 steps; one comes out again, and four steps are tried
    assert (extended, len(taken)) == (3 * 10 + 3 + 4, 3 * 40)


def test_an_unfinished_store_is_taken_on_too(tmp_path, small_blocks):
    run(tmp_path / "a.zarr", 3000, 5)
    (tmp_path / "a.zarr/progress/records/c/1/0").unlink()
    damaged = tmp_path / "a.zarr/states/c/0/0/0"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" + damaged.read_bytes()[-8:])
    run(tmp_path / "a.zarr", 3000, 9, extend=True)
    run(tmp_path / "b.zarr", 3000, 9)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


# --- kills

RUN = """
import sys, time, torch, sdegen as sg
def drift(x, t):
    time.sleep(0.005)
    return x - x**3
times = torch.arange(9, dtype=torch.float64) / 10
store, count, trajectories, pieces = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
with sg.distributed_context() as ranks:
    sg.run_ensemble(
        sg.ItoProcess(drift, 0.7), torch.zeros(1, 256), times[:count], trajectories=trajectories,
        solver=sg.EulerMaruyama(substeps=2), store=store, rng=7, progress=False, ranks=ranks,
        observables=[sg.Moments(covariance=False)], **{piece: True for piece in pieces})
"""


@pytest.fixture(scope="module")
def short_and_whole(programs, tmp_path_factory):
    """The store of a short run, and the files of a longer one."""
    folder = tmp_path_factory.mktemp("stores")
    programs.run(folder / "short.zarr", 4, 1500, code=RUN)
    programs.run(folder / "whole.zarr", 8, 2600, code=RUN)
    return folder / "short.zarr", files(folder / "whole.zarr")


@pytest.mark.parametrize(("blocks", "piece"), [(0, "extend"), (6, "resume")])
def test_kill_9_while_extending(blocks, piece, programs, short_and_whole, tmp_path):
    short, whole = short_and_whole
    path = tmp_path / "run.zarr"
    shutil.copytree(short, path)
    program = programs.start(path, 8, 2600, "extend", code=RUN)
    records = path / "progress" / "records" / "c"
    before = path / "progress" / "before"
    while program.poll() is None and not (
        before.exists() and len(list(records.glob("*/0"))) >= blocks
    ):
        time.sleep(0.003)
    program.kill()
    program.communicate()
    assert before.exists()
    programs.run(path, 8, 2600, piece, code=RUN)
    assert files(path) == whole


def test_ranks_take_a_store_on(programs, short_and_whole, tmp_path):
    short, whole = short_and_whole
    shutil.copytree(short, tmp_path / "run.zarr")
    line = (tmp_path / "run.zarr", 8, 2600, "extend")
    ends = programs.ranks(2, *line, code=RUN, folder=tmp_path)
    told = [program.communicate() for program in ends]
    assert [program.returncode for program in ends] == [0, 0], told
    assert files(tmp_path / "run.zarr") == whole


@pytest.mark.parametrize("piece", ["extend", "resume"])
def test_a_kill_between_two_renames(piece, tmp_path, small_blocks, monkeypatch):
    path = tmp_path / "a.zarr"
    run(path, 1500, 5)
    rename, moved = type(path).rename, []

    def killed(self, target):
        if self == pending(path):
            raise KeyboardInterrupt
        moved.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            run(path, 1500, 9, extend=True)
    assert moved
    assert not path.exists()
    run(path, 1500, 9, **{piece: True})
    run(tmp_path / "b.zarr", 1500, 9)
    assert files(path) == files(tmp_path / "b.zarr")
    assert not pending(path).exists()


# --- what cannot be


@pytest.mark.parametrize(
    ("n", "times", "options", "told"),
    [
        (1500, 9, {"rng": 8}, "to this run: seed is 3 there and 8 here; take another store, or"),
        (1500, 9, {"solver": sg.EulerMaruyama(substeps=4)}, "solver.substeps is 3 there and 4"),
        (1500, 9, {"sde": sg.ItoProcess(lambda x, t: x - x**5, 0.7)}, "code of the drift is anot"),
        (1500, 9, {"observables": WANTED[:1]}, r"observables\.\w+ is only there"),
        (1500, 9, {"keep_path": False}, "keep_path is True there and False here"),
        (1500, 9, {"x0": torch.ones(1, 1)}, r"x0 is \[\[0\.0\]\] there and \[\[1\.0\]\] here"),
        (1400, 9, {}, "holds 1500 trajectories, more than the 1400 of this run: extend=True"),
        (1600, 4, {}, "holds 5 times, more than the 4 of this run"),
        (1500, TIMES[:9] * 1.5, {}, r"first 5 must be the stored ones to the last digit; pass"),
        (1500, torch.linspace(0, 0.8, 9, dtype=F64) + 1e-16, {}, "first 5 must be the stored"),
    ],
)
def test_another_run_is_refused_with_the_difference(
    n, times, options, told, tmp_path, small_blocks
):
    run(tmp_path / "a.zarr", 1500, 5)
    before = files(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=told):
        run(tmp_path / "a.zarr", n, times, extend=True, **options)
    assert files(tmp_path / "a.zarr") == before


def test_what_depends_on_each_other_is_not_made_more(tmp_path):
    options = {"sde": sg.ItoProcess(lambda x: x.mean(0) - x, 0.7), "observables": (sg.Moments(),)}
    run(tmp_path / "a.zarr", 50, 5, **options)
    with pytest.raises(ValueError, match="trajectories depend on each other, so that more of th"):
        run(tmp_path / "a.zarr", 60, 5, extend=True, **options)
    run(tmp_path / "a.zarr", 50, 9, extend=True, **options)
    run(tmp_path / "b.zarr", 50, 9, **options)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


def test_what_is_not_there_is_not_extended(tmp_path):
    with pytest.raises(ValueError, match="is not there to be extended; leave extend out to begin"):
        run(tmp_path / "a.zarr", 50, 5, extend=True)
    with pytest.raises(ValueError, match=r"extend=True takes a store on; pass store="):
        run(None, 50, 5, extend=True)
    with pytest.raises(TypeError, match="extend must be True or False"):
        run(tmp_path / "a.zarr", 50, 5, extend=1)


def test_other_versions_are_refused(tmp_path, monkeypatch):
    run(tmp_path / "a.zarr", 50, 5)
    monkeypatch.setattr("sdegen.core.fingerprint.version", lambda name: "9.9")
    with pytest.raises(ValueError, match=r"\w+ is .* there and 9\.9 here; go on with the vers"):
        run(tmp_path / "a.zarr", 50, 9, extend=True)


def test_an_extension_is_ended_before_the_next(tmp_path, small_blocks, monkeypatch):
    run(tmp_path / "a.zarr", 1500, 5)
    with monkeypatch.context() as patch:
        patch.setattr(extension.EnsembleSpec, "run_block", lambda *a: 1 / 0)
        patch.setattr(Former, "block", lambda *a: None)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "a.zarr", 1500, 9, extend=True)
    with pytest.raises(ValueError, match=r"being extended to another run; end that first, with"):
        run(tmp_path / "a.zarr", 1500, 12, extend=True)
    run(tmp_path / "a.zarr", 1500, 9, resume=True)
    run(tmp_path / "a.zarr", 1500, 12, extend=True)
    run(tmp_path / "b.zarr", 1500, 12)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")
    assert re.search(r'"format": ?3', (tmp_path / "a.zarr/zarr.json").read_text())
    assert json.loads((tmp_path / "a.zarr/zarr.json").read_text())
