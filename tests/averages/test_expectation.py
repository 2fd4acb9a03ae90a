"""Averages to a tolerance: right, with an interval that holds, to the same bits on any threads."""

import math
import signal

import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.averages.resolution import least_level

F64 = torch.float64
GROWTH = sg.ItoProcess(
    lambda x: x, lambda x: 0.8 * x, diffusion_derivative=lambda x: torch.full_like(x, 0.8)
)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
OU = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
SQUARE = math.exp(-2) + (1 - math.exp(-2)) / 2  # of an OU process from 1, at t = 1


def column(*values):
    return torch.tensor([values], dtype=F64)


ONE = column(1.0)


def first(x):
    return x[:, 0]


def square(x):
    return x[:, 0].square()


def average(sde, x0, f=first, *, t=1.0, tolerance=1e-2, rng=0, **options):
    given = {"threads": 1, "progress": False} | options
    result = sg.expectation(sde, x0, t, f, tolerance=tolerance, rng=rng, **given)
    assert result.half_width <= tolerance
    assert result.interval == (result.mean - result.half_width, result.mean + result.half_width)
    return result


def holds(result, exact):
    """At twice the half width: 4 standard errors beside the bias, once in 10⁵ seeds."""
    return abs(result.mean - exact) < 2 * result.half_width


def heisenberg(x):
    one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([torch.stack([one, zero], -1), torch.stack([zero, x[:, 0]], -1)], 1)


AREA = sg.ItoProcess(torch.zeros_like, heisenberg, channels=2)
READ = {"interpretation": "stratonovich"}


@pytest.mark.parametrize(
    ("sde", "x0", "f", "exact", "coupling"),
    [
        (OU, ONE, square, SQUARE, "EulerMaruyama"),
        (GROWTH, ONE, lambda x: x[:, 0].log(), 1 - 0.32, "Milstein"),
        (
            sg.ItoProcess(torch.zeros_like, lambda x: 0.5 * x, **READ),
            ONE,
            first,
            math.exp(0.125),
            "Milstein",
        ),
        (AREA, column(0.0, 0.0), lambda x: x[:, 1].square(), 0.5, "antithetic"),
        (sg.ItoProcess(lambda x: -x, 0.0), ONE, first, math.exp(-1), "EulerMaruyama"),
    ],
    ids=["additive", "multiplicative", "stratonovich", "areas", "flow"],
)
def test_averages_are_right(sde, x0, f, exact, coupling):
    result = average(sde, x0, f)
    assert holds(result, exact)
    assert coupling in result.coupling
    assert result.variance_order > 1.5


def test_an_average_of_the_double_well_is_that_of_its_density():
    density = sg.FokkerPlanck(WELL, sg.Grid(-4.0, 4.0, 800)).solve(-1.0, [0.0, 1.0]).at(1)
    mean = float(density.expect(lambda x: x))
    assert mean == pytest.approx(-0.84311, abs=1e-4)  # a spectral solution: −0.843114921
    assert holds(average(WELL, column(-1.0), tolerance=2e-3), mean)
    crossed = average(WELL, column(-1.0), lambda x: x[:, 0] > 0, tolerance=4e-3)
    assert holds(crossed, 1 - float(density.cdf(torch.tensor(0.0, dtype=F64))))


def test_starts_may_be_drawn_and_time_may_begin_later():
    pushed = sg.ItoProcess(lambda x, t: t * torch.ones_like(x), 1.0)

    def start(rows, rng):
        return 2.0 + torch.randn(rows, 3, generator=rng, dtype=F64)

    result = average(pushed, start, lambda x: x.sum(1), t=(1.0, 3.0), tolerance=0.05)
    assert holds(result, 3 * (2.0 + 4.0))  # ∫ t dt from 1 to 3
    # var Σx = 3 (1 + 2), at the first level
    assert float(result.variances[0]) == pytest.approx(9.0, rel=0.1)


def test_heun_is_of_second_order():
    result = average(WELL, column(-1.0), tolerance=1e-3, solver=sg.Heun())
    assert result.weak_order > 1.5
    assert holds(result, -0.843114921)
    assert int(result.costs[0]) == 2 * int(result.samples[0] * result.steps[0])


@pytest.mark.slow
def test_the_interval_holds_the_average_as_often_as_it_says():
    # of 60 with a probability of 0.95 or more each, fewer than 48: once in 10⁶
    inside = 0
    for seed in range(60):
        result = average(OU, ONE, square, tolerance=0.03, rng=seed)
        inside += abs(result.mean - SQUARE) <= result.half_width
    assert inside >= 48


