"""Walks: chains at h, h/2 and h/4 that take one Brownian path, and their averages.

From one start three chains go side by side. For four steps of h/4 with normals z₁ … z₄ the chain
at h/2 takes (z₁ + z₂)/√2 and (z₃ + z₄)/√2, that at h their sum over 2, and what else a solver
takes of the path follows by Chen's relation. Their averages differ by what the step makes of them,
and by the little that three chains on one path have apart.

In a double well at σ = 1 and h = 0.1 the standard error of the bias is a quarter of that of the
average itself. Chains that part at a barrier are in different wells for some time, 1 to 3 % of it
there, and meet again by the next crossing: what they add is noise, no bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.errors import NonFiniteError
from sdegen.core.fixed_steps import FixedStep, refine
from sdegen.core.noise import Noise, Streams
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, rows_nonfinite
from sdegen.core.solver import integrate
from sdegen.core.step_noise import FreshDraws, JoinedDraws, StepNoise
from sdegen.engine.containment import Containment
from sdegen.verification.levels.quantities import Quantities

LEVELS = 3
WINDOWS = 4  # of what is averaged at rest
_FINEST = 2 ** (LEVELS - 1)


@dataclass(frozen=True)
class Chains:
    """What moves at the three levels.

    Attributes:
        sde: The dynamics.
        solver: What takes the steps.
        enclosure: What the states are kept inside of, or None.
        quantities: What is averaged.
        dt: h.
        seed: Of the run.
    """

    sde: SDE
    solver: FixedStep
    enclosure: Enclosure | None
    quantities: Quantities
    dt: float
    seed: int

    def at_end(self, x: State, nodes: Tensor, block: int) -> Tensor:
        """Return the quantities at the last node, shape (1, 3, rows, k), float64."""
        states: tuple[State, ...] = ()
        for states in self._walk(x, nodes, "step bias at a time", block):  # noqa: B007
            pass
        return self._measured(states, float(nodes[-1]))[None].cpu()

    def at_rest(self, x: State, nodes: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Return averages over the windows after the first quarter, and those of squares at h.

        Args:
            x: Starts, shape (rows, *event).
            nodes: Of the steps of h.
            block: Number of these rows.

        Returns:
            Averages, shape (windows, 3, rows, k); averages of squares, shape (k,); float64.
        """
        steps = len(nodes) - 1
        length = 3 * steps // (4 * WINDOWS)
        first = steps - WINDOWS * length
        width = self.quantities.width
        sums = torch.zeros(WINDOWS, LEVELS, len(x), width, dtype=torch.float64, device=x.device)
        squares = torch.zeros(width, dtype=torch.float64, device=x.device)
        # another purpose for each length: a run that is taken anew is independent of the first
        for i, states in enumerate(self._walk(x, nodes, f"step bias, {steps} steps", block)):
            if i < first:
                continue
            values = self._measured(states, float(nodes[i + 1]))
            sums[(i - first) // length] += values
            squares += values[0].square().mean(0)
        return (sums / length).cpu(), (squares / (WINDOWS * length)).cpu()

    def _walk(
        self, x: State, nodes: Tensor, purpose: str, block: int
    ) -> Iterator[tuple[State, ...]]:
        """Yield the states of the three levels at each node of the coarsest."""
        halves = refine(nodes, _FINEST)
        noises, draws = self._noises(x, halves, purpose, block)
        runs = []
        for level, noise in enumerate(noises):
            own = halves[:: _FINEST >> level]
            inside = None
            if self.enclosure is not None:
                stream = Streams(self.seed, f"{purpose}, boundary {level}").block(block)
                inside = Containment(self.enclosure, self.sde, x, own, stream)
            runs.append(integrate(self.sde, self.solver, x, own, noise, inside))
        for i in range(len(nodes) - 1):
            states = []
            for level, run in enumerate(runs):
                for _ in range(1 << level):
                    after = next(run)
                states.append(after)
            yield tuple(states)
            if draws is not None:
                draws.forget(_FINEST * (i + 1))

    def _noises(
        self, x: State, nodes: Tensor, purpose: str, block: int
    ) -> tuple[list[StepNoise | None], FreshDraws | None]:
        """Return the noise of each level, and the draws that all of them come from."""
        if not self.solver.is_stochastic(self.sde):
            return [None] * LEVELS, None
        drawn = Noise(x, Streams(self.seed, purpose).block(block), channels=self.sde.channels)
        finest = FreshDraws(drawn, len(nodes) - 1, keep=True)
        lengths = nodes.diff().abs().tolist()
        noises: list[StepNoise | None] = []
        for level in range(LEVELS):
            every = _FINEST >> level
            draws: FreshDraws | JoinedDraws = finest
            if every > 1:
                draws = JoinedDraws(lambda: finest, lengths, list(range(0, len(nodes), every)))
            noises.append(StepNoise.of(draws, nodes[::every], drawn.channels, drawn.stream))
        return noises, finest

    def _measured(self, states: tuple[State, ...], t: float) -> Tensor:
        """Return the quantities of the three levels, shape (3, rows, k).

        Raises:
            NonFiniteError: If a state is not finite, with the step that it was taken by, or a
                quantity is not at a state that is.
        """
        values = self.quantities(torch.cat(states))
        if bool(values.isfinite().all()):
            return values.reshape(LEVELS, -1, self.quantities.width)
        for level, x in enumerate(states):
            lost = int(rows_nonfinite(x).sum())
            if lost:
                raise NonFiniteError(
                    f"{lost} of {len(x)} trajectories at steps of {self.dt / 2**level:g} are not "
                    f"finite at t = {t:g}: a chain that leaves the finite numbers has no average "
                    "whose bias could be told; take a smaller dt."
                )
        self.quantities.refuse_nonfinite(torch.cat(states), values)
        raise AssertionError
