"""Boundaries of a phase space: billiards, walls in thermal equilibrium, rings, absorbing ends."""

import math

import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.core.folding import folded
from sdegen.core.noise import stream

F64 = torch.float64
TWO_PI = 2 * math.pi


def flat(x):
    return 0 * x


FREE = sg.UnderdampedLangevin(flat, friction=0.0)
BALL = sg.UnderdampedLangevin(lambda x: x, friction=1.0)
X = stream(0, "x").normal((60, 3), dtype=F64).mul(0.2).add(0.5).clamp(0.05, 0.95)
V = 3 * stream(1, "v").normal((60, 3), dtype=F64)


def test_a_fold_knows_how_often_it_was_made():
    x = torch.tensor([-2.25, -1.0, -0.25, 0.0, 0.5, 1.0, 1.25, 2.0, 2.5, 3.25, math.nan])
    place, odd = folded(x, 0.0, 1.0)
    expected = [0.25, 1.0, 0.25, 0.0, 0.5, 1.0, 0.75, 0.0, 0.5, 0.75, math.nan]
    torch.testing.assert_close(place, torch.tensor(expected), equal_nan=True)
    # three times at −2.25 and 3.25; at a wall itself either sign is one of a touch
    assert x[odd].tolist() == [-2.25, -0.25, 1.25, 3.25]
    assert folded(torch.tensor([-3.0, 3.0]), 1.0, math.inf)[1].tolist() == [True, False]
    assert folded(torch.tensor([-3.0, 3.0]), -math.inf, 1.0)[0].tolist() == [-3.0, -1.0]


@pytest.mark.parametrize("solver", [sg.BAOAB(40), sg.EulerMaruyama(40), sg.Heun(7)])
def test_a_free_particle_is_a_billiard(solver):
    """Between walls, on a ring, and free: the line unfolded, to rounding, after 60 collisions."""
    ends = {0: sg.Reflecting(0.0, 1.0), (0, 1): sg.Periodic(-0.2, 1.3)}
    run = sg.simulate(FREE, FREE.state(X, V), [0.0, 1.0, 20.0], solver=solver, boundary=ends)
    line = X + 20.0 * V
    turn = torch.remainder(line[:, 0], 2.0)
    torch.testing.assert_close(run.x[-1, :, 0], torch.minimum(turn, 2 - turn), atol=1e-11, rtol=0)
    assert torch.equal(run.v[-1, :, 0], torch.where(turn > 1, -V[:, 0], V[:, 0]))
    assert torch.equal(run.v[-1, :, 1:], V[:, 1:])
    unwrapped = run.unwrapped[-1, :, 0]
    torch.testing.assert_close(unwrapped[:, 1:], line[:, 1:], atol=1e-11, rtol=0)
    assert run.windings is not None
    assert not bool(run.windings[:, :, 1].any())
    assert int(run.windings.abs().max()) > 20
    assert run.periods.tolist() == [[0.0, 1.5, 0.0], [0.0, 0.0, 0.0]]


def test_by_hand_the_bits_are_those_of_a_run():
    z, nodes = BALL.state(X, V), torch.linspace(0, 2, 21, dtype=F64)
    ends = {0: sg.Reflecting(0.0), 1: sg.Reflecting(0.0, 2.0), 2: sg.Periodic(0.0, 1.0)}
    for solver, friction in ((sg.BAOAB(), lambda x: 1 + x[:, :1] ** 2), (sg.Heun(), 0.7)):
        sde = sg.UnderdampedLangevin(lambda x: x[:, 0] + x[:, 1], friction)
        whole = sg.simulate(sde, z, nodes, solver=solver, boundary=ends, rng=5)
        noise = sg.Noise(z, rng=sg.core.noise.Streams(5, "dynamics").block(0))
        with torch.no_grad():
            inside = sg.contain(ends, sde, z, nodes, rng=5)
            *_, last = sg.integrate(sde, solver, z, nodes, noise, inside)
        assert torch.equal(whole.final, last)
        assert torch.equal(whole.windings[-1], inside.windings)


