"""The exact law of the discrete chain: the density of the update itself, not of its SDE.

One step of a solver that is affine in one normal draw is x' = m(x) + s(x) z, and the density obeys
Chapman–Kolmogorov,

    p'(y) = ∫ p(x) N(y; m(x), s(x)²) dx

In one dimension that is a quadrature (`kernel.py`). So the weak error of a scheme, and the bias of
a sampler at ten steps, are read off without any sampling noise at all.

What it takes: m is the step with z = 0, s the step with z = 1 less m, both asked of the solver
itself; whether the step is affine is checked with a third draw. A step without noise is a map,
p'(y) = p(x(y)) |dx/dy|. A step may be a composition of these, which a `SplitStep` tells by its
parts: one that stirs noise in and then follows the flow is a kernel and then a map. So may a run
be: the denoising of the last state is one more map. Linear multistep methods tell their
`coefficients`, and the law is that of the states that they remember (`multistep_law.py`). What is
refused, by name: solvers that draw more than once a step (a corrector), that remember two states
or more under noise, that remember and do not tell, and adaptive ones, which have no chain.

Between walls the chain is that of `simulate(…, boundary=…)` at the ends of the grid, with the
bridge of its absorbing walls: what a step carries beyond them comes back, or is lost with the mass
of the density.

What is said, not hidden: a grid that cuts the density, and one that is too coarse for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import Enclosure
from sdegen.core.fixed_steps import FixedStep, SplitStep
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Noise
from sdegen.core.reduction import reduced
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.diffusion.samplers.final_denoising import FinalDenoising
from sdegen.diffusion.samplers.linear_multistep import Multistep
from sdegen.engine.positive_step import noise_vanishes
from sdegen.engine.validation import check_dynamics
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization import grid_boundary, time_dependence
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.kernel import Array, TransitionOperator
from sdegen.verification.multistep_law import propagate_noise_free, propagate_two_step
from sdegen.verification.step_moments import ChainSteps, StepMoments

_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_NEGATIVE, _MASS_TOLERANCE = 1e-10, 1e-3
_UNEVEN = 1e-9  # relative: what float64 makes of equal spacings
_STAYS = "there is no noise, so that a start at a point stays a point; pass a density."


@dataclass(frozen=True)
class ChainDensity:
    """The density of a chain X_{k+1} = m_k(X_k) + s_k(X_k) Z on a grid, step by step.

    Args:
        dynamics: SDE, ReverseSDE or DDPM chain with a one-dimensional state, (batch, 1).
        grid: Uniform nodes; the density must vanish at both ends, unless they are walls.
        solver: A one-step method, affine in one draw: EulerMaruyama, DDIM, KarrasHeun, …, and
            Heun where there is no noise; or a linear multistep method. After either there may be
            `FinalDenoising`: the last density is then that of the denoised state.
        boundary: What walls at the ends of the grid do: a word, a pair (lower, upper) of words, or
            an object such as `Absorbing(low, high, bridge=False)` with the ends of the grid; None
            if the state is free. Between walls a step must be one part, and noisy.

    Raises:
        ValueError: If the grid is not uniform, or the boundary none.
        TypeError: If the solver has no fixed steps, or grid is not a Grid.

    Reference:
        Gardiner 2009, Stochastic Methods, eq. (3.2.3).

    Example:
        >>> ou, grid = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sg.Grid(-8.0, 8.0, cells=400)
        >>> chain = sg.ChainDensity(ou, grid)
        >>> law = chain.run(1.0, [0.0, 0.5, 1.0])  # x → x/2 + √½ z, twice
        >>> round(float(law.final.mean), 10), round(float(law.final.variance), 10)
        (0.25, 0.625)
    """

    dynamics: SDE
    grid: Grid
    solver: FixedStep = field(default_factory=EulerMaruyama)
    boundary: grid_boundary.GridBoundaryLike | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_no_jumps(self.dynamics, "ChainDensity")
        object.__setattr__(self, "dynamics", reduced(self.dynamics, "ChainDensity"))
        if not isinstance(self.solver, FixedStep):
            raise TypeError(
                "the law of a chain needs a solver with fixed steps, but solver is "
                f"{type(self.solver).__name__}: what an adaptive one, or one of another package, "
                "does in a step is not known here. Pass EulerMaruyama(substeps=…)."
            )
        if self.solver.needs and self.solver.is_stochastic(self.dynamics):
            raise ValueError(
                f"{type(self.solver).__name__} takes more of the noise than one normal a step, so "
                "that its law is not Gaussian; the law of a chain is built for EulerMaruyama and "
                "DDIM."
            )
        check_kind("grid", self.grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=400)")
        if self.boundary is not None:
            self._check_ends()
            several = isinstance(self.solver, Multistep | FinalDenoising | SplitStep)
            if several or not self.solver.supports_boundaries:
                raise ValueError(
                    "the law between walls is built for steps of one part, such as those of "
                    f"EulerMaruyama, not of {type(self.solver).__name__}; pass boundary=None, or "
                    "another solver."
                )
        check_uniform(self.grid)

    def _ends(self) -> grid_boundary.GridBoundary | None:
        """Return the boundary of the grid, None without walls."""
        if self.boundary is None:
            return None
        return grid_boundary.boundary_of_grid(self.boundary, self.grid, physical=True)

    def _check_ends(self) -> None:
        """Refuse boundaries whose law is not implemented.

        Raises:
            ValueError: If one moves or is left out, the noise vanishes at a reflecting one, or the
                bridge of an absorbing one is not that of the step's noise.
        """
        ends = self._ends()
        assert ends is not None
        if not all(ends.physical) or ends.moving != (None, None):
            raise ValueError(
                "the law of a chain between walls needs a fixed one at each end of the grid, but "
                f"boundary is {self.boundary!r}; pass such as Reflecting({self.grid.low:g}, "
                f"{self.grid.high:g})."
            )
        step_laws(ends)
        if any(ends.bridged) and not self.solver.is_update:
            raise ValueError(
                f"the law of {type(self.solver).__name__} at absorbing walls is built without "
                f"bridges; pass Absorbing({self.grid.low:g}, {self.grid.high:g}, bridge=False), "
                "here and in simulate."
            )
        enclosure = Enclosure((1,), ((None, ends.interval),))
        t = torch.tensor(time_dependence.start(self.dynamics), dtype=torch.float64)
        if any(noise_vanishes(enclosure, 0, self.dynamics, self.grid.nodes[1:-1, None], t)):
            raise ValueError(
                "the noise vanishes at a reflecting wall, where simulate takes a positive step "
                "whose law is not built; pass a grid whose ends are where there is noise, or "
                "compare with FokkerPlanck."
            )

    def run(self, p0: Density | float, times: Tensor | Sequence[float]) -> DensityPath:
        """Propagate a density through the steps of the solver.

        Args:
            p0: Density at times[0] on the grid's nodes; a number is a start at that point.
            times: As `simulate` takes them.

        Returns:
            Densities at times; that of a start at a point is `grid.point`.

        Raises:
            TypeError: If p0 is neither a density nor a number.
            ValueError: If p0 or the times are refused, if a step is not affine in one draw, if a
                noise-free step folds the line over itself, or if the grid cuts the density or is
                too coarse for it.
        """
        path = self._unjudged(p0, times)
        if self.boundary is None:
            self._judge_edges(path)
        return path

    def _unjudged(self, p0: Density | float, times: Tensor | Sequence[float]) -> DensityPath:
        """Return what `run` returns, without a check of how much the grid cuts."""
        ts = as_time_grid(times)
        check_dynamics(self.dynamics, self.solver, ts, None)
        with torch.no_grad():
            self.dynamics.check_derivatives(self.grid.nodes[[0, -1], None], ts[0])
        nodes, last = self.solver.nodes(ts), self.solver
        start, point = self._start(p0)
        ends = self._ends()
        walls = () if ends is None else (step_laws(ends), ends.bridged)
        operator = TransitionOperator(self.grid.nodes.numpy(), *walls)
        laws, saved = self._laws(operator, nodes, start, point), [start]
        with torch.no_grad():
            for i, t in enumerate(nodes[:-1].tolist()):
                try:
                    p = next(laws)
                    if isinstance(last, FinalDenoising) and i == len(nodes) - 2:
                        p = self._denoised(operator, last, p, nodes[-1])
                except ValueError as error:
                    name = type(self.solver).__name__
                    raise ValueError(f"step {i} of {name}, at t = {t:g}: {error}") from None
                if (i + 1) % self.solver.substeps == 0:
                    saved.append(p)
        return DensityPath(ts, torch.from_numpy(np.stack(saved)), self.grid.nodes)

    def _laws(
        self, operator: TransitionOperator, nodes: Tensor, p0: Array, point: float | None
    ) -> Iterator[Array]:
        """Yield the densities after each step, shape (n,) each, before the last is denoised."""
        solver = self.solver.solver if isinstance(self.solver, FinalDenoising) else self.solver
        if not isinstance(solver, Multistep):
            return self._forgetful(operator, ChainSteps(self.dynamics, solver, nodes), p0, point)
        steps, inner = solver.coefficients(self.dynamics, nodes), self.dynamics.denoising
        assert inner is not None  # the solver's check() saw to it
        name, memory = type(solver).__name__, steps.states.shape[1]
        if self.dynamics.noise == "none":
            if point is not None:
                raise ValueError(_STAYS)
            return propagate_noise_free(operator, steps, inner.score, nodes, p0)
        if memory > 2:
            raise ValueError(
                f"{name} remembers {memory - 1} states, and with noise the law of its chain would "
                f"need {memory} axes; it is built for methods that remember one, such as "
                "ExponentialAdams(order=2), and for more without noise."
            )
        return propagate_two_step(operator, steps, inner.score, nodes, p0, point)

    def _denoised(
        self, operator: TransitionOperator, last: FinalDenoising, p: Array, t: Tensor
    ) -> Array:
        """Return the density of the last state after it has been denoised."""

        def close(x: State, _: Noise | None) -> State:
            return last.finalize(self.dynamics, x, t)

        p = operator.after(p, StepMoments(close, "FinalDenoising", noisy=False))
        operator.check_resolved(p)  # what lay near a point of the data has come nearer
        return p

    def _forgetful(
        self, operator: TransitionOperator, steps: ChainSteps, p0: Array, point: float | None
    ) -> Iterator[Array]:
        """Yield the densities after each step of a one-step method."""
        if point is not None and not steps.noisy:
            raise ValueError(_STAYS)
        p, at = p0, point
        for i in range(steps.count):
            for k, moments in enumerate(steps.at(i)):
                if at is not None:
                    p, at = operator.from_point(at, moments)
                    continue
                if k > 0:
                    self._judge_stirred(p)
                p = operator.after(p, moments)
            yield p if at is None else self.grid.point(at).p.numpy()

    def _judge_stirred(self, p: Array) -> None:
        """Refuse a density that the grid cuts within a step."""
        ratio = max(p[0], p[-1]) / p.max()
        if not ratio <= _EDGE_WARNS:
            raise ValueError(
                f"with the noise that is stirred in, the density at an end of the grid "
                f"[{self.grid.low:g}, {self.grid.high:g}] is {ratio:.3g} of its peak: the grid "
                "cuts it. Widen the grid."
            )

    def _start(self, p0: Density | float) -> tuple[Array, float | None]:
        """Return the start's nodal values, and where it is if it is a point."""
        x = self.grid.nodes
        if (start := start_point(p0)) is not None:
            return self.grid.point(start).p.numpy(), start
        if not isinstance(p0, Density):
            raise TypeError(
                f"p0 must be a Density or a number, but is {type(p0).__name__}; pass "
                "grid.gaussian(mean, std), Density(grid.nodes, p), or where it starts."
            )
        if p0.x.shape != x.shape or not torch.equal(p0.x.to(x), x):
            raise ValueError(
                f"p0 lives on {len(p0.x)} nodes from {float(p0.x[0]):g} to {float(p0.x[-1]):g}, "
                f"the chain on {len(x)} from {self.grid.low:g} to {self.grid.high:g}; make it "
                "with this grid."
            )
        p = p0.p.detach().to("cpu", torch.float64)
        if not bool(p.isfinite().all()) or float(p.min()) < -_NEGATIVE * float(p.max()):
            raise ValueError(
                f"p0 must be finite and ≥ 0, but reaches from {float(p.min()):g} to "
                f"{float(p.max()):g}."
            )
        mass = float(Density(x, p).mass)
        if abs(mass - 1) > _MASS_TOLERANCE:
            raise ValueError(f"p0 must have mass 1, but has {mass:.6g}; pass p0.normalized().")
        return p.numpy(), None

    def _judge_edges(self, path: DensityPath) -> None:
        """Warn of, or refuse, a density that reaches beyond the grid."""
        ratio = edge_ratio(path)
        k = int(ratio.argmax())
        if float(ratio[k]) <= _EDGE_WARNS:
            return
        text = (
            f"the density at an end of the grid [{self.grid.low:g}, {self.grid.high:g}] is "
            f"{float(ratio[k]):.3g} of its peak at t = {float(path.times[k]):g}: the grid cuts "
            "it, and what leaves is lost. Widen the grid."
        )
        if float(ratio[k]) > _EDGE_FAILS:
            raise ValueError(text)
        warnings.warn(text, UserWarning, stacklevel=3)


