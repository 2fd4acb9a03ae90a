"""A reference for an SDE: the density at the last time, or a Boltzmann density."""

from __future__ import annotations

import math
import warnings
from typing import Protocol

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import SdegenError
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation
from sdegen.verification.law_checks import Laws

_MASS_TOLERANCE = 1e-3
_NEGATIVE = 1e-10  # of the peak: what a density may have by rounding


class Energy(Protocol):
    """U(x), as a `Potential` has it."""

    def energy(self, x: State) -> Tensor:
        """Return U(x), shape (batch,)."""


def check_reference(
    density: Density | None, potential: Energy | None, temperature: float, grid: Grid
) -> None:
    """Raise if this is neither an energy nor a density.

    Raises:
        TypeError: If density is not a `Density`, or potential has no energy.
        ValueError: If the density is negative, not finite or not of mass 1 on the grid, if U is
            not finite or has another shape, or temperature is not > 0.
    """
    check_positive("temperature", temperature)
    where = f"on [{grid.low:g}, {grid.high:g}]"
    if density is not None:
        check_kind("density", density, Density, "a Density, such as Density(grid.nodes, p)")
        assumed = _at_nodes(density, grid)
        low, high = float(assumed.p.min()), float(assumed.p.max())
        if not (math.isfinite(low) and math.isfinite(high)) or low < -_NEGATIVE * high:
            raise ValueError(
                f"density must be finite and ≥ 0, but reaches from {low:g} to {high:g} {where}."
            )
        if abs(float(assumed.mass) - 1) > _MASS_TOLERANCE:
            raise ValueError(
                f"density must have mass 1, but has {float(assumed.mass):.6g} {where}; divide it "
                "by its integral, or widen the grid."
            )
    if potential is not None:
        if not hasattr(potential, "energy"):
            raise TypeError(
                f"potential must have an energy U(x), but is {type(potential).__name__}; pass a "
                "Potential, such as DoubleWell()."
            )
        energy = potential.energy(grid.nodes[:, None])
        if energy.shape != grid.nodes.shape or not bool(energy.isfinite().all()):
            raise ValueError(
                f"potential must give one finite energy for each x {where}, but gave shape "
                f"{tuple(energy.shape)} with {int((~energy.isfinite()).sum())} that are not "
                f"finite for {len(grid.nodes)} points."
            )


def _at_nodes(density: Density, grid: Grid) -> Density:
    """Return a density at the nodes of a grid, in double precision."""
    return Density(grid.nodes, density.at(grid.nodes).detach().double())


def density_check(density: Density, laws: Laws, limits: Limits) -> Check:
    """Check the law of the SDE at the last time against a density."""
    name, exact = "total variation between the SDE and the believed density", laws.exact
    if exact is None:
        return Check.skipped(name, limits.reference, "the SDE has no Fokker–Planck density.")
    assumed = _at_nodes(density, laws.problem.grid)
    return Check.of_value(
        name,
        total_variation(exact.final, assumed),
        limits.reference,
        f"At t = {float(exact.times[-1]):g} the SDE does not have the density that is believed: "
        f"its mean is {float(exact.final.mean):.4g} where {float(density.mean):.4g} is believed, "
        f"its standard deviation {float(exact.final.std):.4g} where {float(density.std):.4g} is. "
        "Correct the drift, the diffusion, or the belief.",
    )


def boltzmann_checks(
    potential: Energy, temperature: float, laws: Laws, limits: Limits
) -> list[Check]:
    """Check the stationary density against e^{−U/T}, and whether it was reached."""
    name = "total variation between the stationary density and e^(−U/T)"
    problem, exact, x = laws.problem, laws.exact, laws.problem.grid.nodes
    energy, walls = potential.energy(x[:, None]), problem.boundary or "no-flux"
    assumed = Density(x, torch.exp(-(energy - energy.min()) / temperature)).normalized()
    real = problem.boundary is not None
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # edges are checked
            solver = FokkerPlanck(problem.sde, problem.grid, walls, truncation_is_physical=real)
            stationary = solver.stationary()
    except (ValueError, SdegenError) as error:
        remark = f"The SDE does not settle: {error}"
        return [Check(name, 1.0, limits.reference, "failed", remark=remark)]
    checks = [
        Check.of_value(
            name,
            min(1.0, total_variation(stationary, assumed)),  # a peak at an end counts half
            limits.reference,
            _why_not_boltzmann(stationary, energy, temperature),
        )
    ]
    if exact is not None:
        checks.append(
            Check.of_value(
                "total variation between the last density and the stationary one",
                total_variation(exact.final, stationary),
                limits.relaxation,
                f"At t = {float(exact.times[-1]):g} the SDE has not settled yet: its relaxation "
                f"time is {solver.spectrum(2).relaxation_time:.3g}; run longer.",
            )
        )
    return checks


def _why_not_boltzmann(stationary: Density, energy: Tensor, temperature: float) -> str:
    """Return a remark: another temperature, or another force."""
    text = "The SDE settles in another density than e^(−U/T): "
    weight = torch.where(stationary.p > 1e-12 * stationary.p.max(), stationary.p, 0.0)
    weight = weight / weight.sum()
    log_p = torch.where(weight > 0, stationary.p.clamp(min=1e-300).log(), 0.0)
    u, v = energy - weight @ energy, log_p - weight @ log_p
    slope, spread = float(weight @ (u * v)), float(weight @ v.square())
    if spread * float(weight @ u.square()) < (1 + 1e-6) * slope**2:
        fit = -float(weight @ u.square()) / slope
        if slope > 0:
            text += f"in e^(U/T) with T = {-fit:.4g}: "
            return f"{text}the sign of U, or of the drift, is wrong."
        return (
            f"{text}in that of T = {fit:.4g}, where T = {temperature:g} is believed. With drift "
            f"−U′ the noise must be g = √(2T) = {(2 * temperature) ** 0.5:.4g}."
        )
    return (
        f"{text}no temperature makes up for it. The drift must be −U′ where g = √(2T) is "
        "constant; where it is not, the noise-induced drift belongs to it."
    )
