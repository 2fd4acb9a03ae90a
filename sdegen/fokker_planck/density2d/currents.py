"""Currents of a density in the plane, and the entropy that they produce, with their errors."""

import torch
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, EstimatedTensor, warn_inaccurate
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.estimates import CURE
from sdegen.fokker_planck.density2d.level import PlaneLevel, graded


def entropy_production(
    level: PlaneLevel, density: PlaneDensity, p: Tensor, t: float
) -> EstimatedTensor:
    """Return ∫ (J_x²/D_x + J_y²/D_y)/p, with the error that every other node tells.

    Args:
        level: The problem on the density's grid.
        density: The density.
        p: Its values at the nodes of the level.
        t: Time at which drift and diffusion are read.
    """
    (fine, scale), (coarse, _) = (
        level.production(p, t),
        level.coarser.production(level.coarser.sampled(density), t),
    )
    told = graded({"value": abs(fine - coarse) / max(abs(fine), scale, 1e-300)}, "compact")
    of_density = density.error.get("entropy_production", 0.0)
    error = ErrorEstimate({"value": told["value"] + float(of_density)}, "every other node")
    warn_inaccurate(error, "the entropy production", CURE, stacklevel=4)
    return EstimatedTensor.of(torch.tensor(fine, dtype=torch.float64), error)


def current(level: PlaneLevel, density: PlaneDensity, p: Tensor, t: float) -> EstimatedTensor:
    """Return (J_x, J_y) at the nodes, with the error that every other node tells.

    Args:
        level: The problem on the density's grid.
        density: The density.
        p: Its values at the nodes of the level.
        t: Time at which drift and diffusion are read.
    """
    values, one_way = level.currents(p, t)
    coarse, _ = level.coarser.currents(level.coarser.sampled(density), t)
    scale = max(float(values.abs().max()), one_way, 1e-300)
    miss = max(
        float((level.seen_at(a, level.coarser) - b).abs().max())
        for a, b in zip(values, coarse, strict=True)
    )
    error = ErrorEstimate(graded({"value": miss / scale}, "compact"), "every other node")
    warn_inaccurate(error, "the current", CURE, stacklevel=4)
    return EstimatedTensor.of(values, error)
