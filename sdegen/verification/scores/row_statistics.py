"""Means over independent rows, and how surprising they are.

The sum of n independent numbers is judged by Hall's transformation of Student's ratio,

    T = √n (S + γ S²/3 + γ² S³/27 + γ/(6n)),     S = mean/std,   γ = skewness

which is normal to O(1/n) where √n S is to O(1/√n): squares and products are skewed, and at small
p-values that matters first.

Reference:
    Hall 1992, J. R. Statist. Soc. B 54, 221, eq. (2.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowMeans:
    """Means of several numbers over rows.

    Attributes:
        mean: Shape (m,), float64.
        error: Standard errors of them.
        p_value: Chance of a mean as far from 0, or farther, where the expectation is 0.
    """

    mean: Tensor
    error: Tensor
    p_value: Tensor

    @classmethod
    def of(cls, values: Tensor) -> RowMeans:
        """Judge the columns of independent rows.

        Args:
            values: Shape (n, m), float64, n ≥ 2.
        """
        n = len(values)
        mean, spread = values.mean(0), values.std(0)
        positive = torch.where(spread > 0, spread, 1.0)
        s = mean / positive
        skewness = ((values - mean) / positive).pow(3).mean(0)
        bent = s + skewness * s.square() / 3 + (skewness * s.square()) * skewness * s / 27
        z = math.sqrt(n) * (bent + skewness / (6 * n))
        p = torch.special.erfc(z.abs() / math.sqrt(2))
        # what does not vary is 0 or is wrong beyond chance
        still = torch.where(mean == 0, 1.0, 0.0).to(p)
        return cls(mean, spread / math.sqrt(n), torch.where(spread > 0, p, still))


def of_smallest(p_values: Tensor) -> Tensor:
    """Return the p-value of each of m as the smallest of m (Šidák), shape (m,)."""
    bounded = p_values.clamp(max=1 - 1e-15)
    return -torch.expm1(len(p_values) * torch.log1p(-bounded))
