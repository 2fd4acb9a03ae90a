"""Ensembles: the states of simulate, the same bits whoever computes them, and refusals."""

import hashlib
import itertools
import signal
import threading

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.engine import memory
from sdegen.engine.plan import EnsembleSpec
from sdegen.engine.ranks import Ranks

F64 = torch.float64
TIMES = [0.0, 0.1, 0.2]
EULER = sg.EulerMaruyama(substeps=5)
WELL = sg.ItoProcess(lambda x, t: x - x**3, 0.7)
WANTED = (
    sg.Moments(),
    sg.Histogram(-2.0, 2.0, 11),
    sg.TimeCorrelation(),
    sg.FirstPassage(above=0.3),
    sg.ProbabilityCurrent(-1.0, 1.0, 5),
    sg.TimeIntegral(lambda x: x),
    sg.LocalTime(0.0, temperature=1.0, histogram=(0.0, 1.0, 5)),
    sg.StochasticIntegral(torch.sin, "stratonovich"),
)


def ensemble(x0=None, n=3000, sde=WELL, **options):
    options = {"solver": EULER, "observables": WANTED, "rng": 7, "progress": False} | options
    x0 = torch.zeros(1, 1) if x0 is None else x0
    return sg.run_ensemble(sde, x0, TIMES, trajectories=n, **options)


def digest(run):
    """One sha256 of all numbers of all results."""
    total = hashlib.sha256()
    for name, result in run.observables.items():
        for field, value in vars(result).items():
            value = getattr(value, "counts", value)
            tensor = torch.as_tensor(0 if value is None else value).contiguous()
            total.update(f"{name}.{field}".encode() + tensor.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_the_states_are_those_of_simulate(tmp_path, small_blocks, dtype, shape):
    x0 = torch.linspace(-1, 1, 3000).to(dtype).reshape(-1, *[1] * len(shape)).repeat(1, *shape)
    run = ensemble(x0, store=tmp_path / "run.zarr")
    path = sg.simulate(WELL, x0, TIMES, solver=EULER, rng=7)
    stored = run.open()
    assert stored.states.dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(torch.from_numpy(stored.states.values), path.states)
    assert torch.equal(torch.tensor(stored.time.values), path.times)
    assert (run.seed, run.nfe, run.trajectories, run.nonfinite) == (7, path.nfe, 3000, 0)
    torch.testing.assert_close(
        run.observables["moments"].mean, path.states.double().mean(1), rtol=1e-12, atol=1e-14
    )


def test_one_row_is_where_all_start(tmp_path, small_blocks):
    one = torch.tensor([[0.5]], dtype=F64)
    first = ensemble(one, store=tmp_path / "one.zarr").open().states.values
    second = ensemble(one.repeat(3000, 1), store=tmp_path / "all.zarr").open().states.values
    assert (first == second).all()


def test_a_function_makes_each_block_from_a_stream_of_its_own(tmp_path, small_blocks):
    mixture = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.2)

    def start(rows, rng):
        return mixture.sample(rows, rng=rng)

    run = ensemble(start, store=tmp_path / "run.zarr")
    states = torch.from_numpy(run.open().states.values)
    assert len(states[0].unique()) == 3000  # no two blocks start alike
    more = ensemble(start, n=5000, store=tmp_path / "more.zarr")
    # a full block does not know how many others there are
    assert torch.equal(states[:, :2048], torch.from_numpy(more.open().states.values)[:, :2048])
    again = ensemble(start)
    assert digest(again) == digest(run)
    assert digest(ensemble(start, rng=8)) != digest(run)


def test_last_states_alone(tmp_path, small_blocks):
    whole = ensemble(store=tmp_path / "whole.zarr")
    last = ensemble(store=tmp_path / "last.zarr", keep_path=False)
    assert last.open().states.shape == (1, 3000, 1)
    assert (last.open().states.values[0] == whole.open().states.values[-1]).all()
    assert digest(last) == digest(whole)


def test_one_result_over_threads_and_stores(tmp_path, small_blocks):
    found = {
        digest(ensemble(threads=threads, store=store))
        for threads, store in ((1, None), (2, None), (3, tmp_path / "a.zarr"), (None, None))
    }
    assert len(found) == 1
    # one block on many threads too, where torch would share sums among them
    torch.set_num_threads(2)
    try:
        one = {digest(ensemble(n=900, threads=threads)) for threads in (1, 2)}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert len(one) == 1


