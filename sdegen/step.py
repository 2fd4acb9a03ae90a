"""The update: the one equation that everything here is made of.

    x  ←  x + dt · f(x, t) + √|dt| · g(x, t) · z,        z ~ N(0, I)

An SDE says what f and g are, a solver says how often and in what arrangement the update is taken.
With g = 0 it is Euler's method for an ODE, with f = 0 a random walk, with dt < 0 it walks back
along a reverse-time equation.
"""

from typing import Any

import torch
from torch import Tensor

from sdegen.shapes import State

__all__ = ["moved", "numbers", "update"]


def update(
    x: State,
    drift: State,
    diffusion: Tensor | float,
    dt: Tensor | float,
    z: State | None,
    *,
    root: Tensor | float | None = None,
) -> State:
    """Takes one Euler-Maruyama step, x + dt f + √|dt| g z.

    Args:
        x: Current state, shape (batch, *event).
        drift: f(x, t), same shape as x.
        diffusion: g(x, t), broadcastable to x, or a number.
        dt: Step, 0-d or a number; negative runs time backwards. Numbers are the faster.
        z: Standard normal draw with x's shape, or None to turn the noise off.
        root: √|dt|, where it is known already; of the kind of dt.

    Returns:
        The next state, same shape as x.

    Reference:
        Kloeden and Platen 1992, eq. (10.2.4).

    >>> x, one = torch.tensor([[1.0]]), torch.tensor(1.0)
    >>> update(x, drift=-x, diffusion=2 * one, dt=0.25 * one, z=torch.ones(1, 1))
    tensor([[1.7500]])
    """
    # one pass over the state for each term; in place is only what was made here. To ask for a
    # float is the cheapest question: in a small ensemble each tenth of a microsecond is seen
    if not isinstance(dt, float) and isinstance(dt, Tensor):
        # for a GPU's state a 0-d factor may stay on the CPU only where it comes last
        after = torch.addcmul(x, drift, dt)
        if z is None:
            return after
        root = dt.abs().sqrt() if root is None else root
        return torch.addcmul(after, z, torch.mul(root, diffusion))
    scale = abs(dt) ** 0.5 if root is None else float(root)
    if not isinstance(diffusion, float) and isinstance(diffusion, Tensor):
        after = torch.add(x, drift, alpha=dt)
        return after if z is None else after.addcmul_(z, diffusion, value=scale)
    return moved(x, drift, dt, z, scale * diffusion)


def moved(x: State, drift: State, dt: float, z: State | None, scale: float) -> State:
    """The update of numbers, x + dt f + scale z, where scale = √|dt| g is known beforehand.

    Args:
        x: Current state, shape (batch, *event).
        drift: f(x, t), same shape as x.
        dt: Step.
        z: Standard normal draw with x's shape, or None.
        scale: Standard deviation of what z adds.
    """
    after = torch.add(x, drift, alpha=dt)
    return after if z is None else after.add_(z, alpha=scale)


def numbers(coefficients: Tensor) -> list[Any]:
    """Coefficients of a run, one for each step, as `update` is fastest with them.

    Args:
        coefficients: Shape (steps, …), on the CPU.

    Returns:
        Numbers, in lists as deep as the shape; one tensor for each step where they have gradients.
    """
    return list(coefficients.unbind()) if coefficients.requires_grad else coefficients.tolist()
