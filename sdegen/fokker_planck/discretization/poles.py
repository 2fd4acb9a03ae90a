"""Poles: walls at which the noise vanishes, and the power law of a density there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdegen.fokker_planck.discretization.coefficients import (
    GAUSS_NODES,
    GAUSS_POLYNOMIAL,
    Coefficients,
)

_VALUE_AT_START = torch.from_numpy(GAUSS_POLYNOMIAL[0].copy())  # weights of values at the points
_HALF = 0.12  # by how much a power may differ from a multiple of ½ and be one


@dataclass(frozen=True, eq=False)
class Pole:
    """f/D ≈ ±ν/ξ at a wall where D ∝ ξ^n.

    Args:
        nu: ν > 0 where the drift points inward.
        order: n.
        at_nodes: log ξ at the nodes; 0 at the wall itself.
        at_points: log ξ at the Gauss points.
        rate: ±h/ξ at the Gauss points, the derivative of log ξ.
        cell: Index of the cell at the wall, 0 or −1.
    """

    nu: Tensor
    order: float
    at_nodes: Tensor
    at_points: Tensor
    rate: Tensor
    cell: int

    @property
    def stationary_exponent(self) -> float:
        """q of a stationary density ∝ ξ^q."""
        return float(self.nu.detach().min()) - self.order

    @property
    def exponent(self) -> float:
        """q of a density on its way: where n ≥ 2 it never arrives at the wall, and is 0 there."""
        return self.stationary_exponent if self.order < 2 else max(1.0, self.stationary_exponent)


def find_poles(c: Coefficients, nodes: Tensor) -> tuple[Pole | None, Pole | None]:
    """Return the poles of f/D at the lower and the upper wall, where D = 0.

    Args:
        c: f and D.
        nodes: Positions of the nodes.

    Returns:
        A pole, or None where D > 0.
    """
    at_walls = c.nodal_diffusivity.detach().numpy()[..., :: len(nodes) - 1]
    if np.count_nonzero(at_walls <= 0) == 0:  # as nearly always
        return None, None
    low, high = (np.count_nonzero(at_walls[..., end] <= 0) for end in (0, -1))
    return _pole(c, nodes, 0) if low else None, _pole(c, nodes, -1) if high else None


def _pole(c: Coefficients, nodes: Tensor, end: int) -> Pole:
    """Return the pole at a wall where D = 0: 0 for the lower one, −1 for the upper."""
    sign = 1.0 if end == 0 else -1.0
    h = nodes.diff()
    points = nodes[:-1, None] + h[:, None] * GAUSS_NODES
    distance, nodal = sign * (points - nodes[end]), sign * (nodes - nodes[end])
    order = list(range(len(GAUSS_NODES)))[:: 1 if end == 0 else -1]
    near, f, d = distance[end, order], c.drift[..., end, order], c.diffusivity[..., end, order]
    nu = (sign * near * f / d) @ _VALUE_AT_START
    growth = (d[..., 1] / d[..., 0]).detach().log() / (near[1] / near[0]).log()
    seen = float(growth.min())
    half = round(2 * seen) / 2  # x(1 − x) is x beside 0
    power = half if abs(seen - half) < _HALF else seen
    nodal = torch.where(nodal > 0, nodal, 1.0)
    return Pole(nu, power, nodal.log(), distance.log(), sign * h[:, None] / distance, end)
