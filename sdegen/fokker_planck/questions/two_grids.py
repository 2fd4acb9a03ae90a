"""Answers on two grids: their difference is the error, and grids grow until it is small.

A question is asked on every other node of the user's grid and on all of them. Where the answers
differ by more than is wanted, it is asked on grids of 2, 4, … times as many cells, and handed back
at the user's nodes. A scheme of fourth order errs by 1/15 of the difference or less. Where the
drift jumps or bends within a cell there is no order, and the whole difference counts, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust
from sdegen.core.errors import SolverError
from sdegen.core.shown import Labelled
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.fluxes import Fluxes, Landscape
from sdegen.fokker_planck.discretization.gaps import at_ends
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.refinement import coarsened, halved

# the same SDE between the same walls on a grid
Problem = Callable[[Grid], tuple[Fluxes, BoundaryNodes]]
Question = Callable[[Fluxes, BoundaryNodes], Mapping[str, Array]]

MOST_CELLS = 40_000
_TARGET = 1e-6
_REFUSED = 0.1
_GAIN = 15.0  # what a difference of fourth order is to the error of the finer grid
_ROUGH_GAIN = 0.5
_ROUGH = 1e-7  # ∫ f/D of a cell and of its halves differ by less where f/D is smooth
_SEEN = -30.0  # log m below its peak, where roughness matters
_ROUNDING = 1e-13
_EPSILON = 2.2e-16
_IN_VAIN = 100.0  # times rounding: finer grids round more
_TINY = 1e-300
_PARTED = 0.02  # of D: what a polynomial misses at the end of a cell where D jumps
_BOTH = 0.5  # of what two grids disagree by where f/D jumps: what the finer one is off by
_NEAR = 7  # nodes among which the largest difference counts for all
_SPREAD, _MOST = 0.1, 0.9  # of the difference that 90 % stay below: the error is nowhere below
_SCALE = "scale of "


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer(Labelled):
    """What an answer says of itself.

    Args:
        error: Estimated relative errors of its attributes, by name.
        assumed_autonomous: Whether it was assumed that drift and diffusion do not depend on time.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
    """

    error: ErrorEstimate
    assumed_autonomous: bool = False
    slope_by: SlopeBy = "none"
    _title: ClassVar[str]
    _causes: ClassVar[Mapping[str, str]] = {}

    def trust(self) -> Trust:
        """Return what is known of its errors, a row for each cause."""
        return Trust.on_grid(self._title, self.error, slope_by=self.slope_by, **self._causes)


@dataclass(frozen=True)
class Refined:
    """Answers at the user's nodes.

    Args:
        values: Answers by name: numbers, or values at nodes, shape (..., nodes).
        errors: Their estimated relative errors, of the same shapes.
        grid: The grid on which they were found.
        step: The user's nodes are every step-th of its nodes.
    """

    values: dict[str, Array]
    errors: dict[str, Array]
    grid: Grid
    step: int


def refined(
    problem: Problem,
    grid: Grid,
    ask: Question,
    rtol: float | None,
    what: str,
    *,
    spared: Sequence[str] = (),
    most: float = _GAIN,
) -> Refined:
    """Return answers with their errors.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid.
        ask: The question: numbers, or arrays whose last axis is that of the nodes. "scale of" a
            name is what its error is relative to, where it is more than the value.
        rtol: Relative error that grids are refined for; None takes 1e-6, and what 40,000 cells
            give.
        what: What was asked for.
        spared: Names whose errors are told, and not refined for.
        most: What the difference of two grids is divided by, at the most.

    Raises:
        SolverError: If rtol is not met, or 10 %.
    """
    even = grid.cells % 2 == 0 and grid.cells >= 16
    finer, step = (coarsened(grid), 0) if even else (grid, 1)
    before = None
    while True:
        flux, ends = problem(finer)
        values = {name: np.asarray(v) for name, v in ask(flux, ends).items()}
        if before is not None:
            errors = _errors(values, *before, flux, most)
            unseen = hidden(flux, ends)
            errors = {name: error + unseen for name, error in errors.items()}
            user = slice(None, None, max(step, 1))  # the user's nodes
            values_there, errors_there = (
                {k: v[..., user].copy() if v.ndim else v for k, v in each.items()}
                for each in (values, errors)
            )
            finest = 2 * finer.cells > MOST_CELLS
            worst = max(float(e.max()) for k, e in errors_there.items() if k not in spared)
            if worst <= (rtol or max(_TARGET, _IN_VAIN * _rounding(flux))) or finest:
                break
        before = values, flux
        finer, step = (halved(finer), 2 * step) if step else (grid, 1)
    limit = _REFUSED if rtol is None else rtol
    if not worst <= limit:
        raise SolverError(
            f"{what} was not found to {limit:g} on {finer.cells} cells: its estimated relative "
            f"error is {worst:.2g}. Do drift or diffusion jump within a cell? Pass a grid "
            "with nodes there: Grid.of(nodes)."
        )
    return Refined(values_there, errors_there, finer, max(step, 1))


def gain(coarse: Fluxes, fine: Fluxes) -> float:
    """Return what a difference of two grids is to the error of the finer one, at the least.

    Args:
        coarse: Fluxes on every other node.
        fine: Fluxes on all of them.
    """
    u, cells = fine.u, len(fine.u) // 2
    both = u[0 : 2 * cells : 2] + u[1 : 2 * cells : 2]
    log_m = torch.nn.functional.pad(coarse.w.cumsum(-1), (1, 0))
    seen = (log_m - log_m.max() > _SEEN)[:cells]
    apart = (both - coarse.u[:cells]).abs()[seen]
    smooth = len(apart) > 0 and float(apart.max()) < _ROUGH
    return _GAIN if smooth else _ROUGH_GAIN


def hidden(flux: Fluxes, ends: BoundaryNodes) -> float:
    """Return by how much Φ is off where drift and diffusion jump beside nodes (see `gaps`).

    Args:
        flux: Fluxes of the cells.
        ends: Walls.
    """
    off = flux.beside
    return float(off[_felt(flux, ends)].sum()) if off.any() else 0.0


def disagreement(
    coarse: Fluxes, fine: Fluxes, ends: BoundaryNodes, kept: NDArray[np.int64]
) -> tuple[float, bool]:
    """Return by how much Φ is off where f/D jumps, and whether D does, of two grids.

    Args:
        coarse: Fluxes on the coarser grid.
        fine: Those on a grid that keeps its nodes.
        ends: Walls.
        kept: Where these nodes are.
    """
    felt = _felt(coarse, ends)
    cells = slice(max(felt.start - 1, 0), felt.stop)
    off = _BOTH * float(jumped(coarse.land, fine.land, kept)[cells].sum())
    return off, bool(noise_jumps(coarse.land)[cells].any())


def _felt(flux: Fluxes, ends: BoundaryNodes) -> slice:
    """Return between which nodes there is mass, or a way from it to a wall that absorbs."""
    log_m = np.concatenate([[0.0], np.cumsum(flux.w.detach().numpy())])
    seen = np.flatnonzero(log_m - log_m.max() > _SEEN)
    low, high = (kind.absorbs or kind.wraps for kind in ends.conditions)
    return slice(0 if low else int(seen[0]), len(log_m) if high else int(seen[-1]) + 1)


def jumped(coarse: Landscape, fine: Landscape, kept: NDArray[np.int64]) -> Array:
    """Return by how much Φ is off over each cell of the coarser of two grids, shape (cells,).

    ∫ f/D of a cell is of eighth order where f/D is smooth: all that is seen here are jumps and
    bends within cells.

    Args:
        coarse: The landscape on the coarser grid.
        fine: That on a grid that keeps its nodes.
        kept: Where these are.
    """
    u = fine.u.detach().numpy()
    off: Array = np.abs(np.add.reduceat(u, kept[:-1]) - coarse.u.detach().numpy())
    if coarse.closed is not None:
        off[coarse.closed.numpy()] = 0.0  # a cell at a wall without noise carries nothing
    off *= off > _EPSILON * np.add.reduceat(np.abs(u), kept[:-1])
    if fine.beside.any():
        off += np.maximum(np.maximum.reduceat(fine.beside, kept[:-1]), fine.beside[kept[1:]])
    return off


def noise_jumps(land: Landscape) -> NDArray[np.bool_]:
    """Return in which cells D jumps, or no polynomial sees it, shape (cells,)."""
    c = land.coefficients
    inside, at_nodes = c.diffusivity.numpy(), c.nodal_diffusivity.numpy()
    if not any(inside.strides) and not any(at_nodes.strides):
        return np.zeros(len(inside), dtype=bool)  # one number for all
    ahead, behind = at_ends(inside, at_nodes)
    jumps: NDArray[np.bool_] = np.maximum(abs(ahead), abs(behind)) > _PARTED * inside.max(1)
    return jumps


def _errors(
    values: dict[str, Array], before: dict[str, Array], coarse: Fluxes, fine: Fluxes, most: float
) -> dict[str, Array]:
    """Return relative errors on the finer grid; between the coarser nodes the larger of both."""
    rounding = _rounding(fine)
    fallen, errors = min(gain(coarse, fine), most), {}
    for name, value in values.items():
        if name.startswith(_SCALE):
            continue
        old, scale = before[name], np.maximum(values.get(_SCALE + name, _TINY), _TINY)
        if value.ndim == 0:
            off = np.abs(value - old) / np.maximum(np.abs(value), scale)
        else:
            shared = value[..., : 2 * old.shape[-1] : 2]
            if shared.shape != old.shape:  # an odd last cell stays as it is
                shared = np.concatenate([value[..., ::2], value[..., -1:]], -1)
            at = np.abs(shared - old) / np.maximum(np.abs(shared), scale)
            # where the difference changes its sign the error does not
            at = np.maximum(maximum_filter1d(at, _NEAR, axis=-1), _SPREAD * np.quantile(at, _MOST))
            off = np.repeat(at, 2, -1)[..., : value.shape[-1]].copy()
            off[..., 1:-1] = np.maximum(off[..., 1:-1], off[..., 2:])
        errors[name] = np.asarray(off / fallen + _ROUNDING + rounding)
    return errors


def _rounding(flux: Fluxes) -> float:
    """Return the rounding of e^Φ, which is that of Φ: a strong drift makes it a large number."""
    return _EPSILON * float(flux.w.abs().sum())
