"""Transitions of linear rates that change in time, by the Magnus expansion.

    dX = (c(t) − A(t) X) dt + B(t) dW

Φ, m and Σ are blocks of Y' = K(t) Y with

        ⎛ −A   BBᵀ  c ⎞
    K = ⎜  0   Aᵀ   0 ⎟ ,        Y(s) = e^Ω Y(t).
        ⎝  0   0    0 ⎠

Over a panel of length h with middle ū, and M_i = ∫ ((u − ū)/h)^i K(u) du by the four points of
Lobatto's rule,

    α_1 = ¾ (3 M_0 − 20 M_2),    α_2 = 12 M_1,    α_3 = −15 (M_0 − 12 M_2)
    Ω = α_1 + α_3/12 + (1/240) [−20 α_1 − α_3 + C_1, α_2 + C_2]
    C_1 = [α_1, α_2],    C_2 = −(1/60) [α_1, 2 α_3 + C_1]

of order 6. Commutators keep the form of K, so that a panel is a transition of constant rates
(`constant_law`), however stiff; panels one after the other are composed. Each is compared with its
two halves, and is halved where they differ: panels crowd where rates change fast, and close in on
a jump. The whole is then known twice, by panels and by halves; the difference is the error that
must pass. What no point meets is not seen: a pulse that is shorter than a fiftieth of the time
between t and s asks for a time of its own beside it.

Reference:
    Blanes, Casas and Ros 2000, BIT 40, 434; Blanes, Casas, Oteo and Ros 2009, Phys. Rep. 470, 151,
    section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.errors import SolverError
from sdegen.sde.transitions import Transition, constant_law

Rates = Callable[[float], tuple[Tensor, Tensor, Tensor]]  # A, B Bᵀ and c at a time
_Panels = tuple[Tensor, Transition, Transition]  # starts, transitions by one step and by two

TOLERANCE = 1e-10  # of Φ relative to max(1, |Φ|), of m and Σ to their largest on the way
_ASKED = (5e-11, 5e-11, 5e-12)  # of all panels before they are halved; again with better scales
_ROUNDING = 2e-14  # of one panel: below it nothing is gained
_FIRST, _MOST = 8, 20_000  # panels: at first, and at most
_ROUNDS = 45  # halvings: what is left then holds a jump, and is as short as times are told apart
_NODES = (-0.5, -0.5 / math.sqrt(5), 0.5 / math.sqrt(5), 0.5)  # of Lobatto, from the middle
_WEIGHTS = (1 / 12, 5 / 12, 5 / 12, 1 / 12)
_POWERS = [[w * v**i for w, v in zip(_WEIGHTS, _NODES, strict=True)] for i in range(3)]


def varying_law(rates: Rates, t: float, s: float, name: str) -> Transition:
    """Return the transition from t to s > t of rates that change in time.

    Args:
        rates: A, shape (d, d), B Bᵀ, (d, d), and c, (d,), at a time.
        t: Earlier time.
        s: Later time.
        name: Whose rates they are.

    Raises:
        SolverError: If two answers differ by more than 1e-10, with the numbers.
    """
    generator, scales = _Generator(rates), _Scales()
    for asked in _ASKED:
        rough, better = _panels(generator, t, s, scales, asked)
        count, scales = len(better.matrix), _Scales()
        rough, better = _composed(rough, None), _composed(better, scales)
        gap = float(scales.gaps(rough, better))
        if gap <= TOLERANCE and count <= _MOST:
            return Transition(better.matrix[0], better.shift[0], better.covariance[0])
    raise SolverError(
        f"the transition of {name} from t = {t:g} to {s:g} is not known to {TOLERANCE:g}: two "
        f"answers differ by {gap:.2g}, after {count} panels of time. Ask for times that are "
        "nearer to each other, such as one at each jump of the rates."
    )


def _panels(
    generator: _Generator, t: float, s: float, scales: _Scales, asked: float
) -> tuple[Transition, Transition]:
    """Return the transitions of panels from t to s in order, by one step and by two.

    Panels are halved until both agree; what is left of a jump after many rounds is known once.
    """
    edges = torch.linspace(t, s, _FIRST + 1, dtype=torch.float64)
    starts, ends = edges[:-1], edges[1:]
    if not scales.known:
        scales.see(generator.bounds(starts, ends))
    coarse, done, count = generator.laws(starts, ends), list[_Panels](), 0
    for _ in range(_ROUNDS):
        middles = (starts + ends) / 2
        halves = torch.stack([starts, middles], 1), torch.stack([middles, ends], 1)
        fine = generator.laws(*(edge.flatten() for edge in halves))
        better = _part(fine, slice(0, None, 2)).then(_part(fine, slice(1, None, 2)))
        count += len(starts)
        share = ((ends - starts) / (s - t)).clamp(min=1 / (4 * count))
        good = scales.gaps(coarse, better) <= (asked * share).clamp(min=_ROUNDING)
        done.append((starts[good], _part(coarse, good), _part(better, good)))
        again = ~good
        starts, ends = (edge[again].flatten() for edge in halves)
        coarse = _part(fine, again.repeat_interleave(2))
        count += len(starts) - int(again.sum())
        if len(starts) == 0 or count > _MOST:
            break
    done.append((starts, coarse, coarse))
    order = torch.cat([begins for begins, _, _ in done]).argsort()
    rough = _joined([one for _, one, _ in done])
    return _part(rough, order), _part(_joined([two for _, _, two in done]), order)


def _composed(laws: Transition, scales: _Scales | None) -> Transition:
    """Return transitions one after the other as one, pair by pair, with a leading axis of one."""
    while True:
        if scales is not None:
            scales.see(laws)
        n = len(laws.matrix)
        if n == 1:
            return laws
        even = n - n % 2
        pairs = _part(laws, slice(0, even, 2)).then(_part(laws, slice(1, even, 2)))
        laws = _joined([pairs, _part(laws, slice(even, None))])


def _part(laws: Transition, some: slice | Tensor) -> Transition:
    """Return some of the transitions along the leading axis."""
    return Transition(laws.matrix[some], laws.shift[some], laws.covariance[some])


def _joined(laws: list[Transition]) -> Transition:
    """Return transitions along one leading axis."""
    return Transition(
        torch.cat([law.matrix for law in laws]),
        torch.cat([law.shift for law in laws]),
        torch.cat([law.covariance for law in laws]),
    )


class _Generator:
    """K at times, and the transitions of panels.

    Args:
        rates: A, B Bᵀ and c at a time.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates, self._known = rates, dict[float, Tensor]()

    def laws(self, starts: Tensor, ends: Tensor) -> Transition:
        """Return the transitions of panels, by one Magnus step each, along a leading axis."""
        times = [
            {-0.5: a, 0.5: b}.get(node, (a + b) / 2 + node * (b - a))
            for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
            for node in _NODES
        ]
        values = torch.stack([self._at(u) for u in times])
        values = values.reshape(len(starts), len(_NODES), *values.shape[1:])
        h = (ends - starts).to(values)[:, None, None]
        moments = [
            h * (values * values.new_tensor(powers)[:, None, None]).sum(1) for powers in _POWERS
        ]
        omega = _exponent(*moments)
        d = (omega.shape[-1] - 1) // 2
        square = 0.5 * (omega[:, :d, d : 2 * d] + omega[:, :d, d : 2 * d].mT)
        return constant_law(-omega[:, :d, :d], square, omega[:, :d, 2 * d], 1.0)

    def bounds(self, starts: Tensor, ends: Tensor) -> Transition:
        """Return how large m and Σ of a panel may become, h |c| and h |B Bᵀ| at its middle."""
        middles = ((starts + ends) / 2).tolist()
        blocks = torch.stack([self._at(u).detach() for u in middles])
        blocks = (ends - starts).to(blocks)[:, None, None] * blocks
        d = (blocks.shape[-1] - 1) // 2
        zero = torch.zeros_like(blocks[:, :d, :d])
        return Transition(zero, blocks[:, :d, 2 * d], blocks[:, :d, d : 2 * d])

    def _at(self, t: float) -> Tensor:
        """Return K at a time, shape (2d + 1, 2d + 1); at the ends of panels it is known."""
        if t not in self._known:
            A, square, c = self._rates(t)
            d = len(A)
            block = A.new_zeros(2 * d + 1, 2 * d + 1)
            block[:d, :d], block[:d, d : 2 * d] = -A, square
            block[:d, 2 * d], block[d : 2 * d, d : 2 * d] = c, A.mT
            self._known[t] = block
        return self._known[t]