def test_one_result_over_orders_of_the_blocks(tmp_path, small_blocks, monkeypatch):
    """Blocks that come in another order: those of a store from which some were lost."""
    path = tmp_path / "run.zarr"
    run = ensemble(store=path)
    assert (path / "progress/records/c").exists()
    for lost in ((0,), (2,), (0, 1), (1,)):
        for b in lost:
            (path / "progress" / "records" / "c" / str(b) / "0").unlink()
        computed = []
        solved = EnsembleSpec.run_block

        def counting(self, b, *rest, computed=computed, solved=solved):
            computed.append(b)
            return solved(self, b, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(EnsembleSpec, "run_block", counting)
            again = ensemble(store=path, resume=True)
        assert sorted(computed) == list(lost)
        assert digest(again) == digest(run)


def test_interacting_trajectories_go_whole(small_blocks):
    field = sg.ItoProcess(lambda x: x.mean(0) - x, 0.5)
    x0 = torch.ones(1, 1, dtype=F64)
    found = ensemble(x0, sde=field)
    told = ensemble(x0, sde=field, interacting=True)
    cut = ensemble(x0, sde=field, interacting=False)
    assert digest(found) == digest(told) != digest(cut)
    path = sg.simulate(field, x0.repeat(3000, 1), TIMES, solver=EULER, rng=7)
    torch.testing.assert_close(
        found.observables["moments"].mean, path.states.mean(1), rtol=1e-13, atol=1e-15
    )


def test_lost_trajectories_are_in_no_observable(small_blocks):
    """dx = x³ dt, half of them explode: the rest is as if the others had never been there."""
    rise = sg.ItoProcess(lambda x: x**3, 0.01)
    x0 = torch.linspace(0, 40, 3000, dtype=F64)[:, None]
    run = ensemble(x0, sde=rise, on_nonfinite="freeze")
    path = sg.simulate(rise, x0, TIMES, solver=EULER, rng=7, on_nonfinite="freeze")
    assert 1000 < run.nonfinite == int(path.nonfinite.sum()) < 2900
    kept = path.states[:, ~path.nonfinite]
    moments, histogram = run.observables["moments"], run.observables["histogram"]
    torch.testing.assert_close(moments.mean, kept.mean(1), rtol=1e-12, atol=0)
    assert moments.count == histogram.count == kept.shape[1]
    none = ensemble(torch.full((1, 1), 40.0, dtype=F64), sde=rise, on_nonfinite="freeze")
    assert none.nonfinite == 3000
    assert none.observables["moments"] is None


def test_explosions_say_which_block_and_leave_what_is_done(tmp_path, small_blocks):
    rise = sg.ItoProcess(lambda x: x**3, 0.01)
    x0 = torch.zeros(3000, 1, dtype=F64)
    x0[2500] = 40.0
    with pytest.raises(
        sg.NonFiniteError,
        match=r"1 of 952 trajectories of block 2 non-finite by t "
        r"= 0\.2\. Take smaller.*2 of 3 blocks are done\. They are in",
    ) as caught:
        ensemble(x0, sde=rise, store=tmp_path / "run.zarr")  # fmt: skip
    done = caught.value.result
    assert done.trajectories == 2048
    assert done.observables["moments"].count == 2048
    assert digest(done) == digest(ensemble(x0[:2048], n=2048, sde=rise))


def test_ctrl_c_leaves_what_is_done(tmp_path, small_blocks):
    """SIGINT in the third of six blocks; then the rest, and the bits of a run that was not cut."""
    calls = itertools.count()

    def drift(x, t):
        if len(x) == 1024 and next(calls) == 24:  # ten for each block
            signal.raise_signal(signal.SIGINT)
        return x - x**3

    assert threading.current_thread() is threading.main_thread()
    sde, path = sg.ItoProcess(drift, 0.7), tmp_path / "run.zarr"
    told = r"interrupted: 2 of 6 blocks are done\. They are in .*resume=True goes on"
    with pytest.raises(sg.Interrupted, match=told) as caught:
        ensemble(sde=sde, n=6000, store=path, threads=1)
    assert caught.value.result.trajectories == 2048
    gone_on = ensemble(sde=sde, n=6000, store=path, resume=True)
    assert digest(gone_on) == digest(ensemble(n=6000))
    assert next(calls) <= 25 + 5 + 40  # the first two blocks were not computed again


# --- refusals


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"n": 0}, ValueError, "trajectories must be ≥ 1, but is 0"),
        ({"n": -5}, ValueError, "trajectories must be ≥ 1, but is -5"),
        ({"n": 1e6}, TypeError, r"trajectories must be an int, but is 1000000\.0; a million is"),
        ({"n": True}, TypeError, "trajectories must be an int, but is True"),
        ({"threads": 0}, ValueError, "threads must be ≥ 1, but is 0"),
        (
            {"n": 2**50},
            ValueError,
            r"must be ≤ 4\.4e\+12, the 4294967296 blocks of 1024 .*, but is 1\.13e\+15; run some",
        ),
        (
            {"observables": [sg.Moments(name="")]},
            ValueError,
            "Moments has the name '', but its result must be called something",
        ),
        ({"observables": ()}, ValueError, r"nothing would be kept: pass observables=\[Moments"),
        ({"resume": True}, ValueError, r"resume=True goes on with a store; pass store="),
        ({"x0": torch.zeros(7, 1)}, ValueError, "x0 has 7 rows for 3000 trajectories; pass one"),
        ({"x0": 0.0}, TypeError, "x0 must be a tensor of shape"),
        ({"x0": lambda rows, rng: torch.zeros(5, 1)}, ValueError, r"x0\(4, rng=…\) returned 5 r"),
        (
            {"x0": lambda rows, rng: torch.zeros(rows)},
            ValueError,
            r"what x0\(4, rng=…\) returned must have shape \(batch, \*event\)",
        ),
        (
            {"x0": lambda rows, rng: torch.zeros(rows, 1 if rows < 9 else 2)},
            ValueError,
            r"x0\(1024, rng=…\) returned shape \(1024, 2\).*but x0\(4, rng=…\) shape \(4, 1\)",
        ),
        (
            {
                "x0": lambda rows, rng: torch.full((rows, 1), 0.0 if rows < 9 else 3.0),
                "boundary": sg.Reflecting(-1, 1),
            },
            ValueError,
            r"x0\(1024, rng=…\) returned must start inside the boundary \[-1, 1\], but",
        ),
        (
            {"x0": lambda rows, rng: torch.rand(rows, 1)},
            ValueError,
            r"x0\(rows, rng=…\) returned other states for the same rng, so that no seed would",
        ),
        ({"on_nonfinite": "ignore"}, ValueError, "on_nonfinite must be 'raise' or 'freeze'"),
        ({"sde": lambda x: -x}, TypeError, "sde must be an SDE, but is function"),
    ],
)
def test_refusals(options, kind, told, as_user, small_blocks):
    with pytest.raises(kind, match=told):
        ensemble(**options)


