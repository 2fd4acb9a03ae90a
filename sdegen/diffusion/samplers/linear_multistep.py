"""Linear multistep methods on states and scores: one step from coefficients known beforehand.

    x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score(x_{i−j}, t_{i−j})] + S_i z

`Multistep` takes the steps of the table that a subclass gives; `LinearMultistep` holds a table,
such as a calibrated one. Where a table corrects the state at its second node first, the score is
asked there twice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.checks import check_int
from sdegen.core.fixed_steps import FixedStep, to_floats
from sdegen.core.kernel import Kernel
from sdegen.core.noise import Noise
from sdegen.core.requests import first_true
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.tolerances import IN_FLOAT32
from sdegen.core.update import Number, diffuse, update
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.base import DiffusionSolver, Stepped
from sdegen.diffusion.samplers.modal import ModalMemory, begin_modes, step_modes, tables_of

_Term = tuple[int, int, Number]  # nodes back, 0 for a state or 1 for a score, coefficient


class Multistep(DiffusionSolver, FixedStep):
    """A linear multistep method on states and scores, whose coefficients are known beforehand."""

    supports_boundaries: ClassVar[bool] = False  # what was behind a wall is no history

    @abstractmethod
    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return the coefficients of a run.

        Args:
            sde: `ReverseSDE` of a Gaussian path.
            nodes: Shape (steps + 1,), float64; gradients flow through them.

        Returns:
            One row for each step.
        """

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory | ModalMemory:
        """Return the coefficients of all steps, and no states or scores yet."""
        inner = sde.denoising
        kernel = None if inner is None else self.modes(inner)
        if inner is not None and kernel is not None:
            of_modes = tables_of(self.coefficients, inner, kernel, nodes)
            return begin_modes(inner, kernel, nodes, of_modes)
        score, table = self.reversal(sde)[0].along(nodes), self.coefficients(sde, nodes)
        own, newest = table.states[:, 0], to_floats(table.scores[:, 0])
        # one product for x_i, unless what was evaluated at node i is another, corrected state
        corrected = torch.arange(len(own)) == (-1 if table.again is None else 1)
        decay = to_floats(table.decay + torch.where(corrected, 0.0, own))
        apart = torch.where(corrected, own, 0.0)[:, None]
        terms = _terms(
            torch.cat([apart, table.states[:, 1:]], 1),
            torch.cat([torch.zeros_like(apart), table.scores[:, 1:]], 1),
        )
        second = None if table.again is None else _terms(*table.again[:, None])[0]
        rows = list(zip(decay, terms, newest, to_floats(table.noise), strict=True))
        return _Memory(rows, second, table.states.shape[1], score)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory | ModalMemory
    ) -> Stepped:
        """Take one update from the last states and scores, which the memory has."""
        if isinstance(memory, ModalMemory):
            return step_modes(x, i, noise, memory)
        decay, terms, newest, width = memory.rows[i]
        seen = ((x, memory.score(x, i)), *memory.seen[: memory.remembered - 1])
        if i == 1 and memory.second is not None:
            better = _plus(x.clone(), memory.second, seen)
            seen = ((better, memory.score(better, i)), *seen[1:])
        after = update(_plus(decay * x, terms, seen), seen[0][1], newest)
        z = None if noise is None else noise.normal()
        return diffuse(after, z, width), memory._replace(seen=seen)


class _Memory(NamedTuple):
    """What a multistep method hands on: coefficients as numbers, the score, and what was seen.

    Attributes:
        rows: For each step the factor of x_i, with that of the newest state where it is x_i
            itself; the other terms; the factor of the newest score; the width of the noise.
        second: Terms of the correction where node 1 is evaluated twice.
        remembered: How many states and scores a step looks at.
        score: score(x, i) at node i.
        seen: States and their scores at the last nodes, the newest first.
    """

    rows: list[tuple[Any, list[_Term], Any, Any]]
    second: list[_Term] | None
    remembered: int
    score: ScoreAt
    seen: tuple[tuple[State, State], ...] = ()


