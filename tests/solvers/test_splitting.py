"""Splittings of phase space: their parts, laws at rest, orders, and the forces that are asked."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Given
from sdegen.core.step_noise import StepNoise
from sdegen.engine.heating import heat_of

F64 = torch.float64
SPLITTINGS = (sg.BAOAB(), sg.OBABO())
METHODS = (*SPLITTINGS, sg.QUICSORT())
both = pytest.mark.parametrize("solver", SPLITTINGS, ids=["BAOAB", "OBABO"])
QUARTIC = sg.UnderdampedLangevin(lambda x: x**4 / 4, 0.7, 0.8, mass=1.3)


def oscillator(omega=1.0, friction=1.0, temperature=1.0, mass=1.0):
    well = sg.Quadratic(mass * omega**2)
    return sg.UnderdampedLangevin(well, friction, temperature, mass)


def starts(rows=6, numbers=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, numbers, generator=draw, dtype=F64)


def letters(sde, word, x, v, t, dt, normals):
    """A step as its definition has it, letter by letter."""
    share = {letter: 1 / word.count(letter) for letter in word}
    for k, letter in enumerate(word):
        h = share[letter] * dt
        if letter == "A":
            x = x + h * v
        elif letter == "B":
            at = torch.tensor(t if k < len(word) / 2 else t + dt, dtype=F64)
            v = v + h * sde.force(x, at) / sde.mass
        else:
            c = torch.exp(-sde.friction_at(x) * h)
            v = c * v + ((1 - c**2) * sde.temperature / sde.mass).sqrt() * normals.pop(0)
    return torch.stack([x, v], 1)


EACH = torch.tensor([0.0, 3.0], dtype=F64)
DYNAMICS = {
    "constant": QUARTIC,
    "one for each": sg.UnderdampedLangevin(sg.DoubleWell(), EACH, 0.8, mass=EACH + 0.5),
    "friction of x": sg.UnderdampedLangevin(sg.DoubleWell(), lambda x: 0.3 + x**2, 0.8),
    "driven": sg.UnderdampedLangevin(lambda x, t: (x - t**2) ** 4, 0.7, 0.8),
}


@pytest.mark.parametrize("name", DYNAMICS)
@both
def test_a_step_is_its_letters(solver, name):
    sde, state, z = DYNAMICS[name], starts(), starts(seed=1)
    times = torch.tensor([0.5, 0.8], dtype=F64)
    with torch.no_grad():
        (after,) = sg.integrate(sde, solver, state, times, Given(z))
    normals = [z[:, 1]]
    if isinstance(solver, sg.OBABO):
        normals = [(z[:, 1] + z[:, 0]) / math.sqrt(2), (z[:, 1] - z[:, 0]) / math.sqrt(2)]
    word = type(solver).__name__
    expected = letters(sde, word, *state.unbind(1), 0.5, 0.3, normals)
    torch.testing.assert_close(after, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("omega", "friction", "mass"), [(1, 1, 1), (1.7, 0.3, 2.5), (2, 50, 0.4)])
def test_the_law_at_rest_on_an_oscillator(omega, friction, mass):
    """Of the chain itself: BAOAB is exact in x at any stable step, OBABO in v."""
    sde = oscillator(omega, friction, 0.6, mass)
    for share in (0.05, 0.5, 0.9, 0.99):
        h, lost = 2 * share / omega, 1 - share**2
        unit = torch.tensor([0.6 / (mass * omega**2), 0.6 / mass], dtype=F64)
        for solver, factors in ((SPLITTINGS[0], (1, lost)), (SPLITTINGS[1], (1 / lost, 1))):
            law = sg.ChainMoments(sde, 2, solver).stationary(h).covariance
            found = law.diagonal() / unit / torch.tensor(factors, dtype=F64)
            assert float((found - 1).abs().max()) < 1e-12
            assert abs(float(law[0, 1])) < 1e-12
    for solver in SPLITTINGS:
        with pytest.raises(ValueError, match="does not come to rest"):
            sg.ChainMoments(sde, 2, solver).stationary(2.05 / omega)


@both
def test_one_force_a_step_and_the_one_that_belongs_to_the_state(solver):
    calls = []

    class Watched(sg.Quadratic):
        def force(self, x):
            calls.append(x.clone())
            return -x * x * x

    sde, state = sg.UnderdampedLangevin(Watched(), 0.7), starts()
    nodes = torch.linspace(0, 1, 11, dtype=F64)

    def run(touch=lambda x: x, forget=False):
        calls.clear()
        noise, x = StepNoise(sg.Noise(state, rng=1), nodes), state
        memory = solver.begin(sde, nodes)
        with torch.no_grad():
            for i in range(10):
                kept = memory._replace(kept=None) if forget else memory
                x, memory = solver.step(sde, x, i, noise, kept)
                x = touch(x)
        return x, len(calls)

    kept, count = run()
    fresh, doubled = run(forget=True)
    assert torch.equal(kept, fresh)
    assert (count, doubled) == (11, 20)
    # copies are the same state; what is moved, also in place, asks anew
    assert run(torch.clone)[1] == 11
    moved, count = run(lambda x: x + 0.1)
    assert torch.equal(moved, run(lambda x: x + 0.1, forget=True)[0])
    assert count == 20
    in_place, count = run(lambda x: x.add_(0.1))
    assert torch.equal(in_place, moved)
    assert count == 20


def test_both_halves_of_a_draw_are_taken():
    """Of two steps the second takes the normals of x; each is that of one step alone."""
    free = sg.UnderdampedLangevin(lambda x: 0 * x, 1.0)
    state, drawn = (
        torch.zeros(5, 2, 3, dtype=F64),
        sg.Noise(torch.zeros(5, 2, 3, dtype=F64), rng=2),
    )
    times, z = torch.linspace(0, 400.0, 5, dtype=F64), [drawn.normal() for _ in range(4)]
    noise = sg.Noise(state, rng=2)
    with torch.no_grad():
        states = [*sg.integrate(free, sg.BAOAB(), state, times, noise)]
    # after 100/γ a velocity is the normal of its step
    for k, one in enumerate(states):
        first, second = z[k // 2].reshape(2, 5, 3)
        torch.testing.assert_close(one[:, 1], second if k % 2 else first)


def test_without_friction_it_is_verlets_method():
    """Run forth and back it returns; the energy stays, to order 2; at T = 0 friction is exact."""
    swing = sg.UnderdampedLangevin(sg.DoubleWell(), 0.0)
    state, energies = starts(), []
    for n in (100, 200):
        times = torch.linspace(0, 10, n + 1, dtype=F64)
        ends = [sg.simulate(swing, state, times, solver=one) for one in SPLITTINGS]
        torch.testing.assert_close(ends[0].states, ends[1].states, rtol=1e-12, atol=1e-12)
        back = sg.simulate(swing, ends[0].final, times.flip(0), solver=SPLITTINGS[0]).final
        torch.testing.assert_close(back, state, rtol=0, atol=1e-9)
        gaps = swing.energy(ends[0].final) - swing.energy(state)
        energies.append(float(gaps.abs().max()))
    assert abs(math.log2(energies[0] / energies[1]) - 2) < 0.2
    still = sg.UnderdampedLangevin(lambda x: 0 * x, 0.7, temperature=0.0)
    end = sg.simulate(still, state, [0.0, 2.0], solver=sg.BAOAB()).final
    torch.testing.assert_close(end[:, 1], math.exp(-1.4) * state[:, 1])


@pytest.mark.parametrize("solver", METHODS, ids=["BAOAB", "OBABO", "QUICSORT"])
def test_a_driven_force_keeps_the_order(solver):
    # x'' = −x − 0.3 x' + cos 2t, without noise
    sde = sg.UnderdampedLangevin(lambda x, t: x**2 / 2 - x * torch.cos(2 * t), 0.3, 0.0)
    a, b = np.linalg.solve([[-3, 0.6], [-0.6, -3]], [1, 0])  # a cos 2t + b sin 2t
    rate = math.sqrt(1 - 0.15**2)
    p, q = -a, -(2 * b + 0.15 * a) / rate  # at rest at 0 to begin with
    exact = math.exp(-0.3) * (p * math.cos(2 * rate) + q * math.sin(2 * rate))
    exact += a * math.cos(4) + b * math.sin(4)
    errors = []
    for n in (20, 40, 80):
        times = torch.linspace(0, 2, n + 1, dtype=F64)
        end = sg.simulate(sde, torch.zeros(1, 2, 1, dtype=F64), times, solver=solver).final
        errors.append(abs(float(end[0, 0, 0]) - exact))
    order = solver.orders.flow
    assert abs(math.log2(errors[0] / errors[2]) / 2 - order) < 0.15
    assert errors[2] < 2 * 40.0**-order


def test_runs_in_blocks_threads_and_with_lost_trajectories():
    x0 = 0.5 * starts(30_000, 1)
    times = torch.linspace(0, 1, 11, dtype=F64)
    ends = [sg.simulate(QUARTIC, x0, times, rng=3, threads=n).states for n in (1, 2)]
    assert torch.equal(*ends)
    assert sg.simulate(QUARTIC, x0[:5].float(), times, rng=3).states.dtype == torch.float32
    lost = x0[:4].clone()
    lost[2] = 1e80
    run = sg.simulate(QUARTIC, lost, times, rng=3, on_nonfinite="freeze")
    assert run.nonfinite.tolist() == [False, False, True, False]
    whole = sg.simulate(QUARTIC, torch.cat([x0[:2], x0[:1], x0[3:4]]), times, rng=3)
    torch.testing.assert_close(run.states[:, [0, 1, 3]], whole.states[:, [0, 1, 3]])


def test_euler_heats_and_is_told():
    """The kinetic temperature of a chain, by `ChainMoments` and by the check beside a pilot."""
    for omega, friction, h in ((1.0, 1.0, 0.31), (3.0, 1.0, 0.05)):
        well = sg.UnderdampedLangevin(sg.Quadratic(omega**2), friction)
        for solver in (sg.EulerMaruyama(), sg.Heun()):
            law = sg.ChainMoments(well, 2, solver).stationary(h).covariance
            found = heat_of(solver, omega, friction, h, 100_000)
            assert found == pytest.approx(float(law[1, 1]), rel=1e-9)
    assert heat_of(sg.EulerMaruyama(), 1.0, 1.0, 0.31, 10**5) == pytest.approx(1.668, abs=1e-3)
    weak = sg.UnderdampedLangevin(sg.Quadratic(), 0.1)  # heats long after a pilot has ended
    state, times = torch.zeros(100, 2, 1, dtype=F64), torch.linspace(0, 50, 1001, dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match=r"temperature of 1\.92 T .* pass solver=BAOAB"):
        sg.simulate(weak, state, times, solver=sg.EulerMaruyama(), rng=0)
    flow = sg.UnderdampedLangevin(sg.Quadratic(), 0.0)
    with pytest.warns(sg.AccuracyWarning, match="EulerMaruyama make a temperature"):
        sg.simulate(flow, state + 1, times, solver=sg.EulerMaruyama())
