import math

import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov

import sdegen as sg
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from tests.exact import slope

K, OMEGA, D = 1.0, 2.0, 0.5


def rotating(x, t):
    turn = torch.tensor([[0.0, -OMEGA], [OMEGA, 0.0]], dtype=torch.float64)
    return -K * x - x @ turn.T


ROTATING = sg.ItoProcess(drift=rotating, diffusion=math.sqrt(2 * D))


def swirl(omega):
    """A rotation does not change N(0, I)."""
    return sg.ItoProcess(
        lambda z: -z + omega * torch.stack([z[:, 1], -z[:, 0]], 1), math.sqrt(2.0)
    )


def square(cells, reach=4.5):
    return sg.Grid(-reach, reach, cells), sg.Grid(-reach, reach, cells)


def gaussian(x, y, mean, var):
    r2 = (x[:, None] - mean[0]) ** 2 + (y[None, :] - mean[1]) ** 2
    return torch.exp(-r2 / (2 * var)) / (2 * math.pi * var)


def miss_of(p, exact):
    return float((p.p - exact).abs().max() / exact.max())


def test_a_rotating_trap_is_of_high_order_or_positive_of_second():
    compact = []
    for cells in (44, 88):
        p = FokkerPlanck2D(ROTATING, square(cells)).stationary()
        exact = gaussian(p.x, p.y, (0.0, 0.0), D / K)
        compact.append(miss_of(p, exact))
        assert p.form == "compact"
        assert float(p.p.min()) >= 0
        assert abs(float(p.mass) - 1) < 1e-6
        assert compact[-1] / 3 < p.error["p"] < 50 * compact[-1]
    assert slope([1 / 44, 1 / 88], compact) > 4
    assert compact[-1] < 1e-6
    with pytest.warns(sg.AccuracyWarning, match="the stationary density: the estimated relative"):
        p = FokkerPlanck2D(ROTATING, square(60), form="lumped").stationary(rtol=0.005)
    exact = gaussian(p.x, p.y, (0.0, 0.0), D / K)
    assert p.form == "lumped"
    assert float(p.p.min()) > 0
    assert miss_of(p, exact) / 3 < p.error["p"] < 20 * miss_of(p, exact)


@pytest.mark.parametrize(("omega", "cells"), [(5.0, 60), (20.0, 60), (20.0, 120), (50.0, 60)])
def test_a_fast_rotation_has_the_trap_s_variance_and_its_own_dissipation(omega, cells):
    """Variance 1 and σ = 2 ω², at cell Péclet numbers of up to 72; the tails end at e⁻²⁰."""
    solver = FokkerPlanck2D(swirl(omega), square(cells, 6.4))
    p = solver.stationary()
    assert float(p.marginal(0).variance) == pytest.approx(1.0, abs=1e-5)
    assert miss_of(p, gaussian(p.x, p.y, (0.0, 0.0), 1.0)) < 3e-4
    sigma = solver.entropy_production(p)
    assert float(sigma) == pytest.approx(2 * omega**2, rel=1e-3)
    assert float(sigma.error) < 1e-3
    assert float(p.error) < 1e-3


def test_coarse_cells_are_refined_inside():
    """On 30² cells a rotation of 20 is not resolved; the density is handed back at these nodes."""
    solver = FokkerPlanck2D(swirl(20.0), square(30, 6.4))
    p = solver.stationary()
    assert p.p.shape == (31, 31)
    assert miss_of(p, gaussian(p.x, p.y, (0.0, 0.0), 1.0)) < 1e-3
    tight = solver.stationary(rtol=1e-5)
    assert max(tight.error.values()) < 1e-5
    assert miss_of(tight, gaussian(p.x, p.y, (0.0, 0.0), 1.0)) < 1e-5


def test_what_no_grid_resolves_is_refused_with_that_cause():
    """The density at the edge would be e^(−2·10⁷): it is the cells that are coarse."""
    small = sg.ItoProcess(lambda z: -z + 3 * torch.stack([z[:, 1], -z[:, 0]], 1), math.sqrt(2e-6))
    with pytest.raises(sg.SolverError, match=r"is not resolved: .* take more cells") as raised:
        FokkerPlanck2D(small, square(16, 6.4)).stationary()
    assert isinstance(raised.value.result, PlaneDensity)


