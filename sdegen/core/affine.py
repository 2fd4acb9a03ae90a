"""Affine maps, read off a function: y = M u + b from its values at a few rows.

b is the value at 0, the columns of M are differences at ±λ e_j, with a λ beside which b is no
larger, so that they keep all digits. Other rows, of several sizes, show whether it is affine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SIZES = (1.0, 0.01, 30.0)  # of the rows that are compared
_SAME = 1e-9  # relative
_GOLDEN = 0.6180339887498949


def affine_of(function: Callable[[Tensor], Tensor], size: int, name: str) -> tuple[Tensor, Tensor]:
    """Return M, shape (outputs, size), and b, shape (outputs,), of an affine map of rows.

    Args:
        function: Takes rows, shape (n, size) of float64, and returns (n, outputs).
        size: Numbers in a row.
        name: What it is, for the error.

    Raises:
        ValueError: If it is not affine, or not finite.

    >>> m, b = affine_of(lambda u: 3 - 2 * u, 1, "a line")
    >>> float(m), float(b)
    (-2.0, 3.0)
    """
    zero = torch.zeros(1, size, dtype=torch.float64)
    shift = function(zero)[0]
    largest = float(shift.detach().abs().max())
    if not math.isfinite(largest):
        raise ValueError(f"{name} is not finite at 0.")
    reach = 2.0 ** math.ceil(math.log2(max(1.0, largest)))
    eye = torch.eye(size, dtype=torch.float64)
    row = ((torch.arange(1, size + 1, dtype=torch.float64) * _GOLDEN) % 1.0) * 2 - 0.9
    others = torch.stack([row * share for share in _SIZES])
    rows = reach * torch.cat([eye, -eye, others])
    values = function(rows)
    matrix = (values[:size] - values[size : 2 * size]).T / (2 * reach)
    with torch.no_grad():
        u, found = rows[2 * size :], values[2 * size :]
        off = (found - (u @ matrix.T + shift)).abs()
        scale = u.abs() @ matrix.abs().T + shift.abs()
        allowed = _SAME * scale.amax(1, keepdim=True)
        if bool((off <= allowed).all()):
            return matrix, shift
        i = int((off / allowed.clamp(min=1e-300)).nan_to_num(math.inf).amax(1).argmax())
        raise ValueError(
            f"{name} is not linear: at {[round(v, 4) for v in u[i].tolist()][:4]} it is off by "
            f"{float(off[i].max()):.3g} from the line through its values at 0 and at the unit "
            "vectors."
        )
