import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import sdegen as sg


def ratios(p, exact):
    """Largest relative error of p_i/p_j, where both are representable."""
    with np.errstate(divide="ignore"):
        gap = np.log(p) - exact
    gap = gap[np.isfinite(gap)]
    return float(gap.max() - gap.min())


def test_wright_fisher_between_two_walls_without_noise():
    theta, mu, nu = 1.3, 0.4, 0.15
    sde = sg.ItoProcess(
        drift=lambda x: theta * (mu - x),
        diffusion=lambda x: torch.sqrt(2 * theta * nu * x * (1 - x)),
    )
    grid = sg.Grid(0.0, 1.0, 800)
    p = sg.FokkerPlanck(sde, grid).stationary()
    law = stats.beta(mu / nu, (1 - mu) / nu)
    x = grid.nodes.numpy()
    assert ratios(p.p.numpy()[1:-1], law.logpdf(x[1:-1])) < 1e-11
    assert float(p.p[0]) == float(p.p[-1]) == 0
    np.testing.assert_allclose(p.p.numpy(), law.pdf(x), rtol=0, atol=1e-6)


def test_flat_wright_fisher_keeps_its_value_at_the_walls():
    # μ = ν = 1 − μ: the uniform density
    sde = sg.ItoProcess(drift=lambda x: 0.5 - x, diffusion=lambda x: torch.sqrt(x * (1 - x)))
    p = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 100)).stationary().p
    assert float((p - 1).abs().max()) < 1e-11


def test_student_t_on_sinh_nodes():
    theta, a = 0.8, 0.4
    sde = sg.ItoProcess(
        drift=lambda x: -theta * x, diffusion=lambda x: torch.sqrt(2 * theta * a * (1 + x * x))
    )
    grid = sg.Grid.sinh(-1e4, 1e4, 800, width=1.0)
    p = sg.FokkerPlanck(sde, grid).stationary()
    x = grid.nodes.numpy()
    assert ratios(p.p.numpy(), -(1 + 1 / (2 * a)) * np.log1p(x * x)) < 1e-11
    # E X² = a/(1 − a), less the tails beyond the grid: of order (10⁴)^{−1/2a − …}
    assert abs(float(p.variance) - a / (1 - a)) < 2e-3


def test_gamma_of_cox_ingersoll_ross():
    kappa, theta, sigma = 1.0, 1.0, 0.7
    sde = sg.ItoProcess(drift=lambda x: kappa * (theta - x), diffusion=lambda x: sigma * x.sqrt())
    grid = sg.Grid(0.0, 16.0, 800)
    p = sg.FokkerPlanck(sde, grid).stationary().p.numpy()
    law = stats.gamma(2 * kappa * theta / sigma**2, scale=sigma**2 / (2 * kappa))
    assert ratios(p[1:], law.logpdf(grid.nodes.numpy()[1:])) < 1e-11


def test_von_mises_ratios():
    sde = sg.ItoProcess(drift=lambda x: -3 * torch.sin(x - 0.4), diffusion=1.0)
    grid = sg.Grid(0.0, 2 * math.pi, 800)
    p = sg.FokkerPlanck(sde, grid, "periodic").stationary().p.numpy()
    assert ratios(p, 6 * np.cos(grid.nodes.numpy() - 0.4)) < 1e-11


@pytest.mark.parametrize(
    ("sde", "boundary", "error", "message"),
    [
        (
            sg.ItoProcess(drift=lambda x: -0.1 * x, diffusion=lambda x: 0.7 * x.sqrt()),
            "no-flux",
            ValueError,
            r"like the distance to the power -1, which is not integrable.*is an exit",
        ),
        (
            sg.ItoProcess(drift=lambda x: 1 - x, diffusion=lambda x: 0.7 * x.sqrt()),
            ("absorbing", "no-flux"),
            ValueError,
            "a wall without noise cannot be 'absorbing'",
        ),
        (
            sg.ItoProcess(drift=lambda x: 0.05 * x, diffusion=lambda x: 0.7 * x),
            "no-flux",
            sg.NotNormalizableError,
            r"grows towards low x, like the distance from 0 to the power -1.8",
        ),
    ],
)
def test_refusals_at_a_wall_without_noise(sde, boundary, error, message):
    with pytest.raises(error, match=message):
        sg.FokkerPlanck(sde, sg.Grid(0.0, 16.0, 200), boundary).stationary()


def square_root(kappa=1.0, theta=0.5, sigma=1.5):
    return sg.ItoProcess(lambda x: kappa * (theta - x), lambda x: sigma * x.sqrt())


