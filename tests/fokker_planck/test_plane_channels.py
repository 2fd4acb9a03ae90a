import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import expm, solve_continuous_lyapunov

import sdegen as sg
from sdegen.fokker_planck.density2d.selling import decomposed
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from tests.exact import slope
from tests.fokker_planck.test_plane import square

# of second order, most of these densities warn of 1e-2; what they say is compared with the truth
pytestmark = pytest.mark.filterwarnings("ignore:.*the estimated relative error:UserWarning")

F64 = torch.float64
TURN = 2 * math.pi
PULL = torch.tensor([[1.0, -0.6], [0.4, 1.2]], dtype=F64)  # no symmetric one: a current turns


def rotated(ratio, degrees, angle=None):
    """G of D = ½ R diag(1, 1/ratio) Rᵀ."""
    a = torch.tensor(math.radians(degrees), dtype=F64) if angle is None else angle
    turn = torch.stack(
        [torch.stack([a.cos(), -a.sin()], -1), torch.stack([a.sin(), a.cos()], -1)], -2
    )
    return turn * torch.tensor([1.0, ratio**-0.5], dtype=F64)


def linear(G, pull=PULL):
    return sg.ItoProcess(lambda x: -x @ pull.T, G, channels=2)


def gaussian(x, y, mean, covariance):
    inverse = np.linalg.inv(covariance)
    dx, dy = x[:, None] - mean[0], y - mean[1]
    square = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
    return torch.exp(-0.5 * square) / (2 * math.pi * np.linalg.det(covariance) ** 0.5)


def miss_of(p, exact):
    return float((p.p - exact).abs().max() / exact.max())


def moved(G, t, mean, covariance):
    """Mean and covariance of dX = −A X dt + G dW at t."""
    A, at_rest = PULL.numpy(), solve_continuous_lyapunov(PULL.numpy(), (G @ G.T).numpy())
    decay = expm(-A * t)
    return decay @ mean, at_rest + decay @ (np.array(covariance) - at_rest) @ decay.T


def bent(x):
    """A smooth G(x) with a full matrix D, between 0.2 and 2."""
    a, b = x.unbind(-1)
    rows = [1 + 0.3 * torch.sin(a), 0.5 * torch.cos(b), 0.4 * torch.sin(a - b), 0.8 + 0 * a]
    return torch.stack(rows, -1).reshape(-1, 2, 2)


WELL = torch.tensor([[1.5, 0.5], [0.5, 1.0]], dtype=F64)


def downhill(G, hill=WELL):
    """F = ∇·D − D∇U with U = xᵀ hill x/2, whose density at rest is e^{−U}."""

    def force(x):
        g = G(x)
        return -0.5 * (g @ g.mT @ (x @ hill)[..., None])[..., 0]

    return sg.ItoProcess(force, G, channels=2, interpretation="klimontovich")


def test_offsets_make_up_the_matrix():
    angles = torch.linspace(0, math.pi, 2001, dtype=F64)
    for ratio, longest in ((1.0, 1), (10.0, 2), (100.0, 5), (1000.0, 16)):
        g = rotated(ratio, 0, angles)
        d = (g @ g.mT).numpy()
        offsets, weights = decomposed(np.stack([d[:, 0, 0], d[:, 0, 1], d[:, 1, 1]], 1))
        made = np.einsum("nk,nki,nkj->nij", weights, offsets, offsets)
        np.testing.assert_allclose(made, d, atol=1e-12)
        assert weights.min() >= 0
        assert np.abs(offsets).max() <= longest
    offsets, weights = decomposed(np.array([[2.0, 0.0, 5.0]]))
    assert {tuple(e) for e in offsets[0][weights[0] > 0].tolist()} == {(1, 0), (0, 1)}


def test_a_rotated_matrix_of_ratio_100_is_of_second_order():
    """Eigenvalues 1 : 100 turned by 30°, and a drift with a current: Lyapunov's Gaussian."""
    G = rotated(100.0, 30.0)
    covariance = solve_continuous_lyapunov(PULL.numpy(), (G @ G.T).numpy())
    errors, cells = [], (60, 120, 240)
    for n in cells:
        grids = tuple(sg.Grid(-5 * s, 5 * s, n) for s in covariance.diagonal() ** 0.5)
        solver = FokkerPlanck2D(linear(G), grids)
        level = solver._level
        p = level.density(level.rest(0.0, "lumped").p)
        errors.append(miss_of(p, gaussian(p.x, p.y, (0, 0), covariance)))
        assert float(p.p.min()) >= 0
    assert slope([1 / n for n in cells[1:]], errors[1:]) > 1.9
    assert errors[-1] < 5e-3
    operator = level.generator.fluxes(0.0).lumped
    rates = operator - sparse.diags(operator.diagonal())
    assert rates.min() >= 0  # an M-matrix
    lost = np.abs(level.mesh.lumped_volumes @ operator).max()
    assert lost < 1e-12 * np.abs(level.mesh.lumped_volumes * operator.diagonal()).max()


