import math

import pytest
import torch

import sdegen as sg
from sdegen.diffusion.pilot import Pilot

SDES = {
    "vp": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "vp constant": sg.VP(sg.ConstantBeta(3.0)),
    "vp quadratic": sg.VP(sg.QuadraticBeta(0.1, 20.0)),
    "vp cosine": sg.VP(sg.CosineBeta()),
    "sub-vp": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "ve": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
    "edm": sg.EDM(),
}
GRIDS = {
    "uniform": sg.timesteps.uniform,
    "quadratic": sg.timesteps.quadratic,
    "power": sg.timesteps.power,
    "log_snr": sg.timesteps.log_snr,
    "angle": sg.timesteps.angle,
    "karras": sg.timesteps.karras,
}


def ratio(sde, t):
    return sde.sigma(t) / sde.alpha(t)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_grid_falls_from_t_max_to_t_min_exactly(sde, grid):
    for steps in (1, 2, 1000):
        t = grid(sde, steps)
        assert t.dtype == torch.float64
        assert t.shape == (steps + 1,)
        assert float(t[0]) == sde.t_max
        assert float(t[-1]) == sde.t_min
        assert bool((t.diff() < 0).all())


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_each_grid_is_uniform_in_its_own_function_of_t(sde):
    steps = 40
    functions = {
        "uniform": lambda t: t,
        "quadratic": torch.sqrt,
        "power": lambda t: t ** (1 / 2.5),
        "log_snr": lambda t: torch.log(ratio(sde, t)),
        "karras": lambda t: ratio(sde, t) ** (1 / 7),
        "angle": lambda t: torch.atan(ratio(sde, t)),
    }
    for name, function in functions.items():
        value = function(GRIDS[name](sde, steps))
        # σ/α near t_max of CosineBeta has a condition number of 10³ in t
        tolerance = 1e-12 * float(value.abs().max()) * (1e3 if sde is SDES["vp cosine"] else 1)
        expected = value[0] + torch.linspace(0, 1, steps + 1, dtype=torch.float64) * (
            value[-1] - value[0]
        )
        assert float((value - expected).abs().max()) <= tolerance, name


def test_closed_forms():
    steps = 25
    i = torch.arange(steps + 1, dtype=torch.float64) / steps
    # VP with constant β: σ²/α² = e^{βt} − 1
    beta, sde = 3.0, SDES["vp constant"]
    low, high = (0.5 * math.log(math.expm1(beta * t)) for t in (sde.t_min, sde.t_max))
    expected = torch.log1p(torch.exp(2 * (high + i * (low - high)))) / beta
    torch.testing.assert_close(sg.timesteps.log_snr(sde, steps), expected, rtol=1e-12, atol=0)
    # VE: σ² = σ_min² ((σ_max/σ_min)^{2t} − 1)
    lo, hi, sde, rho = 0.01, 50.0, SDES["ve"], 5.0
    a, b = (
        (lo * math.sqrt(math.expm1(2 * t * math.log(hi / lo)))) ** (1 / rho)
        for t in (sde.t_max, sde.t_min)
    )
    sigma = (a + i * (b - a)) ** rho
    expected = torch.log1p((sigma / lo) ** 2) / (2 * math.log(hi / lo))
    got = sg.timesteps.karras(sde, steps, rho=rho)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_karras_spans_from_uniform_in_the_ratio_to_log_snr():
    sde = SDES["ve"]
    sigma = ratio(sde, sg.timesteps.karras(sde, 30, rho=1.0))
    torch.testing.assert_close(sigma.diff(), sigma.diff().mean().expand(30), rtol=1e-9, atol=0)
    t = sg.timesteps.karras(sde, 30, rho=1e7)
    torch.testing.assert_close(t, sg.timesteps.log_snr(sde, 30), rtol=1e-5, atol=0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_bad_requests(grid):
    with pytest.raises(ValueError, match="steps must be ≥ 1, but is 0"):
        grid(SDES["vp"], 0)
    with pytest.raises(TypeError, match="steps must be an int, but is float"):
        grid(SDES["vp"], 10.0)


def test_bad_rho():
    for rho in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="rho must be finite and > 0"):
            sg.timesteps.karras(SDES["vp"], 10, rho=rho)


