"""The sums of variational inference, by closed forms and by quadrature."""

import pytest
import torch

import sdegen as sg
from sdegen.variational import LinearGaussianModel, bound_terms

F64 = torch.float64
MATRIX = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]], dtype=F64)
NOISE = torch.tensor([[0.5, 0.1, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.3]], dtype=F64)
PRIOR = sg.Gaussian([0.4, -0.2], [[1.0, 0.3], [0.3, 0.7]])
MODEL = LinearGaussianModel(MATRIX, [0.1, 0.0, -0.3], NOISE, PRIOR)
X = torch.tensor([[0.3, -1.0, 0.7], [1.4, 0.2, 0.0]], dtype=F64)
Q = sg.Gaussian([0.1, 0.5], [0.3, 0.6])


def _sums(terms):
    """The three sums, less what they should be."""
    return (
        terms.bound + terms.posterior_kl - terms.log_evidence,
        terms.expected_log_joint + terms.entropy - terms.bound,
        terms.expected_log_likelihood - terms.prior_kl - terms.bound,
    )


@pytest.mark.parametrize("q", [Q, sg.Gaussian([0.1, 0.5], [[0.3, -0.1], [-0.1, 0.2]])])
def test_closed_forms_sum_and_are_those_of_quadrature(q):
    terms = MODEL.terms(X, q)
    assert all(float(gap.abs().max()) < 1e-10 for gap in _sums(terms))
    assert bool((terms.posterior_kl > 0).all())
    grids = (sg.Grid(-6, 6, 80), sg.Grid(-6, 6, 80))
    for i, x in enumerate(X):

        def given(z, x=x):
            return MODEL.noise.log_prob(x - z @ MATRIX.T - MODEL.shift)

        found = bound_terms(PRIOR, given, q, grids)
        assert all(abs(float(gap)) < 1e-10 for gap in _sums(found))
        for name in vars(found):
            exact, value = getattr(terms, name), float(getattr(found, name))
            exact = float(exact if exact.ndim == 0 else exact[i])
            assert value == pytest.approx(exact, abs=1e-9), name


def test_at_the_posterior_nothing_is_lost():
    posterior = MODEL.posterior(X)
    terms = MODEL.terms(X, posterior)
    assert float(terms.posterior_kl.abs().max()) < 1e-12
    assert torch.allclose(terms.bound, MODEL.evidence.log_prob(X), atol=1e-11)
    # by Bayes' rule, at any z
    z = torch.tensor([0.7, -0.4], dtype=F64)
    given = MODEL.noise.log_prob(X - z @ MATRIX.T - MODEL.shift)
    left = posterior.log_prob(z) + MODEL.evidence.log_prob(X)
    assert torch.allclose(left, given + PRIOR.log_prob(z), atol=1e-11)


def test_a_bound_that_is_climbed_ends_at_the_posterior():
    """Gradients of the closed form reach q: the best diagonal q has the precisions' diagonal."""
    mean = torch.zeros(2, dtype=F64, requires_grad=True)
    log_variance = torch.zeros(2, dtype=F64, requires_grad=True)
    climb = torch.optim.LBFGS([mean, log_variance], max_iter=200, line_search_fn="strong_wolfe",
                              tolerance_grad=1e-12, tolerance_change=1e-14)  # fmt: skip

    def loss():
        climb.zero_grad()
        value = -MODEL.terms(X[0], sg.Gaussian(mean, log_variance.exp())).bound
        value.backward()
        return value

    climb.step(loss)
    posterior = MODEL.posterior(X[0])
    assert torch.allclose(mean.detach(), posterior.mean, atol=1e-6)
    precision = torch.linalg.inv(posterior.matrix()).diagonal()
    assert torch.allclose(log_variance.detach().exp(), 1 / precision, rtol=1e-5)


def test_a_nonlinear_model_by_quadrature():
    """x = z² + noise: the posterior has two peaks, and the sums hold all the same."""

    def given(z):
        return sg.Gaussian([0.0], [0.1]).log_prob(z.square() - 1.5)

    found = bound_terms(sg.Gaussian([0.0]), given, sg.Gaussian([1.1], [0.05]), sg.Grid(-6, 6, 600))
    assert all(abs(float(gap)) < 1e-10 for gap in _sums(found))
    assert float(found.posterior_kl) > 0.69  # one of two peaks: at least log 2
    with pytest.raises(ValueError, match="the grid holds a mass of"):
        bound_terms(sg.Gaussian([0.0]), given, sg.Gaussian([9.0]), sg.Grid(-6, 6, 600))