@pytest.mark.parametrize(("ratio", "form"), [(20.0, "compact"), (10.0, "lumped")])
def test_the_density_at_rest_of_a_matrix_knows_its_error(ratio, form):
    G = rotated(ratio, 30.0)
    covariance = solve_continuous_lyapunov(PULL.numpy(), (G @ G.T).numpy())
    solver = FokkerPlanck2D(linear(G), square(56, 4.2), form="auto" if ratio == 20 else form)
    p, accuracy = solver.stationary(rtol=0.1), 2e-3 if ratio == 20 else 0.02
    miss = miss_of(p, gaussian(p.x, p.y, (0, 0), covariance))
    assert p.form == form
    assert miss < accuracy
    assert miss / 3 < p.error["p"] < 20 * miss
    torch.testing.assert_close(p.covariance, torch.from_numpy(covariance), atol=0.01, rtol=0)
    drive = -PULL.numpy() + (G @ G.T).numpy() / 2 @ np.linalg.inv(covariance)
    places = torch.stack(torch.meshgrid(p.x, p.y, indexing="ij"), -1)
    exact = (places @ torch.from_numpy(drive).T * p.p[..., None]).permute(2, 0, 1)
    current, sigma = solver.current(p), solver.entropy_production(p)
    apart = float((current - exact).abs().max() / exact.abs().max())
    assert apart < 0.1
    assert apart / 3 < float(current.error)
    right = np.trace(drive.T @ np.linalg.inv((G @ G.T).numpy() / 2) @ drive @ covariance)
    assert float(sigma) == pytest.approx(right, rel=0.05)
    assert abs(float(sigma) / right - 1) / 3 < float(sigma.error)


def test_a_matrix_of_ratio_100_in_a_strong_rotation_is_of_high_order():
    """Variances by Lyapunov, where the drift is 20 times what D relaxes by."""
    A = np.array([[1.0, -8.0], [8.0, 1.2]])
    G = rotated(100.0, 30.0)
    covariance = solve_continuous_lyapunov(A, (G @ G.T).numpy())
    errors = []
    for n in (40, 64):
        solver = FokkerPlanck2D(linear(G, torch.from_numpy(A)), square(n, 2.6))
        level = solver._level
        found = level.rest(0.0, None)
        assert found.form == "compact"
        assert found.sure
        p = level.density(found.p)
        errors.append(miss_of(p, gaussian(p.x, p.y, (0, 0), covariance)))
        kept = np.abs(level.mesh.volumes @ level.generator.fluxes(0.0).compact).max()
        assert kept < 1e-12 * np.abs(level.generator.fluxes(0.0).compact.data).max()
    assert slope([1 / 40, 1 / 64], errors) > 4
    assert errors[-1] < 1e-4


def test_a_matrix_that_depends_on_the_place_leaves_the_exponential_at_rest():
    """f = ∇·D − D∇U: e^{−U} to rounding, without a current."""
    solver = FokkerPlanck2D(downhill(bent), square(48, 6.6))
    p = solver.stationary()
    places = torch.stack(torch.meshgrid(p.x, p.y, indexing="ij"), -1)
    exact = torch.exp(-0.5 * torch.einsum("xyi,ij,xyj->xy", places, WELL, places))
    assert float((p.p / p.p.max() - exact).abs().max()) < 1e-11
    assert float(p.p.min()) >= 0
    assert float(solver._level.rest(0.0, "lumped").p.min()) >= -1e-14
    assert abs(float(solver.entropy_production(p))) < 1e-12
    assert float(solver.current(p).abs().max()) < 1e-11
    assert p.error["p"] < 1e-6