@pytest.mark.parametrize("cells", [40, 160])
def test_an_underdamped_particle_with_a_little_noise_on_its_position(cells):
    """ẋ = v + ε ξ, v̇ = −ω²x − γv + √(2γ) ξ: the covariance solves Lyapunov's equation."""
    gamma, omega, noise = 0.5, 2.0, torch.tensor([0.05, 1.0], dtype=torch.float64)
    sde = sg.ItoProcess(
        lambda z: torch.stack([z[:, 1], -(omega**2) * z[:, 0] - gamma * z[:, 1]], 1),
        lambda z: noise.expand_as(z),
        noise="additive",
    )
    p = FokkerPlanck2D(sde, (sg.Grid(-4.0, 4.0, cells), sg.Grid(-8.0, 8.0, cells))).stationary()
    a = torch.tensor([[0.0, -1.0], [omega**2, gamma]])
    exact = torch.from_numpy(solve_continuous_lyapunov(a, torch.diag(noise**2)))
    assert float(exact[0, 0]) == pytest.approx(0.2527, abs=1e-4)
    torch.testing.assert_close(p.covariance, exact, rtol=1e-4, atol=1e-6)


def test_linear_drift_with_unequal_noise():
    """The covariance of a linear drift −A x solves A Σ + Σ Aᵀ = 2 D."""
    a = torch.tensor([[1.0, -3.0], [5.0, 2.0]], dtype=torch.float64)
    d = torch.tensor([0.3, 1.5], dtype=torch.float64)
    sde = sg.ItoProcess(lambda x: -x @ a.T, lambda x: (2 * d).sqrt().expand_as(x))
    p = FokkerPlanck2D(sde, (sg.Grid(-7.0, 7.0, 60), sg.Grid(-7.0, 7.0, 60))).stationary()
    exact = torch.from_numpy(solve_continuous_lyapunov(a, 2 * torch.diag(d)))
    torch.testing.assert_close(p.covariance, exact, rtol=2e-5, atol=1e-7)
    assert max(p.error.values()) < 1e-3


def test_a_rotation_along_level_sets_keeps_the_boltzmann_density():
    """f = −∇U + ω (∂_y U, −∂_x U): e^{−U} whatever ω, of two wells that are 3 kT deep."""
    omega = 4.0

    def potential(x, y):
        return 3 * (x**2 - 1) ** 2 + y**2 + 0.5 * x * y

    def force(z):
        x, y = z.unbind(1)
        u_x, u_y = 12 * x * (x**2 - 1) + 0.5 * y, 2 * y + 0.5 * x
        return torch.stack([-u_x + omega * u_y, -u_y - omega * u_x], 1)

    solver = FokkerPlanck2D(
        sg.ItoProcess(force, math.sqrt(2.0)), (sg.Grid(-2.6, 2.6, 80), sg.Grid(-5.0, 5.0, 80))
    )
    p = solver.stationary()
    exact = torch.exp(-potential(p.x[:, None], p.y[None, :]))
    exact = exact / (exact * p.weights).sum()
    assert miss_of(p, exact) < 1e-4
    assert miss_of(p, exact) < 3 * p.error["p"]


def test_its_current_circulates():
    # J = ω (y, −x) p for the drift −ω (−y, x)
    solver = FokkerPlanck2D(ROTATING, square(60))
    p = solver.stationary()
    current = solver.current(p)
    exact = OMEGA * torch.stack([p.y[None, :] * p.p, -p.x[:, None] * p.p])
    miss = float((current - exact).abs().max()) / float(exact.abs().max())
    assert miss < 1e-4
    assert miss / 3 < float(current.error) < 1e-3


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
    assert float((got.marginal(0).p - line.p).abs().max()) < 1e-7
    assert abs(float(got.covariance[0, 1])) < 1e-12


