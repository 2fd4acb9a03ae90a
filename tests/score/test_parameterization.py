"""Parameterizations against the conditional means of Gaussian data, in closed form."""

import pytest
import torch

import sdegen as sg
from sdegen.score.parameterization import score_of, v_of

SDES = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
}
HOWS = [sg.EpsPrediction(), sg.X0Prediction(), sg.VPrediction(), sg.ScorePrediction()]
TIMES = [1e-3, 0.2, 1.0]
MEAN, SPREAD = 0.7, 0.4


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


@pytest.fixture(params=HOWS, ids=lambda how: type(how).__name__)
def how(request):
    return request.param


def kernel(sde, t):
    t = torch.tensor(t, dtype=torch.float64)
    return sde.alpha(t), sde.sigma(t)


def conditional_means(x_t, alpha, sigma):
    """E[ε], E[x0], E[v] given x_t and the score, for x0 ~ N(MEAN, SPREAD²), by regression."""
    variance = alpha**2 * SPREAD**2 + sigma**2
    deviation = (x_t - alpha * MEAN) / variance
    eps, x0 = sigma * deviation, MEAN + alpha * SPREAD**2 * deviation
    return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "score": -deviation}


class Exact(torch.nn.Module):
    """A network that puts out the conditional mean a parameterization asks for."""

    def __init__(self, sde, how):
        super().__init__()
        self.sde, self.how = sde, how

    def forward(self, x, t):
        alpha, sigma = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None]
        stretch = (alpha**2 + sigma**2).sqrt()
        known = conditional_means(x * stretch, alpha, sigma)
        known["v"] = known["v"] / stretch
        names = dict(zip(map(type, HOWS), ("eps", "x0", "v", "score"), strict=True))
        return known[names[type(self.how)]]


@pytest.mark.parametrize("t", TIMES)
def test_all_four_readings_of_any_network_are_the_conditional_means(sde, how, t):
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * sde.prior_std
    alpha, sigma = kernel(sde, t)
    model = sg.ScoreModel(Exact(sde, how), sde, how)
    known = conditional_means(x_t, alpha, sigma)
    time = torch.tensor(t, dtype=torch.float64)
    size = float(
        x_t.abs().max() / torch.minimum(alpha, sigma)
    )  # a division by α or σ magnifies rounding
    for name, answer in known.items():
        found = getattr(model, name)(x_t, time)
        assert torch.allclose(
            found, answer, rtol=1e-10, atol=1e-14 * size * (1 + float(1 / sigma))
        ), name


@pytest.mark.parametrize("t", TIMES)
def test_reading_undoes_the_target(sde, how, t):
    alpha, sigma = kernel(sde, t)
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    x_t = alpha * x0 + sigma * eps
    read_x0, read_eps = how.read(how.target(x0, eps, alpha, sigma), x_t, alpha, sigma)
    assert torch.allclose(read_x0, x0, rtol=1e-9, atol=1e-9)
    assert torch.allclose(read_eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_whatever_the_output_the_pair_adds_up_to_the_state(sde, how, t):
    alpha, sigma = kernel(sde, t)
    generator = torch.Generator().manual_seed(1)
    output, x_t = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    x0, eps = how.read(output, x_t, alpha, sigma)
    size = float((alpha * x0).abs().max() + (sigma * eps).abs().max())
    assert torch.allclose(alpha * x0 + sigma * eps, x_t, atol=1e-14 * size, rtol=0)


@pytest.mark.parametrize("t", TIMES)
def test_slope_is_the_derivative_of_eps(sde, how, t):
    alpha, sigma = kernel(sde, t)
    output = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    _, eps = how.read(output, torch.ones_like(output), alpha, sigma)
    (derivative,) = torch.autograd.grad(eps.sum(), output)
    assert derivative.item() == pytest.approx(float(how.slope(alpha, sigma)), rel=1e-12)


def test_v_is_the_velocity_on_the_circle():
    """v = dx_t/dφ at α = cos φ, σ = sin φ; its signs against a derivative."""
    phi = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x0, eps = torch.tensor([[[1.3]], [[-0.6]]], dtype=torch.float64)
    (velocity,) = torch.autograd.grad(phi.cos() * x0 + phi.sin() * eps, phi)
    found = v_of(x0, eps, phi.detach().cos(), phi.detach().sin())
    assert found.item() == pytest.approx(velocity.item(), rel=1e-14)


def test_the_score_of_the_kernel_is_the_gradient_of_its_log():
    alpha, sigma = kernel(SDES["VP"], 0.3)
    x0 = torch.tensor([[0.8]], dtype=torch.float64)
    x_t = torch.tensor([[-0.2]], dtype=torch.float64, requires_grad=True)
    log_p = torch.distributions.Normal(alpha * x0, sigma).log_prob(x_t)
    (gradient,) = torch.autograd.grad(log_p, x_t)
    eps = (x_t.detach() - alpha * x0) / sigma
    assert score_of(eps, sigma).item() == pytest.approx(gradient.item(), rel=1e-12)


def test_v_of_unit_data_is_of_order_one_and_uncorrelated_with_the_state(sde):
    """The target of `VPrediction` for N(0, 1) data: variance (α² + σ²)/s² = 1, covariance 0."""
    alpha, sigma = kernel(sde, 0.5)
    # each is a linear map of (x0, ε), both standard normal: coefficients give the moments exactly
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    how = sg.VPrediction()
    v = torch.cat([how.target(one, zero, alpha, sigma), how.target(zero, one, alpha, sigma)])[:, 0]
    x_t = torch.stack([alpha, sigma])
    assert float(v @ v) == pytest.approx(1, rel=1e-12)
    assert float(v @ x_t) == pytest.approx(0, abs=1e-12 * float(x_t.norm()))
