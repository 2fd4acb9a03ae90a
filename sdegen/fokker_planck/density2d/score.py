"""The score ∇ log p of densities in the plane, a function (x, t) as reversal and flows take it.

log p at the nodes is made a cubic spline along both coordinates, and a cubic in time through the
four nearest densities; its slopes are the score, and its second derivatives the gradient of that.

Where a density is below 10⁻⁹ of its peak its digits are lost, and the score is that of the nearest
node where they are not, so that it points back. Beyond the grid it is that of its edge.

**Errors.** The score that every other node has, and the score at a time that the densities of the
others have, are compared with this one, as E|δs|²/E|s|² under p; where densities were solved for
on two grids, the two of them are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.requests import as_numbers, check_kind
from sdegen.core.shapes import State, Time
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.arrays import Array

Places = tuple[Array, Array]
Mask = NDArray[np.bool_]

_FAINT = 1e-9  # of the peak: below it a density has no digits
_RIM = 2  # nodes beside those that have none: a spline feels them
_FEWEST = 8  # nodes along both coordinates at which it has
_WRAPPED = 6  # nodes beyond the seam of a ring, for the spline to be the ring's
_NEAREST = 4  # densities that the score at a time is made from
_REMEMBERED = 16  # times whose splines are kept
_ROUNDING = 1e-9  # of the times: what lies so close to an end is the end
_APART = 4.0  # how much closer densities are than with one of them left out, to the fourth order


@dataclass(frozen=True, eq=False)
class _Landscape:
    """Log p at one time.

    Args:
        spline: Of log p.
        x: Nodes along both coordinates.
        y: The same.
        inner: Nodes around which p has digits, shape (nx, ny).
    """

    spline: RectBivariateSpline
    x: Array
    y: Array
    inner: Mask

    @cached_property
    def _near(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _nearest(self.inner)

    def places(self, first: Array, second: Array) -> tuple[Places, Mask]:
        """Return where the score is read of states, and for which of them that is elsewhere."""
        if self.inner.all():
            return (first, second), np.zeros(len(first), dtype=bool)
        i = np.searchsorted(0.5 * (self.x[1:] + self.x[:-1]), first)
        j = np.searchsorted(0.5 * (self.y[1:] + self.y[:-1]), second)
        far, near = ~self.inner[i, j], self._near
        read = (
            np.where(far, self.x[near[0][i, j]], first),
            np.where(far, self.y[near[1][i, j]], second),
        )
        return read, far


class PlaneScore:
    """The score of densities in the plane at times between theirs, of states (batch, 2).

        s(x, t) = ∇ log p(x, t)

    Args:
        densities: As `FokkerPlanck2D.solve` returns them; one for a score that does not change.
        times: Their times, strictly monotone; None of one density.

    Raises:
        TypeError: If one is no density.
        ValueError: If there are no densities, times are not one for each and monotone, nodes
            differ, or one of them is a point or has no place that is above 1e-9 of its peak.

    Example:
        >>> grid = sg.Grid(-4.0, 4.0, 32)
        >>> trap = sg.FokkerPlanck2D(sg.ItoProcess(lambda x: -x, 1.0), (grid, grid))
        >>> score = sg.PlaneScore([trap.stationary()])
        >>> score(torch.tensor([[1.0, -0.5]]), 0.0)  # −x/variance
        tensor([[-2.,  1.]])
    """

    def __init__(
        self,
        densities: Sequence[PlaneDensity],
        times: Tensor | Sequence[float] | None = None,
    ) -> None:
        self.densities: tuple[PlaneDensity, ...] = _checked(densities)
        at = None if times is None else as_numbers("times", times, expected="numbers")
        count = len(self.densities)
        if at is None and count == 1:
            at = torch.zeros(1, dtype=torch.float64)
        if at is None or at.shape != (count,):
            came = "none" if at is None else f"shape {tuple(at.shape)}"
            raise ValueError(
                f"times must be one for each of {count} densities, but are {came}; pass the times "
                "that solve was asked for."
            )
        steps = at.diff()
        if not bool((steps > 0).all() | (steps < 0).all()):
            raise ValueError(f"times must be strictly monotone, but are {at.tolist()}.")
        self.times: Tensor = at.detach().to("cpu", torch.float64)
        first = self.densities[0]
        self._x, self._y, self._rings = first.x.numpy(), first.y.numpy(), first.rings
        self._known: dict[float, _Landscape] = {}

    def __call__(self, x: State, t: Time | float) -> State:
        """Return ∇ log p at states and a time, shape of x.

        Args:
            x: States, shape (batch, 2).
            t: Time, 0-d, a number, or one for each state, shape (batch,).

        Raises:
            ValueError: If t lies outside the times, or x is not of the plane.
        """
        if x.ndim != 2 or x.shape[1] != 2:
            raise ValueError(f"x must have shape (batch, 2), but has {tuple(x.shape)}.")
        when = torch.as_tensor(t).detach().to("cpu", torch.float64)
        if when.ndim == 0:
            land = self._landscape(float(when))
            at, far = land.places(*self._place(x))
            slope: Tensor = _Slope.apply(x, land.spline, at, far)  # type: ignore[no-untyped-call]
            return slope
        out = torch.empty_like(x)
        each, owner = torch.unique(when.flatten(), return_inverse=True)
        for k, one in enumerate(each.tolist()):
            rows = (owner == k).nonzero()[:, 0].to(x.device)
            out = out.index_copy(0, rows, self(x[rows], one))
        return out

    @cached_property
    def error(self) -> ErrorEstimate:
        """Estimated relative errors √(E|δs|²/E|s|²) of "score" at each time, shape (T,)."""
        each = torch.tensor([self._error_at(k) for k in range(len(self.times))])
        return ErrorEstimate({"score": each.double()}, "every other node, and every other time")

    def _error_at(self, k: int) -> float:
        """Return the error at one of the times."""
        density, others = self.densities[k], np.delete(np.arange(len(self.times)), k)
        x, y, t = self._x[::2], self._y[::2], float(self.times[k])
        fine, p = _slopes(self._landscape(t).spline, x, y), density.p.numpy()[::2, ::2]
        p = np.where(self._inner[k][::2, ::2], p, 0.0)
        if density.compared is None:
            spline = _spline_of(x, y, _logarithm(density.p.numpy()[::2, ::2], x, y), self._rings)
        else:
            nodes = density.compared.x.numpy(), density.compared.y.numpy()
            values = _logarithm(density.compared.p.numpy(), *nodes)
            spline = _spline_of(*nodes, values, self._rings)
        missed = _difference(fine, _slopes(spline, x, y), p)
        if len(others) > 1:
            made = self._made_of(others, t).spline
            missed += _difference(fine, _slopes(made, x, y), p) / _APART
        return missed

    @cached_property
    def _logarithms(self) -> Array:
        """Log p at the nodes, shape (T, nx, ny)."""
        return np.stack([_logarithm(d.p.numpy(), self._x, self._y) for d in self.densities])

    @cached_property
    def _inner(self) -> Mask:
        """Where densities have digits, shape (T, nx, ny)."""
        return np.stack([_inner(d.p.numpy()) for d in self.densities])

    def _landscape(self, t: float) -> _Landscape:
        """Return log p at a time."""
        if len(self.times) == 1:
            t = float(self.times[0])
        known = self._known.get(t)
        if known is None:
            first, last = sorted((float(self.times[0]), float(self.times[-1])))
            beyond = _ROUNDING * (last - first)
            if not first - beyond <= t <= last + beyond:
                raise ValueError(
                    f"the score is known from t = {first:g} to {last:g}, but was asked for at "
                    f"{t:g}; pass densities at times that include it."
                )
            known = self._made_of(np.arange(len(self.times)), min(max(t, first), last))
            while len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            self._known[t] = known
        return known

    def _made_of(self, which: NDArray[np.int64], t: float) -> _Landscape:
        """Return log p at a time, made of the nearest of some densities."""
        times = self.times.numpy()[which]
        near = np.sort(np.argsort(np.abs(times - t))[:_NEAREST])
        at, which = times[near], which[near]
        weights = np.array(
            [np.prod([(t - b) / (a - b) for b in at if b != a]) for a in at], dtype=np.float64
        )
        values = np.tensordot(weights, self._logarithms[which], 1)
        inner = self._inner[which[weights != 0]].all(0)
        spline = _spline_of(self._x, self._y, values, self._rings)
        return _Landscape(spline, self._x, self._y, inner if inner.any() else inner | True)

    def _place(self, x: Tensor) -> Places:
        """Return states as numbers within the grid."""
        first, second = x.detach().to("cpu", torch.float64).numpy().T
        each = []
        for at, nodes, ring in zip((first, second), (self._x, self._y), self._rings, strict=True):
            low, high = nodes[0], nodes[-1]
            each.append(low + np.mod(at - low, high - low) if ring else np.clip(at, low, high))
        return each[0], each[1]


class _Context(Protocol):
    """What autograd keeps for the way back."""

    spline: RectBivariateSpline
    at: Places
    far: Mask


class _Slope(torch.autograd.Function):
    """The slopes of a spline, whose own derivatives are its second ones."""

    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, spline: RectBivariateSpline, at: Places, far: Mask
    ) -> Tensor:
        ctx.spline, ctx.at, ctx.far = spline, at, far
        return _stacked([spline.ev(*at, dx=1), spline.ev(*at, dy=1)], x)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        at, spline = ctx.at, ctx.spline
        xx, xy, yy = (spline.ev(*at, dx=i, dy=j) for i, j in ((2, 0), (1, 1), (0, 2)))
        xx, xy, yy = (np.where(ctx.far, 0.0, each) for each in (xx, xy, yy))
        rows = _stacked([xx, xy, xy, yy], grad).reshape(-1, 2, 2)
        return (rows @ grad[..., None])[..., 0], None, None, None


def _stacked(columns: list[Array], like: Tensor) -> Tensor:
    """Return columns as a tensor like another."""
    return torch.from_numpy(np.stack(columns, 1)).to(like)


def _checked(densities: Sequence[PlaneDensity]) -> tuple[PlaneDensity, ...]:
    """Return the densities, if a score can be read from them."""
    if isinstance(densities, PlaneDensity):
        densities = [densities]
    if len(densities) == 0:
        raise ValueError("densities must be one at least, but are none; pass what solve returned.")
    for k, density in enumerate(densities):
        check_kind(f"densities[{k}]", density, PlaneDensity, "a PlaneDensity, as solve returns it")
        first = densities[0]
        if not (torch.equal(density.x, first.x) and torch.equal(density.y, first.y)):
            raise ValueError(
                f"densities must share their nodes, but those of densities[{k}] differ from those "
                "of densities[0]; pass densities of one solver."
            )
        p = density.p
        wide = [int((p > _FAINT * p.max()).any(axis).sum()) for axis in (1, 0)]
        if not min(wide) >= _FEWEST:
            raise ValueError(
                f"densities[{k}] is above {_FAINT:g} of its peak at {wide[0]} × {wide[1]} nodes, "
                f"and a score needs {_FEWEST} along both; leave out a start at a point, pass a "
                "wider one, or take finer grids."
            )
    return tuple(densities)


def _logarithm(p: Array, x: Array, y: Array) -> Array:
    """Return log p, continued along straight lines where p has no digits."""
    inner = _inner(p)
    values = np.log(np.where(p > 0, p, 1.0))
    if inner.all():
        return values
    i, j = _nearest(inner)
    rise, across = np.gradient(values, x, y)
    line = values[i, j] + rise[i, j] * (x[:, None] - x[i]) + across[i, j] * (y - y[j])
    return np.asarray(np.where(inner, values, line))


def _inner(p: Array) -> Mask:
    """Return the nodes around which a density has digits; all that have, if there are none."""
    known = p > _FAINT * p.max()
    inner = binary_erosion(known, np.ones((3, 3)), _RIM, border_value=1)
    return np.asarray(inner if inner.any() else known)


def _nearest(inner: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which inner node is nearest to every node, each of shape (nx, ny)."""
    i, j = distance_transform_edt(~inner, return_distances=False, return_indices=True)
    return i, j


