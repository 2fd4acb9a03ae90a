"""Bad requests: each is refused before the first step, and told what to do."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.engine import memory

F64 = torch.float64
X = torch.ones(3, 2, dtype=F64)
TIMES = [0.0, 0.5, 1.0]
OU = sg.OrnsteinUhlenbeck()
VP = sg.VP(sg.LinearBeta(0.1, 20.0))

pytestmark = pytest.mark.usefixtures("as_user")  # bad arguments meet our messages, not jaxtyping's


def _of(drift, diffusion=0.7, **keywords):
    return sg.ItoProcess(drift, diffusion, **keywords)


def _rows(x, value):
    """x, with a value in row 1."""
    y = x.clone()
    y[1] = value
    return y


def _raises(x):
    raise RuntimeError("my own drift")


# --- what drift and diffusion return


@pytest.mark.parametrize(
    ("sde", "kind", "message"),
    [
        (
            _of(lambda x: 1.0),
            TypeError,
            "drift must return a tensor, but returned float; use torch.f",
        ),
        (_of(lambda x: (x, x)), TypeError, "drift must return a tensor, but returned tuple"),
        (_of(lambda x: None), TypeError, "drift must return a tensor, but returned NoneType"),
        (_of(lambda x: x, lambda x: 1.0), TypeError, "diffusion must return a tensor, .* float"),
        (
            _of(lambda x: x[:, 0]),
            ValueError,
            r"drift returned shape \(3,\) for x of shape \(3, 2\)",
        ),
        (_of(lambda x: x.sum(1, True)), ValueError, r"drift returned shape \(3, 1\).* in silence"),
        (_of(lambda x: x.sum()), ValueError, r"drift returned shape \(\) for x of shape \(3, 2\)"),
        (
            _of(lambda x: x, lambda x: torch.ones(3, 2, 2, dtype=F64)),
            ValueError,
            r"diffusion returned shape \(3, 2, 2\), which does not broadcast .* noise matrix",
        ),
        (
            _of(lambda x: x, lambda x: x[:, 0]),
            ValueError,
            r"diffusion returned shape \(3,\), which",
        ),
        (
            _of(lambda x: x.float()),
            TypeError,
            r"drift returned dtype torch.float32 for x of dtype torch.float64; end it with",
        ),
        (
            _of(lambda x: x, lambda x: x.float()),
            TypeError,
            "diffusion returned dtype torch.float32",
        ),
        (
            _of(lambda x: torch.empty(x.shape, dtype=x.dtype, device="meta")),
            TypeError,
            r"drift returned a tensor on meta for x on cpu; move its const",
        ),
        (
            _of(lambda x: _rows(x, math.nan)),
            ValueError,
            r"drift is not finite at t = 0: row 1 of x is \[1.0, 1.0\] and drift gives",
        ),
        (_of(lambda x, t: x / t), ValueError, "drift is not finite at t = 0: row 0 of x"),
        (
            _of(lambda x: x, lambda x: _rows(x, math.inf)),
            ValueError,
            "diffusion is not finite at t =",
        ),
        (_of(lambda x: x.mul_(-1)), ValueError, "the drift changed x in place; write x = x"),
        (_of(lambda x: x, lambda x: x.add_(1)), ValueError, "the diffusion changed x in place"),
        (
            _of(lambda x: x, lambda x, t: 1 + x * x, noise="additive"),
            ValueError,
            "says noise = 'additive', but its diffusion is another at x . 1 than at x, at t = 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(sde, kind, message):
    before = X.clone()
    with pytest.raises(kind, match=message):
        sg.simulate(sde, X, TIMES, rng=0)
    assert torch.equal(X, before)


def test_a_noise_free_sde_must_not_have_noise():
    class Own(sg.SDE):
        noise = "none"

        def drift(self, x, t):
            return -x

        def diffusion(self, x, t):
            return torch.tensor(0.5)

    with pytest.raises(ValueError, match=r"Own says noise = 'none', but its diffusion is 0\.5"):
        sg.simulate(Own(), X, TIMES)


def test_a_0d_number_may_have_any_dtype():
    sde = _of(lambda x: -x, lambda x, t: torch.tensor(0.5), noise="additive")
    assert sg.simulate(sde, X, TIMES, rng=0).final.dtype == F64


def test_errors_of_the_users_own_pass_through_with_a_note():
    with pytest.raises(RuntimeError, match="my own drift") as caught:
        sg.simulate(_of(_raises), X, TIMES, rng=0)
    assert str(caught.value) == "my own drift"
    assert "in the drift, called with 3 rows of x0 before the first step, at t = 0." in str(
        caught.value.__notes__[0]
    )

    def later(x, t):
        return _raises(x) if t > 0.6 else -x

    with pytest.raises(RuntimeError, match="my own drift") as caught:
        sg.simulate(_of(later), X, TIMES, rng=0, solver=sg.EulerMaruyama(substeps=2))
    assert caught.value.__notes__ == ["in step 3 of 4, at t = 0.75"]


def test_the_probe_looks_at_few_rows_and_is_not_counted(monkeypatch):
    # whether a drift is too dear for more is measured: a loaded machine shall not decide
    monkeypatch.setattr("sdegen.engine.callables._is_dear", lambda *_: False)
    seen = []

    def drift(x, t):
        seen.append(len(x))
        return -x

    path = sg.simulate(_of(drift), torch.ones(1000, 1), TIMES, rng=0)
    assert seen[-2:] == [1000, 1000]
    assert path.nfe == 2
    # a few rows twice, one more and one less, and in two orders; all of them likewise in two; and
    # those of the pilot
    assert seen[:6] == [4, 4, 5, 3, 4, 4]
    assert seen[:-2].count(1000) == 2
    assert set(seen) == {3, 4, 5, 256, 1000}


# --- the start


@pytest.mark.parametrize(
    ("x0", "kind", "message"),
    [
        ("here", TypeError, r"x0 must be a tensor of shape \(batch, \*event\), .* but is 'here'"),
        (np.ones((2, 1), dtype=object), TypeError, "but is a NumPy array"),
        (
            torch.ones(2, 1, dtype=torch.float16),
            TypeError,
            "is lost beside x; keep the state in fl",
        ),
        (torch.ones(2, 1, dtype=torch.bfloat16), TypeError, r"network under torch\.autocast"),
        (
            torch.ones(2, 1, dtype=torch.int64),
            TypeError,
            "must be float32 or float64, but has dtype",
        ),
        (torch.ones(2, 1, dtype=torch.complex64), TypeError, "must be float32 or float64"),
        (torch.ones(5), ValueError, r"must have shape \(batch, \*event\), .* pass x0\[:, None\]"),
        (torch.ones(0, 2), ValueError, r"x0 is empty: its shape is \(0, 2\)"),
        (
            torch.tensor([[1.0], [math.nan], [math.inf]]),
            ValueError,
            "x0 is not finite in 2 of 3 rows, the first is row 1",
        ),
    ],
)
def test_what_is_no_state_is_refused(x0, kind, message):
    with pytest.raises(kind, match=message):
        sg.simulate(OU, x0, TIMES, rng=0)


# --- times


@pytest.mark.parametrize(
    ("times", "kind", "message"),
    [
        (
            "0 to 1",
            TypeError,
            r"times must be a tensor or a list of numbers, but is str; pass torch",
        ),
        (1.0, TypeError, "times must be a tensor or a list of numbers, but is float"),
        (None, TypeError, "but is NoneType"),
        (["0", "1"], TypeError, "times must be numbers: "),
        ([0.0], ValueError, r"must be a list of at least two times, but has shape \(1,\)"),
        ([], ValueError, r"must be a list of at least two times, but has shape \(0,\)"),
        (torch.tensor(1.0), ValueError, r"but has shape \(\)"),
        ([[0.0, 1.0]], ValueError, r"but has shape \(1, 2\)"),
        ([0.0, math.nan, 1.0], ValueError, r"times must be finite, but times\[1\] = nan"),
        ([0.0, 1.0, math.inf], ValueError, r"times must be finite, but times\[2\] = inf"),
        (
            [0.0, 0.5, 0.5, 1.0],
            ValueError,
            r"strictly monotone, but times\[1\]=0\.5 is followed by 0\.5; pass torch\.linspace",
        ),
        ([0.0, 0.7, 0.6, 1.0], ValueError, r"times\[1\]=0\.7 is followed by 0\.6"),
        ([1.0, 0.6, 0.7, 0.0], ValueError, r"times\[1\]=0\.6 is followed by 0\.7"),
        ([0.0, 0.0], ValueError, r"times\[0\]=0 is followed by 0"),
        ([0.0, 1.0, 0.0], ValueError, r"times\[1\]=1 is followed by 0"),
    ],
)
def test_what_are_no_times_is_refused(times, kind, message):
    with pytest.raises(kind, match=message):
        sg.simulate(OU, X, times, rng=0)


@pytest.mark.parametrize(
    "times",
    [
        [0, 1, 2],
        range(3),
        (0.0, 1.0, 2.0),
        np.arange(3),
        np.arange(3, dtype=np.float32),
        torch.arange(3),
    ],
)
def test_times_come_in_many_kinds(times):
    path = sg.simulate(_of(lambda x: torch.ones_like(x), 0.0), X, times)
    assert (path.times.dtype, path.times.tolist()) == (F64, [0.0, 1.0, 2.0])
    assert path.states[:, 0, 0].tolist() == [1.0, 2.0, 3.0]


def test_times_rounded_to_float32_are_still_in_range():
    sde = sg.VP(sg.CosineBeta())  # float32(0.999) is beyond 0.999
    grid = sde.time_grid(10).float()
    reverse = sg.ReverseSDE(sde, lambda x, t: -x)
    assert sg.simulate(reverse, X, grid, rng=0).final.isfinite().all()
    assert len(sg.DDPM.discretize(sde, times=grid).a) == 10


# --- dynamics, solver and walls that do not go together


@pytest.mark.parametrize(
    ("sde", "times", "message"),
    [
        (
            OU,
            [1.0, 0.0],
            r"times decrease, but OrnsteinUhlenbeck is a noisy SDE .* not its time reversal. B",
        ),
        (
            sg.ReverseSDE(VP, lambda x, t: -x),
            [0.1, 1.0],
            r"times increase, but ReverseSDE is a reverse process, .* pass times\.flip\(0\)",
        ),
        (
            sg.ReverseSDE(VP, lambda x, t: -x),
            [1.0, 0.0],
            r"must lie in \[0\.001, 1\].*; at t = 0 the score does not exist: end at t_min, as",
        ),
        (
            sg.ReverseSDE(VP, lambda x, t: -x, eta=0.0),
            [1.0, 0.0],
            "at t = 0 the score does not exist",
        ),
        (VP, [0.0, 2.0], r"times must lie in \[0, 1\], where VP is defined, but span 0 … 2"),
        (VP, [-0.5, 0.5], r"but span -0\.5 … 0\.5\.$"),
    ],
)
def test_times_that_do_not_suit_the_dynamics_are_refused(sde, times, message):
    with pytest.raises(ValueError, match=message):
        sg.simulate(sde, X, times, rng=0)


def test_noise_free_dynamics_run_both_ways():
    flow = sg.ReverseSDE(VP, lambda x, t: -x, eta=0.0)
    there = sg.simulate(flow, X, [0.1, 0.9], solver=sg.Heun(substeps=200))
    back = sg.simulate(flow, there.final, [0.9, 0.1], solver=sg.Heun(substeps=200))
    torch.testing.assert_close(back.final, X, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        (
            {"solver": sg.Heun},
            TypeError,
            r"must be a Solver object, such as Heun\(\), but is <class",
        ),
        (
            {"solver": "heun"},
            TypeError,
            "solver must be a Solver object, but is 'heun'; for example",
        ),
        (
            {"walls": (0, 1)},
            TypeError,
            r"walls= is no more, but is \(0, 1\): write boundary=",
        ),
        (
            {"boundary": sg.Reflecting(2.0, 3.0, coordinates="all")},
            ValueError,
            r"x0 must start inside the boundary \[2, 3\] in coordinates all, but spans 1",
        ),
        ({"on_nonfinite": "ignore"}, ValueError, "must be 'raise' or 'freeze', but is 'ignore'"),
        ({"rng": 0.5}, TypeError, "rng must be an int, a torch.Generator or None, but is float"),
    ],
)
def test_what_is_no_option_is_refused(keywords, kind, message):
    with pytest.raises(kind, match=message):
        sg.simulate(OU, X, TIMES, **({"rng": 0} | keywords))


def test_a_solver_without_walls_says_so():
    flow = _of(lambda x: -x, 0.0)
    with pytest.raises(
        ValueError, match="TorchDiffEq cannot keep a state inside a boundary; use Euler"
    ):
        sg.simulate(flow, X, TIMES, solver=sg.TorchDiffEq(), boundary={0: sg.Reflecting(0.0, 2.0)})


def test_a_drift_is_no_sde():
    with pytest.raises(
        TypeError, match=r"must be an SDE, but is function; .* ItoProcess\(drift=f"
    ):
        sg.simulate(lambda x, t: -x, X, TIMES)


# --- memory


def test_a_path_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 2**30)
    x0 = torch.zeros(2**20, 1)  # 4 MiB a time, and twice that while the blocks are joined
    with pytest.raises(
        MemoryError, match=r"120 times × 1048576 .* about 0\.938 GiB, but 1 GiB are"
    ):
        sg.simulate(OU, x0, torch.linspace(0, 1, 120), rng=0)
    memory.check_path(x0, 100)
    monkeypatch.setattr(memory, "_free_bytes", lambda device: None)
    memory.check_path(x0, 10**9)


def test_free_memory_is_the_lesser_of_machine_and_container(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert memory._free_bytes(cpu) == 4000 * 1024
    (tmp_path / "memory.max").write_text("2000000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert memory._free_bytes(cpu) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_bytes(cpu) == 4000 * 1024
    (tmp_path / "meminfo").unlink()
    assert (memory._free_bytes(cpu) or 1) > 0