def truncated(law, low, high):
    """Mean and variance of a law on (low, high), by quadrature in log x."""
    ends = (math.log(low) if low > 0 else -300.0, math.log(high))
    m = [
        integrate.quad(
            lambda u, k=k: law.pdf(math.exp(u)) * math.exp((k + 1) * u), *ends, limit=500
        )[0]
        for k in range(3)
    ]
    mean = m[1] / m[0]
    return mean, m[2] / m[0] - mean**2


@pytest.mark.parametrize("cells", [14, 100, 1400])
@pytest.mark.parametrize("low", [1e-3, 1e-4, 1e-6, 0.0])
def test_a_square_root_process_that_reaches_zero(low, cells):
    # Γ(4/9) ∝ x^{−5/9}, from 0 and on a grid that steps off it: 0.5261, 0.5091, 0.5012, 0.5000
    law = stats.gamma(4 / 9, scale=1.125)
    p = sg.FokkerPlanck(
        square_root(), sg.Grid(low, 14.0, cells), truncation_is_physical=True
    ).stationary()
    mean, variance = truncated(law, low, 14.0)
    assert abs(float(p.mean) / mean - 1) < 1e-3
    assert abs(float(p.variance) / variance - 1) < 1e-3
    scale = max(mean, variance**0.5)
    assert 3 * p.error["mean"] > abs(float(p.mean) - mean) / scale
    assert 3 * p.error["variance"] > abs(float(p.variance) / variance - 1)
    assert float(p.error) < 2e-3


def test_all_that_is_asked_of_a_density_that_is_infinite_at_a_wall():
    law = stats.gamma(4 / 9, scale=1.125)
    p = sg.FokkerPlanck(square_root(), sg.Grid(0.0, 35.0, 1000)).stationary()
    x = torch.tensor([1e-9, 1e-3, 0.02, 0.5, 3.0], dtype=torch.float64)
    q = torch.tensor([1e-6, 0.01, 0.5, 0.99], dtype=torch.float64)
    np.testing.assert_allclose(p.cdf(x), law.cdf(x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(p.quantile(q), law.ppf(q), rtol=1e-4)
    np.testing.assert_allclose(p.at(x), law.pdf(x), rtol=1e-4)
    assert float(p.p[0]) == float(p.at(p.x[:1])[0]) == math.inf
    assert abs(float(p.entropy) - law.entropy()) < 1e-4
    assert abs(float(p.expect(torch.log)) - special.digamma(4 / 9) - math.log(1.125)) < 1e-4
    np.testing.assert_allclose(p.cell_masses.sum(), 1.0, rtol=1e-12)
    assert "inf" in str(p.trust())


def test_a_density_that_is_infinite_at_both_walls():
    sde = sg.ItoProcess(lambda x: 0.15 - 0.45 * x, lambda x: torch.sqrt(x * (1 - x)))
    law = stats.beta(0.3, 0.6)
    p = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 50)).stationary()
    assert abs(float(p.mean) - law.mean()) < 1e-7
    assert abs(float(p.variance) - law.var()) < 1e-7
    assert abs(float(p.entropy) - law.entropy()) < 1e-6
    for level in (1e-3, 0.3, 0.9, 0.999):
        x = float(p.quantile(level))
        assert abs(law.cdf(x) - level) < 1e-6


def test_geometric_noise_with_an_integrable_pole():
    # D ∝ x²: ∞ at 0, which is never reached, and Γ(2·0.4/0.49 − 1)
    sde = sg.ItoProcess(lambda x: 0.4 * x - x**2, lambda x: 0.7 * x)
    law = stats.gamma(0.8 / 0.49 - 1, scale=0.245)
    p = sg.FokkerPlanck(sde, sg.Grid(0.0, 10.0, 400)).stationary()
    assert abs(float(p.mean) / law.mean() - 1) < 3e-4
    assert abs(float(p.variance) / law.var() - 1) < 3e-4


@pytest.mark.parametrize("cells", [20, 60, 300])
@pytest.mark.parametrize("peclet", [0.1, 3.0, 30.0, 1000.0])
def test_a_layer_at_a_wall_that_is_thinner_than_a_cell(peclet, cells):
    # sedimentation on [0, 1]: mean D/v, variance (D/v)², less what is beyond the lid
    grid = sg.Grid(0.0, 1.0, cells)
    rate = peclet * cells
    sde = sg.ItoProcess(lambda x: -rate + 0 * x, 2**0.5)
    p = sg.FokkerPlanck(sde, grid, truncation_is_physical=True).stationary()
    law = stats.truncexpon(b=rate, scale=1 / rate)
    assert abs(float(p.mean) / law.mean() - 1) < 1e-3
    assert abs(float(p.variance) / law.var() - 1) < 1e-3
    assert abs(float(p.p[0]) / rate * (1 - math.exp(-rate)) - 1) < 1e-3


