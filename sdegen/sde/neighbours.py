"""Neighbours: which pairs of particles are closer than a distance, without looking at all pairs.

Particles in a periodic box have images, and a pair counts at its shortest distance: of each
component of x_i − x_j the image

    d − L round(d/L),        |d| ≤ L/2

is taken (the minimum image), for coordinates within the box and outside of it alike. Two images
of one particle are never within a cutoff of L/2 or less, which is why longer ones are refused.

Up to `_FEW_PARTICLES` particles all pairs are looked at. Of more, a k-d tree with periodic ends
(`scipy.spatial.cKDTree`) lists those closer than cutoff + skin, and the list serves as long as no
particle is further than skin/2 from where it was: two particles then came closer by at most the
skin, and no pair within the cutoff is missing (Verlet 1967). Particles that moved further have
their system listed again.

A list is a memory, and results must not depend on it: the same states give the same bits after
another history, in another thread, and after a resume. So it decides nothing. Distances are
computed anew, pairs beyond the cutoff are taken out, and those that remain stand in the order of
(i, j) whatever list they came from: the sums over them are the same numbers in the same order.
And it proves itself: where states came from does not count, only how far they are from the
list's, so that blocks may take turns. Each thread has its own lists.

Reference:
    Verlet 1967, Physical Review 159, 98, section II; Allen and Tildesley 2017, sections 1.6, 5.3.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_numbers, as_state
from sdegen.core.shapes import State

Lengths = tuple[float, ...]  # of the box, one for each dimension; none in open space

# up to which all pairs cost less than a list: measured, between 130 and 200 they cost the same, of
# discs in two dimensions and of Lennard-Jones particles in three
_FEW_PARTICLES = 150
# of the cutoff. Measured, 0.2 to 0.35 is best of a Lennard-Jones fluid cut at 2.5; of discs, which
# touch few others, 0.75 to 1.5, at half the cost of this one
_SKIN = 0.35
_GUARD = 1e-6  # of the skin, for what rounding takes from it
_LISTS = 4  # of one thread


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs i < j closer than the cutoff, of all systems, in the order of (system, i, j).

    Attributes:
        first: i + N · system, shape (P,).
        second: j + N · system, shape (P,).
        components: Components of x_i − x_j at the shortest distance, one tensor (P,) for each
            dimension.
        distance: |x_i − x_j|, shape (P,).
    """

    first: Tensor
    second: Tensor
    components: tuple[Tensor, ...]
    distance: Tensor


@dataclass(frozen=True, eq=False)
class _List:
    """Candidates: all pairs within cutoff + skin of where the particles were.

    Attributes:
        shape: Of the positions.
        first: i + N · system.
        second: j + N · system.
        places: Where the particles were, shape (batch, N, dim), float64; None: all pairs are
            listed, which holds wherever they go.
        systems: Keys i N + j of each system.
    """

    shape: torch.Size
    first: Tensor
    second: Tensor
    places: Tensor | None = None
    systems: tuple[np.ndarray, ...] = ()


