"""Priors: draws and densities against SciPy and against each other."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg

F64 = torch.float64
MATRIX = torch.tensor([[1.3, -0.4], [-0.4, 0.7]], dtype=F64)


@pytest.mark.parametrize(
    ("mean", "covariance", "matrix"),
    [
        ([0.5, -1.0], 2.0, 2.0 * np.eye(2)),
        ([0.5, -1.0], [2.0, 0.3], np.diag([2.0, 0.3])),
        ([0.5, -1.0], MATRIX, MATRIX.numpy()),
        ([[0.5], [-1.0]], MATRIX, MATRIX.numpy()),  # a state of phase space, (2, 1)
        ([[0.5], [-1.0]], [[2.0], [0.3]], np.diag([2.0, 0.3])),
    ],
    ids=["one", "each", "matrix", "phase space", "phase space, each"],
)
def test_gaussian_priors_are_scipy_s(mean, covariance, matrix):
    prior = sg.GaussianPrior(mean, covariance)
    x = prior.sample(40_000, rng=3, dtype=F64)
    assert x.shape[1:] == prior.event_shape == np.asarray(mean).shape
    law = stats.multivariate_normal(np.ravel(mean), matrix)
    expected = law.logpdf(x[:9].flatten(1).numpy())
    assert np.abs(prior.log_prob(x[:9]).numpy() - expected).max() < 1e-12
    assert torch.equal(prior.matrix(), torch.as_tensor(matrix))
    flat = x.flatten(1)
    off = (flat.mean(0) - torch.tensor(mean).flatten()).abs() / flat.std(0) * math.sqrt(len(x))
    assert float(off.max()) < 4.9  # 1e-6 each
    spread = (torch.cov(flat.T) - torch.as_tensor(matrix)).abs()
    size = torch.as_tensor(np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)) + matrix**2))
    assert float((spread / size).max()) * math.sqrt(len(x)) < 4.9
    assert torch.equal(x, prior.sample(40_000, rng=3, dtype=F64))
    assert prior.sample(2, rng=0).dtype == torch.float32


def test_stationary_laws_of_linear_processes():
    trap = sg.GaussianPrior.stationary(sg.OrnsteinUhlenbeck(2.0, 0.5, 1.2), (3,))
    assert trap.mean.tolist() == [0.5] * 3
    assert float((trap.matrix() - 0.36 * torch.eye(3, dtype=F64)).abs().max()) < 1e-12
    spring = sg.UnderdampedLangevin(sg.Quadratic(4.0), friction=0.7, temperature=0.3, mass=2.0)
    law = sg.GaussianPrior.stationary(spring, (2, 1))
    assert law.event_shape == (2, 1)
    assert law.matrix().diag().numpy() == pytest.approx([0.3 / 4.0, 0.3 / 2.0], rel=1e-10)
    sde = sg.LinearSDE([[1.0, 0.4], [-0.3, 0.8]], [[0.7, 0.1], [-0.9, 0.5]], [0.5, -0.2])
    law = sg.GaussianPrior.stationary(sde, (2,))
    assert float((law.matrix() - sde.stationary_covariance()).abs().max()) == 0
    noising = sg.VE(sg.GeometricSigma(0.01, 50.0))
    law = sg.GaussianPrior.stationary(noising, (2,))
    x = noising.prior((5, 2), rng=0, dtype=F64)
    assert torch.allclose(law.log_prob(x), noising.prior_log_prob(x), rtol=1e-12)


def test_a_density_s_samples_are_its_law():
    density = sg.FokkerPlanck(sg.Langevin(sg.DoubleWell(), 0.4), sg.Grid(-4, 4, 400)).stationary()
    prior = sg.DensityPrior(density)
    x = prior.sample(20_000, rng=1, dtype=F64)
    statistic = sg.metrics.kolmogorov_smirnov(x, density)
    assert statistic * math.sqrt(len(x)) < 2.47  # 1e-5
    exact = sg.DoubleWell().log_prob(x[:9], 0.4)
    assert float((prior.log_prob(x[:9]) - exact).abs().max()) < 1e-5
    assert prior.log_prob(torch.tensor([[9.0]])).item() == -math.inf


def test_samples_are_drawn_again_and_have_no_density():
    states = torch.arange(6.0).reshape(3, 2)
    prior = sg.SamplePrior(states)
    x = prior.sample(3001, rng=0)
    counts = torch.stack([(x == one).all(1).sum() for one in states])
    assert sorted(counts.tolist()) == [1000, 1000, 1001]  # none twice before all came
    first = torch.stack([prior.sample(1, rng=k)[0] for k in range(600)])
    counts = torch.stack([(first == one).all(1).sum() for one in states]).double()
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5
    with pytest.raises(TypeError, match=r"no density.*GaussianPrior"):
        prior.log_prob(states)


def test_what_is_no_law_is_refused():
    with pytest.raises(ValueError, match=r"eigenvalues ≥ 0.*whose lowest is -1"):
        sg.GaussianPrior([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="lowest eigenvalue"):
        sg.GaussianPrior([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match=r"variance must be finite and > 0"):
        sg.GaussianPrior([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="symmetric"):
        sg.GaussianPrior([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"shape \(batch, 2\).*\(4, 3\)"):
        sg.GaussianPrior([0.0, 0.0]).log_prob(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="no stationary law"):
        sg.GaussianPrior.stationary(sg.BrownianMotion(), (1,))
    with pytest.raises(ValueError, match="hold 2 numbers"):
        sg.GaussianPrior.stationary(sg.LinearSDE([[1.0, 0.0], [0.0, 1.0]], 1.0), (3,))
    half = sg.Grid(-3, 3, 60).gaussian(0.0, 0.5)
    with pytest.raises(ValueError, match=r"mass of 1, but holds 0\.5"):
        sg.DensityPrior(sg.Density(half.x, 0.5 * half.p))
    assert sg.DensityPrior(sg.Density(half.x, 0.5 * half.p).normalized()).event_shape == (1,)
    with pytest.raises(TypeError, match="FokkerPlanck"):
        sg.DensityPrior(lambda x: x)
    with pytest.raises(ValueError, match="two or more"):
        sg.SamplePrior(torch.zeros(1, 2))
