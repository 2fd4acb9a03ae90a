"""Derivatives that autograd sees, sees in part, or does not see, against the exact ones."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.derivatives import differences, noise_induced, slope_of
from sdegen.core.slope_checks import check_seen, check_slope, mixes_coordinates

F64 = torch.float64
X = torch.linspace(-0.9, 0.9, 7, dtype=F64)[:, None]
ENDS = torch.tensor([[-1.0], [1.0]], dtype=F64)
NODES = np.linspace(-1, 1, 401)
TABLE = 0.2 + 0.9 * (NODES + 1)  # D(x), so that ∂D/∂x = 0.9


def tabulated(x):
    return torch.as_tensor(np.sqrt(2 * np.interp(x.detach().numpy(), NODES, TABLE))).to(x)


def without_detach(x):
    return torch.as_tensor(np.sqrt(2 * np.interp(x.numpy(), NODES, TABLE))).to(x)


def under_no_grad(x):
    with torch.no_grad():
        return (0.4 + 1.8 * (x + 1)).sqrt()


HIDDEN = {"interp": tabulated, "numpy alone": without_detach, "no_grad": under_no_grad}


@pytest.mark.parametrize("g", HIDDEN.values(), ids=HIDDEN.keys())
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("reading", "alpha"), [("stratonovich", 0.5), ("klimontovich", 1.0)])
def test_a_hidden_slope_is_found_by_differences(g, dtype, reading, alpha):
    """Drift α ∂D/∂x = 0.9 α; differences in float64 are exact on a line up to rounding."""
    sde = sg.ItoProcess(lambda x: 0 * x, g, interpretation=reading)
    drift = sde.drift(X.to(dtype), torch.tensor(0.0))
    assert drift.dtype == dtype
    torch.testing.assert_close(drift, torch.full_like(drift, 0.9 * alpha), rtol=1e-6, atol=0)
    sde.check_derivatives(ENDS, torch.tensor(0.0))


def test_a_tabulated_noise_under_its_reading_is_uniform_at_rest():
    """Klimontovich noise without drift in a closed box: uniform, mean 0, density and particles.

    The mean of 5,000 uniform numbers has the error 1/√(3 · 5,000) = 0.0082; 5 of them, 6e-7.
    In Itô's reading it is −0.35.
    """
    sde = sg.ItoProcess(lambda x: 0 * x, tabulated, interpretation="klimontovich")
    fp = sg.FokkerPlanck(sde, sg.Grid(-1.0, 1.0, 200), truncation_is_physical=True)
    rest = fp.stationary()
    torch.testing.assert_close(rest.p, torch.full_like(rest.p, 0.5), rtol=1e-6, atol=0)
    assert float(rest.mean) == pytest.approx(0, abs=1e-6)
    x0 = 2 * torch.rand(5_000, 1, dtype=F64, generator=torch.Generator().manual_seed(0)) - 1
    path = sg.simulate(
        sde,
        x0,
        torch.linspace(0, 2, 21),
        solver=sg.EulerMaruyama(20),
        boundary=sg.Reflecting(-1.0, 1.0),
        rng=0,
        keep_path=False,
    )
    assert float(path.final.mean()) == pytest.approx(0, abs=5 * 0.0082)


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 2)])
def test_one_hidden_number_for_each_trajectory_is_shifted_coordinate_by_coordinate(shape):
    """g² = 1 + |x|² for all coordinates: ∂(g²/2)/∂x_j = x_j."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)

    def g(y):
        square = y.detach().flatten(1).square().sum(1)
        return (1 + square).sqrt().reshape(-1, *(1,) * (y.ndim - 1))

    torch.testing.assert_close(noise_induced(g, x), x, rtol=1e-7, atol=1e-7)
    sde = sg.ItoProcess(lambda y: 0 * y, g, interpretation="klimontovich")
    sde.check_derivatives(torch.stack([x[0], x[1]]), torch.tensor(0.0))


def test_each_coordinate_has_the_slope_of_its_own_noise():
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = noise_induced(lambda y: scale * (1 + y.detach() ** 2), x)
    torch.testing.assert_close(found, 2 * scale**2 * x * (1 + x**2), rtol=1e-7, atol=1e-7)