class _Scales:
    """What errors of transitions are compared with: the largest Φ, m and Σ that were seen."""

    def __init__(self) -> None:
        self._largest, self.known = [1.0, 0.0, 0.0], False

    def see(self, laws: Transition) -> None:
        """Take transitions along a leading axis into account."""
        sizes = [float(size.max()) for size in _sizes(laws)]
        self._largest, self.known = [max(p) for p in zip(self._largest, sizes, strict=True)], True

    def gaps(self, rough: Transition, better: Transition) -> Tensor:
        """Return the largest relative difference of each pair; infinite where one is none."""
        apart = Transition(
            rough.matrix - better.matrix,
            rough.shift - better.shift,
            rough.covariance - better.covariance,
        )
        gaps = torch.stack(
            [
                size / (scale or 1.0)
                for size, scale in zip(_sizes(apart), self._largest, strict=True)
            ]
        )
        return gaps.amax(0).nan_to_num(math.inf)


def _exponent(m0: Tensor, m1: Tensor, m2: Tensor) -> Tensor:
    """Return Ω, of order 6."""
    one, two, three = 0.75 * (3 * m0 - 20 * m2), 12 * m1, -15 * (m0 - 12 * m2)
    c1 = _commutator(one, two)
    c2 = _commutator(one, 2 * three + c1) / -60
    return one + three / 12 + _commutator(c1 - 20 * one - three, two + c2) / 240


def _commutator(left: Tensor, right: Tensor) -> Tensor:
    return left @ right - right @ left


def _sizes(laws: Transition) -> list[Tensor]:
    """Return the largest entries of Φ, m and Σ of each transition."""
    parts = (laws.matrix, laws.shift, laws.covariance)
    return [part.detach().abs().flatten(1).amax(1) for part in parts]
