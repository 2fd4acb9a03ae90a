"""The bias of a step against exact laws of chains."""

import math
import warnings

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.accuracy import Orders
from sdegen.verification.levels.answer import in_digits
from sdegen.verification.levels.expansion import Expansion

F64 = torch.float64
WELL = sg.ItoProcess(lambda x: x - x**3, 1.0)
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
DECAY = sg.ItoProcess(lambda x: -x, 0.0)
ONE = torch.ones(1, 1, dtype=F64)
SQUARE = {"x²": lambda x: x[:, 0].square()}
FIRST = {"x": lambda x: x[:, 0]}
QUICK = {"trajectories": 200, "steps": 256}


def path(sde, x0=ONE, dt=0.1, steps=200, **options):
    """Fifty trajectories that have come to rest."""
    starts = x0.repeat(50, *(1,) * (x0.ndim - 1))
    times = dt * torch.arange(steps + 1, dtype=F64)
    return sg.simulate(sde, starts, times, rng=0, **options)


AT_REST = path(OU)


def inside(found, name, exact):
    return bool((found.value[name] - exact).abs() <= found.error[name])


def terms(order, alpha, beta, gamma=0.0):
    """D₁ and D₂ of α sᵖ + β sᵖ⁺¹ + γ sᵖ⁺², without noise."""

    def bias(s):
        return alpha * s**order + beta * s ** (order + 1) + gamma * s ** (order + 2)

    differences = [bias(1.0) - bias(0.5), bias(0.5) - bias(0.25)]
    mean = torch.tensor(differences, dtype=F64)[:, None]
    return Expansion(order, mean, torch.zeros(2, 2, 1, dtype=F64), 0.0), bias


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("s", [1.0, 0.3, 0.01])
def test_two_terms_are_found_and_the_third_is_within_the_error(order, s):
    expansion, bias = terms(order, 0.4, 0.1)
    assert float(expansion.value(s)) == pytest.approx(bias(s), rel=1e-12)
    for gamma in (0.1, -0.1):  # as large as β, the most that is allowed for
        expansion, bias = terms(order, 0.4, 0.1, gamma)
        off = abs(float(expansion.value(s)) - bias(s))
        left, beta = float(expansion.remainder(s)), abs(float(expansion.coefficients[1]))
        assert off <= left * 0.1 / min(beta, 0.1) * (1 + 1e-9)
        if not bool(expansion.falls_slowly):  # then no other explanation fits
            assert off == pytest.approx(left * 0.1 / beta, rel=1e-6)


def test_a_bias_of_order_one_half_is_within_the_error_of_order_one():
    mean = torch.tensor([[1 - 0.5**0.5], [0.5**0.5 - 0.5]], dtype=F64)  # of √s
    expansion = Expansion(1.0, mean, torch.zeros(2, 2, 1, dtype=F64), 0.0)
    assert bool(expansion.falls_slowly)
    assert float(expansion.shown_order) == pytest.approx(0.5)
    for s in (1.0, 0.1):
        assert abs(float(expansion.value(s)) - s**0.5) <= float(expansion.error(s)) * (1 + 1e-9)


def test_the_sampling_error_of_an_independent_difference_adds_up():
    covariance = torch.tensor([[[4.0], [0.0]], [[0.0], [9.0]]], dtype=F64)
    expansion = Expansion(1.0, torch.zeros(2, 1, dtype=F64), covariance, 1.0)
    # ⅔ D₁ + 8⁄3 D₂
    assert float(expansion.standard_error(1.0)) == pytest.approx(math.hypot(4 / 3, 8))


def test_the_bias_of_a_flow_is_exact_within_the_error_at_all_steps():
    found = sg.step_bias(DECAY, FIRST, dt=0.1, x0=ONE, t=1.0)
    for dt, steps in ((0.1, 10), (0.05, 20), (0.01, 100)):
        at = found.at(dt)
        exact = (1 - dt) ** steps - math.exp(-1)
        assert abs(float(at.value["x"]) - exact) <= float(at.error["x"]) < 0.04 * abs(exact)
    assert float(found.extrapolated["x"]) == pytest.approx(math.exp(-1), rel=1e-4)
    assert found.trajectories == 1


