"""The update: the one equation that everything here is made of.

    x  ←  x + dt · f(x, t) + √|dt| · g(x, t) · z,        z ~ N(0, I)

An SDE says what f and g are and adds its own noise (`SDE.add_noise`), a solver says how often and
in what arrangement the update is taken, and `integrate` is the loop. With g = 0 it is Euler's
method for an ODE, with f = 0 a random walk, with dt < 0 it walks back along a reverse-time
equation.
"""

import torch
from torch import Tensor

from sdegen.core.shapes import State

Number = Tensor | float


def update(x: State, drift: State, dt: Number) -> State:
    """Return x + dt f: a new tensor, to which the SDE adds its noise.

        x' = x + dt f(x, t)

    Args:
        x: Current state, shape (batch, *event).
        drift: f(x, t), same shape as x.
        dt: Step, a number; or a tensor that broadcasts to x, where gradients flow through it or
            the step is compiled. Negative runs time backwards.

    Returns:
        The next state without its noise, same shape as x.

    Reference:
        Kloeden and Platen 1992, eq. (10.2.4), without its last term.

    Example:
        >>> sg.update(torch.tensor([[1.0]]), drift=torch.tensor([[-2.0]]), dt=0.25)  # 1 − ¼ · 2
        tensor([[0.5000]])
    """
    # a float is asked for first: it costs least. For a GPU a 0-d factor on the CPU must come last
    if isinstance(dt, float) or not isinstance(dt, Tensor):
        return x.add(drift, alpha=dt)
    return torch.addcmul(x, drift, dt)


def diffuse(after: State, z: State | None, root_dt: Number, g: Number = 1.0) -> State:
    """Return after + √|dt| g z, in place where √|dt| is a number.

    Args:
        after: What `update` returned.
        z: Standard normals like the state; None where the noise is off.
        root_dt: √|dt|, of the kind of the step's dt.
        g: Diffusion, a number or a tensor that broadcasts to x.
    """
    if z is None:
        return after
    if not isinstance(root_dt, float) and isinstance(root_dt, Tensor):
        return torch.addcmul(after, z, torch.mul(root_dt, g))
    if not isinstance(g, float) and isinstance(g, Tensor):
        return after.addcmul_(z, g, value=root_dt)
    return after.add_(z, alpha=root_dt * g)