@pytest.mark.parametrize("rule", ["uniform", "quadratic", "power", "log_snr", "karras"])
def test_reverse_dynamics_are_no_forward_sde(rule, as_user):
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    flow = sg.ReverseSDE(vp, lambda x, t: -x, eta=0.0)
    with pytest.raises(TypeError, match=r"sde must be a GaussianPath, .* but is a ReverseSDE"):
        getattr(sg.timesteps, rule)(flow, 5)
    if rule in ("power", "karras"):
        with pytest.raises(TypeError, match="rho must be a number, but is '7'"):
            getattr(sg.timesteps, rule)(vp, 5, "7")


# --- grids that are made from the flow itself

F64 = torch.float64
RING = [[0.7 * math.cos(k * math.pi / 4), 0.7 * math.sin(k * math.pi / 4)] for k in range(8)]
# a range of noise, a law, and another: what was fitted to one of them fails on the next
CELLS = {
    "a ring on EDM's path": (sg.EDM(), sg.GaussianMixture([1.0] * 8, RING, stds=0.1)),
    "small data under VP": (
        SDES["vp"], sg.GaussianMixture([0.3, 0.7], [[-0.1, 0.2], [0.2, 0.0]], stds=[0.1, 0.2])
    ),
    "two modes under a cosine": (
        SDES["vp cosine"], sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=0.3)
    ),
    "sub-VP": (SDES["sub-vp"], sg.GaussianMixture([0.4, 0.6], [[-1.0], [0.5]], stds=0.4)),
    "VE": (SDES["ve"], sg.GaussianMixture([0.4, 0.6], [[-1.0], [0.5]], stds=0.4)),
    "rectified flow": (
        SDES["rectified flow"], sg.GaussianMixture([0.4, 0.6], [[-1.0], [0.5]], stds=0.4)
    ),
}  # fmt: skip


def cell(name, n=200):
    """The flow, starts that are no pilot, and where the flow takes them."""
    sde, law = CELLS[name]
    noised = law.noised(sde)
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = noised.sample(n, torch.tensor(sde.t_max, dtype=F64), rng=5, dtype=F64)
    tight = sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9)
    end = sg.simulate(flow, x, sg.timesteps.log_snr(sde, 8), solver=tight, keep_path=False).final
    return sde, flow, x, end


