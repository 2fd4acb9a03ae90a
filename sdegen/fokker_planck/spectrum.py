"""The spectrum: how fast a density forgets, and in which shapes.

    L ψ_n = −λ_n ψ_n,    L† φ_n = −λ_n φ_n,    ψ_n = φ_n p_st,    ∫ φ_m ψ_n dx = δ_mn

Without a current L is symmetric in the scalar product of 1/p_st, so that its spectrum is real,
and λ_0 = 0 with ψ_0 = p_st, φ_0 = 1 where no wall absorbs; where one does, e^Φ stands for p_st.
1/λ_1 is the relaxation time. The lumped operator is symmetrised and handed to LAPACK; two-sided
inverse iterations then carry each pair to the compact operator, of fourth order in the cell.
Absolute accuracy is rounding times the largest rate of the grid, about 10⁻¹⁶ D/h²: an escape rate
below that is asked of `first_passage`, which loses no digits.

Reference:
    Risken 1989, The Fokker–Planck Equation, section 5.4; Pavliotis 2014, section 4.7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from torch import Tensor

from sdegen.fokker_planck import tridiagonal
from sdegen.fokker_planck.density import integral
from sdegen.fokker_planck.ends import Ends
from sdegen.fokker_planck.operator import Operator

__all__ = ["Spectrum", "spectrum"]

_REFINEMENTS = 3
_UPPER = 1e-6  # of the peak of p_st: the last node above it is the upper end, where signs are read
_NULL = 1e-11  # of the largest rate: what counts as zero


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The slowest modes of a diffusion.

    Args:
        x: Nodes, shape (nodes,).
        rates: λ_n ≥ 0, increasing, in units of 1/time, shape (count,).
        densities: ψ_n, shape (count, nodes).
        observables: φ_n, shape (count, nodes); positive at the upper end of p_st.
    """

    x: Float[Tensor, " nodes"]
    rates: Float[Tensor, " count"]
    densities: Float[Tensor, "count nodes"]
    observables: Float[Tensor, "count nodes"]

    @property
    def relaxation_time(self) -> float:
        """1/λ of the slowest mode that decays, in units of time."""
        decaying = self.rates[self.rates > 0]
        return float(1 / decaying[0])


def spectrum(lumped: Operator, compact: Operator, ends: Ends, count: int) -> Spectrum:
    """The slowest modes of an operator without circulation.

    Args:
        lumped: Its lumped form.
        compact: Its compact form.
        ends: Walls.
        count: How many modes.

    Returns:
        The modes.
    """
    volumes = lumped.mass[1]
    diagonal = (lumped.rates[1] / volumes).numpy()
    # S_{i,i+1} = √(K_{i,i+1} K_{i+1,i} / (V_i V_{i+1})), the geometric mean of the two rates
    pair = lumped.rates[2] * lumped.rates[0].roll(-1) / (volumes * volumes.roll(-1))
    off = pair.clamp(min=0).sqrt().numpy()
    n = len(diagonal)
    pick = (n - count, n - 1)
    if ends.ring:
        dense = np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
        dense[0, -1] = dense[-1, 0] = off[-1]
        values, vectors = linalg.eigh(dense, subset_by_index=pick)
    else:
        values, vectors = linalg.eigh_tridiagonal(
            diagonal, off[:-1], select="i", select_range=pick
        )
    values, vectors = values[::-1].copy(), vectors[:, ::-1].T.copy()
    weight = torch.exp(lumped.phi / 2 - lumped.phi.max() / 2)
    root = volumes.sqrt()
    last = int((weight**2 > _UPPER).nonzero()[-1])
    rest = ends.widen(weight**2)
    rest = rest / integral(ends.nodes, rest)
    scale = float(np.abs(diagonal).max())
    rates, densities, observables = [], [], []
    for value, vector in zip(values, torch.from_numpy(vectors), strict=True):
        right, left = weight * vector / root, vector / (weight * root).clamp(min=1e-300)
        if value < -_NULL * scale:
            value, right, left = _refined(compact, float(value), right, left)
        else:
            value = 0.0 if "absorbing" not in ends.kinds else value
        sign = torch.where(left[last] < 0, -1.0, 1.0)
        right, left = sign * right, sign * left
        psi, phi = ends.widen(right), _extended(left, ends)
        phi = phi / integral(ends.nodes, phi**2 * rest).sqrt()
        psi = psi / integral(ends.nodes, psi * phi)
        rates.append(0.0 - value)  # and no −0
        densities.append(psi)
        observables.append(phi)
    return Spectrum(
        ends.nodes,
        torch.tensor(rates, dtype=torch.float64),
        torch.stack(densities),
        torch.stack(observables),
    )


def _refined(
    operator: Operator, value: float, right: Tensor, left: Tensor
) -> tuple[float, Tensor, Tensor]:
    """An eigenpair of K v = λ M v near a given one, by two-sided Rayleigh iteration."""
    mass, rates = operator.mass, operator.rates
    for _ in range(_REFINEMENTS):
        # a shift beside the eigenvalue, not on it: the system must be regular
        shifted = rates - value * (1 + 1e-10) * mass
        right = tridiagonal.solve(shifted, tridiagonal.multiply(mass, right))
        left = tridiagonal.solve(
            tridiagonal.transposed(shifted),
            tridiagonal.multiply(tridiagonal.transposed(mass), left),
        )
        right, left = right / right.abs().max(), left / left.abs().max()
        value = float(left @ tridiagonal.multiply(rates, right)) / float(
            left @ tridiagonal.multiply(mass, right)
        )
    return value, right, left


def _extended(left: Tensor, ends: Ends) -> Tensor:
    """An observable at all nodes: zero at an absorbing wall, level beside a wall where D = 0."""
    phi = ends.widen(left)
    low, high = ends.exponents
    if low is not None:
        phi = torch.cat([phi[1:2], phi[1:]])
    if high is not None:
        phi = torch.cat([phi[:-1], phi[-2:-1]])
    return phi