def test_a_slope_of_nan_is_that_of_the_square():
    """∂(g²/2)/∂x: ½ for √x, at 0 as well; 0 where the branch of `where` is not taken."""
    x = torch.tensor([[0.0], [0.3], [2.0]], dtype=F64)
    half = torch.full_like(x, 0.5)
    torch.testing.assert_close(noise_induced(torch.sqrt, x), half, rtol=1e-9, atol=0)
    branch = noise_induced(lambda y: torch.where(y > 0, y.sqrt(), 0.0), x - 1)
    exact = torch.tensor([[0.0], [0.0], [0.5]], dtype=F64)
    torch.testing.assert_close(branch, exact, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope_of(lambda y: y.abs() ** 1.5, 0 * x), 0 * x, rtol=0, atol=1e-2)


def test_readings_run_under_inference_mode():
    """Geometric Brownian motion read by Klimontovich: dX = σ² X dt + σ X dW, mean e^{σ² t}."""
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: 0.1 * x, interpretation="klimontovich")
    with torch.inference_mode():
        x0 = torch.ones(3, 1, dtype=F64)
        drift = sde.drift(x0, torch.tensor(0.0))
        torch.testing.assert_close(drift, 0.01 * x0, rtol=1e-12, atol=0)
        sg.simulate(sde, x0, [0.0, 0.1], rng=0)


def in_part(x):
    """Of g = 1 + x²/2 autograd sees a fifth of the slope."""
    return 1 + 0.1 * x**2 + 0.4 * x.detach() ** 2


def all_but_a_tenth(x):
    """Of g = 1 + x/2 autograd misses a tenth of the slope."""
    return 1 + 0.45 * x + 0.05 * x.detach()


def staircase(x):
    return 3 + 0.25 * torch.floor(8 * x)


def spoiled_by_a_parameter(x):
    """Its value requires grad, by a parameter, though x is hidden."""
    return torch.nn.Parameter(torch.tensor(1.0, dtype=F64)) * (2 + x.detach())


ENTRANCES = {
    "simulate": lambda sde: sg.simulate(sde, 0.5 * X, [0.0, 0.1], rng=0),
    "run_ensemble": lambda sde: sg.run_ensemble(
        sde, X[:1], [0.0, 0.1], trajectories=3, observables=[sg.Moments()], rng=0
    ),
    "FokkerPlanck": lambda sde: sg.FokkerPlanck(sde, sg.Grid(-1.0, 1.0, 60)),
    "family": lambda sde: sg.FokkerPlanckBatch([sde], sg.Grid(-1.0, 1.0, 60)),
    "plane": lambda sde: sg.FokkerPlanck2D(sde, (sg.Grid(-1.0, 1.0, 20),) * 2),
    "chain": lambda sde: sg.ChainDensity(sde, sg.Grid(-1.0, 1.0, 60)).run(0.0, [0.0, 0.1]),
    "certify": lambda sde: sg.certify(
        sde, grid := sg.Grid(-1.0, 1.0, 60), grid.gaussian(0.0, 0.1), [0.0, 0.1]
    ),
}


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES.keys())
@pytest.mark.parametrize("g", [in_part, all_but_a_tenth, staircase])
def test_a_slope_seen_in_part_is_refused_before_the_run(enter, g):
    sde = sg.ItoProcess(lambda x: -x, g, interpretation="klimontovich")
    with pytest.raises(ValueError, match=r"derivative of g²/2 .* pass diffusion_derivative="):
        enter(sde)


def test_a_slope_missed_in_part_is_refused_in_single_precision():
    sde = sg.ItoProcess(lambda x: -x, all_but_a_tenth, interpretation="stratonovich")
    with pytest.raises(ValueError, match=r"derivative of g²/2 is not that of the function"):
        sg.simulate(sde, 0.5 * X.float(), [0.0, 0.1], rng=0)


def test_the_advice_about_a_slope_seen_in_part_cures_it():
    """diffusion_derivative= is the slope that is used, to the bit, and is checked itself."""
    sde = sg.ItoProcess(
        lambda x: 0 * x, in_part, interpretation="klimontovich", diffusion_derivative=lambda x: x
    )
    torch.testing.assert_close(sde.drift(X, torch.tensor(0.0)), in_part(X) * X, rtol=0, atol=0)
    sg.simulate(sde, X, [0.0, 0.1], rng=0)
    wrong = sg.ItoProcess(
        lambda x: 0 * x, in_part, interpretation="klimontovich", diffusion_derivative=lambda x: -x
    )
    with pytest.raises(ValueError, match=r"Let diffusion_derivative= return ∂g/∂x"):
        sg.simulate(wrong, X, [0.0, 0.1], rng=0)


