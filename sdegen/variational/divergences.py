"""Divergences between two laws: Kullback–Leibler and Jensen–Shannon, in nats.

    KL(p ‖ q) = E_p[log p − log q]
    JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m),      m = ½ (p + q);      between 0 and log 2

Three routes, by what is known of the laws: a closed form (two Gaussians, KL alone), quadrature in
one or two dimensions (densities of a Fokker–Planck solve, or any `log_prob` on `grids`), and a
mean over samples with its standard error, in any dimension. Each says which it took and how far it
can be trusted.

**Quadrature** takes five Gauss–Legendre points in each cell. Its error is the difference to what
cells of twice the length give. A grid that cuts a law off is refused: of what lies outside, a
divergence knows nothing. Where p > 0 and q = 0, KL is infinite; but not where p is below rounding.

Reference:
    Kullback and Leibler 1951, Ann. Math. Statist. 22, 79, eq. (2.4); Lin 1991, IEEE Trans. Inf.
    Theory 37, 145, eq. (3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.errors import NonFiniteError
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, first_true, kind_of
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.variational.gaussians import Gaussian

Method = Literal["closed form", "quadrature", "samples"]
Grids = Grid | list[Grid] | tuple[Grid, ...]
Integrand = Callable[[Tensor, Tensor], Tensor]  # of the values of two densities

_GAUSS_NODES, _GAUSS_WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(5))
_ROUNDING = 1e-13  # of the peak of a density: below it there are no digits
_CUT = 1e-4  # of the mass, outside of a grid


@runtime_checkable
class Law(Protocol):
    """A law with a density: `GaussianMixture`, a prior, or an object of the user's own."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape (batch,), of points of shape (batch, d)."""


@dataclass(frozen=True)
class DivergenceEstimate:
    """A divergence of two laws of x, shape (n, d), and how far it can be trusted.

        value = D(p, q) ± error

    Attributes:
        value: In nats.
        error: Standard error of a mean over samples; difference to half of the cells of a
            quadrature; 0 of a closed form.
        method: Which of the three it is.

    Example:
        >>> p, q = sg.Gaussian([0.0]), sg.Gaussian([1.0])
        >>> found = sg.variational.kl_divergence(p, q)
        >>> found.value, found.error, found.method  # ½ (1 − 0)²
        (0.5, 0.0, 'closed form')
    """

    value: float
    error: float
    method: Method

    def __float__(self) -> float:
        return self.value


def kl_divergence(
    p: object,
    q: object,
    *,
    grids: Grids | None = None,
    samples: int | None = None,
    rng: Rng = None,
) -> DivergenceEstimate:
    """Return the divergence of p from q, laws of x of shape (n, d), in nats.

        KL(p ‖ q) = E_p[log p − log q]

    Args:
        p: A `Gaussian`, a `Density` or `PlaneDensity`, or anything with `log_prob(x)`.
        q: Another.
        grids: A `Grid`, or a pair for laws in the plane, on which laws with a `log_prob` are
            integrated.
        samples: Or how many samples of p the mean is taken over; p has `sample(n, rng=…)` then.
        rng: Seed of the samples, generator or None.

    Returns:
        The divergence, its error and how it was found.

    Raises:
        TypeError: If a law is none, or neither route is asked for where there is no other.
        ValueError: If dimensions differ, or a grid cuts a law off.
        NonFiniteError: If a log-density is NaN, or +∞.

    Example:
        >>> sg.variational.kl_divergence(sg.Gaussian([0.0]), sg.Gaussian([2.0])).value  # 2²/2
        2.0
    """
    if grids is None and samples is None and isinstance(p, Gaussian) and isinstance(q, Gaussian):
        return DivergenceEstimate(float(p.kl(q)), 0.0, "closed form")
    if samples is not None:
        streams = _asked(grids, samples, rng)
        log_p, log_q = _log_pair(p, q, _draws(p, "p", samples, streams))
        return _mean(log_p - log_q)
    return _quadrature(p, q, grids, _kl_integrand)


