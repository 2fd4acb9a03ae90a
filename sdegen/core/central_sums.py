"""Central sums: Σ (y − ȳ)^p of two sets together, from those of each.

    d = ȳ_b − ȳ_a,    n = n_a + n_b
    M₂ = M₂ᵃ + M₂ᵇ + d² n_a n_b/n
    M₃ = M₃ᵃ + M₃ᵇ + d³ n_a n_b (n_a − n_b)/n² + 3 d (n_a M₂ᵇ − n_b M₂ᵃ)/n
    M₄ = M₄ᵃ + M₄ᵇ + d⁴ n_a n_b (n_a² − n_a n_b + n_b²)/n³
         + 6 d² (n_a² M₂ᵇ + n_b² M₂ᵃ)/n² + 4 d (n_a M₃ᵇ − n_b M₃ᵃ)/n

Reference:
    Pébay 2008, Sandia report SAND2008-6212, eqs. (1.1) to (1.6).
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

N = TypeVar("N", float, Tensor)


def merged_sums(a: N, b: N, gap: N, left: tuple[N, N, N], right: tuple[N, N, N]) -> tuple[N, N, N]:
    """Return M₂, M₃ and M₄ of two sets together, numbers or tensors.

    Args:
        a: How many one set has, > 0.
        b: How many the other has.
        gap: The other's mean less the one's.
        left: M₂, M₃, M₄ of the one.
        right: Those of the other.

    >>> merged_sums(1.0, 1.0, 2.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))  # of y = ∓1
    (2.0, 0.0, 2.0)
    """
    each = gap / (a + b)
    m2 = left[0] + right[0] + gap * each * a * b
    m3 = left[1] + right[1] + gap * each**2 * a * b * (a - b)
    m3 = m3 + 3 * each * (a * right[0] - b * left[0])
    m4 = left[2] + right[2] + gap * each**3 * a * b * (a * a - a * b + b * b)
    m4 = m4 + 6 * each**2 * (a * a * right[0] + b * b * left[0])
    m4 = m4 + 4 * each * (a * right[1] - b * left[1])
    return m2, m3, m4
