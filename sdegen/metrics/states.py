"""Samples as the metrics take them: flat, in float64, all of them finite."""

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.requests import as_state, refuse_lost_gradient

Samples = Float[Tensor, "_n *_event"]


def flatten(samples: Tensor, name: str) -> Tensor:
    """Return samples as (n, d) in float64; raises if one is not finite."""
    samples = as_state(name, samples)
    if samples.is_complex() or samples.dtype == torch.bool:
        raise TypeError(f"{name} must be numbers, but has dtype {samples.dtype}.")
    if samples.ndim < 2 or len(samples) == 0:
        raise ValueError(
            f"{name} must have shape (n, *event) with n ≥ 1, but has shape "
            f"{tuple(samples.shape)}; numbers on a line are (n, 1)."
        )
    refuse_lost_gradient(name, samples, "a distance")
    flat = samples.detach().to(torch.float64).flatten(1)
    lost = ~flat.isfinite().all(1)
    if lost.any():
        first = int(lost.nonzero()[0])
        raise ValueError(
            f"{int(lost.sum())} of {len(flat)} rows of {name} are NaN or infinite, the first is "
            f"row {first}; a distance cannot count them: report them, and pass path.finite[k]."
        )
    return flat


def as_pair(x: Tensor, y: Tensor, name: str = "y") -> tuple[Tensor, Tensor]:
    """Return two sets of samples of the same event, flat and on one device."""
    a, b = flatten(x, "x"), flatten(y, name)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and {name} must have the same event shape, but x has {tuple(x.shape[1:])} and "
            f"{name} {tuple(y.shape[1:])}."
        )
    return a, b.to(a.device)


def on_line(samples: Tensor, name: str) -> Tensor:
    """Return the one-dimensional samples as (n,) in float64."""
    flat = flatten(samples, name)
    if flat.shape[1] != 1:
        raise ValueError(
            f"{name} must be one-dimensional, shape (n, 1), but has shape {tuple(samples.shape)}; "
            "use sliced_wasserstein or energy_distance."
        )
    return flat[:, 0].contiguous()


def empirical_cdf(ordered: Tensor, points: Tensor) -> Tensor:
    """Return the share of samples, in order, that are ≤ each point."""
    return torch.searchsorted(ordered, points, right=True).to(torch.float64) / len(ordered)
