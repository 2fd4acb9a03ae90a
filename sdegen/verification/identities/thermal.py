"""What equilibrium says of Langevin dynamics at rest, without a density: temperatures.

    x_i ∂_i U          T         virial, of each coordinate without ends
    m v_i²             T         equipartition
    x_i v_i            0
    |∇U|²/∇²U          T         configurational temperature, a ratio of means

They hold for e^{−H/T}, and a step breaks them by its bias alone: Euler–Maruyama in phase space is
too hot by O(dt), BAOAB's positions are exact for a harmonic potential and its velocities too cold
by O(dt²). ∇²U comes of differences of the force, coordinate by coordinate up to 16 of them, and
along random signs of more (Hutchinson).

Reference:
    Rugh 1997, Phys. Rev. Lett. 78, 772, and Butler et al. 1998, J. Chem. Phys. 109, 6519, for the
    configurational temperature; Leimkuhler and Matthews 2013, J. Chem. Phys. 138, 174102, for the
    bias of splittings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.derivatives import in_double
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.potentials import DrivenPotential
from sdegen.sde.processes import Langevin
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.verification.identities.averages import Average, averages_of, together
from sdegen.verification.identities.bias import Bias, rows_of
from sdegen.verification.identities.ends import Ends
from sdegen.verification.identities.excerpt import Excerpt, asked

_EXACT = 16  # coordinates whose second derivatives are asked one by one
_OF_LAPLACIAN = 2**19  # numbers of the states at which ∇²U is asked
_STEP = {torch.float64: 1e-4, torch.float32: 1e-2}  # of a difference, of a size


@dataclass(frozen=True)
class Thermal:
    """Dynamics with a temperature.

    Attributes:
        force: −∇U of positions (n, *place).
        temperature: T.
        mass: Of each coordinate, shape (d,); None where velocities are not stored.
    """

    force: Callable[[State], State]
    temperature: float
    mass: Tensor | None


def thermal_of(sde: SDE, states: StoredStates) -> Thermal | None:
    """Return the thermodynamics of Langevin dynamics; None of what is not, or is driven."""
    if isinstance(sde, Langevin) and type(sde).drift is Langevin.drift:
        if isinstance(sde.potential, DrivenPotential) or float(sde.temperature) == 0:
            return None
        return Thermal(sde.potential.force, float(sde.temperature), None)
    if not isinstance(sde, UnderdampedLangevin) or sde.own_methods("drift", "diffusion"):
        return None
    if isinstance(sde.potential, DrivenPotential) or sde.noise == "none":
        return None
    zero = torch.zeros((), dtype=torch.float64)
    mass = torch.as_tensor(sde.mass, dtype=torch.float64).detach()
    return Thermal(
        lambda x: sde.force(x, zero),
        float(sde.temperature),
        mass.expand(states.place).flatten(),
    )


def thermal_rows(
    thermal: Thermal,
    excerpt: Excerpt,
    ends: Ends,
    labels: Sequence[str],
    states: StoredStates,
) -> list[Bias]:
    """Return the rows of virial, equipartition and configurational temperature."""
    d, T = math.prod(states.place), thermal.temperature
    x, moving = excerpt.flat[..., :d].double(), ends.moving[:d].nonzero()[:, 0]
    dof = _degrees(states, len(moving))
    force = asked(_positions(excerpt, states), lambda y, t: thermal.force(y), True)
    rows: list[Bias] = []
    inside = ends.free[:d].nonzero()[:, 0]
    inside = inside[torch.isin(inside, moving)]
    walled = bool(ends.walled[:d].any())
    if len(inside) and not walled:
        virial = -x[..., inside] * force[..., inside] * dof
        rows += rows_of("the virial temperature ⟨x ∂U⟩", virial, T, T, _named(labels, inside))
    if thermal.mass is not None:
        v = excerpt.flat[..., d:].double()
        kinetic = (thermal.mass * v.square())[..., moving] * dof
        rows += rows_of("the kinetic temperature", kinetic, T, T, _named(labels, moving))
        if len(inside):
            product = x[..., inside] * v[..., inside]
            squares = x[..., inside].square().mean() * v[..., inside].square().mean()
            size = float(squares.sqrt())
            rows += rows_of("the mean of x v", product, 0.0, size, _named(labels, inside))
    if not walled:
        rows.append(_configurational(thermal, excerpt, force, ends, states))
    return rows


def _degrees(states: StoredStates, moving: int) -> float:
    """Return by how much a mean over coordinates is too small where the centre was taken out."""
    if not states.centre_removed:
        return 1.0
    missing = states.place[-1] if len(states.place) > 1 else 1
    return moving / (moving - missing) if moving > missing else 1.0


def _named(labels: Sequence[str], columns: Tensor) -> list[str]:
    return [labels[int(c)] for c in columns]


def _positions(excerpt: Excerpt, states: StoredStates) -> Excerpt:
    """Return the positions of an excerpt."""
    x = excerpt.x[:, :, 0] if states.phase_space else excerpt.x
    return Excerpt(x, excerpt.frames, excerpt.times)


def _configurational(
    thermal: Thermal, excerpt: Excerpt, force: Tensor, ends: Ends, states: StoredStates
) -> Bias:
    """Return ⟨|∇U|²⟩/⟨∇²U⟩ with the error of a ratio of means."""
    places = _positions(excerpt, states)
    d = force.shape[-1]
    moving = ends.moving[:d]
    stride = max(1, -(-places.x.numel() // _OF_LAPLACIAN))
    some = Excerpt(places.x[::stride], places.frames[::stride], places.times[::stride])
    # over T/|F| the energy changes by T: no coordinate is moved by more than a small part of it
    size = thermal.temperature / force.flatten(0, 1).square().mean(0).sqrt()
    size = size.minimum(places.x.double().flatten(2).flatten(0, 1).std(0))
    laplacian = _laplacian(thermal.force, some, moving, size)
    squares = (force[::stride] * moving).square().sum(-1, keepdim=True)
    bend, T = float(laplacian.mean()), thermal.temperature
    name = "the configurational temperature ⟨|∇U|²⟩/⟨∇²U⟩"
    if not bend > 0:
        none = Average(math.nan, math.nan, 1.0, f"the mean of ∇²U is {bend:.3g}, and not > 0")
        return Bias.of(name, none, T, T)
    value = float(squares.mean()) / bend
    off = averages_of(together((squares - value * laplacian) / bend))[0]
    error = Average(value, off.standard_error, off.freedom, off.remark, off.skewness)
    return Bias.of(name, error, T, T)


def _laplacian(
    force: Callable[[State], State], places: Excerpt, moving: Tensor, size: Tensor
) -> Tensor:
    """Return ∇²U of states, shape (F, batch, 1), by differences of the force."""
    draws = stream(len(moving), "signs of Hutchinson").generator()

    def of(x: State, t: Tensor) -> Tensor:
        x = in_double(x, force)
        step = _STEP.get(x.dtype, 1e-2) * size.to(x)
        total = torch.zeros(len(x), dtype=torch.float64)
        for direction in _directions(moving, len(x), draws):
            shift = (direction.to(x) * step).reshape(x.shape)
            change = force(x - shift) - force(x + shift)
            safe = torch.where(step > 0, step, 1.0)
            weights = (direction.to(x) * (step > 0) / (2 * safe)).reshape(x.shape)
            total += (weights * change).flatten(1).sum(1).double()
        return total

    return asked(places, of, True)


def _directions(moving: Tensor, rows: int, draws: torch.Generator) -> list[Tensor]:
    """Return unit vectors, or one of random signs for each row."""
    d = len(moving)
    if int(moving.sum()) <= _EXACT:
        eye = torch.eye(d, dtype=torch.float64)[moving]
        return [one.expand(rows, d) for one in eye]
    signs = torch.randint(0, 2, (rows, d), generator=draws, dtype=torch.int8).double() * 2 - 1
    return [signs * moving]