def jensen_shannon(
    p: object,
    q: object,
    *,
    grids: Grids | None = None,
    samples: int | None = None,
    rng: Rng = None,
) -> DivergenceEstimate:
    """Return the Jensen–Shannon divergence of two laws of x, shape (n, d), in nats.

        JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m),     m = ½ (p + q)

    Args:
        p: As of `kl_divergence`.
        q: As of `kl_divergence`.
        grids: As of `kl_divergence`.
        samples: How many samples of each law; both have `sample(n, rng=…)` then.
        rng: Seed of the samples, generator or None.

    Returns:
        The divergence, its error and how it was found; errors as of `kl_divergence`.

    Example:
        >>> p, q = sg.Gaussian([-20.0]), sg.Gaussian([20.0])
        >>> found = sg.variational.jensen_shannon(p, q, grids=sg.Grid(-40.0, 40.0, cells=2000))
        >>> f"{found.value:.4f}"  # log 2, the most there is
        '0.6931'
    """
    if samples is not None:
        streams = _asked(grids, samples, rng)
        halves = []
        for one, other, name in ((p, q, "p"), (q, p, "q")):
            log_one, log_other = _log_pair(one, other, _draws(one, name, samples, streams))
            halves.append(_mean(log_one - torch.logaddexp(log_one, log_other) + math.log(2)))
        value = 0.5 * (halves[0].value + halves[1].value)
        return DivergenceEstimate(value, 0.5 * math.hypot(*(h.error for h in halves)), "samples")
    return _quadrature(p, q, grids, _js_integrand)


def _kl_integrand(p: Tensor, q: Tensor) -> Tensor:
    """Return p log(p/q), 0 where p is below rounding."""
    seen = p > _ROUNDING * p.max()
    ratio = torch.where(seen, p, 1.0).log() - torch.where(seen, q, 1.0).log()
    return torch.where(seen, p * ratio, 0.0)


def _js_integrand(p: Tensor, q: Tensor) -> Tensor:
    """Return ½ p log(p/m) + ½ q log(q/m)."""
    m = 0.5 * (p + q)
    safe = torch.where(m > 0, m, 1.0)
    return 0.5 * (torch.xlogy(p, p / safe) + torch.xlogy(q, q / safe))


def _mean(terms: Tensor) -> DivergenceEstimate:
    """Return the mean of independent terms and its standard error."""
    error = float(terms.std() / math.sqrt(len(terms)))
    return DivergenceEstimate(float(terms.mean()), error, "samples")


def _asked(grids: object, samples: int, rng: Rng) -> Streams:
    """Return where samples come from; refuse two routes at once."""
    if grids is not None:
        raise ValueError("give grids or samples, one of the two.")
    check_count("samples", samples, 2)
    return Streams(seed_of(rng), "divergence")


def _draws(law: object, name: str, n: int, streams: Streams) -> Tensor:
    """Return samples of a law in float64, shape (n, d)."""
    draw = getattr(law, "sample", None)
    if not isinstance(law, Law) or not callable(draw):
        raise TypeError(
            f"{name} must have log_prob(x) and sample(n, rng=…) for a mean over samples, but is "
            f"{kind_of(law)}; pass grids= in one or two dimensions."
        )
    rng = streams.block("pq".index(name)).generator()
    x: Tensor = draw(n, rng=rng, dtype=torch.float64)
    return x


