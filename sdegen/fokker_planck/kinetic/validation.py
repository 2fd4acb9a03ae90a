"""The door of the kinetic solver: which particle it takes, and what it refuses by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sdegen.core.enclosure import BoundaryLike, enclosure_of
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.kinetic.operator import Particle
from sdegen.sde.potentials import energy_of
from sdegen.sde.underdamped import UnderdampedLangevin

EVENT = (2, 1)
_WORD = "the kinetic equation"
_ROUNDED = 1e-5  # of the largest value: a field in single precision


def particle_of(sde: UnderdampedLangevin, time: float) -> Particle:
    """Return what a particle of one coordinate feels at a time, as functions of arrays.

    Args:
        sde: The dynamics.
        time: When the force is read.

    Raises:
        ValueError: If it has several coordinates, no friction, or no temperature.
    """
    if sde.own_methods("force"):
        raise ValueError(
            f"{_WORD} takes the force from the potential, but {type(sde).__name__} has a force "
            "of its own, which would be passed over: take simulate or run_ensemble; of a constant "
            "force on a ring, put it into the potential, U − F x."
        )
    friction = sde.friction if callable(sde.friction) else torch.as_tensor(sde.friction)
    mass, temperature = torch.as_tensor(sde.mass), float(torch.as_tensor(sde.temperature))
    for name, value in (("mass", mass), ("friction", friction)):
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(
                f"FokkerPlanck2D is for one position and its velocity, but {name} has "
                f"{value.numel()} numbers; of more coordinates take simulate or run_ensemble."
            )
    if sde.noise == "none":
        raise ValueError(
            f"{_WORD} needs friction and temperature > 0, which smooth its density, but they are "
            f"{sde.friction} and {temperature:g}: without noise each trajectory is its own; take "
            "simulate."
        )
    t = torch.tensor(time, dtype=torch.float64)

    def energy(x: Tensor) -> Tensor:
        return energy_of(sde.potential, x, t)

    return Particle(
        _of_arrays("the potential", energy),
        _of_arrays("the force −∇U", lambda x: sde.force(x, t)),
        _of_arrays("the friction", sde.friction_at),
        temperature,
        float(mass.reshape(())),
    )


def check_fields(sde: UnderdampedLangevin, particle: Particle, states: Tensor, t: Tensor) -> None:
    """Refuse a class of your own whose drift or noise is not that of its potential and friction.

    Args:
        sde: The dynamics.
        particle: What is solved for.
        states: A few states, shape (few, 2, 1).
        t: Time, 0-d.

    Raises:
        ValueError: With the field that differs.
    """
    x, v = (states[:, k, 0].numpy() for k in (0, 1))
    gamma = particle.friction(x)
    drift = np.stack([v, particle.force(x) / particle.mass - gamma * v], 1)
    noise = np.stack([0 * x, np.sqrt(2 * gamma * particle.temperature / particle.mass)], 1)
    with torch.no_grad():
        each = {
            "drift": (sde.drift(states, t), drift),
            "diffusion": (sde.diffusion(states, t).expand_as(states), noise),
        }
    for name, (own, assumed) in each.items():
        read = own.detach().double().reshape(len(x), 2).numpy()
        off = float(np.abs(read - assumed).max())
        if not off <= _ROUNDED * max(1.0, float(np.abs(assumed).max())):
            raise ValueError(
                f"{_WORD} is that of a potential, a friction, a temperature and a mass, but the "
                f"{name} of {type(sde).__name__} differs from theirs by {off:.3g}; change these "
                "in place of the method, or take simulate."
            )


def _of_arrays(name: str, field: Callable[[Tensor], Tensor]) -> Callable[[Array], Array]:
    """Return a field of positions (batch, 1) as a function of arrays."""

    def values(x: Array) -> Array:
        states = torch.from_numpy(np.ascontiguousarray(x))[:, None]
        with torch.no_grad():
            read = field(states).detach().double()
        if read.ndim == 0 or len(read) == 1:
            read = read.expand(len(x), *read.shape[1:])
        if read.numel() != len(x):
            raise ValueError(
                f"FokkerPlanck2D is for one position and its velocity, but for positions of shape "
                f"{tuple(states.shape)} {name} has shape {tuple(read.shape)}."
            )
        array = np.array(read.reshape(-1).numpy())
        if not np.isfinite(array).all():
            k = int((~np.isfinite(array)).argmax())
            raise ValueError(
                f"{name} must be finite on the grid, but is {array[k]:g} at x = {float(x[k]):g}; "
                "let the grid end before it."
            )
        return array

    return values


def check_form(form: object) -> None:
    """Refuse a form that is asked for by name: there is one.

    Raises:
        ValueError: If it is not "auto".
    """
    if form != "auto":
        raise ValueError(
            f"form must be 'auto' for an underdamped particle, but is {form!r}: {_WORD} is solved "
            "in Hermite functions, which keep linearity and are positive to their accuracy."
        )


def check_walls(boundary: BoundaryLike | None) -> None:
    """Refuse walls that the kinetic equation has not.

    Raises:
        ValueError: If a velocity is bounded, or a position is absorbed.
    """
    enclosure = enclosure_of(boundary, EVENT)
    if enclosure is None:
        return
    if enclosure.of(1) is not None:
        raise ValueError(
            "the velocity of an underdamped particle has no walls; pass boundary={0: …}, those of "
            "its position."
        )
    interval = enclosure.of(0)
    if interval is not None and interval.absorbs:
        raise ValueError(
            f"{_WORD} with an absorbing position is not built: its density jumps at v = 0 at the "
            "wall, where Hermite functions fail. Take run_ensemble with "
            "boundary={0: Absorbing(…)}; of a rate of escape, spectrum(2) of the whole potential."
        )


def check_count(grids: tuple[Grid, Grid], width: float) -> None:
    """Refuse a grid of velocities on which the Maxwell distribution is no density.

    Args:
        grids: Both grids.
        width: √(T/m).

    Raises:
        ValueError: If v = 0 lies outside, or cells are wider than √(T/m).
    """
    v = grids[1]
    widest = float(v.widths.max())
    if not v.low < 0 < v.high:
        raise ValueError(
            f"the grid of the velocity must hold v = 0, but goes from {v.low:g} to {v.high:g}; "
            f"pass Grid({-8 * width:.3g}, {8 * width:.3g}, cells={v.cells})."
        )
    if widest > width:
        cells = math.ceil((v.high - v.low) / (0.5 * width))
        raise ValueError(
            f"cells of the velocity must be narrower than √(T/m) = {width:.3g}, but are "
            f"{widest:.3g} wide; pass Grid({v.low:g}, {v.high:g}, cells={cells})."
        )