def check_uniform(grid: Grid) -> None:
    """Refuse a grid whose spacings differ.

    Raises:
        ValueError: With the smallest and the largest.
    """
    h = grid.nodes.diff()
    if not bool((h - h.mean()).abs().max() < _UNEVEN * h.mean()):
        raise ValueError(
            f"the law of a chain needs uniform nodes, but spacings run from {float(h.min()):g} to "
            f"{float(h.max()):g}; pass Grid(low, high, cells)."
        )


def step_laws(ends: grid_boundary.GridBoundary) -> tuple[BoundaryCondition, BoundaryCondition]:
    """Return how the law of a step is folded back at the lower and the upper end of a grid.

    Raises:
        ValueError: If a boundary does not declare it, with its class.
    """
    laws = []
    for boundary in (ends.interval.boundaries[0], ends.interval.boundaries[-1]):
        if boundary.step_law is None:
            name = type(boundary).__name__
            raise ValueError(
                f"{name} declares no law of its steps, so that the law of a chain is not known; "
                f"set step_law = BoundaryCondition.NO_FLUX or another in {name} if its steps are "
                "folded, cut off or wrapped as those of Reflecting, Absorbing or Periodic, or "
                "compare simulate with FokkerPlanck."
            )
        laws.append(boundary.step_law)
    return laws[0], laws[1]


def start_point(p0: object) -> float | None:
    """Return the point of a start that is one number (Python's, NumPy's, 0-d tensor), or None."""
    if isinstance(p0, int | float | np.integer | np.floating):
        return float(p0)
    return float(p0) if isinstance(p0, Tensor) and p0.ndim == 0 else None


def edge_ratio(path: DensityPath) -> Tensor:
    """Return the density at its higher end over its peak, shape (T,); 1 where no mass is left."""
    peak = path.p.amax(1)
    return torch.where(peak > 0, path.p[:, [0, -1]].abs().amax(1) / peak, 1.0)