def _log_pair(p: object, q: object, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log q at points, of which neither is NaN or +∞."""
    return log_density(p, "p", x), log_density(q, "q", x)


def log_density(law: object, name: str, x: Tensor) -> Tensor:
    """Return log of a density at points, shape (n,), float64, without gradients.

    Args:
        law: Anything with `log_prob(x)`.
        name: What its user calls it.
        x: Points, shape (n, d).

    Raises:
        TypeError: If it has no `log_prob`.
        ValueError: If that returns another shape.
        NonFiniteError: If it is NaN or +∞ somewhere.
    """
    if isinstance(law, type) or not isinstance(law, Law):
        raise TypeError(
            f"{name} must be a Gaussian, a density or an object with log_prob(x), but is "
            f"{kind_of(law)}."
        )
    value = law.log_prob(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        raise ValueError(
            f"{name}.log_prob must return one number for each point, shape ({len(x)},), but "
            f"returned {kind_of(value)}."
        )
    value = value.detach().double()
    if (i := first_true(value.isnan() | (value == math.inf))) is not None:
        place = [round(number, 6) for number in x[i].tolist()]
        raise NonFiniteError(f"{name}.log_prob is {float(value[i]):g} at x = {place}.")
    return value


def _quadrature(
    p: object, q: object, grids: Grids | None, integrand: Integrand
) -> DivergenceEstimate:
    """Return the integral of an integrand of two densities, on the grid that they have."""
    if isinstance(p, PlaneDensity) or isinstance(q, PlaneDensity):
        value, coarse = _in_the_plane(p, q, grids, integrand)
    else:
        lines = _lines(p, q, grids)
        value, coarse = (_on_cells(p, q, nodes, integrand) for nodes in (lines, _halved(lines)))
    return DivergenceEstimate(value, abs(value - coarse), "quadrature")


def _lines(p: object, q: object, grids: Grids | None) -> list[Tensor]:
    """Return the nodes along each coordinate, one or two."""
    densities = [law for law in (p, q) if isinstance(law, Density)]
    if densities:
        if grids is not None:
            raise ValueError("a Density brings its own nodes; leave grids out.")
        return [torch.unique(torch.cat([d.x.detach() for d in densities]))]
    if grids is None:
        raise TypeError(
            f"of {kind_of(p)} and {kind_of(q)} there is no closed form; pass "
            "grids=Grid(low, high, cells), a pair of them in the plane, or samples=100_000."
        )
    return _nodes_of(grids)


def _nodes_of(grids: Grids) -> list[Tensor]:
    """Return the nodes of one grid or two, or refuse them."""
    pair = list(grids) if isinstance(grids, list | tuple) else [grids]
    for grid in pair:
        check_kind("grids", grid, Grid, "a Grid, or a pair of them")
    if len(pair) not in (1, 2):
        raise ValueError(
            f"grids must be one or two, but are {len(pair)}; pass samples=100_000 in more "
            "dimensions."
        )
    return [grid.nodes for grid in pair]


def _halved(lines: list[Tensor]) -> list[Tensor]:
    """Return every other node along each coordinate, with both ends."""
    return [x if len(x) < 3 else torch.cat([x[:-1:2], x[-1:]]) for x in lines]


def _on_cells(p: object, q: object, lines: list[Tensor], integrand: Integrand) -> float:
    """Return the integral by five points in each cell."""
    x, area = _points_of(lines)
    values = []
    for law, name in ((p, "p"), (q, "q")):
        if isinstance(law, Density):
            density = law.at(x[:, 0]).detach().double()
        else:
            density = log_density(law, name, x).exp()
        values.append(density)
        check_mass(float(area @ density), name)
    return float(area @ integrand(*values))


def cells_of(grids: Grids) -> tuple[Tensor, Tensor]:
    """Return points of one or two grids, shape (n, d), and their weights, shape (n,).

    Args:
        grids: A `Grid`, or a pair of them.

    Raises:
        TypeError: If one is no `Grid`.
        ValueError: If there are more than two.
    """
    return _points_of(_nodes_of(grids))


def _points_of(lines: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return five points in each cell along each coordinate, and their weights."""
    places, widths = zip(*(_points_of_cells(x) for x in lines), strict=True)
    x = torch.cartesian_prod(*places)
    if len(lines) == 1:
        return x[:, None], widths[0]
    return x, torch.outer(*widths).flatten()


def _points_of_cells(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Gauss–Legendre points of all cells, increasing, and their weights."""
    half, middle = 0.5 * x.diff()[:, None], 0.5 * (x[1:] + x[:-1])[:, None]
    return (middle + half * _GAUSS_NODES).flatten(), (half * _GAUSS_WEIGHTS).flatten()


def _in_the_plane(
    p: object, q: object, grids: Grids | None, integrand: Integrand
) -> tuple[float, float]:
    """Return the integral at the nodes of a plane's density, and by the trapezoidal rule."""
    if grids is not None:
        raise ValueError("a PlaneDensity brings its own nodes; leave grids out.")
    planes = [law for law in (p, q) if isinstance(law, PlaneDensity)]
    first, last = planes[0], planes[-1]
    if not (torch.equal(first.x, last.x) and torch.equal(first.y, last.y)):
        raise ValueError(
            "two densities in the plane must have the same nodes, but these differ; solve both "
            "on one pair of grids."
        )
    nodes = torch.cartesian_prod(first.x, first.y)
    values = []
    for law, name in ((p, "p"), (q, "q")):
        if isinstance(law, PlaneDensity):
            density = law.p.detach().double()
        else:
            density = log_density(law, name, nodes).exp().reshape(first.p.shape)
        values.append(density)
        check_mass(float((first.weights * density).sum()), name)
    terms = integrand(*values)
    coarse = torch.trapezoid(torch.trapezoid(terms, first.y), first.x)
    return float((first.weights * terms).sum()), float(coarse)


def check_mass(mass: float, name: str) -> None:
    """Refuse a law that the grid cuts off, or does not resolve.

    Args:
        mass: What the grid holds of it.
        name: What its user calls it.

    Raises:
        ValueError: If that is not 1.
    """
    if not abs(mass - 1) < _CUT:
        raise ValueError(
            f"the grid holds a mass of {mass:.6g} of {name}, not 1: it cuts the law off, does not "
            f"resolve it, or {name} is not normalised; pass wider or finer grids, or normalise it."
        )
