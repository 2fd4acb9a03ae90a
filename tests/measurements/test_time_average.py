"""Errors of time averages: what is exact for AR(1), coverage, several trajectories, bad input."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

import sdegen as sg
from sdegen.core.errors import AccuracyWarning
from sdegen.measurements.autocorrelation import autocovariances

F64 = torch.float64


def ar1(tau, n, rows, seed, phi=None):
    """x_{k+1} = φ x_k + √(1 − φ²) z of variance 1, at rest, shape (n, rows)."""
    phi = math.exp(-1 / tau) if phi is None else phi
    z = np.random.default_rng(seed).standard_normal((n, rows))
    z[1:] *= math.sqrt(1 - phi**2)
    return torch.from_numpy(lfilter([1.0], [1.0, -phi], z, axis=0))


def tau_of(phi):
    """½ + Σ φᵏ."""
    return 0.5 + phi / (1 - phi)


def variance_of_mean(phi, n):
    """Var(x̄) of n states of an AR(1) process of variance 1, exactly."""
    return ((1 + phi) / (1 - phi) - 2 * phi * (1 - phi**n) / (n * (1 - phi) ** 2)) / n


def share(ends, truth):
    low, high = ends
    return float(((low <= truth) & (truth <= high)).double().mean())


@pytest.fixture(scope="module")
def repeats():
    """1,000 series of 4,000 states with τ = 10: 400 correlation times, as 20,000 of τ = 50."""
    return ar1(10, 4000, 1000, seed=0)[:, None]


def test_autocovariances_are_sums_of_products():
    y = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 11)))
    for k, row in enumerate(autocovariances(y).T):
        direct = (y[..., : 11 - k] * y[..., k:]).sum((1, 2)) / (3 * (11 - k))
        torch.testing.assert_close(row, direct, rtol=1e-12, atol=1e-13)


def test_the_correlation_time_of_ar1(repeats):
    """Its mean to 4.5 standard errors and a bias of 2 %; its own error to a fifth of it."""
    found = sg.integrated_autocorrelation_time(repeats)
    exact = tau_of(math.exp(-1 / 10))
    spread = float(found.tau.std())
    assert abs(float(found.tau.mean()) - exact) < 0.02 * exact + 4.5 * spread / 1000**0.5
    assert 0.95 * spread < float(found.error.mean()) < 1.25 * spread
    assert 0.95 < share(found.interval(), exact) < 0.99
    torch.testing.assert_close(found.effective_samples, 4000 / (2 * found.tau))


@pytest.mark.parametrize("measured", [sg.time_average, sg.block_average])
def test_intervals_of_the_mean_cover_it(repeats, measured):
    """Of 94 % of 1,000, 4.4 standard deviations of 0.75 %: one false alarm in 10⁵."""
    average = measured(repeats)
    assert 0.907 < share(average.interval(), 0.0) < 0.973
    assert 0.82 < share(average.interval(0.9), 0.0) < 0.945
    exact = variance_of_mean(math.exp(-1 / 10), 4000)
    assert float(average.standard_error.square().mean()) == pytest.approx(exact, rel=0.06)


def test_intervals_of_the_variance_cover_it(repeats):
    """The error is Var = 2 (2 τ₂)/N of a Gaussian process, τ₂ = ½ + Σ φ²ᵏ.

    Of 94 % of 300, 4.4 standard deviations of 1.4 %: one false alarm in 10⁵.
    """
    found = [sg.time_covariance(repeats[:, 0, k]) for k in range(300)]
    low, high = zip(*(one.interval() for one in found), strict=True)
    assert 0.88 < share((torch.cat(low), torch.cat(high)), 1.0) < 0.997
    errors = torch.stack([one.variance_error for one in found])
    exact = 2 * 2 * tau_of(math.exp(-2 / 10)) / 4000
    assert float(errors.square().mean()) == pytest.approx(exact, rel=0.08)
    spread = 4.5 * (exact / 300) ** 0.5
    assert abs(float(torch.stack([one.variance for one in found]).mean()) - 1) < spread


def test_the_error_of_white_noise_is_that_of_its_window():
    """τ = ½ + Σ ρ_k of M = 3 lags, each of variance 1/N: the error is √(3/N)."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 1, 1000)))
    found = sg.integrated_autocorrelation_time(x)
    three = found.window == 3
    assert float(three.double().mean()) > 0.8
    torch.testing.assert_close(
        found.error[three].mean(), torch.tensor((3 / 2000) ** 0.5, dtype=F64), rtol=0.02, atol=0
    )
    # 4.5 standard errors of a spread of 1,000
    assert float(found.tau.std()) == pytest.approx((3 / 2000) ** 0.5, rel=4.5 / 2000**0.5)


def test_intervals_of_variances_are_symmetric_in_their_logarithm(repeats):
    found = sg.time_covariance(repeats[:, 0, 0])
    low, high = found.interval()
    torch.testing.assert_close(low * high, found.covariance**2, rtol=1e-12, atol=0)


