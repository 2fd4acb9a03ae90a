"""Jump-adapted steps against exact laws: Merton's cumulants, Lévy–OU, resetting, thinning."""

import functools
import math

import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal

import sdegen as sg

F64 = torch.float64
N = 10**6
STILL = sg.ItoProcess(lambda x: torch.zeros_like(x), 0.0)


def final(sde, x0, times, solver=None, n=N, rng=0):
    x = torch.full((n, 1), x0, dtype=F64)
    return sg.simulate(sde, x, times, solver=solver, rng=rng, keep_path=False).final[:, 0]


def check_cumulants(x, exact):
    """The first four, within 4.4 standard errors by influence functions: 1e-5 by chance."""
    d = x - x.mean()
    m2, m3, m4 = ((d**k).mean() for k in (2, 3, 4))
    found = (x.mean(), m2, m3, m4 - 3 * m2**2)
    influences = (
        d,
        d**2 - m2,
        d**3 - m3 - 3 * m2 * d,
        d**4 - m4 - 4 * m3 * d - 6 * m2 * (d**2 - m2),
    )
    for value, told, influence in zip(found, exact, influences, strict=True):
        assert abs(float(value) - told) < 4.4 * float(influence.std()) / math.sqrt(len(x))


def merton(t, drift, sigma, rate, m, d):
    """Cumulants of log S: those of a drifting Brownian motion and of a compound Poisson sum."""
    moments = (m, m**2 + d**2, m**3 + 3 * m * d**2, m**4 + 6 * m**2 * d**2 + 3 * d**4)
    jumps = [rate * t * each for each in moments]
    return (drift * t + jumps[0], sigma**2 * t + jumps[1], jumps[2], jumps[3])


def test_merton_cumulants():
    """log S = μt + σW + ΣY, Y normal; n = 10⁶. The step has no error, whatever its length."""
    about = {"drift": 0.05, "sigma": 0.2, "rate": 2.0, "m": -0.1, "d": 0.3}
    sde = sg.JumpDiffusion(
        sg.ItoProcess(lambda x: torch.full_like(x, about["drift"]), about["sigma"]),
        sg.CompoundPoisson(about["rate"], Normal(about["m"], about["d"])),
    )
    check_cumulants(final(sde, 0.0, [0.0, 0.7, 1.5]), merton(1.5, **about))


