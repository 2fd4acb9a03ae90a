"""Jump diffusions: any SDE, with jumps beside its drift and noise.

    dX = f(X, t) dt + g(X, t) dW + dJ

f and g are those of an SDE of yours, of any structure of noise; J is one or several compound
Poisson processes (`CompoundPoisson`), or an α-stable motion (`AlphaStable`). Drift, diffusion and
covariance are those of the continuous part, so that what reads them alone would miss the jumps:
it refuses them by name. `simulate` and `run_ensemble` take the steps by `JumpAdapted`, and
`FokkerPlanck` has the jump term on a line.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.alpha_stable import AlphaStable
from sdegen.core.jumps import CompoundPoisson, check_no_jumps
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import check_kind
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE, NoiseKind, Rows
from sdegen.core.shapes import State, Time
from sdegen.core.update import Number

Jumps = CompoundPoisson | AlphaStable


class JumpDiffusion(SDE):
    """An SDE that jumps, with states (batch, *event).

        dX = f(X, t) dt + g(X, t) dW + dJ

    Args:
        sde: The continuous part, forward in time; one without noise makes a piecewise
            deterministic process.
        jumps: `CompoundPoisson`, `AlphaStable`, or a sequence of them: clocks of their own.

    Raises:
        TypeError: If sde is no SDE, or jumps are neither of the two.
        ValueError: If sde jumps already, is a reverse process, or a Markov chain.

    Reference:
        Merton 1976, J. Financial Econ. 3, 125; Platen and Bruti-Liberati 2010, Numerical Solution
        of SDEs with Jumps in Finance, eq. (1.6.11).

    Example:
        >>> counts = sg.JumpDiffusion(sg.BrownianMotion(0.0), sg.CompoundPoisson(3.0, 1.0))
        >>> start, solver = torch.zeros(4000, 1), sg.JumpAdapted()
        >>> end = sg.simulate(counts, start, [0.0, 2.0], solver=solver, rng=0).final
        >>> f"{end.mean():.0f}, {end.var():.0f}"  # Poisson's law: mean and variance λt
        '6, 6'
    """

    def __init__(self, sde: SDE, jumps: Jumps | Sequence[Jumps]) -> None:
        check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
        each = tuple(jumps) if isinstance(jumps, Sequence) else (jumps,)
        if not each:
            raise ValueError("jumps is empty; pass a CompoundPoisson(rate, sizes), or sde itself.")
        for one in each:
            expected = "CompoundPoisson(rate, sizes), AlphaStable(alpha), or a sequence of them"
            check_kind("jumps", one, (CompoundPoisson, AlphaStable), expected)
        name = type(sde).__name__
        check_no_jumps(sde, "JumpDiffusion", "; pass all jumps in one sequence, jumps=[…].")
        if sde.is_discrete or sde.direction != 1:
            what = "a Markov chain on integer times" if sde.is_discrete else "a reverse process"
            raise ValueError(
                f"JumpDiffusion needs an equation forward in time, but {name} is {what}."
            )
        self.sde: SDE = sde
        self.jumps: tuple[CompoundPoisson | AlphaStable, ...] | None = each
        self.noise: NoiseKind = sde.noise
        self.constant_noise: float | None = sde.constant_noise
        self.channels: int | None = sde.channels
        timed = any(isinstance(one, CompoundPoisson) and not one.autonomous for one in each)
        self.autonomous: bool | None = None if timed else sde.autonomous
        self._counter: CallCounter | None = None

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the event of the continuous part that holds so many numbers."""
        return self.sde.event_of(numbers)

    @property
    def phase_space(self) -> bool:  # type: ignore[override]
        """Whether a state of the continuous part is positions and velocities."""
        return self.sde.phase_space

    @property
    def noise_structure(self) -> NoiseStructure:  # type: ignore[override]
        """That of the continuous part."""
        return self.sde.noise_structure

    @property
    def halves_steps(self) -> bool:  # type: ignore[override]
        """Whether smaller steps are nearer to what is meant by the continuous part."""
        return self.sde.halves_steps

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the continuous part is defined."""
        return self.sde.time_range

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the continuous part holds parameters for."""
        return self.sde.trajectories

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some of the trajectories, with their parameters alone."""
        if self.sde.trajectories is None:
            return self
        clone = copy.copy(self)
        clone.__dict__.pop("drift", None)  # counted, and of all rows
        clone.sde = self.sde.of_rows(rows)
        return clone if self._counter is None else clone.with_counter(self._counter)

    def with_counter(self, counter: CallCounter) -> Self:
        """Return a copy whose calls of the drift are counted by `counter`."""
        clone = super().with_counter(counter)
        clone._counter = counter
        return clone

    def drift(self, x: State, t: Time) -> State:
        """f(x, t) of the continuous part, same shape as x."""
        return self.sde.drift(x, t)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """g(x, t) of the continuous part."""
        return self.sde.diffusion(x, t)

    def diffusion_column(self, x: State, t: Time, k: int) -> Tensor:
        """Column k of the matrix of the continuous part."""
        return self.sde.diffusion_column(x, t, k)

    def add_noise(self, after: State, x: State, t: Time, root_dt: Number, noise: Noise) -> State:
        """Add the noise of the continuous part."""
        return self.sde.add_noise(after, x, t, root_dt, noise)

    def covariance_times(self, x: State, t: Time, v: State, scale: float = 1.0) -> State:
        """Return scale · g gᵀ v of the continuous part."""
        return self.sde.covariance_times(x, t, v, scale)

    def covariance_divergence(self, x: State, t: Time) -> State:
        """Return ∇·(g gᵀ) of the continuous part."""
        return self.sde.covariance_divergence(x, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Refuse a derivative of the continuous part that is not that of its function."""
        self.sde.check_derivatives(x, t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that the continuous part needs is found at some states."""
        return self.sde.slope_by(x, t)
