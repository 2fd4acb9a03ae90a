"""Survival: how much of a density is still inside, and the density of the times when it leaves.

    S(t) = ∫ p(x, t) dx,    −dS/dt, which is what flows through the absorbing walls

Both have the rounding of the density in time, 10⁻¹² of what was there a moment before, and as much
of the fastest rate of the grid in every slower one: behind a high barrier they are lost. Where
dynamics do not change both are sums over modes too, j_n being what flows out of ψ_n,

    −dS/dt = Σ_n φ_n(x0) j_n e^{−λ_n t},    ∫ ψ_n dx = j_n/λ_n,

and late, where few of them are left, these have all digits of the slow rates (`spectrum`). They
are taken where the last of them adds nothing any more.

The error of S is relative to S, that of −dS/dt to its largest value at the times. It is the
difference to the same on another grid, and what rounding leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from torch import Tensor

from sdegen.core.accuracy import WARNS, ErrorEstimate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization import tridiagonal
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.cubics import integral
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.operator import Operator
from sdegen.fokker_planck.questions.spectrum import Spectrum
from sdegen.fokker_planck.questions.two_grids import Answer

_ROUNDING = 1e-12  # of what was there at the time before
_OF_FASTEST = 1e-12  # of the fastest rate: what an exponential leaves in every other one
_ADAPTED = 1e-7  # of the same, where steps are chosen by their error
_LEFT = 1e-3  # of a sum over modes: what the last two of them may add
_MORE = 10.0  # of these: what all that are left out may add
_GAIN = 4.0  # what a difference to half as many cells is to the error, at the least
_REFUSED = 0.1
_LITTLE = 1e-4
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Survival(Answer):
    """The law of the time at which a diffusion from x0 leaves.

    Args:
        times: Times since the start, shape (T,).
        probability: Chance to be still inside, shape (T,).
        density: Density of the time of first passage, in units of 1/time, shape (T,).
        x0: The start.
        error: Estimated errors of `probability`, relative to it, and of `density`, relative to
            its largest value at the times; shapes (T,).
    """

    times: Float[Tensor, " T"]
    probability: Float[Tensor, " T"]
    density: Float[Tensor, " T"]
    x0: float
    _title = "survival"
    _causes: ClassVar = {"step": "within that of the grid"}


@dataclass(frozen=True, eq=False)
class Law:
    """S and −dS/dt on one grid.

    Args:
        values: Both, shape (2, T).
        rounding: What is lost of each by rounding, of its own units, shape (2, T).
    """

    values: Float[Tensor, "2 T"]
    rounding: Float[Tensor, "2 T"]


def law(
    path: DensityPath, operators: Sequence[Operator], ends: BoundaryNodes, *, steady: bool
) -> Law:
    """Return how much is left of a density, and how fast it leaves.

    Args:
        path: Densities at times of a start at a point; the first time is 0.
        operators: What carried them: one, or one at each of the times.
        ends: Walls, of which at least one absorbs.
        steady: Whether the dynamics do not change.
    """
    p = ends.restrict(path.p)
    mass = torch.stack([operator.mass for operator in operators])
    rates = torch.stack([operator.rates for operator in operators])
    rate = tridiagonal.solve(mass, tridiagonal.multiply(rates, p))
    values = torch.stack([integral(path.x, path.p), -integral(path.x, ends.widen(rate))])
    values[:, 0] = torch.tensor([1.0, 0.0])
    before = torch.cat([values[0, :1], values[0, :-1]])
    fastest = float((rates[:, 1] / mass.sum(1)).abs().max())
    of_each = _ROUNDING if steady else _ADAPTED, _OF_FASTEST * fastest
    lost = torch.stack([part * before for part in of_each])
    drifted = torch.finfo(torch.float64).eps * fastest * path.times  # of the exponent itself
    all_of_it = torch.tensor([[1.0], [fastest]], dtype=torch.float64)
    rounding = torch.where(drifted < WARNS, lost + drifted * values.abs(), all_of_it)
    rounding[:, 0] = 0.0
    if not steady:
        rounding[1] += _ADAPTED * values[1].abs()
    return Law(values, rounding)


def by_modes(
    modes: Spectrum, flux: Fluxes, ends: BoundaryNodes, x0: float, times: Tensor, here: Law
) -> Law:
    """Return a law whose late times, and slow escapes, are those of the slowest modes.

    Args:
        modes: The slowest modes.
        flux: Fluxes of the cells between their nodes.
        ends: Walls.
        x0: The start.
        times: Times, shape (T,).
        here: The law that was carried in time.
    """
    x = modes.x.numpy()
    at = torch.from_numpy(make_interp_spline(x, modes.observables.numpy().T, k=5)(x0))
    out = torch.zeros_like(modes.rates)
    for side, kind, rate in (
        (0, ends.conditions[0], flux.b[0]),
        (-1, ends.conditions[1], flux.a[-1]),
    ):
        if kind.absorbs:  # φ and J at the wall by the cell's matrix, to fourth order
            h, near = flux.h[side], modes.densities[:, 1 if side == 0 else -2]
            out = out + rate * near * (1 + modes.rates * h**2 / (6 * flux.d[side]))
    leaving = (at * out)[:, None] * torch.exp(-modes.rates[:, None] * times)
    terms = torch.stack([leaving / modes.rates[:, None], leaving])
    told = modes.error["rates"]
    assert isinstance(told, Tensor)
    off = float(told.max()) * (1 + modes.rates[0] * times)
    total, rest = terms.sum(1), terms[:, -2:].abs().sum(1)
    lost = off * total.abs() + _MORE * rest
    better = (_MORE * rest < _LEFT * total) & (lost < here.rounding)
    better[:, 0] = False
    return Law(torch.where(better, total, here.values), torch.where(better, lost, here.rounding))


def compared(
    times: Tensor,
    x0: float,
    here: Law,
    other: Law,
    *,
    fourfold: bool,
    jumps: float,
) -> Survival:
    """Return a law with its errors.

    Args:
        times: Times.
        x0: The start.
        here: The law on the user's grid.
        other: The same on another grid.
        fourfold: Whether that has half as many cells, not twice as many, and D does not jump.
        jumps: By how much the two disagree, or both miss, where drift or diffusion jump.

    Raises:
        SolverError: If rounding has left nothing of the chance to be inside, or of all rates.
    """
    gain = _GAIN if fourfold else 1.0
    inside, rate = here.values.clamp(min=0)
    off = (here.values - other.values).abs() / gain
    # where the other grid's law is lost in its rounding, the largest error of other times
    value = here.values.clamp(min=_TINY)
    seen = other.rounding <= WARNS * value
    most = torch.where(seen, off / value, 0.0).amax(1, keepdim=True)
    off = torch.where(seen, off, most * value) + here.rounding
    of_inside = off[0] / inside.clamp(min=_TINY)
    lost = (of_inside > _REFUSED) & (here.rounding[0] > _REFUSED * inside)
    if bool(lost.any()):
        k = int(lost.nonzero()[0])
        raise SolverError(
            f"the chance to be still inside at t = {float(times[k]):g} is lost in rounding: it "
            f"is below {float(here.rounding[0][k]):.2g}. End times earlier."
        )
    known = here.rounding[1] <= _REFUSED * rate
    peak = torch.where(known, rate, 0.0).max().clamp(min=_TINY)
    lost = here.rounding[1] > _REFUSED * peak
    if bool(lost.any()):
        k = int(lost.nonzero()[0])
        raise SolverError(
            f"the density of first passages at t = {float(times[k]):g} is lost in rounding: it is "
            f"below {float(here.rounding[1][k]):.2g}. Freeze the time in the SDE, if it takes "
            "one, and ask again, or ask first_passage() for the mean time."
        )
    if jumps > 0:  # a rate that is off by a part of itself is off by −log S times that in S
        fallen = 1 - inside.clamp(min=_TINY).log()
        of_inside = of_inside + torch.where(times > times[0], jumps * fallen, 0.0)
        off[1] = off[1] + jumps * torch.minimum(rate * fallen, peak)
    told = ErrorEstimate({"probability": of_inside, "density": off[1] / peak}, "two grids")
    return Survival(times, inside, rate, x0, error=told)


def needs_modes(here: Law) -> bool:
    """Return whether rounding is more than a little of a law at some time."""
    size = here.values.abs()
    size[1] = size[1].max()
    return bool((here.rounding > _LITTLE * size)[:, 1:].any())
