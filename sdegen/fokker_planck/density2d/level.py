"""One of the grids on which a problem of the plane is solved, and how it is told from the others.

A problem is solved on the user's grid and on every other node of it, for an estimate of the error;
where that is large on finer grids, which keep the user's nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from sdegen.core.dissipation import dissipation
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.channel_fluxes import FAINT, ChannelFluxes, ChannelGenerator
from sdegen.fokker_planck.density2d.channel_gaps import hidden
from sdegen.fokker_planck.density2d.density import PlaneDensity, PlaneForm, Solved
from sdegen.fokker_planck.density2d.operator import Mesh, PlaneFluxes
from sdegen.fokker_planck.density2d.rest import balanced, compact_null_vector, null_vectors
from sdegen.fokker_planck.density2d.transient import PlaneGenerator
from sdegen.fokker_planck.density2d.validation import Pair, point
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.reconstruction import Line
from sdegen.fokker_planck.discretization.refinement import coarsened, halved, positions

_SPLINE = 5  # degree, of a start on a finer grid
_CLOSE, _FAR = 0.01, 0.1  # differences of two grids below which they have an order
LARGEST_SHARE = 7.0  # what a difference of two grids is divided by, at most
_ROUNDING = 1e-12
_MOST_DIRECT = 45_000  # unknowns that a matrix's compact form is factorised for


class PlaneLevel:
    """A problem of the plane on one grid.

    Args:
        sde: The dynamics.
        grids: The grid of each coordinate.
        conditions: What the ends of each coordinate are.
    """

    def __init__(self, sde: SDE, grids: tuple[Grid, Grid], conditions: tuple[Pair, Pair]) -> None:
        self.grids: tuple[Grid, Grid] = grids
        self.conditions: tuple[Pair, Pair] = conditions
        first, second = (Line(g, c) for g, c in zip(grids, conditions, strict=True))
        self.mesh: Mesh = Mesh((first, second))
        self.generator: PlaneGenerator | ChannelGenerator = (
            PlaneGenerator(sde, self.mesh)
            if sde.noise_structure == "diagonal"
            else ChannelGenerator(sde, self.mesh)
        )

    @cached_property
    def coarser(self) -> PlaneLevel:
        """The problem on every other node."""
        first, second = map(coarsened, self.grids)
        return PlaneLevel(self.generator.sde, (first, second), self.conditions)

    @cached_property
    def finer(self) -> PlaneLevel:
        """The problem with a node more in every cell."""
        first, second = map(halved, self.grids)
        finer = PlaneLevel(self.generator.sde, (first, second), self.conditions)
        finer.__dict__["coarser"] = self  # the same nodes, and what was found on them
        return finer

    def forget(self) -> None:
        """Forget what was read of the SDE, on all grids."""
        self.generator.forget()
        if "coarser" in self.__dict__:
            self.coarser.generator.forget()
        if "finer" in self.__dict__:
            self.finer.forget()

    @property
    def has_channels(self) -> bool:
        """Whether D is a matrix."""
        return isinstance(self.generator, ChannelGenerator)

    @property
    def rings(self) -> tuple[bool, bool]:
        """Which coordinates are periodic."""
        first, second = (line.ring for line in self.mesh.lines)
        return first, second

    @property
    def absorbs(self) -> bool:
        """Whether mass leaves through a wall."""
        return any(wall.absorbs for pair in self.conditions for wall in pair)

    @property
    def finer_size(self) -> int:
        """How many nodes the finer grid has."""
        return math.prod(2 * grid.cells + 1 for grid in self.grids)

    @cached_property
    def blank(self) -> PlaneDensity:
        """A density of no mass at the nodes."""
        return self.density(torch.zeros([len(grid.nodes) for grid in self.grids]).double())

    def density(self, p: Tensor) -> PlaneDensity:
        """Return values at the nodes as a density."""
        x, y = (grid.nodes for grid in self.grids)
        return PlaneDensity(x, y, p, rings=self.rings)

    def differences(self, fine: Solved, below: PlaneLevel, coarse: Solved) -> dict[str, float]:
        """Return how far apart two grids are, in the units of an `ErrorEstimate`.

        That is of "p" over its peak, of "mean" over the standard deviation where that is larger,
        of "covariance" over the product of standard deviations.

        Args:
            fine: What was found on this grid.
            below: A coarser grid.
            coarse: What was found there.
        """
        ours, theirs = self.density(fine.p), below.density(coarse.p)
        covariance = ours.covariance
        std = covariance.diagonal().clamp(min=0.0).sqrt()
        most = (self.seen_at(fine.p, below) - coarse.p).abs().max()
        mean = (ours.mean - theirs.mean).abs() / torch.maximum(std, ours.mean.abs())
        spread = (covariance - theirs.covariance).abs() / torch.outer(std, std)
        apart = {"p": most / fine.p.max(), "mean": mean.max(), "covariance": spread.max()}
        if self.absorbs:
            apart["mass"] = (ours.mass - theirs.mass).abs() / ours.mass
        return {name: float(difference) for name, difference in apart.items()}

    def hidden(self, each: Sequence[Solved], time: float) -> list[float]:
        """Return what jumps of f/D beside nodes, which no grid with these nodes sees, do to p.

        Args:
            each: Densities.
            time: When drift and diffusion are read.
        """
        mesh, worst = self.mesh, np.zeros(len(each))
        for axis, off in enumerate(self._beside(time)):
            if not off.any():
                continue
            for k, solved in enumerate(each):
                p = solved.p.detach().numpy().clip(0)
                along = (p.T if axis == 0 else p)[mesh.lines[1 - axis].interior] / p.max()
                behind = np.maximum.accumulate(along, 1)
                ahead = np.maximum.accumulate(along[:, ::-1], 1)[:, ::-1]
                worst[k] += float((off * np.minimum(behind, ahead)).sum(1).max())
        return worst.tolist()

    def _beside(self, time: float) -> list[Array]:
        """Return what ∫ f/D misses beside nodes along each coordinate."""
        if isinstance(self.generator, ChannelGenerator):
            return hidden(self.generator.reader, time)
        sde, mesh = self.generator.sde, self.mesh
        coefficients = mesh.read(sde, time)
        return [mesh.beside(coefficients, axis, sde, time) for axis in (0, 1)]

    def seen_at(self, p: Tensor, level: PlaneLevel) -> Tensor:
        """Return the values at the nodes of a coarser grid."""
        first, second = map(positions, level.grids, self.grids)
        return p[first][:, second]

    def sampled(self, start: PlaneDensity) -> Tensor:
        """Return the values of a density of another grid at the nodes of this one."""
        x, y = (grid.nodes for grid in self.grids)
        if len(start.x) >= len(x):
            i, j = torch.searchsorted(start.x, x), torch.searchsorted(start.y, y)
            return start.p[i][:, j]
        degree = min(_SPLINE, len(start.x) - 1, len(start.y) - 1)
        spline = RectBivariateSpline(
            start.x.numpy(), start.y.numpy(), start.p.numpy(), kx=degree, ky=degree
        )
        return torch.from_numpy(spline(x.numpy(), y.numpy()))

    def seen(self, start: PlaneDensity, at: tuple[float, float] | None, form: PlaneForm) -> Tensor:
        """Return a start at the nodes of this grid as a form sees it.

        Args:
            start: On the user's grid.
            at: The point that it is a unit mass at, if it is one.
            form: Which form.
        """
        if at is None:
            return self.sampled(start)
        if form == "compact":  # four nodes along each coordinate, with three moments
            return torch.outer(*map(_sharp, self.mesh.lines, at))
        return point(self.blank, *at).p

    def unknown(self, form: PlaneForm) -> Solved:
        """Return what stands for a density that was not found."""
        return Solved(torch.full_like(self.blank.p, math.nan), form)

    def rest(self, time: float, form: PlaneForm | None) -> Solved:
        """Solve for what rests.

        Args:
            time: When drift and diffusion are read.
            form: Which form; None is the compact one, and the lumped one where it is not found.
        """
        fluxes = self.generator.fluxes(time)
        if isinstance(fluxes, ChannelFluxes):
            return self._rest_of_channels(fluxes, form)
        if form != "lumped":
            p = balanced(fluxes)
            if p is not None:
                return Solved(self.mesh.widen(p / float(self.mesh.volumes @ p)), "compact")
        # a high order asks for neighbouring cells of like widths
        high = form != "lumped" and all(grid.smooth for grid in self.grids)
        compact, lumped, sure = null_vectors(fluxes, compact=high)
        if compact is not None:
            return Solved(self.mesh.widen(compact), "compact", sure)
        return Solved(self.mesh.widen(lumped), "lumped", sure)

    def _rest_of_channels(self, fluxes: ChannelFluxes, form: PlaneForm | None) -> Solved:
        """Solve for what rests where D is a matrix."""
        mesh, smooth = self.mesh, all(grid.smooth for grid in self.grids)
        p = None if form == "lumped" else fluxes.balanced()
        if p is not None:
            return Solved(mesh.widen(p / float(mesh.volumes @ p)), "compact")
        if form != "lumped" and smooth and math.prod(mesh.shape) <= _MOST_DIRECT:
            compact, sure = compact_null_vector(fluxes)
            if compact is not None:
                return Solved(mesh.widen(compact), "compact", sure)
        compact, lumped, sure = null_vectors(fluxes, compact=form != "lumped" and smooth)
        if compact is not None:
            return Solved(mesh.widen(compact), "compact", sure)
        p = None if sure or form != "lumped" else fluxes.balanced()
        if p is not None:
            lumped, sure = p / float(mesh.lumped_volumes @ p), True
        return Solved(mesh.widen(lumped), "lumped", sure)

    def production(self, p: Tensor, time: float, form: PlaneForm) -> tuple[float, float]:
        """Return σ of a density at the nodes, and what it is compared with.

        That is ∫ D (∇ log p)² p, what diffusion by itself produces.

        Args:
            p: Density at the nodes.
            time: When.
            form: That of the density, which of a matrix says how currents are found.
        """
        if isinstance(self.generator, ChannelGenerator):
            return self.generator.fluxes(time).production(p, form)
        values = p.detach().numpy()
        felt = values > max(FAINT * float(values.max()), -10 * float(values.min()))
        areas = np.outer(*(line.volumes for line in self.mesh.lines))
        weights = np.where(felt, areas / np.where(felt, values, 1.0), 0.0)
        flows = self._flows(self.generator.fluxes(time), p)
        current, d, slope = (
            torch.from_numpy(np.stack(part, -1)) for part in zip(*flows, strict=True)
        )
        squares = dissipation(current, d), (d * slope**2).sum(-1)
        total, scale = (float((weights * square.numpy()).sum()) for square in squares)
        return total, scale

    def currents(self, p: Tensor, time: float, form: PlaneForm) -> tuple[Tensor, float]:
        """Return (J_x, J_y) of a density at the nodes, and the most that diffusion carries."""
        fluxes = self.generator.fluxes(time)
        if isinstance(fluxes, ChannelFluxes):
            nodal, one_way = fluxes.currents(p, form)
            return torch.from_numpy(nodal), one_way
        flows = self._flows(fluxes, p)
        one_way = max(float((d * np.abs(slope)).max()) for _, d, slope in flows)
        return torch.from_numpy(np.stack([current for current, _, _ in flows])), one_way

    def _flows(self, fluxes: PlaneFluxes, p: Tensor) -> list[tuple[Array, Array, Array]]:
        """Return J, D and the slope of a density at the nodes, along each coordinate."""
        nodes = [grid.nodes.numpy() for grid in self.grids]
        slopes = [np.gradient(p.detach().numpy(), x, axis=axis) for axis, x in enumerate(nodes)]
        return list(zip(fluxes.currents(p), fluxes.diffusivities, slopes, strict=True))


def _sharp(line: Line, at: float) -> Tensor:
    """Return a unit mass of four nodes; on a ring as it is in its middle, turned."""
    grid = line.grid
    if not (line.ring and grid.even):
        return grid.sharp_point(at)
    width = (grid.high - grid.low) / grid.cells
    turned = grid.cells // 2 - int((at - grid.low) / width)
    p = grid.sharp_point(at + turned * width)[:-1].roll(-turned)
    return torch.cat([p, p[:1]])


def graded(apart: dict[str, float], *forms: PlaneForm) -> dict[str, float]:
    """Return errors of the finer of two grids, from how far apart they are.

    Of second order they are a third of it, of fourth a fifteenth; what is far apart has no order
    yet. The lumped form is of first order where cells are coarse.

    Args:
        apart: Differences.
        forms: The forms of both.
    """
    apart = {name: math.inf if math.isnan(value) else value for name, value in apart.items()}
    worst = apart["p"] if "p" in apart else max(apart.values())
    share = LARGEST_SHARE if worst < _CLOSE else 3.0 if worst < _FAR else 1.0
    if "lumped" in forms:
        share = 1.0
    return {name: value / share + _ROUNDING for name, value in apart.items()}