def test_a_force_is_never_asked_beyond_a_wall():
    seen = []

    def energy(x):
        seen.append(x.detach())
        return x - x.clamp(min=-1).log1p()  # none below −1

    sde = sg.UnderdampedLangevin(energy, 0.5)
    z = sde.state(torch.zeros(200, 1, dtype=F64), 0.0)
    for solver in (sg.BAOAB(10), sg.OBABO(10), sg.EulerMaruyama(10), sg.SRA(10)):
        run = sg.simulate(sde, z, [0.0, 5.0], solver=solver, boundary=sg.Reflecting(-0.5), rng=0)
        assert run.nfe > 0
    assert min(float(x.min()) for x in seen) >= -0.5


def test_between_walls_places_are_uniform_and_velocities_maxwells():
    """Kolmogorov–Smirnov of 4,000 free particles that start in a corner: p > 1e-5 each."""
    sde = sg.UnderdampedLangevin(flat, friction=0.7, temperature=0.6, mass=2.0)
    z = sde.state(torch.full((4000, 1), 0.1, dtype=F64), 0.0)
    run = sg.simulate(
        sde, z, [0.0, 30.0], solver=sg.BAOAB(100), boundary=sg.Reflecting(0.0, 1.0), rng=2
    )
    assert stats.kstest(run.x[-1, :, 0], "uniform").pvalue > 1e-5
    assert stats.kstest(run.v[-1, :, 0], "norm", (0, math.sqrt(0.3))).pvalue > 1e-5


def test_a_ball_on_the_floor_has_the_law_of_the_barometer():
    """p(x) = e^{−x}, ⟨v²⟩ = 1: errors of second order in the step, 0.005 at h = 0.25.

    Folded after the step alone, with the force of beyond, both would be off by 0.12. The standard
    error is 0.0067: within 0.04, false alarm 1e-6.
    """
    n = 8000
    height = -torch.log(stream(3, "h").normal((n, 1), dtype=F64).mul(0.5**0.5).erfc() / 2)
    z = BALL.state(height, BALL.draw_velocities(height, rng=1))
    times = torch.linspace(0, 16, 9, dtype=F64)
    run = sg.simulate(BALL, z, times, solver=sg.BAOAB(8), boundary=sg.Reflecting(0.0), rng=3)
    for values in (run.x[2:], run.v[2:].square()):
        each = values[..., 0].mean(0)
        assert float(each.std()) / math.sqrt(n) < 0.007
        assert abs(float(each.mean()) - 1) < 0.04


def test_on_a_ring_velocities_are_not_wrapped():
    """A driven pendulum: x modulo 2π beside v, which is that of the line to rounding."""
    driven = sg.UnderdampedLangevin(lambda x: -x.cos() - 0.3 * x, friction=0.5, temperature=0.4)
    z, options = driven.state(torch.zeros(200, 1, dtype=F64), 0.0), {"rng": 0}
    line = sg.simulate(driven, z, [0.0, 20.0], solver=sg.BAOAB(400), **options)
    ends = {0: sg.Periodic(0.0, TWO_PI)}
    ring = sg.simulate(driven, z, [0.0, 20.0], solver=sg.BAOAB(400), boundary=ends, **options)
    torch.testing.assert_close(ring.v, line.v, rtol=0, atol=1e-8)
    torch.testing.assert_close(ring.unwrapped, line.states, rtol=0, atol=1e-8)
    assert float(ring.x.min()) >= 0
    assert float(ring.v.min()) < 0


def test_an_absorbing_end_stops_a_trajectory_where_it_arrives():
    """Free flight to x = 1: those that arrived keep the end and their velocity; no bridge."""
    times = torch.linspace(0, 1, 11, dtype=F64)
    z = FREE.state(X[:, :1], V[:, :1])
    run = sg.simulate(FREE, z, times, boundary={0: sg.Absorbing(high=1.0)})
    arrived = (X[:, 0] + times[:, None] * V[:, 0]) >= 1
    assert torch.equal(run.absorbed, arrived.cummax(0).values)
    assert torch.equal(run.x[-1, arrived[-1], 0], torch.ones(int(arrived[-1].sum()), dtype=F64))
    assert torch.equal(run.v[-1], V[:, :1])
    noisy = sg.UnderdampedLangevin(flat)
    options = {"solver": sg.BAOAB(5), "rng": 0}
    both = [
        sg.simulate(noisy, z, times, boundary={0: sg.Absorbing(high=1.0, bridge=b)}, **options)
        for b in (True, False)
    ]
    assert torch.equal(both[0].states, both[1].states)


