"""Underdamped Langevin dynamics: the equation, its linear case, and driven potentials."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)


def test_drift_and_noise_by_hand():
    """Two coordinates with masses and frictions of their own; U = x₀² x₁."""
    sde = sg.UnderdampedLangevin(
        lambda x: x[:, 0] ** 2 * x[:, 1], [0.5, 2.0], temperature=3.0, mass=[2.0, 4.0]
    )
    z = sde.state(torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor([[3.0, -1.0]], dtype=F64))
    drift = sde.drift(z, ZERO)
    # v; −∂₀U/m₀ − γ₀v₀ = −4/2 − 1.5, −∂₁U/m₁ − γ₁v₁ = −1/4 + 2
    expected = torch.tensor([[[3.0, -1.0], [-3.5, 1.75]]], dtype=F64)
    torch.testing.assert_close(drift, expected)
    g = sde.diffusion(z, ZERO)  # 2γT/m = 1.5, 3
    torch.testing.assert_close(g.square(), torch.tensor([[[0.0, 0.0], [1.5, 3.0]]], dtype=F64))
    assert float(sde.kinetic_energy(z)) == 0.5 * 2 * 9 + 0.5 * 4 * 1
    assert float(sde.energy(z)) == 2.0 + 11.0


def test_the_oscillator_is_linear():
    """Σ(t) = Σ∞ − e^{Mt} Σ∞ e^{Mᵀt}, M = [[0, 1], [−ω², −γ]], with unit and other masses."""
    k, m, gamma, T = 3.0, 1.7, 0.6, 0.8
    process = sg.LinearSDE.of(sg.UnderdampedLangevin(sg.Quadratic(k), gamma, T, m), 2)
    rest = torch.tensor([T / k, T / m], dtype=F64).diag()
    torch.testing.assert_close(process.stationary_covariance(), rest, rtol=1e-12, atol=1e-14)
    for t in (0.1, 1.0, 7.0):
        flow = torch.linalg.matrix_exp(torch.tensor([[0, 1], [-k / m, -gamma]], dtype=F64) * t)
        law = process.transition(0.0, t)
        torch.testing.assert_close(law.matrix, flow, rtol=1e-12, atol=1e-14)
        exact = rest - flow @ rest @ flow.T
        torch.testing.assert_close(law.covariance, exact, rtol=1e-11, atol=1e-14)


def test_several_coordinates_stay_apart_in_a_row():
    """Positions first, then velocities: two oscillators of different stiffness."""
    sde = sg.UnderdampedLangevin(
        lambda x: x.square() * torch.tensor([0.5, 2.0]).to(x), temperature=0.9, mass=[1.0, 3.0]
    )
    spread = sg.LinearSDE.of(sde, 4).stationary_covariance().diag()
    torch.testing.assert_close(spread, torch.tensor([0.9, 0.225, 0.9, 0.3], dtype=F64))


def test_the_default_solver_keeps_the_law_at_rest():
    """Mean squares of x and v after a run from rest; each threshold is 4.5 standard errors.

    False-alarm rate 7e-6 for each of the two; the step's bias of x² is 0 and of v² 0.25 %.
    """
    sde = sg.UnderdampedLangevin(sg.Quadratic(4.0), 1.0, 0.7, 2.0)
    x = torch.zeros(40_000, 1, dtype=F64)
    z = sde.state(x, sde.draw_velocities(x, rng=3))
    path = sg.simulate(sde, z, torch.linspace(0, 8, 81), rng=4)
    assert path.phase_space
    assert path.x.shape == path.v.shape == (81, 40_000, 1)
    for values, exact in ((path.x[-1], 0.7 / 4), (path.v[-1], 0.35)):
        error = exact * math.sqrt(2 / 40_000)
        assert abs(float(values.square().mean()) - exact) < 4.5 * error


def test_velocities_are_drawn_from_maxwells_distribution():
    """Variance T/m of each coordinate, 4.5 standard errors (7e-6 each)."""
    sde = sg.UnderdampedLangevin(sg.Quadratic(), 1.0, 0.5, mass=[0.25, 2.0])
    v = sde.draw_velocities(torch.zeros(100_000, 2, dtype=F64), rng=1)
    exact = torch.tensor([2.0, 0.25], dtype=F64)
    assert bool(((v.var(0) / exact - 1).abs() < 4.5 * math.sqrt(2 / 100_000)).all())


def test_driven_potentials_have_the_force_of_their_time():
    """U = k(t) (x − λ(t))²/2 in three spellings."""
    x, t = torch.tensor([[1.0], [2.5]], dtype=F64), torch.tensor(0.5, dtype=F64)
    exact = -(1 + t) * (x - 2 * t)
    whole = sg.DrivenPotential(lambda x, t: (1 + t) * (x - 2 * t) ** 2 / 2)
    pieces = sg.DrivenPotential(lambda t: sg.Quadratic(1 + float(t), center=2 * float(t)))
    for potential in (whole, pieces):
        torch.testing.assert_close(potential.force_at(x, t), exact)
        torch.testing.assert_close(potential.energy_at(x, t), (exact**2 / (2 * (1 + t)))[:, 0])
        process = sg.Langevin(potential, 0.3)
        torch.testing.assert_close(process.drift(x, t), exact)
        assert process.autonomous is False
    each = torch.tensor([0.5, 1.0], dtype=F64)  # a time for each state
    torch.testing.assert_close(
        whole.force_at(x, each), -(1 + each[:, None]) * (x - 2 * each[:, None])
    )


def test_what_a_driven_potential_refuses_is_told_with_its_time():
    """A protocol that is no number from t = 0.5 on: which argument, in which step, at what t."""
    broken = sg.DrivenPotential(lambda t: sg.Quadratic(center=math.nan if t > 0.45 else 0.0))
    with pytest.raises(ValueError, match="center must be finite, but is nan") as told:
        sg.simulate(sg.Langevin(broken), torch.zeros(4, 1), [0.0, 0.5, 1.0], rng=0)
    notes = " ".join(told.value.__notes__)
    assert "a function of t alone gives at t = 0.5" in notes


def test_a_driven_trap_is_followed():
    """Mean of dX = −(X − λt) dt: λ(t − 1 + e^{−t}), by `LinearSDE.of` exactly."""
    process = sg.LinearSDE.of(sg.Langevin(lambda x, t: (x - 2 * t) ** 2 / 2), 1)
    law = process.transition(0.0, 3.0)
    assert float(law.shift.detach()) == pytest.approx(2 * (3 - 1 + math.exp(-3)), abs=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"friction": -0.5}, "friction must be finite and ≥ 0, but is -0.5; pass the rate"),
        ({"friction": [1.0, -2.0]}, "friction must be finite and ≥ 0, but is -2"),
        ({"temperature": -1.0}, "temperature must be finite and ≥ 0, but is -1; pass it in"),
        ({"temperature": math.nan}, "temperature must be finite and ≥ 0, but is nan"),
        ({"mass": -1.0}, "mass must be finite and > 0, but is -1; pass a positive one"),
        ({"mass": 0.0}, "mass must be finite and > 0, but is 0"),
        ({"mass": [1.0, math.inf]}, "mass must be finite and > 0, but is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sg.UnderdampedLangevin(sg.Quadratic(), **options)


def test_a_friction_that_is_none_is_refused():
    x = torch.tensor([[1.0], [-2.0]], dtype=F64)
    sde = sg.UnderdampedLangevin(sg.Quadratic(), lambda x: x)
    with pytest.raises(ValueError, match=r"friction\(x\) must be ≥ 0, but is -2"):
        sde.drift(sde.state(x, 0.0), ZERO)
    sde = sg.UnderdampedLangevin(sg.Quadratic(), lambda x: x[:, 0])
    with pytest.raises(ValueError, match=r"returned shape \(2,\)"):
        sde.drift(sde.state(x, 0.0), ZERO)
    with pytest.raises(TypeError, match="positions alone"):
        sg.UnderdampedLangevin(sg.Quadratic(), lambda x, t: 1 + t + 0 * x)


def test_a_potential_of_another_shape_is_refused():
    sde = sg.UnderdampedLangevin(lambda x: x.sum())
    z = sde.state(torch.zeros(3, 2, dtype=F64), 0.0)
    with pytest.raises(ValueError, match="a potential must return one energy for each state"):
        sg.simulate(sde, z, [0.0, 0.1], rng=0)


class Pushed(sg.UnderdampedLangevin):
    """A drift of its own: a force of 3 that is not of the potential."""

    def drift(self, x, t):
        return super().drift(x, t) + torch.tensor([[0.0], [3.0]]).to(x)


class Cold(sg.UnderdampedLangevin):
    """A diffusion of its own: of a temperature of 0.01 T."""

    def diffusion(self, x, t):
        return 0.1 * super().diffusion(x, t)


class Tilted(sg.UnderdampedLangevin):
    """A force of its own."""

    def force(self, x, t):
        return super().force(x, t) + 3.0


@pytest.mark.parametrize("kind", [Pushed, Cold])
def test_splittings_do_not_pass_over_what_a_subclass_has_of_its_own(kind):
    """In its trap x rests at 3 (Pushed), or with a variance of 0.01 (Cold)."""
    sde = kind(lambda x: x**2 / 2)
    start, times = sde.state(torch.zeros(400, 1, dtype=F64), 0.0), torch.linspace(0, 20, 401)
    for solver in (sg.BAOAB(), sg.OBABO(), sg.QUICSORT()):
        with pytest.raises(ValueError, match="of its own, which it would pass over"):
            sg.simulate(sde, start, times, solver=solver, rng=0)
    x = sg.simulate(sde, start, times, rng=0, keep_path=False).x[-1]
    mean, variance = (3.0, 1.0) if kind is Pushed else (0.0, 0.01)
    error = (variance / 400) ** 0.5  # 5 of them: 6e-7
    assert abs(float(x.mean()) - mean) < 5 * error
    assert abs(float(x.var()) / variance - 1) < 0.06 + 5 * 0.0708  # Euler: 1 + dt/2 …


def test_a_force_of_its_own_moves_it_and_is_not_taken_for_its_potential():
    """x rests at 3; an energy whose slope is another force gives no heat and no density."""
    sde = Tilted(lambda x: x**2 / 2)
    start, times = sde.state(torch.full((400, 1), 3.0, dtype=F64), 0.0), torch.linspace(0, 5, 101)
    x = sg.simulate(sde, start, times, rng=0, keep_path=False).x[-1]
    assert abs(float(x.mean()) - 3.0) < 5 * 0.05  # 6e-7
    with pytest.raises(ValueError, match="Heat needs noise on all coordinates"):
        sg.simulate(sde, start, times, rng=0, functionals=[sg.Heat()])
    grids = sg.Grid(-5.0, 9.0, 40), sg.Grid(-7.0, 7.0, 40)
    with pytest.raises(ValueError, match="Tilted has a force of its own"):
        sg.FokkerPlanck2D(sde, grids)


@pytest.mark.parametrize("name", ["mass", "friction"])
def test_one_for_each_of_other_coordinates_is_refused(name):
    sde = sg.UnderdampedLangevin(sg.Quadratic(), **{name: [1.0, 2.0, 3.0]})
    z = sde.state(torch.zeros(4, 2, dtype=F64), 0.0)
    with pytest.raises(ValueError, match=rf"{name} must be .* shape \(2,\), but has shape \(3,\)"):
        sg.simulate(sde, z, [0.0, 0.1], rng=0)