def test_wells_behind_a_barrier_of_forty_kT_have_their_weights():
    """Without a current log p is a sum: exact where the rate between wells is below rounding."""
    height, tilt = 40.0, 0.3
    sde = sg.ItoProcess(
        lambda z: -torch.stack([4 * height * z[:, 0] * (z[:, 0] ** 2 - 1) + tilt, 2 * z[:, 1]], 1),
        math.sqrt(2.0),
    )
    p = FokkerPlanck2D(sde, (sg.Grid(-2.0, 2.0, 160), sg.Grid(-4.0, 4.0, 40))).stationary()
    exact = torch.exp(-height * (p.x**2 - 1) ** 2 - tilt * p.x)[:, None] * torch.exp(-(p.y**2))
    assert miss_of(p, exact / (exact * p.weights).sum()) < 1e-6


def test_weights_of_wells_that_are_lost_in_rounding_are_refused():
    """With a current there is no sum, and no number for a rate of e⁻⁴⁰."""
    height = 40.0

    def force(z):
        x, y = z.unbind(1)
        u_x, u_y = 4 * height * x * (x**2 - 1), 2 * y
        return torch.stack([-u_x + u_y, -u_y - u_x], 1)

    solver = FokkerPlanck2D(
        sg.ItoProcess(force, math.sqrt(2.0)), (sg.Grid(-2.0, 2.0, 50), sg.Grid(-4.0, 4.0, 40))
    )
    with pytest.raises(sg.SolverError, match="lost in rounding"):
        solver.stationary()


def test_uneven_nodes():
    grids = tuple(sg.Grid.sinh(-6.0, 6.0, 60, center=0.0, width=2.0) for _ in range(2))
    p = FokkerPlanck2D(swirl(3.0), grids).stationary()
    assert p.form == "compact"
    torch.testing.assert_close(p.covariance, torch.eye(2, dtype=torch.float64), atol=1e-4, rtol=0)


def test_what_is_assumed_of_time_is_said():
    grids = square(40)
    assert FokkerPlanck2D(ROTATING, grids).stationary().assumed_autonomous
    known = sg.ItoProcess(rotating, math.sqrt(2 * D), autonomous=True)
    assert not FokkerPlanck2D(known, grids).stationary().assumed_autonomous
    moving = sg.ItoProcess(rotating, math.sqrt(2 * D), autonomous=False)
    with pytest.raises(ValueError, match="depend on time, so that nothing is at rest"):
        FokkerPlanck2D(moving, grids).stationary()


def test_an_sde_that_was_changed_is_read_again():
    pull = torch.tensor(1.0, dtype=torch.float64)
    solver = FokkerPlanck2D(sg.ItoProcess(lambda x: -pull * x, 1.0), square(40))
    assert float(solver.stationary().covariance[0, 0]) == pytest.approx(0.5, rel=1e-6)
    pull.fill_(2.0)
    assert float(solver.stationary().covariance[0, 0]) == pytest.approx(0.25, rel=1e-6)


def test_refusals():
    with pytest.raises(sg.NotNormalizableError, match="at an edge of the grid is 1 of its peak"):
        FokkerPlanck2D(sg.BrownianMotion(1.0), square(20)).stationary()
    solver = FokkerPlanck2D(ROTATING, square(20))
    x, y = (grid.nodes for grid in solver.grids)
    with pytest.raises(ValueError, match="p0 must have mass 1, but has 2"):
        solver.solve(PlaneDensity(x, y, 2 * gaussian(x, y, (0.0, 0.0), 0.5)), [0.0, 1.0])
    with pytest.raises(ValueError, match="p0 must be ≥ 0"):
        solver.solve(PlaneDensity(x, y, -gaussian(x, y, (0.0, 0.0), 0.5)), [0.0, 1.0])
    with pytest.raises(ValueError, match="drift and diffusion must be finite on the grid"):
        FokkerPlanck2D(sg.ItoProcess(drift=lambda x: 1 / x, diffusion=1.0), square(20))
    moving = FokkerPlanck2D(sg.ItoProcess(drift=lambda x, t: t - x, diffusion=1.0), square(20))
    with pytest.raises(ValueError, match="depend on time, so that nothing is at rest"):
        moving.stationary()
    with pytest.raises(ValueError, match="substeps must be ≥ 1, but is 0"):
        solver.solve((0.0, 0.0), [0.0, 1.0], substeps=0)
    with pytest.raises(ValueError, match="form must be one of 'auto', 'compact', 'lumped'"):
        FokkerPlanck2D(ROTATING, square(20), form="fine")
    with pytest.raises(ValueError, match="rtol must lie between 1e-12 and 1, but is 2"):
        solver.stationary(rtol=2.0)
    with pytest.raises(TypeError, match="rtol must be a number, but is str"):
        solver.solve((0.0, 0.0), [0.0, 1.0], rtol="small")


