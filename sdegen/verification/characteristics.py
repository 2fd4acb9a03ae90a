"""Where a flow takes a density, followed along characteristics to the tolerance of an ODE.

    dx/dt = f(x, t),    log p(x(t), t) = log p(x(t_0), t_0) − ∫ ∂f/∂x dt

Every node of the grid is carried back to the start, and its stretching with it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import make_interp_spline

from sdegen.core.derivatives import slope_of
from sdegen.core.errors import SolverError
from sdegen.core.sde import SDE
from sdegen.core.slope_checks import check_slope
from sdegen.fokker_planck.density import Density

_RELATIVE, _ABSOLUTE = 1e-10, 1e-12


def carried_by_flow(sde: SDE, p0: Density, start: float, end: float) -> Density:
    """Return the density at `end` of a noise-free SDE that has p0 at `start`.

    Args:
        sde: Dynamics without noise, with a state of shape (batch, 1).
        p0: Density at the start, on nodes of any spacing; zero beyond them.
        start: Time of p0.
        end: Time of the result, on either side of it.

    Returns:
        The density at the same nodes.

    Raises:
        SolverError: If no step of the ODE solver is short enough.
    """
    x = p0.x.numpy()
    n = len(x)
    at_start = torch.tensor(start, dtype=torch.float64)
    check_slope(
        lambda y: sde.drift(y, at_start),
        lambda y: slope_of(lambda z: sde.drift(z, at_start), y),
        torch.from_numpy(x[[0, -1]].copy())[:, None],
        name="the drift",
        cure="A part of it is hidden from autograd (.detach(), no_grad), or it jumps.",
    )

    def rate(t: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        time = torch.tensor(t, dtype=torch.float64)
        state = torch.from_numpy(y[:n].copy())[:, None]
        with torch.no_grad():
            f = sde.drift(state, time)
        slope = slope_of(lambda x: sde.drift(x, time), state)
        return np.concatenate([f.numpy()[:, 0], slope.numpy()[:, 0]])

    begin = np.concatenate([x, np.zeros(n)])
    solution = solve_ivp(rate, (end, start), begin, "DOP853", rtol=_RELATIVE, atol=_ABSOLUTE)
    if not solution.success:
        raise SolverError(f"the flow could not be followed: {solution.message}")
    back, stretch = solution.y[:n, -1], np.exp(solution.y[n:, -1])
    before = make_interp_spline(x, p0.p.detach().double().numpy(), k=7)(np.clip(back, x[0], x[-1]))
    inside = (back >= x[0]) & (back <= x[-1])
    return Density(p0.x, torch.from_numpy(np.where(inside, before.clip(min=0) * stretch, 0.0)))