def test_times_give_a_unit_and_quantities_are_apart(repeats):
    x = repeats[:, 0, :6]
    together = x.reshape(4000, 1, 2, 3)
    times = torch.linspace(3.0, 3.0 - 0.1 * 3999, 4000, dtype=F64)
    mean = sg.time_average(together, times=times)
    tau = sg.integrated_autocorrelation_time(together, times=times)
    blocks = sg.block_average(together, times=times)
    for k in range(6):
        i = (k // 3, k % 3)
        one = sg.time_average(x[:, k].numpy())
        assert mean.mean[i] == one.mean
        assert mean.standard_error[i] == pytest.approx(float(one.standard_error), rel=1e-12)
        assert tau.tau[i] == pytest.approx(0.1 * float(one.tau), rel=1e-9)
        alone = sg.block_average(x[:, k])
        assert blocks.block[i] == pytest.approx(0.1 * float(alone.block), rel=1e-9)
        assert blocks.standard_error[i] == pytest.approx(float(alone.standard_error), rel=1e-12)
    with pytest.raises(ValueError, match=r"times must have shape \(4000,\), .* \(4001,\)"):
        sg.time_average(together, times=torch.arange(4001.0))


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e150])
def test_units_and_a_shift_change_nothing_else(repeats, unit):
    x = repeats[:, 0, 0]
    one, other = sg.time_average(x), sg.time_average(unit * (x + 1e6))
    assert float(other.standard_error) == pytest.approx(
        unit * float(one.standard_error), rel=1e-6, abs=0
    )
    assert float(other.tau) == pytest.approx(float(one.tau), rel=1e-6)


def test_a_function_of_the_states_of_a_trajectory():
    """⟨x²⟩ = 1/2 and the correlation time ½ of dx = −x dt + dW, by which x² forgets."""
    sde, times = sg.OrnsteinUhlenbeck(), torch.linspace(0, 400, 4001, dtype=F64)
    start = 0.5**0.5 * torch.randn(8, 1, generator=torch.Generator().manual_seed(1), dtype=F64)
    sde = sg.ItoProcess(lambda x: -x, 1.0)
    path = sg.simulate(sde, start, times, rng=0)
    average = sg.time_average(path, lambda x: x[:, 0] ** 2)
    assert average.mean.shape == ()
    h = 0.1
    exact = 1 / (2 - h)  # of Euler's chain, x ← (1 − h) x + √h z
    assert abs(float(average.mean) - exact) < 4.5 * float(average.standard_error)
    tau = h * tau_of((1 - h) ** 2)
    assert float(average.tau) == pytest.approx(tau, rel=0.15)
    assert float(average.standard_error) == pytest.approx(
        (2 * tau * 2 * exact**2 / (8 * 400)) ** 0.5, rel=0.15
    )
    assert average.trajectories == 8
    assert not bool(average.by_trajectories)


def test_covariances_of_components():
    """Of y = A x with x of unit variance, A Aᵀ within 4.5 errors; scales go through exactly."""
    x = ar1(5, 20_000, 8, seed=3).reshape(20_000, 4, 2)
    mix = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=F64)
    found = sg.time_covariance(x @ mix.T)
    exact = mix @ mix.T
    assert bool(((found.covariance - exact).abs() < 4.5 * found.standard_error).all())
    assert torch.equal(found.covariance, found.covariance.T)
    # of Gaussian components with one memory: (C_ii C_jj + C_ij²) 2 τ₂/N
    square = exact.diagonal()[:, None] * exact.diagonal() + exact**2
    tau = tau_of(math.exp(-2 / 5))
    torch.testing.assert_close(
        found.standard_error, (square * 2 * tau / 80_000).sqrt(), rtol=0.15, atol=0
    )
    assert torch.equal(found.variance, found.covariance.diagonal())
    scaled = sg.time_covariance(x @ mix.T * 4.0)
    torch.testing.assert_close(scaled.covariance, 16 * found.covariance, rtol=1e-13, atol=0)


# --- several trajectories


def test_short_trajectories_tell_the_error_by_their_means():
    x = ar1(50, 40, 2000, seed=1)
    average = sg.time_average(x)
    expected = x.mean(0).std() / 2000**0.5
    assert float(average.standard_error) == pytest.approx(float(expected), rel=1e-12)
    assert float(average.degrees_of_freedom) == 1999
    assert bool(average.by_trajectories)
    exact = variance_of_mean(math.exp(-1 / 50), 40) / 2000
    assert float(average.standard_error) == pytest.approx(exact**0.5, rel=0.08)
    blocks = sg.block_average(x)
    assert float(blocks.standard_error) == pytest.approx(float(expected), rel=1e-12)
    assert float(blocks.block) == 40