def test_a_coordinate_without_noise_is_refused_in_our_own_words():
    """Before any computation; what the message advises works."""

    def particle(noise):
        return sg.ItoProcess(
            lambda z: torch.stack([z[:, 1], -z[:, 0] - z[:, 1]], 1),
            lambda z: torch.tensor([noise, math.sqrt(2.0)]).to(z).expand_as(z),
        )

    with pytest.raises(ValueError, match=r"needs noise on both coordinates, but D = g²/2 of x"):
        FokkerPlanck2D(particle(0.0), square(20, 6.0))
    p = FokkerPlanck2D(particle(0.05), square(40, 6.0)).stationary()
    assert float(p.covariance[0, 0]) == pytest.approx(1.0, abs=5e-3)


def test_starts_that_are_none_are_refused():
    solver = FokkerPlanck2D(ROTATING, square(20))
    x, y = (grid.nodes for grid in solver.grids)
    p = gaussian(x, y, (0.0, 0.0), 0.5)
    holed = p.clone()
    holed[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"p0 must be finite, but is nan at \(-3.15, -2.7\)"):
        solver.solve(PlaneDensity(x, y, holed), [0.0, 1.0])
    elsewhere = FokkerPlanck2D(ROTATING, square(20, 5.5)).gaussian((0.0, 0.0), [[1, 0], [0, 1]])
    for question in (solver.current, solver.entropy_production):
        with pytest.raises(ValueError, match=r"density lives on 21 nodes x from -5.5 to 5.5"):
            question(elsewhere)
    with pytest.raises(ValueError, match=r"p0 lives on 21 nodes x from -3.5 to 5.5, the solver"):
        solver.solve(PlaneDensity(x + 1, y, p), [0.0, 1.0])
    with pytest.raises(TypeError, match="p0 must be a PlaneDensity or a point"):
        solver.solve("here", [0.0, 1.0])
    with pytest.raises(ValueError, match="a point has two coordinates"):
        solver.solve((0.0, 0.0, 0.0), [0.0, 1.0])
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


def test_entropy_production_is_that_of_the_circulation():
    """σ = ∫ |J|²/(D p) with J = ω (−y, x) p: ω² E r²/D = 2 ω²/k."""
    for cells in (40, 80):
        solver = FokkerPlanck2D(ROTATING, square(cells, reach=5.5))
        sigma = solver.entropy_production(solver.stationary())
        assert float(sigma) == pytest.approx(2 * OMEGA**2 / K, rel=1e-4)
        assert float(sigma.error) < 1e-3
    still = FokkerPlanck2D(sg.ItoProcess(drift=lambda x: -x, diffusion=1.0), square(40))
    assert abs(float(still.entropy_production(still.stationary()))) < 1e-12
    # N((1, 0), ½) under f = −x, D = ½ relaxes: J = (−x + 2 D (x − 1)) p = −p in x, σ = 1/D
    errors = []
    for cells in (40, 80):
        still = FokkerPlanck2D(still.sde, square(cells))
        away = still.gaussian((1.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
        errors.append(abs(float(still.entropy_production(away)) - 2))
    assert errors[-1] < 1e-4
    assert slope([1 / 40, 1 / 80], errors) > 3


def test_a_density_of_few_cells_says_that_its_entropy_production_is_not_resolved():
    solver = FokkerPlanck2D(ROTATING, square(40))
    narrow = solver.gaussian((0.0, 0.0), [[0.04, 0.0], [0.0, 0.04]])
    with pytest.warns(sg.AccuracyWarning, match="the entropy production: the estimated relative"):
        sigma = solver.entropy_production(narrow)
    assert float(sigma.error) > 1e-3
