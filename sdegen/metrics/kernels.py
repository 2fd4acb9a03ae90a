"""Maximum mean discrepancy: two laws compared by the means of a kernel.

    MMD²(p, q) = E k(X, X′) − 2 E k(X, Y) + E k(Y, Y′)

    "gaussian"                 k = exp(−r²/2h²)
    "inverse-multiquadric"     k = 1/(1 + r²/2h²)          r = |x − y|

Both kernels are characteristic: MMD² is 0 between equal laws alone. The second has heavier tails
and still pulls at samples that are many h away. Its mean over pairs of different samples has no
bias, so that it is below zero half of the time where the laws are equal.

Reference:
    Gretton et al. 2012, JMLR 13, 723, lemma 6 and eq. (3); the second kernel, as it is used to
    match latents: Tolstikhin et al. 2018, section 4, arXiv:1711.01558, whose C is 2h².
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from sdegen.core.checks import check_positive, check_word
from sdegen.metrics.samples import distances
from sdegen.metrics.states import Samples, as_pair

Kernel = Literal["inverse-multiquadric", "gaussian"]


def mmd(
    x: Samples, y: Samples, *, kernel: Kernel = "inverse-multiquadric", scale: float | None = None
) -> float:
    """Return the unbiased estimate of MMD², from all pairs of different samples.

        MMD² = E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y)

    Not its root, which has no unbiased estimate. Its floor is that of two halves of the data.

    Args:
        x: Samples, shape (n, *event), n ≥ 2.
        y: Samples, shape (m, *event), m ≥ 2.
        kernel: "inverse-multiquadric" or "gaussian".
        scale: h, in units of x; None is √d, for d numbers of an event of order one.

    Returns:
        MMD², at most 2 in the mean and maybe below 0, without units.

    Raises:
        ValueError: If events differ, samples are not all finite or fewer than two, or the scale
            is not positive.

    Example:
        >>> import math
        >>> z = torch.zeros(2, 1)
        >>> sg.metrics.mmd(z, z + 1.0, kernel="gaussian") == 2 - 2 * math.exp(-0.5)
        True
    """
    check_kernel(kernel, scale)
    a, b = as_pair(x, y)
    for name, some in (("x", a), ("y", b)):
        if len(some) < 2:
            raise ValueError(f"{name} must hold two samples or more, whose pairs are averaged.")
    return float(squared_mmd(a, b, kernel, scale))


def check_kernel(kernel: str, scale: float | None) -> None:
    """Refuse another kernel, or a scale that is not positive."""
    check_word("kernel", kernel, get_args(Kernel))
    if scale is not None:
        check_positive("scale", scale)


def squared_mmd(a: Tensor, b: Tensor, kernel: Kernel, scale: float | None) -> Tensor:
    """Return the unbiased estimate of MMD², shape (), with gradients.

    Args:
        a: Shape (n, d), n ≥ 2.
        b: Shape (m, d), m ≥ 2.
        kernel: Which one.
        scale: h; None is √d.
    """
    h = math.sqrt(a.shape[1]) if scale is None else scale
    n, m = len(a), len(b)
    within = (_total(a, a, kernel, h) - n) / (n * (n - 1))  # k(x, x) = 1 is none of the pairs
    within = within + (_total(b, b, kernel, h) - m) / (m * (m - 1))
    return within - 2 * _total(a, b, kernel, h) / (n * m)


def _total(a: Tensor, b: Tensor, kernel: Kernel, h: float) -> Tensor:
    """Return the sum of k(a_i, b_j) over all pairs, in blocks of rows."""
    sums = []
    for some in distances(a, b):
        u = 0.5 * (some / h).square()
        values = torch.exp(-u) if kernel == "gaussian" else 1 / (1 + u)
        sums.append(values.sum())
    return torch.stack(sums).sum()