def test_high_barriers_are_weighed_without_a_current():
    """U = 45 (x² − 1)² + …: two wells whose exchange is lost in rounding."""

    def force(x):
        g = bent(x)
        u = torch.stack([180 * x[:, 0] * (x[:, 0] ** 2 - 1) + 0.4, x[:, 1]], 1)
        return -0.5 * (g @ g.mT @ u[..., None])[..., 0]

    sde = sg.ItoProcess(force, bent, channels=2, interpretation="klimontovich")
    grids = sg.Grid(-1.7, 1.7, 64), sg.Grid(-5.6, 5.6, 24)
    p = FokkerPlanck2D(sde, grids).stationary()
    exact = torch.exp(-45 * (p.x**2 - 1) ** 2 - 0.4 * p.x)[:, None] * torch.exp(-0.5 * p.y**2)
    assert float((p.p / p.p.max() - exact / exact.max()).abs().max()) < 1e-7


@pytest.mark.slow
def test_a_rotation_of_the_channels_changes_nothing():
    def turned(x):
        return bent(x) @ rotated(1.0, 0, 3 * x[:, 0] - x[:, 1])

    def found(G):
        sde = sg.ItoProcess(lambda x: -x, G, channels=2)
        solver = FokkerPlanck2D(sde, square(20, 5.0), form="lumped")
        start = solver.gaussian((0.5, 0.0), [[0.4, 0.1], [0.1, 0.3]])
        generator = solver._level.generator
        at_rest = solver._level.rest(0.0, "lumped").p
        compact = torch.from_numpy(generator.fluxes(0.0).compact.data)
        return at_rest, compact, solver.solve(start, [0.0, 0.3], rtol=0.9)[-1].p

    for first, second in zip(found(bent), found(turned), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", ["compact", "lumped"])
def test_a_correlated_density_moves_as_its_moments_do(form):
    G, cells = rotated(8.0, 30.0), 80 if form == "lumped" else 48
    solver, t = FokkerPlanck2D(linear(G), square(cells, 4.5), form=form), 0.6
    start, accuracy = [[0.3, 0.1], [0.1, 0.2]], 0.015 if form == "lumped" else 5e-4
    p = solver.solve(solver.gaussian((1.0, 0.5), start), [0.0, t], rtol=0.9)[-1]
    mean, covariance = moved(G, t, (1.0, 0.5), start)
    miss = miss_of(p, gaussian(p.x, p.y, mean, covariance))
    assert p.form == form
    assert miss < accuracy
    assert miss / 3 < p.error["p"] < 20 * miss
    assert float(p.p.min()) >= 0
    assert float(p.mass) == pytest.approx(1.0, abs=1e-5)
    off = (p.mean - torch.from_numpy(mean)).abs().max() / covariance.diagonal().max() ** 0.5
    assert off < p.error["mean"] < 4 * accuracy
    spread = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    off = (np.abs(p.covariance.numpy() - covariance) / spread).max()
    assert off < p.error["covariance"] < 8 * accuracy
    point = solver.solve((0.4, -0.3), [0.0, t], rtol=0.9)[-1]
    mean, covariance = moved(G, t, (0.4, -0.3), np.zeros((2, 2)))
    torch.testing.assert_close(point.mean, torch.from_numpy(mean), atol=5e-3, rtol=0)
    torch.testing.assert_close(point.covariance, torch.from_numpy(covariance), atol=8e-3, rtol=0)


@pytest.mark.slow
def test_correlations_that_alone_change_with_time_are_seen():
    """G(t) with D_xx = D_yy = ½ always, D_xy = 0.4 sin 6t: Cov = 0.8 (1 − cos 6t)/6."""

    def G(t):
        s = 0.8 * torch.sin(6 * t)
        zero, one = torch.zeros_like(s), torch.ones_like(s)
        rows = [torch.stack([one, zero], -1), torch.stack([s, (1 - s**2).sqrt()], -1)]
        return torch.stack(rows, -2)

    sde = sg.ItoProcess(lambda x: 0 * x, G, channels=2)
    solver, start = FokkerPlanck2D(sde, square(48, 6.0)), [[0.6, 0.0], [0.0, 0.6]]
    t = math.pi / 6
    p = solver.solve(solver.gaussian((0.0, 0.0), start), [0.0, t])[-1]
    exact = np.array([[0.6 + t, 1.6 / 6], [1.6 / 6, 0.6 + t]])
    torch.testing.assert_close(p.covariance, torch.from_numpy(exact), atol=0.01, rtol=0)
    assert miss_of(p, gaussian(p.x, p.y, (0, 0), exact)) < p.error["p"] < 0.1
    with pytest.raises(ValueError, match="nothing is at rest"):
        solver.stationary()


class Backward(sg.SDE):
    """dX = X dt + G dW meant for decreasing times: a density that comes to rest as time falls."""

    noise, channels, direction, autonomous = "additive", 2, -1, True

    def drift(self, x, t):
        return x

    def diffusion(self, x, t):
        return rotated(4.0, 30.0)[None]


def test_dynamics_meant_for_decreasing_times():
    solver, start = FokkerPlanck2D(Backward(), square(48, 4.5)), [[0.3, 0.0], [0.0, 0.3]]
    p = solver.solve(solver.gaussian((1.0, 0.0), start), [1.0, 0.4])[-1]
    decay, D = math.exp(-0.6), (rotated(4.0, 30.0) @ rotated(4.0, 30.0).T) / 2
    exact = D + (torch.tensor(start).to(D) - D) * decay**2
    torch.testing.assert_close(p.mean, torch.tensor([decay, 0.0]).to(D), atol=2e-3, rtol=0)
    torch.testing.assert_close(p.covariance, exact, atol=5e-3, rtol=0)


def test_channels_of_one_coordinate_each_are_diagonal_noise():
    """The same law by the form of high order, to the error that is told."""

    def g(x):
        return torch.stack([1 + 0.3 * torch.sin(x[:, 0]), 0.8 + 0 * x[:, 1]], 1)

    one = FokkerPlanck2D(sg.ItoProcess(lambda x: -x @ PULL.T, g), square(64, 5.0)).stationary()
    sde = sg.ItoProcess(lambda x: -x @ PULL.T, lambda x: torch.diag_embed(g(x)), channels=2)
    two = FokkerPlanck2D(sde, square(64, 5.0)).stationary(rtol=0.05)
    assert miss_of(two, one.p) < two.error["p"] < 0.02


def test_a_wave_on_a_torus_decays_by_its_matrix():
    """cos(2x − y) at the rate kᵀDk; offsets go through both seams."""
    G = rotated(10.0, 30.0)
    sde = sg.ItoProcess(lambda x: 0 * x, G, channels=2)
    grids = (sg.Grid(0.0, TURN, 32), sg.Grid(0.0, TURN, 48))
    solver = FokkerPlanck2D(sde, grids, [sg.Periodic(0.0, TURN)] * 2)
    start = solver._blank
    wave = torch.cos(2 * start.x[:, None] - start.y)
    p = solver.solve(replace(start, p=(1 + 0.5 * wave) / TURN**2), [0.0, 0.4])[-1]
    k = torch.tensor([2.0, -1.0], dtype=F64)
    exact = (1 + 0.5 * math.exp(-0.4 * float(k @ G @ G.T @ k) / 2) * wave) / TURN**2
    assert miss_of(p, exact) < p.error["p"] < 0.02
    assert torch.equal(p.p[0], p.p[-1])
    assert torch.equal(p.p[:, 0], p.p[:, -1])


def test_an_absorbing_wall_is_met_by_correlated_noise():
    """The survival of x > 0 is that of x alone, erf(x0/√(4 D_xx t)), wherever y goes."""
    G = rotated(20.0, 30.0)
    sde, t = sg.ItoProcess(lambda x: 0 * x, G, channels=2), 0.25
    grids = (sg.Grid(0.0, 4.0, 64), sg.Grid(-3.5, 3.5, 64))
    solver = FokkerPlanck2D(sde, grids, {0: sg.Absorbing(low=0.0)})
    p = solver.solve((1.0, 0.0), [0.0, t])[-1]
    exact = math.erf(1.0 / math.sqrt(4 * t * float((G @ G.T)[0, 0]) / 2))
    miss = abs(float(p.mass) / exact - 1)
    assert miss < 5e-3
    assert miss / 3 < p.error["mass"] < 0.05
    with pytest.raises(sg.NotNormalizableError, match="leaves through the absorbing wall"):
        solver.stationary()


def in_a_box(G):
    """A drift whose density at rest is a given p, with a current along the walls of [0, 1]²."""

    def density(x):
        return torch.exp(-torch.cos(1.3 * x[:, 0] + 0.4) - 0.8 * x[:, 1] ** 2 - 0.5 * x.prod(1))

    def drift(x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (rise,) = torch.autograd.grad(density(y).sum(), y)
        a, b = (math.pi * x).unbind(1)
        turn = 0.06 * torch.stack([a.sin() * b.cos(), -a.cos() * b.sin()], 1)
        return (turn + rise @ (G @ G.T) / 2) / density(x)[:, None]

    return sg.ItoProcess(drift, G, channels=2), density


@pytest.mark.parametrize("ratio", [4.0, 30.0, 100.0])
def test_walls_without_flux_are_of_second_order(ratio):
    """Offsets of up to three cells are left out at walls, and the others weighed for them."""
    sde, density = in_a_box(rotated(ratio, 30.0))
    errors, cells = [], (24, 48, 96)
    for n in cells:
        grids = (sg.Grid(0.0, 1.0, n),) * 2
        solver = FokkerPlanck2D(sde, grids, truncation_is_physical=True)
        p = solver._level.density(solver._level.rest(0.0, "lumped").p)
        exact = density(torch.cartesian_prod(p.x, p.y)).reshape(p.p.shape)
        exact = exact / solver._level.density(exact).mass
        errors.append(miss_of(p, exact))
    assert slope([1 / n for n in cells], errors) > 1.7
    assert errors[-1] < 4e-3


@pytest.mark.slow
def test_walls_that_later_noise_correlates_at_are_seen():
    """D_xy = 0 at t = 0 alone."""

    def G(t):
        s = 0.6 * torch.sin(t)
        one, zero = torch.ones_like(s), torch.zeros_like(s)
        return torch.stack([torch.stack([one, zero], -1), torch.stack([s, one], -1)], -2)

    sde = sg.ItoProcess(lambda x: -x, G, channels=2)
    for walls in ({"boundary": [sg.Reflecting(-4.5, 4.5)] * 2}, {"truncation_is_physical": True}):
        solver = FokkerPlanck2D(sde, square(16), **walls)
        start = solver.gaussian((0.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
        assert solver.form is None
        assert solver.solve(start, [0.0, 0.1], rtol=0.9)[-1].form == "lumped"


def test_reflecting_ends_of_correlated_noise_are_walls_without_flux():
    """The density between them is that of `simulate`, whose steps are sent back along C e_i."""
    sde = sg.ItoProcess(lambda x: -x, rotated(4.0, 30.0), channels=2)
    ends = [sg.Reflecting(-0.5, 2.5), None]
    grids = (sg.Grid(-0.5, 2.5, 60), sg.Grid(-6.0, 6.0, 60))
    p = FokkerPlanck2D(sde, grids, ends).stationary(rtol=0.1)
    named = FokkerPlanck2D(sde, grids, truncation_is_physical=True).stationary(rtol=0.1)
    torch.testing.assert_close(p.mean, named.mean, rtol=1e-3, atol=1e-3)
    n = 20_000
    x = sg.simulate(
        sde,
        torch.tensor([[0.5, 0.0]], dtype=F64).expand(n, 2).contiguous(),
        [0.0, 6.0],
        solver=sg.EulerMaruyama(substeps=600),
        boundary=dict(enumerate(ends[:1])),
        rng=0,
    ).final
    error = 4.4 * (p.covariance.diag() / n).sqrt() + 0.02 * p.covariance.diag().sqrt()
    assert bool(((x.mean(0) - p.mean).abs() < error).all())


def test_matrices_that_are_none_of_an_ellipse_are_refused():
    def of(G, channels=2, grids=None, **options):
        sde = sg.ItoProcess(lambda x: -x, G, channels=channels)
        return FokkerPlanck2D(sde, square(20) if grids is None else grids, **options)

    with pytest.raises(ValueError, match=r"noise in every direction, but D = G Gᵀ/2 is singular"):
        of(torch.tensor([[1.0], [0.5]], dtype=F64), channels=1)
    with pytest.raises(ValueError, match=r"singular at \(-4\.5, -4\.5\)"):
        of(torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=F64))
    with pytest.raises(ValueError, match=r"ratio of up to 1000, but it is 5e\+03 at"):
        of(rotated(5000.0, 30.0))
    with pytest.raises(ValueError, match=r"3 cells apart along x, .* at least 12 cells"):
        of(rotated(100.0, 30.0), grids=(sg.Grid(-4.0, 4.0, 10),) * 2)
    with pytest.raises(ValueError, match="'compact' has no wall without flux where noises are"):
        of(rotated(4.0, 30.0), form="compact", truncation_is_physical=True)
    with pytest.raises(ValueError, match=r"G must be finite on the grid, .* nan"):
        of(lambda x: bent(x) * x[:, 0, None, None].sqrt())

    def jumps(x):
        return bent(x) * (1 + (x[:, :1, None] > 0.3))

    with pytest.raises(ValueError, match="what its derivative, ∇·D, does not tell: G jumps"):
        of(jumps)
    with pytest.raises(ValueError, match=r"\[0, 6\] is no period of the"):
        of(bent, grids=(sg.Grid(0.0, 6.0, 20),) * 2, boundary=[sg.Periodic(0.0, 6.0), None])