def test_merton_cumulants_of_multiplicative_jumps():
    """S → S e^Y by a size S (e^Y − 1) that depends on the state; n = 10⁶."""
    normal = Normal(torch.tensor(0.1, dtype=F64), torch.tensor(0.2, dtype=F64))
    jumps = sg.CompoundPoisson(3.0, lambda x, u: x * torch.expm1(normal.icdf(u)))
    x = final(sg.JumpDiffusion(STILL, jumps), 1.0, [0.0, 1.0]).log()
    check_cumulants(x, merton(1.0, 0.0, 0.0, 3.0, 0.1, 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["exponential", "Laplace"])
def test_levy_ornstein_uhlenbeck_characteristic_function(sizes):
    """dX = −aX dt + σ dW + dJ, n = 10⁶: log φ(k) = ik x₀ e^{−at} + λ ∫ (φ_Y(k e^{−as}) − 1) ds − …

    Six numbers, each within 4.4 standard errors: 1e-5 by chance.
    """
    a, rate, b, sigma, t, x0 = 1.2, 3.0, 0.6, 0.4, 0.4, 0.5
    law = Exponential(1 / b) if sizes == "exponential" else Laplace(0.0, b)
    sde = sg.JumpDiffusion(sg.OrnsteinUhlenbeck(a, 0.0, sigma), sg.CompoundPoisson(rate, law))
    solver = sg.JumpAdapted(sg.Heun(substeps=16))  # bias below 1e-4
    x = final(sde, x0, [0.0, t], solver)
    left = math.exp(-a * t)
    for k in (0.5, 1.0, 2.0):
        q = torch.tensor(k * b, dtype=torch.complex128)
        if sizes == "exponential":
            jumps = (rate / a) * ((1 - 1j * q * left) / (1 - 1j * q)).log()
        else:
            jumps = -(rate / (2 * a)) * ((1 + q**2) / (1 + q**2 * left**2)).log()
        exact = (1j * k * x0 * left + jumps - sigma**2 * k**2 * (1 - left**2) / (4 * a)).exp()
        z = torch.exp(1j * k * x)
        for found, told in ((z.real, exact.real), (z.imag, exact.imag)):
            assert abs(float(found.mean() - told)) < 4.4 * float(found.std()) / math.sqrt(N)


def test_resetting_is_exact_at_any_step():
    """Jumps back to 0 at rate λ: Var = σ²(1 − e^{−λt})/λ, though two steps hold ten jumps.

    The noise of a step is divided at jumps: that of a wrong part gives another variance. Fourth
    moment of Laplace's law too; 4.4 standard errors each.
    """
    sigma, rate, t, n = 0.7, 3.0, 4.0, 200_000
    sde = sg.JumpDiffusion(sg.BrownianMotion(sigma), sg.CompoundPoisson(rate, lambda x, u: -x))
    x = final(sde, 0.0, [0.0, 2.0, t], n=n)
    gone = math.exp(-rate * t)
    second = sigma**2 * (1 - gone) / rate
    fourth = 6 * (sigma**2 / rate) ** 2 * (1 - gone * (1 + rate * t))
    for found, told in ((x**2, second), (x**4, fourth)):
        assert abs(float(found.mean()) - told) < 4.4 * float(found.std()) / math.sqrt(n)


def test_channels_are_divided_at_jumps_too():
    """Three noises in two coordinates, back to 0 at rate λ: covariance G Gᵀ (1 − e^{−λt})/λ."""
    g, rate, t, n = torch.tensor([[0.6, 0.3, 0.0], [-0.2, 0.5, 0.4]], dtype=F64), 2.0, 1.5, 100_000
    flat = sg.ItoProcess(lambda x: torch.zeros_like(x), g, channels=3)
    sde = sg.JumpDiffusion(flat, sg.CompoundPoisson(rate, lambda x, u: -x))
    x = sg.simulate(sde, torch.zeros(n, 2, dtype=F64), [0.0, t], rng=5).final
    told = g @ g.T * (1 - math.exp(-rate * t)) / rate
    products = x[:, :, None] * x[:, None, :]
    error = products.std(0) / math.sqrt(n)
    assert bool(((products.mean(0) - told).abs() < 4.4 * error).all())


def test_thinning_is_exact():
    """Ten particles that die at rate 1 each: Binomial(10, e^{−t}) in one step; 4.4 errors."""
    n, t = 200_000, 0.6
    jumps = sg.CompoundPoisson(lambda x: x[:, 0], -1.0, bound=10.0)
    x = final(sg.JumpDiffusion(STILL, jumps), 10.0, [0.0, t], n=n)
    q = math.exp(-t)
    for k in range(11):
        told = math.comb(10, k) * q**k * (1 - q) ** (10 - k)
        error = math.sqrt(told * (1 - told) / n) + 2 / n
        assert abs(float((x == k).double().mean()) - told) < 4.4 * error
    waves = sg.CompoundPoisson(lambda t: 1 + torch.sin(t), 1.0, bound=2.0)
    count = final(sg.JumpDiffusion(STILL, waves), 0.0, [0.0, 3.0], n=n)
    mean = 3 + 1 - math.cos(3.0)
    check_cumulants(count, (mean,) * 4)


def test_several_clocks_tick_at_their_rates():
    """Up by 1 at rate 2, down by 2 at rate 1 of each coordinate's own: cumulants of both."""
    n = 200_000
    up = sg.CompoundPoisson(2.0, lambda x, u: torch.tensor([1.0, 0.0], dtype=F64).expand_as(x))
    down = sg.CompoundPoisson(1.0, lambda x, u: torch.tensor([0.0, -2.0], dtype=F64).expand_as(x))
    still = sg.ItoProcess(lambda x: torch.zeros_like(x), 0.0)
    x = sg.simulate(
        sg.JumpDiffusion(still, [up, down]), torch.zeros(n, 2, dtype=F64), [0.0, 1.5], rng=1
    ).final
    check_cumulants(x[:, 0], (3.0, 3.0, 3.0, 3.0))
    check_cumulants(x[:, 1], (-3.0, 6.0, -12.0, 24.0))
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 4.4 / math.sqrt(n)


FLOW = sg.JumpDiffusion(
    sg.ItoProcess(lambda x, t: torch.cos(3 * t) - x - x**3 / 9, 0.0),
    sg.CompoundPoisson(4.0, Laplace(torch.tensor(0.0, dtype=F64), 0.5)),
)


@functools.cache
def ends(solver, substeps):
    x = torch.linspace(-1, 1, 300, dtype=F64)[:, None]
    adapted = sg.JumpAdapted(solver(substeps))
    return sg.simulate(FLOW, x, [0.0, 1.0], solver=adapted, rng=3).final


@pytest.mark.parametrize(("solver", "order"), [(sg.EulerMaruyama, 1), (sg.Heun, 2)])
def test_the_order_is_that_of_the_solver(solver, order):
    """Along each path, of a flow that depends on time between jumps: slope, and limit by halving.

    The same jumps are met at steps of any size, so that errors are those of the steps alone.
    """
    exact = (4 * ends(sg.Heun, 512) - ends(sg.Heun, 256)) / 3
    errors = torch.stack([(ends(solver, n) - exact).square().mean().sqrt() for n in (32, 64, 128)])
    slopes = (errors[:-1] / errors[1:]).log2()
    assert bool((slopes > order - 0.15).all())
    assert bool((slopes < order + 0.25).all())
    assert float(errors[-1]) < (0.02 if order == 1 else 2e-4)


def test_a_stable_motion_is_added_by_steps():
    """Euler's chain x' = (1 − a dt) x + ΔL has the exponent Σ_j (1 − a dt)^{αj} dt ψ(k), exactly.

    A step that scaled as √dt would have another. n = 10⁵, 4.4 standard errors.
    """
    n, a, alpha, dt, steps = 100_000, 1.0, 1.4, 0.1, 10
    motion = sg.AlphaStable(alpha, scale=0.5)
    sde = sg.JumpDiffusion(sg.ItoProcess(lambda x: -a * x, 0.0), motion)
    x = final(sde, 0.0, torch.linspace(0, dt * steps, steps + 1, dtype=F64), n=n)
    shrunk = sum((1 - a * dt) ** (alpha * j) for j in range(steps)) * dt
    for k in (0.7, 2.0):
        told = math.exp(-shrunk * float(motion.exponent(torch.tensor(k, dtype=F64)).real))
        wave = torch.cos(k * x)
        assert abs(float(wave.mean()) - told) < 4.4 * float(wave.std()) / math.sqrt(n)


def test_threads_blocks_and_seeds_give_the_same_bits():
    sde = sg.JumpDiffusion(
        sg.OrnsteinUhlenbeck(),
        [
            sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=5.0), Laplace(0.0, 1.0), bound=5),
            sg.AlphaStable(1.5, scale=0.1),
        ],
    )
    x, times = torch.zeros(120_000, 1), torch.linspace(0, 1, 5)
    one, two = (
        sg.simulate(sde, x, times, rng=7, threads=k, keep_path=False).final for k in (1, 2)
    )
    assert torch.equal(one, two)
    fewer = sg.simulate(sde, x[:50_000], times, rng=7).final
    assert torch.equal(fewer, one[:50_000])
    other = sg.simulate(sde, x[:50_000], times, rng=8).final
    assert not torch.equal(fewer, other)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_who_does_not_jump_keeps_the_bits_of_a_run_without_jumps(dtype):
    """About e^{−1} of the trajectories; and with rate 0 all of them."""
    ou, x, times = sg.OrnsteinUhlenbeck(), torch.zeros(3000, 2, dtype=dtype), [0.0, 0.3, 1.0]
    plain = sg.simulate(ou, x, times, rng=2).final
    jumped = sg.simulate(
        sg.JumpDiffusion(ou, sg.CompoundPoisson(1.0, lambda u: 50 + 0 * u)), x, times, rng=2
    ).final
    same = (plain == jumped).all(1)
    n = len(x)
    assert abs(float(same.double().mean()) - math.exp(-1)) < 4.4 * math.sqrt(0.24 / n)
    assert bool((jumped[~same] > 5).all())
    never = sg.JumpDiffusion(ou, sg.CompoundPoisson(0.0, lambda u: 50 + 0 * u))
    assert torch.equal(sg.simulate(never, x, times, rng=2).final, plain)


