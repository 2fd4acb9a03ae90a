"""Periodic boxes of pairs: images that are missing, or that are those of another coordinate."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.sde.neighbours import lengths_of
from sdegen.sde.pair_forces import PairForces
from sdegen.sde.potentials import Potential
from sdegen.sde.processes import Langevin
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import Alternative, of_law
from sdegen.verification.innovations.law import StepLaw

_KIND = "boundary"
_MOST = 256  # particles of which all pairs are looked at
Turns = Callable[[Tensor], Tensor]  # by how many boxes x_i − x_j is moved, of the nearest images


class WrongImages(Potential):
    """Pair forces whose differences x_i − x_j are moved by other numbers of boxes.

    Args:
        pairs: Forces that are believed, in a box.
        turns: Of the numbers of boxes to the nearest image, shape (batch, N, N, d).
    """

    def __init__(self, pairs: PairForces, turns: Turns) -> None:
        self._pairs, self._turns = pairs, turns

    def energy(self, x: State) -> Tensor:
        """Refuse it: forces with wrong images have none."""
        raise NotImplementedError("forces with wrong images are not those of an energy.")

    def force(self, x: State) -> State:
        """Return the sum of the forces of all pairs, shape of x."""
        pairs = self._pairs
        lengths = torch.tensor(lengths_of(pairs.box, x.shape[2]), dtype=x.dtype)
        apart = x[:, :, None] - x[:, None]
        apart = apart - lengths * self._turns((apart / lengths).round())
        r = apart.square().sum(-1).sqrt()
        own = torch.eye(x.shape[1], dtype=torch.bool)
        near = (r < pairs._reach) & ~own & (r > 0)
        safe = torch.where(near, r, 0.5 * min(pairs._reach, 1.0))
        strength = torch.where(near, -pairs.potential.slope(safe.flatten()).view_as(r) / safe, 0.0)
        force: Tensor = (strength[..., None] * apart).sum(2)
        return force if pairs.external is None else force + pairs.external.force(x)


def image_alternatives(belief: Belief) -> list[Alternative]:
    """Return mistakes of the images of particles; none where there is no box."""
    sde = belief.sde
    if not isinstance(sde, Langevin | UnderdampedLangevin):
        return []
    pairs = getattr(sde, "potential", None)
    if not isinstance(pairs, PairForces) or pairs.box is None:
        return []
    event = belief.states.event
    if event[-2] > _MOST:
        return []
    words = "pairs interacted inside of the box alone, without the nearest image"
    table: list[tuple[str, str, Turns]] = [("minimum image missing", words, torch.zeros_like)]
    name = "image of another coordinate"
    for c in range(event[-1] if event[-1] > 1 else 0):
        words = f"the images of all coordinates were those of coordinate {c}"
        table.append((name, words, _of_one(c)))
    if event[-1] > 1:
        words = "the images of each coordinate were those of the next"
        table.append((name, words, lambda turns: turns.roll(-1, -1)))
    for c in range(event[-1] if event[-1] > 1 else 0):
        words = f"coordinate {c} had no nearest image"
        table.append(("minimum image missing in a coordinate", words, _without(c)))
    return [of_law(name, _KIND, words, _law(belief, pairs, turns)) for name, words, turns in table]


def _of_one(c: int) -> Turns:
    return lambda turns: turns[..., c : c + 1].expand(turns.shape)


def _without(c: int) -> Turns:
    def turns_of(turns: Tensor) -> Tensor:
        keep = torch.ones(turns.shape[-1], dtype=turns.dtype)
        keep[c] = 0
        return turns * keep

    return turns_of


def _law(belief: Belief, pairs: PairForces, turns: Turns) -> Callable[[], StepLaw]:
    """Return the law of the dynamics with these images."""

    def law() -> StepLaw:
        sde = copy.copy(belief.sde)
        sde.potential = WrongImages(pairs, turns)  # type: ignore[attr-defined]
        return belief.law_with(sde=sde)

    return law
