import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.plane import FokkerPlanck2D, PlaneDensity
from tests.exact import slope

K, OMEGA, D = 1.0, 2.0, 0.5


def rotating(x, t):
    turn = torch.tensor([[0.0, -OMEGA], [OMEGA, 0.0]], dtype=torch.float64)
    return -K * x - x @ turn.T


ROTATING = sg.ItoProcess(drift=rotating, diffusion=math.sqrt(2 * D))


def square(cells, reach=4.5):
    return sg.Grid(-reach, reach, cells), sg.Grid(-reach, reach, cells)


def gaussian(x, y, mean, var):
    r2 = (x[:, None] - mean[0]) ** 2 + (y[None, :] - mean[1]) ** 2
    return torch.exp(-r2 / (2 * var)) / (2 * math.pi * var)


def test_rotating_trap_is_second_order_and_extrapolates():
    errors = []
    for cells in (50, 100):
        p = FokkerPlanck2D(ROTATING, square(cells)).stationary()
        errors.append(float((p.p - gaussian(p.x, p.y, (0.0, 0.0), D / K)).abs().max()))
        assert float(p.p.min()) > 0
        assert abs(float(p.mass) - 1) < 1e-12
    assert abs(slope([1 / 50, 1 / 100], errors) - 2) < 0.1
    better = FokkerPlanck2D(ROTATING, square(100)).refined()
    miss = float((better.p - gaussian(better.x, better.y, (0.0, 0.0), D / K)).abs().max())
    assert miss < 0.05 * errors[-1]
    assert better.error == pytest.approx(errors[-1], rel=0.2)


def test_rotating_trap_from_two_hundred_cells():
    better = FokkerPlanck2D(ROTATING, square(200)).refined()
    exact = gaussian(better.x, better.y, (0.0, 0.0), D / K)
    assert float((better.p - exact).abs().max()) < 1e-6


def test_its_current_circulates():
    # J = ω (y, −x) p for the drift −ω (−y, x)
    solver = FokkerPlanck2D(ROTATING, square(100))
    p = solver.stationary()
    current = solver.current(p)
    exact = OMEGA * torch.stack([p.y[None, :] * p.p, -p.x[:, None] * p.p])
    assert float((current - exact).abs().max()) < 5e-3 * float(exact.abs().max())


def test_a_density_that_spirals_in():
    # mean e^{−kt} R(t) x0, variance (D/k)(1 − e^{−2kt}) + v0 e^{−2kt}
    t, errors = 0.6, []
    turn = -OMEGA * t
    decay = math.exp(-K * t)
    mean = (decay * 1.5 * math.cos(turn), decay * 1.5 * math.sin(turn))
    var = D / K * (1 - decay**2) + 0.2 * decay**2
    for cells in (45, 90):
        solver = FokkerPlanck2D(ROTATING, square(cells))
        x, y = (grid.nodes for grid in solver.grids)
        start = PlaneDensity(x, y, gaussian(x, y, (1.5, 0.0), 0.2))
        final = solver.solve(start, [0.0, t])[-1]
        errors.append(float((final.p - gaussian(x, y, mean, var)).abs().max()))
        assert abs(float(final.mass) - 1) < 1e-9
    assert abs(slope([1 / 45, 1 / 90], errors) - 2) < 0.2
    assert float((final.mean - torch.tensor(mean, dtype=torch.float64)).abs().max()) < 3e-2
    assert final.covariance[0, 0] == pytest.approx(var, rel=2e-2)


def test_two_independent_coordinates_are_a_product():
    # different noise on each axis, multiplicative on one: the marginals are those of a line
    def noise(x):
        return torch.stack([1 + 0.3 * torch.sin(x[:, 0]), torch.full_like(x[:, 1], 0.8)], 1)

    both = sg.ItoProcess(drift=lambda x: -x, diffusion=noise)
    first = sg.ItoProcess(drift=lambda x: -x, diffusion=lambda x: 1 + 0.3 * torch.sin(x))
    grid = sg.Grid(-6.0, 6.0, 60)
    got = FokkerPlanck2D(both, (grid, sg.Grid(-4.0, 4.0, 60))).stationary()
    line = sg.FokkerPlanck(first, grid).stationary()
    # the current along a line vanishes: p_{i+1}/p_i = a/b, here as there, whatever the cell
    assert float((got.marginal(0).p - line.p).abs().max()) < 1e-9
    assert abs(float(got.covariance[0, 1])) < 1e-12


def test_refusals():
    with pytest.raises(sg.NotNormalizableError, match="at an edge of the grid is 1 of its peak"):
        FokkerPlanck2D(sg.BrownianMotion(1.0), square(20)).stationary()
    with pytest.raises(ValueError, match="even numbers of cells, but the grid has 21 × 21"):
        FokkerPlanck2D(ROTATING, square(21)).refined()
    solver = FokkerPlanck2D(ROTATING, square(20))
    x, y = (grid.nodes for grid in solver.grids)
    with pytest.raises(ValueError, match="p0 must have mass 1, but has 2"):
        solver.solve(PlaneDensity(x, y, 2 * gaussian(x, y, (0.0, 0.0), 0.5)), [0.0, 1.0])
    with pytest.raises(ValueError, match="p0 must be ≥ 0"):
        solver.solve(PlaneDensity(x, y, -gaussian(x, y, (0.0, 0.0), 0.5)), [0.0, 1.0])
    with pytest.raises(ValueError, match="drift must be finite and D > 0 on the grid"):
        FokkerPlanck2D(sg.ItoProcess(drift=lambda x: -x, diffusion=0.0), square(20))
    with pytest.raises(ValueError, match="depend on time; in the plane"):
        FokkerPlanck2D(sg.ItoProcess(drift=lambda x, t: t - x, diffusion=1.0), square(20))
