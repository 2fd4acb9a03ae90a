"""Averages with errors that know correlations and skewness, against what is known exactly."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import lfilter

from sdegen.verification.identities.averages import (
    averages_of,
    in_pieces,
    normal_ratio,
    skewed_ratio,
)
from sdegen.verification.identities.bias import Bias


def test_pieces_have_the_mean_of_the_whole():
    x = torch.randn(2**16, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pieces = in_pieces(x)
    assert pieces.shape == (2**13, 2, 3)
    assert torch.allclose(pieces.mean((0, 1)), x.mean((0, 1)), atol=1e-14)


@pytest.mark.parametrize("skewness", [-0.3, 0.0, 0.02, 0.5])
def test_the_normal_ratio_is_monotone_and_turned_round(skewness):
    t = np.linspace(-12, 12, 241)
    h = np.array([normal_ratio(float(one), skewness) for one in t])
    assert (np.diff(h) > 0).all()
    back = [skewed_ratio(float(one), skewness) for one in h]
    assert back == pytest.approx(list(t), abs=1e-9)


def test_skewed_means_are_rejected_as_often_as_said():
    """Means of 64 exponentials, 4,000 of them: t has far too heavy a lower tail, h has not."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.exponential(size=(1, 64, 4000)))
    averages = averages_of(rows)
    p = np.array([Bias.of("", a, 1.0, 1.0).p_value for a in averages])
    t = np.array([(a.mean - 1) / a.standard_error for a in averages])
    plain = 2 * stats.t.sf(np.abs(t), 63)
    assert abs(np.mean(p < 0.01) - 0.01) < abs(np.mean(plain < 0.01) - 0.01) / 2
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=4.5 * math.sqrt(0.05 * 0.95 / 4000))


def test_the_skewness_of_a_correlated_mean_is_that_of_its_cumulants():
    """Of ∫x² of an Ornstein–Uhlenbeck process over t it is 12 t/(2 t)^{3/2}, t in its times."""
    tau, length = 20, 2**16
    phi = math.exp(-1 / tau)
    z = np.random.default_rng(1).standard_normal((length, 4))
    z[1:] *= math.sqrt(1 - phi**2)
    x = torch.from_numpy(lfilter([1.0], [1.0, -phi], z, axis=0))
    (average,) = averages_of(x.square()[..., None])
    t = 4 * length / tau
    assert average.skewness == pytest.approx(12 * t / (2 * t) ** 1.5, rel=0.4)
    (average,) = averages_of(x[..., None])
    assert abs(average.skewness) < 0.02


def test_an_interval_holds_what_is_not_rejected():
    row = Bias("x", 1.2, 1.0, 0.1, 50.0, 1.0, skewness=0.2)
    low, high = row.interval(0.95)
    for value, inside in ((low + 1e-9, True), (low - 1e-9, False), (high - 1e-9, True)):
        p = Bias("x", 1.2, value, 0.1, 50.0, 1.0, skewness=0.2).p_value
        assert (p > 0.05) == inside
    assert high - 1.2 > 1.2 - low  # upwards skewed means are too small more often
