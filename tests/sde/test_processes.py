"""Processes with a name, against the laws that they are known by."""

import math

import exact
import pytest
import torch
from scipy import stats

import sdegen as sg

F64 = torch.float64
T = torch.tensor(0.3, dtype=F64)


def _x(device="cpu"):
    return torch.linspace(-2, 2, 6, dtype=F64, device=device).reshape(2, 3)


def test_drifts_and_diffusions_are_the_formulas():
    x = _x()
    w = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 0.0], [0.3, 0.0, -0.7]], dtype=F64)
    current = torch.tensor([0.1, 0.2, 0.3], dtype=F64)
    cases = [
        (sg.BrownianMotion(0.5), 0 * x, 0.5),
        (sg.OrnsteinUhlenbeck(2.0, 0.5, 0.7), -2 * (x - 0.5), 0.7),
        (sg.Langevin(sg.DoubleWell(), 0.32), x - x**3, 0.8),
        (sg.RateNetwork(w, current, 0.2), -x + torch.tanh(x) @ w.T + current, 0.2),
        (sg.RateNetwork(w, activation=torch.relu), -x + torch.relu(x) @ w.T, 0.0),
    ]
    for sde, f, g in cases:
        torch.testing.assert_close(sde.drift(x, T), f, rtol=1e-15, atol=1e-15)
        assert float(sde.diffusion(x, T)) == pytest.approx(g, rel=1e-15)
        assert sde.noise == ("additive" if g else "none")


def test_the_defaults_of_ornstein_and_uhlenbeck_are_the_standard_normal():
    sde = sg.OrnsteinUhlenbeck()
    assert float(sde.diffusion(_x(), T)) ** 2 / (2 * sde.rate) == pytest.approx(1)


def test_ornstein_uhlenbeck_has_its_law(device):
    # the chain's own mean and variance are exact, and the chain is Gaussian
    n, dt, steps, sde = 40_000, 0.02, 50, sg.OrnsteinUhlenbeck(2.0, 0.5, 0.7)
    times = dt * torch.arange(steps + 1, dtype=F64)
    mean, variance = exact.linear_chain_moments(sg.EulerMaruyama(), sde, times, 3.0, 0.0)[-1]
    x0 = torch.full((n, 1), 3.0, dtype=F64, device=device)
    x = sg.simulate(sde, x0, times, rng=0, keep_path=False).final[:, 0].cpu().numpy()
    z = (x - float(mean)) / math.sqrt(float(variance))
    assert math.sqrt(n) * stats.kstest(z, "norm").statistic < 2.470  # false alarm 1e-5
    # and it tends to the law of the process: (1 − k dt)^n is e^{−kt} (1 − k² t dt/2 + …)
    law = exact.ou_moments(2.0, 0.5, 0.7, 3.0, 0.0, float(times[-1]))
    assert float(mean) == pytest.approx(law[0] - 2.5 * math.exp(-2) * 2 * dt, abs=5 * dt**2)
    assert float(variance) == pytest.approx(law[1], rel=2 * dt)


def test_langevin_has_boltzmanns_density(device):
    n, temperature = 20_000, 0.4
    well = sg.DoubleWell()
    x0 = torch.linspace(-2, 2, n, dtype=F64, device=device)[:, None]
    path = sg.simulate(
        sg.Langevin(well, temperature),
        x0,
        [0.0, 20.0],
        solver=sg.EulerMaruyama(substeps=2000),
        rng=1,
        keep_path=False,
    )
    y = torch.linspace(-4, 4, 4001, dtype=F64)
    p = well.log_prob(y[:, None], temperature).exp()
    cdf = torch.cumulative_trapezoid(p, y)
    x = path.final[:, 0].cpu()
    d = stats.kstest(
        x.numpy(), lambda v: torch.from_numpy(v).apply_(lambda q: _interpolated(y, cdf, q)).numpy()
    ).statistic
    # the bias of the step, O(dt) = 1e-2 of the density, is 5 times below the bound of the sample
    assert math.sqrt(n) * d < 2.470  # false alarm 1e-5


def _interpolated(y, cdf, q):
    i = int(torch.searchsorted(y, q).clamp(1, len(y) - 1)) - 1
    left = float(cdf[i - 1]) if i > 0 else 0.0
    right = float(cdf[i]) if i < len(cdf) else 1.0
    return left + (right - left) * (q - float(y[i])) / float(y[i + 1] - y[i])


def test_at_zero_temperature_langevin_descends():
    sde = sg.Langevin(sg.Quadratic(2.0), temperature=0.0)
    path = sg.simulate(
        sde, torch.ones(1, 1, dtype=F64), torch.linspace(0, 1, 11, dtype=F64), rng=0
    )
    expected = 0.8 ** torch.arange(11, dtype=F64)
    torch.testing.assert_close(path.states[:, 0, 0], expected, rtol=1e-13, atol=0)


def test_with_dt_one_the_network_forgets_its_state():
    # x' = W φ(x) + I + σ z: nothing of −x + x is left but rounding
    g = torch.Generator().manual_seed(0)
    w, x = torch.randn(4, 4, dtype=F64, generator=g), torch.randn(3, 4, dtype=F64, generator=g)
    net = sg.RateNetwork(w, inputs=0.5)
    path = sg.simulate(net, x, [0.0, 1.0, 2.0], rng=0)
    for now, then in zip(path.states, path.states[1:], strict=False):
        torch.testing.assert_close(then, torch.tanh(now) @ w.T + 0.5, rtol=1e-14, atol=1e-14)


