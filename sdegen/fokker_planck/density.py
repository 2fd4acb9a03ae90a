"""A density on a line: values at nodes, and between them a cubic, positive where they are.

A solver knows a density p at the nodes x_i. Between two nodes it is the cubic of Hermite with
slopes s_i from the parabola through three neighbouring nodes: fourth order in the cell. Where
such a cubic would dip below zero (a start at a point, a tail that falls by more than e³ within a
cell) slopes are limited to |s_i| h ≤ 3 p_i, which keeps it positive. The mass of a cell is then

    m_i = h_i (p_i + p_{i+1})/2 − h_i² (s_{i+1} − s_i)/12

and `cdf`, `quantile` and moments are those of this cubic, exactly. A density that lost mass at an
absorbing wall has a mass below 1: `cdf` ends there, while mean, variance and quantiles are those
of what is left. Units: x in units of the state, p in their inverse.

Beside a wall without noise a density may be a power of the distance that is no whole number; it
is then that power times such a cubic (`power_law.py`), and ∞ at the wall if the power is negative.

What a grid does not resolve is kept on a finer one: `fine` then answers whatever is asked of the
density, whose own nodes are the user's. The error of each answer is its difference to that of the
same problem with all cells halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust, in_words
from sdegen.core.errors import NotNormalizableError
from sdegen.core.requests import as_numbers, check_function, kind_of
from sdegen.fokker_planck import arrays
from sdegen.fokker_planck.arrays import AnyArray
from sdegen.fokker_planck.power_law import PowerLaw, Powers

__all__ = [
    "Density",
    "DensityPath",
    "cell_masses",
    "integral",
    "integral_weights",
    "interpolated",
    "moment_weights",
    "part_masses",
]

_LIMIT = 3.0  # |s| h ≤ 3 p: the control points of the cubic are then ≥ 0
_BISECTIONS = 60
_ROUNDING = 1e-15  # what any number may be wrong by
_UNRESOLVED = 2e-2  # of the peak: by how much a cubic through every other node may miss the rest
_GAUSS_NODES, _GAUSS_WEIGHTS = (
    torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(5)
)  # exact for a cubic times a polynomial of degree 6


# ∫ ξᵏ H dξ, k = 0, 1, 2, of the cubics of Hermite for p_i, p_{i+1}, h s_i and h s_{i+1}
_HERMITE = np.array([
    (1 / 2, 3 / 20, 1 / 15),
    (1 / 2, 7 / 20, 4 / 15),
    (1 / 12, 1 / 30, 1 / 60),
    (-1 / 12, -1 / 20, -1 / 30),
])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Density:
    """A nodal density.

    Args:
        x: Nodes, strictly increasing, shape (nodes,).
        p: Values at the nodes, ≥ 0, shape (nodes,); ∞ at a wall with a negative power.
        powers: q of p ∝ ξ^q at the lower and the upper wall; None where p is smooth.
        fine: The same density on a finer grid, which has all nodes x.
        compared: The same problem's density with all cells halved, which has all nodes of x or,
            if there is one, of `fine`; errors are differences to it. None where none was made.
        assumed_autonomous: Whether it is an assumption that the SDE does not depend on time.
        told: Errors that were estimated where it was found, if none are differences to `compared`.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
        hidden: An error that `compared` shares, of all that is told; see `gaps`.
    """

    x: Float[Tensor, " nodes"]
    p: Float[Tensor, " nodes"]
    powers: Powers = (None, None)
    fine: Density | None = None
    compared: Density | None = None
    assumed_autonomous: bool = False
    told: ErrorEstimate | None = None
    slope_by: SlopeBy = "none"
    hidden: float = 0.0

    def __post_init__(self) -> None:
        for name in ("x", "p"):
            value: object = getattr(self, name)
            if not isinstance(value, Tensor):
                object.__setattr__(self, name, as_numbers(name, value, expected="nodal numbers"))
        if self.x.ndim != 1 or self.x.shape != self.p.shape or len(self.x) < 2:
            raise ValueError(
                "x and p must have one shape (nodes,), positions and values at the nodes, but "
                f"have {tuple(self.x.shape)} and {tuple(self.p.shape)}."
            )

    @cached_property
    def slopes(self) -> Float[Tensor, " nodes"]:
        """p′ at the nodes, of the parabola through three, limited so that the cubic is ≥ 0.

        With a power at a wall they are those of the smooth factor of p.
        """
        with self._recorded():
            return _limited(self.x.diff(), self._smooth)

    def _recorded(self) -> AbstractContextManager[object]:
        """What is kept keeps its graph, whoever asks for it first, such as `error`."""
        return torch.enable_grad() if self.p.requires_grad else nullcontext()

    @cached_property
    def _law(self) -> PowerLaw | None:
        """The powers at the walls, if there are any."""
        return None if self.powers == (None, None) else PowerLaw(self.x, self.powers)

    @cached_property
    def _smooth(self) -> Float[Tensor, " nodes"]:
        """What the cubics interpolate: p, or its smooth factor."""
        with self._recorded():
            return self.p if self._law is None else self._law.smooth(self.p).clamp(min=0)

    @cached_property
    def error(self) -> ErrorEstimate | None:
        """Estimated errors of p, mean, variance and entropy; None where none were made.

        They are relative to the peak for p, to max(|mean|, standard deviation), to the variance,
        and to max(|entropy|, 1).
        """
        if self.compared is None:
            return self.told
        with torch.no_grad():
            kept = torch.searchsorted(self.compared.x, self.x)
            p, finer = self.p.detach(), self.compared.p.detach()[kept]
            finite = torch.isfinite(p)
            # between nodes that see nothing of it the peak is that of the finer grid
            peak = float(p[finite].max()) or float(finer[finite].max()) or 1.0
            std = self.std
            return ErrorEstimate(
                {
                    "p": float((p - finer)[finite].abs().max()) / peak + self.hidden + _ROUNDING,
                    "mean": self._differs("mean", float(torch.maximum(self.mean.abs(), std))),
                    "variance": self._differs("variance", float(std**2)),
                    "entropy": self._differs("entropy", max(abs(float(self.entropy)), 1.0)),
                },
                "two grids",
            )

    def _differs(self, name: str, scale: float) -> float:
        """The difference of a moment to that on the finer grid, over a scale."""
        here, there = float(getattr(self, name)), float(getattr(self.compared, name))
        return abs(here - there) / scale + self.hidden + _ROUNDING

    def error_of(self, f: Callable[[Tensor], Tensor]) -> float:
        """Return the estimated error of `expect(f)`, over max(|E f|, the deviation of f).

        Args:
            f: An elementwise function.

        Raises:
            ValueError: If no error was estimated of this density.
        """
        if self.compared is None:
            if self.told is None:
                raise ValueError(
                    "the error of this density was not estimated; ask FokkerPlanck(sde, "
                    "grid).stationary() for one whose is."
                )
            raise ValueError(
                f"of this density the errors of {', '.join(self.told)} were estimated, and are in "
                ".error; for another, solve with all cells halved too, and compare the two."
            )
        here, there = float(self.expect(f)), float(self.compared.expect(f))
        spread = math.sqrt(float(self.expect(lambda x: (f(x) - here) ** 2)))
        return abs(here - there) / max(abs(here), spread, 1e-300) + self.hidden + _ROUNDING

    def trust(self) -> Trust:
        """Return what is known of its errors, a row for each cause."""
        nodes = self.x if self.fine is None else self.fine.x
        p = self.p.detach()
        peak = float(p[torch.isfinite(p)].max())
        low, high = (f"{float(p[side]) / peak:.1e}" for side in (0, -1))
        return Trust.on_grid(
            "density",
            f"{in_words(self.error)}, {len(nodes) - 1} cells",
            step="within that of the grid",
            truncation=f"{low} and {high} of the peak at the ends of the grid",
            slope_by=self.slope_by,
        )

    @cached_property
    def cell_masses(self) -> Float[Tensor, " cells"]:
        """Probability of each cell [x_i, x_{i+1}], shape (nodes − 1,)."""
        with self._recorded():
            return self._masses_of_cells()

    def _masses_of_cells(self) -> Float[Tensor, " cells"]:
        """What `cell_masses` keeps."""
        if self.fine is not None:
            owner = torch.searchsorted(self.x, self.fine.x[:-1], right=True) - 1
            zero = torch.zeros(len(self.x) - 1, dtype=self.fine.p.dtype)
            return zero.index_add(0, owner, self.fine.cell_masses)
        if self._law is None:
            return cell_masses(self.x, self.p)
        points = self._law.points
        zero = torch.zeros(len(self.x) - 1, dtype=self.p.dtype)
        part = points.weight * self._cubic(points.cell, points.share)
        return zero.index_add(0, points.cell, part)

    def part_masses(self, between: Float[Tensor, " cells"]) -> Float[Tensor, " parts"]:
        """Probabilities of the two parts of each cell, shape (2 · cells,).

        Args:
            between: Where each cell is cut.
        """
        first = self._mass_within(torch.arange(len(between)), between)
        return torch.stack([first, self.cell_masses - first], 1).flatten()

    @property
    def mass(self) -> Float[Tensor, ""]:
        """∫ p dx; below 1 where mass was absorbed."""
        return self.cell_masses.sum()

    @property
    def mean(self) -> Float[Tensor, ""]:
        """E X of the mass that is there, in units of the state."""
        return self.expect(lambda x: x)

    @property
    def variance(self) -> Float[Tensor, ""]:
        """Var X of the mass that is there."""
        mean = self.mean
        return self.expect(lambda x: (x - mean) ** 2)

    @property
    def entropy(self) -> Float[Tensor, ""]:
        """−∫ p log p dx, in units of k_B (nats)."""
        if self.fine is not None:
            return self.fine.entropy
        if self._law is not None:
            points = self._law.points
            r = self._cubic(points.cell, points.share)
            log_p = torch.where(r > 0, r, 1.0).log() + self._law.weight(points.x).log()
            return -(points.weight * r * torch.where(r > 0, log_p, 0.0)).sum()
        share = 0.5 * (1 + _GAUSS_NODES)
        p = self._cubic(torch.arange(len(self.x) - 1)[:, None], share).clamp(min=0)
        each = p * torch.where(p > 0, p, 1.0).log()
        return -((each @ (0.5 * _GAUSS_WEIGHTS)) * self.x.diff()).sum()

    @property
    def std(self) -> Float[Tensor, ""]:
        """√Var X."""
        return self.variance.sqrt()

    @cached_property
    def is_resolved(self) -> bool:
        """Whether the grid resolves it: a cubic through every other node meets those between."""
        if len(self.x) < 9:
            return False
        miss = self._misses()[1]
        return float(miss.max()) < _UNRESOLVED * float(self._smooth.detach().max())

    @property
    def least_resolved(self) -> float:
        """The node that a cubic through every other one misses most."""
        x, miss = self._misses()
        return float(x[int(miss.argmax())])

    def _misses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every other node, and by how much a cubic through those between them misses p there."""
        x, p = self.x.numpy(), self._smooth.detach().numpy()
        last = len(x) - 1 + len(x) % 2  # an odd number of nodes
        nodes, values = x[:last:2], p[:last:2]
        h = nodes[1:] - nodes[:-1]
        share = (x[1:last:2] - nodes[:-1]) / h
        miss = _within_cells(h, values, _limited(h, values), share) - p[1:last:2]
        return x[1:last:2], np.abs(miss)

    def expect(self, f: Callable[[Tensor], Tensor]) -> Float[Tensor, ""]:
        """E f(X) of the mass that is there, by Gauss quadrature on each cell's cubic.

        Args:
            f: An elementwise function.
        """
        check_function("f", f, "an elementwise function of x, such as torch.square")
        if self.fine is not None:
            return self.fine.expect(f)
        if self._law is not None:
            points = self._law.points
            p = points.weight * self._cubic(points.cell, points.share)
            return (f(points.x) * p).sum() / self.mass
        h = self.x.diff()
        share = 0.5 * (1 + _GAUSS_NODES)
        x = self.x[:-1, None] + h[:, None] * share
        p = self._cubic(torch.arange(len(h))[:, None], share)
        return ((f(x) * p) @ (0.5 * _GAUSS_WEIGHTS) * h).sum() / self.mass

    def at(self, x: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """p(x) of the cubic; zero beyond the nodes, ∞ at a wall with a negative power."""
        if self.fine is not None:
            return self.fine.at(x)
        y = as_numbers("x", x, expected="positions").to(self.x)
        cell = self._cell(y)
        share = (y - self.x[cell]) / (self.x[cell + 1] - self.x[cell])
        p = self._cubic(cell, share)
        inside = (y >= self.x[0]) & (y <= self.x[-1])
        if self._law is not None:
            p = p * self._law.weight(y.clamp(self.x[0], self.x[-1]))
        return torch.where(inside, p, 0.0)

    def within_cells(self, share: Float[Tensor, " cells"]) -> Float[Tensor, " cells"]:
        """p at one place in each cell, given as a share in [0, 1] of its width."""
        if self._law is not None or self.fine is not None:
            return self.at(self.x[:-1] + share * self.x.diff())
        return _within_cells(self.x.diff(), self.p, self.slopes, share)

    def cdf(self, x: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """∫_{−∞}^{x} p; reaches `mass`, not 1 where mass was absorbed.

        Args:
            x: Positions, any shape.
        """
        if self.fine is not None:
            return self.fine.cdf(x)
        y = as_numbers("x", x, expected="positions").to(self.x).clamp(self.x[0], self.x[-1])
        cell = self._cell(y)
        below = torch.nn.functional.pad(self.cell_masses.cumsum(0), (1, 0))
        return below[cell] + self._mass_within(cell, y)

    def quantile(self, q: Float[Tensor, "*levels"] | float) -> Float[Tensor, "*levels"]:
        """x with cdf(x) = q · mass, by bisection within its cell; with a gradient where p has one.

        Args:
            q: Levels in [0, 1], any shape.

        Raises:
            ValueError: If a level lies outside of [0, 1].
        """
        level = as_numbers("q", q, expected="levels in [0, 1]").to(self.x)
        if not bool(((level >= 0) & (level <= 1)).all()):
            raise ValueError(
                f"q must lie in [0, 1], but reaches from {level.min():g} to {level.max():g}."
            )
        if self.fine is not None:
            return self.fine.quantile(q)
        with torch.no_grad():
            below = torch.nn.functional.pad(self.cell_masses.clamp(min=0).cumsum(0), (1, 0))
            target = level * below[-1]
            cell = (torch.searchsorted(below, target.contiguous(), right=True) - 1).clamp(
                0, len(self.x) - 2
            )
            target = target - below[cell]
            low, high = self.x[cell], self.x[cell + 1]
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                if self._law is not None:
                    middle = self._law.middle(cell, low, high)
                short = self._mass_within(cell, middle) < target
                low, high = torch.where(short, middle, low), torch.where(short, high, middle)
            x = 0.5 * (low + high)
        if not (self.p.requires_grad and torch.is_grad_enabled()):
            return x
        # cdf(x; θ) = q · mass(θ) along a change of θ: dx = (q · d mass − d cdf)/p
        lack = level * self.mass - self.cdf(x)
        return x + (lack - lack.detach()) / self.at(x).detach()

    def normalized(self) -> Density:
        """The same shape with mass 1.

        Raises:
            NotNormalizableError: If there is no mass, or it is not finite.
        """
        bare = not self.p.requires_grad and self._law is None and self.fine is None
        mass: Tensor | float = (
            float(cell_masses(self.x.numpy(), self.p.numpy()).sum()) if bare else self.mass
        )
        height = mass if isinstance(mass, float) else float(mass.detach())
        if not 0 < height < math.inf:
            raise NotNormalizableError(
                f"a density of mass {height:g} cannot be normalised; it must be finite and "
                "somewhere positive."
            )
        return Density(
            self.x,
            self.p / mass,
            self.powers,
            None if self.fine is None else self.fine.normalized(),
            None if self.compared is None else self.compared.normalized(),
            self.assumed_autonomous,
            slope_by=self.slope_by,
        )

    def lumped(self) -> Density:
        """Return nodal values that hold its masses and its mean: ∫ φ_i p dx over ∫ φ_i dx.

        φ_i is the hat of a node. They are finite at every wall, know nothing of `fine`, and are
        what a grid can hold of a density that it does not resolve.
        """
        of = self if self.fine is None else self.fine
        h = of.x.diff()
        if of._law is not None:
            x, weights = of._law.points.x, of._law.points.weight
            masses = weights * of._cubic(of._law.points.cell, of._law.points.share)
        else:
            share = 0.5 * (1 + _GAUSS_NODES)
            p = of._cubic(torch.arange(len(h))[:, None], share)
            x = (of.x[:-1, None] + h[:, None] * share).flatten()
            masses = (p * (0.5 * _GAUSS_WEIGHTS) * h[:, None]).flatten()
        cell = self._cell(x)
        width = self.x.diff()
        share = (x - self.x[cell]) / width[cell]
        zero = torch.zeros_like(self.x)
        held = zero.index_add(0, cell, masses * (1 - share)).index_add(0, cell + 1, masses * share)
        half = 0.5 * width
        volumes = torch.nn.functional.pad(half, (1, 0)) + torch.nn.functional.pad(half, (0, 1))
        return Density(self.x, held / volumes).normalized()

    def _cell(self, x: Tensor) -> Tensor:
        """Index of the cell that holds x."""
        return (torch.searchsorted(self.x, x.contiguous(), right=True) - 1).clamp(
            0, len(self.x) - 2
        )

    def _bernstein(self, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Control points of a cell's cubic; all ≥ 0 where p is."""
        h = self.x[cell + 1] - self.x[cell]
        left, right = self._smooth[cell], self._smooth[cell + 1]
        return left, left + h * self.slopes[cell] / 3, right - h * self.slopes[cell + 1] / 3, right

    def _cubic(self, cell: Tensor, share: Tensor) -> Tensor:
        """p, or its smooth factor, at a share in [0, 1] of a cell."""
        c0, c1, c2, c3 = self._bernstein(cell)
        rest = 1 - share
        return c0 * rest**3 + 3 * c1 * share * rest**2 + 3 * c2 * share**2 * rest + c3 * share**3

    def _mass_within(self, cell: Tensor, x: Tensor) -> Tensor:
        """Mass of a cell from its lower node to x."""
        if self._law is not None:
            share, weights, sign = self._law.within(cell, x)
            part = (weights * self._cubic(cell[..., None], share)).sum(-1)
            return torch.where(sign[..., 0] < 0, self.cell_masses[cell] - part, part)
        h = self.x[cell + 1] - self.x[cell]
        share = (x - self.x[cell]) / h
        c0, c1, c2, c3 = self._bernstein(cell)
        rest = 1 - share
        # the integral of Σ c_k B_k of degree 3 is a sum of B_k of degree 4
        b1, b2, b3, b4 = 4 * share * rest**3, 6 * share**2 * rest**2, 4 * share**3 * rest, share**4
        total = c0 * b1 + (c0 + c1) * b2 + (c0 + c1 + c2) * b3 + (c0 + c1 + c2 + c3) * b4
        return 0.25 * h * total


@dataclass(frozen=True, eq=False)
class DensityPath:
    """Densities at times.

    Args:
        times: Times, strictly monotone in the direction of travel, shape (T,).
        p: Values at the nodes, shape (T, nodes); p[0] is the start.
        x: Nodes, shape (nodes,).
        powers: q of p ∝ ξ^q at the lower and the upper wall; None where p is smooth.
        fine: The same densities on a finer grid, which has all nodes x; as in `Density`.
        compared: The same problem's densities with all cells halved; likewise.
        told: Errors at each time, shape (T,), that were estimated where they were found.
        form: Form of the operator that carried them, "compact" or "lumped" (of second order,
            positive); None where none did.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
        hidden: An error that `compared` shares, of all that is told; see `gaps`.
    """

    times: Float[Tensor, " T"]
    p: Float[Tensor, "T nodes"]
    x: Float[Tensor, " nodes"]
    powers: Powers = (None, None)
    fine: DensityPath | None = None
    compared: DensityPath | None = None
    told: ErrorEstimate | None = None
    form: str | None = None
    slope_by: SlopeBy = "none"
    hidden: float = 0.0

    def at(self, k: int) -> Density:
        """The density at times[k]; k is an index, and −1 is the last.

        Raises:
            TypeError: If k is no int; a time is none.
            ValueError: If there are fewer times.
        """
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(
                f"k must be the index of one of {len(self)} times, but is {kind_of(k)}."
            )
        if not -len(self) <= k < len(self):
            raise ValueError(f"k must be the index of one of {len(self)} times, but is {k}.")
        fine = None if self.fine is None else self.fine.at(k)
        compared = None if self.compared is None else self.compared.at(k)
        told = None
        if self.told is not None:
            each = {name: float(torch.as_tensor(e)[k]) for name, e in self.told.items()}
            told = ErrorEstimate(each, self.told.method)
        return Density(
            self.x, self.p[k], self.powers, fine, compared, told=told, slope_by=self.slope_by,
            hidden=self.hidden,
        )  # fmt: skip

    @cached_property
    def error(self) -> ErrorEstimate | None:
        """Estimated errors at each time, shape (T,), as those of `Density`; None for none."""
        if self.compared is None:
            return self.told
        each = [self.at(k).error for k in range(len(self))]
        known = [error for error in each if error is not None]
        if not known:
            return None
        told = {
            name: torch.tensor([float(error[name]) for error in known], dtype=torch.float64)
            for name in known[0]
        }
        return ErrorEstimate(told, known[0].method)

    @property
    def final(self) -> Density:
        """The density at the last time."""
        return self.at(-1)

    def trust(self) -> Trust:
        """Return what is known of their errors, the largest at any time, a row for each cause."""
        nodes = self.x if self.fine is None else self.fine.x
        form = "" if self.form is None else f", {self.form}"
        p = self.p.detach()
        peaks = p.where(torch.isfinite(p), 0.0).amax(1)
        low, high = (f"{float((p[:, end] / peaks).max()):.1e}" for end in (0, -1))
        return Trust.on_grid(
            "densities in time",
            f"{in_words(self.error)}, {len(nodes) - 1} cells{form}",
            step="within that of the grid",
            truncation=f"{low} and {high} of the peak at the ends of the grid",
            slope_by=self.slope_by,
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def mass(self) -> Float[Tensor, " T"]:
        """∫ p dx at each time; it falls where mass is absorbed."""
        return self._each(lambda density: density.mass)

    @property
    def mean(self) -> Float[Tensor, " T"]:
        """E X of the mass that is there at each time, in units of the state."""
        return self._each(lambda density: density.mean)

    @property
    def variance(self) -> Float[Tensor, " T"]:
        """Var X of the mass that is there at each time."""
        return self._each(lambda density: density.variance)

    @property
    def std(self) -> Float[Tensor, " T"]:
        """√Var X at each time."""
        return self.variance.sqrt()

    @property
    def entropy(self) -> Float[Tensor, " T"]:
        """−∫ p log p dx at each time, in units of k_B (nats)."""
        return self._each(lambda density: density.entropy)

    def expect(self, f: Callable[[Tensor], Tensor]) -> Float[Tensor, " T"]:
        """E f(X) of the mass that is there at each time; f is elementwise."""
        return self._each(lambda density: density.expect(f))

    def cdf(self, x: Float[Tensor, "*points"]) -> Tensor:
        """∫_{−∞}^{x} p at each time, shape (T, *points); reaches `mass`.

        Args:
            x: Positions, any shape.
        """
        return self._each(lambda density: density.cdf(x))

    def quantile(self, q: Float[Tensor, "*levels"] | float) -> Tensor:
        """x with cdf(x) = q · mass at each time, shape (T, *levels).

        Args:
            q: Levels in [0, 1], any shape.

        Raises:
            ValueError: If a level lies outside of [0, 1].
        """
        return self._each(lambda density: density.quantile(q))

    def _each(self, of: Callable[[Density], Tensor]) -> Tensor:
        """What is asked of a density, of all of them."""
        return torch.stack([of(self.at(k)) for k in range(len(self))])


def cell_masses(x: AnyArray, p: AnyArray) -> AnyArray:
    """Masses of the cells of one or many densities, shape (..., cells).

    Args:
        x: Nodes, shape (nodes,).
        p: Nodal values ≥ 0, shape (..., nodes), tensors or arrays as the nodes are.
    """
    h = x[1:] - x[:-1]
    return _cell_integrals(h, p, _limited(h, p))


def part_masses(
    x: NDArray[np.float64], p: NDArray[np.float64], between: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Masses of cells, and of the two parts of each, shapes (cells,) and (2 · cells,).

    Args:
        x: Nodes, shape (nodes,).
        p: Nodal values ≥ 0, shape (nodes,).
        between: Where each cell is cut, shape (cells,).
    """
    h = x[1:] - x[:-1]
    slopes = _limited(h, p)
    masses = _cell_integrals(h, p, slopes)
    s = (between - x[:-1]) / h
    square = s * s
    cube = square * s
    right = cube * (1 - 0.5 * s)
    up, down = square * (0.5 - s * (2 / 3 - 0.25 * s)), cube * (1 / 3 - 0.25 * s)
    bend = h * (up * slopes[:-1] - down * slopes[1:])
    first = h * ((s - right) * p[:-1] + right * p[1:] + bend)
    return masses, np.stack([first, masses - first], 1).ravel()


def integral(x: Float[Tensor, " nodes"], y: Float[Tensor, "... nodes"]) -> Tensor:
    """∫ y dx of nodal values of any sign, fourth order in the cell, linear in y.

    >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
    >>> round(float(integral(x, x**2)), 12)
    0.333333333333
    """
    h = x[1:] - x[:-1]
    return _cell_integrals(h, y, _slopes(h, y)).sum(-1)


def integral_weights(x: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """Return the weights of `integral`, ∫ y dx = Σ w_i y_i: its formula transposed.

    >>> integral_weights(torch.linspace(0, 4, 5, dtype=torch.float64))
    tensor([0.3750, 1.1667, 0.9167, 1.1667, 0.3750], dtype=torch.float64)
    """
    return torch.from_numpy(moment_weights(x.numpy(), 1)[0])


def moment_weights(
    x: NDArray[np.float64], count: int = 3, *, origin: float = 0.0
) -> NDArray[np.float64]:
    """Return weights of ∫ p dx, ∫ y p dx and ∫ y² p dx of the cubics, shape (count, nodes).

    Over a cell of width h from x, with ∫ ξᵏ H dξ of the four cubics H of Hermite by hand.

    Args:
        x: Nodes, shape (nodes,).
        count: How many of the moments, 1 to 3.
        origin: Where y = x − origin is 0.
    """
    h, left_ends = x[1:] - x[:-1], x[:-1] - origin
    powers = np.empty((count, len(h)))
    powers[0] = h
    for k in range(1, count):
        np.multiply(powers[k - 1], h, out=powers[k])
    parts = _HERMITE[:, :count, None] * powers  # of p_i, p_{i+1}, h s_i and h s_{i+1}
    if count > 1:  # from powers of ξ h to those of x + ξ h
        shift = left_ends * parts[:, 0]
        if count > 2:
            parts[:, 2] += left_ends * (2 * parts[:, 1] + shift)
        parts[:, 1] += shift
    left, right, rise, fall = parts
    of_slopes = np.zeros((count, len(x)))
    of_slopes[:, :-1] += h * rise
    of_slopes[:, 1:] += h * fall
    middle = of_slopes[:, 1:-1].copy()
    middle[:, 0] -= of_slopes[:, 0]  # s_0 = 2 σ_0 − s_1, and so at the other end
    middle[:, -1] -= of_slopes[:, -1]
    share = h[1:] / (h[1:] + h[:-1])
    of_secants = np.zeros((count, len(h)))
    of_secants[:, :-1] += share * middle
    of_secants[:, 1:] += (1 - share) * middle
    of_secants[:, 0] += 2 * of_slopes[:, 0]
    of_secants[:, -1] += 2 * of_slopes[:, -1]
    of_secants /= h
    weights = np.zeros((count, len(x)))
    weights[:, 1:] += right + of_secants
    weights[:, :-1] += left - of_secants
    return weights


def interpolated(
    x: Float[Tensor, " nodes"], y: Float[Tensor, "... nodes"], at: Float[Tensor, " points"]
) -> Float[Tensor, "... points"]:
    """The cubic of nodal values of any sign, third order in the cell, at points within the nodes.

    >>> x = torch.linspace(0, 1, 5, dtype=torch.float64)
    >>> interpolated(x, x**2, torch.tensor([0.3], dtype=torch.float64))
    tensor([0.0900], dtype=torch.float64)
    """
    h = x[1:] - x[:-1]
    slopes = _slopes(h, y)
    i = (torch.searchsorted(x, at.contiguous(), right=True) - 1).clamp(0, len(h) - 1)
    share = (at - x[i]) / h[i]
    rest = 1 - share
    ends = y[..., i] * rest**2 * (1 + 2 * share) + y[..., i + 1] * share**2 * (1 + 2 * rest)
    bend = slopes[..., i] * rest - slopes[..., i + 1] * share
    return ends + h[i] * share * rest * bend


def _cell_integrals(h: AnyArray, y: AnyArray, slopes: AnyArray) -> AnyArray:
    """∫ y dx over each cell, of the cubic with these slopes."""
    bend = slopes[..., 1:] - slopes[..., :-1]
    integrals: AnyArray = 0.5 * h * (y[..., 1:] + y[..., :-1]) - h**2 / 12 * bend
    return integrals


def _within_cells(h: AnyArray, y: AnyArray, slopes: AnyArray, share: AnyArray) -> AnyArray:
    """The cubic at one place in each cell."""
    rest, left, right = 1 - share, y[:-1], y[1:]
    bend = h * (slopes[:-1] * rest - slopes[1:] * share)
    ends = left * rest * (1 + 2 * share) * rest + right * share**2 * (1 + 2 * rest)
    within: AnyArray = ends + share * rest * bend
    return within


def _slopes(h: AnyArray, y: AnyArray) -> AnyArray:
    """y′ at the nodes, of the parabola through three neighbours."""
    secant = (y[..., 1:] - y[..., :-1]) / h
    left, right = secant[..., :-1], secant[..., 1:]
    middle = right + h[1:] / (h[1:] + h[:-1]) * (left - right)
    first = 2 * secant[..., :1] - middle[..., :1]
    last = 2 * secant[..., -1:] - middle[..., -1:]
    slopes: AnyArray = arrays.of(y).concatenate([first, middle, last], -1)
    return slopes


def _limited(h: AnyArray, p: AnyArray) -> AnyArray:
    """Slopes that keep the cubic between two nodes positive."""
    # a falling slope endangers the cell to the right, a rising one the cell to the left
    of, slopes, most = arrays.of(p), _slopes(h, p), _LIMIT * p.clip(0)
    fall, rise = most[..., :-1] / -h, most[..., 1:] / h
    first = of.maximum(slopes[..., :1], fall[..., :1])
    middle = of.maximum(of.minimum(slopes[..., 1:-1], rise[..., :-1]), fall[..., 1:])
    last = of.minimum(slopes[..., -1:], rise[..., -1:])
    limited: AnyArray = of.concatenate([first, middle, last], -1)
    return limited
