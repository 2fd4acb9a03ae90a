"""A density on a line: values at nodes, and between them a cubic, positive where they are.

A solver knows a density p at the nodes; between two of them it is the cubic of `cubics.py`. Its
`cdf`, `quantile` and moments are those of this cubic, exactly. A density that lost mass at an
absorbing wall has a mass below 1: `cdf` ends there, while mean, variance and quantiles are those
of what is left. Units: x in units of the state, p in their inverse.

Beside a wall without noise it may be a power of the distance times such a cubic (`power_law.py`).

What a grid does not resolve is kept on a finer one: `fine` then answers what is asked. The error
of each answer is its difference to that of the same problem with all cells halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust, in_words
from sdegen.core.errors import NotNormalizableError
from sdegen.core.requests import as_numbers, check_function
from sdegen.core.shown import Labelled
from sdegen.fokker_planck.discretization import cubics
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.cubics import cell_masses
from sdegen.fokker_planck.discretization.power_law import Interpolant, PowerLaw, Powers

_BISECTIONS = 60
_ROUNDING = 1e-15  # what any number may be wrong by
_UNRESOLVED = 2e-2  # of the peak: by how much a cubic through every other node may miss the rest
# exact for a cubic times a polynomial of degree 6
_GAUSS_NODES, _GAUSS_WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(5))
_SHARES, _WEIGHTS = 0.5 * (1 + _GAUSS_NODES), 0.5 * _GAUSS_WEIGHTS  # of a cell


@dataclass(frozen=True, eq=False)
class Density(Labelled):
    """A nodal density.

        mass = ∫ p dx,     mean = ∫ x p dx/mass,     entropy = −∫ p log p dx

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
        jumped: Of dynamics that jump, the chance that a jump lands beyond ends that only end the
            grid, or the mass that was carried there up to its time; None without jumps.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> p = sg.FokkerPlanck(ou, sg.Grid(-8.0, 8.0, cells=100)).stationary()  # N(0, 1)
        >>> f"{p.variance:.4f} {p.entropy:.4f} {p.quantile(0.975):.3f}"  # 1, ½ log 2πe, 1.960
        '1.0000 1.4189 1.960'
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
    jumped: float | None = None

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
            return cubics.limited_slopes(self.x.diff(), self._smooth)

    def _recorded(self) -> AbstractContextManager[object]:
        """Keep the graph of what is stored, whoever asks for it first, such as `error`."""
        return torch.enable_grad() if self.p.requires_grad else nullcontext()

    @cached_property
    def _law(self) -> PowerLaw | None:
        """The powers at the walls, if there are any."""
        return None if self.powers == (None, None) else PowerLaw(self.x, self.powers)

    @cached_property
    def _between(self) -> Interpolant:
        """The cubics between the nodes."""
        return Interpolant(self.x, self._smooth, self.slopes, self._law)

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
        """Return the difference of a moment to that on the finer grid, over a scale."""
        difference = float(getattr(self, name)) - float(getattr(self.compared, name))
        return abs(difference) / scale + self.hidden + _ROUNDING

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
        low, high = (f"{float(value) / peak:.1e}" for value in p[[0, -1]])
        return Trust.on_grid(
            "density",
            f"{in_words(self.error)}, {len(nodes) - 1} cells",
            step="within that of the grid",
            truncation=f"{low} and {high} of the peak at the ends of the grid"
            + ("" if self.jumped is None else f", {self.jumped:.1e} jumped beyond"),
            slope_by=self.slope_by,
        )

    @cached_property
    def cell_masses(self) -> Float[Tensor, " cells"]:
        """Probability of each cell [x_i, x_{i+1}], shape (nodes − 1,)."""
        with self._recorded():
            if self.fine is not None:
                owner = torch.searchsorted(self.x, self.fine.x[:-1], right=True) - 1
                parts = self.fine.cell_masses
            elif self._law is not None:
                owner, (_, parts) = self._law.points.cell, self._by_powers()
            else:
                return cell_masses(self.x, self.p)
            return torch.zeros(len(self.x) - 1, dtype=parts.dtype).index_add(0, owner, parts)

    def _by_powers(self) -> tuple[Tensor, Tensor]:
        """Return the points of a density with powers at walls, and the masses that they hold."""
        assert self._law is not None
        points = self._law.points
        return points.x, points.weight * self._between.at(points.cell, points.share)

    def _by_cubics(self) -> tuple[Tensor, Tensor]:
        """Return the Gauss points of the cells, and the cubics there, shape (cells, points)."""
        x = self.x[:-1, None] + self.x.diff()[:, None] * _SHARES
        return x, self._between.at(torch.arange(len(self.x) - 1)[:, None], _SHARES)

    def part_masses(self, between: Float[Tensor, " cells"]) -> Float[Tensor, " parts"]:
        """Return the probabilities of the two parts of each cell, shape (2 · cells,).

        Args:
            between: Where each cell is cut.
        """
        first = self._between.mass(torch.arange(len(between)), between, self.cell_masses)
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
            r = self._between.at(points.cell, points.share)
            log_p = torch.where(r > 0, r, 1.0).log() + self._law.weight(points.x).log()
            return -(points.weight * r * torch.where(r > 0, log_p, 0.0)).sum()
        p = self._by_cubics()[1].clamp(min=0)
        each = p * torch.where(p > 0, p, 1.0).log()
        return -((each @ _WEIGHTS) * self.x.diff()).sum()

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

    def _misses(self) -> tuple[Array, Array]:
        return cubics.every_other_missed(self.x.numpy(), self._smooth.detach().numpy())

    def expect(self, f: Callable[[Tensor], Tensor]) -> Float[Tensor, ""]:
        """Return E f(X) of the mass that is there, by Gauss quadrature on each cell's cubic.

        Args:
            f: An elementwise function.
        """
        check_function("f", f, "an elementwise function of x, such as torch.square")
        if self.fine is not None:
            return self.fine.expect(f)
        if self._law is not None:
            x, parts = self._by_powers()
            return (f(x) * parts).sum() / self.mass
        x, p = self._by_cubics()
        return ((f(x) * p) @ _WEIGHTS * self.x.diff()).sum() / self.mass

    def at(self, x: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return p(x) of the cubic; zero beyond the nodes, ∞ at a wall with a negative power."""
        if self.fine is not None:
            return self.fine.at(x)
        y = as_numbers("x", x, expected="positions").to(self.x)
        cell = self._between.cell(y)
        share = (y - self.x[cell]) / (self.x[cell + 1] - self.x[cell])
        p = self._between.at(cell, share)
        inside = (y >= self.x[0]) & (y <= self.x[-1])
        if self._law is not None:
            p = p * self._law.weight(y.clamp(self.x[0], self.x[-1]))
        return torch.where(inside, p, 0.0)

    def within_cells(self, share: Float[Tensor, " cells"]) -> Float[Tensor, " cells"]:
        """Return p at one place in each cell, given as a share in [0, 1] of its width."""
        if self._law is not None or self.fine is not None:
            return self.at(self.x[:-1] + share * self.x.diff())
        return cubics.values_within(self.x.diff(), self.p, self.slopes, share)

    def cdf(self, x: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return ∫_{−∞}^{x} p; reaches `mass`, not 1 where mass was absorbed.

        Args:
            x: Positions, any shape.
        """
        if self.fine is not None:
            return self.fine.cdf(x)
        y = as_numbers("x", x, expected="positions").to(self.x).clamp(self.x[0], self.x[-1])
        cell = self._between.cell(y)
        below = torch.nn.functional.pad(self.cell_masses.cumsum(0), (1, 0))
        return below[cell] + self._between.mass(cell, y, self.cell_masses)

    def quantile(self, q: Float[Tensor, "*levels"] | float) -> Float[Tensor, "*levels"]:
        """Return x with cdf(x) = q · mass, by bisection in a cell, with a gradient if p has one.

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
                short = self._between.mass(cell, middle, self.cell_masses) < target
                low, high = torch.where(short, middle, low), torch.where(short, high, middle)
            x = 0.5 * (low + high)
        if not (self.p.requires_grad and torch.is_grad_enabled()):
            return x
        # cdf(x; θ) = q · mass(θ) along a change of θ: dx = (q · d mass − d cdf)/p
        lack = level * self.mass - self.cdf(x)
        return x + (lack - lack.detach()) / self.at(x).detach()

    def normalized(self) -> Density:
        """Return the same shape with mass 1.

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
        others = (self.fine, self.compared)
        finer, halved = (None if d is None else d.normalized() for d in others)
        return replace(self, p=self.p / mass, fine=finer, compared=halved, told=None)

    def lumped(self) -> Density:
        """Return nodal values that hold its masses and its mean: ∫ φ_i p dx over ∫ φ_i dx.

        φ_i is the hat of a node. They are finite at every wall, know nothing of `fine`, and are
        what a grid can hold of a density that it does not resolve.
        """
        of = self if self.fine is None else self.fine
        if of._law is not None:
            x, masses = of._by_powers()
        else:
            points, p = of._by_cubics()
            x, masses = points.flatten(), (p * _WEIGHTS * of.x.diff()[:, None]).flatten()
        cell = self._between.cell(x)
        width = self.x.diff()
        share = (x - self.x[cell]) / width[cell]
        zero = torch.zeros_like(self.x)
        held = zero.index_add(0, cell, masses * (1 - share)).index_add(0, cell + 1, masses * share)
        pad = torch.nn.functional.pad
        return Density(
            self.x, held / (pad(0.5 * width, (1, 0)) + pad(0.5 * width, (0, 1)))
        ).normalized()
