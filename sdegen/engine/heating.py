"""Heating: what a method that is no splitting does to the temperature of a phase space.

Euler's step turns an oscillator that is hardly damped into one whose energy grows, by ω² dt in a
unit of time, which friction γ must take away: its kinetic temperature is near T (1 + ω² dt/γ), and
is reached after 1/γ, long after a pilot of some steps has ended. The chain itself tells it at
once. On the oscillator of the steepest force at some states, with the friction there, a step is

    X' = A X + S z,        C' = A C Aᵀ + S Sᵀ

and C after all steps of the run, from the law at rest of the SDE, is a power of one matrix.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sdegen.core.affine import affine_of
from sdegen.core.errors import AccuracyWarning
from sdegen.core.noise import Given
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.sde.potentials import Quadratic
from sdegen.sde.underdamped import UnderdampedLangevin

_ALLOWED = 0.1  # of the standard deviation, as a pilot allows it
_TURNS = 3  # of the power iteration for the steepest direction


def warn_heating(
    sde: UnderdampedLangevin, solver: Solver, states: State, nodes: Tensor, stacklevel: int
) -> bool:
    """Warn where steps heat or cool the oscillator of the steepest force; return whether they do.

    Args:
        sde: What moves.
        solver: How it moves; nothing is said of one that asks for more than normals.
        states: Where the force is looked at, shape (batch, 2, *event).
        nodes: Times at which the run's steps begin and end.
        stacklevel: As `warnings.warn` has it; 3 points at the caller's caller.
    """
    friction = float(sde.friction_at(sde.position(states)).detach().mean())
    if solver.needs or (sde.noise == "none" and friction > 0):  # what cools has no temperature
        return False
    square = _steepest(sde, sde.position(states).detach(), nodes[0])
    dt = float(nodes.diff().abs().max())
    if not (math.isfinite(square) and square * dt * dt > 1e-12):
        return False
    ratio = heat_of(solver, math.sqrt(square), friction, dt, len(nodes) - 1)
    if abs(math.sqrt(ratio) - 1) <= _ALLOWED:
        return False
    name = type(solver).__name__
    warnings.warn(
        f"steps of {dt:.3g} of {name} make a temperature of {ratio:.3g} T of T, on an oscillator "
        f"of the frequency {math.sqrt(square):.3g} of the steepest force near the start and the "
        f"friction {friction:.3g}, by the end of {len(nodes) - 1} steps: pass solver=BAOAB("
        f"substeps=…), which is exact in x there, or more substeps.",
        AccuracyWarning,
        stacklevel=stacklevel,
    )
    return True


def heat_of(solver: Solver, omega: float, friction: float, dt: float, steps: int) -> float:
    """Return the kinetic temperature of an oscillator at T = 1 after steps from its rest.

    Args:
        solver: How it moves: a step that is linear in one draw of normals.
        omega: Frequency ω.
        friction: γ.
        dt: Length of a step.
        steps: How many.
    """
    well = UnderdampedLangevin(Quadratic(omega**2), friction)
    times = torch.tensor([0.0, dt], dtype=torch.float64)

    def step(u: Tensor) -> Tensor:
        memory = solver.begin(well, times)  # some hold the shape of the first states
        x, z = (half.reshape(-1, 2, 1) for half in (u[:, :2], u[:, 2:]))
        noise = Given(z) if solver.is_stochastic(well) else None
        return solver.step(well, x, 0, noise, memory)[0].flatten(1)

    whole, _ = affine_of(step, 4, f"a step of {type(solver).__name__}")
    matrix, spread = whole[:, :2], whole[:, 2:]
    # (C, 1) of a step later: the products of A's rows, and what noise adds
    power = torch.eye(5, dtype=torch.float64)
    power[:4, :4], power[:4, 4] = torch.kron(matrix, matrix), (spread @ spread.T).flatten()
    rest = torch.tensor([omega**-2, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    return float((torch.linalg.matrix_power(power, steps) @ rest)[3].nan_to_num(math.inf))


def _steepest(sde: UnderdampedLangevin, x: Tensor, t: Tensor) -> float:
    """Return the largest curvature of U over m at some positions, by differences of the force."""
    numbers = torch.arange(x[0].numel(), dtype=x.dtype, device=x.device)
    direction = (numbers + 0.5).cos().reshape(x.shape[1:]).expand_as(x)
    apart = torch.finfo(x.dtype).eps ** (1 / 3) * (1 + x.abs().flatten(1).amax(1))
    apart = apart.reshape(-1, *(1,) * (x.ndim - 1))
    steepest = 0.0
    mass = torch.as_tensor(sde.mass).detach().to(x)
    for _ in range(_TURNS):
        length = direction.flatten(1).norm(dim=1).clamp(min=1e-300).reshape(apart.shape)
        direction = direction / length
        gap = sde.force(x - apart * direction, t) - sde.force(x + apart * direction, t)
        slope = gap.detach() / (2 * apart * mass)
        along = (slope * direction).flatten(1).sum(1)
        steepest = max(steepest, float(along.nan_to_num(0.0, 0.0, 0.0).max()))
        direction = slope
    return steepest
