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
from torch import Tensor

__all__ = ["ScoreFn", "State", "Time", "as_times", "expand"]

State = Float[Tensor, "batch *event"]
Time = Float[Tensor, ""] | Float[Tensor, " batch"]
ScoreFn = Callable[[State, Time], State]


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


def as_times(times: object) -> Tensor:
    """Return two times or more, in any order, as a float64 tensor on the CPU, shape (T,).

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are fewer than two, or one is not finite; naming the index.

    >>> as_times([0, 0.5])
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    if isinstance(times, str) or not (
        isinstance(times, Tensor | Sequence) or hasattr(times, "__array__")
    ):
        raise TypeError(
            f"times must be a tensor or a list of numbers, but is {type(times).__name__}; "
            "pass torch.linspace(t_start, t_end, n)."
        )
    if isinstance(times, Tensor) and times.requires_grad:
        raise TypeError(
            "times is a tensor that requires grad, which is not carried through a run; pass "
            "times.detach(), and let calibrate fit times."
        )
    try:
        # in one go: a list would be rounded to float32 on its way
        ts = torch.as_tensor(times, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"times must be numbers: {error}; pass torch.linspace(t_start, t_end, n)."
        ) from None
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(
            f"times must be a list of at least two times, but has shape {tuple(ts.shape)}; "
            "pass torch.linspace(t_start, t_end, n)."
        )
    bad = ~np.isfinite(ts.numpy())
    if np.count_nonzero(bad):
        i = int(bad.argmax())
        raise ValueError(f"times must be finite, but times[{i}] = {float(ts[i])}.")
    return ts
