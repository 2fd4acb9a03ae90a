import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.questions.transient import BackwardEuler, Exponential


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def well(theta):
    """A double well with free coefficients and a free noise that depends on x."""
    return sg.ItoProcess(
        drift=lambda x: theta[0] * x - theta[1] * x**3,
        diffusion=lambda x: theta[2] * (1 + 0.2 * torch.sin(x)),
    )


GRID = sg.Grid(-3.5, 3.5, 40)


def test_stationary_passes_gradcheck():
    def density(theta):
        return sg.FokkerPlanck(well(theta), GRID).stationary(differentiable=True).p

    assert torch.autograd.gradcheck(density, (leaf(1.0, 1.0, 0.9),), atol=1e-7)


def test_stationary_on_a_tilted_ring_passes_gradcheck():
    def density(theta):
        sde = sg.ItoProcess(
            drift=lambda x: theta[0] * torch.sin(x) + theta[1],
            diffusion=lambda x: theta[2] + 0 * x,
        )
        grid = sg.Grid(0.0, 2 * math.pi, 24)
        return sg.FokkerPlanck(sde, grid, "periodic").stationary(differentiable=True).p

    assert torch.autograd.gradcheck(density, (leaf(1.0, 0.4, 0.9),), atol=1e-7)


@pytest.mark.parametrize(
    ("form", "integrator"),
    [("compact", Exponential()), ("lumped", Exponential()), ("lumped", BackwardEuler(3))],
)
def test_transient_passes_gradcheck(form, integrator):
    # a Gaussian start, log p0 = c₀ + c₁x + c₂x² with mean −0.8 and standard deviation 0.5
    peak = -math.log(0.5 * math.sqrt(2 * math.pi)) - 2 * 0.8**2

    def density(theta, c):
        log_p0 = c[0] + c[1] * GRID.nodes + c[2] * GRID.nodes**2
        solver = sg.FokkerPlanck(well(theta), GRID, form=form)
        path = solver.solve(
            sg.Density(GRID.nodes, log_p0.exp()),
            [0.0, 0.2, 0.7],
            integrator=integrator,
            rtol=1.0,
            differentiable=True,
        )
        return path.p[1:, ::3]

    assert torch.autograd.gradcheck(
        density, (leaf(1.0, 1.0, 0.9), leaf(peak, -3.2, -2.0)), atol=1e-6
    )


def test_time_dependent_transient_passes_gradcheck():
    def density(theta):
        sde = sg.ItoProcess(
            drift=lambda x, t: -theta[0] * x + torch.sin(theta[1] * t),
            diffusion=lambda x, t: theta[2] * (1 + 0.1 * t) + 0 * x,
        )
        grid = sg.Grid(-6.0, 6.0, 40)
        path = sg.FokkerPlanck(sde, grid, form="compact").solve(
            grid.gaussian(0.5, 0.7), [0.0, 0.6], integrator=Exponential(2), differentiable=True
        )
        return path.p[1, ::3]

    assert torch.autograd.gradcheck(density, (leaf(1.0, 2.0, 1.2),), atol=1e-6)


def test_mean_first_passage_passes_gradcheck():
    def mean(theta):
        sde = sg.ItoProcess(
            drift=lambda x: theta[0] * x - theta[1] * x**3, diffusion=lambda x: theta[2] + 0 * x
        )
        solver = sg.FokkerPlanck(sde, sg.Grid(-3.0, 1.0, 32), ("no-flux", "absorbing"))
        return solver.first_passage(differentiable=True).moments[:, ::4]

    assert torch.autograd.gradcheck(mean, (leaf(1.0, 1.0, 0.9),), atol=1e-6)


def test_gradient_of_the_variance_of_a_trap():
    # Var = D/k: its derivatives are known
    theta = leaf(1.3, 0.9)
    sde = sg.ItoProcess(drift=lambda x: -theta[0] * x, diffusion=lambda x: theta[1] + 0 * x)
    grid = sg.Grid(-8.0, 8.0, 400)
    density = sg.FokkerPlanck(sde, grid).stationary(differentiable=True)
    (slope,) = torch.autograd.grad(density.variance, theta)
    k, g = theta.tolist()
    assert float(slope[0]) == pytest.approx(-(g**2) / (2 * k**2), rel=1e-6)
    assert float(slope[1]) == pytest.approx(g / k, rel=1e-6)


def test_a_potential_is_fitted_to_a_density():
    truth = sg.FokkerPlanck(well(leaf(1.2, 0.8, 0.9)), GRID).stationary().p
    theta = leaf(0.8, 1.0)
    optimizer = torch.optim.LBFGS([theta], max_iter=50, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        both = torch.cat([theta, theta.new_tensor([0.9])])
        p = sg.FokkerPlanck(well(both), GRID).stationary(differentiable=True).p
        value = (truth * (truth.clamp(min=1e-30).log() - p.clamp(min=1e-30).log())).sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert theta.tolist() == pytest.approx([1.2, 0.8], abs=1e-4)


def test_without_asking_nothing_is_recorded():
    solver = sg.FokkerPlanck(well(leaf(1.0, 1.0, 0.9)), GRID)
    assert not solver.stationary().p.requires_grad
    assert not solver.solve(GRID.gaussian(0.0, 0.5), [0.0, 1.0]).p.requires_grad


@pytest.mark.parametrize("form", ["auto", "lumped"])
def test_gradients_of_driven_dynamics_from_a_smooth_start(form):
    """d/dk of the mean at the end, against a central difference of the same solver."""
    grid = sg.Grid(-2.8, 2.8, 120)

    def mean(k):
        sde = sg.ItoProcess(lambda x, t: k * (x - x**3) + 0.3 * torch.sin(t), 0.7)
        solver = sg.FokkerPlanck(sde, grid, form=form)
        grad = isinstance(k, torch.Tensor)
        return solver.solve(
            grid.gaussian(-0.9, 0.3), [0.0, 0.5, 1.0], differentiable=grad
        ).final.mean

    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    mean(k).backward()
    by_differences = (float(mean(1.001)) - float(mean(0.999))) / 0.002
    assert abs(by_differences) > 0.02
    assert float(k.grad) == pytest.approx(by_differences, rel=1e-4)


@pytest.mark.parametrize("form", ["auto", "lumped"])
def test_gradients_where_the_noise_vanishes_at_a_wall(form):
    """dX = (k − X) dt + 0.8 √X dW: d⟨X⟩/dk = 1 − e^{−t}, from a start in the middle."""
    grid = sg.Grid(0.0, 8.0, 200)
    k = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: k - x, lambda x: 0.8 * x.clamp(min=0).sqrt())
    path = sg.FokkerPlanck(sde, grid, form=form).solve(
        grid.gaussian(2.0, 0.3), [0.0, 0.5], differentiable=True
    )
    path.final.mean.backward()
    assert float(k.grad) == pytest.approx(1 - math.exp(-0.5), rel=2e-3)
