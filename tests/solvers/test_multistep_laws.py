"""Weak orders of the noisy members, by exact moments and by the law of the chain."""

import math

import numpy as np
import pytest
import torch
from exact import affine_run_moments, noised_gaussian, slope, walked

import sdegen as sg

F64 = torch.float64
PREDICTIONS = ("eps", "x0", "v")


def name(value):
    return str(value).replace(", substeps=1", "").replace("substeps=1, ", "")


def variance_errors(solver, dynamics, noised, steps):
    """Errors of mean and variance at t_min; the start is the law at t_max."""
    sde = noised.sde
    start, exact = noised.moments(sde.t_max), torch.stack(noised.moments(sde.t_min))
    runs = [
        affine_run_moments(solver, dynamics, sg.timesteps.log_snr(sde, n), *map(float, start))
        for n in steps
    ]
    return (torch.stack(runs) - exact).T


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(
    ("solver", "order"),
    [(sg.ExponentialAdams(1, p), 1) for p in ("x0", "v")]
    + [(sg.ExponentialAdams(k, p), 2) for k in (2, 3, 4) for p in PREDICTIONS]
    + [(sg.ExponentialAdams(2, p, rule="midpoint"), 2) for p in PREDICTIONS]
    + [(sg.ExponentialAdamsMoulton(k, p), 2) for k in (2, 3, 4) for p in PREDICTIONS]
    + [(sg.DPM2(), 2)],
    ids=name,
)  # fmt: skip
def test_weak_orders_by_exact_moments_of_a_gaussian(solver, order, eta, as_user):
    sde, noised = noised_gaussian(1.0, 0.4, t_min=5e-2)
    dynamics = sg.ReverseSDE(sde, noised.score, eta)
    steps = [200, 400, 800]
    if solver == sg.ExponentialAdamsMoulton(3, "x0"):
        steps = [400, 800, 1600]  # the leading term is the smallest of all here
    of_mean, of_variance = variance_errors(solver, dynamics, noised, steps)
    # the mean of a Gaussian is that of x0 and ε, which are constant: exact at any step
    assert float(of_mean.abs().max()) < 1e-11
    # where the leading term is small, the next one bends the slope by O(h): that is taken off
    first, second = (of_variance[:-1] / of_variance[1:]).log2().tolist()
    assert 2 * second - first == pytest.approx(order, abs=0.15)
    left = (2.0**order * of_variance[2] - of_variance[1]) / (2.0**order - 1)
    assert abs(float(left)) < 0.3 * abs(float(of_variance[2]))


@pytest.mark.parametrize("solver", [sg.KarrasHeun(sg.Churn(20.0)), sg.DPM2(sg.Churn(20.0))])
def test_churn_has_weak_order_two(solver):
    sde, noised = noised_gaussian(1.0, 0.4, t_min=5e-2)
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    steps = [200, 400]
    start, exact = noised.moments(sde.t_max), torch.stack(noised.moments(sde.t_min))
    errors = []
    for n in steps:
        nodes, units = sg.timesteps.log_snr(sde, n), torch.eye(n, n + 2, dtype=F64)
        x = torch.zeros(n + 2, 1, dtype=F64)
        x[n] = 1.0
        x = walked(solver, flow, nodes, x, units[:, :, None])[-1]
        a, b = x[n, 0] - x[-1, 0], x[:n, 0] - x[-1, 0]
        errors.append(float(a * a * start[1] + b.square().sum() - exact[1]))
    assert slope([1 / n for n in steps], errors) == pytest.approx(2, abs=0.15)