def test_trajectories_that_have_not_been_everywhere_are_told_apart():
    """Two wells, with no passage between them: the error is that of 6 numbers, not of 6,000."""
    wells = torch.tensor([1.0, -1, 1, 1, -1, 1], dtype=F64)
    x = wells + 0.1 * ar1(2, 1000, 6, seed=2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        average = sg.time_average(x)
    assert bool(average.by_trajectories)
    assert float(average.standard_error) == pytest.approx(float(x.mean(0).std()) / 6**0.5)
    assert all(issubclass(one.category, AccuracyWarning) for one in told)
    assert told


def test_means_that_scatter_too_far_are_told():
    with pytest.warns(AccuracyWarning, match="means of the trajectories scatter"):
        average = sg.time_average(ar1(2, 2000, 40, seed=6) + 0.25 * ar1(1, 1, 40, seed=7))
    assert bool(average.by_trajectories)


# --- series that have no window


def test_a_series_that_alternates_is_refused_and_blocks_take_it():
    x = ar1(0, 4096, 400, seed=5, phi=-0.9)
    with pytest.raises(ValueError, match="below 0, as it alternates; take block_average"):
        sg.time_average(x[:, 0])
    blocks = sg.block_average(x[:, None])
    assert 0.9 < share(blocks.interval(), 0.0) <= 1.0  # as safe or safer
    torch.testing.assert_close(
        blocks.errors[0], x.var(0).div(4096).sqrt(), rtol=1e-12, atol=0
    )  # of single states: those of independent ones


def test_a_short_series_is_told():
    with pytest.warns(AccuracyWarning, match="holds .* correlation times, .* fewer than 50"):
        sg.time_average(ar1(50, 1000, 1, seed=0)[:, 0])
    with pytest.raises(ValueError, match=r"no block .* is long enough"):
        sg.block_average(torch.linspace(0, 1, 100, dtype=F64))


def _bad(n=100):
    return torch.sin(torch.arange(n, dtype=F64))


def _with(value):
    x = _bad(300).reshape(100, 3).clone()
    x[7, 2] = value
    return x


@pytest.mark.parametrize(
    ("series", "options", "kind", "told"),
    [
        (torch.full((100,), 1.5), {}, ValueError, r"series is 1\.5 at all 100 times"),
        (
            torch.stack([_bad(), torch.ones(100, dtype=F64)], 1)[:, None],
            {},
            ValueError,
            r"component \[1\] of series is 1 at all",
        ),
        (_with(math.nan), {}, ValueError, "1 of 300 numbers .* at time 7, trajectory 2; leave"),
        (_with(math.inf), {}, ValueError, "not finite, the first at time 7, trajectory 2"),
        (_bad(7), {}, ValueError, "7 times of 1 trajectories, .* fewer than 8"),
        (_bad() * 1j, {}, TypeError, "series must be real, but is complex"),
        (_bad().numpy() * 1j, {}, TypeError, "series must be real, but is complex"),
        (3.0, {}, TypeError, "but is one number"),
        ("abc", {}, TypeError, "series must be a Trajectory, or numbers of shape"),
        (_bad(), {"times": torch.arange(100.0) ** 2}, ValueError, r"times\[1\] − times\[0\] = 1 "),
        (_bad(), {"times": torch.zeros(100)}, ValueError, "evenly spaced"),
        (_bad().requires_grad_(), {}, TypeError, "requires grad"),
    ],
)
def test_bad_series_are_refused(series, options, kind, told):
    for measured in (
        sg.time_average, sg.block_average, sg.time_covariance, sg.integrated_autocorrelation_time
    ):  # fmt: skip
        with pytest.raises(kind, match=told):
            measured(series, **options)


def test_bad_functions_and_confidences_are_refused(repeats):
    x = repeats[:, 0, 0]
    with pytest.raises(ValueError, match=r"function\(x\) must return a row for each of the 4000"):
        sg.time_average(x, lambda x: x.mean())
    with pytest.raises(TypeError, match="function must be a function f"):
        sg.time_average(x, 3.0)
    for confidence in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            sg.time_average(x).interval(confidence)
    with pytest.raises(ValueError, match=r"covariances of 65 components .* at most 64"):
        sg.time_covariance(ar1(2, 100, 65, seed=0)[:, None])


def test_integers_and_truth_values_are_numbers(repeats):
    x = repeats[:, 0, 0]
    above = sg.time_average((x > 0).numpy())
    assert float(above.mean) == float((x > 0).double().mean())
    assert float(sg.time_average((x > 0).long()).standard_error) == float(above.standard_error)
    assert abs(float(above.mean) - 0.5) < 4.5 * float(above.standard_error)


def test_times_of_float32_are_even_far_from_their_origin_too():
    """torch.linspace of a long run is rounded by much more than a millionth of its spacing."""
    x = torch.randn(20_001, generator=torch.Generator().manual_seed(0))
    found = sg.integrated_autocorrelation_time(x, times=torch.linspace(0, 2000, 20_001))
    assert found.spacing == pytest.approx(0.1, rel=1e-6)
    uneven = torch.linspace(0, 2000, 20_001, dtype=torch.float64)
    uneven[500] += 0.002
    with pytest.raises(ValueError, match="evenly spaced"):
        sg.integrated_autocorrelation_time(x, times=uneven)
