"""Tables of ᾱ as a schedule: exact at their levels, and smooth between them."""

import math

import exact
import pytest
import torch

import sdegen as sg

F64 = torch.float64
LINEAR = sg.VP(sg.LinearBeta(0.1, 20.0))


def table(steps):
    """ᾱ_k of the linear VP-SDE at k/N."""
    return LINEAR.alpha(torch.arange(1, steps + 1, dtype=F64) / steps).square()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_at_its_levels_a_table_is_exact(dtype):
    alpha_bars = table(1000)
    sde = sg.VP(sg.TabulatedBeta(alpha_bars), t_min=1e-3)
    t = torch.arange(1, 1001, dtype=dtype) / 1000
    # a float32 time is off by 6e-8, and log ᾱ changes by up to 20 times that
    tolerance = 1e-12 if dtype == F64 else 5e-6
    torch.testing.assert_close(sde.alpha(t).square().to(F64), alpha_bars, rtol=tolerance, atol=0)
    torch.testing.assert_close(
        sde.sigma(t).square().to(F64), 1 - alpha_bars, rtol=1e2 * tolerance, atol=0
    )


def test_between_them_it_tends_to_the_schedule_it_was_made_of():
    """α of the linear VP-SDE from a table of its own levels: second order or better in 1/N.

    The slope that Fritsch and Carlson choose is of second order, and λ then of third.
    """
    sizes, errors = (50, 100, 200, 400), []
    for n in sizes:
        beta = sg.TabulatedBeta(table(n))
        t = torch.linspace(0.2, 0.97, 1237, dtype=F64)
        errors.append(float((beta.integral(t) - LINEAR.beta.integral(t)).abs().max()))
    assert errors[-1] < 1e-6
    assert exact.slope([1 / n for n in sizes], errors) > 2.5


def test_the_rate_is_the_slope_of_the_integral_and_does_not_jump():
    beta = sg.TabulatedBeta(table(20))
    t = torch.tensor([0.001, 0.0573, 0.1234, 0.61803, 0.99], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(beta.integral(t).sum(), t)
    torch.testing.assert_close(beta(t).detach(), slope, rtol=1e-11, atol=0)
    nodes = torch.arange(2, 20, dtype=F64) / 20
    torch.testing.assert_close(beta(nodes - 1e-12), beta(nodes + 1e-12), rtol=1e-8, atol=0)
    assert bool((beta(torch.linspace(0, 1, 999, dtype=F64)) > 0).all())
    assert float(beta.integral(torch.tensor(0.0, dtype=F64))) == 0


def test_before_the_first_level_the_integral_is_linear():
    beta = sg.TabulatedBeta([0.9, 0.5])
    t = torch.tensor([0.1, 0.25, 0.4], dtype=F64)
    torch.testing.assert_close(beta.integral(t), -2 * t * math.log(0.9), rtol=1e-14, atol=0)
    torch.testing.assert_close(beta(t), torch.full_like(t, -2 * math.log(0.9)))


@pytest.mark.parametrize(
    ("alpha_bars", "message"),
    [
        ([0.9], r"ᾱ_1 … ᾱ_N of at least two, but have shape \(1,\)"),
        ([[0.9, 0.5]], r"but have shape \(1, 2\)"),
        ([1.0, 0.5], r"must lie in \(0, 1\), but alpha_bars\[0\] = 1\.$"),
        ([0.9, 0.0], r"alpha_bars\[1\] = 0: no signal is left there"),
        ([0.9, math.nan], r"alpha_bars\[1\] = nan"),
        ([0.9, 0.5, 0.6], r"must decrease, but alpha_bars\[1\] = 0.5 is followed by 0.6"),
    ],
)
def test_what_is_no_table_is_refused(alpha_bars, message):
    with pytest.raises(ValueError, match=message):
        sg.TabulatedBeta(alpha_bars)
