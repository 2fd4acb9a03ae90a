"""Gaussian algebra against quadrature, torch.distributions and identities."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

import sdegen as sg

F64 = torch.float64


def _covariance(d, seed, batch=()):
    z = torch.randn(*batch, d, d, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return z @ z.mT + 0.3 * torch.eye(d, dtype=F64)


def _mean(d, seed, batch=()):
    return torch.randn(*batch, d, generator=torch.Generator().manual_seed(100 + seed), dtype=F64)


def _laws(d, kinds, batch=()):
    for seed, kind in enumerate(kinds):
        c = _covariance(d, seed, batch)
        yield sg.Gaussian(
            _mean(d, seed, batch), c.diagonal(dim1=-2, dim2=-1) if kind == "diagonal" else c
        )


def _plane():
    """Nodes of a square and their weights: the trapezoidal rule, spectral for what decays."""
    x = torch.linspace(-30, 30, 1201, dtype=F64)
    h = float(x[1] - x[0])
    return torch.cartesian_prod(x, x), h * h


KINDS = [("full", "full"), ("diagonal", "full"), ("full", "diagonal"), ("diagonal", "diagonal")]


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_kl_and_density_are_torchs(kinds, batch):
    p, q = _laws(4, kinds, batch)
    theirs = [MultivariateNormal(law.mean, law.matrix()) for law in (p, q)]
    assert torch.allclose(p.kl(q), kl_divergence(*theirs), rtol=1e-10, atol=1e-10)
    assert torch.allclose(p.entropy(), theirs[0].entropy(), rtol=1e-10, atol=1e-10)
    x = _mean(4, 9, batch)
    assert torch.allclose(p.log_prob(x), theirs[0].log_prob(x), rtol=1e-10, atol=1e-10)
    assert float(p.kl(p).abs().max()) < 1e-12


@pytest.mark.parametrize("kinds", KINDS)
def test_kl_and_cross_entropy_are_integrals(kinds):
    p, q = _laws(2, kinds)
    nodes, area = _plane()
    log_p, log_q = p.log_prob(nodes), q.log_prob(nodes)
    assert float(area * (log_p.exp() * (log_p - log_q)).sum()) == pytest.approx(
        float(p.kl(q)), abs=1e-10
    )
    assert float(-area * (log_p.exp() * log_q).sum()) == pytest.approx(
        float(p.cross_entropy(q)), abs=1e-10
    )


@pytest.mark.parametrize("kinds", KINDS)
def test_the_product_is_that_of_the_densities(kinds):
    p, q = _laws(2, kinds)
    product, log_integral = p.product(q)
    nodes, area = _plane()
    both = p.log_prob(nodes) + q.log_prob(nodes)
    assert torch.allclose(product.log_prob(nodes) + log_integral, both, rtol=1e-11, atol=1e-9)
    assert float((area * both.exp().sum()).log()) == pytest.approx(float(log_integral), abs=1e-10)


def test_three_experts_multiply_in_any_order():
    laws = list(_laws(3, ("full", "diagonal", "full"), (5,)))
    x = _mean(3, 7, (5,))
    forward, log_integral = sg.variational.product_of_experts(laws)
    backward, same = sg.variational.product_of_experts(laws[::-1])
    assert torch.allclose(forward.mean, backward.mean, rtol=1e-10)
    assert torch.allclose(forward.matrix(), backward.matrix(), rtol=1e-10)
    assert torch.allclose(log_integral, same, rtol=1e-10)
    total = sum(law.log_prob(x) for law in laws)
    assert torch.allclose(forward.log_prob(x) + log_integral, total, rtol=1e-10)


def test_conditioning_and_marginals_factor_the_density():
    (law,) = _laws(5, ("full",))
    x, known, rest = _mean(5, 3), [3, 0], [1, 2, 4]
    joint = law.marginal(known).log_prob(x[known]) + law.condition(known, x[known]).log_prob(
        x[rest]
    )
    assert float(joint) == pytest.approx(float(law.log_prob(x)), abs=1e-10)
    many = torch.stack([x, 2 * x, -x])
    rows = law.condition(known, many[:, known])
    for i in range(3):
        one = law.condition(known, many[i, known])
        assert torch.allclose(rows.mean[i], one.mean, rtol=1e-12)
        assert torch.allclose(rows.covariance[i], one.covariance, rtol=1e-12)
    (plain,) = _laws(5, ("diagonal",))
    free = plain.condition(known, many[:, known])
    assert torch.equal(free.mean, plain.mean[rest].expand(3, 3))
    assert torch.equal(free.covariance, plain.covariance[rest].expand(3, 3))


def test_conditioning_is_bayes_rule_by_quadrature():
    (law,) = _laws(2, ("full",))
    x = torch.linspace(-30, 30, 6001, dtype=F64)
    h = float(x[1] - x[0])
    line = torch.stack([x, torch.full_like(x, 0.7)], 1)
    p = law.log_prob(line).exp()
    mean = float((p * x).sum() / p.sum())
    variance = float((p * (x - mean).square()).sum() / p.sum())
    given = law.condition([1], [0.7])
    assert float(given.mean) == pytest.approx(mean, abs=1e-10)
    assert float(given.covariance) == pytest.approx(variance, abs=1e-10)
    assert float((h * p.sum()).log()) == pytest.approx(
        float(law.marginal([1]).log_prob([0.7])), abs=1e-10
    )


def test_a_line_with_noise_and_its_posterior():
    """p(x) p(y | x) = p(y) p(x | y) for y = M x + b + noise."""
    (prior,) = _laws(3, ("full",))
    m = _mean(3, 20, (2,))
    b, r = torch.tensor([0.3, -1.0], dtype=F64), _covariance(2, 21)
    evidence = prior.transform(m, b, r)
    both = torch.cat([torch.eye(3, dtype=F64), m])
    noise = torch.zeros(5, 5, dtype=F64)
    noise[3:, 3:] = r
    x, y = _mean(3, 22), _mean(2, 23)
    tiny = 1e-9 * torch.eye(5, dtype=F64)
    joint = prior.transform(both, torch.cat([torch.zeros(3, dtype=F64), b]), noise + tiny)
    posterior = joint.condition([3, 4], y)
    left = prior.log_prob(x) + sg.Gaussian(m @ x + b, r).log_prob(y)
    right = evidence.log_prob(y) + posterior.log_prob(x)
    assert float(left) == pytest.approx(float(right), abs=1e-6)  # of the 1e-9 beside it


def test_gradients_reach_both_laws():
    (p,), (q,) = _laws(3, ("full",)), _laws(3, ("diagonal",))
    given = [p.mean, p.covariance, q.mean + 1, 2 * q.covariance]
    leaves = [g.clone().requires_grad_() for g in given]

    def kl(a, b, c, d):
        return sg.Gaussian(a, 0.5 * (b + b.mT)).kl(sg.Gaussian(c, d))

    assert torch.autograd.gradcheck(kl, leaves)
    ours = torch.autograd.grad(kl(*leaves), leaves)
    other = MultivariateNormal(leaves[2], leaves[3].diag())
    theirs = kl_divergence(MultivariateNormal(leaves[0], leaves[1]), other)
    for mine, their in zip(ours, torch.autograd.grad(theirs, leaves), strict=True):
        assert torch.allclose(mine, 0.5 * (their + their.mT) if their.ndim > 1 else their)


def test_samples_have_the_moments():
    """Each of 9 moments within 4.9 standard errors: one false alarm in 10⁵ seeds."""
    (law,) = _laws(3, ("full",))
    n = 40_000
    x = law.sample(n, rng=0)
    c = law.covariance
    mean_error = (c.diagonal() / n).sqrt()
    assert float(((x.mean(0) - law.mean) / mean_error).abs().max()) < 4.9
    spread = (torch.outer(c.diagonal(), c.diagonal()) + c.square()) / n
    assert float(((x.T.cov() - c) / spread.sqrt()).abs().max()) < 4.9


def test_what_is_no_covariance_is_named():
    good = torch.eye(2, dtype=F64)
    bad = torch.stack([good, good, good])
    bad[1, 0, 1] = bad[1, 1, 0] = 2.0
    with pytest.raises(
        ValueError, match=r"index \(1,\) of the batch has a lowest eigenvalue of -1"
    ):
        sg.Gaussian(torch.zeros(3, 2), bad)
    bad[1, 1, 0] = 0.0
    with pytest.raises(ValueError, match=r"index \(1,\) of the batch is not symmetric"):
        sg.Gaussian(torch.zeros(3, 2), bad)
    with pytest.raises(ValueError, match=r"smallest is -1, in entry \(0, 1\)"):
        sg.Gaussian(torch.zeros(2, 2), [[1.0, -1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="no coordinate is left"):
        sg.Gaussian([0.0, 1.0]).condition([0, 1], [0.0, 0.0])


def test_entropy_of_a_unit_law():
    assert float(sg.Gaussian([0.0]).entropy()) == pytest.approx(
        0.5 * math.log(2 * math.pi * math.e)
    )