def _spline_of(x: Array, y: Array, values: Array, rings: tuple[bool, bool]) -> RectBivariateSpline:
    """Return the spline through values at the nodes, beyond the seams of rings too."""
    nodes = []
    for axis, (at, ring) in enumerate(zip((x, y), rings, strict=True)):
        if ring:  # both ends are one node, which the nodes beyond them do not repeat
            few, width = min(_WRAPPED, len(at) - 1), at[-1] - at[0]
            at = np.concatenate([at[-few - 1 : -1] - width, at, at[1 : few + 1] + width])
            once = values.take(range(values.shape[axis] - 1), axis)
            wide = [(few, few + 1) if other == axis else (0, 0) for other in (0, 1)]
            values = np.pad(once, wide, mode="wrap")
        nodes.append(at)
    return RectBivariateSpline(nodes[0], nodes[1], values, kx=3, ky=3, s=0)


def _slopes(spline: RectBivariateSpline, x: Array, y: Array) -> Array:
    """Return the slopes of a spline at all pairs of nodes, shape (2, nx, ny)."""
    return np.stack([spline(x, y, dx=1), spline(x, y, dy=1)])


def _difference(first: Array, second: Array, p: Array) -> float:
    """Return √(E|δs|²/E|s|²) of two scores, the first being s."""
    square = float((p * ((first - second) ** 2).sum(0)).sum())
    return float(np.sqrt(square / max(float((p * (first**2).sum(0)).sum()), 1e-300)))