def test_a_parameter_does_not_hide_that_the_state_is_hidden():
    """D = (2 + x)²/2, slope 2 + x, and its derivative in the parameter p at 1: 2 (2 + x)."""
    found = noise_induced(spoiled_by_a_parameter, X)
    torch.testing.assert_close(found.detach(), 2 + X, rtol=1e-7, atol=0)
    p = torch.tensor(1.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(noise_induced(lambda x: p * (2 + x.detach()), X).sum(), p)
    assert float(slope) == pytest.approx(float(2 * (2 + X).sum()), rel=1e-6)


def test_hidden_mixtures_of_coordinates_are_refused():
    def mixed(x):
        return 1 + x.detach().flip(1) ** 2

    assert mixes_coordinates(mixed, torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.4, 0.6]], dtype=F64))
    assert not mixes_coordinates(lambda x: 1 + x**2, torch.randn(2, 5, dtype=F64))
    sde = sg.ItoProcess(lambda x: 0 * x, mixed, interpretation="stratonovich")
    with pytest.raises(ValueError, match="mixes coordinates or trajectories"):
        sg.simulate(sde, torch.randn(4, 3, dtype=F64), [0.0, 0.1], rng=0)


SMOOTH = {
    "a constant": lambda x: torch.full_like(x, 0.3),
    "a kink": lambda x: 1 + x.abs(),
    "a branch": lambda x: torch.where(x > 0, 1 + x.clamp(min=0).sqrt(), 1.0),
    "a table with noise": lambda x: torch.as_tensor(
        np.interp(
            x.detach().numpy(), NODES, 1 + 0.1 * np.random.default_rng(0).standard_normal(401)
        )
    ).to(x),
    "many waves": lambda x: 1.5 + torch.sin(300 * x),
    "a large offset": lambda x: 1e3 + 0.1 * x,
}


@pytest.mark.parametrize("g", SMOOTH.values(), ids=SMOOTH.keys())
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_is_continuous_raises_no_false_alarm(g, dtype):
    sde = sg.ItoProcess(lambda x: 0 * x, g, interpretation="klimontovich")
    for ends in (ENDS, ENDS * 0.01, torch.tensor([[0.0], [1.0]])):
        sde.check_derivatives(ends.to(dtype), torch.tensor(0.0))


def test_what_the_slope_of_a_function_may_be():
    check_slope(torch.sin, torch.cos, ENDS, name="f", cure="")
    with pytest.raises(ValueError, match=r"derivative of f is not .* its derivative adds up to -"):
        check_slope(torch.sin, lambda x: -torch.cos(x), ENDS, name="f", cure="")
    with pytest.raises(ValueError, match="adds up to nan"):
        check_slope(torch.sin, lambda x: x * math.nan, ENDS, name="f", cure="")


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_differences_have_the_error_they_are_said_to_have(dtype):
    x = torch.linspace(-2, 2, 41, dtype=dtype)[:, None]
    error = (differences(torch.sin, x) - x.cos()).abs().max()
    assert float(error) < (1e-6 if dtype == torch.float32 else 1e-8)


# ---------------------------------------------------------------- solvers that take derivatives


def test_milstein_sees_the_slope_of_a_hidden_noise():
    """dX = σ X dW from a hidden g: the paths are those of the same g in torch, to 1e-6."""

    def of(g):
        sde = sg.ItoProcess(lambda x: 0 * x, g)
        solver = sg.TorchSDE("milstein", substeps=4)
        return sg.simulate(sde, 1 + 0.1 * X, [0.0, 0.5], solver=solver, rng=0).final

    seen = of(lambda x: 0.5 * x)
    torch.testing.assert_close(of(lambda x: 0.5 * x.detach()), seen, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        of(lambda x: torch.as_tensor(0.5 * x.numpy())), seen, rtol=1e-6, atol=0
    )


def test_a_flow_whose_slope_is_hidden_carries_its_density():
    """dx/dt = −x from N(1, 0.3²): at t = 0.5 N(e^{−½}, 0.3² e^{−1}), by `certify`'s exact law."""
    from sdegen.verification.characteristics import carried_by_flow

    grid = sg.Grid(-2.0, 3.0, 400)
    start = grid.gaussian(1.0, 0.3)
    for drift in (lambda x: -x.detach(), lambda x: -x):
        p = carried_by_flow(sg.ItoProcess(drift, 0.0), start, 0.0, 0.5)
        assert float(p.mean) == pytest.approx(math.exp(-0.5), abs=1e-6)
        assert float(p.std) == pytest.approx(0.3 * math.exp(-0.5), abs=1e-6)
        assert float(p.mass) == pytest.approx(1, abs=1e-6)
    half = sg.ItoProcess(lambda x: -0.5 * x - 0.5 * x.detach(), 0.0)
    with pytest.raises(ValueError, match="derivative of the drift is not that of the function"):
        carried_by_flow(half, start, 0.0, 0.5)


