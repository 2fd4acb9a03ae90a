"""Diffusion coefficients: errors that are those of trajectories, and that cover."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.measurements.displacement import _weights

F64 = torch.float64
TIMES = torch.linspace(0, 10, 101)


def walks(steps, *shape, rng=0, d=0.5, dt=0.1):
    """Brownian motion of diffusion coefficient d."""
    z = torch.randn(steps, *shape, generator=torch.Generator().manual_seed(rng), dtype=F64)
    return math.sqrt(2 * d * dt) * z.cumsum(0)


def test_the_error_is_that_of_each_trajectorys_own_coefficient():
    """A fit with fixed weights is linear: an identity, however lags are correlated."""
    x = walks(101, 40, 2)
    msd = sg.mean_squared_displacement(x, TIMES)
    for offset in (False, True):
        found = sg.diffusion_coefficient(msd, low=0.2, high=2.0, offset=offset)
        inside = (msd.lags >= 0.2) & (msd.lags <= 2.0)
        m = (msd.lags[inside] / 0.1).round().long().tolist()
        each = torch.stack([(x[k:] - x[:-k]).square().sum(2).mean(0) for k in m], 1).numpy()
        tau = msd.lags[inside].numpy()
        degree = [tau, np.ones_like(tau)] if offset else [tau]
        a = np.stack(degree, 1) / tau[:, None]
        slopes = np.linalg.lstsq(a, (each / tau).T, rcond=None)[0][0] / 4
        assert found.coefficient == pytest.approx(slopes.mean(), rel=1e-10)
        assert found.error == pytest.approx(slopes.std(ddof=1) / math.sqrt(40), rel=1e-9)
        assert (found.low, found.count) == (pytest.approx(0.2), 40)


def test_weights_give_the_line_that_is_there():
    tau = torch.tensor([0.5, 1.0, 4.0, 9.0], dtype=F64)
    slope, offset = (_weights(tau, True) @ (3 * tau - 0.7)).tolist()
    assert (slope, offset) == (pytest.approx(3), pytest.approx(-0.7))
    assert float(_weights(tau, False)[0] @ (3 * tau)) == pytest.approx(3)


@pytest.mark.parametrize("shape", [(20,), (1,)])
def test_intervals_cover(shape):
    """95 % of Student's t in 200: 190 ± 4.4 × 3.1; of 20 paths, and of one in parts."""
    steps = 60 if shape == (20,) else 1600
    covered = 0
    for rng in range(200):
        times = torch.arange(steps, dtype=F64) * 0.1
        msd = sg.mean_squared_displacement(walks(steps, *shape, rng=rng), times)
        d = sg.diffusion_coefficient(msd, high=1.0, offset=False)
        reach = stats.t.ppf(0.975, d.count - 1) * d.error
        covered += abs(d.coefficient - 0.5) < reach
    assert msd.count == (20 if shape == (20,) else 16)
    assert abs(covered - 190) < 14


def test_the_coefficient_around_a_drift():
    """Var of the steps of a drifted walk, whose drift would count as diffusion otherwise."""
    x = walks(101, 3000, 1) + 2.0 * TIMES[:, None, None]
    msd = sg.mean_squared_displacement(x, TIMES)
    found = sg.diffusion_coefficient(msd, drift=True, offset=False)
    assert abs(found.coefficient - 0.5) < 4.9 * found.error
    assert found.error < 0.006
    # the error is that of leaving one trajectory out, in turn
    few = x[:, :30]
    left = [
        sg.diffusion_coefficient(
            sg.mean_squared_displacement(torch.cat([few[:, :i], few[:, i + 1 :]], 1), TIMES),
            drift=True, offset=False,
        ).coefficient
        for i in range(30)
    ]  # fmt: skip
    jackknife = math.sqrt(29 / 30 * np.square(np.array(left) - np.mean(left)).sum())
    whole = sg.diffusion_coefficient(sg.mean_squared_displacement(few, TIMES), drift=True,
                                     offset=False)  # fmt: skip
    assert whole.error == pytest.approx(jackknife, rel=0.1)


def test_an_msd_that_bends_is_warned_of():
    path = sg.simulate(
        sg.OrnsteinUhlenbeck(1.0), torch.zeros(500, 1, dtype=F64), TIMES, rng=0,
        solver=sg.EulerMaruyama(),
    )  # fmt: skip
    msd = sg.mean_squared_displacement(path)
    with pytest.warns(sg.AccuracyWarning, match=r"from τ = 0.1 to 2.5: its slope is that of D ="):
        sg.diffusion_coefficient(msd)


def test_who_is_lost_is_left_out_and_counted():
    x = walks(101, 10, 1)
    msd = sg.mean_squared_displacement(x, TIMES)
    x = torch.cat([x, x[:, :2]], 1)
    x[40, 10], x[70:, 11] = math.nan, math.inf
    found = sg.mean_squared_displacement(x, TIMES)
    assert (found.count, found.lost) == (10, 2)
    torch.testing.assert_close(found.total, msd.total, rtol=1e-14, atol=0)


def test_float32_is_summed_in_double_precision():
    x = walks(101, 10, 1).float()
    found = sg.mean_squared_displacement(x, TIMES)
    exact = sg.mean_squared_displacement(x.double(), TIMES)
    assert torch.equal(found.total, exact.total)
    assert found.total.dtype == F64


ONE = walks(101, 1, 1)


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.mean_squared_displacement(ONE), TypeError, "times must be the times"),
        (lambda: sg.mean_squared_displacement(ONE[:, 0, 0], TIMES), ValueError, r"pass path\[:,"),
        (lambda: sg.mean_squared_displacement(ONE, TIMES[:9]), ValueError, "path has 101 states"),
        (lambda: sg.mean_squared_displacement("x", TIMES), TypeError, "path must be a tensor"),
        (lambda: sg.mean_squared_displacement(ONE, TIMES, parts=60), ValueError, "must be ≤ 50"),
        (lambda: sg.mean_squared_displacement(ONE, TIMES, parts=0), ValueError, "must be ≥ 1"),
        (
            lambda: sg.mean_squared_displacement(ONE, TIMES, lags=[2.0]),
            ValueError,
            r"lags\[0\] = 2 is no time .* the longest 0.5",
        ),
        (lambda: sg.mean_squared_displacement(ONE * math.nan, TIMES), ValueError, "none of 1 "),
        (
            lambda: sg.diffusion_coefficient(sg.mean_squared_displacement(ONE, TIMES, parts=1)),
            ValueError,
            "those of 1 trajectory; run more, or pass parts=16",
        ),
        (
            lambda: sg.diffusion_coefficient(sg.mean_squared_displacement(ONE, TIMES), low=0.4),
            ValueError,
            r"0 of 1 lags are in \[0.4, inf\], and a fit needs 4",
        ),
        (lambda: sg.diffusion_coefficient(ONE), TypeError, "msd must be what mean_squared_disp"),
        (
            lambda: sg.diffusion_coefficient(
                sg.mean_squared_displacement(walks(101, 3, 600), TIMES)
            ),
            ValueError,
            "the covariance of 24 lags was not kept, as they and 600",
        ),
    ],
)  # fmt: skip
def test_refusals(make, kind, told, as_user):
    with pytest.raises(kind, match=told):
        make()
