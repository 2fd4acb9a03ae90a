"""What a prior misses of the law at which the noising ends: KL(p_T ‖ π), in nats.

Of a density on a line it is an integral. Of samples it is, in up to five coordinates,

    prior with a density     −H(p_T) − E log π,   H by the distances to the k-th neighbour
                             (Kozachenko and Leonenko); for a Gaussian prior H is split into that
                             of the Gaussian of the same moments, which is exact, and the rest
    samples drawn again      (d/n) Σ log(ν_k/ρ_k) + log(m/(n − 1)), with ρ_k and ν_k the distances
                             of a sample to its k-th neighbour in its own set and in the prior's

and above, where neighbours tell little, KL(N(p_T) ‖ N(π)) of means and covariances. For a Gaussian
prior that is a lower bound, KL(p ‖ π) = KL(p ‖ N_p) + KL(N_p ‖ π).

Reference:
    Wang, Kulkarni and Verdú 2009, IEEE Trans. Inf. Theory 55, 2392, eq. (5); Kozachenko and
    Leonenko 1987, Probl. Inf. Transm. 23, 95.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import AccuracyWarning
from sdegen.core.requests import check_state
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.diffusion.priors import GaussianPrior, LineDensity, Prior, SamplePrior, check_prior

_NEIGHBOUR = 5  # k
_FEW_COORDINATES = 5  # up to which neighbours are asked
_LEAST = 100  # samples


@dataclass(frozen=True)
class PriorMismatch(Labelled):
    """What the start of generation costs, in nats: `float(mismatch)` is the number.

        KL(p_T ‖ π) = ∫ p_T log(p_T/π) dx

    Attributes:
        kl: The divergence.
        standard_error: Of sampling; 0 of densities.
        method: How it was found; whether it is a lower bound.

    Example:
        >>> normal = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, 200)).stationary()
        >>> mismatch = sg.prior_mismatch(normal, sg.GaussianPrior([1.0]))
        >>> f"{float(mismatch):.4f} ± {mismatch.standard_error}, by {mismatch.method}"  # ½ · 1²
        '0.5000 ± 0.0, by an integral over the density'
    """

    kl: float
    standard_error: float
    method: str

    def __float__(self) -> float:
        """Return the divergence."""
        return self.kl


def prior_mismatch(
    final: State | LineDensity, prior: Prior, *, tolerance: float | None = None
) -> PriorMismatch:
    """Return KL(p_T ‖ π), what the start of generation costs, in nats.

        KL(p_T ‖ π) = ∫ p_T log(p_T/π) dx

    Args:
        final: The law at which the noising ends: a `Density`, or samples of it, such as
            `simulate(sde, data, [0.0, T]).final`, shape (n, *event), n ≥ 100, no two the same.
        prior: Where generation starts.
        tolerance: If it is given, an `AccuracyWarning` says that the prior has not been reached
            where the divergence exceeds it by more than twice its standard error.

    Returns:
        The divergence, its standard error and its method.

    Raises:
        TypeError: If final is neither, prior is no `Prior`, or a density meets a `SamplePrior`.
        ValueError: If shapes differ, or there are too few samples or two of them are the same.

    Example:
        >>> draws = 2 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
        >>> mismatch = sg.prior_mismatch(draws, sg.GaussianPrior([0.0]))
        >>> f"{float(mismatch):.2f} ± {mismatch.standard_error:.2f}"  # ½ (4 − 1 − log 4) = 0.81
        '0.89 ± 0.05'
    """
    prior = check_prior(prior)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    if isinstance(final, LineDensity):
        if isinstance(prior, SamplePrior):
            raise TypeError(
                "a density is compared with a prior that has one, but a SamplePrior has samples: "
                "pass samples of the density too, DensityPrior(density).sample(n)."
            )
        result = PriorMismatch(_of_density(final, prior), 0.0, "an integral over the density")
    else:
        result = _of_samples(check_state(final, name="final").detach().double(), prior)
    if tolerance is not None and result.kl - 2 * result.standard_error > tolerance:
        warn_unreached(result.kl, tolerance, None, stacklevel=2)
    return result


def warn_unreached(
    kl: float,
    tolerance: float,
    reached: float | None,
    *,
    at: float | None = None,
    relation: Literal["=", "≤"] = "=",
    cure: str = "Noise for longer; noising_time(sde, data) tells how long.",
    stacklevel: int,
) -> None:
    """Warn that the prior has not been reached.

    Args:
        kl: KL(p_T ‖ π).
        tolerance: What was wanted.
        reached: The time that would reach it; None where it is not known.
        at: T, where it is known.
        relation: Whether kl is the divergence, or an upper bound.
        cure: What to do, where `reached` is not known.
        stacklevel: As `warnings.warn` has it, from the caller.
    """
    when = "" if at is None else f" at t = {at:.4g}"
    if reached is not None:
        cure = f"It is below that from t = {reached:.4g} on: noise until then."
    warnings.warn(
        f"the prior has not been reached{when}: KL(p_T ‖ prior) {relation} {kl:.3g} nats, above "
        f"{tolerance:g}. {cure}",
        AccuracyWarning,
        stacklevel=stacklevel + 1,
    )


def gaussian_kl(mean: Tensor, covariance: Tensor, prior: GaussianPrior) -> float:
    """Return KL(N(mean, covariance) ‖ prior) in nats; ∞ of a covariance that is singular.

    Args:
        mean: Shape (d,).
        covariance: Shape (d, d).
        prior: A Gaussian of d coordinates.
    """
    root = torch.linalg.cholesky(prior.matrix().to(mean))
    white = torch.linalg.solve_triangular(root, covariance, upper=False)
    white = torch.linalg.solve_triangular(root, white.mT, upper=False)
    off = torch.linalg.solve_triangular(
        root, (mean - prior.mean.flatten().to(mean))[:, None], upper=False
    )
    eigenvalues = torch.linalg.eigvalsh(0.5 * (white + white.mT))
    if not bool((eigenvalues > 0).all()):
        return math.inf
    # λ − 1 − log λ, without cancellation near 1
    excess = eigenvalues - 1
    return float(0.5 * ((excess - torch.log1p(excess)).sum() + off.square().sum()))


def _of_density(final: LineDensity, prior: Prior) -> float:
    """Return ∫ p log(p/π) dx by Gauss quadrature of the density's own cells."""

    def log_ratio(x: Tensor) -> Tensor:
        p = final.at(x).clamp(min=1e-300)
        return p.log() - prior.log_prob(x.reshape(-1, 1)).reshape(x.shape)

    return float(final.expect(log_ratio))