def test_order_two_of_a_flow_is_that_of_heun():
    found = sg.step_bias(DECAY, FIRST, dt=0.1, x0=ONE, t=1.0, solver=sg.Heun())
    assert found.order == 2
    exact = (1 - 0.1 + 0.005) ** 10 - math.exp(-1)
    assert abs(float(found.value["x"]) - exact) <= float(found.error["x"]) < 0.01 * exact


def counted(sde, starts, exact, seeds=20, **options):
    """In how many of some seeds the interval holds the bias of ⟨x²⟩, and its mean half width."""
    held, widths = 0, []
    for seed in range(seeds):
        found = sg.step_bias(sde, SQUARE, dt=0.1, path=starts, rng=seed, **QUICK, **options)
        held += inside(found, "x²", exact)
        widths.append(float(found.error["x²"]))
    return held, float(np.mean(widths)) / abs(exact)


def test_intervals_hold_the_bias_of_the_ornstein_uhlenbeck_process():
    # of 20 intervals of 95 % fewer than 14 hold with probability 3e-5 if all are 95 %; they are
    # wider by what is left of the expansion
    held, width = counted(OU, AT_REST, 1 / (2 - 0.1) - 0.5)
    assert held >= 13  # 2.5e-6
    assert width < 0.15


def well_bias(step):
    """⟨x²⟩ of the chain at rest, by Chapman and Kolmogorov on a grid, less that of e^{−2U}."""
    x = np.linspace(-4.0, 4.0, 641)
    kernel = np.exp(-((x[:, None] - (x + step * (x - x**3))) ** 2) / (2 * step))
    kernel /= kernel.sum(0)
    system = kernel - np.eye(len(x))
    system[-1], right = 1.0, np.zeros(len(x))
    right[-1] = 1.0
    chain, rest = np.linalg.solve(system, right), np.exp(x**2 - x**4 / 2)
    return float(chain @ x**2 - rest @ x**2 / rest.sum())


def test_intervals_hold_the_bias_of_a_double_well():
    exact = well_bias(0.1)
    assert exact == pytest.approx(-0.02251653, abs=1e-7)
    held, width = counted(WELL, path(WELL), exact)
    assert held >= 13  # false alarm 2.5e-6
    assert width < 0.45


@pytest.mark.slow
def test_as_many_intervals_hold_as_are_said_to():
    # 90 of 100 at the default size; false alarm below 1e-2 of 95 % and less as they are wider
    exact = well_bias(0.1)
    starts = path(WELL)
    held = sum(
        inside(sg.step_bias(WELL, SQUARE, dt=0.1, path=starts, rng=seed), "x²", exact)
        for seed in range(100)
    )
    assert held >= 90


def test_baoab_has_no_bias_of_a_trap_and_one_of_its_velocities():
    trap = sg.UnderdampedLangevin(sg.Quadratic(), 1.0)
    both = {"x²": lambda z: z[:, 0, 0].square(), "v²": lambda z: z[:, 1, 0].square()}
    starts = path(trap, torch.zeros(1, 2, 1, dtype=F64), 0.4)
    found = sg.step_bias(trap, both, dt=0.4, path=starts, rng=0, trajectories=400)
    assert found.order == 2
    # ⟨x²⟩ is exact and ⟨v²⟩ is 1 − ω²h²/4; at 5 standard errors, 6e-7
    for name, exact in (("x²", 0.0), ("v²", -0.04)):
        expansion = found.expansions[name]
        off = abs(float(found.value[name]) - exact)
        assert off <= float(expansion.remainder(1.0) + 5 * expansion.standard_error(1.0))
    assert float(found.value["v²"]) < -float(found.error["v²"])
    assert "⟨x²⟩ shows no bias of the step" in found.sentence["x²"]
    assert "% too small because of the step; at dt = 0.04 it would be" in found.sentence["v²"]


