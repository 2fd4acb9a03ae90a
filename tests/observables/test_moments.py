"""Statistics against numpy on the same states, and against exact laws."""

import math

import numpy as np
import pytest
import torch
from scipy import special

import sdegen as sg
from sdegen.core.noise import Streams

F64 = torch.float64
TIMES = [0.0, 0.25, 0.5, 1.0]
EULER = sg.EulerMaruyama(substeps=5)
N = 5000
PLANE = sg.ItoProcess(lambda x: torch.stack([x[:, 1], -x[:, 0] - 0.3 * x[:, 1]], 1), 0.7)


def start(rows, rng):
    return torch.randn(rows, 2, generator=rng, dtype=F64) + 3


def both(*observables, dtype=F64, trajectories=N):
    """Results of observables, and the states that they are of."""
    x0 = start(trajectories, torch.Generator().manual_seed(0)).to(dtype)
    run = sg.run_ensemble(
        PLANE, x0, TIMES, trajectories=trajectories, solver=EULER, observables=observables, rng=2,
        progress=False,
    )  # fmt: skip
    states = sg.simulate(PLANE, x0, TIMES, solver=EULER, rng=2).states
    return run.observables, states.double()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_moments_are_those_of_the_states(dtype, small_blocks):
    found, states = both(sg.Moments(), sg.Moments(covariance=False, name="few"), dtype=dtype)
    moments, few = found["moments"], found["few"]
    assert moments.count == N
    assert few.covariance is None
    for k, x in enumerate(states.numpy()):
        np.testing.assert_allclose(moments.mean[k], x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance[k], np.cov(x.T), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(moments.variance[k], x.var(0, ddof=1), rtol=1e-12)
        np.testing.assert_allclose(few.variance[k], x.var(0, ddof=1), rtol=1e-12)
    torch.testing.assert_close(moments.std**2, moments.variance)
    torch.testing.assert_close(moments.mean_error, moments.std / math.sqrt(N))


def errors_by_hand(x):
    """Standard errors of covariances, from sums over all pairs of coordinates, shape (n, d)."""
    n, gap = len(x), x - x.mean(0)
    m22 = np.einsum("ni,nj->ij", gap**2, gap**2) / n
    cov = np.cov(x.T).reshape(x.shape[1], -1)
    both = np.outer(cov.diagonal(), cov.diagonal())
    return np.sqrt((m22 - (n - 2) / (n - 1) * cov**2 + both / (n - 1)) / n)


def skew(rows, *, rng):
    """Two exponentials of unequal scale that share a part: skew, and far from their mean."""
    u = torch.rand(rows, 2, generator=rng, dtype=F64).clamp(min=1e-12).log().neg()
    return torch.stack([u[:, 0] + 30, 0.7 * u[:, 0] - 2 * u[:, 1]], 1)


def rest(observables, n, x0=skew, **options):
    """Moments of starts that stay where they are."""
    given = {"rng": 0, "progress": False} | options
    return sg.run_ensemble(
        sg.ItoProcess(lambda x: 0 * x, 0.0), x0, [0.0, 1.0], trajectories=n,
        observables=observables, **given,
    ).observables  # fmt: skip


def test_errors_of_covariances_are_those_of_fourth_moments(small_blocks):
    """To rounding, over blocks of unequal size; a wrong sign in a merge of skew sums shows."""
    states = skew(N, rng=torch.Generator().manual_seed(0))
    found = rest([sg.Moments(), sg.Moments(covariance=False, name="few")], N, x0=states)
    moments, few = found["moments"], found["few"]
    x = states.numpy()
    expected = errors_by_hand(x)
    np.testing.assert_allclose(moments.mean[0], x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance_error[1], expected, rtol=1e-10)
    np.testing.assert_allclose(moments.variance_error[1], expected.diagonal(), rtol=1e-10)
    np.testing.assert_allclose(few.variance_error[1], expected.diagonal(), rtol=1e-10)
    assert few.covariance_error is None
    (one,) = rest([sg.Moments()], N, x0=torch.from_numpy(x[:, :1])).values()
    np.testing.assert_allclose(one.covariance_error[1, 0, 0], expected[0, 0], rtol=1e-10)
    np.testing.assert_allclose(one.variance_error[1, 0], expected[0, 0], rtol=1e-10)


def test_errors_are_how_far_variances_scatter():
    """Of 400 runs of 500 exponentials, κ = 9: to 4.5/√800 and the scatter of each error."""
    times, rng = torch.zeros(1, dtype=F64), torch.Generator().manual_seed(1)
    block = sg.Block(PLANE, times, times, None, Streams(0, "none").block(0))
    runs = []
    for _ in range(400):
        moments = sg.Moments()
        accumulator = moments.begin(block)
        accumulator.see(0, skew(500, rng=rng))
        runs.append(moments.result(accumulator.partial(), times))
    scatter = torch.stack([run.covariance[0] for run in runs]).std(0)
    said = torch.stack([run.covariance_error[0] ** 2 for run in runs]).mean(0).sqrt()
    torch.testing.assert_close(said / scatter, torch.ones(2, 2, dtype=F64), rtol=0.25, atol=0)
    exact = math.sqrt((9 - 498 / 499 + 1 / 499) / 500)  # a Gaussian's would be half of it
    assert float(said[0, 0]) == pytest.approx(exact, rel=0.1)


def test_errors_change_no_bit_of_what_was_there(small_blocks):
    with_errors, without = (rest([sg.Moments(errors=e)], N)["moments"] for e in (True, False))
    for name in ("mean", "variance", "covariance"):
        assert torch.equal(getattr(with_errors, name), getattr(without, name))
    assert without.variance_error is None
    assert without.covariance_error is None
    with pytest.raises(TypeError, match="errors must be True or False"):
        sg.Moments(errors=1)


def test_errors_of_very_few_trajectories():
    lone = rest([sg.Moments()], 1)["moments"]
    assert bool(lone.covariance_error.isnan().all())
    two = rest([sg.Moments()], 2)["moments"]  # m22 = σ⁴/4: all of s² is known from one gap
    torch.testing.assert_close(
        two.variance_error, two.variance * math.sqrt((0.25 + 1) / 2), rtol=1e-9, atol=0
    )


def test_moments_of_images_keep_their_shape():
    x0 = torch.zeros(1, 2, 3, 4)
    run = sg.run_ensemble(
        sg.BrownianMotion(), x0, [0.0, 1.0], trajectories=300, observables=[sg.Moments()],
        rng=0, progress=False,
    )  # fmt: skip
    moments = run.observables["moments"]
    assert moments.mean.shape == (2, 2, 3, 4)
    assert moments.covariance.shape == (2, 24, 24)
    off = moments.covariance[1] - torch.diag(moments.covariance[1].diagonal())
    assert float(off.abs().max()) < 5.2 / math.sqrt(300)  # 276 pairs at 1e-7 each


def test_a_large_mean_costs_few_digits(small_blocks):
    """Var of 1e8 + z to ε 1e8 log₂ n; the difference of two sums of squares would have none."""
    z = torch.randn(N, 1, generator=torch.Generator().manual_seed(3), dtype=F64)
    x0 = 1e8 + z
    exact = float(np.var((x0 - 1e8).numpy(), ddof=1))  # the difference is exact
    run = sg.run_ensemble(
        sg.ItoProcess(lambda x: 0 * x, 0.0), x0, [0.0, 1.0], trajectories=N,
        observables=[sg.Moments()], progress=False,
    )  # fmt: skip
    error = abs(float(run.observables["moments"].variance[1]) / exact - 1)
    assert error < 2.2e-16 * 1e8 * math.log2(N)


def test_histogram_counts_what_numpy_counts(small_blocks):
    found, states = both(sg.Histogram(1.0, 4.0, 30, coordinate=1))
    histogram = found["histogram"]
    for k, x in enumerate(states[..., 1].numpy()):
        counts, edges = np.histogram(x, 30, (1.0, 4.0))
        assert histogram.counts[k].tolist() == counts.tolist()
        assert int(histogram.below[k]) == (x < 1).sum()
        assert int(histogram.above[k]) == (x >= 4).sum()
    np.testing.assert_allclose(histogram.edges, edges, rtol=1e-15)
    assert histogram.count == N
    share = histogram.counts[2, 10].item() / N
    assert float(histogram.density[2, 10]) == pytest.approx(share / 0.1, rel=1e-12)
    error = math.sqrt(share * (1 - share) / N) / 0.1
    assert float(histogram.density_error[2, 10]) == pytest.approx(error, rel=1e-12)


def test_quantiles_are_within_a_bin_of_those_of_the_states(small_blocks):
    found, states = both(sg.Histogram(-4.0, 9.0, 260))
    for q in (0.01, 0.25, 0.5, 0.99):
        exact = np.quantile(states[..., 0].numpy(), q, axis=1)
        assert np.abs(found["histogram"].quantile(q).numpy() - exact).max() < 0.05


def test_quantiles_that_are_not_there(small_blocks):
    found, _ = both(sg.Histogram(2.0, 4.0, 20))
    with pytest.raises(ValueError, match=r"the 0\.01-quantile at t = 0 is outside of \[2, 4\]: "):
        found["histogram"].quantile(0.01)
    with pytest.raises(ValueError, match="q must lie in"):
        found["histogram"].quantile(1.0)


def test_correlation_is_that_of_the_states(small_blocks):
    found, states = both(sg.TimeCorrelation(origin=1))
    correlation = found["correlation"]
    torch.testing.assert_close(correlation.lags, torch.tensor([0.0, 0.25, 0.75], dtype=F64))
    states = states.numpy()
    for j, x in enumerate(states[1:]):
        for i in range(2):
            pair = np.cov(states[1, :, i], x[:, i])
            assert float(correlation.covariance[j, i]) == pytest.approx(pair[0, 1], rel=1e-11)
            r = pair[0, 1] / math.sqrt(pair[0, 0] * pair[1, 1])
            assert float(correlation.coefficient[j, i]) == pytest.approx(r, rel=1e-11)
            products = (states[1, :, i] - states[1, :, i].mean()) * (x[:, i] - x[:, i].mean())
            spread = float(products.std()) / math.sqrt(N)
            assert float(correlation.error[j, i]) == pytest.approx(spread, rel=0.01)


def test_correlation_of_ornstein_uhlenbeck(small_blocks):
    """Cov(X_0, X_t) of the chain is (1 − k dt)^m Var X_0; within 4.4 of its errors, 1e-5."""
    k, dt = 1.5, 0.05
    sde = sg.OrnsteinUhlenbeck(rate=k, sigma=math.sqrt(2 * k))
    run = sg.run_ensemble(
        sde, lambda rows, rng: torch.randn(rows, 1, generator=rng, dtype=F64),
        torch.linspace(0, 1, 5), trajectories=40_000, solver=EULER,
        observables=[sg.TimeCorrelation()], rng=8, progress=False,
    )  # fmt: skip
    found = run.observables["correlation"]
    chain = (1 - k * dt) ** torch.arange(0, 21, 5)
    assert float(((found.covariance[:, 0] - chain) / found.error[:, 0]).abs().max()) < 4.42


def test_moments_and_quantiles_of_ornstein_uhlenbeck(small_blocks):
    """The chain's own law N(a^m x0, σ² dt (1 − a^2m)/(1 − a²)), to 4.4 standard errors."""
    n, dt, m = 40_000, 0.05, 20
    run = sg.run_ensemble(
        sg.OrnsteinUhlenbeck(rate=1.0, sigma=0.8), torch.full((1, 1), 2.0, dtype=F64), [0.0, 1.0],
        trajectories=n, solver=sg.EulerMaruyama(substeps=m), rng=8, progress=False,
        observables=[sg.Moments(), sg.Histogram(-3, 4, 700)],
    )  # fmt: skip
    a = 1 - dt
    mean, std = 2 * a**m, 0.8 * math.sqrt(dt * (1 - a ** (2 * m)) / (1 - a * a))
    moments, histogram = run.observables["moments"], run.observables["histogram"]
    assert abs(float(moments.mean[1]) - mean) < 4.42 * std / math.sqrt(n)
    assert abs(float(moments.std[1]) - std) < 4.42 * std / math.sqrt(2 * n)
    for q in (0.05, 0.5, 0.95):
        z = special.ndtri(q)
        spread = math.sqrt(q * (1 - q) / n) / math.exp(-z * z / 2) * math.sqrt(2 * math.pi) * std
        assert abs(float(histogram.quantile(q)[1]) - (mean + std * z)) < 4.42 * spread + 0.001


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: sg.Histogram(1.0, 1.0), "a histogram needs low < high, but low = 1, high = 1"),
        (lambda: sg.Histogram(0.0, 1.0, 0), "bins must be ≥ 1, but is 0"),
        (lambda: sg.Histogram(0.0, 1.0, 10**12), r"bins is 1e\+12, .* takes 1e\+08 at most"),
        (lambda: sg.Histogram(-1.0, math.inf), "high must be finite, but is inf"),
        (lambda: sg.Histogram(math.nan, 1.0), "low must be finite, but is nan"),
        (lambda: sg.TimeCorrelation(-1), "origin must be ≥ 0, but is -1"),
        (lambda: both(sg.TimeCorrelation(4)), "origin must be below 4, the number of times"),
    ],
)
def test_refusals(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_an_origin_is_an_index():
    with pytest.raises(TypeError, match="origin must be an int, but is float"):
        sg.TimeCorrelation(origin=1.5)
    with pytest.raises(TypeError, match="unwrapped must be True or False, but is str"):
        sg.TimeCorrelation(unwrapped="yes")


def test_one_trajectory_has_a_mean_and_no_spread():
    found, states = both(sg.Moments(), sg.TimeCorrelation(), trajectories=1)
    torch.testing.assert_close(found["moments"].mean, states[:, 0])
    assert bool(found["moments"].variance.isnan().all())
    assert bool(found["correlation"].covariance.isnan().all())
