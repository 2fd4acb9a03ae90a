"""Active Brownian particles: the displacement in closed form and simulated, circles, angles."""

import itertools
import math

import pytest
import torch
from scipy import integrate

import sdegen as sg

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
FREE = sg.ActiveBrownian(2.0, 0.05, 0.7)
CHIRAL = sg.ActiveBrownian(2.0, 0.05, 0.7, angular_velocity=1.9)


@pytest.mark.parametrize("swimmer", [FREE, CHIRAL, sg.ActiveBrownian(3.0, 0.1, 0.0)])
def test_the_displacement_is_the_integral_of_the_headings_correlation(swimmer):
    """4 D t + 2 v² ∫ (t − s) e^{−D_r s} cos ωs ds, by quadrature; series and formula meet."""
    v, d = swimmer.speed, swimmer.translational_diffusion
    turning, omega = swimmer.rotational_diffusion, swimmer.angular_velocity
    times = torch.tensor([0.0, 1e-6, 1e-3, 0.2, 0.245, 0.25, 0.3, 0.72, 1.0, 8.0], dtype=F64)

    def expected(t):
        kept = lambda s: (t - s) * math.exp(-turning * s) * math.cos(omega * s)  # noqa: E731
        return 4 * d * t + 2 * v * v * integrate.quad(kept, 0, t, epsabs=0, epsrel=1e-13)[0]

    values = torch.tensor([expected(float(t)) for t in times], dtype=F64)
    found = swimmer.mean_squared_displacement(times)
    torch.testing.assert_close(found, values, rtol=1e-13, atol=0.0)


def test_a_displacement_begins_ballistic_and_ends_diffusive():
    t = 1e-7
    first = float(FREE.mean_squared_displacement(t))
    assert first == pytest.approx(4 * 0.05 * t + 4 * t * t, rel=1e-12)
    for swimmer in (FREE, CHIRAL):
        late = swimmer.mean_squared_displacement(torch.tensor([1e3, 2e3], dtype=F64))
        slope = float(late[1] - late[0]) / 4e3
        assert slope == pytest.approx(float(swimmer.effective_diffusion), rel=1e-12)
    assert float(CHIRAL.effective_diffusion) == pytest.approx(0.05 + 4 * 0.7 / (2 * 4.1))
    straight, still = sg.ActiveBrownian(1.0, 0.2, 0.0), sg.ActiveBrownian(0.0, 0.2, 0.0)
    assert float(straight.effective_diffusion) == math.inf
    assert float(still.effective_diffusion) == 0.2


@pytest.mark.parametrize("swimmer", [FREE, CHIRAL], ids=["straight", "chiral"])
def test_simulated_displacements_over_four_decades(swimmer):
    """Within 4.9 standard errors at 13 times, false alarm 1.2e-5 together, if errors are normal.

    Heun's own error of the displacement is of second order, 3e-3 of it at most.
    """
    n, x0 = 2000, torch.zeros(2000, 3, dtype=F64)
    decades = torch.cat([torch.zeros(1, dtype=F64), torch.logspace(-2, 2, 13, dtype=F64)])
    at, states, found = x0, [], []
    for k, (t, s) in enumerate(itertools.pairwise(decades.tolist())):
        steps = max(4, math.ceil((s - t) / 0.1))
        run = sg.simulate(swimmer, at, [t, s], solver=sg.Heun(steps), rng=k)
        at = run.final
        states.append(swimmer.position(at).square().sum(1))
    found = torch.stack(states)
    expected = swimmer.mean_squared_displacement(decades[1:])
    error = found.std(1) / math.sqrt(n)
    assert float(((found.mean(1) - expected) / error).abs().max()) < 4.9
    assert float((error / expected).max()) < 0.03


def test_it_circles_anticlockwise_without_noise():
    circling = sg.ActiveBrownian(1.5, 0.0, 0.0, angular_velocity=2.0)
    assert circling.noise == "none"
    t = torch.linspace(0, 3, 31, dtype=F64)
    run = sg.simulate(circling, torch.zeros(1, 3, dtype=F64), t, solver=sg.Heun(50))
    x, y, heading = run.states[:, 0].unbind(1)
    radius = 1.5 / 2.0
    torch.testing.assert_close(heading, 2 * t)
    torch.testing.assert_close(x, radius * (2 * t).sin(), rtol=0, atol=1e-5)
    torch.testing.assert_close(y, radius * (1 - (2 * t).cos()), rtol=0, atol=1e-5)


def test_a_heading_within_one_turn_leaves_the_places_alone():
    """The same path to rounding as on the line; turns are counted; places are not wrapped."""
    x0 = torch.tensor([[7.0, -9.0, 6.2]], dtype=F64).repeat(50, 1)
    options = {"times": [0.0, 5.0, 20.0], "solver": sg.Heun(200), "rng": 4}
    free = sg.simulate(CHIRAL, x0, **options)
    ring = sg.simulate(CHIRAL, x0, boundary={2: sg.Periodic(0.0, 2 * math.pi)}, **options)
    torch.testing.assert_close(ring.unwrapped, free.states, rtol=0, atol=1e-9)
    torch.testing.assert_close(ring.states[..., :2], free.states[..., :2], rtol=0, atol=1e-9)
    heading = CHIRAL.heading(ring.states)
    assert float(heading.min()) >= 0
    assert float(heading.max()) <= 2 * math.pi
    assert int(ring.windings[-1, :, 2].min()) > 0
    with pytest.raises(ValueError, match="is no period of the drift"):
        sg.simulate(CHIRAL, x0, boundary={2: sg.Periodic(0.0, 360.0)}, **options)


