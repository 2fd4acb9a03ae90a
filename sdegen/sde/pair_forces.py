"""Forces between all pairs of particles: the potential of a gas, a fluid or a solid.

    U(x) = Σ_{i<j} [U₂(r_ij) − U₂(r_c)] + U_ext(x),        r_ij < r_c

for N particles in d dimensions, states (batch, N, d): each system is one trajectory, and no
system feels another. In a periodic box r_ij is the distance of nearest images (`neighbours.py`).
The pair energy is cut at r_c and shifted, so that it is continuous; its force −U₂′ is not changed,
and jumps at r_c where U₂ has a slope there. What follows of U, such as e^{−U/T} and the pressure,
is that of the shifted potential: no tail beyond r_c is added.

The virial W = Σ_{i<j} r_ij · F_ij = −Σ r U₂′(r) gives the pressure of a periodic box,

    P = N T/V + W/(d V),        ⟨P⟩ = −∂F/∂V

at uniform scaling of the box; the box is that of the pairs, and an external potential, which
would have to scale with it, leaves the pressure without a meaning.

Positions may lie outside of the box, as without a boundary they do after a while, and may be kept
in it by `Periodic(0, L)`: the forces are the same to rounding.

Reference:
    Allen and Tildesley 2017, Computer Simulation of Liquids, sections 1.4, 1.6 and 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.requests import as_number, as_state
from sdegen.core.shapes import Numbers, State, rows_nonfinite
from sdegen.sde.neighbours import (
    Lengths,
    NeighbourLists,
    Pairs,
    check_box,
    check_positions,
    lengths_of,
)
from sdegen.sde.pair_potentials import FunctionPair, PairPotential, as_pair_potential
from sdegen.sde.potentials import DrivenPotential, Potential, as_any_potential

_ROUNDED = 1e-9  # of a period
_SYSTEMS = 2**20  # numbers of positions that are looked at together before a run


class PairForces(Potential):
    """Forces between all pairs of particles, for states (batch, particles, dim).

        U(x) = Σ_{i<j} [U₂(r_ij) − U₂(r_c)] + U_ext(x),   r_ij < r_c

    A `Potential` for `Langevin`, and a drift for `ItoProcess`: it may be called with x. Large
    systems are looked through by neighbour lists; the bits do not depend on them.

    Args:
        potential: U₂ of a distance: a pair potential such as `HarmonicRepulsion()`, or a function
            U(r) of distances (P,) in torch, which returns one energy for each.
        box: Length of a periodic box, or one for each dimension; None: open space.
        cutoff: r_c, at most half of the box. Energies are shifted by U₂(r_c). None: the range of
            the potential, or none in open space.
        external: What acts on each particle besides: a `Potential`, or a function of x, such as
            Quadratic(); it sees positions as they are, inside of the box or not.

    Raises:
        TypeError: If potential or external is neither, or box or cutoff no number.
        ValueError: If cutoff ≤ 0, the box is smaller than two cutoffs, a box has no cutoff, or
            the function returns another shape or has another slope than autograd finds.

    Example:
        >>> pairs = sg.PairForces(sg.HarmonicRepulsion(stiffness=4.0), box=10.0)
        >>> pairs.force(torch.tensor([[[0.25], [9.75]]])).flatten().tolist()  # k (σ − ½)
        [2.0, -2.0]
    """

    def __init__(
        self,
        potential: PairPotential | Callable[[Tensor], Tensor],
        *,
        box: Numbers | None = None,
        cutoff: float | None = None,
        external: Potential | Callable[[State], Tensor] | None = None,
    ) -> None:
        self.potential: PairPotential = as_pair_potential(potential)
        self.box: float | Lengths | None = check_box(box)
        self.cutoff: float | None = None if cutoff is None else as_number("cutoff", cutoff)
        if self.cutoff is not None:
            check_positive("cutoff", self.cutoff)
        self.external: Potential | None = None if external is None else _at_rest(external)
        self._reach = min(self.potential.range, math.inf if self.cutoff is None else self.cutoff)
        self._check_reach()
        if isinstance(self.potential, FunctionPair):
            self.potential.check(self._reach)
        self._lists = NeighbourLists(self.box, self._reach)

    def _check_reach(self) -> None:
        """Refuse a box that is smaller than two cutoffs, or one without a cutoff."""
        if self.box is None:
            return
        name = type(self.potential).__name__
        if self._reach == math.inf:
            raise ValueError(
                f"a box needs a cutoff, beyond which pairs do not interact, but {name} has no "
                f"range; pass cutoff=, at most {self._shortest() / 2:g}, half of the box."
            )
        if self._shortest() < 2 * self._reach:
            raise ValueError(
                f"box must be at least two cutoffs long, 2 × {self._reach:g}, so that no particle "
                f"meets two images of another, but is {self._shortest():g}; pass a larger box, or "
                f"cutoff={self._shortest() / 2:g} or less."
            )

    def _shortest(self) -> float:
        assert self.box is not None
        return min(self.box) if isinstance(self.box, tuple) else self.box

    def __call__(self, x: State) -> State:
        """Return the forces, as a drift."""
        return self.force(x)

    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,); NaN for a system with a position that is not finite."""
        x = check_positions(x, self.box)
        lost = rows_nonfinite(x)
        if bool(lost.any()):
            return _with_lost(self.energy, x, lost, x.new_full(x.shape[:1], math.nan))
        pairs = self._pairs(x)
        value = self.potential.energy(pairs.distance)
        if self._reach < math.inf:
            value = value - self.potential.energy(value.new_full((1,), self._reach))
        total = self._sum_of_pairs(value, pairs, x)
        return total if self.external is None else total + self.external.energy(x)

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x; NaN for a system with a position that is not finite.

        It is not finite where particles coincide, unless U₂ is flat at r = 0.
        """
        x = check_positions(x, self.box)
        lost = rows_nonfinite(x)
        if bool(lost.any()):
            return _with_lost(self.force, x, lost, torch.full_like(x, math.nan))
        pairs = self._pairs(x)
        strength = self._strength(pairs)
        columns = []
        for part in pairs.components:
            push = strength * part
            column = x.new_zeros(x.shape[0] * x.shape[1])
            column = _added(_added(column, pairs.first, push), pairs.second, -push)
            columns.append(column.reshape(x.shape[:2]))
        force = torch.stack(columns, -1)
        return force if self.external is None else force + self.external.force(x)

    def virial(self, x: State) -> Tensor:
        """W = Σ_{i<j} r_ij · F_ij of the pairs, shape (batch,)."""
        x = check_positions(x, self.box)
        lost = rows_nonfinite(x)
        if bool(lost.any()):
            return _with_lost(self.virial, x, lost, x.new_full(x.shape[:1], math.nan))
        pairs = self._pairs(x)
        return self._sum_of_pairs(-pairs.distance * self.potential.slope(pairs.distance), pairs, x)

    def pressure(self, x: State, temperature: float) -> Tensor:
        """P = N T/V + W/(d V) of each state, shape (batch,), whose mean is the pressure.

        Args:
            x: Positions, shape (batch, particles, dim).
            temperature: T of the ideal part.

        Raises:
            ValueError: If there is no box, or an external potential.
        """
        if self.box is None:
            raise ValueError("the pressure is that of a periodic box, but box is None; pass box=.")
        if self.external is not None:
            raise ValueError(
                "the pressure is that of the pairs in a box that is scaled, but an external "
                f"potential acts too, {type(self.external).__name__}; leave external out."
            )
        check_positive("temperature", temperature)
        x = check_positions(x, self.box)
        particles, dim = x.shape[1:]
        volume = self.volume(dim)
        return (particles * temperature + self.virial(x) / dim) / volume

    def volume(self, dim: int) -> float:
        """Return the volume of the box, Π L; infinite in open space."""
        check_count("dim", dim)
        return math.prod(lengths_of(self.box, dim)) if self.box is not None else math.inf

    def check_start(self, x: State, periods: Tensor | None = None) -> None:
        """Refuse a start with two particles between which the force is not finite.

        Args:
            x: Positions, shape (batch, particles, dim).
            periods: Of the boundary that keeps them, shape (particles, dim), 0 where it has none.

        Raises:
            ValueError: With the system and the pair; or if a period is not that of the box.
        """
        if periods is not None:
            self._check_periods(as_state("periods", periods))
        x = check_positions(x, self.box).detach()
        size = max(1, _SYSTEMS // max(1, x[0].numel()))
        for begin in range(0, len(x), size):
            pairs = self._pairs(x[begin : begin + size])
            bad = ~self._strength(pairs).isfinite()
            if bool(bad.any()):
                k, particles = int(bad.nonzero()[0]), x.shape[1]
                i, j = int(pairs.first[k]), int(pairs.second[k])
                b = begin + i // particles
                raise ValueError(
                    f"the force between particles {i % particles} and {j % particles} of system "
                    f"{b} is not finite: they start {float(pairs.distance[k]):g} apart, near "
                    f"{x[b, i % particles].tolist()}; start them further apart, such as on a "
                    "lattice."
                )

    def _check_periods(self, periods: Tensor) -> None:
        """Refuse periods that are no multiples of the box."""
        dim = periods.shape[-1]
        lengths = lengths_of(self.box, dim) or (math.inf,) * dim
        for c, length in enumerate(lengths):
            for period in sorted(set(periods[..., c].flatten().tolist())):
                turns = period / length
                if period > 0 and (turns < 0.5 or abs(turns - round(turns)) > _ROUNDED * turns):
                    box = "open space" if length == math.inf else f"a box of {length:g}"
                    raise ValueError(
                        f"the boundary has the period {period:g} in dimension {c}, but the "
                        f"particles interact in {box}; pass a box of that length to PairForces, "
                        "or a boundary with the period of the box."
                    )

    def _pairs(self, x: State) -> Pairs:
        """Return the pairs that interact."""
        return self._lists.pairs(x)

    def _strength(self, pairs: Pairs) -> Tensor:
        """Return −U₂′(r)/r, by which x_i − x_j is multiplied; 0 at r = 0 where U₂ is flat."""
        r = pairs.distance
        slope = self.potential.slope(r)
        at_zero = r == 0
        if not bool(at_zero.any()):
            return -slope / r
        strength = -slope / torch.where(at_zero, 1.0, r)
        return torch.where(at_zero & (slope != 0), math.nan, strength)

    def _sum_of_pairs(self, value: Tensor, pairs: Pairs, x: State) -> Tensor:
        """Return the sum over the pairs of each system, shape (batch,)."""
        system = pairs.first // x.shape[1]
        total = x.new_zeros(len(x), dtype=torch.float64)
        return _added(total, system, value.double()).to(x.dtype)


def _at_rest(external: object) -> Potential:
    """Return an external potential, which nothing drives."""
    potential = as_any_potential(external)
    if isinstance(potential, DrivenPotential):
        raise TypeError(
            "external must not depend on time, but is a function of t too; pass "
            "DrivenPotential(lambda t: PairForces(…, external=…)) to the dynamics, with what acts "
            "at t."
        )
    return potential


def _added(total: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Return the total with values added in their order, in every run the same."""
    if total.is_cuda:  # where index_add adds in whatever order comes
        return total.index_put((places,), values, accumulate=True)
    return total.index_add(0, places, values)


def _with_lost(
    function: Callable[[State], Tensor], x: State, lost: Tensor, answer: Tensor
) -> Tensor:
    """Return the answers of the systems that are finite, among the others' NaN."""
    answer[~lost] = function(x[~lost])
    return answer
