"""Linear SDEs: the kernel is the SDE's own, at every t and to the last digits."""

import math

import mpmath
import pytest
import torch
from scipy import stats
from sdes import BETAS, PATHS

import sdegen as sg

F64 = torch.float64
every_sde = pytest.mark.parametrize("sde", PATHS.values(), ids=PATHS.keys())


def _times(sde):
    """From 10⁻⁶ of t_max, where cancellation would show, to t_max."""
    t = sde.t_max * torch.logspace(-6, 0, 61, dtype=F64)
    return torch.minimum(t, torch.tensor(sde.t_max, dtype=F64)).requires_grad_()


def _slope(value, t):
    return torch.autograd.grad(value.sum(), t)[0]


@every_sde
def test_alpha_decays_at_the_rate_of_the_drift(sde):
    t = _times(sde)
    rate = sde.drift_rate(t).detach()
    if isinstance(sde, sg.VE | sg.EDM):
        assert not rate.any()
        assert torch.equal(sde.alpha(t), torch.ones_like(t))
    else:
        torch.testing.assert_close(_slope(sde.alpha(t).log(), t), rate, rtol=1e-10, atol=0)


@every_sde
def test_variance_grows_by_drift_and_noise(sde):
    # dσ²/dt = 2 a σ² + b²
    t = _times(sde)
    growth = _slope(sde.sigma(t).square(), t)
    a, b = sde.drift_rate(t).detach(), sde.diffusion_rate(t).detach()
    expected = 2 * a * sde.sigma(t).detach().square() + b.square()
    torch.testing.assert_close(growth, expected, rtol=1e-10, atol=0)


@every_sde
def test_drift_and_diffusion_are_the_rates(sde, device, dtype):
    x = torch.linspace(-2, 2, 6, dtype=dtype, device=device).reshape(2, 3)
    t = torch.tensor(0.3, dtype=F64)
    torch.testing.assert_close(sde.drift(x, t), float(sde.drift_rate(t)) * x)
    assert float(sde.diffusion(x, t)) == float(sde.diffusion_rate(t))


@every_sde
def test_each_trajectory_has_its_own_time(sde):
    # batch == dim: a time that met coordinates in place of trajectories would pass unseen
    # elsewhere
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    t = torch.tensor([0.1, 0.8], dtype=F64)
    x_t, eps = sde.perturb(x, t, rng=0)
    for i in range(2):
        torch.testing.assert_close(sde.drift(x, t)[i], sde.drift(x[i : i + 1], t[i])[0])
        g = sde.diffusion(x, t).expand_as(x)[i]
        torch.testing.assert_close(g, sde.diffusion(x, t[i]).expand(2))
        expected = sde.alpha(t[i]) * x[i] + sde.sigma(t[i]) * eps[i]
        torch.testing.assert_close(x_t[i], expected, rtol=1e-15, atol=1e-15)


def test_a_time_for_each_follows_the_state(device):
    x = torch.ones(3, 2, dtype=torch.float32, device=device)
    t = torch.full((3,), 0.5, dtype=F64)  # on the CPU, of another dtype
    x_t, eps = sg.VP(sg.LinearBeta(0.1, 20.0)).perturb(x, t, rng=0)
    assert (x_t.dtype, x_t.device, eps.dtype) == (x.dtype, x.device, x.dtype)


def test_a_time_of_another_shape_is_refused(as_user):
    x = torch.ones(3, 2, dtype=F64)
    with pytest.raises(ValueError, match=r"must have shape \(\) or \(3,\) to meet a state"):
        sg.VP(sg.LinearBeta(0.1, 20.0)).perturb(x, torch.ones(2, dtype=F64), rng=0)


@every_sde
def test_perturbed_points_have_the_law_of_the_kernel(sde, device):
    n, x0, t = 40_000, 1.7, 0.4 * sde.t_max
    x = torch.full((n, 1), x0, dtype=F64, device=device)
    x_t, _ = sde.perturb(x, torch.tensor(t, dtype=F64), rng=5)
    mean, std = (float(c(torch.tensor(t, dtype=F64))) for c in (sde.alpha, sde.sigma))
    z = (x_t[:, 0].cpu().numpy() - mean * x0) / std
    assert math.sqrt(n) * stats.kstest(z, "norm").statistic < 2.470  # false alarm 1e-5
    assert abs(z.var() - 1) < 4.42 * math.sqrt(2 / n)


