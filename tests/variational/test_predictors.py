"""Three predictors and their weights: one number, and the terms of the bound."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.variational import predictor_terms, predictor_weights

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LAW = sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.0, 0.0]], stds=0.4).noised(VP)
HOWS = [
    sg.EpsPrediction(),
    sg.X0Prediction(),
    sg.VPrediction(),
    sg.ScorePrediction(),
    sg.FlowPrediction(),
    sg.MeanPrediction(VP, 10),
]


def network_score():
    """The score of a network that was not trained, float64."""
    return sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0).double(), VP).score


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("k", [1, 2, 6, 10])
def test_the_three_are_one_number(variance, k):
    chain = sg.DDPM.discretize(VP, 10).reverse(network_score(), variance)
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, 2, generator=g, dtype=F64)
    terms = predictor_terms(chain, x0, eps, k, decoder_std=0.1)
    size = float(terms.eps.max())
    assert size > 1e-3
    assert float((terms.mean - terms.eps).abs().max()) < 1e-10 * max(size, 1)
    assert float((terms.x0 - terms.eps).abs().max()) < 1e-10 * max(size, 1)


@pytest.mark.parametrize("how", HOWS, ids=lambda how: type(how).__name__)
def test_any_parameterization_has_a_weight(how):
    """On the output of one network, decoded by the parameterization, term by term."""
    forward = sg.DDPM.discretize(VP, 10)
    model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0).double(), VP, how)
    chain = forward.reverse(model.score, "beta")
    weights = predictor_weights(chain, how)
    g = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, 30, 2, generator=g, dtype=F64)
    for k in (2, 5, 10):
        t = forward.times[k]
        alpha, sigma = VP.alpha(t), VP.sigma(t)
        error = how.target(x0, eps, alpha, sigma) - model.output(alpha * x0 + sigma * eps, t)
        terms = predictor_terms(chain, x0, eps, k)
        found = weights[k - 1] * error.square().sum(1)
        torch.testing.assert_close(found, terms.eps, rtol=1e-8, atol=1e-10)
    mean = predictor_weights(chain, sg.MeanPrediction(VP, 10))
    torch.testing.assert_close(mean, 0.5 / forward.b.square(), rtol=1e-8, atol=0)


def test_the_weight_of_x0_is_half_of_what_snr_falls_by():
    chain = sg.DDPM.discretize(VP, 10).reverse(LAW.score)
    snr = chain.chain.alpha_bars / chain.chain.sigmas[1:].square()
    weights = predictor_weights(chain, sg.X0Prediction(), decoder_std=1.0)
    torch.testing.assert_close(weights[1:], -0.5 * snr.diff(), rtol=1e-9, atol=0)


def test_the_terms_are_those_of_elbo():
    """One point, 20,000 draws: two comparisons at 4.4 standard errors, 10⁻⁵ each."""
    chain = sg.DDPM.discretize(VP, 6).reverse(LAW.score, "beta")
    x = torch.tensor([[0.8, 0.2]], dtype=F64).repeat(20_000, 1)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    elbo = sg.elbo(chain, x, samples=1, rng=0)
    for k in (2, 5):
        forward = chain.chain
        ratio = (forward.sigmas[k - 1] / forward.sigmas[k]) ** 2
        constant = float(ratio - 1 - torch.log(ratio))  # of two numbers, half each
        terms, theirs = predictor_terms(chain, x, eps, k).eps + constant, elbo.diffusion[:, k - 2]
        error = math.hypot(float(terms.std()), float(theirs.std())) / len(x) ** 0.5
        assert abs(float(terms.mean() - theirs.mean())) < 4.4 * error


def test_what_makes_no_sense_is_refused():
    chain = sg.DDPM.discretize(VP, 4).reverse(LAW.score, "beta")
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="k must be a step of the chain, 1 … 4, but is 5"):
        predictor_terms(chain, x, x, 5)
    with pytest.raises(ValueError, match="eps must have x0's shape"):
        predictor_terms(chain, x, x[:, :1].double(), 2)
    with pytest.raises(TypeError, match="chain must be the chain that walks back"):
        predictor_weights(chain.chain, sg.EpsPrediction())
    with pytest.raises(TypeError, match="parameterization must be"):
        predictor_weights(chain, "x0")
    with pytest.raises(ValueError, match="no noise and therefore no density"):
        predictor_weights(sg.DDPM.discretize(VP, 4).reverse(LAW.score), sg.EpsPrediction())
    ended = sg.DDPM.discretize(sg.VP(sg.ZeroTerminalSNR(sg.LinearBeta(0.1, 20.0))), 4)
    with pytest.raises(ValueError, match="no signal, α = 0"):
        predictor_weights(ended.reverse(LAW.score, "beta"), sg.EpsPrediction())
    net = sg.MLP(dim=2, width=4, depth=1, variance=True, rng=0)
    tells = sg.ScoreModel(net, VP, sg.LearnedVariance())
    with pytest.raises(ValueError, match="an error has no one weight"):
        predictor_weights(chain.chain.reverse(tells.score, "learned"), sg.EpsPrediction())
