"""Means over trajectories of a few numbers that each trajectory has, and their covariance.

What is measured along a path, a displacement, a spectrum, is one set of numbers y for each
trajectory. Trajectories are independent, so that the covariance of the mean ȳ is C/n, with C the
unbiased covariance of y between trajectories; whatever correlates the numbers of one trajectory
with each other, such as lags that share increments, is in C. A combination a·ȳ has the standard
error √(aᵀC a/n), which is that of the mean of the n numbers a·y.
"""

import torch
from torch import Tensor

from sdegen.observables.base import Partial, pooled


def sums_of(values: Tensor, *, together: bool = False) -> Partial:
    """Return n, mean and sums of squares over rows.

    Args:
        values: Of each trajectory, shape (rows, *shape), float64.
        together: Whether the products of all pairs are gathered too; shape must be (K,) then.
    """
    mean = values.mean(0)
    gap = values - mean
    sums = {
        "n": torch.tensor(float(len(values)), dtype=torch.float64),
        "mean": mean,
        "square": (gap * gap).sum(0),
    }
    return sums | ({"product": gap.T @ gap} if together else {})


def merge_sums(left: Partial, right: Partial) -> Partial:
    """Merge by Chan's formula."""
    merged, gap, weight = pooled(left, right)
    merged["square"] = left["square"] + right["square"] + gap**2 * weight
    if "product" in left:
        merged["product"] = left["product"] + right["product"] + gap[:, None] * gap * weight
    return merged


def covariance_of_mean(total: Partial, key: str) -> Tensor:
    """Return the variances ("square") or covariances ("product") of the mean; NaN for n = 1."""
    n = float(total["n"])
    return total[key] / (n * (n - 1 if n > 1 else float("nan")))
