"""Moments that are merged block by block are those of all samples."""

import pytest
import torch
from scipy import stats

from sdegen.averages.statistics import Statistics

Y = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()


def test_moments_are_those_of_scipy():
    one = Statistics.of(Y)
    assert one.mean == pytest.approx(float(Y.mean()), rel=1e-13)
    assert one.variance == pytest.approx(float(Y.var()), rel=1e-13)
    assert one.kurtosis == pytest.approx(stats.kurtosis(Y.numpy(), fisher=False), rel=1e-12)
    assert one.largest == float(Y.abs().max())


def test_blocks_of_any_size_merge_to_the_same():
    one, merged = Statistics.of(Y), Statistics()
    for block in Y.split(137):
        merged = merged.merge(Statistics.of(block))
    for name in ("mean", "m2", "m3", "m4"):
        assert getattr(merged, name) == pytest.approx(getattr(one, name), rel=1e-12)
    assert (merged.count, merged.largest) == (one.count, one.largest)


def test_samples_that_are_alike_have_no_spread():
    alike = Statistics.of(torch.ones(5, dtype=torch.float64))
    assert (alike.variance, alike.kurtosis, alike.standard_error) == (0.0, 1.0, 0.0)