def test_a_floor_and_an_absorbing_ceiling():
    z = FREE.state(X[:, :1], V[:, :1])
    ends = (sg.Reflecting(0.0), sg.Absorbing(high=1.5))
    run = sg.simulate(FREE, z, torch.linspace(0, 2, 201, dtype=F64), boundary=ends)
    down = V[:, 0] < 0
    far = 2.0 * V[:, 0].abs() + torch.where(down, -X[:, 0], X[:, 0])
    assert torch.equal(run.absorbed[-1], far >= 1.5)
    bounced = down & (X[:, 0] + 2 * V[:, 0] < 0)
    assert bool((run.v[-1, bounced, 0] > 0).all())


@pytest.mark.parametrize(
    "ends",
    [
        {0: sg.Reflecting(0.0, 1.0)},
        {(0, 0): sg.Reflecting(0.0, 1.0)},
        {(0,): sg.Reflecting(0.0, 1.0)},
        [sg.Reflecting(0.0, 1.0)],
        [sg.Reflecting(0.0, 1.0), None],
        (sg.Reflecting(0.0), sg.Reflecting(high=1.0)),
        sg.Reflecting(0.0, 1.0, coordinates="all"),
    ],
)
def test_a_coordinate_of_the_position_has_many_names(ends):
    z = FREE.state(X[:, :1], V[:, :1])
    run, same = (
        sg.simulate(FREE, z, [0.0, 1.0], boundary=b) for b in (ends, sg.Reflecting(0.0, 1.0))
    )
    assert torch.equal(run.states, same.states)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({1: sg.Reflecting(0.0)}, "coordinate 1, which is a velocity"),
        ({(1, 0): sg.Periodic(0.0, 1.0)}, r"coordinate \(1, 0\), which is a velocity"),
        ([None, sg.Periodic(0.0, 1.0)], "coordinate 1, which is a velocity"),
        ({2: sg.Reflecting(0.0)}, "boundary is for coordinate 2, but"),
        (sg.Reflecting(2.0), "must start inside"),
        ({0: sg.Periodic(0.0, 3.0)}, "no period of the drift"),
    ],
)
def test_what_does_not_fit_is_refused(ends, message):
    pendulum = sg.UnderdampedLangevin(lambda x: -x.cos())
    with pytest.raises(ValueError, match=message):
        sg.simulate(pendulum, pendulum.state(X[:, :1], V[:, :1]), [0.0, 1.0], boundary=ends, rng=0)


def test_boundaries_and_dynamics_that_say_nothing_of_velocities_are_refused():
    class Stopping(sg.Boundary):
        def apply(self, before, after, step):
            return after.clamp(step.low, step.high)

    z = FREE.state(X[:, :1], V[:, :1])
    with pytest.raises(ValueError, match="Stopping does not say what becomes of a velocity"):
        sg.simulate(FREE, z, [0.0, 1.0], boundary=Stopping(0.0, 1.0))

    class Own(sg.SDE):
        phase_space = True
        noise = "none"

        def drift(self, x, t):
            return torch.stack([x[:, 1], -x[:, 0]], 1)

        def diffusion(self, x, t):
            return torch.zeros((), dtype=F64)

    with pytest.raises(ValueError, match="is for UnderdampedLangevin, whose force is mirrored"):
        sg.simulate(Own(), z, [0.0, 1.0], solver=sg.Heun(4), boundary=sg.Reflecting(0.0))


def test_gradients_flow_through_a_collision():
    """∂x/∂v = −t after one of them."""
    x, v = torch.full((1, 1), 0.5, dtype=F64), torch.full((1, 1), 0.9, dtype=F64)
    v.requires_grad_()
    run = sg.simulate(
        FREE, FREE.state(x, v), [0.0, 1.0], solver=sg.BAOAB(10), differentiable=True,
        boundary=sg.Reflecting(0.0, 1.0),
    )  # fmt: skip
    (slope,) = torch.autograd.grad(run.x[-1].sum(), v)
    assert float(slope) == pytest.approx(-1.0)
