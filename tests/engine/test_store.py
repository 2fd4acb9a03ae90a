"""Stores: a killed run goes on to the same bits; another run, full disks and damage are told."""

import errno
import hashlib
import json
import random
import sys
import time

import numpy as np
import pytest
import torch
import xarray
import zarr

import sdegen as sg
from sdegen.engine import callables, store_layout
from sdegen.engine import store as stores

F64 = torch.float64
TIMES = [0.0, 0.1, 0.2]
WELL = sg.ItoProcess(lambda x, t: x - x**3, 0.7)
WANTED = (sg.Moments(), sg.FirstPassage(above=0.3))

# events of 256 numbers: blocks of 256 trajectories, some of them slow, whatever a block is
RUN = """
import hashlib, sys, time, torch, sdegen as sg
def drift(x, t):
    time.sleep(0.02)
    return x - x**3
def run(store):
    began = time.perf_counter()
    run = sg.run_ensemble(
        sg.ItoProcess(drift, 0.7), torch.zeros(1, 256), [0.0, 0.05, 0.1, 0.15, 0.2],
        trajectories=2600, solver=sg.EulerMaruyama(substeps=3), store=store, resume=True, rng=7,
        threads=2, observables=[sg.Moments(), sg.FirstPassage(above=0.3), sg.LocalTime(0.0),
        sg.Heat(), sg.MeanSquaredDisplacement(coordinates=[0, 7]), sg.PowerSpectrum(),
        sg.ResidenceTimes((-0.1, 0.1), (-0.2, 0.2), bins=9, from_start=True)], progress=False)
    moments, passage = run.observables["moments"], run.observables["first_passage"]
    functionals = run.observables["local_time"], run.observables["heat"]
    found = hashlib.sha256(moments.mean.numpy().tobytes() + moments.variance.numpy().tobytes())
    found.update(passage.waiting.numpy().tobytes() + repr(passage.exposure).encode())
    for one in functionals:
        found.update(one.mean.numpy().tobytes() + one.variance_error.numpy().tobytes())
    for name in ("displacement", "spectrum", "residence"):
        for value in vars(run.observables[name]).values():
            found.update(torch.as_tensor(value).contiguous().numpy())
    print(found.hexdigest(), time.perf_counter() - began, flush=True)
for store in sys.argv[1:]:
    run(store)
"""


def ensemble(path, **options):
    options = {"solver": sg.EulerMaruyama(substeps=5), "trajectories": 3000, "rng": 7} | options
    x0 = options.pop("x0", torch.zeros(1, 1))
    times, sde = options.pop("times", TIMES), options.pop("sde", WELL)
    return sg.run_ensemble(
        sde, x0, times, store=path, observables=options.pop("observables", WANTED),
        progress=False, **options,
    )  # fmt: skip


