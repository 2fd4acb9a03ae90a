import math

import pytest
import torch

import sdegen as sg

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
    with pytest.raises(TypeError, match=r"the forward SDE, .* VP\(…\), but is ReverseSDE"):
        getattr(sg.timesteps, rule)(flow, 5)
    if rule in ("power", "karras"):
        with pytest.raises(TypeError, match="rho must be a number, but is '7'"):
            getattr(sg.timesteps, rule)(vp, 5, "7")
