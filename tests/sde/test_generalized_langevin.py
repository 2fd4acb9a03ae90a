"""Generalised Langevin dynamics: Gibbs's law at rest, the memory by Laplace, and refusals."""

import math

import mpmath as mp
import pytest
import torch

import sdegen as sg

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
KERNEL = sg.PronySeries([2.0, 0.7], [0.5, 2.0], [0.0, 3.0])
TEMPERATURE, MASS, STIFFNESS, FRICTION = 0.8, 2.0, 4.0, 0.3


def trap(kernel=KERNEL, friction=FRICTION, **options):
    potential = sg.Quadratic(STIFFNESS, 0.3)
    given = {"temperature": TEMPERATURE, "mass": MASS, "friction": friction} | options
    return sg.GeneralizedLangevin(potential, kernel, **given)


@pytest.mark.parametrize(
    "kernel",
    [
        KERNEL,
        sg.PronySeries(2.0, 0.5),
        sg.PronySeries([1.0, 1.0, 3.0], [0.1, 1.0, 10.0]),
        sg.PronySeries(1.5, 0.7, 5.0),
    ],
)
@pytest.mark.parametrize("friction", [0.0, FRICTION])
def test_the_law_at_rest_is_that_of_gibbs_whatever_the_memory(kernel, friction):
    """⟨x²⟩ = T/k, ⟨v²⟩ = T/m, ⟨s²⟩ = T, all independent: fluctuation and dissipation agree."""
    variables = len(kernel.amplitudes) + int((kernel.frequencies > 0).sum())
    linear = sg.LinearSDE.of(trap(kernel, friction), 2 + variables)
    expected = [TEMPERATURE / STIFFNESS, TEMPERATURE / MASS] + [TEMPERATURE] * variables
    cov = linear.stationary_covariance()
    law = torch.tensor(expected, dtype=F64).diag()
    torch.testing.assert_close(cov, law, rtol=1e-12, atol=1e-13)
    mean = torch.zeros(2 + variables, dtype=F64)
    mean[0] = 0.3
    torch.testing.assert_close(linear.stationary_mean(), mean, rtol=1e-12, atol=1e-13)


def test_velocities_are_correlated_as_the_memory_kernel_says():
    """C(z) = (T/m)/(z + (γ + K(z))/m + k/(m z)) by Laplace, inverted in 20 digits."""

    def laplace(z):
        memory = mp.mpf(FRICTION)
        for c, tau, w in ((2.0, 0.5, 0.0), (0.7, 2.0, 3.0)):
            memory += c * (z + 1 / mp.mpf(tau)) / ((z + 1 / mp.mpf(tau)) ** 2 + mp.mpf(w) ** 2)
        return TEMPERATURE / MASS / (z + memory / MASS + STIFFNESS / (MASS * z))

    times = [0.4, 1.5, 3.0]
    with mp.workdps(20):
        expected = [float(mp.invertlaplace(laplace, t, method="talbot")) for t in times]
    found = sg.LinearSDE.of(trap(), 5).stationary_correlation(times)[:, 1, 1]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-10, atol=1e-11)


def test_the_random_force_has_the_correlation_of_the_kernel():
    """With the particle held, ⟨R(t) R(0)⟩ = T K(t), R = Σ √c s: the memory alone."""
    sde = trap()
    linear = sg.LinearSDE.of(sde, 5)
    memory = sg.LinearSDE(linear.A[2:, 2:], linear.B[2:])
    coupling = -linear.A[1, 2:] * MASS
    times = torch.tensor([0.0, 0.3, 2.0], dtype=F64)
    correlation = memory.stationary_correlation(times)
    found = torch.einsum("i,tij,j->t", coupling, correlation, coupling)
    torch.testing.assert_close(found, TEMPERATURE * KERNEL(times), rtol=1e-12, atol=1e-13)


def test_a_kernel_is_its_formula_and_its_friction_the_integral():
    t = torch.tensor([0.0, 0.5, -0.5, 2.0], dtype=F64)
    expected = 2 * torch.exp(-t.abs() / 0.5) + 0.7 * torch.exp(-t.abs() / 2) * torch.cos(3 * t)
    torch.testing.assert_close(KERNEL(t), expected)
    fine = torch.linspace(0.0, 60.0, 600_001, dtype=F64)
    assert KERNEL.friction == pytest.approx(float(torch.trapezoid(KERNEL(fine), fine)), rel=1e-7)


def test_short_memories_are_friction():
    """c = γ/τ, τ → 0: the correlations of v come to those of friction without memory."""
    times, gaps = [0.3, 1.0], []
    plain = sg.LinearSDE(
        [[0.0, -1.0], [STIFFNESS / MASS, 1.1 / MASS]],
        [[0.0], [math.sqrt(2 * 1.1 * TEMPERATURE) / MASS]],
    ).stationary_correlation(times)[:, 1, 1]
    for tau in (0.02, 0.01):
        short = trap(sg.PronySeries(1.1 / tau, tau), friction=0.0)
        found = sg.LinearSDE.of(short, 3).stationary_correlation(times)[:, 1, 1]
        gaps.append(float((found - plain).abs().max()))
    assert 1.8 < gaps[0] / gaps[1] < 2.2
    assert gaps[1] < 0.01


