import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.plane import FokkerPlanck2D, PlaneDensity
from tests.exact import noised_gaussian, slope

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
    moving = FokkerPlanck2D(sg.ItoProcess(drift=lambda x, t: t - x, diffusion=1.0), square(20))
    with pytest.raises(ValueError, match="depend on time, so that nothing is at rest"):
        moving.stationary()
    with pytest.raises(ValueError, match="an extrapolation needs even substeps, but they are 5"):
        moving.solve_refined((0.0, 0.0), [0.0, 1.0], substeps=5)
    with pytest.raises(ValueError, match="substeps must be ≥ 1, but is 0"):
        solver.solve((0.0, 0.0), [0.0, 1.0], substeps=0)


def test_starts_that_are_none_are_refused():
    solver = FokkerPlanck2D(ROTATING, square(20))
    x, y = (grid.nodes for grid in solver.grids)
    p = gaussian(x, y, (0.0, 0.0), 0.5)
    holed = p.clone()
    holed[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"p0 must be finite, but is nan at \(-3.15, -2.7\)"):
        solver.solve(PlaneDensity(x, y, holed), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"p0 lives on 21 nodes x from -3.5 to 5.5, the solver"):
        solver.solve(PlaneDensity(x + 1, y, p), [0.0, 1.0])
    with pytest.raises(TypeError, match="p0 must be a PlaneDensity or a point"):
        solver.solve("here", [0.0, 1.0])
    with pytest.raises(ValueError, match=r"point must lie in \[-4.5, 4.5\] × .* but is \(5, 0\)"):
        solver.solve((5.0, 0.0), [0.0, 1.0])
    with pytest.raises(ValueError, match="covariance must be a symmetric, positive 2 × 2 matrix"):
        solver.gaussian((0.0, 0.0), [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="density must have shape"):
        solver.entropy_production(PlaneDensity(x[::2], y[::2], p[::2, ::2]))


def test_starts_have_the_moments_that_are_asked_for():
    solver = FokkerPlanck2D(ROTATING, square(90))
    asked = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    p = solver.gaussian((0.4, -0.3), asked)
    torch.testing.assert_close(p.mean, torch.tensor([0.4, -0.3], dtype=torch.float64))
    torch.testing.assert_close(p.covariance, asked)  # sums over nodes converge exponentially
    point = solver.point(0.123, -1.07)
    torch.testing.assert_close(point.mean, torch.tensor([0.123, -1.07], dtype=torch.float64))
    assert float(point.covariance.diagonal().max()) <= (0.1 / 2) ** 2 + 1e-15
    assert float(point.mass) == pytest.approx(1.0, abs=1e-14)
    # and from a point mean and spread are those of the process, to the width of a cell
    t = 0.5
    final = solver.solve((0.123, -1.07), [0.0, t])[-1]
    c, s = math.cos(OMEGA * t), math.sin(OMEGA * t)
    turned = math.exp(-K * t) * torch.tensor([0.123 * c - 1.07 * s, -0.123 * s - 1.07 * c])
    assert float((final.mean - turned).abs().max()) < 2e-2
    assert final.covariance[0, 0] == pytest.approx(D / K * (1 - math.exp(-2 * K * t)), rel=3e-2)


def test_a_transient_is_extrapolated_and_knows_its_error():
    """The plain density errs by the estimate, the better one by its square, of order 4."""
    t, misses = 0.6, []
    decay = math.exp(-K * t)
    mean = (decay * 1.5 * math.cos(OMEGA * t), -decay * 1.5 * math.sin(OMEGA * t))
    var = D / K * (1 - decay**2) + 0.2 * decay**2
    for cells in (60, 100):
        solver = FokkerPlanck2D(ROTATING, square(cells, reach=5.0))
        start = solver.gaussian((1.5, 0.0), [[0.2, 0.0], [0.0, 0.2]])
        better = solver.solve_refined(start, [0.0, t])[-1]
        exact = gaussian(better.x, better.y, mean, var)
        misses.append(float((better.p - exact).abs().max()))
        plain = solver.solve(start, [0.0, t])[-1].p[::2, ::2]
        assert better.error == pytest.approx(float((plain - exact).abs().max()), rel=0.3)
        assert misses[-1] < better.error / 4
    assert slope([1 / 60, 1 / 100], misses) > 3


def test_entropy_production_is_that_of_the_circulation():
    """σ = ∫ |J|²/(D p) with J = ω (−y, x) p: ω² E r²/D = 2 ω²/k. It converges in order 2."""
    errors = []
    for cells in (40, 80):
        solver = FokkerPlanck2D(ROTATING, square(cells))
        errors.append(float(solver.entropy_production(solver.stationary())) - 2 * OMEGA**2 / K)
    assert abs(errors[-1]) < 0.04
    assert abs(slope([1 / 40, 1 / 80], [abs(error) for error in errors]) - 2) < 0.2
    still = FokkerPlanck2D(sg.ItoProcess(drift=lambda x: -x, diffusion=1.0), square(40))
    assert abs(float(still.entropy_production(still.stationary()))) < 1e-12
    # N((1, 0), ½) under f = −x, D = ½ relaxes: J = (−x + 2 D (x − 1)) p = −p in x, σ = 1/D
    errors = []
    for cells in (40, 80):
        still = FokkerPlanck2D(still.sde, square(cells))
        away = still.gaussian((1.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
        errors.append(abs(float(still.entropy_production(away)) - 2))
    assert errors[-1] < 0.01
    assert slope([1 / 40, 1 / 80], errors) == pytest.approx(2, abs=0.2)


def test_a_drift_that_depends_on_time_carries_the_density():
    """dX = (sin 3t − X) dt + dW_x, dY = (cos 2t − Y) dt + dW_y: Gaussian, means by quadrature."""

    def pull(x, t):
        return torch.stack([torch.sin(3 * t), torch.cos(2 * t)]).to(x) - x

    t, s = 1.0, torch.linspace(0, 1, 2001, dtype=torch.float64)
    kernel = torch.exp(s - t)
    mean = (
        0.5 * math.exp(-t) + float(torch.trapezoid(kernel * torch.sin(3 * s), s)),
        float(torch.trapezoid(kernel * torch.cos(2 * s), s)),
    )
    var = 0.5 + (0.3 - 0.5) * math.exp(-2 * t)
    solver = FokkerPlanck2D(sg.ItoProcess(pull, 1.0), square(60, reach=5.0))
    start = solver.gaussian((0.5, 0.0), [[0.3, 0.0], [0.0, 0.3]])
    steps = [solver.solve(start, [0.0, t], substeps=n)[-1].p for n in (8, 16, 64)]
    off = [float((p - steps[-1]).abs().max()) for p in steps[:2]]
    assert slope([1 / 8, 1 / 16], off) == pytest.approx(2, abs=0.2)
    better = solver.solve_refined(start, [0.0, t], substeps=16)[-1]
    miss = float((better.p - gaussian(better.x, better.y, mean, var)).abs().max())
    assert miss < 1e-4
    assert miss < better.error


def test_a_reverse_sde_in_the_plane_comes_back_to_the_data():
    """Of Gaussian data the score is known; p_T is carried back to N(α μ, α² s² + σ²)."""
    sde, noised = noised_gaussian(mean=0.8, std=0.6)
    solver = FokkerPlanck2D(sg.ReverseSDE(sde, noised.score), square(60, reach=6.0))
    start, end = 1.0, 0.1
    (m, v), (n, w) = (
        [float(moment) for moment in noised.moments(torch.tensor(t))] for t in (start, end)
    )
    p0 = solver.gaussian((m, m), [[v, 0.0], [0.0, v]])
    final = solver.solve_refined(p0, [start, end], substeps=32)[-1]
    miss = float((final.p - gaussian(final.x, final.y, (n, n), w)).abs().max())
    assert miss < 0.01 * float(final.p.max())
    assert final.mean[0] == pytest.approx(n, abs=5e-3)