@dataclass(frozen=True, eq=False)
class LinearMultistep(Multistep):
    """A method with coefficients of your own, for one grid: from a calibration, say.

        x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score(x_{i−j}, t_{i−j})] + S_i z

    Args:
        grid: Times that they belong to, shape (steps + 1,), float64.
        table: One row for each step.
        kernel: The α and σ that they were made for: `sde.kernel` of the forward SDE.
        eta: The η that they were made for.

    Raises:
        ValueError: If there is not one row for each step.

    Reference:
        Hairer, Nørsett and Wanner 1993, Solving Ordinary Differential Equations I, chapter III.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> grid, rows = torch.tensor([3.0, 1.0]).double(), ([1.0], [[0.0]], [[6.0]], [0.0])
        >>> table = sg.Coefficients(*(torch.tensor(row).double() for row in rows))
        >>> solver = sg.LinearMultistep(grid, table, path.kernel)
        >>> sg.simulate(flow, x_T, grid, solver=solver).final.item()  # x + 6 score, score = −1
        4.0
    """

    grid: Tensor
    table: Coefficients
    kernel: Kernel
    eta: float = 0.0
    substeps: int = field(default=1, init=False)

    when: ClassVar[str] = (
        "Coefficients are given, by `calibrate` or by you, for one grid of times."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.table.decay) != len(self.grid) - 1:
            raise ValueError(
                f"the table has {len(self.table.decay)} rows, but the grid {len(self.grid) - 1} "
                "steps: give one row for each step."
            )

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse another grid, another α or σ on it, and another η.

        Raises:
            ValueError: Naming the first time that differs.
        """
        super().check(sde, nodes)
        own = self.grid.detach().to(nodes)
        if nodes.shape != own.shape:
            raise ValueError(
                f"this method was made for {len(own) - 1} steps, but times have {len(nodes) - 1}; "
                "pass times=solver.grid."
            )
        off = (nodes - own).abs() > 1e-12 * own.abs().max()
        if (i := first_true(off)) is not None:
            raise ValueError(
                f"this method was made for another grid: times[{i}] = {float(nodes[i]):g}, but "
                f"its own is {float(own[i]):g}; pass times=solver.grid."
            )
        inner, kernel = self.reversal(sde)
        if inner.eta != self.eta:
            raise ValueError(
                f"this method was made for eta = {self.eta:g}, but the dynamics have "
                f"{inner.eta:g}; pass ReverseSDE(sde, score, eta={self.eta!r})."
            )
        for symbol, value, wanted in (
            ("α", kernel.alpha(own), self.kernel.alpha(own)),
            ("σ", kernel.sigma(own), self.kernel.sigma(own)),
        ):
            other = ~((value - wanted).abs() <= IN_FLOAT32 * wanted.abs())
            if (i := first_true(other)) is not None:
                raise ValueError(
                    f"this method was made for another SDE: at times[{i}] = {float(own[i]):g} its "
                    f"{symbol} is {float(wanted[i]):.6g}, but here it is {float(value[i]):.6g}."
                )

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """One in a step, unless the table evaluates a corrected state again."""
        return 1 if self.table.again is None else None

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return the table."""
        return self.table


def check_method_order(order: object, least: int, most: int) -> None:
    """Refuse an order of which there is no method.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is not least … most.
    """
    if not least <= check_int("order", order) <= most:
        raise ValueError(f"order must be {least} … {most}, but is {order}.")


def _terms(states: Tensor, scores: Tensor) -> list[list[_Term]]:
    """Return (nodes back, 0 for state or 1 for score, coefficient) of each step without zeros."""
    both = torch.stack([states, scores], 2)
    # a coefficient that is zero but free has a gradient
    used = torch.stack([(part != 0) | part.requires_grad for part in (states, scores)], 2).tolist()
    return [
        [(j, kind, row[j][kind]) for j, has in enumerate(which) for kind in (0, 1) if has[kind]]
        for row, which in zip(to_floats(both), used, strict=True)
    ]


def _plus(total: State, terms: list[_Term], seen: Sequence[tuple[State, State]]) -> State:
    """Add multiples of the past states and scores that exist to `total`, in place."""
    for j, kind, coefficient in terms:
        if j < len(seen):
            part = seen[j][kind]
            if isinstance(coefficient, float):
                total.add_(part, alpha=coefficient)
            else:
                total = torch.addcmul(total, part, coefficient)
    return total
