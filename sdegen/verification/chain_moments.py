"""The exact mean and covariance of a discrete chain on linear dynamics, in any dimension.

One step of a solver that is affine in the state and in its normal draws is

    X' = M X + b + S z,        z ~ N(0, I)

so that the law of the chain itself, not of its SDE, is carried from step to step,

    mean' = M mean + b,        C' = M C Mᵀ + S Sᵀ

and comes to rest at mean = (1 − M)⁻¹ b and C = Σ_n Mⁿ S Sᵀ (Mᵀ)ⁿ, which is summed by doubling.
The law is Gaussian if its start is. The bias of a step is read off beside `LinearSDE.moments` and
`LinearSDE.stationary_covariance`, without any sampling noise.

M, b and S are asked of the solver itself, by its answers to unit vectors; other states and draws
show whether it is affine. What is refused, by name: drifts that are not linear, noise that depends
on the state, solvers that remember earlier steps, and those that choose their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.core.affine import affine_of
from sdegen.core.checks import check_count, check_positive
from sdegen.core.fixed_steps import FixedStep, OneStep
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import Numbers, State, Time
from sdegen.core.solver import Memory
from sdegen.engine.validation import check_dynamics
from sdegen.sde.transitions import GaussianLaw, MomentsPath, Transition, path_of
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.given_draws import GivenDraws
from sdegen.verification.step_moments import check_forgets

_DOUBLINGS = 60  # of a sum of powers: past them nothing below an eigenvalue of 1 is left
_NOTHING = 1e-18  # relative: a term that changes no digit


@dataclass(frozen=True)
class ChainMoments:
    """The mean and covariance of a chain that a solver makes of linear dynamics, step by step.

        X_{k+1} = A_k X_k + b_k + s_k Z:     m ← A m + b,     C ← A C Aᵀ + s sᵀ

    Args:
        dynamics: SDE or chain with a drift that is linear in x, and noise that does not depend on
            it: `LinearSDE`, `OrnsteinUhlenbeck`, `GaussianPath`, a `ReverseSDE` with a linear
            score, …
        dimension: Numbers of its state, d of (batch, d).
        solver: A solver of fixed steps that remembers nothing: EulerMaruyama, Heun, DDIM, …

    Raises:
        TypeError: If dynamics are no SDE, the dimension is no int, or the solver has no fixed
            steps.
        ValueError: If the dimension is < 1.

    Example:
        >>> chain = sg.ChainMoments(sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), 1)
        >>> law = chain.run(1.0, 0.0, [0.0, 0.5, 1.0]).final  # x → x/2 + √½ z, twice
        >>> round(float(law.mean), 12), round(float(law.covariance), 12)
        (0.25, 0.625)
        >>> round(float(chain.stationary(0.5).covariance), 12)  # σ²/(2k − k² dt), not σ²/2k
        0.666666666667
    """

    dynamics: SDE
    dimension: int
    solver: FixedStep = field(default_factory=EulerMaruyama)

    def __post_init__(self) -> None:
        check_kind("dynamics", self.dynamics, SDE, "an SDE, such as LinearSDE(A, B)")
        check_no_jumps(self.dynamics, "ChainMoments")
        check_count("dimension", self.dimension)
        if not isinstance(self.solver, FixedStep):
            raise TypeError(
                "the moments of a chain need a solver with fixed steps, but solver is "
                f"{type(self.solver).__name__}: what an adaptive one, or one of another package, "
                "does in a step is not known here. Pass EulerMaruyama(substeps=…)."
            )

    def run(
        self, mean: Numbers, covariance: Numbers, times: Tensor | Sequence[float]
    ) -> MomentsPath:
        """Return the mean and covariance of the chain at times.

        Args:
            mean: Mean at times[0], shape (d,).
            covariance: Covariance there, shape (d, d), or a number: the variance of each; 0 is a
                start at a point.
            times: As `simulate` takes them.

        Raises:
            ValueError: If mean, covariance or times are refused, or a step is not affine.
        """
        law, ts = GaussianLaw.of(mean, covariance), as_time_grid(times)
        if len(law.mean) != self.dimension:
            raise ValueError(
                f"mean must have {self.dimension} coordinates, as dimension says, but has "
                f"{len(law.mean)}."
            )
        laws = [law]
        for step in self._steps(ts):
            laws.append(step.after(laws[-1]))
        return path_of(ts, laws[:: self.solver.substeps])

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of the chain at s given its state at t, `substeps` steps later.

        Raises:
            ValueError: If t = s, times are refused, or a step is not affine.
        """
        event = self.dynamics.event_of(self.dimension)
        return strided_transition(self.dynamics, self.solver, event, float(t), float(s))

    def stationary(self, step: float) -> GaussianLaw:
        """Return the mean and covariance that the chain comes to at steps of one length.

        Args:
            step: Time from one node to the next, > 0; `substeps` are not looked at.

        Raises:
            ValueError: If the chain does not come to rest, a step is not affine, or it is not
                known that the dynamics are the same at every t.
        """
        check_positive("step", step)
        name = type(self.dynamics).__name__
        if not self.dynamics.autonomous:
            raise ValueError(
                f"{name} does not say that it is the same at every t, and only then a chain comes "
                "to rest; pass autonomous=True if it is, or ask for run(…) over a long time."
            )
        nodes = torch.tensor([0.0, step], dtype=torch.float64)
        check_dynamics(self.dynamics, self.solver, nodes, None)
        law = self._between(nodes).at(0)
        growth = float(torch.linalg.eigvals(law.matrix.detach()).abs().max())
        if not growth < 1:
            raise ValueError(
                f"the chain of {type(self.solver).__name__} on {name} does not come to rest at "
                f"steps of {step:g}: a mode grows by {growth:.6g} in each. Take smaller steps, if "
                "the process itself has a stationary law."
            )
        eye = torch.eye(self.dimension, dtype=torch.float64)
        mean: Tensor = torch.linalg.solve(eye - law.matrix, law.shift)
        covariance, power = law.covariance, law.matrix
        for _ in range(_DOUBLINGS):
            more = power @ covariance @ power.T
            covariance = covariance + more
            # both are positive, and bounded by what is on their diagonals
            if bool((more.diagonal() <= _NOTHING * covariance.diagonal()).all()):
                break
            power = power @ power
        return GaussianLaw(mean, 0.5 * (covariance + covariance.T))

    def _steps(self, times: Tensor) -> list[Transition]:
        """Return the laws of all steps between times."""
        check_dynamics(self.dynamics, self.solver, times, None)
        nodes = self.solver.nodes(times)
        steps = self._between(nodes)
        return [steps.at(i) for i in range(len(nodes) - 1)]

    def _between(self, nodes: Tensor) -> _Steps:
        """Return the steps between nodes."""
        return _Steps(self.dynamics, self.solver, self.dynamics.event_of(self.dimension), nodes)


