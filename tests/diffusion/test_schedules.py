"""Schedules against quadrature and against the formulas of their sources."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate

import sdegen as sg

F64 = torch.float64
BETAS = [
    sg.ConstantBeta(3.0),
    sg.ConstantBeta(0.5, t_max=4.0),
    sg.LinearBeta(0.1, 20.0),
    sg.LinearBeta(5.0, 1.0),
    sg.QuadraticBeta(0.1, 20.0),
    sg.CosineBeta(),
    sg.CosineBeta(offset=0.05, t_max=0.9),
]


@pytest.mark.parametrize("beta", BETAS, ids=lambda b: type(b).__name__)
def test_the_integral_is_the_integral_of_the_rate(beta):
    for end in (1e-3 * beta.t_max, 0.3 * beta.t_max, beta.t_max):
        area, _ = integrate.quad(
            lambda t: float(beta(torch.tensor(t, dtype=F64))), 0, end, epsrel=1e-13, limit=500
        )
        assert float(beta.integral(torch.tensor(end, dtype=F64))) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS, ids=lambda b: type(b).__name__)
def test_rate_and_integral_take_the_shape_and_dtype_of_t(beta, device):
    for shape in ((), (3,)):
        t = torch.full(shape, 0.5, dtype=torch.float32, device=device)
        for c in (beta(t), beta.integral(t)):
            assert (c.shape, c.dtype, c.device) == (t.shape, t.dtype, t.device)


@pytest.mark.parametrize(("kind", "power"), [(sg.LinearBeta, 1), (sg.QuadraticBeta, 2)])
def test_a_power_of_beta_grows_linearly(kind, power):
    t = torch.linspace(0, 1, 11, dtype=F64)
    root = kind(0.1, 20.0)(t) ** (1 / power)
    expected = 0.1 ** (1 / power) + (20 ** (1 / power) - 0.1 ** (1 / power)) * t
    torch.testing.assert_close(root, expected, rtol=1e-14, atol=0)


def test_cosine_is_the_alpha_bar_of_nichol_and_dhariwal():
    s, t = 0.008, torch.linspace(0, 0.999, 1000, dtype=F64)
    alpha_bar = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    alpha_bar = alpha_bar / alpha_bar[0]
    ours = torch.exp(-sg.CosineBeta().integral(t))
    torch.testing.assert_close(ours, alpha_bar, rtol=1e-11, atol=0)


def test_cosine_has_all_its_digits_at_small_times():
    # −2 log(cos u / cos u_0), computed as it stands, has lost 13 digits at t = 10⁻¹⁰
    mpmath.mp.dps = 50
    for t in (1e-10, 1e-6, 1e-3):
        s = mpmath.mpf(0.008)
        u, u0 = ((mpmath.mpf(x) + s) / (1 + s) * mpmath.pi / 2 for x in (t, 0))
        exact = -2 * mpmath.log(mpmath.cos(u) / mpmath.cos(u0))
        ours = float(sg.CosineBeta().integral(torch.tensor(t, dtype=F64)))
        assert ours == pytest.approx(float(exact), rel=1e-13)


def test_geometric_sigma_starts_from_zero_and_grows_by_its_rate():
    schedule = sg.GeometricSigma(0.01, 50.0)
    t = np.linspace(0, 1, 50)
    variance = schedule.variance(torch.from_numpy(t)).numpy()
    assert variance[0] == 0.0
    # σ_max² less the σ_min² that no SDE gave
    assert variance[-1] == pytest.approx(50.0**2 - 0.01**2, rel=1e-13)
    area, _ = integrate.quad(
        lambda t: float(schedule.variance_rate(torch.tensor(t, dtype=F64))), 0, 0.7, epsrel=1e-13
    )
    at = float(schedule.variance(torch.tensor(0.7, dtype=F64)))
    assert at == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.ConstantBeta(0.0), "beta must be finite and > 0, but is 0"),
        (lambda: sg.ConstantBeta(1.0, t_max=-1.0), "t_max must be finite and > 0, but is -1"),
        (lambda: sg.LinearBeta(-0.1, 20.0), r"beta_min must be finite and > 0, but is -0\.1"),
        (lambda: sg.LinearBeta(0.1, math.inf), "beta_max must be finite and > 0, but is inf"),
        (lambda: sg.QuadraticBeta(0.1, math.nan), "beta_max must be finite and > 0, but is nan"),
        (lambda: sg.CosineBeta(t_max=1.0), "t_max must be below 1, where the rate of CosineBeta"),
        (lambda: sg.GeometricSigma(1.0, 0.5), "sigma_max must exceed sigma_min = 1, but is 0.5"),
    ],
)
def test_a_schedule_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_number_is_refused(as_user):
    with pytest.raises(TypeError, match=r"beta_min must be a number, but is '0\.1'"):
        sg.LinearBeta("0.1", 20.0)
