"""Shapes: what a state and a time look like, and the one place where they are broadcast.

A **state** has shape (batch, *event): trajectories first, then whatever a trajectory is made of.
One-dimensional physics is (batch, 1). A **time** is either one number for all trajectories, shape
(), or one for each, shape (batch,). A coefficient c(t) takes the shape of t and meets a state
through `expand` and nowhere else, because a batch of 2 two-dimensional states makes every other
way of broadcasting silently wrong.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

State = Float[Tensor, "batch *event"]
Time = Float[Tensor, ""] | Float[Tensor, " batch"]
ScoreFn = Callable[[State, Time], State]
Values = Callable[[State], Tensor]
Times = Tensor | NDArray[np.floating] | Sequence[float]  # what users may pass for them
Numbers = Times | Sequence[Sequence[float]] | float
Dtype = torch.dtype | None
Device = torch.device | str


def expand(c: Tensor, x: Tensor) -> Tensor:
    """Give a coefficient of shape () or (batch,) the trailing axes that let it multiply a state.

    One coefficient for each trajectory also takes x's dtype and device; a single number promotes
    nothing and is left in the precision that it was computed in.

    Args:
        c: Coefficient, shape () or (batch,).
        x: State, shape (batch, *event).

    Returns:
        c, shape () or (batch, 1, …, 1).

    Raises:
        ValueError: If c has neither of these shapes.

    >>> expand(torch.tensor([1.0, 2.0]), torch.ones(2, 2)) * torch.ones(2, 2)
    tensor([[1., 1.],
            [2., 2.]])
    """
    if c.ndim == 0:
        return c
    if c.shape != x.shape[:1]:
        raise ValueError(
            f"a time or coefficient must have shape () or ({x.shape[0]},) to meet a state of "
            f"shape {tuple(x.shape)}, but has shape {tuple(c.shape)}."
        )
    return c.reshape(c.shape + (1,) * (x.ndim - 1)).to(x)


def as_column(values: Tensor, x: Tensor) -> Tensor:
    """Return one value for each trajectory of x, shape (batch,), as shape (batch, 1, …)."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def rows_nonfinite(x: Tensor) -> Tensor:
    """Return which trajectories have a number that is NaN or infinite, shape (batch,)."""
    return ~torch.isfinite(x).flatten(1).all(1)
