"""What is believed of an SDE, against it: a density at the last time, or a Boltzmann density."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sdegen.errors import SdegenError
from sdegen.fokker_planck.density import Density, DensityPath
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.sde.base import SDE
from sdegen.sde.potentials import Potential
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation

__all__ = ["boltzmann_checks", "density_check"]


def density_check(
    density: Density, exact: DensityPath | None, grid: Grid, limits: Limits
) -> Check:
    """The law of the SDE at the last time against a density."""
    name = "total variation between the SDE and the believed density"
    if exact is None:
        return Check.skipped(name, limits.belief, "the SDE has no Fokker–Planck density.")
    believed = Density(grid.nodes, density.at(grid.nodes).detach().double())
    return Check.of_value(
        name,
        total_variation(exact.final, believed),
        limits.belief,
        f"At t = {float(exact.times[-1]):g} the SDE does not have the density that is believed: "
        f"its mean is {float(exact.final.mean):.4g} where {float(density.mean):.4g} is believed, "
        f"its standard deviation {float(exact.final.std):.4g} where {float(density.std):.4g} is. "
        "Correct the drift, the diffusion, or the belief.",
    )


def boltzmann_checks(
    potential: Potential,
    temperature: float,
    sde: SDE,
    exact: DensityPath | None,
    grid: Grid,
    limits: Limits,
) -> list[Check]:
    """The stationary density against e^{−U/T}, and whether it was reached."""
    name = "total variation between the stationary density and e^{−U/T}"
    energy = potential.energy(grid.nodes[:, None])
    believed = Density(grid.nodes, torch.exp(-(energy - energy.min()) / temperature)).normalized()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the edges have a check of their own
            stationary = FokkerPlanck(sde, grid).stationary()
    except (ValueError, SdegenError) as error:
        return [
            Check(name, 1.0, limits.belief, "failed", remark=f"The SDE does not settle: {error}")
        ]
    checks = [
        Check.of_value(
            name,
            total_variation(stationary, believed),
            limits.belief,
            _why_not_boltzmann(stationary, energy, temperature),
        )
    ]
    if exact is not None:
        checks.append(
            Check.of_value(
                "total variation between the last density and the stationary one",
                total_variation(exact.final, stationary),
                limits.relaxation,
                f"At t = {float(exact.times[-1]):g} the SDE has not settled yet: run longer.",
            )
        )
    return checks


def _why_not_boltzmann(stationary: Density, energy: Tensor, temperature: float) -> str:
    """Whether it is another temperature, or another force."""
    text = "The SDE settles in another density than e^{−U/T}: "
    weight = torch.where(stationary.p > 1e-12 * stationary.p.max(), stationary.p, 0.0)
    weight = weight / weight.sum()
    log_p = torch.where(weight > 0, stationary.p.clamp(min=1e-300).log(), 0.0)
    u, v = energy - weight @ energy, log_p - weight @ log_p
    slope, spread = float(weight @ (u * v)), float(weight @ v.square())
    if slope < 0 and spread * float(weight @ u.square()) < (1 + 1e-6) * slope**2:
        found = -float(weight @ u.square()) / slope
        return (
            f"{text}in that of T = {found:.4g}, where T = {temperature:g} is believed. With drift "
            f"−U′ the noise must be g = √(2T) = {(2 * temperature) ** 0.5:.4g}."
        )
    return (
        f"{text}no temperature makes up for it. The drift must be −U′ where g = √(2T) is "
        "constant; where it is not, the noise-induced drift belongs to it."
    )