@pytest.mark.parametrize(
    ("drift", "diffusion", "name"),
    [
        (lambda x: -x.detach(), 0.1, "drift"),
        (lambda x: -0.5 * x - 0.5 * x.detach(), 0.1, "drift"),
        (lambda x: -0.97 * x - 0.03 * x.detach(), 0.1, "drift"),
        (lambda x: -x, lambda x: 1 + x.detach() ** 2, "diffusion"),
        (lambda x: torch.as_tensor(-x.detach().numpy()), 0.1, "drift"),
    ],
)
def test_gradients_through_what_autograd_does_not_see_are_refused(drift, diffusion, name):
    sde = sg.ItoProcess(drift, diffusion)
    with pytest.raises(ValueError, match=f"the {name} changes with x in a way that autograd does"):
        sg.simulate(sde, X, [0.0, 0.1], rng=0, differentiable=True)
    sg.simulate(sde, X, [0.0, 0.1], rng=0)  # and is no matter without gradients


def test_what_autograd_sees_passes():
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(9))
    for field in (net, torch.sign, torch.zeros_like, lambda x: x - x.mean(0), lambda x: x.abs()):
        check_seen(field, x, "drift")
        check_seen(field, 0 * x, "drift")


HALF_HIDDEN = {
    "hidden": lambda x, t: -x.detach() - 0 * x,
    "half hidden": lambda x, t: -0.5 * x - 0.5 * x.detach(),
}
VP = sg.VP(sg.LinearBeta(0.1, 20.0))


@pytest.mark.parametrize("score", HALF_HIDDEN.values(), ids=HALF_HIDDEN.keys())
def test_what_differentiates_a_score_refuses_one_that_hides_its_slope(score):
    """Divergences, measurements and the residual of the score equation take no part for whole."""
    x = torch.tensor([[0.5, -0.3], [0.1, 1.2]], dtype=F64)
    measured = sg.LinearMeasurement(torch.ones(1, 2), torch.ones(1), 0.1)
    hidden = "the score changes with x in a way that autograd does not see"
    for ask in (
        lambda: sg.log_likelihood(VP, score, x),
        lambda: sg.log_likelihood(VP, score, x, divergence=sg.Hutchinson(1), rng=0),
        lambda: measured.posterior_score(VP, score)(x, 0.5),
        lambda: sg.fp_residual(score, VP, x, torch.tensor(0.5)),
    ):
        with pytest.raises(ValueError, match=hidden):
            ask()


def test_a_network_in_single_precision_is_not_taken_for_one_that_hides():
    model = sg.ScoreModel(sg.MLP(dim=2), VP)
    x = torch.tensor([[0.5, -0.3], [0.1, 1.2]], dtype=F64)
    for t in (1e-3, 0.5, 1.0):
        check_seen(lambda y, t=t: model.score(y, t), x, "score")
        check_seen(lambda y, t=t: model.score(y, t), x.float(), "score")


def test_times_that_require_grad_are_refused():
    times = torch.linspace(0, 1, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"times is a tensor that requires grad, .*detach\(\)"):
        sg.simulate(sg.OrnsteinUhlenbeck(), X, times, rng=0)
    sg.simulate(sg.OrnsteinUhlenbeck(), X, times.detach(), rng=0)


def test_a_process_says_how_its_slope_is_found():
    t, words = torch.tensor(0.0), {"interpretation": "klimontovich"}
    cases = (
        (lambda x: 1 + x**2, "autograd", words),
        (tabulated, "differences", words),
        (torch.sqrt, "differences", words),  # NaN at 0
        (lambda x: 1 + x**2, "given", {**words, "diffusion_derivative": lambda x: 2 * x}),
        (tabulated, "none", {}),
    )
    for g, how, said in cases:
        sde = sg.ItoProcess(lambda x: 0 * x, g, **said)
        assert sde.slope_by(torch.zeros(1, 1, dtype=F64), t) == how