def test_the_state_of_a_noisy_network_is_signal_and_noise(device):
    n, sigma = 40_000, 0.3
    w = torch.tensor([[0.5]], dtype=F64, device=device)
    x0 = torch.full((n, 1), 0.8, dtype=F64, device=device)
    x = sg.simulate(sg.RateNetwork(w, 0.1, sigma), x0, [0.0, 1.0], rng=3).final[:, 0].cpu().numpy()
    z = (x - 0.5 * math.tanh(0.8) - 0.1) / sigma
    assert math.sqrt(n) * stats.kstest(z, "norm").statistic < 2.470  # false alarm 1e-5


def test_a_network_takes_the_dtype_of_the_state():
    net = sg.RateNetwork(torch.eye(2, dtype=F64), torch.ones(2, dtype=F64), 0.1)
    x = torch.ones(3, 2, dtype=torch.float32)
    assert sg.simulate(net, x, [0.0, 1.0], rng=0).final.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.BrownianMotion(-1.0), "sigma must be finite and ≥ 0, but is -1"),
        (lambda: sg.OrnsteinUhlenbeck(sigma=math.nan), "sigma must be finite and ≥ 0, but is nan"),
        (lambda: sg.OrnsteinUhlenbeck(rate=math.inf), "rate and mean must be finite, but are inf"),
        (
            lambda: sg.Langevin(sg.Quadratic(), -1.0),
            "temperature must be finite and ≥ 0, but is -1",
        ),
        (
            lambda: sg.RateNetwork(torch.ones(2, 3)),
            r"weights must be a square matrix, .* \(2, 3\)",
        ),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_named_processes_are_autonomous_until_another_drift_or_diffusion_is_written():
    w = torch.eye(2, dtype=F64)
    for sde in (
        sg.BrownianMotion(),
        sg.OrnsteinUhlenbeck(),
        sg.Langevin(sg.DoubleWell()),
        sg.RateNetwork(w),
    ):
        assert sde.autonomous

    class Pulled(sg.OrnsteinUhlenbeck):
        def drift(self, x, t):
            return super().drift(x, t) + torch.sin(t)

    class Growing:
        def diffusion(self, x, t):
            return 1 + t

    class Mixed(Growing, sg.BrownianMotion):
        pass

    class Renamed(sg.Langevin):
        pass

    class Shifted(sg.OrnsteinUhlenbeck):
        autonomous = True

        def drift(self, x, t):
            return super().drift(x, t) + 1

    assert not Pulled().autonomous
    assert not Mixed().autonomous
    assert Renamed(sg.DoubleWell()).autonomous
    assert Shifted().autonomous


def _pushed(kind):
    """Return a class whose drift is t, whatever was said of the drift that it had."""

    class Pushed(kind):
        def drift(self, x, t):
            return t + 0 * x

    return Pushed


@pytest.mark.parametrize(
    "made",
    [
        lambda: _pushed(sg.OrnsteinUhlenbeck)(1.0, 0.0, 0.0),
        lambda: _pushed(sg.LinearSDE)([[1.0]], 0.0),
        lambda: _pushed(sg.ItoProcess)(lambda x: -x, 0.0),
        lambda: _pushed(sg.GeneralizedLangevin)(sg.Quadratic(), sg.PronySeries(1.0, 1.0), 0.0),
    ],
)
def test_a_drift_of_time_in_a_subclass_is_asked_at_every_time(made):
    # Σ t dt over ten steps of 1/10
    n = 3 if isinstance(made(), sg.GeneralizedLangevin) else 1
    found = sg.simulate(made(), torch.zeros(2, n, dtype=F64), torch.linspace(0, 1, 11)).final
    torch.testing.assert_close(found, torch.full_like(found, 0.45))


def test_dynamics_that_wrongly_say_that_they_are_autonomous_are_refused():
    x0, times = torch.ones(2, 1, dtype=F64), [0.0, 0.5, 1.0]
    drift = sg.ItoProcess(lambda x, t: -x * torch.sin(2 * math.pi * t), 0.0, autonomous=True)
    with pytest.raises(ValueError, match=r"says autonomous = True, but its drift is another at"):
        sg.simulate(drift, x0, times)
    noise = sg.ItoProcess(lambda x: -x, lambda t: [[1.0, float(t)]], channels=2, autonomous=True)
    with pytest.raises(ValueError, match=r"but its diffusion is another at t = 0.618"):
        sg.simulate(noise, x0, times, rng=0)


PARAMETERS = {
    "Ornstein-Uhlenbeck": lambda p: sg.OrnsteinUhlenbeck(p, 0.5 * p, 0.3 * p),
    "Brownian motion": sg.BrownianMotion,
    "temperature": lambda p: sg.Langevin(sg.DoubleWell(), temperature=p),
    "stiffness": lambda p: sg.Langevin(sg.Quadratic(p, 0.2 * p), temperature=0.5),
    "well": lambda p: sg.Langevin(sg.DoubleWell(0.3 * p, p), temperature=0.5),
    "network": lambda p: sg.RateNetwork(p * torch.eye(1).double(), p[None], 0.3 * p),
}


@pytest.mark.parametrize("make", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_gradients_flow_in_the_parameters_of_named_processes(make):
    """Central differences with the same noise, relative 1e-7; the value is that of a number."""

    def final(p, **words):
        x0 = torch.tensor([[0.4], [-0.3]], dtype=F64)
        return sg.simulate(make(p), x0, [0.0, 0.1, 0.2], rng=0, **words).final.sum()

    def number(v):
        return torch.tensor(v, dtype=F64)

    p = number(0.8).requires_grad_()
    value = final(p, differentiable=True)
    (slope,) = torch.autograd.grad(value, p)
    h = 1e-5
    difference = float(final(number(0.8 + h)) - final(number(0.8 - h))) / (2 * h)
    assert float(slope) == pytest.approx(difference, rel=1e-7)
    assert float(value.detach()) == pytest.approx(float(final(number(0.8))), rel=1e-12)