def test_a_class_may_declare_its_jumps():
    """The same bits as a JumpDiffusion of the same drift and noise."""
    jumps = sg.CompoundPoisson(2.0, Normal(0.0, 0.5))

    class Jumping(sg.OrnsteinUhlenbeck):
        pass

    Jumping.jumps = (jumps,)
    x, times = torch.zeros(500, 1), [0.0, 0.5, 1.0]
    one, two = (
        sg.simulate(sde, x, times, rng=4).final
        for sde in (Jumping(), sg.JumpDiffusion(sg.OrnsteinUhlenbeck(), jumps))
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, sg.simulate(sg.OrnsteinUhlenbeck(), x, times, rng=4).final)


def test_each_trajectory_keeps_its_parameters_when_it_jumps():
    """dX = k dt, with jumps of 0: every row gets its own k over split steps."""
    k = torch.linspace(-1, 1, 400, dtype=F64)[:, None]
    line = sg.ItoProcess(lambda x, k: k + 0 * x, 0.0, parameters={"k": k})
    sde = sg.JumpDiffusion(line, sg.CompoundPoisson(5.0, 0.0))
    x = sg.simulate(sde, torch.zeros_like(k), [0.0, 1.0, 2.0], rng=0)
    torch.testing.assert_close(x.final, 2 * k, rtol=1e-12, atol=1e-13)


