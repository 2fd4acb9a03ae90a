"""Fokker–Planck: the density of an SDE, from the same drift and diffusion that are simulated.

    p_t = −(f p)_x + (D p)_xx = −J_x,    D = g²/2        (Itô; multiplicative noise of any reading
    arrives as Itô)

`FokkerPlanck` puts an SDE on a grid between two walls. The stationary density is solved for
directly; a density in time is carried by an exponential, or by implicit steps. The operator is
compact, of fourth order in the cell, where the start is resolved by the grid, and lumped,
positive and of second order, where it is not.

Assumed: one dimension; D > 0 inside the grid. Said, not hidden: how much of the density leans on
    a wall that is not
meant to be one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from sdegen.errors import NonFiniteError, NotNormalizableError
from sdegen.fokker_planck import stationary
from sdegen.fokker_planck.coefficients import Reader
from sdegen.fokker_planck.density import Density, DensityPath
from sdegen.fokker_planck.fluxes import find_pole
from sdegen.fokker_planck.generator import Generator
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.transient import Exponential, Integrator
from sdegen.sde.base import SDE
from sdegen.walls import WallKind, check_wall_kind

__all__ = ["FokkerPlanck", "Form"]

Form = Literal["auto", "compact", "lumped"]

_EDGE_WARNS, _EDGE_FAILS = 1e-6, 1e-2
_MASS_TOLERANCE = 1e-3
_NEGATIVE = 1e-12  # of the peak: what a start may have by rounding
_ROUNDING = 1e-11  # of the peak: what the rational exponential leaves below zero
_UNRESOLVED = 2e-2  # of the peak: by how much a cubic through every other node may miss the rest


class FokkerPlanck:
    """The density of a one-dimensional SDE on a grid.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        grid: Nodes of the density.
        boundary: "no-flux", "absorbing" or "periodic", or a pair (lower, upper).
        form: "compact" (fourth order), "lumped" (second order, positive), or "auto": compact
            where the start is resolved by the grid and vanishes at absorbing walls, else lumped.
        physical_walls: Whether walls without flux are part of the problem. If not, they only end
            the grid, and a density that leans on them is an error. A wall where D = 0 is always
            physical.

    Raises:
        ValueError: For a misspelt wall, a state that is not one-dimensional, a drift or diffusion
            that is not finite, or D = 0 inside the grid.

    >>> from sdegen.sde.processes import OrnsteinUhlenbeck >>>
    round(float(FokkerPlanck(OrnsteinUhlenbeck(), Grid(-8.0, 8.0,
    cells=100)).stationary().variance), 6) 1.0
    """

    def __init__(
        self,
        sde: SDE,
        grid: Grid,
        boundary: WallKind | tuple[WallKind, WallKind] = "no-flux",
        *,
        form: Form = "auto",
        physical_walls: bool = False,
    ) -> None:
        self.sde, self.grid = sde, grid
        self.walls = _walls(boundary)
        if form not in get_args(Form):
            words = ", ".join(map(repr, get_args(Form)))
            raise ValueError(f"form must be one of {words}, but is {form!r}.")
        self.form, self.physical_walls = form, physical_walls
        self._generator = Generator(Reader(sde, grid), self.walls, compact=form != "lumped")

    def solve(
        self,
        p0: Density,
        times: Tensor | Sequence[float],
        *,
        integrator: Integrator | None = None,
        differentiable: bool = False,
    ) -> DensityPath:
        """Carries a density through times.

        Args:
            p0: Density at times[0], on the grid's nodes, of mass 1, or less where a wall absorbs.
            times: Strictly increasing; decreasing for dynamics that are meant for decreasing
                times (`ReverseSDE`).
            integrator: `Exponential()` if None; `BackwardEuler(substeps)` for steps that are
                positive by construction.
            differentiable: Whether gradients flow to the parameters of drift and diffusion, and
                to p0.

        Returns:
            Densities at times. Between walls without flux, and on a ring, their mass is that of
            p0.

        Raises:
            ValueError: If times or p0 are refused, or the density leans on a wall that is not
                physical.
            NonFiniteError: If the density became NaN or infinite; `.result` holds the path.
        """
        integrator = integrator or Exponential()
        ts = self._check_times(times)
        start = self._check_start(p0)
        generator = self._in_form_for(start, integrator)
        with nullcontext() if differentiable else torch.no_grad():
            varies = self._generator.reader.varies(ts)
            path = integrator.path(generator, generator.ends.restrict(start), ts, varies=varies)
            p = generator.ends.widen(torch.stack(path))
            p = self._as_density(torch.cat([start[None], p[1:]]))
        result = DensityPath(ts, p, self.grid.nodes)
        if not bool(torch.isfinite(p).all()):
            bad = int((~torch.isfinite(p).all(1)).nonzero()[0])
            raise NonFiniteError(f"the density is not finite at t = {float(ts[bad]):g}.", result)
        self._check_edges(p.detach(), ts)
        return result

    def stationary(self, *, differentiable: bool = False) -> Density:
        """The stationary density, of mass 1.

        Args:
            differentiable: Whether gradients flow to the parameters of drift and diffusion.

        Returns:
            The density; between walls without flux it carries no current, on a ring a constant
            one.

        Raises:
            ValueError: If the SDE depends on time, or the density leans on a wall that is not
                physical.
            NotNormalizableError: If mass leaves through an absorbing wall, or the density grows
                towards an end.
        """
        if "absorbing" in self.walls:
            raise NotNormalizableError(
                "there is no stationary density: all mass leaves through the absorbing wall "
                f"(boundary is {self.walls!r})."
            )
        if self._varies:
            raise ValueError(
                "drift or diffusion depend on time, so that there is no stationary density; "
                "freeze the time in the SDE, or "
                "solve from a start."
            )
        with nullcontext() if differentiable else torch.no_grad():
            generator = self._generator
            flux = generator.fluxes(generator.coefficients(generator.reader.start))
            ring = self.walls[0] == "periodic"
            log_p = stationary.on_a_ring(flux)[0] if ring else stationary.on_a_line(flux)
            if not ring:
                self._check_ends()
                self._check_confined(log_p.detach())
            return Density(self.grid.nodes, generator.ends.filled(log_p.exp())).normalized()

    @cached_property
    def _varies(self) -> bool:
        """Whether the SDE depends on time."""
        return self._generator.reader.varies_at_all()

    @cached_property
    def _open_ends(self) -> tuple[bool, bool]:
        """Which ends are walls without flux that only end the grid."""
        c = self._generator.coefficients(self._generator.reader.start)
        d = c.nodal_diffusivity.detach()
        low, high = (kind == "no-flux" and not self.physical_walls for kind in self.walls)
        return low and float(d[0]) > 0, high and float(d[-1]) > 0

    def _in_form_for(self, start: Tensor, integrator: Integrator) -> Generator:
        """The generator in the form that start and integrator ask for."""
        if integrator.lumped_only:
            if self.form == "compact":
                raise ValueError(
                    f"{type(integrator).__name__} is positive for the lumped form only; pass "
                    "form='lumped' or 'auto'."
                )
            return self._generator.with_form(compact=False)
        if self.form != "auto":
            return self._generator
        p = start.detach()
        jumps = any(
            kind == "absorbing" and float(edge) > 1e-8 * float(p.max())
            for kind, edge in zip(self.walls, (p[0], p[-1]), strict=True)
        )
        return self._generator.with_form(compact=not jumps and _is_resolved(self.grid.nodes, p))

    def _as_density(self, p: Tensor) -> Tensor:
        """Takes rounding off: tiny negative values, and the drift of a mass that is conserved."""
        floor = -_ROUNDING * p.detach().amax(-1, keepdim=True)
        p = torch.where((p < 0) & (p > floor), 0.0, p)
        if "absorbing" in self.walls:
            return p
        x = self.grid.nodes
        mass = torch.stack([Density(x, row).mass for row in p])
        return p * (mass[0] / mass)[:, None]

    def _check_times(self, times: Tensor | Sequence[float]) -> Tensor:
        try:
            ts = torch.as_tensor(times, dtype=torch.float64).detach().to("cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"times must be numbers: {error}; pass torch.linspace(t_start, t_end, n)."
            ) from None
        if ts.ndim != 1 or len(ts) < 2:
            raise ValueError(
                f"times must be a list of at least two times, but has shape {tuple(ts.shape)}; "
                "pass torch.linspace(t_start, t_end, n)."
            )
        bad = ~torch.isfinite(ts)
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise ValueError(f"times must be finite, but times[{i}] = {float(ts[i])}.")
        wrong = ts.diff() * self.sde.direction <= 0
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            sense = (
                "increasing"
                if self.sde.direction > 0
                else "decreasing, the sense in which this SDE is meant,"
            )
            raise ValueError(
                f"times must be strictly {sense} but times[{i}]={float(ts[i]):g} is followed by "
                f"{float(ts[i + 1]):g}; a "
                "density cannot be carried against its diffusion: build ReverseSDE for the "
                "reversed dynamics."
            )
        low, high = self.sde.time_range
        if float(ts.min()) < low or float(ts.max()) > high:
            raise ValueError(
                f"times reach from {float(ts.min()):g} to {float(ts.max()):g}, but the SDE is "
                f"defined from {low:g} to {high:g}."
            )
        return ts

    def _check_start(self, p0: Density) -> Tensor:
        """The start's values at the nodes, or a refusal."""
        if not hasattr(p0, "p") or not hasattr(p0, "cell_masses"):
            raise TypeError(
                f"p0 must be a Density, but is {type(p0).__name__}; pass grid.gaussian(mean, "
                "std), grid.point(x0) or "
                "Density(grid.nodes, p)."
            )
        x = self.grid.nodes
        if p0.x.shape != x.shape or not torch.equal(p0.x.to(x), x):
            raise ValueError(
                f"p0 lives on {len(p0.x)} nodes from {float(p0.x[0]):g} to {float(p0.x[-1]):g}, "
                f"the solver on {len(x)} from "
                f"{self.grid.low:g} to {self.grid.high:g}; make it with this grid, or evaluate it "
                "there: "
                "Density(grid.nodes, p0.at(grid.nodes)).normalized()."
            )
        p = p0.p.to(torch.float64)
        value = p.detach()
        bad = ~torch.isfinite(value)
        if bool(bad.any()):
            raise ValueError(
                f"p0 must be finite, but is {float(value[bad][0])} at x = {float(x[bad][0]):g}."
            )
        low = int(value.argmin())
        if (
            float(value[low]) < -_NEGATIVE * float(value.max().clamp(min=0))
            and float(value[low]) < 0
        ):
            raise ValueError(
                f"p0 must be ≥ 0, but is {float(value[low]):g} at x = {float(x[low]):g}."
            )
        mass = float(Density(x, value).mass)
        if mass == 0:
            raise ValueError("p0 has no mass: it is zero at every node.")
        lacks = mass < 1 - _MASS_TOLERANCE and "absorbing" not in self.walls
        if lacks or mass > 1 + _MASS_TOLERANCE:
            raise ValueError(f"p0 must have mass 1, but has {mass:.6g}; pass p0.normalized().")
        return p

    def _check_edges(self, p: Tensor, times: Tensor) -> None:
        """Warns of, or refuses, a density that leans on a wall that only ends the grid."""
        ratio = p[:, [0, -1]] / p.amax(1, keepdim=True) * torch.tensor(self._open_ends)
        k = int(ratio.amax(1).argmax())
        self._judge_edges(ratio[k], f" at t = {float(times[k]):g}")

    def _check_ends(self) -> None:
        """Refuses a density that diverges at a wall where D = 0."""
        c = self._generator.coefficients(self._generator.reader.start)
        for side, end in (("low", 0), ("high", -1)):
            pole = find_pole(c, self.grid.nodes, end)
            if pole is None or pole.stationary_exponent >= 0:
                continue
            q, x = pole.stationary_exponent, float(self.grid.nodes[end])
            if q <= -1:
                raise NotNormalizableError(
                    f"there is no stationary density: it grows towards {side} x, like the "
                    f"distance from {x:g} to the power {q:.3g}."
                )
            raise ValueError(
                f"the stationary density diverges at the wall x = {x:g}, like the distance to the "
                f"power {q:.3g}; nodal values need a power "
                "≥ 0: use a coordinate in which the noise is constant."
            )

    def _check_confined(self, log_p: Tensor) -> None:
        """Refuses what has no stationary density beyond the grid, and a grid that cuts one."""
        rising = []
        for side, index, inner, end in (
            ("low", 0, 1, self.grid.low),
            ("high", -1, -2, self.grid.high),
        ):
            if self._open_ends[index]:
                height, slope = float(log_p[index]), float(log_p[index] - log_p[inner])
                if height > math.log(_EDGE_FAILS) and slope >= 0:
                    how = "still grows" if slope > 0 else "does not fall"
                    share = float(log_p[index].exp())
                    rising.append(
                        f"{side} x (at x = {end:g} it is {share:.3g} of its peak and {how})"
                    )
        if rising:
            raise NotNormalizableError(
                "there is no stationary density: it grows towards "
                f"{' and towards '.join(rising)}. If it turns beyond the "
                "grid, widen the grid; if the wall is real, pass physical_walls=True."
            )
        self._judge_edges(log_p[[0, -1]].exp() * torch.tensor(self._open_ends), "")

    def _judge_edges(self, ratio: Tensor, when: str) -> None:
        """Judges the densities at both ends against the peak: 1e-6 is noted, 1e-2 is too much."""
        high = bool(ratio[1] > ratio[0])
        worst = float(ratio[int(high)])
        if worst <= _EDGE_WARNS:
            return
        text = (
            f"the density at the {'high' if high else 'low'} end of the grid, x = "
            f"{self.grid.high if high else self.grid.low:g}, is {worst:.3g} of its peak{when}: "
            "the grid cuts it. Widen it, or pass physical_walls=True if there is a real wall."
        )
        if worst > _EDGE_FAILS:
            raise ValueError(text)
        warnings.warn(text, UserWarning, stacklevel=4)


def _walls(boundary: object) -> tuple[WallKind, WallKind]:
    """A word or a pair as a pair."""
    pair = (boundary, boundary) if isinstance(boundary, str) else boundary
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"boundary must be a word or a pair (lower, upper), but is {boundary!r}.")
    for kind in pair:
        check_wall_kind(kind, "boundary")
    if "periodic" in pair and pair[0] != pair[1]:
        raise ValueError(f"a periodic wall needs its partner, but boundary is {boundary!r}.")
    return pair


def _is_resolved(x: Tensor, p: Tensor) -> bool:
    """Whether a cubic through every other node meets the nodes between."""
    if len(x) < 9:
        return False
    coarse = Density(x[::2].contiguous(), p[::2])
    between = x[1::2][x[1::2] < coarse.x[-1]]
    miss = (coarse.at(between) - p[1::2][: len(between)]).abs().max()
    return float(miss) < _UNRESOLVED * float(p.max())