def test_a_start_is_at_rest_and_a_run_stays_there():
    """In a double well: after a while ⟨v²⟩ = T/m, and x has e^{−U/T}, within 4.4 σ.

    Positions start from that density, drawn by inversion, so that any drift of the law is seen.
    """
    n, temperature, well = 20_000, 0.4, sg.DoubleWell()
    grid = torch.linspace(-3, 3, 4001, dtype=F64)
    p = well.log_prob(grid[:, None], temperature).exp()
    cdf = torch.cumulative_trapezoid(p, grid)
    x0 = grid[1:][torch.searchsorted(cdf, (torch.arange(n, dtype=F64) + 0.5) / n)]
    sde = sg.GeneralizedLangevin(well, sg.PronySeries([2.0, 1.0], [0.5, 1.0], [0.0, 2.0]), 0.4)
    start = sde.start(x0[:, None], rng=0)
    assert start.shape == (n, 5)
    times = torch.linspace(0.0, 3.0, 61, dtype=F64)
    end = sg.simulate(sde, start, times, solver=sg.Heun(), rng=1, keep_path=False).final
    x, v = sde.position(end)[:, 0], sde.velocity(end)[:, 0]
    # Heun's own bias is 18 times smaller, by ChainMoments of a harmonic well
    for values, power, exact in (
        (v, 2, temperature),
        (x, 2, float(torch.trapezoid(p * grid**2, grid))),
        (x, 4, float(torch.trapezoid(p * grid**4, grid))),
    ):
        sample = values**power
        assert abs(float(sample.mean()) - exact) < 4.4 * float(sample.std()) / math.sqrt(n)


def test_velocities_may_be_given():
    sde = trap()
    x0 = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    start = sde.start(x0, 0 * x0, rng=0)
    assert start.shape == (2, 10)
    assert torch.equal(sde.position(start), x0)
    assert not bool(sde.velocity(start).any())
    # two coordinates are two of one
    one = sde.drift(start[:, ::2], ZERO)
    torch.testing.assert_close(sde.drift(start, ZERO)[:, ::2], one)
    cold = trap(temperature=0.0)
    assert cold.noise == "none"
    assert not bool(cold.start(x0, rng=0)[:, 2:].any())


def test_forces_by_autograd_are_those_of_the_formula():
    own = sg.GeneralizedLangevin(lambda x: 2 * (x - 0.3) ** 2, KERNEL, TEMPERATURE, mass=MASS)
    x = trap().start(torch.ones(3, 1, dtype=F64), rng=0)
    with torch.no_grad():
        torch.testing.assert_close(own.drift(x, ZERO), trap(friction=0.0).drift(x, ZERO))
    assert own.slope_by(x, ZERO) == "autograd"
    own.check_derivatives(x[:2] * torch.tensor([[1.0], [2.0]], dtype=F64), ZERO)


def test_what_is_no_memory_is_refused():
    for call, kind, said in (
        (lambda: sg.PronySeries(-1.0, 1.0), ValueError, "amplitudes must be finite and > 0"),
        (lambda: sg.PronySeries(1.0, 0.0), ValueError, "decay_times must be finite and > 0"),
        (lambda: sg.PronySeries(1.0, 1.0, -2.0), ValueError, "frequencies must be finite and ≥ 0"),
        (lambda: sg.PronySeries([1.0, 2.0], [1.0, 2.0, 3.0]), ValueError, "one number for each"),
        (lambda: sg.PronySeries([], []), ValueError, "one number for each term"),
        (lambda: sg.PronySeries("K", 1.0), TypeError, "amplitudes must be a number"),
        (lambda: trap(2.0), TypeError, "memory must be a kernel"),
        (lambda: trap(temperature=-1.0), ValueError, "temperature must be finite and ≥ 0"),
        (lambda: trap(mass=0.0), ValueError, "mass must be finite and > 0"),
        (lambda: trap(friction=-0.1), ValueError, "friction must be finite and ≥ 0"),
        (
            lambda: trap().drift(torch.zeros(3, 4, dtype=F64), ZERO),
            ValueError,
            "5 numbers for each coordinate: position, velocity and 3 of the memory, but x has 4",
        ),
        (lambda: trap().drift(torch.zeros(3, 5, 1, dtype=F64), ZERO), ValueError, "x must have"),
        (lambda: trap().start(torch.zeros(3, dtype=F64)), ValueError, "x0 must be floats"),
        (
            lambda: trap().start(torch.zeros(3, 1, dtype=F64), torch.zeros(3, 2, dtype=F64)),
            ValueError,
            "v0 must have the shape of x0",
        ),
    ):
        with pytest.raises(kind, match=said):
            call()