@pytest.mark.parametrize("kind", [sg.VP, sg.SubVP])
def test_the_sde_itself_ends_in_its_kernel(kind):
    # Euler-Maruyama's mean and variance, propagated exactly; its error halves with the step
    sde, gaps = kind(sg.LinearBeta(0.1, 20.0)), []
    for steps in (2000, 4000):
        t = torch.linspace(0, 1, steps + 1, dtype=F64)
        dt = 1.0 / steps
        a = 1 + dt * sde.drift_rate(t[:-1])
        b2 = dt * sde.diffusion_rate(t[:-1]).square()
        mean, variance = 1.0, 0.0
        for factor, gain in zip(a.tolist(), b2.tolist(), strict=True):
            mean, variance = factor * mean, factor**2 * variance + gain
        gaps.append((mean - float(sde.alpha(t[-1])), variance - float(sde.sigma(t[-1])) ** 2))
    for coarse, fine in zip(*gaps, strict=True):
        assert abs(fine) < 4e-3
        assert fine == pytest.approx(coarse / 2, rel=0.05)


@pytest.mark.parametrize("name", ["constant", "linear", "quadratic"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("t", [1e-9, 1e-5, 1e-3, 0.1, 0.9])
def test_alpha_and_sigma_have_all_their_digits(name, dtype, t):
    # against 50 digits, at the very t that the dtype holds
    mpmath.mp.dps = 50
    at = torch.tensor(t, dtype=dtype)
    b = mpmath.quad(lambda s: _exact_beta(name, s), [0, mpmath.mpf(float(at))])
    sigma = {"VP": mpmath.sqrt(-mpmath.expm1(-b)), "SubVP": -mpmath.expm1(-b)}
    # the rounding of B itself is multiplied by dlog α/dB and by dlog σ/dB ≤ 1
    tolerance = torch.finfo(dtype).eps * (6 + float(b))
    for kind in (sg.VP, sg.SubVP):
        sde = kind(BETAS[name])
        assert float(sde.alpha(at)) == pytest.approx(float(mpmath.exp(-b / 2)), rel=tolerance)
        assert float(sde.sigma(at)) == pytest.approx(float(sigma[kind.__name__]), rel=tolerance)


def _exact_beta(name, t):
    low, high = mpmath.mpf(0.1), mpmath.mpf(20)
    if name == "constant":
        return mpmath.mpf(3)
    if name == "linear":
        return low + (high - low) * t
    return (mpmath.sqrt(low) + (mpmath.sqrt(high) - mpmath.sqrt(low)) * t) ** 2


@every_sde
def test_the_prior_is_a_gaussian_of_its_std(sde, device):
    n = 40_000
    x = sde.prior((n, 2), rng=0, dtype=F64, device=device)
    z = x.cpu().numpy()[:, 0] / sde.prior_std
    assert math.sqrt(n) * stats.kstest(z, "norm").statistic < 2.470  # false alarm 1e-5
    assert abs(z.var() - 1) < 4.42 * math.sqrt(2 / n)
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=F64), sde.prior_std)
    expected = normal.log_prob(x.cpu()).sum(1)
    torch.testing.assert_close(sde.prior_log_prob(x).cpu(), expected, rtol=1e-13, atol=1e-12)


def test_the_prior_of_images_sums_over_all_axes():
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    x = sde.prior((5, 1, 3, 2), rng=0, dtype=F64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(sde.prior_log_prob(x), expected, rtol=1e-13, atol=1e-12)


def test_the_prior_std_is_what_the_kernel_reaches():
    assert sg.VE(sg.GeometricSigma(0.01, 50.0)).prior_std == pytest.approx(50.0, rel=1e-7)
    for sde in PATHS.values():
        end = torch.tensor(sde.t_max, dtype=F64)
        if sde is not PATHS["VP, constant"] and not isinstance(sde, sg.SubVP):
            assert float(sde.sigma(end)) == pytest.approx(sde.prior_std, rel=1e-2)


@every_sde
def test_the_grid_of_generation_goes_from_t_max_to_t_min(sde):
    grid = sde.time_grid(7)
    assert (grid.dtype, grid.shape) == (F64, (8,))
    assert (float(grid[0]), float(grid[-1])) == (sde.t_max, sde.t_min)
    expected = torch.full((7,), (sde.t_min - sde.t_max) / 7, dtype=F64)
    torch.testing.assert_close(grid.diff(), expected, rtol=1e-12, atol=0)


def test_ranges_say_where_the_sde_and_its_score_exist():
    sde = sg.VP(sg.CosineBeta(), t_min=0.01)
    assert (sde.time_range, sde.score_range) == ((0.0, 0.999), (0.01, 0.999))
    assert sde.kernel is not None
    assert sde.kernel.alpha(torch.tensor(0.5)) == sde.alpha(torch.tensor(0.5))


@pytest.mark.parametrize("t_min", [0.0, -1e-3, 1.0, math.nan])
def test_t_min_must_leave_the_point_where_no_score_exists(t_min):
    with pytest.raises(ValueError, match=r"t_min must lie in \(0, t_max\) = \(0, 1\), but is"):
        sg.VP(sg.LinearBeta(0.1, 20.0), t_min=t_min)


@pytest.mark.parametrize(
    ("steps", "kind", "message"),
    [
        (0, ValueError, "steps must be ≥ 1, but is 0"),
        (2.5, TypeError, "steps must be an int, but is float"),
        (True, TypeError, "steps must be an int, but is bool"),
    ],
)
def test_steps_must_be_a_number_of_steps(steps, kind, message, as_user):
    with pytest.raises(kind, match=message):
        sg.VP(sg.LinearBeta(0.1, 20.0)).time_grid(steps)


def test_draws_repeat_with_their_seed_and_differ_by_purpose():
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    x, t = torch.zeros(100, 1, dtype=F64), torch.tensor(1.0, dtype=F64)
    assert torch.equal(sde.perturb(x, t, rng=1)[1], sde.perturb(x, t, rng=1)[1])
    assert not torch.equal(sde.perturb(x, t, rng=1)[1], sde.perturb(x, t, rng=2)[1])
    # prior(rng=1) and perturb(rng=1) must not start from the same numbers
    eps, prior = sde.perturb(x, t, rng=1)[1], sde.prior((100, 1), rng=1, dtype=F64)
    assert not torch.isin(eps, prior).any()


class Own(sg.GaussianPath):
    """VP of constant rate, by its α and σ alone."""

    def alpha(self, t):
        return torch.exp(-t)

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-2 * t))