class NeighbourLists(threading.local):
    """The lists of each thread, for one box and one cutoff.

    Args:
        box: Length of the box, or one for each dimension; None: open space.
        cutoff: Distance below which pairs count; infinite: all do.
    """

    def __init__(self, box: float | Lengths | None, cutoff: float) -> None:
        self._box, self._cutoff, self._skin = box, cutoff, _SKIN * cutoff
        self._lists: list[_List] = []

    def __reduce__(self) -> tuple[type[NeighbourLists], tuple[float | Lengths | None, float]]:
        """Leave the lists behind where an object is copied or sent."""
        return NeighbourLists, (self._box, self._cutoff)

    def pairs(self, x: State) -> Pairs:
        """Return the pairs within the cutoff.

        Args:
            x: Finite positions, shape (batch, particles, dim).
        """
        listed = self._list_of(x.detach().double())
        first, second = listed.first, listed.second
        # in double precision, so that a float32 pair is within the cutoff wherever it stands
        columns = [x[..., c].reshape(-1).double() for c in range(x.shape[2])]
        parts = self._components(columns, first, second)
        if self._cutoff < math.inf:
            within = (_square(parts).detach() < self._cutoff**2).nonzero()[:, 0]
            first, second, *chosen = (
                part.index_select(0, within) for part in (first, second, *parts)
            )
            parts = tuple(chosen)
        return Pairs(first, second, tuple(part.to(x.dtype) for part in parts), _root(parts).to(x))

    def _components(
        self, columns: list[Tensor], first: Tensor, second: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the components of x_i − x_j at the shortest distance."""
        gaps = (
            column.index_select(0, first) - column.index_select(0, second) for column in columns
        )
        lengths = lengths_of(self._box, len(columns))
        if not lengths:
            return tuple(gaps)
        return tuple(minimum_image(gap, length) for gap, length in zip(gaps, lengths, strict=True))

    @torch.inference_mode(False)  # a list may serve a run with gradients later
    def _list_of(self, x: Tensor) -> _List:
        """Return a list that holds all pairs within the cutoff, the one used last first."""
        best, fewest = None, len(x)
        for known in self._lists:
            if known.shape != x.shape or known.first.device != x.device:
                continue
            far = None if known.places is None else self._moved(x, known.places)
            count = 0 if far is None else int(far.sum())
            if count == 0:
                return self._used(known, known)
            if count < fewest:
                best, fewest, moved = known, count, far
        if best is None:
            return self._used(self._new(x), None)
        assert moved is not None
        return self._used(self._renewed(x, best, moved), best)

    def _used(self, current: _List, instead_of: _List | None) -> _List:
        """Put a list first, in place of an older one; only a few are held."""
        if not (self._lists and self._lists[0] is current):
            others = [one for one in self._lists if one is not instead_of]
            self._lists = [current, *others][:_LISTS]
        return current

    def _moved(self, x: Tensor, places: Tensor) -> Tensor:
        """Return which systems have a particle further than skin/2 from its place."""
        gaps = list((x - places).unbind(-1))
        lengths = lengths_of(self._box, len(gaps))
        if lengths:
            gaps = [minimum_image(gap, length) for gap, length in zip(gaps, lengths, strict=True)]
        reach = (0.5 - _GUARD) * self._skin
        return (_square(tuple(gaps)) > reach**2).any(1)

    def _new(self, x: Tensor) -> _List:
        batch, particles, _ = x.shape
        reach = self._cutoff + self._skin
        if (
            particles <= _FEW_PARTICLES
            or not reach < min(lengths_of(self._box, x.shape[2]), default=math.inf) / 2
        ):
            i, j = torch.triu_indices(particles, particles, 1, device=x.device)
            shift = particles * torch.arange(batch, device=x.device)[:, None]
            return _List(x.shape, (i + shift).reshape(-1), (j + shift).reshape(-1))
        every = torch.ones(batch, dtype=torch.bool)
        return self._renewed(x, _List(x.shape, x, x, x, (np.empty(0),) * batch), every)

    def _renewed(self, x: Tensor, known: _List, far: Tensor) -> _List:
        """List systems of which a particle has moved, and keep the others as they are."""
        assert known.places is not None
        places, systems, particles = known.places.clone(), list(known.systems), x.shape[1]
        for b in far.nonzero()[:, 0].tolist():
            places[b] = x[b]
            systems[b] = self._keys(x[b].cpu().numpy())
        keys = [system + b * particles**2 for b, system in enumerate(systems)]
        first, second = np.divmod(np.concatenate(keys), particles)
        # the key b N² + i N + j is (b N + i) N + j
        second += first // particles * particles
        device = x.device
        return _List(
            x.shape,
            torch.from_numpy(first).to(device),
            torch.from_numpy(second).to(device),
            places,
            tuple(systems),
        )

    def _keys(self, x: np.ndarray) -> np.ndarray:
        """Return i N + j of the pairs within cutoff + skin, sorted."""
        pairs = tree_of(x, lengths_of(self._box, x.shape[1])).query_pairs(
            self._cutoff + self._skin, output_type="ndarray"
        )
        return np.sort(pairs[:, 0].astype(np.int64) * len(x) + pairs[:, 1])


def tree_of(x: np.ndarray, lengths: Lengths) -> cKDTree:
    """Return a k-d tree of positions (particles, dim), periodic where there is a box."""
    if not lengths:
        return cKDTree(x, balanced_tree=False, compact_nodes=False)
    size = np.asarray(lengths)
    inside = x - size * np.floor(x / size)
    inside[inside >= size] = 0.0  # what is below 0 by less than rounding
    return cKDTree(inside.clip(min=0.0), boxsize=size, balanced_tree=False, compact_nodes=False)


def minimum_image(gap: Tensor, length: float) -> Tensor:
    """Return a difference of coordinates at its shortest image, d − L round(d/L).

    >>> minimum_image(torch.tensor([0.75, -7.0]), 1.0)
    tensor([-0.2500, 0.0000])
    """
    return gap - length * (gap.detach() / length).round()


def check_box(box: object) -> float | Lengths | None:
    """Return a box as numbers: a length, one for each dimension, or None for open space.

    Raises:
        TypeError: If it is neither.
        ValueError: If a length is not finite and positive.
    """
    if box is None:
        return None
    lengths = as_numbers("box", box, expected="a length, one length for each dimension, or None")
    if lengths.ndim > 1 or lengths.numel() == 0:
        raise ValueError(
            "box must be a length, or one for each dimension, such as (10.0, 20.0), but has shape "
            f"{tuple(lengths.shape)}."
        )
    for length in lengths.reshape(-1).tolist():
        check_positive("box", length)
    return float(lengths) if lengths.ndim == 0 else tuple(lengths.tolist())


def lengths_of(box: float | Lengths | None, dim: int) -> Lengths:
    """Return L of each dimension; none in open space."""
    if box is None:
        return ()
    return (box,) * dim if isinstance(box, float) else box


def check_positions(x: State, box: float | Lengths | None) -> State:
    """Return positions of particles, or refuse states of another shape.

    Raises:
        TypeError: If x is no tensor, NumPy array or list.
        ValueError: If x is not (batch, particles, dim), or the box has another dimension.
    """
    x = as_state("x", x)
    if x.ndim != 3:
        cure = "; on a line, dim is 1: pass x[..., None]" if x.ndim == 2 else ""
        raise ValueError(
            "states of particles must have shape (batch, particles, dim), but have shape "
            f"{tuple(x.shape)}{cure}."
        )
    if isinstance(box, tuple) and len(box) != x.shape[2]:
        raise ValueError(
            f"box has {len(box)} lengths, one for each dimension, but positions have dim = "
            f"{x.shape[2]}, of shape (batch, particles, dim) = {tuple(x.shape)}."
        )
    return x


def _square(parts: tuple[Tensor, ...]) -> Tensor:
    """Return the sum of squares, in the order of the components."""
    total = parts[0] * parts[0]
    for part in parts[1:]:
        total = total + part * part
    return total


def _root(parts: tuple[Tensor, ...]) -> Tensor:
    """Return the distance, whose gradient at 0 is 0 and not NaN."""
    square = _square(parts)
    at_zero = square == 0
    if not bool(at_zero.any()):
        return square.sqrt()
    return torch.where(at_zero, 0.0, torch.where(at_zero, 1.0, square).sqrt())
