"""The spectrum of a ring with a current: relaxation that turns as it decays.

    L ψ_n = −λ_n ψ_n,    λ_n complex, in conjugate pairs

A current breaks detailed balance, L is similar to no symmetric matrix, and its rates leave the
real axis: Re λ is how fast a mode decays, Im λ the frequency at which it goes around. A constant
drift v on a ring of length ℓ has λ = D q² ± i v q, q = 2πn/ℓ. The rates nearest to 0 are found by
Arnoldi's iteration on (K − σM)⁻¹ M, one sparse factorisation, with the compact form of the
operator.

Reference:
    Risken 1989, The Fokker–Planck Equation, section 11.5; Saad 2011, Numerical Methods for Large
    Eigenvalue Problems, section 8.1, for the shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigs, splu
from torch import Tensor

from sdegen.fokker_planck.density import integral
from sdegen.fokker_planck.ends import Ends
from sdegen.fokker_planck.operator import Operator

__all__ = ["TurningSpectrum", "turning_spectrum"]

_SHIFT = 0.1  # of D/ℓ²: beside the eigenvalue 0, where the matrix is regular


@dataclass(frozen=True, eq=False)
class TurningSpectrum:
    """The modes of a ring whose rates are nearest to 0.

    Args:
        x: Nodes, shape (nodes,).
        rates: λ_n, by growing real part, in units of 1/time; λ_0 = 0, shape (count,).
        densities: ψ_n, each with ∫ |ψ|² dx = 1 and real where |ψ| is largest, shape (count,
            nodes).
    """

    x: Float[Tensor, " nodes"]
    rates: Complex[Tensor, " count"]
    densities: Complex[Tensor, "count nodes"]

    @property
    def relaxation_time(self) -> float:
        """1/Re λ_1, what the slowest mode takes to decay by e, in units of time."""
        return 1 / float(self.rates[1].real)


def turning_spectrum(compact: Operator, ends: Ends, count: int) -> TurningSpectrum:
    """The modes nearest to rest.

    Args:
        compact: The compact form of the operator of a ring.
        ends: Its walls, periodic.
        count: How many modes.

    Returns:
        The modes.
    """
    mass, rates = (_matrix(bands) for bands in (compact.mass, compact.rates))
    n = mass.shape[0]
    fastest = float((compact.rates[1] / compact.mass.sum(0)).abs().max())
    shift = _SHIFT * fastest / n**2
    inverse = splu((rates - shift * mass).tocsc())
    nearest = LinearOperator((n, n), matvec=lambda v: inverse.solve(mass @ v), dtype=np.float64)
    # a start of its own: ARPACK would take one from numpy's global generator
    start = 1 + np.cos(np.arange(n) * 0.7) / (1 + np.arange(n))
    values, vectors = eigs(nearest, k=count, which="LM", v0=start)
    found = -(shift + 1 / values)
    found = np.where(np.abs(found) < 1e-11 * fastest, 0, found)
    order = np.lexsort((-found.imag, found.real.round(12)))
    psi = ends.widen(torch.from_numpy(vectors.T[order].copy()))
    peak = psi.gather(1, psi.abs().argmax(1, keepdim=True))
    psi = psi * peak.conj() / peak.abs()
    psi = psi / integral(ends.nodes, psi.abs() ** 2).sqrt()[:, None]
    return TurningSpectrum(ends.nodes, torch.from_numpy(found[order].copy()), psi)


def _matrix(bands: Tensor) -> sparse.csr_matrix:
    """Bands of a ring as a sparse matrix."""
    n = bands.shape[-1]
    row = np.arange(n)
    columns = np.concatenate([(row - 1) % n, row, (row + 1) % n])
    entries = (bands.numpy().ravel(), (np.tile(row, 3), columns))
    return sparse.csr_matrix(entries, shape=(n, n))
