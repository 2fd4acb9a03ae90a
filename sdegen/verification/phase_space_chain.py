"""The exact law of a splitting method in phase space: its density on a grid of (x, v).

A step of `BAOAB` or `OBABO` is a word of three letters, and each does one thing to a density,

    A    p'(x, v) = p(x − h v, v)                                free flight
    B    p'(x, v) = p(x, v − h F(x, t)/m)                        a kick
    O    p'(x, v) = ∫ p(x, u) N(v; c u, (1 − c²) T/m) du         friction and noise, c = e^{−γh}

with h the part of the step that the letter takes. So the bias of a step at rest, and its weak
error on the way, are read off without sampling, of any potential (`ChainMoments` has them of a
quadratic one).

**Nodes.** Flights and kicks are shifts by the Fourier series of the density along x or v; O
multiplies the Fourier transform at c k, a sum over the nodes, by e^{−(1 − c²)(T/m) k²/2}. All
three are exact to rounding for a density whose waves the nodes hold and that vanishes at all four
edges. What a letter carries beyond an edge is lost; that, and waves near the shortest ones that
nodes hold, are warned of above 1e-6 of the peak and refused above 1e-2.

Reference:
    Leimkuhler and Matthews 2013, Appl. Math. Res. Express 2013, 34, for the words; Trefethen and
    Weideman 2014, SIAM Review 56, theorem 5.1, for sums over nodes in place of integrals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import AccuracyWarning, SolverError
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.engine.validation import check_dynamics
from sdegen.fokker_planck.density2d import validation as plane
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.splitting import BAOAB, OBABO, friction_factors
from sdegen.verification.chain import check_uniform

_WARNS, _FAILS = 1e-6, 1e-2  # of the peak
_SHORTEST = 0.875  # of the waves that nodes hold: what is beyond must be little
_ALIKE, _LENGTHS = 1e-12, 8  # steps of one length, and lengths of which factors are kept
_TOLERANCE, _VECTORS, _RESTARTS = 1e-13, 24, 300  # of the density at rest: Arnoldi's method


@dataclass(frozen=True)
class ChainDensity2D:
    """The density of the chain that BAOAB or OBABO makes of an underdamped particle.

        p_{k+1}(y) = ∫ K(y | x) p_k(x) dx,     y = (position, velocity), K the law of a step

    Args:
        dynamics: An `UnderdampedLangevin` with states of shape (batch, 2, 1), without walls.
        grids: Uniform grids of the position and the velocity, at whose ends the density vanishes.
        solver: `BAOAB` or `OBABO`.

    Raises:
        TypeError: If dynamics are no `UnderdampedLangevin`, grids no pair of grids, or the solver
            another.
        ValueError: If a grid is not uniform.

    Example:
        >>> trap, line = sg.UnderdampedLangevin(sg.Quadratic(1.0)), sg.Grid(-8.0, 8.0, cells=48)
        >>> rest = sg.ChainDensity2D(trap, (line, line), sg.OBABO()).stationary(1.0)
        >>> [round(float(c), 8) for c in rest.covariance.diag()]  # T/ω² (1 − ω² dt²/4)⁻¹, T/m
        [1.33333333, 1.0]
    """

    dynamics: UnderdampedLangevin
    grids: tuple[Grid, Grid]
    solver: BAOAB | OBABO = field(default_factory=BAOAB)

    def __post_init__(self) -> None:
        kind = "an UnderdampedLangevin, such as UnderdampedLangevin(DoubleWell())"
        check_kind("dynamics", self.dynamics, UnderdampedLangevin, kind)
        plane.check_door(self.dynamics, self.grids)
        if type(self.solver) not in (BAOAB, OBABO):
            raise TypeError(
                "the law of a chain in phase space is built for BAOAB and OBABO, but solver is "
                f"{type(self.solver).__name__}; pass BAOAB(substeps=…), or of linear dynamics "
                "take ChainMoments."
            )
        for grid in self.grids:
            check_uniform(grid)

    def run(self, p0: PlaneDensity, times: Tensor | Sequence[float]) -> list[PlaneDensity]:
        """Propagate a density through the steps of the solver.

        Args:
            p0: Density at times[0] on the grids, of mass 1: `FokkerPlanck2D.gaussian` makes one.
            times: As `simulate` takes them.

        Returns:
            Densities at times.

        Raises:
            TypeError: If p0 is no density.
            ValueError: If p0 or the times are refused, the force is not finite, or the grids cut
                the density or are too coarse for it.
        """
        ts = as_time_grid(times)
        start = self._start(p0)
        nodes = self._nodes(ts)
        letters, cut = _Letters(self), {"A": 0.0, "B": 0.0}
        p, saved = start, [start]
        with torch.no_grad():
            for i, (t, s) in enumerate(pairwise(nodes.unbind())):
                p, gone = letters.after(p, t, s)
                cut = {letter: max(cut[letter], gone[letter]) for letter in cut}
                if (i + 1) % self.solver.substeps == 0:
                    saved.append(p)
        _judge(cut, max(map(_shortest_waves, saved)))
        return [self._density(p) for p in saved]

    def stationary(self, step: float) -> PlaneDensity:
        """Return the density that a step leaves as it is, of mass 1.

        Args:
            step: Time from one node to the next, > 0; `substeps` are not looked at.

        Raises:
            ValueError: If the potential depends on time, there is no friction or no temperature,
                the force is not finite, or the grids cut the density or are too coarse for it.
            SolverError: If it is not found.
        """
        check_positive("step", step)
        sde = self.dynamics
        if not sde.autonomous or sde.noise == "none":
            why = "depends on time" if not sde.autonomous else "has no friction or no temperature"
            raise ValueError(
                f"a chain comes to rest where noise does, and at every t alike, but this "
                f"{type(sde).__name__} {why}; ask for run(p0, times)."
            )
        t, s = self._nodes(torch.tensor([0.0, step], dtype=torch.float64))[[0, -1]]
        letters, shape = _Letters(self), tuple(len(grid.nodes) for grid in self.grids)

        def after(p: np.ndarray) -> np.ndarray:
            return letters.after(torch.from_numpy(p.reshape(shape)), t, s)[0].flatten().numpy()

        with torch.no_grad():
            x, v = (axis.flatten()[:, None] for axis in torch.meshgrid(*self._axes, indexing="ij"))
            energy = sde.energy(sde.state(x, v))
            boltzmann = torch.exp((energy.min() - energy) / float(sde.temperature)).numpy()
            size = len(boltzmann)
            operator = LinearOperator((size, size), matvec=after, dtype=np.float64)
            try:
                _, vectors = eigs(
                    operator, 1, v0=boltzmann, tol=_TOLERANCE, ncv=_VECTORS, maxiter=_RESTARTS
                )
            except ArpackNoConvergence:
                raise SolverError(
                    f"the density at rest at steps of {step:g} was not found in {_RESTARTS} "
                    "restarts: it is reached too slowly. Take longer steps, or run(p0, times)."
                ) from None
            p = torch.from_numpy(np.ascontiguousarray(vectors[:, 0].real)).reshape(shape)
            p = self._density(p / p.sum()).p
            cut = letters.after(p, t, s)[1]
        _judge(cut, _shortest_waves(p))
        rest = self._density(p)
        return self._density(p / rest.mass)

    @property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """The nodes of x and of v."""
        return self.grids[0].nodes, self.grids[1].nodes

    def _density(self, p: Tensor) -> PlaneDensity:
        """Return a density of values at the nodes."""
        return PlaneDensity(*self._axes, p, phase_space=True)

    def _nodes(self, ts: Tensor) -> Tensor:
        """Return the nodes of the solver; refuse what does not fit the dynamics."""
        check_dynamics(self.dynamics, self.solver, ts, None)
        nodes = self.solver.nodes(ts)
        self.solver.check(self.dynamics, nodes)
        ends = torch.stack([axis[[0, -1]] for axis in self._axes], 1)[:, :, None]
        with torch.no_grad():
            self.dynamics.check_derivatives(ends, ts[0])
        return nodes

    def _start(self, p0: PlaneDensity) -> Tensor:
        """Return the nodal values of a start."""
        check_kind("p0", p0, PlaneDensity, "a PlaneDensity, such as FokkerPlanck2D.gaussian gives")
        blank = self._density(torch.zeros([len(axis) for axis in self._axes], dtype=torch.float64))
        return plane.check_start(blank, p0, absorbs=False).p


class _Letters:
    """What the letters of a step do to the density at the nodes."""

    def __init__(self, chain: ChainDensity2D) -> None:
        self._sde, self._word = chain.dynamics, type(chain.solver).__name__
        self._x, self._v = chain._axes
        self._waves = [_waves(axis) for axis in chain._axes]
        self._known: dict[tuple[str, float], tuple[Tensor, ...]] = {}
        self._lengths: list[float] = []

    def after(self, p: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the density after a step from t to s, and what was carried off, of its peak."""
        cut, kicks, length = {"A": 0.0, "B": 0.0}, [s, t], self._length(float(s - t))
        for letter in self._word:
            h = length / self._word.count(letter)
            if letter == "O":
                p = self._rubbed(p, h)
                continue
            shift, leaves = self._shift(letter, h, kicks.pop() if letter == "B" else t)
            axis = 0 if letter == "A" else 1
            cut[letter] = max(cut[letter], float((p.abs() * leaves).max() / p.max()))
            p = p.masked_fill(leaves, 0.0)  # or it would come in at the other edge
            p = torch.fft.irfft(torch.fft.rfft(p, dim=axis) * shift, p.shape[axis], dim=axis)
        return p, cut

    def _length(self, step: float) -> float:
        """Return the length of a step, or one that is the same but for rounding."""
        near = [one for one in self._lengths if math.isclose(one, step, rel_tol=_ALIKE)]
        if near:
            return near[0]
        if len(self._lengths) == _LENGTHS:  # all differ
            self._lengths.clear()
            self._known.clear()
        self._lengths.append(step)
        return step

    def _shift(self, letter: str, h: float, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of a shift along x or v, and the nodes that it carries off."""
        known = self._known.get((letter, h))
        if known is not None and (letter == "A" or self._sde.autonomous):
            return known[0], known[1]
        axis = 0 if letter == "A" else 1
        nodes, along = (self._x, self._v)[axis], self._waves[axis]
        by = h * (self._v[None, :] if axis == 0 else self._kick(t))
        to = nodes.unsqueeze(1 - axis) + by
        leaves = (to < nodes[0]) | (to > nodes[-1])
        half = 0.5 * float(nodes[-1] - nodes[0])
        waves = along.unsqueeze(1 - axis)
        factors = torch.exp(-1j * waves * by.clamp(-half, half))  # beyond, nothing may be
        self._known[letter, h] = factors, leaves
        return factors, leaves

    def _kick(self, t: Tensor) -> Tensor:
        """Return F(x, t)/m, shape (nx, 1)."""
        sde = self._sde
        force = sde.force(self._x[:, None], t) / sde.mass
        if not bool(force.isfinite().all()):
            at = float(self._x[~force.isfinite().flatten()][0])
            raise ValueError(
                f"the force is not finite at x = {at:g}, t = {float(t):g}; pass a grid of "
                "positions on which the potential exists."
            )
        return force

    def _rubbed(self, p: Tensor, h: float) -> Tensor:
        """Return the density after O: at each x its Fourier transform at c k, times a Gaussian."""
        known = self._known.get(("O", h))
        if known is None:
            rate = self._sde.friction_at(self._x[:, None])
            c, spread = (
                factor.reshape(-1).double() for factor in friction_factors(self._sde, rate, h)
            )
            v = self._v
            k = 2 * math.pi * torch.fft.fftfreq(len(v), float(v[1] - v[0]), dtype=torch.float64)
            back = torch.exp(1j * v[:, None] * k)
            each = [
                (back * torch.exp(-0.5 * (b * k) ** 2)) @ torch.exp(-1j * a * k[:, None] * v)
                for a, b in zip(c, spread.expand_as(c), strict=True)
            ]
            known = self._known["O", h] = (torch.stack(each).real / len(v),)
        (matrices,) = known
        if len(matrices) == 1:
            return p @ matrices[0].T
        return torch.matmul(matrices, p[:, :, None])[:, :, 0]


def _waves(nodes: Tensor) -> Tensor:
    """Return the wave numbers of a real Fourier series on nodes."""
    h = float(nodes[1] - nodes[0])
    waves: Tensor = 2 * math.pi * torch.fft.rfftfreq(len(nodes), h, dtype=torch.float64)
    return waves


def _shortest_waves(p: Tensor) -> float:
    """Return the largest amplitude of the shortest waves of a density, of that of all."""
    shares = []
    for axis in (0, 1):
        size = torch.fft.rfft(p, dim=axis).abs().amax(1 - axis)
        shares.append(float(size[int(_SHORTEST * len(size)) :].max() / size.max()))
    return max(shares)


def _judge(cut: dict[str, float], coarse: float) -> None:
    """Warn of, or refuse, a density that grids cut or are too coarse for."""
    off = "of its peak is carried beyond an end of the grid of the"
    causes = (
        (cut["A"], f"{off} position by free flight. Widen it, or take shorter steps."),
        (cut["B"], f"{off} velocity by the force. Widen it, or take shorter steps."),
        (coarse, "of it is in waves as short as nodes are near. Take more cells."),
    )
    size, text = max(causes, key=lambda cause: math.inf if math.isnan(cause[0]) else cause[0])
    told = f"the grids do not hold the density of the chain: {size:.2g} {text}"
    if not size <= _FAILS:
        raise ValueError(told)
    if size > _WARNS:
        warnings.warn(told, AccuracyWarning, stacklevel=3)