def test_noise_that_falls_by_decades_within_a_cell():
    # D from 1 to 1e-8 in cells of 0.1, no drift: p ∝ 1/D
    def d(x):
        return 1e-8 + x**2

    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: torch.sqrt(2 * d(x)))
    p = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 10), truncation_is_physical=True).stationary()
    # p = a/((a² + x²) arctan(1/a)), a = 1e-4
    a, total = 1e-4, math.atan(1e4)
    mean = 0.5 * a * math.log(1 + 1e8) / total
    assert abs(float(p.mean) / mean - 1) < 2e-3
    square = (a - a**2 * total) / total
    assert abs(float(p.variance) / (square - mean**2) - 1) < 2e-3
    assert abs(float(p.cdf(torch.tensor(1e-4))) - math.atan(1.0) / total) < 1e-3


def test_a_smaller_rtol_refines():
    sde = sg.Langevin(sg.DoubleWell(), temperature=0.02)
    exact = integrate.quad(lambda x: x**2 * math.exp(-((x**2 - 1) ** 2 - 0) / 0.08), 0, 3)[0]
    exact /= integrate.quad(lambda x: math.exp(-((x**2 - 1) ** 2) / 0.08), 0, 3)[0]
    solver = sg.FokkerPlanck(sde, sg.Grid(-3.0, 3.0, 30))
    for rtol in (1e-3, 1e-6, 1e-9):
        p = solver.stationary(rtol=rtol)
        assert abs(float(p.variance) / exact - 1) < rtol
        assert p.x is solver.grid.nodes
        assert float(p.error["variance"]) < rtol
    with pytest.raises(ValueError, match="rtol"):
        solver.stationary(rtol=0.0)


def test_a_finer_grid_inside_is_seen_in_every_answer():
    # a peak much narrower than a cell, between two nodes
    sde = sg.ItoProcess(lambda x: 0.13 - x, 1.4e-3)
    p = sg.FokkerPlanck(sde, sg.Grid(-1.0, 1.0, 8)).stationary()
    std = float(p.std)
    law = stats.norm(0.13, std)
    x = torch.linspace(0.12, 0.14, 7, dtype=torch.float64)
    assert p.fine is not None
    assert abs(float(p.mean) - 0.13) < 1e-3 * std
    np.testing.assert_allclose(p.at(x), law.pdf(x), rtol=0, atol=2e-3 * law.pdf(0.13))
    np.testing.assert_allclose(p.cdf(x), law.cdf(x), atol=1e-3)
    np.testing.assert_allclose(p.quantile(0.9), law.ppf(0.9), rtol=1e-3)
    assert abs(float(p.entropy) - law.entropy()) < 2e-3
    assert abs(float(p.cell_masses.sum()) - 1) < 1e-12
    assert abs(float(p.normalized().mean) - float(p.mean)) < 1e-15


def test_gradients_flow_through_a_finer_grid():
    # Var X = D/k of a trap: its derivative in k is −D/k²
    k = torch.tensor(900.0, dtype=torch.float64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: -k * x, 2**0.5)
    p = sg.FokkerPlanck(sde, sg.Grid(-1.0, 1.0, 20)).stationary(differentiable=True)
    assert p.fine is not None
    (slope,) = torch.autograd.grad(p.variance, k)
    assert abs(float(slope) * 900.0**2 + 1) < 1e-2


def test_an_answer_at_rest_says_what_was_assumed():
    grid = sg.Grid(-6.0, 6.0, 100)
    sampled = sg.ItoProcess(lambda x, t: -x, 1.0)
    assert sg.FokkerPlanck(sampled, grid).stationary().assumed_autonomous
    assert not sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid).stationary().assumed_autonomous
    said = sg.ItoProcess(lambda x, t: -x, 1.0, autonomous=True)
    assert not sg.FokkerPlanck(said, grid).stationary().assumed_autonomous


@pytest.mark.parametrize("cells", [20, 200])
@pytest.mark.parametrize("n", [0.5, 0.7, 1.3])
def test_noise_that_vanishes_as_any_power(n, cells):
    # f = D′/2 on [0, 1], D = xⁿ: f/D = n/2x, p ∝ x^{−n/2}: E X = (1 − n/2)/(2 − n/2)
    sde = sg.ItoProcess(lambda x: 0.5 * n * x ** (n - 1), lambda x: torch.sqrt(2 * x**n))
    if n < 1:  # a drift that is infinite at the wall is not evaluated there
        sde = sg.ItoProcess(lambda x: 0 * x, lambda x: torch.sqrt(2 * x**n))
    q = -n if n < 1 else -n / 2
    p = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, cells), truncation_is_physical=True).stationary()
    mean = (1 + q) / (2 + q)
    assert abs(float(p.mean) / mean - 1) < 1e-3
    assert abs(float(p.variance) / ((1 + q) / (3 + q) - mean**2) - 1) < 1e-3
