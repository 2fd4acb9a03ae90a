"""Parameterizations against the conditional means of Gaussian data, in closed form."""

import pytest
import torch

import sdegen as sg
from sdegen.score.parameterization import score_of, v_of

SDES = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(),
}
HOWS = [
    sg.EpsPrediction(),
    sg.X0Prediction(),
    sg.VPrediction(),
    sg.ScorePrediction(),
    sg.FlowPrediction(),
    sg.EDMPrediction(0.3),
    sg.DenoiserPrediction(),
]
TIMES = [1e-3, 0.2, 1.0]  # in units of t_max
MEAN, SPREAD = 0.7, 0.4


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


@pytest.fixture(params=HOWS, ids=lambda how: type(how).__name__)
def how(request):
    return request.param


def kernel(sde, t):
    t = torch.tensor(t * sde.t_max, dtype=torch.float64)
    return sde.alpha(t), sde.sigma(t)


def conditional_means(x_t, alpha, sigma):
    """E[ε], E[x0], E[v] given x_t and the score, for x0 ~ N(MEAN, SPREAD²), by regression."""
    variance = alpha**2 * SPREAD**2 + sigma**2
    deviation = (x_t - alpha * MEAN) / variance
    eps, x0 = sigma * deviation, MEAN + alpha * SPREAD**2 * deviation
    return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "score": -deviation}


class Exact(torch.nn.Module):
    """A network that puts out the conditional mean a parameterization asks for, at one time."""

    def __init__(self, how, alpha, sigma):
        super().__init__()
        self.how, self.alpha, self.sigma = how, alpha, sigma

    def forward(self, x, clock):
        a, s, d = self.alpha, self.sigma, 0.3
        spread, data = (a**2 + s**2).sqrt(), (s**2 + a**2 * d**2).sqrt()
        scale = {"FlowPrediction": a + s, "EDMPrediction": data, "DenoiserPrediction": a}
        name = type(self.how).__name__
        known = conditional_means(x * scale.get(name, spread), a, s)
        x0, eps = known["x0"], known["eps"]
        outputs = {
            "EpsPrediction": eps,
            "X0Prediction": x0,
            "VPrediction": known["v"] / spread,
            "ScorePrediction": known["score"],
            "FlowPrediction": eps - x0,
            "EDMPrediction": (s / a * x0 - d**2 * eps) / (d * data / a),
            "DenoiserPrediction": x0,
        }
        clocks = {
            "FlowPrediction": s / (a + s),
            "EDMPrediction": (s / a).log() / 4,
            "DenoiserPrediction": s / a,
        }
        if name in clocks:
            assert torch.allclose(clock, clocks[name].expand(len(x)), rtol=1e-15)
        return outputs[name]


