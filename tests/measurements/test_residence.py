"""Stays of a telegraph process, whose law is geometric, and of Kaplan and Meier by hand."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.observables.residence import Stays

F64 = torch.float64


def telegraph(steps, rows, p, seed):
    """±1, each with a chance p to change in a step."""
    rng = np.random.default_rng(seed)
    return torch.tensor(1.0 - 2.0 * (np.cumsum(rng.random((steps, rows)) < p, 0) % 2))


@pytest.mark.parametrize("rows", [1, 50])
def test_stays_of_a_telegraph_process_are_geometric(rows):
    """P(longer than m steps) = (1 − p)^m, of one long path and of many; 4.9 errors, 1e-6."""
    p, dt, steps = 0.02, 0.5, 100_000 // rows
    x = telegraph(steps, rows, p, seed=rows)
    found = sg.residence_times(x, dt * torch.arange(steps), core=(0.5, 1.5), longest=75.0, bins=15)
    assert found.total > 800
    exact = (1 - p) ** (found.edges / dt)
    off = (found.survival - exact)[1:] / found.survival_error[1:]
    assert float(off.abs().max()) < 4.9
    assert abs(found.rate * dt - p) < 4.9 * found.rate_error * dt
    # what is cut off must not be left out: those that ended alone are shorter
    if rows == 50:
        assert int(found.cut.sum()) > 10


def test_errors_cover():
    """S at one edge lies within 1.96 errors in 95 % of 200 paths: 190 ± 4.4 × 3.1."""
    p, inside = 0.05, 0
    for seed in range(200):
        found = sg.residence_times(
            telegraph(1000, 4, p, seed), torch.arange(1000), core=(0.5, 1.5), longest=40.0, bins=4
        )
        inside += abs(float(found.survival[2]) - (1 - p) ** 20) < 1.96 * found.survival_error[2]
    assert abs(int(inside) - 190) < 14


def test_without_stays_that_are_cut_off_it_is_a_share_of_all():
    found = Stays(
        edges=torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=F64), ended=torch.tensor([4, 3, 2]),
        cut=torch.tensor([0, 0, 0]), longer=1, unbegun=0, total=10, exposure=20.0, count=1,
    )  # fmt: skip
    share = torch.tensor([1.0, 0.6, 0.3, 0.1], dtype=F64)
    torch.testing.assert_close(found.survival, share)
    torch.testing.assert_close(found.survival_error, (share * (1 - share) / 10).sqrt())
    p = torch.tensor([0.4, 0.3, 0.2], dtype=F64)
    torch.testing.assert_close(found.density, p)
    torch.testing.assert_close(found.density_error, (p * (1 - p) / 10).sqrt())
    assert (found.rate, found.rate_error) == (0.5, pytest.approx(0.5 / math.sqrt(10)))


def test_stays_that_are_cut_off_count_until_then():
    found = Stays(
        edges=torch.tensor([0.0, 1.0, 2.0], dtype=F64), ended=torch.tensor([2, 3]),
        cut=torch.tensor([4, 0]), longer=0, unbegun=0, total=5, exposure=6.0, count=9,
    )  # fmt: skip
    assert found.at_risk.tolist() == [7, 3]
    assert found.survival.tolist() == [1, pytest.approx(5 / 7), 0]
    greenwood = 5 / 7 * math.sqrt(2 / (7 * 5))
    assert found.survival_error.tolist() == [0, pytest.approx(greenwood), 0]


def test_what_begins_before_the_path_is_left_out():
    x = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1, math.nan])
    two = torch.stack([x[:8], x[1:]], 1)
    options = {"core": (0.5, 1.5), "longest": 4.0, "bins": 4}
    found = sg.residence_times(two, torch.arange(8), **options)
    assert (found.lost, found.count, found.unbegun, found.total) == (1, 1, 1, 1)
    assert (found.ended.tolist(), found.cut.tolist()) == ([0, 0, 1, 0], [1, 0, 0, 0])
    whole = sg.residence_times(two, torch.arange(8), from_start=True, **options)
    assert (whole.unbegun, whole.total) == (0, 2)
    assert whole.exposure == found.exposure + 1.5


def test_the_absorbed_are_refused(as_user):
    path = sg.simulate(
        sg.BrownianMotion(), torch.full((9, 1), 0.5, dtype=F64), torch.linspace(0, 2, 21),
        boundary=sg.Absorbing(0.0, 1.0), solver=sg.EulerMaruyama(), rng=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="of 9 trajectories were absorbed, and their stays"):
        sg.residence_times(path, core=(0.0, 0.5))
