"""Densities of position and velocity: the kinetic equation against exact laws."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import sdegen as sg
from sdegen.fokker_planck.kinetic.operator import KineticOperator
from sdegen.fokker_planck.kinetic.solver import KineticFokkerPlanck
from sdegen.fokker_planck.kinetic.splines import Splines
from sdegen.fokker_planck.kinetic.transient import Stepper
from tests.fokker_planck import kramers

OMEGA, GAMMA = 2.0, 0.5
TURN = 2 * math.pi
SCALE = torch.tensor([[0.5, 1.0]])


def oscillator(friction=GAMMA, **options):
    return sg.UnderdampedLangevin(lambda x: 0.5 * OMEGA**2 * x**2, friction=friction, **options)


def solver(cells=40, friction=GAMMA, half=4.0):
    grids = sg.Grid(-half, half, cells), sg.Grid(-2 * half, 2 * half, cells)
    return sg.FokkerPlanck2D(oscillator(friction), grids)


def law(mean, covariance, t, friction=GAMMA):
    """Mean and covariance of the oscillator at t, of T = m = 1: Σ∞ − e^{Mt}(Σ∞ − Σ0)e^{Mᵀt}."""
    m = np.array([[0.0, 1.0], [-(OMEGA**2), -friction]])
    turned, rest = expm(m * t), np.diag([1 / OMEGA**2, 1.0])
    return turned @ mean, rest - turned @ (rest - covariance) @ turned.T


def gaussian(x, v, mean, covariance):
    """The normal density at nodes."""
    z = np.stack(np.meshgrid(x - mean[0], v - mean[1], indexing="ij"), -1)
    square = np.einsum("xvi,ij,xvj->xv", z, np.linalg.inv(covariance), z)
    return np.exp(-0.5 * square) / (TURN * math.sqrt(np.linalg.det(covariance)))


def off(density, mean, covariance):
    """How far a density is from a normal one, over its peak."""
    exact = gaussian(density.x.numpy(), density.y.numpy(), mean, covariance)
    return float(np.abs(density.p.numpy() - exact).max() / exact.max())


START = np.array([0.8, 0.5]), np.array([[0.15, 0.02], [0.02, 0.6]])


def test_the_front_of_the_plane_takes_an_underdamped_particle():
    fp = solver()
    assert type(fp) is KineticFokkerPlanck
    assert isinstance(fp, sg.FokkerPlanck2D)
    assert type(copy.copy(fp)) is KineticFokkerPlanck
    assert type(sg.FokkerPlanck2D(sg.ItoProcess(lambda x: -x, 1.0), fp.grids)) is sg.FokkerPlanck2D


def test_what_rests_is_boltzmanns_density():
    """Σ = diag(T/ω², T/m), of m = 1; and of another mass, with a friction γ(x)."""
    p = solver().stationary()
    assert off(p, (0.0, 0.0), np.diag([1 / OMEGA**2, 1.0])) < 1e-10
    assert float(p.mass) == pytest.approx(1.0, abs=1e-10)
    np.testing.assert_allclose(p.covariance, np.diag([0.25, 1.0]), atol=1e-9)
    heavy = sg.UnderdampedLangevin(
        lambda x: x**4 / 4, friction=lambda x: 1 + 0.5 * torch.tanh(x), temperature=0.7, mass=2.0
    )
    q = sg.FokkerPlanck2D(heavy, (sg.Grid(-3.5, 3.5, 40), sg.Grid(-5.0, 5.0, 40))).stationary()
    second = 2 * math.gamma(0.75) / math.gamma(0.25) * math.sqrt(0.7)  # ⟨x²⟩ of e^{−x⁴/4T}
    np.testing.assert_allclose(q.covariance, np.diag([second, 0.35]), atol=1e-8)
    assert float(q.error) < 1e-7


def test_a_density_of_the_oscillator_in_time():
    """Its mean and covariance, at finer grids: the error falls by 2⁵ at the least, to 1e-5."""
    errors = []
    for cells in (20, 40):
        fp = solver(cells)
        problem = fp._problem()
        start = problem.at_start(fp.gaussian(*map(np.ndarray.tolist, START)), 1.0)
        stepper, h = Stepper(start.operator), start.h
        for _ in range(100):
            h = stepper.step(h, 0.01)
        p = start.operator.density(h, fp._blank.x.numpy(), fp._blank.y.numpy())
        exact = gaussian(fp._blank.x.numpy(), fp._blank.y.numpy(), *law(*START, 1.0))
        errors.append(np.abs(p - exact).max() / exact.max())
    assert errors[0] < 0.05
    assert errors[1] < min(errors[0] / 2**5, 3e-5)


def test_the_error_of_a_density_in_time_is_told():
    fp, times = solver(40), [0.0, 0.4, 1.0, 3.0]
    path = fp.solve(fp.gaussian(*map(np.ndarray.tolist, START)), times)
    for t, p in zip(times[1:], path[1:], strict=True):
        mean, covariance = law(*START, t)
        true = off(p, mean, covariance)
        assert true <= float(p.error["p"]) < 1e-3
        assert float(p.mass) == pytest.approx(1.0, abs=1e-5)
        std = np.sqrt(np.diag(covariance))
        away = np.abs(p.mean.numpy() - mean) / np.maximum(std, np.abs(mean))
        assert away.max() <= float(p.error["mean"]) < 1e-3
        spread = np.abs(p.covariance.numpy() - covariance) / np.outer(std, std)
        assert spread.max() <= float(p.error["covariance"]) < 1e-3


def test_a_point_and_a_start_that_is_hotter_than_the_bath():
    fp = solver(56)
    (p,) = fp.solve((1.0, 0.0), [0.0, 3.0])[1:]
    mean, covariance = law(np.array([1.0, 0.0]), np.zeros((2, 2)), 3.0)
    assert off(p, mean, covariance) < 1e-4
    fp = solver(64, half=8.0)
    hot = np.diag([0.75, 4.0])
    for t, p in zip(
        (0.5, 2.0), fp.solve(fp.gaussian((0.5, 0.0), hot), [0.0, 0.5, 2.0])[1:], strict=True
    ):
        assert off(p, *law(np.array([0.5, 0.0]), hot, t)) < min(2e-4, float(p.error["p"]))


@pytest.mark.parametrize("friction", [0.05, 0.5, 6.0])
def test_there_is_no_numerical_friction(friction):
    """Rates of the oscillator are n λ₊ + k λ₋, λ± = γ/2 ± √(γ²/4 − ω²), to 1e-6 of γ."""
    half, root = friction / 2, np.sqrt(complex(friction**2 / 4 - OMEGA**2))
    each = [n * (half + root) + k * (half - root) for n in range(7) for k in range(7)]
    exact = np.array(each)
    fp = solver(40, friction, half=5.0)
    slow = fp.spectrum(4).rates.numpy()
    assert max(np.abs(exact - rate).min() for rate in slow) < 1e-6 * friction
    assert slow[0] == 0
    turning = fp.spectrum(2, near=1j * OMEGA).rates.numpy()
    wanted = half + 1j * math.sqrt(OMEGA**2 - half**2) if friction < 2 * OMEGA else slow[1]
    assert np.abs(turning - wanted).min() < 1e-6 * friction


@pytest.mark.parametrize("friction", [0.2, 1.0, 5.0, 50.0])
def test_kramers_turnover(friction):
    """The rate of two wells behind ΔU = 4 T, against a Galerkin method without a grid."""
    sde = sg.UnderdampedLangevin(
        lambda x: x**4 / 4 - x**2 / 2, friction=friction, temperature=kramers.TEMPERATURE
    )
    fp = sg.FokkerPlanck2D(sde, (sg.Grid(-2.1, 2.1, 40), sg.Grid(-2.0, 2.0, 40)))
    found = fp.spectrum(2, rtol=1e-4)
    exact = kramers.rates(friction, 2, positions=70, velocities=70)
    assert float(found.rates[1].real) == pytest.approx(exact[1], rel=1e-4)
    assert exact[1] == pytest.approx(kramers.RATES[friction], rel=1e-5)
    assert found.relaxation_time == pytest.approx(1 / exact[1], rel=1e-4)
    odd = found.densities[1].real.numpy()  # what goes from one well to the other
    np.testing.assert_allclose(odd, -odd[::-1, ::-1], atol=1e-5 * np.abs(odd).max())


def test_a_tilted_ring_carries_a_current():
    """⟨v⟩ of a known prototype, 0.0475749, and σ = f ⟨v⟩/T = γ (m ⟨v²⟩/T − 1) at rest."""
    tilted = sg.UnderdampedLangevin(
        lambda x: -torch.cos(x) - 0.3 * x, friction=0.5, temperature=0.4
    )
    grids = sg.Grid(0.0, TURN, 40), sg.Grid(-5.0, 5.0, 48)
    fp = sg.FokkerPlanck2D(tilted, grids, {0: sg.Periodic(0.0, TURN)})
    p = fp.stationary()
    assert float(p.mean[1]) == pytest.approx(0.0475749, abs=1e-6)
    current = fp.current(p)
    np.testing.assert_allclose((p.weights * current[0]).sum(), p.mean[1], rtol=1e-7)
    across = (current[0] @ p._weights[1]).numpy()  # the same everywhere
    np.testing.assert_allclose(across, across.mean(), rtol=1e-4)
    second = float((p.marginal(1).p * p.y**2) @ p._weights[1])
    sigma = fp.entropy_production(p)
    assert float(sigma) == pytest.approx(0.3 * float(p.mean[1]) / 0.4, rel=1e-4)
    assert float(sigma) == pytest.approx(0.5 * (second / 0.4 - 1), rel=1e-3)
    with pytest.raises(ValueError, match="is no period of the drift"):
        sg.FokkerPlanck2D(tilted, (sg.Grid(0.0, 6.0, 40), grids[1]), {0: sg.Periodic(0.0, 6.0)})


@pytest.mark.slow
def test_particles_bounce_at_a_wall():
    """Free flight, γ → 0: of a packet on its way to 1.2 what passes 1.5 comes back with −v."""
    free = sg.UnderdampedLangevin(lambda x: 0 * x, friction=1e-6, temperature=1.0)
    grids, walls = (sg.Grid(-3.0, 1.5, 48), sg.Grid(-8.0, 8.0, 64)), {0: sg.Reflecting(-3.0, 1.5)}
    fp = sg.FokkerPlanck2D(free, grids, walls)
    (p,) = fp.solve(fp.gaussian((0.0, 3.0), [[0.09, 0.0], [0.0, 0.4]]), [0.0, 0.4])[1:]
    x, v, covariance = p.x.numpy(), p.y.numpy(), np.array([[0.154, 0.16], [0.16, 0.4]])
    image = gaussian(3.0 - x, -v, (1.2, 3.0), covariance)
    exact = gaussian(x, v, (1.2, 3.0), covariance) + image
    assert image.max() > 0.3 * exact.max()
    assert np.abs(p.p.numpy() - exact).max() < min(2e-3, float(p.error["p"])) * exact.max()
    assert float(p.mass) == pytest.approx(1.0, abs=1e-6)
    at_wall = p.p[-1]
    np.testing.assert_allclose(at_wall, at_wall.flip(0), atol=3e-3 * float(p.p.max()))
    still = sg.FokkerPlanck2D(oscillator(), grids, walls).stationary()
    energy = 0.5 * OMEGA**2 * still.x[:, None] ** 2 + 0.5 * still.y[None, :] ** 2
    np.testing.assert_allclose(still.p / still.p.max(), torch.exp(-energy), atol=1e-9)


def test_linearity_is_kept_and_positivity_is_not():
    """Also said: by `keeps`, and by trust()."""
    fp = solver(32)
    first, second = (
        fp.gaussian(mean, [[0.1, 0.0], [0.0, 0.3]]) for mean in ((0.8, 0.0), (-0.5, 1.0))
    )
    operator = fp._problem().operator()
    problem = fp._problem()
    whole = [problem.at_start(p, 1.0).h for p in (first, second)]
    both = first.__class__(first.x, first.y, 0.3 * first.p + 0.7 * second.p)
    mixed = problem.at_start(both, 1.0).h
    stepper = Stepper(operator)
    sums = 0.3 * stepper.step(whole[0], 0.3) + 0.7 * stepper.step(whole[1], 0.3)
    np.testing.assert_allclose(stepper.step(mixed, 0.3), sums, atol=1e-12)
    p = fp.solve(first, [0.0, 0.3], rtol=0.05)[-1]
    assert p.keeps == "linearity"
    assert "linear, and not positive" in str(p.trust())
    assert "density in phase space" in str(p.trust())
    assert float(p.error["p"]) >= -float(p.p.min()) / float(p.p.max()) > 0


def test_streaming_dissipates_nothing():
    """⟨h, A h⟩ = −Σ n ⟨h_n, γ h_n⟩, and mass is kept, both to rounding, for any coefficients."""
    particle = solver()._particle()
    splines = Splines(sg.Grid.sinh(-4.0, 4.0, 20, width=1.0).nodes.numpy(), ring=False)
    one = KineticOperator(particle, splines, 12, 1.0)
    h = np.random.default_rng(0).standard_normal(one.matrix.shape[0])
    _, even, _, odd = one.sizes
    n = np.concatenate([np.repeat(np.arange(0, 12, 2), even), np.repeat(np.arange(1, 12, 2), odd)])
    assert h @ (one.matrix @ h) == pytest.approx(-GAMMA * h @ (n * (one.mass @ h)), rel=1e-12)
    change = one.solve_mass(one.matrix @ h)
    assert abs(one.masses @ change[:even]) < 1e-12 * np.abs(change).max()


def test_the_score_of_what_rests():
    score = sg.PlaneScore([solver().stationary()])
    got = score(SCALE, 0.0)
    torch.testing.assert_close(got, torch.tensor([[-2.0, -1.0]]), rtol=1e-4, atol=0)


def test_what_the_kinetic_equation_refuses():
    sde, grids = oscillator(), solver().grids
    with pytest.raises(ValueError, match=r"form must be 'auto' .* but is 'lumped'"):
        sg.FokkerPlanck2D(sde, grids, form="lumped")
    with pytest.raises(ValueError, match="velocity of an underdamped particle has no walls"):
        sg.FokkerPlanck2D(sde, grids, {1: sg.Reflecting(-8.0, 8.0)})
    with pytest.raises(ValueError, match="absorbing position is not built"):
        sg.FokkerPlanck2D(sde, grids, {0: sg.Absorbing(-4.0, 4.0)})
    with pytest.raises(ValueError, match=r"needs friction and temperature > 0.* are 0\.0 and 1"):
        sg.FokkerPlanck2D(oscillator(0.0), grids)
    with pytest.raises(ValueError, match=r"mass has 2 numbers"):
        sg.FokkerPlanck2D(oscillator(mass=torch.ones(2)), grids)
    with pytest.raises(ValueError, match=r"narrower than √\(T/m\) = 1, but are 1\.6 wide"):
        sg.FokkerPlanck2D(sde, (grids[0], sg.Grid(-8.0, 8.0, 10)))
    with pytest.raises(ValueError, match=r"must hold v = 0, but goes from 1 to 8"):
        sg.FokkerPlanck2D(sde, (grids[0], sg.Grid(1.0, 8.0, 40)))
    infinite = sg.UnderdampedLangevin(torch.log, friction=1.0)
    with pytest.raises(ValueError, match=r"the potential must be finite on the grid, but is nan"):
        sg.FokkerPlanck2D(infinite, (sg.Grid(-1.0, 1.0, 20), grids[1]))
    driven = sg.UnderdampedLangevin(lambda x, t: x**2 / 2 + t * x)
    moved = sg.FokkerPlanck2D(driven, grids)
    for ask in (moved.stationary, moved.spectrum, lambda: moved.solve((0.0, 0.0), [0.0, 1.0])):
        with pytest.raises(ValueError, match=r"potential.* depends on time"):
            ask()
    with pytest.raises(ValueError, match="count must be"):
        solver().spectrum(0)
    with pytest.raises(TypeError, match="the spectrum of ItoProcess in the plane is not built"):
        sg.FokkerPlanck2D(sg.ItoProcess(lambda x: -x, 1.0), grids).spectrum()


def test_a_class_of_ones_own_with_another_drift_is_refused():
    class Pushed(sg.UnderdampedLangevin):
        def drift(self, x, t):
            return super().drift(x, t) + torch.tensor([[0.0], [0.3]])

    with pytest.raises(ValueError, match=r"the drift of Pushed differs from theirs by 0\.3"):
        sg.FokkerPlanck2D(Pushed(lambda x: x**2 / 2), solver().grids)


def test_a_picture_says_what_its_axes_are():
    (panel, *_) = sg.plots.plane(solver(24).stationary()).axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("position x", "velocity v")


def test_a_grid_that_cuts_the_maxwell_tail_is_told():
    sde = oscillator()
    edge = pytest.warns(UserWarning, match=r"the density at an edge of the grid is 0\.000335 of")
    with edge, pytest.warns(sg.AccuracyWarning, match=r"error of covariance is 0\.0011"):
        sg.FokkerPlanck2D(sde, (sg.Grid(-4.0, 4.0, 40), sg.Grid(-4.0, 4.0, 40))).stationary()
    with pytest.raises(sg.NotNormalizableError, match=r"at an edge of the grid is 0\.135"):
        sg.FokkerPlanck2D(sde, (sg.Grid(-4.0, 4.0, 40), sg.Grid(-2.0, 2.0, 40))).stationary()
    free = sg.FokkerPlanck2D(sg.UnderdampedLangevin(lambda x: 0 * x), solver().grids)
    with pytest.raises(sg.NotNormalizableError, match="at an edge of the grid"):
        free.stationary()


def test_a_density_that_is_not_resolved_is_refused():
    fp = solver(16)
    with pytest.raises(sg.SolverError, match="is not resolved: its estimated relative error") as e:
        fp.solve((2.0, 0.0), [0.0, 0.05])
    assert e.value.result[-1].p.shape == (17, 17)