class _Own(sg.Observable):
    """One whose partial is given, and whose result has a slip."""

    name = "own"

    def __init__(self, **partial):
        self.partial = partial

    def measure(self, states, times):
        return self.partial

    def result(self, total, times):
        return total["slip"]


def test_a_slip_in_a_result_is_told_before_the_run(as_user):
    steps = []

    def drift(x):
        steps.append(len(x))
        return -x

    with pytest.raises(KeyError, match="slip") as caught:
        ensemble(sde=sg.ItoProcess(drift, 0.5), observables=[_Own(sums=torch.ones(1))])
    assert "in observable 'own'" in caught.value.__notes__
    assert steps.count(3000) <= 2  # those of the probe, and none of the run
    with pytest.raises(TypeError, match=r"'own' must gather a dict of tensors by name, .* \{\}"):
        ensemble(observables=[_Own()])


def test_what_few_trajectories_cannot_give_is_no_slip(as_user):
    class Skewness(_Own):
        def result(self, total, times):
            if int(total["count"]) < 100:
                raise ValueError("too few")
            return total["count"]

        def measure(self, states, times):
            return {"count": torch.tensor(states.shape[1])}

    assert int(ensemble(observables=[Skewness()]).observables["own"]) == 3000


def test_an_error_in_the_start_says_where(as_user):
    with pytest.raises(TypeError, match=r"x0\(rows, rng=generator\).* without an argument rng"):
        ensemble(lambda rows: torch.zeros(rows, 1))

    def fails(rows, rng):
        raise KeyError("no such start")

    with pytest.raises(KeyError, match="no such start") as caught:
        ensemble(fails)
    told = (
        "in x0(rows, rng=…), called with rows = 4 and a generator on the CPU: what is drawn from"
    )
    assert any(note.startswith(told) for note in caught.value.__notes__)


def test_memory_is_estimated_before_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 2**20)
    x0, many = torch.zeros(1, 1), torch.linspace(0, 1, 10**4)
    told = r"2 blocks of \d+ trajectories at 10000 times need about .* GiB, but .* pass fewer thr"
    with pytest.raises(MemoryError, match=told):
        sg.run_ensemble(WELL, x0, many, trajectories=10**7, store=tmp_path / "run.zarr", threads=2)
    assert not (tmp_path / "run.zarr").exists()
    # before anything is gathered, and for all processes of a machine together
    never = _Own(sums=torch.ones(1))
    never.measure = lambda states, times: pytest.fail("a path was walked")
    two = Ranks(here=2)
    told = r"^2 processes with 1 blocks of \d+ trajectories at 1000 times need about"
    plan = {"trajectories": 10**7, "store": tmp_path / "run.zarr", "threads": 1}
    with pytest.raises(MemoryError, match=told):
        sg.run_ensemble(WELL, x0, many[:1000], observables=[never], ranks=two, **plan)
    field = sg.ItoProcess(lambda x: x.mean(0) - x, 0.5)
    told = r"^10000000 trajectories at 3 times, which run together, as they depend .* pass fewer t"
    with pytest.raises(MemoryError, match=told):
        ensemble(n=10**7, sde=field, threads=2)


def test_numbers_of_numpy_are_numbers():
    run = ensemble(n=np.int64(100), threads=np.int64(1))
    assert (run.trajectories, digest(run)) == (100, digest(ensemble(n=100)))


def test_one_of_several_processes_does_not_run_all(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = r"torchrun started 4 processes, and each would run all .*ranks=ranks"
    with pytest.raises(ValueError, match=told):
        ensemble(n=10)
    assert ensemble(n=10, ranks=Ranks()).trajectories == 10


def test_nothing_stored_is_not_opened():
    with pytest.raises(ValueError, match=r"no states were stored; pass store="):
        ensemble(n=10).open()
