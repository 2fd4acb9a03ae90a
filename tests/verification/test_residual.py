"""The score Fokker–Planck equation: exact scores satisfy it, a factor misses by a known term."""

import pytest
import torch

import sdegen as sg
from sdegen.verification.residual import fp_residual

X = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64)
T = torch.tensor(0.2, dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(
    "sde",
    [
        sg.VP(sg.LinearBeta(0.1, 20.0)),
        sg.SubVP(sg.LinearBeta(0.1, 20.0)),
        sg.VE(sg.GeometricSigma(0.01, 5.0)),
    ],
    ids=["VP", "sub-VP", "VE"],
)
def test_the_exact_score_of_a_mixture_has_none(sde, dim):
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0]])[:, :dim]
    law = sg.GaussianMixture([0.4, 0.6], means, stds=[0.3, 0.4]).noised(sde)
    x = X.reshape(-1, dim)
    size = law.score(x, T).abs().max() * sde.diffusion_rate(T) ** 2
    assert float(fp_residual(law.score, sde, x, T).abs().max()) < 1e-9 * float(size)
    each = torch.linspace(0.1, 0.9, len(x), dtype=torch.float64)
    assert float(fp_residual(law.score, sde, x, each).abs().max()) < 1e-7


def test_a_factor_has_the_residual_of_its_square():
    """s → c s leaves what is linear; ε = −½ g² (c² − c) ∂|s|² is left."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    law = sg.GaussianMixture([1.0], [0.5], stds=0.4).noised(sde)
    x, c = X[:, None], 1.3
    alpha, sigma = sde.alpha(T), sde.sigma(T)
    var = 0.16 * alpha**2 + sigma**2
    # the equation of the exact score has −∂f' too, which is 0 for a linear drift
    s, slope = (0.5 * alpha - x) / var, -1 / var
    exact = -0.5 * sde.beta(T) * (c**2 - c) * 2 * s * slope
    residual = fp_residual(lambda x, t: c * law.score(x, t), sde, x, T)
    torch.testing.assert_close(residual, exact)


def test_scores_that_autograd_cannot_see_are_refused():
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    with pytest.raises(ValueError, match="score must be differentiable by autograd"):
        fp_residual(lambda x, t: torch.zeros_like(x), sde, X[:, None], T)
    with pytest.raises(ValueError, match="score does not depend on t by autograd"):
        fp_residual(lambda x, t: -x, sde, X[:, None], T)