def chunks(path):
    """sha256 of every chunk of a store."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("c/**/*"))
        if file.is_file() and not file.name.startswith(".")
    }


@pytest.fixture(scope="module")
def whole(programs, tmp_path_factory):
    """The store of an unbroken run, its hash, and the seconds that it took."""
    store = tmp_path_factory.mktemp("whole") / "whole.zarr"
    return store, *programs.run(store, code=RUN).split()


def killed_and_resumed(programs, whole, folder, kills, seed):
    """Kills runs at random moments and resumes them: how many end in the bits of one unbroken."""
    store, expected, seconds = whole
    draw, there = random.Random(seed), {}
    for k in range(kills):
        path = folder / f"{k}.zarr"
        run = programs.start(path, code=RUN)
        # so many blocks are there, and a moment later: whatever else the machine does meanwhile
        records, count = path / "progress" / "records" / "c", draw.randrange(9)
        while run.poll() is None and (
            not path.exists() or (count and len(list(records.glob("*/0"))) < count)
        ):
            time.sleep(0.003)
        time.sleep(draw.uniform(0, float(seconds) / 11))
        run.kill()
        run.communicate()
        there[path] = chunks(path)
    caught = sum(
        sum(name.startswith("progress") for name in before) < 11 for before in there.values()
    )
    printed = programs.run(*there, code=RUN)  # by one that knows nothing of those that died
    equal = 0
    for (path, before), line in zip(there.items(), printed.splitlines(), strict=True):
        assert before.items() <= chunks(path).items()  # nothing that was done is done again
        equal += line.split()[0] == expected and chunks(path) == chunks(store)
    return equal, caught


def test_kill_9_and_resume(programs, whole, tmp_path):
    equal, caught = killed_and_resumed(programs, whole, tmp_path, 2, seed=0)
    assert equal == 2
    assert caught >= 1


@pytest.mark.slow
def test_kill_9_at_six_moments(programs, whole, tmp_path):
    equal, caught = killed_and_resumed(programs, whole, tmp_path, 6, seed=1)
    assert equal == 6
    assert caught >= 3


def test_xarray_opens_it_with_named_dimensions(tmp_path, small_blocks):
    run = ensemble(tmp_path / "run.zarr", x0=torch.zeros(1, 2))
    for dataset in (run.open(), xarray.open_zarr(tmp_path / "run.zarr")):
        assert dataset.states.dims == ("time", "trajectory", "coordinate")
        assert dict(dataset.sizes) == {"time": 3, "trajectory": 3000, "coordinate": 2}
        assert dataset.nonfinite.dims == ("trajectory",)
        np.testing.assert_allclose(
            dataset.states.sel(time=0.1).mean("trajectory"), run.observables["moments"].mean[1],
            rtol=1e-4, atol=1e-6,
        )  # fmt: skip
    images = ensemble(tmp_path / "images.zarr", x0=torch.zeros(1, 2, 3), trajectories=5)
    assert images.open().states.dims == ("time", "trajectory", "axis_0", "axis_1")


def test_the_run_is_described_in_its_attributes(tmp_path, small_blocks):
    ensemble(tmp_path / "run.zarr")
    about = zarr.open_group(tmp_path / "run.zarr", mode="r").attrs["sdegen"]
    run = about["run"]
    assert (run["seed"], run["trajectories"], run["dtype"]) == (7, 3000, "torch.float32")
    assert run["solver"]["class"] == "EulerMaruyama"
    assert run["solver"]["substeps"] == 5
    assert list(run["observables"]) == ["moments", "first_passage"]
    assert about["versions"]["torch"] == torch.__version__
    assert json.dumps(about)


def test_one_chunk_for_each_block(tmp_path, small_blocks):
    ensemble(tmp_path / "run.zarr")
    names = set(chunks(tmp_path / "run.zarr"))
    for b in range(3):
        assert {f"states/c/0/{b}/0", f"progress/records/c/{b}/0"} <= names
    array = zarr.open_array(tmp_path / "run.zarr" / "states", mode="r")
    assert array.chunks == (3, 1024, 1)


# --- another run


def _sigma(x, t):
    return 0.5 + 0 * x


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rng": 8}, "seed is 7 there and 8 here"),
        ({"trajectories": 3001}, "trajectories is 3000 there and 3001 here"),
        ({"times": [0.0, 0.1, 0.3]}, r"times end at 0\.2 there and 0\.3 here"),
        ({"times": [0.1, 0.2, 0.3]}, r"times begin at 0 there and 0\.1 here, end at 0\.2 there"),
        ({"times": [0.0, 0.15, 0.2]}, r"times\[1\] is 0\.1 there and 0\.15 here"),
        ({"times": torch.linspace(0, 0.2, 9, dtype=F64)}, "times are 3 there and 9 here"),
        (
            {"times": [0.0, 0.15, 0.2], "keep_path": False},
            "times between the first and the last are others",
        ),
        ({"solver": sg.EulerMaruyama(substeps=6)}, "solver.substeps is 5 there and 6 here"),
        ({"solver": sg.Heun(substeps=5)}, "solver is EulerMaruyama there and Heun here"),
        (
            {"sde": sg.ItoProcess(lambda x, t: x - x**3, 0.8)},
            r"the diffusion is 0\.7 there and 0\.8 here",
        ),
        ({"sde": sg.ItoProcess(lambda x, t: x - x**5, 0.7)}, "the code of the drift is another"),
        (
            {"sde": sg.ItoProcess(lambda x, t: x - x**3, _sigma)},
            r"sde\.noise is additive there and multiplicative here",
        ),
        ({"x0": torch.ones(1, 1)}, r"x0 is \[\[0\.0\]\] there and \[\[1\.0\]\] here"),
        ({"x0": torch.zeros(1, 1, dtype=F64)}, "dtype is torch.float32 there and torch.float64"),
        ({"observables": WANTED[:1]}, "observables.first_passage is only there"),
        ({"boundary": sg.Reflecting(-1, 1)}, "boundary is None there"),
        ({"on_nonfinite": "freeze"}, "on_nonfinite is raise there and freeze here"),
        ({"keep_path": False}, "keep_path is True there and False here"),
    ],
)
def test_another_run_is_refused_with_the_difference(tmp_path, small_blocks, options, told):
    ensemble(tmp_path / "run.zarr")
    before = chunks(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=rf"run\.zarr holds another run: {told}.*another store"):
        ensemble(tmp_path / "run.zarr", resume=True, **options)
    assert chunks(tmp_path / "run.zarr") == before


def test_other_versions_are_refused(tmp_path, small_blocks, monkeypatch):
    ensemble(tmp_path / "run.zarr")
    monkeypatch.setattr("sdegen.core.fingerprint.version", lambda name: "9.9")
    with pytest.raises(
        ValueError, match=r"another run: \w+ is .* there and 9\.9 here; go on with"
    ):
        ensemble(tmp_path / "run.zarr", resume=True)


def test_another_kind_of_processor_is_refused(tmp_path, small_blocks, monkeypatch):
    ensemble(tmp_path / "run.zarr")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    with pytest.raises(ValueError, match=r"cpu is \w+ there and OTHER here; go on with the vers"):
        ensemble(tmp_path / "run.zarr", resume=True)


def test_a_drift_that_counts_is_told_from_itself(tmp_path, small_blocks, monkeypatch):
    class Counting:
        calls = 0

        def __call__(self, x, t):
            self.calls += 1
            return -x

    # how far a pilot goes follows measured seconds, and it calls the drift: here it goes nowhere
    monkeypatch.setattr(callables, "check_steps", lambda *a, **k: None)
    monkeypatch.setattr(callables, "_is_dear", lambda *a: False)
    sde = sg.ItoProcess(Counting(), 0.7)
    ensemble(tmp_path / "run.zarr", sde=sde)
    told = (
        r"holds another run: calls of the drift is \d+ there and \d+ here; take another "
        r"store, .*; if they are those, what counts its calls must be made anew"
    )
    with pytest.raises(ValueError, match=told):
        ensemble(tmp_path / "run.zarr", sde=sde, resume=True)
    ensemble(tmp_path / "run.zarr", sde=sg.ItoProcess(Counting(), 0.7), resume=True)


def test_a_number_that_a_drift_closes_over_is_named_by_its_name(tmp_path, small_blocks):
    """In the words of who wrote it: neither closures, nor counters where nothing counts."""

    def pulled(k):
        return sg.ItoProcess(lambda x: -k * x, 0.7)

    ensemble(tmp_path / "run.zarr", sde=pulled(1.0))
    told = (
        r"run\.zarr holds another run: k of the drift is 1\.0 there and 2\.0 here; take another "
        r"store, or the arguments of that run\.$"
    )
    with pytest.raises(ValueError, match=told):
        ensemble(tmp_path / "run.zarr", sde=pulled(2.0), resume=True)


def test_moments_of_a_store_of_format_2_have_no_errors(tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    wanted = [sg.Moments(errors=False), sg.FirstPassage(above=0.3)]
    first = ensemble(path, observables=wanted)
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["sdegen"]["format"] = 2
    del about["attributes"]["sdegen"]["run"]["observables"]["moments"]["errors"]
    (path / "zarr.json").write_text(json.dumps(about))
    told = (
        r"observables\.moments\.errors is False there and True here; take .* arguments of that run"
    )
    with pytest.raises(ValueError, match=told):
        ensemble(path, resume=True)
    again = ensemble(path, resume=True, observables=wanted)
    assert torch.equal(first.observables["moments"].mean, again.observables["moments"].mean)


def test_records_of_another_size_are_refused(tmp_path, small_blocks):
    ensemble(tmp_path / "run.zarr")
    records = zarr.open_array(tmp_path / "run.zarr" / "progress" / "records", mode="r+")
    records.resize((3, records.shape[1] - 8))
    told = r"holds records of \d+ bytes, .* gather \d+: .*; go on with the version that began it"
    with pytest.raises(ValueError, match=told):
        ensemble(tmp_path / "run.zarr", resume=True)


@pytest.mark.parametrize("store", [3, 0.5, ["run.zarr"], True])
def test_what_names_no_folder_is_refused(store):
    with pytest.raises(
        TypeError, match=r'store must be the path of a folder, such as "run\.zarr"'
    ):
        ensemble(store)


def test_what_is_there_is_not_overwritten(tmp_path, small_blocks):
    ensemble(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"run\.zarr exists; pass resume=True to go on with it"):
        ensemble(tmp_path / "run.zarr")
    (tmp_path / "other").mkdir()
    zarr.create_group(tmp_path / "theirs")
    for resume in (False, True):
        for name in ("other", "theirs"):
            with pytest.raises(ValueError, match=f"{name} is there, but is no store of a run"):
                ensemble(tmp_path / name, resume=resume)


def test_the_seed_of_a_store_is_known(tmp_path, small_blocks):
    first = ensemble(tmp_path / "run.zarr", rng=None)
    (tmp_path / "run.zarr" / "progress" / "records" / "c" / "1" / "0").unlink()
    again = ensemble(tmp_path / "run.zarr", rng=None, resume=True)
    assert again.seed == first.seed
    assert torch.equal(
        again.observables["moments"].variance, first.observables["moments"].variance
    )


# --- disks and damage


def test_a_full_disk_is_seen_before_the_run(tmp_path, small_blocks, monkeypatch):
    small = store_layout.shutil.disk_usage(tmp_path)._replace(free=30_000)
    monkeypatch.setattr(store_layout.shutil, "disk_usage", lambda path: small)
    told = r"the store needs 36\.\d KiB, but 29\.3 KiB are free on this disk; keep fewer times"
    with pytest.raises(OSError, match=told) as caught:
        ensemble(tmp_path / "run.zarr")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_is_done(tmp_path, small_blocks, monkeypatch):
    """The write of the third block's states fails; resumed, the run ends in the same bits."""
    whole = ensemble(tmp_path / "whole.zarr")
    write, calls = store_layout.atomic_write, []

    def full(path, content):
        if "states/c" in str(path):
            calls.append(path)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, "No space left on device: 11,424 bytes were needed")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store_layout, "atomic_write", full)
        told = "No space left on device: 11,424 bytes were needed. The run needs 12.* more; what"
        with pytest.raises(OSError, match=told):
            ensemble(tmp_path / "run.zarr")
    assert len([n for n in chunks(tmp_path / "run.zarr") if n.startswith("progress")]) == 2
    again = ensemble(tmp_path / "run.zarr", resume=True)
    assert chunks(tmp_path / "run.zarr") == chunks(tmp_path / "whole.zarr")
    assert torch.equal(again.observables["moments"].mean, whole.observables["moments"].mean)