class Short(Own):
    """The same with a noise rate that lacks √2."""

    def diffusion_rate(self, t):
        return torch.ones_like(t)


class Fast(Own):
    """The same with a decay that is twice too fast."""

    def drift_rate(self, t):
        return -2 * torch.ones_like(t)


def test_rates_follow_from_alpha_and_sigma():
    """Of a path of one's own, and of all of the library's, to rounding; with gradients in t."""
    for sde in PATHS.values():
        t = torch.linspace(sde.t_min, 0.98 * sde.t_max, 17, dtype=torch.float64)
        rate, noise = sg.GaussianPath.drift_rate(sde, t), None
        torch.testing.assert_close(rate, sde.drift_rate(t), rtol=1e-8, atol=1e-10)
        noise = sg.GaussianPath.diffusion_rate(sde, t)
        torch.testing.assert_close(noise, sde.diffusion_rate(t), rtol=1e-6, atol=1e-8)
        sde.check_rates()
    own = Own(t_max=5.0)
    twin = sg.VP(sg.ConstantBeta(2.0, t_max=5.0))
    t = torch.tensor([0.1, 1.0, 4.0], requires_grad=True)
    torch.testing.assert_close(own.diffusion_rate(t), twin.diffusion_rate(t), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(own.drift_rate(t), -torch.ones(3))
    (slope,) = torch.autograd.grad(own.diffusion_rate(t).sum(), t)
    assert float(slope.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("sde", "told"),
    [
        (
            Short(t_max=5.0),
            r"diffusion_rate² of this Short.* is 1, but dσ²/dt − 2 drift_rate σ² is 2\.",
        ),
        (Fast(t_max=5.0), r"rate of this Fast.* it is -2, but d log α/dt is -1\."),
    ],
)
def test_rates_that_do_not_belong_to_the_kernel_are_refused(sde, told):
    """Without √2 the samples had a standard deviation of 1.32 for 0.5; leaving it out cures it."""
    law = sg.GaussianMixture([1.0], [[0.0]], stds=0.5).noised(sde)
    model = sg.ScoreModel(sg.MLP(1, 4, 1, rng=0), sde)
    x = torch.zeros(2, 1)
    for ask in (
        lambda: sg.ReverseSDE(sde, law.score),
        lambda: sg.log_likelihood(sde, law.score, x),
        lambda: sg.train(model, torch.eye(2)[:, :1], sg.TrainConfig(steps=1)),
    ):
        with pytest.raises(ValueError, match=told):
            ask()
    own = Own(t_max=5.0)
    law = sg.GaussianMixture([1.0], [[0.0]], stds=0.5).noised(own)
    flow = sg.ReverseSDE(own, law.score, eta=0.0)
    end = sg.simulate(flow, own.prior((4000, 1), rng=0), own.time_grid(400), solver=sg.Heun())
    # 4.4 standard errors of a standard deviation of 4,000
    assert float(end.final.std()) == pytest.approx(0.5, rel=4.42 / math.sqrt(8000))
