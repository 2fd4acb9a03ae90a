"""The probability current of samples, by the score of their density.

    j = f p − ½ ∇·(G Gᵀ p) = ν p,    ν = f − ½ ∇·(G Gᵀ) − ½ G Gᵀ ∇log p

ν(x) is the local velocity: the mean of the velocities just before and just after a trajectory is
at x, ν = lim ⟨X_{t+h} − X_{t−h} | X_t = x⟩/2h. It needs no density, only a score: that of a
learned model, of a density on a grid, or any function (x, t). j needs p too. Noise may be
multiplicative, with channels, or none, where ν = f. In a phase space ν holds all of the current,
that part too which time reversal turns around and which makes no entropy.

A wrong score makes ν wrong by ½ G Gᵀ (ŝ − s), at every x by itself.

Reference:
    Seifert 2012, Rep. Prog. Phys. 75, 126001, section 2.4: the mean local velocity; Nelson 1967,
    Dynamical Theories of Brownian Motion, chapter 13: the current velocity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.dissipation import parts_of_drift
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_number, as_state, check_function, check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time, as_column

LogDensity = Callable[[State, Time], Tensor]


def local_velocity(sde: SDE, states: State, score: ScoreFn, *, time: float = 0.0) -> State:
    """Return ν = f − ½∇·(G Gᵀ) − ½ G Gᵀ ∇log p at states, in units of the state per time.

    Args:
        sde: Dynamics; those that run towards smaller times are read in their own sense of time.
        states: Where it is asked for, shape (n, *event).
        score: ∇log p(x, t), like x; such as `model.score`.
        time: When.

    Returns:
        ν, shape of states.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If states or the score at them are not finite or of another shape, or the SDE
            has jumps or integer times.

    Example:
        >>> A = torch.tensor([[-1.0, -1.0], [1.0, -1.0]])
        >>> turning = sg.ItoProcess(lambda x: x @ A.T, 1.0)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> sg.local_velocity(turning, x, lambda x, t: -2 * x)  # N(0, I/2) rests, and goes round
        tensor([[ 0.,  1.],
                [-2.,  0.]])
    """
    check_kind("sde", sde, SDE, "an SDE, such as Langevin(DoubleWell())")
    check_no_jumps(sde, "the local velocity")
    if sde.is_discrete:
        raise ValueError(
            f"a local velocity is of continuous time, but {type(sde).__name__} has integer times."
        )
    x = checked_states("the local velocity", as_state("states", states))
    check_function("score", score, "a function (x, t) -> ∇log p, like x")
    t = torch.tensor(as_number("time", time), dtype=torch.float64)
    with torch.no_grad():
        drift, _ = parts_of_drift(sde, x, t)
        if sde.noise == "none":
            return drift
        return drift - 0.5 * sde.covariance_times(x, t, checked_score(score, x, t))


def current(
    sde: SDE, states: State, score: ScoreFn, log_density: LogDensity, *, time: float = 0.0
) -> State:
    """Return the probability current j = p ν at states, ν as `local_velocity` returns it.

    Args:
        sde: Dynamics.
        states: Where it is asked for, shape (n, *event).
        score: ∇log p(x, t), like x.
        log_density: log p(x, t), shape (n,).
        time: When.

    Returns:
        j, shape of states, in units of ν over those of a volume.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: As `local_velocity`, and if log_density is not one number for each state.

    Example:
        >>> falling = sg.ItoProcess(lambda x: 0 * x - 2.0, 1.0)  # at rest in e^{−4x} there is none
        >>> score, log_p = lambda x, t: 0 * x - 4.0, lambda x, t: -4 * x[:, 0]
        >>> sg.current(falling, torch.ones(1, 1), score, log_p)
        tensor([[0.]])
    """
    velocity = local_velocity(sde, states, score, time=time)
    check_function("log_density", log_density, "a function (x, t) -> log p, shape (n,)")
    x, t = as_state("states", states), torch.tensor(float(time), dtype=torch.float64)
    with torch.no_grad():
        return velocity * as_column(checked_log_density(log_density, x, t).exp(), x).to(x)


def checked_states(what: str, x: State) -> State:
    """Return states, or refuse what is no finite floats of shape (n, *event)."""
    if x.ndim < 2 or not x.is_floating_point() or not len(x) or not bool(x.isfinite().all()):
        raise ValueError(
            f"{what} needs finite floats of shape (n, *event), but states are "
            f"{kind_of(x)} of {x.dtype}, {int((~x.isfinite()).sum())} of them not finite."
        )
    return x


def checked_score(score: ScoreFn, x: State, t: Tensor) -> Tensor:
    """Return the score at states, or refuse what is of another shape or not finite."""
    values = score(x, t)
    if not isinstance(values, Tensor) or values.shape != x.shape:
        raise ValueError(
            f"score must return a tensor of shape {tuple(x.shape)}, as the samples have it, but "
            f"returned {kind_of(values)}."
        )
    lost = ~values.isfinite().flatten(1).all(1)
    if bool(lost.any()):
        raise ValueError(
            f"score must be finite where the samples are, but at t = {float(t):g} it is not for "
            f"{int(lost.sum())} of {len(x)}."
        )
    return values


def checked_log_density(log_density: LogDensity, x: State, t: Tensor) -> Tensor:
    """Return log p at states, or refuse what is of another shape or not finite."""
    values = log_density(x, t)
    if not isinstance(values, Tensor) or values.shape != (len(x),):
        raise ValueError(
            f"log_density must return a tensor of shape ({len(x)},), one number for each "
            f"trajectory, but returned {kind_of(values)}."
        )
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"log_density must be finite where trajectories are, but at t = {float(t):g} it is "
            f"not for {int((~values.isfinite()).sum())} of {len(x)}."
        )
    return values.double()