def test_a_read_only_disk(tmp_path, small_blocks, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(stores.tempfile, "mkdtemp", refuse)
        with pytest.raises(OSError, match=r"Read-only file system\. The run needs .* more"):
            ensemble(tmp_path / "run.zarr")
    ensemble(tmp_path / "run.zarr")
    monkeypatch.setattr(stores.os, "access", lambda path, mode: False)
    ensemble(tmp_path / "run.zarr", resume=True)  # nothing is missing: it is only read
    (tmp_path / "run.zarr" / "progress" / "records" / "c" / "1" / "0").unlink()
    with pytest.raises(PermissionError, match="cannot be written to, and the run is not done"):
        ensemble(tmp_path / "run.zarr", resume=True)


def test_damage_is_seen(tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    first = ensemble(path)
    record = path / "progress" / "records" / "c" / "1" / "0"
    states = path / "states" / "c" / "0" / "1" / "0"
    whole = record.read_bytes()
    for wrong in (b"", whole[:-9], b"x" + whole[1:], whole[:9] + b"x" + whole[10:]):
        record.write_bytes(wrong)  # the block is computed again
        again = ensemble(path, resume=True)
        assert record.read_bytes() == whole
        assert torch.equal(first.observables["moments"].mean, again.observables["moments"].mean)
    flipped = bytearray(states.read_bytes())
    flipped[100] ^= 1
    states.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"(?i)crc|checksum"):
        _ = first.open().states.values


def test_leftovers_of_a_kill_are_taken_away(tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    ensemble(path)
    (path / "progress" / "records" / "c" / "1" / "0").unlink()
    left = path / "states" / "c" / "0" / "1" / ".0.abcd.tmp"
    left.write_bytes(b"half")
    ensemble(path, resume=True)
    assert not left.exists()


def test_without_zarr_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"store= needs zarr, .* pip install 'sdegen\[io\]'"):
        ensemble(tmp_path / "run.zarr")
    assert sg.run_ensemble(
        WELL, torch.zeros(1, 1), TIMES, trajectories=5, observables=WANTED, progress=False
    ).trajectories == 5  # fmt: skip