def _of_samples(x: Tensor, prior: Prior) -> PriorMismatch:
    """Return the divergence of samples from a prior."""
    if tuple(x.shape[1:]) != prior.event_shape:
        raise ValueError(
            f"final must have states of shape {prior.event_shape}, as the prior has, but has "
            f"shape {tuple(x.shape)}."
        )
    if len(x) < _LEAST:
        raise ValueError(f"final must hold {_LEAST} samples or more, but holds {len(x)}.")
    flat = x.flatten(1)
    n, d = flat.shape
    mean, covariance = flat.mean(0), torch.cov(flat.T).reshape(d, d)
    if isinstance(prior, GaussianPrior):
        # what sampling adds to the Gaussian part on average, to first order in 1/n
        gaussian = gaussian_kl(mean, covariance, prior) - d * (d + 3) / (4 * n)
        if not math.isfinite(gaussian):
            return PriorMismatch(math.inf, 0.0, "samples of no width, which have no density")
        spread = _spread_of_gaussian(flat, mean, prior)
        if d > _FEW_COORDINATES:
            method = f"means and covariances of {n} samples, a lower bound"
            return PriorMismatch(max(gaussian, 0.0), spread / math.sqrt(n), method)
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, (flat - mean).T, upper=False).T
        rest = 0.5 * white.square().sum(1) + 0.5 * d * math.log(2 * math.pi) - _surprise(white)
        error = math.hypot(spread, float(rest.std())) / math.sqrt(n)
        method = f"moments and neighbours of {n} samples"
        return PriorMismatch(max(gaussian + float(rest.mean()), 0.0), error, method)
    if isinstance(prior, SamplePrior):
        return _of_two_sets(flat, prior.states.double().flatten(1))
    each = -_surprise(flat) - prior.log_prob(x)
    error = float(each.std()) / math.sqrt(n)
    return PriorMismatch(max(float(each.mean()), 0.0), error, f"neighbours of {n} samples")


def _spread_of_gaussian(flat: Tensor, mean: Tensor, prior: GaussianPrior) -> float:
    """Return the standard deviation of what each sample says of the Gaussian part."""
    own = GaussianPrior(mean, torch.cov(flat.T).reshape(len(mean), len(mean)))
    flat_prior = GaussianPrior(prior.mean.flatten(), prior.matrix())
    return float((own.log_prob(flat) - flat_prior.log_prob(flat)).std())


def _of_two_sets(x: Tensor, y: Tensor) -> PriorMismatch:
    """Return the divergence of two sets of samples."""
    n, d = x.shape
    if d > _FEW_COORDINATES:
        covariance = torch.cov(y.T).reshape(d, d)
        other = GaussianPrior(y.mean(0), covariance)
        kl = gaussian_kl(x.mean(0), torch.cov(x.T).reshape(d, d), other)
        kl -= d * (d + 3) / 4 * (1 / n + 1 / len(y))
        error = _spread_of_gaussian(x, x.mean(0), other) / math.sqrt(min(n, len(y)))
        method = f"means and covariances of {n} and {len(y)} samples, which see nothing else"
        return PriorMismatch(max(kl, 0.0), error, method)
    own, other_set = _distances(x, x, _NEIGHBOUR + 1), _distances(x, y, _NEIGHBOUR)
    each = d * (np.log(other_set) - np.log(own)) + math.log(len(y) / (n - 1))
    error = float(each.std()) / math.sqrt(min(n, len(y)))
    method = f"neighbours in {n} and {len(y)} samples"
    return PriorMismatch(max(float(each.mean()), 0.0), error, method)


def _surprise(x: Tensor) -> Tensor:
    """Return an estimate of −log p at each sample, shape (n,), whose mean is the entropy."""
    n, d = x.shape
    volume = 0.5 * d * math.log(math.pi) - scipy.special.gammaln(0.5 * d + 1)
    radii = _distances(x, x, _NEIGHBOUR + 1)
    constant = scipy.special.digamma(n) - scipy.special.digamma(_NEIGHBOUR) + volume
    return torch.from_numpy(d * np.log(radii) + constant)


def _distances(x: Tensor, y: Tensor, k: int) -> np.ndarray:
    """Return the distance of each x to the k-th nearest of y."""
    if len(np.unique(x.numpy(), axis=0)) < len(x):
        raise ValueError(
            "a state of the samples comes several times, and the distance to its neighbours is 0: "
            "pass independent samples, each once."
        )
    radii: np.ndarray = scipy.spatial.cKDTree(y.numpy()).query(x.numpy(), k=[k])[0][:, 0]
    positive: np.ndarray = np.maximum(radii, 1e-300)
    return positive
