"""The linear part of a drift, −L x + r(x, t): what methods for stiff dynamics solve for.

L is a number; one number for each of the d numbers of a state, shape (d,); or a matrix, (d, d), on
the flattened state. It need not be all that is linear in the drift: whatever L is, r is the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.requests import as_numbers
from sdegen.core.shapes import Numbers


def as_linear_part(linear_part: Numbers) -> Tensor:
    """Return L in float64, with its gradient.

    Raises:
        TypeError: If it is no array of numbers.
        ValueError: If it is neither a number, nor a vector, nor a square matrix, or not finite.

    >>> as_linear_part([[2.0, -1.0], [-1.0, 2.0]]).shape
    torch.Size([2, 2])
    """
    expected = "a number, one for each coordinate, or a square matrix"
    L = as_numbers("linear_part", linear_part, expected=expected).to(torch.float64)
    if L.ndim > 2 or (L.ndim == 2 and L.shape[0] != L.shape[1]):
        raise ValueError(f"linear_part must be {expected}, but has shape {tuple(L.shape)}.")
    if not bool(L.isfinite().all()):
        raise ValueError(f"linear_part must be finite, but is {L.tolist()}.")
    return L