def test_a_reflecting_wall_keeps_all_levels():
    wall, boundary = sg.ItoProcess(lambda x: -torch.ones_like(x), 1.0), sg.Reflecting(0.0)
    starts = path(wall, ONE / 2, boundary=boundary)
    found = sg.step_bias(wall, FIRST, dt=0.1, path=starts, boundary=boundary, rng=0)
    # ⟨x⟩ = ½ + h/2 to 1e-6, by the folded law of the chain; at 5 standard errors
    expansion = found.expansions["x"]
    off = abs(float(found.value["x"]) - 0.05)
    assert off <= float(expansion.remainder(1.0) + 5 * expansion.standard_error(1.0)) < 0.02


def test_a_ring_has_the_bias_of_the_line():
    ring = sg.ItoProcess(lambda x: torch.sin(x), 1.0)
    cosine = {"cos": lambda x: x[:, 0].cos()}
    given = {"dt": 0.25, "x0": ONE, "t": 5.0, "rng": 0, "trajectories": 100}
    line = sg.step_bias(ring, cosine, **given)
    bounded = sg.step_bias(ring, cosine, boundary=sg.Periodic(0.0, 2 * math.pi), **given)
    assert float(bounded.value["cos"]) == pytest.approx(float(line.value["cos"]), abs=1e-10)


def test_multiplicative_noise_and_starts_that_are_drawn():
    growth = sg.ItoProcess(lambda x: x, lambda x: 0.2 * x)

    def drawn(rows, rng):
        return 1 + torch.randint(2, (rows, 1), generator=rng).to(F64)

    found = sg.step_bias(growth, FIRST, dt=0.1, x0=drawn, t=1.0, trajectories=2000, rng=0)
    exact = 1.5 * (1.1**10 - math.e)
    expansion = found.expansions["x"]
    off = abs(float(found.value["x"]) - exact)
    assert off <= float(expansion.remainder(1.0) + 5 * expansion.standard_error(1.0)) < 0.05
    assert float(found.relative["x"]) == pytest.approx(1.1**10 / math.e - 1, abs=0.01)


def test_channels_share_areas():
    # ⟨x⟩ of a linear drift is (1 − h)ⁿ, whatever the noise; at 5 standard errors
    def matrix(x, t):
        rows = [1 + 0 * x[:, 0], x[:, 1], x[:, 0], 1 + 0 * x[:, 0]]
        return 0.3 * torch.stack(rows, 1).reshape(-1, 2, 2)

    sde = sg.ItoProcess(lambda x, t: -x, matrix, channels=2)
    given = {"dt": 0.1, "x0": torch.ones(1, 2, dtype=F64), "t": 1.0, "rng": 0}
    found = sg.step_bias(sde, {"x": lambda x: x}, solver=sg.Milstein(), trajectories=400, **given)
    expansion = found.expansions["x"]
    off = (found.value["x"] - (0.9**10 - math.exp(-1))).abs()
    room = expansion.remainder(1.0) + 5 * expansion.standard_error(1.0)
    assert bool((off <= room).all())
    assert float(room.max()) < 0.01


def test_a_path_of_any_reader_gives_starts():
    stored = sg.read_states(AT_REST.states.numpy(), dt=0.1)
    of_states, of_reader, of_path = (
        sg.step_bias(OU, SQUARE, dt=0.1, path=one, rng=0, **QUICK).value["x²"]
        for one in (AT_REST.states, stored, AT_REST)
    )
    assert torch.equal(of_states, of_path)
    assert torch.equal(of_reader, of_path)


