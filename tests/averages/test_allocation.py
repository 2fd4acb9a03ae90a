"""Numbers of samples, levels, bias and decays, on statistics that are made up."""

import math

import pytest
import torch

from sdegen.averages.allocation import decay, error_of, first_level, targets, variances, weak_order
from sdegen.averages.sampling import Samples
from sdegen.averages.statistics import Statistics


def gaussian(mean, variance, count=10**6):
    """What so many Gaussian samples show in the mean."""
    m2 = variance * (count - 1)
    return Statistics(count, mean, m2, 0.0, 3 * m2**2 / count, 6 * math.sqrt(variance) + abs(mean))


def level(mean, variance, count=10**6, spread=1.0):
    return Samples(gaussian(mean, variance, count), gaussian(0.0, spread), gaussian(0.0, spread))


def test_targets_make_the_standard_error_at_the_least_cost():
    v, costs = [1.0, 0.1, 0.02], [4.0, 12.0, 24.0]
    counts = targets(v, costs, 1e-3)

    def error(n):
        return math.sqrt(sum(a / b for a, b in zip(v, n, strict=True)))

    cost = sum(n * c for n, c in zip(counts, costs, strict=True))
    assert error(counts) == pytest.approx(1e-3, rel=1e-4)
    # at the least cost, what moves between two levels at the same cost raises the error
    for one, other in ((0, 1), (1, 2), (2, 0)):
        moved = [float(n) for n in counts]
        moved[one] *= 1.1
        moved[other] -= 0.1 * counts[one] * costs[one] / costs[other]
        assert sum(n * c for n, c in zip(moved, costs, strict=True)) == pytest.approx(cost)
        assert min(moved) < 0 or error(moved) > error(counts)


def test_bias_is_that_of_a_series_in_dt():
    # ⟨f(X_l)⟩ = a + b 2^{−αl}: differences b (1 − 2^α) 2^{−αl}, and b 2^{−αL} is left
    for order in (1.0, 2.0):
        means = [0.4 * 2 ** (-order * k) * (1 - 2**order) for k in range(1, 6)]
        levels = [level(1.0, 1.0), *(level(m, 1e-12) for m in means)]
        error = error_of(levels, order)
        assert error.bias == pytest.approx(0.4 * 2 ** (-order * 5), rel=2e-3)
        assert error.sure_bias == pytest.approx(error.bias, rel=5e-3)
        assert error.order == order


def test_a_difference_that_is_small_by_chance_hides_no_bias():
    levels = [level(1.0, 1.0), level(-0.2, 1e-12), level(-0.1, 1e-12), level(1e-5, 1e-12)]
    assert error_of(levels, 1.0).bias == pytest.approx(0.05, rel=1e-3)


def test_the_standard_error_of_a_difference_is_part_of_the_bias():
    levels = [level(1.0, 1.0), level(0.0, 1e-2, 100), level(0.0, 1e-2, 100)]
    error = error_of(levels, 1.0)
    assert error.bias == pytest.approx(1e-2, rel=0.2)
    assert error.sure_bias == 0.0


def test_a_slower_decay_of_the_means_is_used_and_a_faster_one_is_not():
    none = [0.0] * 4
    assert weak_order([8.0, 4.0, 2.0, 1.0], none, 1.0) == 1.0
    assert weak_order([64.0, 16.0, 4.0, 1.0], none, 1.0) == 1.0
    assert weak_order([2.0**1.5, 2.0, 2.0**0.5, 1.0], none, 1.0) == 0.5
    assert weak_order([1.0, 1.0, 1.0, 1.0], none, 1.0) == 0.3
    assert weak_order([1.0, 1.0, 1.0, 1.0], [1.0] * 4, 1.0) == 1.0  # all of it noise
    assert weak_order([16.0, 4.0, 1.0], none[:3], 2.0) == 2.0
    assert weak_order([16.0, 4.0], none[:2], 2.0) == 2.0
    assert weak_order([16.0, 4.0], [4.0, 4.0], 2.0) == 1.0  # a second order is to be shown
    assert weak_order([16.0, 8.0], none[:2], 2.0) == 1.0
    # two levels show that it is slower yet, as far as they are sure
    assert weak_order([2.0**0.5, 1.0], none[:2], 1.0) == 0.5
    assert weak_order([2.0**0.5, 1.0], [0.2, 0.15], 1.0) == 1.0
    assert weak_order([4.0, 1.0], none[:2], 1.0) == 1.0


def test_variances_of_few_samples_are_taken_larger():
    levels = [level(0.0, 1.0, 256), level(0.0, 0.1, 256), level(0.0, 1e-4, 256)]
    first, second, third = variances(levels)
    assert first == pytest.approx(1 + math.sqrt(2 / 256), rel=1e-6)
    assert second == pytest.approx(0.1 * first, rel=1e-6)
    assert third == pytest.approx(0.1 / 8)  # as a level cannot be so much better than the last
    silent = Samples(Statistics(256), gaussian(0.0, 4.0, 256), gaussian(0.0, 4.0, 256))
    # one of 256, unseen: as large as ⟨d⁴⟩/⟨d²⟩ says, 3 · 4 of a Gaussian
    assert variances([levels[0], silent])[1] == pytest.approx(12.0 / 256, rel=0.01)


def test_a_condition_that_seldom_holds_is_as_wide_as_any():
    # seen once in 1000 at one level, of width 1; nowhere in 256 at the others
    seen = Statistics.of((torch.arange(1000) == 3).double())
    levels = [Samples(seen, seen), *[Samples(Statistics(256), Statistics(256))] * 2]
    assert variances(levels)[1:] == pytest.approx([1 / 256] * 2, rel=0.01)
    unseen = [Samples(Statistics(256), Statistics(256)), *levels[1:], Samples(seen, seen)]
    assert variances(unseen)[0] == pytest.approx(1 / 256, rel=0.01)


def test_a_first_level_with_more_steps_is_taken_where_it_costs_little_more():
    # widths alike: 1 step alone costs 1, 2 steps 2, 4 steps 4
    costs = [(1.0, 3.0), (2.0, 6.0), (4.0, 12.0)]
    good = [level(0.0, v) for v in (1e-8, 1e-9, 1e-10)]
    assert first_level(good, costs) == 0
    coarse = [level(0.0, v) for v in (1.0, 1e-8, 1e-9)]
    assert first_level(coarse, costs) == 1
    lost = [Samples(lost_fine=1, lost_coarse=2), Samples(lost_coarse=1), level(0.0, 1e-9)]
    assert first_level(lost, costs) == 2
    assert first_level([Samples(lost_fine=1, lost_coarse=1)], costs[:1]) == 1
    nowhere = [level(0.0, 2.0)] * 3
    assert first_level(nowhere, costs) == 3  # the finest, alone


def test_decay_is_told_with_its_error():
    beta, error = decay([level(0.0, 4.0**-k, 1000) for k in range(5)])
    assert beta == pytest.approx(2, rel=1e-6)
    assert error == pytest.approx(math.sqrt(2 / 1000) / math.log(2) / math.sqrt(5), rel=1e-6)
    still = [level(0.0, 0.0), level(0.0, 0.0)]
    assert decay(still) == (math.inf, 0.0)


def test_a_variance_that_is_rounding_shows_no_decay():
    y = Statistics.of(1e-16 * torch.randn(100, dtype=torch.float64))
    levels = [Samples(y, gaussian(0.0, 1.0), gaussian(0.0, 1.0), rounding=1e-15)] * 3
    assert decay(levels) == (math.inf, 0.0)