@pytest.mark.parametrize("t", TIMES)
def test_all_four_readings_of_any_network_are_the_conditional_means(sde, how, t):
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * sde.prior_std
    alpha, sigma = kernel(sde, t)
    model = sg.ScoreModel(Exact(how, alpha, sigma), sde, how)
    known = conditional_means(x_t, alpha, sigma)
    time = torch.tensor(t * sde.t_max, dtype=torch.float64)
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
    read_x0, read_eps = how.decode(how.target(x0, eps, alpha, sigma), x_t, alpha, sigma)
    assert torch.allclose(read_x0, x0, rtol=1e-9, atol=1e-9)
    assert torch.allclose(read_eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_whatever_the_output_the_pair_adds_up_to_the_state(sde, how, t):
    alpha, sigma = kernel(sde, t)
    generator = torch.Generator().manual_seed(1)
    output, x_t = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    x0, eps = how.decode(output, x_t, alpha, sigma)
    size = float((alpha * x0).abs().max() + (sigma * eps).abs().max())
    assert torch.allclose(alpha * x0 + sigma * eps, x_t, atol=1e-14 * size, rtol=0)


@pytest.mark.parametrize("t", TIMES)
def test_slope_is_the_derivative_of_eps(sde, how, t):
    alpha, sigma = kernel(sde, t)
    output = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    _, eps = how.decode(output, torch.ones_like(output), alpha, sigma)
    (derivative,) = torch.autograd.grad(eps.sum(), output)
    assert derivative.item() == pytest.approx(float(how.d_eps_d_output(alpha, sigma)), rel=1e-12)


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


def test_on_its_own_path_a_flow_network_meets_state_time_and_velocity():
    """d/dt (α x0 + σ ε) = ε − x0 by autograd, the state and the time as they are."""
    sde, how = SDES["rectified flow"], sg.FlowPrediction()
    t = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    x0, eps = torch.tensor([[[1.3]], [[-0.6]]], dtype=torch.float64)
    (velocity,) = torch.autograd.grad(sde.alpha(t) * x0 + sde.sigma(t) * eps, t)
    alpha, sigma = kernel(sde, 0.37 / sde.t_max)
    assert how.target(x0, eps, alpha, sigma).item() == pytest.approx(velocity.item(), rel=1e-14)
    assert how.scale(alpha, sigma).item() == pytest.approx(1, rel=1e-15)
    assert how.c_noise(t.detach(), alpha, sigma).item() == pytest.approx(0.37, rel=1e-15)
    # and Salimans' v is another number
    assert abs(v_of(x0, eps, alpha, sigma).item() - velocity.item()) > 0.5


@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_edm_has_unit_variance_in_and_out_for_data_of_sigma_data(sde, spread):
    """For N(0, σ_d²) data: x_t/scale and F have variance 1 and no covariance, at all noises."""
    how = sg.EDMPrediction(spread)
    for t in TIMES:
        alpha, sigma = kernel(sde, t)
        one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        # the coefficients of x0/σ_d and ε, both standard normal
        f = torch.cat(
            [how.target(spread * one, zero, alpha, sigma), how.target(zero, one, alpha, sigma)]
        )[:, 0]
        x = torch.stack([alpha * spread, sigma]) / how.scale(alpha, sigma)
        assert float(f @ f) == pytest.approx(1, rel=1e-12)
        assert float(x @ x) == pytest.approx(1, rel=1e-12)
        assert float(f @ x) == pytest.approx(0, abs=1e-12)


def test_edm_for_unit_data_is_v_of_the_other_sign(sde):
    output, x_t = torch.randn(
        2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    alpha, sigma = kernel(sde, 0.4)
    theirs = sg.VPrediction().decode(-output, x_t, alpha, sigma)
    for found, known in zip(
        sg.EDMPrediction(1.0).decode(output, x_t, alpha, sigma), theirs, strict=True
    ):
        assert torch.allclose(found, known, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", HOWS[4:], ids=lambda how: type(how).__name__)
def test_one_network_serves_every_path(how):
    """E[x0 | x_t] of an arbitrary network is the same on all paths at one σ/α and x_t/α."""

    class Arbitrary(torch.nn.Module):
        def forward(self, x, clock):
            return torch.sin(2 * x) + clock[:, None].cos() * x

    y, ratio, found = torch.tensor([[0.4], [-1.1]], dtype=torch.float64), 0.8, []
    for path in SDES.values():
        low, high = path.t_min, path.t_max
        for _ in range(200):
            t = 0.5 * (low + high)
            alpha, sigma = kernel(path, t / path.t_max)
            low, high = (t, high) if sigma / alpha < ratio else (low, t)
        model = sg.ScoreModel(Arbitrary(), path, how)
        found.append(model.x0(alpha * y, torch.tensor(t, dtype=torch.float64)))
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [0.0, -1.0, float("nan"), float("inf")])
def test_the_spread_of_the_data_is_a_positive_number(spread):
    with pytest.raises(ValueError, match="sigma_data, the standard deviation of the data, must"):
        sg.EDMPrediction(spread)