def test_what_a_result_says_adds_up():
    result = average(WELL, column(-1.0))
    assert result.mean == pytest.approx(float(result.means.sum()), rel=1e-12)
    assert result.steps.tolist() == [int(result.steps[0]) * 2**k for k in range(len(result.steps))]
    steps = result.steps + torch.cat([torch.zeros(1), result.steps[1:] / 2])
    assert torch.equal(result.costs.double(), (result.samples * steps).double())
    assert result.evaluations >= int(result.costs.sum())
    z = stats.norm.ppf(0.975)
    assert result.half_width == pytest.approx(z * result.standard_error + result.bias)
    bare = float((result.variances / result.samples).sum().sqrt())
    assert bare <= result.standard_error < 1.3 * bare
    assert "95%" in str(result.trust())
    assert "EulerMaruyama" in str(result.trust())


def test_a_higher_confidence_costs_more():
    one, other = (average(OU, ONE, square, confidence=c, tolerance=0.02) for c in (0.68, 0.99))
    assert 2 * one.evaluations < other.evaluations
    assert other.confidence == 0.99


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 500})
    one, two = (average(GROWTH, ONE, tolerance=0.1, threads=threads) for threads in (1, 3))
    for name in ("mean", "half_width", "evaluations"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("samples", "means", "variances"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    again = average(GROWTH, ONE, tolerance=0.1, rng=one.seed)
    assert again.mean == one.mean
    assert average(GROWTH, ONE, tolerance=0.1, rng=1).mean != one.mean


def test_steps_that_explode_are_left_out():
    # |1 − 50 h| > 1 for h > 1/25: 16 steps and fewer run away, and overflow in single precision
    result = average(sg.ItoProcess(lambda x: -50 * x, 1.0), ONE.float(), square, tolerance=2e-3)
    assert int(result.steps[0]) >= 32
    assert holds(result, 0.01)
    hot = average(sg.ItoProcess(lambda x: x - x**3, 3.0), ONE, tolerance=0.1)
    assert int(hot.steps[0]) >= 16


def test_an_explosion_that_no_pilot_shows_begins_with_finer_steps(monkeypatch):
    # a cliff that one coarse step in a thousand crosses, and finer steps hardly ever
    def drift(x):
        return torch.where(x.abs() > 3.2, 1e200 * x, -x)

    cliff = sg.ItoProcess(drift, 1.0)
    monkeypatch.setattr("sdegen.averages.estimate._PILOT", 32)
    result = average(cliff, column(0.0), square, tolerance=0.02)
    assert int(result.steps[0]) >= 2
    assert float(result.variances.max()) < 10.0
    assert holds(result, (1 - math.exp(-2)) / 2)


def test_a_variance_that_falls_slowly_is_told_of():
    with pytest.warns(sg.AccuracyWarning, match=r"falls as dt\^0\.\d.*costs more than tolerance"):
        result = average(
            GROWTH, ONE, lambda x: x[:, 0] > 2, solver=sg.EulerMaruyama(), tolerance=2e-2
        )
    assert result.variance_order < 0.8
    exact = stats.norm.sf((math.log(2) - 0.68) / 0.8)
    assert holds(result, exact)


def test_a_jump_that_few_samples_show_is_not_taken_for_certain():
    # differences of an indicator: one in a thousand is not 0
    exact = stats.norm.sf((math.log(2) - 0.68) / 0.8)
    outside = 0
    for seed in range(20):
        result = average(GROWTH, ONE, lambda x: x[:, 0] > 2, tolerance=5e-2, rng=seed)
        outside += abs(result.mean - exact) > result.half_width
    assert outside <= 6  # of 20 at 0.05 each: more than 6 once in 10⁵


@pytest.mark.parametrize("turns", [4, 64])
def test_an_oscillation_in_time_with_the_steps_is_seen(turns):
    # sin² is 0 wherever a step of 2^k begins, k ≤ 7; its mean is ½
    driven = sg.ItoProcess(lambda x, t: torch.sin(2 * math.pi * turns * t) ** 2 + 0 * x, 0.1)
    assert holds(average(driven, 0 * ONE, tolerance=2e-2), 0.5)


def test_a_pulse_between_the_steps_is_seen():
    pulse = sg.ItoProcess(lambda x, t: 20.0 * ((t > 0.51) & (t < 0.56)) + 0 * x, 0.1)
    assert holds(average(pulse, 0 * ONE, tolerance=0.05), 1.0)


@pytest.mark.slow
def test_noise_in_time_with_the_steps_is_seen():
    beats = sg.ItoProcess(torch.zeros_like, lambda x, t: torch.sin(2 * math.pi * 8 * t) + 0 * x)
    assert holds(average(beats, 0 * ONE, square, tolerance=0.1), 0.5)


@pytest.mark.parametrize("tolerance", [1.0, 0.3, 0.1])
def test_few_steps_of_a_growth_are_told_to_be_few(tolerance):
    # (1 + h)^{1/h} falls on e more slowly than h where h is large
    result = average(sg.ItoProcess(lambda x: x, 0.0), ONE, tolerance=tolerance)
    assert abs(result.mean - math.e) <= result.half_width


def test_what_no_step_sees_is_told_of():
    fast = sg.ItoProcess(lambda x, t: torch.sin(2 * math.pi * 512 * t) ** 2 + 0 * x, 0.1)
    with pytest.warns(sg.AccuracyWarning, match="faster than 1024 steps from t = 0 to 1 see"):
        least = least_level(fast, 0 * ONE, (0.0, 1.0))
    assert least == 11
    for smooth in (lambda x, t: -x, lambda x, t: t**2 + 0 * x, lambda x, t: 1 / (0.01 + t) - x):
        assert least_level(sg.ItoProcess(smooth, 0.1), ONE, (0.0, 1.0)) <= 1


def test_a_condition_that_rarely_holds_is_not_missed():
    # coarse steps throw x far too wide: a difference of 6e-3, made by one trajectory in 170
    exact = stats.norm.sf(3.0 / math.sqrt(1 - math.exp(-8)))
    ou = sg.ItoProcess(lambda x: -x, math.sqrt(2.0))
    for seed in range(6):
        result = average(ou, 0 * ONE, lambda x: x[:, 0] > 3, t=4.0, tolerance=2e-3, rng=seed)
        assert abs(result.mean - exact) <= 2 * result.half_width <= 4e-3


def test_a_condition_that_never_held_is_told_of():
    with pytest.warns(sg.AccuracyWarning, match="f is 0 at the ends of all 16384 trajectories"):
        result = average(GROWTH, ONE, lambda x: x[:, 0] > 1e3, tolerance=1e-2)
    assert result.mean == 0.0


def test_ctrl_c_ends_it_with_what_is_known():
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        if calls == 600:
            signal.raise_signal(signal.SIGINT)
        return -x

    words = r"half width is .* above the tolerance 0\.001"
    with pytest.raises(sg.Interrupted, match=words) as stop:
        average(sg.ItoProcess(counted, 1.0), ONE, tolerance=1e-3)
    partial = stop.value.result
    assert partial.half_width > 1e-3
    assert abs(partial.mean - math.exp(-1)) < 2 * partial.half_width
    calls = 500
    with pytest.raises(sg.Interrupted, match="no level is known yet") as stop:
        average(sg.ItoProcess(counted, 1.0), ONE, tolerance=1e-3)
    assert stop.value.result is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_bar_is_shown_on_a_terminal_alone(capsys, monkeypatch):
    average(OU, ONE, tolerance=0.1, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    average(OU, ONE, tolerance=0.1, progress=True)
    shown = capsys.readouterr().err
    assert "expectation" in shown
    assert "evaluation/s" in shown


class Matrix(sg.SDE):
    """General noise."""

    noise_structure = "general"
    noise = "additive"

    def drift(self, x, t):
        return -x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * noise.normal()

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v


VP = sg.VP(sg.LinearBeta(0.1, 20.0))
MANY = torch.zeros(8, 1, dtype=F64)
RATES = sg.ItoProcess(lambda x, k: -k * x, 1.0, parameters={"k": torch.ones(3, 1, dtype=F64)})

JUMPS = sg.JumpDiffusion(OU, sg.AlphaStable(1.5, 1.0))


def changes(x):
    x += 1
    return x[:, 0]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"tolerance": 0}, ValueError, "tolerance must be finite and > 0.*but is 0"),
        ({"tolerance": -1e-3}, ValueError, "but is -0.001"),
        ({"tolerance": math.nan}, ValueError, "but is nan"),
        ({"tolerance": "small"}, TypeError, "tolerance must be a number, but is 'small'"),
        ({"confidence": 95}, ValueError, "confidence must lie between 0 and 1, but is 95"),
        ({"confidence": 1.0}, ValueError, "but is 1"),
        ({"f": lambda x: x}, ValueError, r"shape \(4,\), but returned shape \(4, 1\)"),
        ({"f": lambda x: x.mean()}, ValueError, r"but returned shape \(\)"),
        ({"f": lambda x: 1.0}, TypeError, "f must return a tensor of real numbers.*returned 1.0"),
        ({"f": lambda x: (1j * x)[:, 0]}, TypeError, "complex"),
        ({"f": 3.0}, TypeError, "f must be a function of states"),
        ({"f": changes}, ValueError, "f changed x in place"),
        ({"f": lambda x: x[:, 0] - x.mean()}, ValueError, "depends on the other states"),
        ({"f": lambda x: torch.randn(len(x))}, ValueError, "f has randomness of its own"),
        ({"x0": MANY}, ValueError, "x0 has 8 rows"),
        ({"x0": torch.zeros(3)}, ValueError, r"x0 must have shape \(batch, \*event\)"),
        ({"x0": lambda rows: MANY}, TypeError, "without an argument rng"),
        ({"t": -1.0}, ValueError, "times decrease"),
        ({"t": 0.0}, ValueError, "another time than that of the start"),
        ({"t": [0.0, 0.5, 1.0]}, ValueError, "call expectation for each"),
        ({"t": "later"}, TypeError, "t must be a time"),
        ({"threads": 0}, ValueError, "threads must be ≥ 1"),
        ({"progress": 1}, TypeError, "progress must be True or False"),
        ({"sde": lambda x: -x}, TypeError, "sde must be an SDE"),
        ({"sde": Matrix()}, ValueError, "noise of Matrix is general"),
        (
            {"sde": sg.ReverseSDE(VP, lambda x, t: -x)},
            ValueError,
            "ReverseSDE is a reverse process",
        ),
        ({"sde": sg.DDPM.discretize(VP, 10)}, ValueError, "Markov chain on integer times"),
        ({"sde": JUMPS}, ValueError, "expectation reads drift and diffusion alone, but JumpDiff"),
        ({"sde": RATES}, ValueError, "parameters of 3 trajectories"),
        ({"sde": sg.ItoProcess(lambda x: x.mean(0) - x, 1.0)}, ValueError, "mean field"),
        ({"sde": sg.ItoProcess(lambda x: x / 0, 1.0)}, ValueError, "drift is not finite"),
        ({"solver": sg.Heun(), "sde": GROWTH}, ValueError, "Heun averages g"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_input_is_refused_before_the_first_step(change, kind, words, monkeypatch):
    monkeypatch.setattr("sdegen.averages.sampling.Problem.block", lambda *_: pytest.fail("a step"))
    given = {"sde": OU, "x0": ONE, "t": 1.0, "f": first, "tolerance": 0.1, "progress": False}
    with pytest.raises(kind, match=words):
        sg.expectation(**given | {"rng": 0} | change)


def test_gradients_that_would_be_lost_are_refused():
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    with pytest.raises(TypeError, match=r"the drift .*an average would lose its gradient"):
        average(sg.ItoProcess(lambda x: -k * x, 1.0), ONE)
    with pytest.raises(TypeError, match=r"f\(x\) .*an average would lose its gradient"):
        average(OU, ONE, lambda x: k * x[:, 0])
    with torch.no_grad():
        average(OU, ONE, lambda x: k * x[:, 0], tolerance=0.1)


def test_a_tolerance_below_rounding_is_refused():
    with pytest.raises(ValueError, match=r"torch.float32 knows to about .*: pass x0.double\(\)"):
        average(OU, ONE.float(), tolerance=1e-6)
    with pytest.raises(ValueError, match=r"torch.float64 knows .*: ask for a larger"):
        average(OU, ONE, tolerance=1e-15)


def test_rounding_of_many_steps_ends_an_average_with_what_is_known(monkeypatch):
    """Each step rounds: differences of levels then grow again, and no level reaches the bias."""
    monkeypatch.setattr("sdegen.averages.estimate._OF_STEPS", 20000.0)
    decay = sg.ItoProcess(lambda x: -x, 0.0)
    words = r"float32 knows to about .* after 2\*\*[3-9] steps: pass x0.double\(\)"
    with pytest.raises(sg.SolverError, match=words) as stop:
        average(decay, ONE.float(), tolerance=2e-3)
    assert abs(stop.value.result.mean - math.exp(-1)) < 0.1
    result = average(decay, ONE, tolerance=2e-3)
    assert abs(result.mean - math.exp(-1)) < 2e-3


def test_an_f_that_is_not_finite_is_told_with_its_state():
    with pytest.raises(sg.NonFiniteError, match=r"f is nan at x = \[-"):
        average(OU, ONE, lambda x: x[:, 0].log())


def test_a_solution_that_explodes_is_told_of(monkeypatch):
    monkeypatch.setattr("sdegen.averages.estimate._STEPS_TO_STAY", 6)
    with pytest.raises(sg.NonFiniteError, match=r"not finite after 2\*\*6 steps"):
        average(sg.ItoProcess(lambda x: x**3, 0.1), 2 * ONE)


def test_a_bias_that_no_level_reaches_is_told_with_the_average(monkeypatch):
    monkeypatch.setattr("sdegen.averages.estimate._FINEST", 6)
    with pytest.raises(sg.SolverError, match=r"the bias is 0\.00.* at 2\*\*6 steps") as stop:
        average(sg.ItoProcess(lambda x: -x, 0.0), ONE, tolerance=1e-4)
    assert stop.value.result.mean == pytest.approx(math.exp(-1), abs=0.01)