def strided_transition(
    sde: SDE, solver: FixedStep, event: tuple[int, ...], t: float, s: float
) -> Transition:
    """Return the law of a chain at s given its state at t, `substeps` steps later.

    Args:
        sde: Linear dynamics.
        solver: How they move.
        event: Shape of their state, whose numbers are taken in a row.
        t: Time.
        s: Time of the next stored state.

    Raises:
        ValueError: If t = s, times are refused, or a step is not affine.
    """
    times = as_time_grid([t, s])
    check_dynamics(sde, solver, times, None)
    nodes = solver.nodes(times)
    steps = _Steps(sde, solver, event, nodes)
    law = steps.at(0)
    for i in range(1, len(nodes) - 1):
        law = law.then(steps.at(i))
    return law


class _Steps:
    """The steps of a chain between nodes as affine maps."""

    def __init__(self, sde: SDE, solver: FixedStep, event: tuple[int, ...], nodes: Tensor) -> None:
        self._sde, self._solver, self._event = sde, solver, event
        self._size = math.prod(event)
        self._memory: Memory = self._solver.begin(self._sde, nodes)
        self._lengths = [s - t for t, s in pairwise(nodes.tolist())]
        self._noisy = self._solver.is_stochastic(self._sde)
        # a step of these depends on its length alone
        self._alike = bool(self._sde.autonomous) and isinstance(self._solver, OneStep)
        self._known: dict[float, Transition] = {}
        if len(nodes) > 2:
            none = torch.zeros(2, 0, dtype=torch.float64)
            silent = self._draws(none, 0) if self._noisy else None
            check_forgets(self._sde, self._solver, nodes, self._zeros(2), silent)

    def at(self, i: int) -> Transition:
        """Return the law of step i."""
        length = self._lengths[i]
        law = self._known.get(length) if self._alike else None
        if law is None:
            law = self._known[length] = self._law(i)
        return law

    def _law(self, i: int) -> Transition:
        """Return M, b and S Sᵀ of step i."""
        d, name = self._size, type(self._solver).__name__

        def step(u: Tensor) -> State:
            x = u[:, :d].reshape(-1, *self._event)
            noise = self._draws(u[:, d:], i) if self._noisy else None
            return self._solver.step(self._sde, x, i, noise, self._memory)[0].flatten(1)

        draws = 0
        if self._noisy:
            counted = self._draws(torch.zeros(1, 0, dtype=torch.float64), i)
            self._solver.step(self._sde, self._zeros(1), i, counted, self._memory)
            draws = counted.drawn
        what = f"a step of {name} on {type(self._sde).__name__}"
        whole, shift = affine_of(step, d + draws, what)
        matrix, spread = whole[:, :d], whole[:, d:]
        return Transition(matrix, shift, spread @ spread.T)

    def _draws(self, numbers: Tensor, i: int) -> GivenDraws:
        """Return the noise of step i that is linear in numbers."""
        channels = self._sde.channels
        shape = self._event if channels is None else (channels,)
        return GivenDraws(numbers, channels, shape, self._lengths[i])

    def _zeros(self, rows: int) -> State:
        return torch.zeros(rows, *self._event, dtype=torch.float64)