def law_by_quadrature(solver, dynamics, noised, times, *, h=0.025, half=6.0):
    """The law of a two-step method at times[-1] on a uniform grid, from the exact start.

    The joint density J of two states goes on by p(x_i, x_{i+1}) = ∫ J(w, x_i) N(x_{i+1}; a(x_i) +
    b(w), S²) dw: a product of matrices in b, and a shift by a, made in Fourier space.
    """
    table = solver.coefficients(dynamics, times)
    assert table.states.shape[1] == 2
    assert table.again is None
    n = 2 * round(half / h) + 1
    x = torch.linspace(-half, half, n, dtype=F64)
    wide, before = n + 2 * (n // 2), torch.zeros_like(x)
    s = (torch.arange(wide) - wide // 2) * h
    frequency = 2 * math.pi * torch.fft.rfftfreq(wide, d=h, dtype=F64)

    def scatter(mean, std, at):
        z = (at - mean[:, None]) / std
        return torch.exp(-0.5 * z.square()) / (std * math.sqrt(2 * math.pi))

    p = noised.log_prob(x[:, None], times[0]).exp()
    for i in range(len(times) - 1):
        score = noised.score(x[:, None], times[i])[:, 0]
        a = (table.decay[i] + table.states[i, 0]) * x + table.scores[i, 0] * score
        if i == 0:
            joint = p[:, None] * scatter(a, table.noise[i], x)
        else:
            b = table.states[i, 1] * x + table.scores[i, 1] * before
            spread = h * joint.T @ scatter(b, table.noise[i], s)
            turn = torch.exp(-1j * frequency * a[:, None])
            joint = torch.fft.irfft(torch.fft.rfft(spread, dim=1) * turn, n=wide, dim=1)
            joint = joint[:, wide // 2 - n // 2 :][:, :n]
        before = score
    return x, h * joint.sum(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "most"),
    [
        (sg.ExponentialAdamsMoulton(2, "v"), 1.2e-4),
        (sg.ExponentialAdams(2, "v"), 2.5e-4),
        (sg.ExponentialAdams(2, "v", rule="midpoint"), 2e-4),
        (sg.ExponentialAdams(2, "x0", rule="midpoint"), 2e-3),
    ],
    ids=name,
)
def test_law_at_twenty_evaluations_of_the_reverse_sde(solver, most, as_user):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)
    times = sg.timesteps.quadratic(sde, 20)
    x, law = law_by_quadrature(solver, sg.ReverseSDE(sde, noised.score), noised, times)
    h = float(x[1] - x[0])
    assert float(law.sum() * h) == pytest.approx(1.0, abs=1e-6)
    log_p = noised.log_prob(x[:, None], times[-1])
    there = log_p > log_p.max() - 25
    kl = h * float((log_p.exp() * (log_p - law.log()))[there].sum())
    assert 0.5 * most < kl < most


def quantiles(law, t, n):
    """States between which equal shares of a law on a line lie."""
    x = torch.linspace(-8, 8, 20_001, dtype=F64)[:, None]
    share = law.log_prob(x, t).exp().cumsum(0)
    u = (torch.arange(n, dtype=F64) + 0.5) / n
    return torch.from_numpy(np.interp(u, share / share[-1], x[:, 0]))[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "eta"),
    [
        (sg.ExponentialAdams(1, "x0"), 1.0), (sg.ExponentialAdams(2, "v"), 1.0),
        (sg.ExponentialAdams(3, "x0"), 1.0), (sg.ExponentialAdamsMoulton(2, "v"), 1.0),
        (sg.ExponentialAdams(3, "eps"), 0.0), (sg.ExponentialAdamsMoulton(4, "v"), 0.0),
        (sg.DPM2(), 1.0), (sg.KarrasHeun(sg.Churn(40.0)), 0.0),
    ],
    ids=name,
)  # fmt: skip
def test_weights_of_modes_after_a_thousand_steps(solver, eta):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)
    # one coordinate of the start and much noise: 20,000 samples; a flow takes quantiles of p at
    # t = 1, which is N(0, 1) to 1e-3, and 2,000 of them have its share to 1e-3
    flow = eta == 0 and not isinstance(solver, sg.KarrasHeun)
    n = 2_000 if flow else 20_000
    start = torch.tensor(1.0, dtype=F64)
    if flow:
        x = quantiles(noised, start, n).float()
    else:
        x = noised.sample(n, start, rng=0, dtype=torch.float32)
    run = sg.simulate(
        sg.ReverseSDE(sde, noised.score, eta), x, sg.timesteps.log_snr(sde, 1000),
        solver=solver, rng=1, keep_path=False,
    )  # fmt: skip
    share = float((run.final < 0).double().mean())
    # below 0 lie .3 Φ(4) of the one mode and .7 Φ(−4) of the other; 4.4 standard errors: 1e-5
    exact = 0.3 + 0.4 * 0.5 * math.erfc(4 / math.sqrt(2))
    assert abs(share - exact) < (2e-3 if flow else 4.4 * np.sqrt(0.21 / n))