def test_gradients_flow_through_sizes_and_are_refused_through_rates():
    size = torch.tensor(0.5, dtype=F64, requires_grad=True)
    x = torch.zeros(2000, 1, dtype=F64)
    sde = sg.JumpDiffusion(STILL, sg.CompoundPoisson(2.0, lambda u: size.expand_as(u)))
    path = sg.simulate(sde, x, [0.0, 1.0], rng=0, differentiable=True)
    path.final.mean().backward()
    counts = path.final.detach() / 0.5
    assert float(size.grad) == pytest.approx(float(counts.mean()), rel=1e-12)
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    rated = sg.CompoundPoisson(lambda x: k.expand(len(x)), 1.0, bound=2.0)
    with pytest.raises(TypeError, match="rate is, or depends on, a tensor that requires grad"):
        sg.simulate(sg.JumpDiffusion(STILL, rated), x, [0.0, 1.0], rng=0, differentiable=True)


def test_the_pilot_gives_no_false_warning_for_heavy_tails():
    """Warnings are errors in tests: Cauchy sizes, α-stable motions of any α, rates of x."""
    cauchy = lambda u: torch.tan(math.pi * (u - 0.5))  # noqa: E731
    ou, x = sg.OrnsteinUhlenbeck(), torch.zeros(300, 1, dtype=F64)
    for jumps in (
        sg.CompoundPoisson(2.0, cauchy),
        sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=2.0), cauchy, bound=2.0),
        sg.AlphaStable(1.5),
        sg.AlphaStable(0.5),
    ):
        for rng in range(3):
            sg.simulate(sg.JumpDiffusion(ou, jumps), x, torch.linspace(0, 2, 21), rng=rng)


def test_the_pilot_still_sees_steps_that_are_too_large():
    stiff = sg.JumpDiffusion(
        sg.OrnsteinUhlenbeck(100.0), sg.CompoundPoisson(2.0, Normal(0.0, 1.0))
    )
    with pytest.raises(ValueError, match=r"steps of 0.1 are too large for JumpDiffusion"):
        sg.simulate(stiff, torch.ones(50, 1), torch.linspace(0, 5, 51), rng=0)