def test_observables_of_several_numbers_are_those_one_by_one():
    powers = {"p": lambda x: torch.cat([x, x**2], 1), **SQUARE}
    found = sg.step_bias(OU, powers, dt=0.1, path=AT_REST, rng=0, **QUICK)
    alone = sg.step_bias(OU, SQUARE, dt=0.1, path=AT_REST, rng=0, **QUICK)
    assert found.value["p"].shape == (2,)
    assert torch.equal(found.value["p"][1], found.value["x²"])
    assert torch.equal(found.value["x²"], alone.value["x²"])
    assert found.sentence["p"].count("\n") == 1
    assert str(found).splitlines()[2] == alone.sentence["x²"]
    # of ⟨x⟩ = 0 the unit is the standard deviation
    assert "of its standard deviation" in found.sentence["p"]
    assert float(found.scale["p"][0]) == pytest.approx(0.5**0.5, rel=0.1)


def test_checks_judge_the_size_of_a_bias_and_call_it_no_mistake():
    found = sg.step_bias(OU, SQUARE, dt=0.1, path=AT_REST, rng=0, **QUICK)
    verdicts = [found.checks(limit)[0].verdict for limit in (0.01, 0.0526, 0.1)]
    assert verdicts == ["failed", "not judged", "passed"]
    remark = found.checks()[0].remark
    assert "because of the step, no mistake" in remark
    assert float(remark.split()[-1]) == pytest.approx(0.1 * 0.01 / 0.0526, rel=0.2)


def test_blocks_and_seeds_make_the_bits(monkeypatch):
    first, again = (
        sg.step_bias(OU, SQUARE, dt=0.1, path=AT_REST, rng=3, **QUICK) for _ in range(2)
    )
    assert torch.equal(first.value["x²"], again.value["x²"])
    monkeypatch.setattr("sdegen.verification.levels.request.block_rows", lambda x: 70)
    cut = sg.step_bias(OU, SQUARE, dt=0.1, path=AT_REST, rng=3, **QUICK)
    # three blocks of the same starts, of other noise: at 5 standard errors of each
    error = float(first.expansions["x²"].standard_error(1.0))
    assert abs(float(cut.value["x²"] - first.value["x²"])) < 5 * 2**0.5 * error
    assert cut.trajectories == 200


def test_a_path_that_is_not_at_rest_is_told_of():
    slow = sg.OrnsteinUhlenbeck(0.01, 0.0, 0.1)
    starts = 10 + torch.zeros(3, 20, 1, dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match="averages of x over 64 steps .* depend on the st"):
        sg.step_bias(slow, FIRST, dt=0.1, path=starts, rng=0, steps=64)


