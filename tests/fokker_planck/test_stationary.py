import math

import numpy as np
import pytest
import torch
from scipy import stats

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
            sg.ItoProcess(drift=lambda x: 0.1 * (1 - x), diffusion=lambda x: 0.7 * x.sqrt()),
            "no-flux",
            ValueError,
            r"grows without bound, like the distance to the power -0.592.*square root",
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
        (
            sg.ItoProcess(drift=lambda x: 0.4 * x - x**2, diffusion=lambda x: 0.7 * x),
            "no-flux",
            ValueError,
            r"diverges at the wall x = 0, like the distance to the power -0.367",
        ),
    ],
)
def test_refusals_at_a_wall_without_noise(sde, boundary, error, message):
    with pytest.raises(error, match=message):
        sg.FokkerPlanck(sde, sg.Grid(0.0, 16.0, 200), boundary).stationary()