def off(flow, x, end, times, solver):
    found = sg.simulate(flow, x, times, solver=solver, keep_path=False, on_nonfinite="freeze")
    return float((found.final - end).square().sum(1).mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_grid_made_for_the_flow_is_better_than_every_rule(name):
    """On starts that the pilot has not seen, by a factor of two at least, with ten evaluations."""
    sde, flow, x, end = cell(name)
    std = float(CELLS[name][1].covariance.diagonal().mean().sqrt())
    solver = sg.AngularAdams(4, data_std=std)
    made = sg.timesteps.made_for(flow, 10, solver=solver, rng=0)
    assert made.solver is solver
    assert float(made.times[0]) == sde.t_max
    assert float(made.times[-1]) == sde.t_min
    assert bool((made.times.diff() < 0).all())
    rules = [*GRIDS.values(), sg.timesteps.angle]
    fixed = min(off(flow, x, end, rule(sde, 10), solver) for rule in rules)
    error = off(flow, x, end, made.times, solver)
    assert error < 0.5 * fixed
    # what it says of itself is what it is worth elsewhere, in units of x/α
    alpha = float(sde.alpha(torch.tensor(sde.t_min, dtype=F64)))
    assert 0.4 < error / alpha / made.error < 2.5


@pytest.mark.slow
def test_a_ring_on_edms_path_with_few_evaluations():
    """Where the rule for VP has 0.25, 0.15, 0.028 of the data's spread at 5, 10, 20."""
    _sde, flow, x, end = cell("a ring on EDM's path", 256)
    spread = math.sqrt(0.7**2 / 2 + 0.1**2)
    for steps, most in ((5, 0.040), (10, 0.0126), (20, 0.0031), (50, 5.8e-5)):
        made = sg.timesteps.made_for(flow, steps, rng=0)
        assert off(flow, x, end, made.times, made.solver) / spread < most


def test_equal_shares_of_the_third_derivative_are_met():
    """ε̂ = u⁴ σ/α-weighted: the density is known, and so is each node."""
    sde, flow, *_ = cell("two modes under a cosine", 8)
    pilot = Pilot(flow, sde.prior((8, 1), rng=0, dtype=F64))
    levels = pilot._levels
    pilot._noise = torch.exp(3 * levels[:-1, None] / 1.0).expand(-1, 4)
    # ∂³ e^{3u} e^u to the fourth root is 27^{1/4} e^u
    times = pilot.hard_stretches(20)
    u = sde.kernel.log_ratio(times)
    mean = float(torch.exp(levels).mean())
    share = torch.exp(u) + 0.1 * mean * u
    steps = share.diff()[1:-1]  # at both ends the density is that of the last difference
    assert float((steps / steps.mean() - 1).abs().max()) < 0.02


@pytest.mark.slow
def test_made_grids_are_repeated_by_the_seed_and_count_their_cost():
    calls = []
    sde, flow, *_ = cell("small data under VP", 8)
    score = flow.score

    def counting(x, t):
        calls.append(len(x))
        return score(x, t)

    x = sde.prior((12, 2), rng=3, dtype=F64)
    solver = sg.AngularAdams(2)
    made = sg.timesteps.made_for(sg.ReverseSDE(sde, counting, eta=0.0), 5, x, solver=solver)
    assert made.evaluations == len(calls)
    assert set(calls) == {12}
    assert made.pilot == 12
    assert made.evaluations <= 400 + 50 * 5
    again = sg.timesteps.auto(flow, 5, x, solver=solver)
    assert torch.equal(made.times, again)
    one, same, other = (sg.timesteps.auto(flow, 3, rng=seed, solver=solver) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_a_longer_grid_is_that_of_fifty_filled_in():
    sde, flow, *_ = cell("two modes under a cosine", 8)
    solver = sg.ExponentialAdams(2, "x0")
    fifty, hundred = (sg.timesteps.auto(flow, n, rng=0, solver=solver) for n in (50, 100))
    u, v = sde.kernel.log_ratio(fifty), sde.kernel.log_ratio(hundred)
    torch.testing.assert_close(v[::2], u, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(v[1::2], 0.5 * (u[1:] + u[:-1]), rtol=1e-6, atol=1e-6)
    assert sg.timesteps.auto(flow, 1, rng=0).tolist() == [sde.t_max, sde.t_min]


def test_a_network_knows_the_shape_of_its_events():
    model = sg.ScoreModel(sg.UNet(1, 8, 1, rng=0), SDES["vp"], sg.VPrediction())
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    with pytest.raises(ValueError, match=r"shape of an event is not known.*x_T=sde\.prior"):
        sg.timesteps.auto(flow, 2)
    sg.train(
        model,
        torch.linspace(-1, 1, 128).view(8, 1, 4, 4),
        sg.TrainConfig(steps=1, batch_size=2),
        rng=0,
    )
    assert model.event_shape == (1, 4, 4)
    made = sg.timesteps.made_for(flow, 2, rng=0, solver=sg.AngularAdams(2))
    assert made.pilot == 48
    mlp = sg.ScoreModel(sg.MLP(3, 8, 1, rng=0), SDES["vp"])
    assert mlp.event_shape == (3,)
    assert sg.composition.product([mlp.score, mlp.score]).event_shape == (3,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"flow": SDES["vp"]}, TypeError, r"ReverseSDE\(sde, score, eta=0\.0\), but is a VP"),
        ({"eta": 1.0}, ValueError, r"eta = 1: pass ReverseSDE\(sde, score, eta=0\.0\)"),
        ({"steps": 0}, ValueError, "steps must be ≥ 1"),
        ({"solver": sg.TorchDiffEq()}, TypeError, "solver of fixed steps"),
        ({"solver": sg.KarrasHeun(sg.Churn(5.0))}, ValueError, "without churn"),
        ({"forward": sg.BrownianMotion(1.0)}, ValueError, "ReverseSDE of a GaussianPath"),
    ],
)
def test_bad_requests_for_a_made_grid(change, error, message):
    law = CELLS["small data under VP"][1]
    forward = change.get("forward", SDES["vp"])
    flow = sg.ReverseSDE(forward, law.noised(SDES["vp"]).score if "forward" not in change
                         else lambda x, t: -x, eta=change.get("eta", 0.0))  # fmt: skip
    with pytest.raises(error, match=message):
        sg.timesteps.auto(
            change.get("flow", flow), change.get("steps", 3), solver=change.get("solver")
        )
