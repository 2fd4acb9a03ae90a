"""Advice before a training: data of another scale, and a prior that the noising has not reached.

Generation starts from a prior π, and the noising of the data ends at p_T. What that costs is
KL(p_T ‖ π) at most. Of a Gaussian kernel, in units in which π is N(0, I), with M = Φ x0 + m, the
noise's covariance R, and N_T the Gaussian of p_T's mean and covariance,

    ½ (|E M|² + tr C − d − log det C)  ≤  KL(p_T ‖ π)  ≤  ½ (E |M|² + tr R − d − log det R)

with C = Cov M + R: the left is KL(N_T ‖ π), the right the mean of KL(p_T(· | x0) ‖ π). Up to five
numbers it is measured between them, by `prior_mismatch` of data that are noised.

Reference:
    Song, Durkan, Murray and Ermon 2021, theorem 1, arXiv:2101.09258 (what a start costs).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning
from sdegen.core.noise import stream
from sdegen.diffusion.mismatch import prior_mismatch, warn_unreached
from sdegen.diffusion.priors import GaussianPrior

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel

_FAR = 10.0  # times larger or smaller than expected, from which a scale is told
_UNREACHED = 0.005  # nats for each number of a state: a mean that is a tenth of π's width off
_MANIFEST = 10.0  # times as much, above which an upper bound is told too
_FEW, _DRAWS, _SURE = 5, 4096, 4.5  # numbers up to which it is measured; standard errors told
_STACK = 4  # from train's caller


@dataclass(frozen=True)
class Gap:
    """KL(p_T ‖ π) in nats.

    Attributes:
        low: A lower bound.
        high: An upper bound; the same where it is measured.
    """

    low: float
    high: float


def warn_scale(data: Tensor, wanted: float, reader: str) -> bool:
    """Warn of data that are of another scale than a network expects; return whether they are.

    Args:
        data: Shape (n, *event).
        wanted: The standard deviation that is expected.
        reader: What expects it, such as "a network of EpsPrediction".
    """
    flat = data.double()
    size = float(flat.square().mean().sqrt())
    if wanted / _FAR <= size <= _FAR * wanted:
        return False
    warnings.warn(
        f"{moments_of(flat)}, but {reader} expects about 0 ± {wanted:g}: "
        f"{standardise(flat, wanted)}, and undo it in samples.",
        AccuracyWarning,
        stacklevel=_STACK,
    )
    return True


def some_of(data: Tensor) -> Tensor:
    """Return some rows of data, evenly, whose moments are noised: float64, on the CPU."""
    return data[:: max(1, len(data) // _DRAWS)].detach().double().cpu()


def moments_of(data: Tensor) -> str:
    """Return mean and standard deviation of data, in words."""
    mean, std = _moments(data)
    return f"data have the mean {mean:.3g} and the standard deviation {std:.3g}"


def standardise(data: Tensor, wanted: float) -> str:
    """Return how data become 0 ± wanted, in words."""
    mean, std = _moments(data)
    return f"train on (data - {mean:.3g})/{max(std, 1e-300) / wanted:.3g}"


def note_prior(model: ScoreModel, found: Gap, numbers: int, cure: str, *, told: bool) -> None:
    """Keep KL(p_T ‖ π) with a model where it says that the prior was not reached, and warn.

    Args:
        model: What will be trained.
        found: What is known of it.
        numbers: Of a state.
        cure: What to do.
        told: Whether something has been told by another warning.
    """
    tolerance = _UNREACHED * numbers
    late = found.low > tolerance or found.high > _MANIFEST * tolerance
    model.unreached = found.high if late else None
    if not late or told:
        return
    assert model.times is not None  # the model saw to it
    bounds = found.low < found.high
    if bounds:
        cure = f"The shape of the data decides how far above {found.low:.3g} it is. {cure}"
    warn_unreached(
        found.high,
        tolerance,
        None,
        at=model.times[1],
        relation="≤" if bounds else "=",
        cure=cure,
        stacklevel=_STACK,
    )


def gap_of(white: Tensor, noise: Tensor) -> Gap:
    """Return KL(p_T ‖ π) of data that a Gaussian kernel noises.

    Args:
        white: Φ x0 + m in units of π, N(0, I): shape (n, blocks, d).
        noise: Covariance of the noise in these units, shape (blocks or 1, d, d).
    """
    off = white - white.mean(0)
    own = torch.einsum("nbi,nbj->bij", off, off) / len(off)
    mean = white.mean(0).square().sum()
    noise = noise.expand_as(own)
    low = 0.5 * float(mean + _excess(own + noise))
    high = max(low, 0.5 * float(white.square().sum((1, 2)).mean() + _excess(noise)))
    flat = white.flatten(1)
    if flat.shape[1] > _FEW or not math.isfinite(high) or high < _UNREACHED * flat.shape[1]:
        return Gap(low, high)
    source = stream(0, "prior of a score").generator()
    rows = torch.randint(len(white), (_DRAWS,), generator=source)
    z = torch.randn(_DRAWS, *white.shape[1:], generator=source, dtype=white.dtype)
    x = white[rows] + (torch.linalg.cholesky(noise) @ z[..., None])[..., 0]
    drawn = prior_mismatch(x.flatten(1), GaussianPrior(torch.zeros(flat.shape[1])))
    kl = drawn.kl if drawn.kl > _SURE * drawn.standard_error else low
    kl = min(max(kl, low), high)
    return Gap(kl, kl)


def _excess(covariance: Tensor) -> Tensor:
    """Return Σ (λ − 1 − log λ) over the eigenvalues of blocks."""
    above: Tensor = torch.linalg.eigvalsh(covariance) - 1
    total: Tensor = (above - torch.log1p(above.clamp(min=-1))).sum()
    return total


def _moments(data: Tensor) -> tuple[float, float]:
    """Return the mean of all numbers, and their root mean square beside that of each."""
    flat = data.double()
    return float(flat.mean()), float((flat - flat.mean(0)).square().mean().sqrt())
