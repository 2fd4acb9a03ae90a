"""The law of particles whose centre of mass is held: noise of their distances alone.

A program that takes the motion of the centre out after each step leaves of the noise ξ of N
particles, in each dimension,

    z = ξ − n (n·ξ),        n_i = √m_i/√M

of the masses m_i: in the metric of the kinetic energy, so that temperature stays. N − 1 directions
beside n are left, and the rows of an orthonormal basis of them (Helmert's, for equal masses) make
of z as many independent standard normals.

Reference:
    Helmert 1876, Astron. Nachr. 88, 113.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.verification.innovations.law import Innovations, StepLaw


class InternalLaw(StepLaw):
    """The law of the motion beside that of the centre.

    Args:
        law: Of particles whose centre is free, a z for each coordinate.
        masses: Of the particles, shape (N,).
    """

    def __init__(self, law: StepLaw, masses: Tensor) -> None:
        self._law, self._basis = law, _basis(masses)
        self.name: str = f"{law.name}, beside the centre"
        self.alike: bool = law.alike
        self.remembers: bool = law.remembers
        self.starts_anywhere: bool = law.starts_anywhere

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        return self._internal(self._law.innovations(x, after, i))

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return z of steps in a row."""
        inner, memory = self._law.along(x, first, memory)
        return self._internal(inner), memory

    def _internal(self, inner: Innovations) -> Innovations:
        """Return innovations without those of the centre."""
        basis = self._basis
        gap, scale = inner.gap, inner.scale
        if gap is not None and scale is not None and gap.shape[1] == inner.z.shape[1]:
            gap, scale = _product(basis, gap), _product(basis.abs(), scale)
        z, pull = _product(basis, inner.z), _product(basis, inner.pull)
        # of equal units for all the volume is that of the directions that are left
        share = z.shape[1] / inner.z.shape[1]
        return replace(
            inner, z=z, pull=pull, log_scale=share * inner.log_scale, gap=gap, scale=scale
        )


def internal_law(law: StepLaw, sde: SDE, states: StoredStates) -> StepLaw:
    """Return a law beside the motion of the centre, where that was taken out of states.

    Args:
        law: Of particles whose centre is free.
        sde: What moves, by belief.
        states: What was stored.

    Raises:
        ValueError: If states are no particles, some are held, or z are not those of coordinates.
    """
    if not states.centre_removed:
        return law
    place = states.place
    if len(place) < 2:
        raise ValueError(
            f"centre_removed=True is for particles, of positions (particles, dimensions), but a "
            f"position has shape {place}; pass arrays of shape (T, batch, particles, dimensions)."
        )
    if not law.takes_centre or states.fixed is not None:
        what = "some are held" if states.fixed is not None else f"of {law.name} they are not"
        raise ValueError(
            "the motion of the centre can be left out where each number of the noise is that of "
            f"one coordinate, but {what}; store every step of a solver that draws one normal for "
            "each coordinate, such as BAOAB() or EulerMaruyama()."
        )
    mass = sde.mass if isinstance(sde, UnderdampedLangevin) else 1.0
    masses = torch.as_tensor(mass, dtype=torch.float64).detach().expand(place)
    first = masses.flatten(1)[:, 0]
    if bool((masses.flatten(1) != first[:, None]).any()):
        raise ValueError(
            "the centre of particles has one mass for each, but mass has another one in each "
            "dimension; pass mass of shape (particles, 1)."
        )
    return InternalLaw(law, first)


def _basis(masses: Tensor) -> Tensor:
    """Return orthonormal rows beside √m, shape (N − 1, N)."""
    n = masses.sqrt() / masses.sum().sqrt()
    whole = torch.cat([n[:, None], torch.eye(len(n), dtype=torch.float64)[:, 1:]], 1)
    rows: Tensor = torch.linalg.qr(whole)[0][:, 1:].T
    return rows


def _product(basis: Tensor, rows: Tensor) -> Tensor:
    """Return coordinates (n, N·D) in a basis of particles, (n, (N − 1)·D)."""
    particles = rows.reshape(len(rows), basis.shape[1], -1)
    return (basis.to(rows) @ particles).flatten(1)