def test_steps_are_doubled_until_starts_are_forgotten():
    # correlation time 50, of which the quarter of 1000 steps of 0.1 is one half
    slow = sg.OrnsteinUhlenbeck(0.02, 0.0, 0.2)
    starts = torch.randn(2, 200, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = sg.step_bias(slow, FIRST, dt=0.1, path=starts, rng=0, trajectories=200)
    assert 2000 <= found.steps <= 4000


def test_a_solver_that_promises_too_much_is_found_out():
    class Promising(sg.EulerMaruyama):
        orders = Orders(flow=2, additive=(2, 1), multiplicative=None)

    with pytest.warns(sg.AccuracyWarning, match=r"falls as dt\^1, not as dt\^2"):
        found = sg.step_bias(DECAY, FIRST, dt=0.1, x0=ONE, t=1.0, solver=Promising())
    assert inside(found, "x", 0.9**10 - math.exp(-1))


def test_a_chain_that_explodes_is_refused():
    with pytest.raises(sg.NonFiniteError, match=r"at steps of 1 are not finite .* smaller dt"):
        sg.step_bias(WELL, SQUARE, dt=1.0, x0=3 * ONE, t=20.0, rng=0)


@pytest.mark.parametrize(
    ("function", "kind", "match"),
    [
        (lambda x: x[None], ValueError, r"\"φ\"\] must return one number or k of them .*flatten"),
        (lambda x: x.mean(), ValueError, r"\"φ\"\] must return one number or k of them"),
        (lambda x: 1.0, TypeError, r"\"φ\"\] must return a tensor of real numbers"),
        (lambda x: x.add_(1)[:, 0], ValueError, r"\"φ\"\] changed x in place"),
        (lambda x: x[:, 0] - x.mean(), ValueError, r"depends on the other states of its batch"),
        (lambda x: torch.rand(len(x)), ValueError, "randomness of its own"),
        (
            lambda x: x[:, 0].log(),
            sg.NonFiniteError,
            r"\"φ\"\] is nan at x = .*finite number there",
        ),
        (0.5, TypeError, "must be a function"),
    ],
)
def test_an_observable_that_does_not_fit_is_refused_by_name(function, kind, match):
    with pytest.raises(kind, match=match):
        sg.step_bias(OU, {"φ": function}, dt=0.1, path=AT_REST, rng=0, **QUICK)


CHAIN = sg.DDPM.discretize(sg.VP(sg.LinearBeta(0.1, 20.0)), 20)
PULL = sg.ItoProcess(lambda x: x.mean(0) - x, 1.0)
DRIVEN = sg.ItoProcess(lambda x, t: torch.cos(t) - x, 1.0)
RATES = sg.ItoProcess(lambda x, k: -k * x, 1.0, parameters={"k": torch.ones(4, 1, dtype=F64)})


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"sde": CHAIN, "x0": ONE, "t": 1.0, "dt": 1.0}, "no smaller step of it exists"),
        ({"solver": sg.TorchDiffEq(), "sde": DECAY}, "no steps of a length that is given"),
        ({"solver": sg.EulerMaruyama(substeps=2)}, "substeps must be 1"),
        ({"boundary": sg.Absorbing(-9.0, 9.0)}, "an end absorbs"),
        ({"trajectories": 5}, "trajectories must be ≥ 30"),
        ({"steps": 10}, "steps must be ≥ 64"),
        ({"confidence": 95}, "confidence must lie between 0 and 1"),
        ({"dt": 0.0}, "dt must be finite and > 0"),
        ({"path": None, "x0": ONE, "t": 1.03}, r"10.3 of dt = 0.1 in 1.03; pass dt=0.0936"),
        ({"path": None, "x0": ONE, "t": 1.0, "steps": 100}, "leave one of them out"),
        ({"path": None}, "none of them"),
        ({"x0": ONE}, "came with path, x0"),
        ({"path": None, "x0": ONE}, "came with x0"),
        ({"sde": DRIVEN}, "changes with time and has no averages at rest"),
        ({"sde": PULL}, r"depend on each other \(a mean field\)"),
        ({"sde": RATES}, "parameters of 4 trajectories"),
        ({"observables": {}}, "observables has no entry"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(asked, match):
    given = {"sde": OU, "observables": SQUARE, "dt": 0.1, "path": AT_REST} | asked
    if asked.get("x0") is not None and "path" not in asked and "t" in asked:
        given["path"] = None
    with pytest.raises(ValueError, match=match):
        sg.step_bias(**given, rng=0)


def test_a_bias_is_predicted_for_smaller_steps_alone():
    found = sg.step_bias(DECAY, FIRST, dt=0.1, x0=ONE, t=1.0)
    with pytest.raises(ValueError, match=r"dt must lie in \(0, 0.1\]"):
        found.at(0.2)
    with pytest.raises(ValueError, match="limit must be > 0"):
        found.checks(0.0)
    with pytest.raises(TypeError, match="dict of names and functions"):
        sg.step_bias(DECAY, lambda x: x[:, 0], dt=0.1, x0=ONE, t=1.0)


def test_numbers_are_shown_as_far_as_they_are_known():
    assert [in_digits(-2.1341, e) for e in (0.21, 0.013, 3.0)] == ["−2.1", "−2.134", "−2"]
    assert in_digits(0.5, 0.0) == "0.5"


def test_nothing_is_warned_of_at_rest():
    with warnings.catch_warnings():
        warnings.simplefilter("error", sg.AccuracyWarning)
        sg.step_bias(OU, SQUARE, dt=0.1, path=AT_REST, rng=0)