def test_particles_that_feel_each_other():
    """Two in one trajectory, a spring between them: (batch, 2, 3), force on places alone."""

    def spring(places):
        return 2 * (places[:, 0] - places[:, 1]).square().sum(1)

    pair = sg.ActiveBrownian(1.0, 0.1, potential=spring)
    x = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, math.pi / 2]]], dtype=F64)
    pulled = torch.tensor([[[1.0 + 4.0, 8.0, 0.0], [-4.0, 1.0 - 8.0, 0.0]]], dtype=F64)
    torch.testing.assert_close(pair.drift(x, ZERO), pulled)
    run = sg.simulate(pair, x.repeat(3, 1, 1), [0.0, 1.0], solver=sg.Heun(50), rng=0)
    assert run.final.shape == (3, 2, 3)


def test_particles_in_a_box_go_around_it():
    """Repelling pairs in a periodic box, headings on their rings: the path on the line."""
    n, length = 4, 4.0
    pairs = sg.PairForces(sg.HarmonicRepulsion(stiffness=20.0), box=length)
    crowd = sg.ActiveBrownian(2.0, 0.01, 0.5, potential=pairs)
    x0 = torch.tensor([[[0.5, 0.5, 0.0], [2.5, 0.5, 1.0], [0.5, 2.5, 2.0], [2.5, 2.5, 3.0]]])
    x0 = x0.double().repeat(3, 1, 1)
    box = {(i, k): sg.Periodic(0.0, length) for i in range(n) for k in (0, 1)}
    box |= {(i, 2): sg.Periodic(0.0, 2 * math.pi) for i in range(n)}
    options = {"times": [0.0, 4.0], "solver": sg.Heun(200), "rng": 0}
    boxed, free = (
        sg.simulate(crowd, x0, boundary=box, **options),
        sg.simulate(crowd, x0, **options),
    )
    torch.testing.assert_close(boxed.unwrapped, free.states, rtol=0, atol=1e-9)
    assert int(boxed.windings[..., :2].abs().sum()) > 4


def test_a_trapped_particle_has_gibbs_law_where_it_does_not_push():
    """v = 0: ⟨r²⟩ = 2 D/k at rest; with v: ⟨r²⟩ = 2 D/k + v²/(k (k + D_r)).

    Within 4.9 standard errors: false alarm 1e-6.
    """
    n, k = 3000, 1.5
    for v in (0.0, 1.2):
        trapped = sg.ActiveBrownian(v, 0.2, 0.8, potential=sg.Quadratic(k))
        run = sg.simulate(
            trapped, torch.zeros(n, 3, dtype=F64), [0.0, 6.0], solver=sg.Heun(90), rng=1
        )
        square = trapped.position(run.final).square().sum(1)
        expected = 2 * 0.2 / k + v * v / (k * (k + 0.8))
        assert abs(float(square.mean()) - expected) < 4.9 * float(square.std()) / math.sqrt(n)


def test_gradients_reach_its_parameters():
    values = [2.0, 0.05, 0.7, 1.9]

    def end(*given):
        v, d, turning, omega = given
        swimmer = sg.ActiveBrownian(v, d, turning, angular_velocity=omega)
        options = {"solver": sg.Heun(5), "rng": 0, "differentiable": True}
        run = sg.simulate(swimmer, torch.zeros(4, 3, dtype=F64), [0.0, 1.0], **options)
        return run.final.sum() + swimmer.mean_squared_displacement(0.4)

    tensors = [torch.tensor(value, dtype=F64, requires_grad=True) for value in values]
    slopes = torch.autograd.grad(end(*tensors), tensors)
    h = 1e-6
    for k, slope in enumerate(slopes):
        with torch.no_grad():
            up, down = ([v + s * h * (k == i) for i, v in enumerate(values)] for s in (1, -1))
            expected = float(end(*up) - end(*down))
        assert float(slope) == pytest.approx(expected / (2 * h), rel=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"speed": math.inf}, "speed must be finite"),
        ({"translational_diffusion": -1.0}, "translational_diffusion must be"),
        ({"rotational_diffusion": -1.0}, "rotational_diffusion must be"),
        ({"angular_velocity": math.nan}, "angular_velocity must be finite"),
    ],
)
def test_numbers_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        sg.ActiveBrownian(**({"speed": 1.0} | given))


def test_states_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"state of ActiveBrownian is \(x, y, θ\)"):
        sg.simulate(FREE, torch.zeros(4, 2), [0.0, 1.0], rng=0)
    with pytest.raises(ValueError, match="must be ≥ 0, a time since"):
        FREE.mean_squared_displacement([0.0, -1.0])
    with pytest.raises(ValueError, match="is that of a free particle"):
        sg.ActiveBrownian(1.0, potential=sg.Quadratic()).mean_squared_displacement(1.0)


def test_particles_that_overlap_and_periods_that_are_not_the_box_are_refused():
    swimmers = sg.ActiveBrownian(1.0, 0.1, potential=sg.PairForces(sg.WCA(), box=9.0))
    x = torch.tensor([[[0.0, 0.0, 1.0], [3.0, 3.0, 1.0], [3.0, 3.0, 2.0]]], dtype=torch.float64)
    times = torch.tensor([0.0, 1e-3], dtype=torch.float64)
    with pytest.raises(ValueError, match="particles 1 and 2 of system 0 is not finite"):
        sg.simulate(swimmers, x, times, rng=0)
    x[0, 2, :2] = 6.0
    places = (0, 1, 3, 4, 6, 7)
    with pytest.raises(ValueError, match=r"period 8 in dimension 0, .* a box of 9"):
        sg.simulate(swimmers, x, times, rng=0, boundary={c: sg.Periodic(0.0, 8.0) for c in places})
    own = {c: sg.Periodic(0.0, 9.0) for c in places}
    assert not bool(sg.simulate(swimmers, x, times, rng=0, boundary=own).nonfinite.any())
