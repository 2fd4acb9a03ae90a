"""The slowest modes of an underdamped particle: how fast it forgets, and how it turns.

    L ψ_n = −λ_n ψ_n,    Re λ_n ≥ 0

Streaming turns and friction decays, so that rates are complex, in conjugate pairs. Those nearest
to a number are found by Arnoldi's iteration on (A − σM)⁻¹ M, by one sparse factorisation. The real
part of the slowest that decays is the rate at which a particle leaves its well; of a potential
with two alike, at which both exchange mass in both ways together.

Reference:
    Risken 1989, section 10.3; Saad 2011, Numerical Methods for Large Eigenvalue Problems, section
    8.1, for the shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs, splu
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.kinetic.level import Kinetic, KineticLevel
from sdegen.fokker_planck.kinetic.operator import KineticOperator
from sdegen.fokker_planck.questions.two_grids import Answer

ComplexArray = NDArray[np.complex128]

MOST_UNKNOWNS = 30_000
# of the difference of two grids: what the finer one is off by; as differences fall, between these
_MOST_SHARE, _LEAST_SHARE = 1 / 3, 1 / 15
_TARGET = 1e-6
_SHIFT = (
    1e-3  # of the slower of friction and crossing: beside an eigenvalue at which A is singular
)
_MORE = 4  # modes that are found beyond those asked for: pairs are not parted
_ZERO = 1e-11  # of the shift's own scale: a rate that is 0


@dataclass(frozen=True, eq=False)
class KineticSpectrum(Answer):
    """Modes of an underdamped particle.

    Args:
        x: Positions, shape (nx,).
        v: Velocities, shape (nv,).
        rates: λ_n, by growing real part, in units of 1/time, shape (count,); the mode at rest,
            λ_0 = 0, among them.
        densities: ψ_n, each with ∫ |ψ|² dx dv = 1, and real where |ψ| is largest, shape (count,
            nx, nv).
        error: Estimated relative errors of `rates` and `relaxation_time`.
    """

    x: Float[Tensor, " nx"]
    v: Float[Tensor, " nv"]
    rates: Complex[Tensor, " count"]
    densities: Complex[Tensor, "count nx nv"]
    _title = "spectrum of an underdamped particle"

    @property
    def relaxation_time(self) -> float:
        """1/Re λ of the slowest of these modes that decays, in units of time."""
        decaying = self.rates.real[self.rates.real > 0]
        return float(1 / decaying[0])


def modes(
    level: KineticLevel, count: int, near: complex, rtol: float | None
) -> tuple[ComplexArray, list[Kinetic], ErrorEstimate]:
    """Return rates near a number, by growing real part, their modes and errors.

    Args:
        level: The problem on the user's grid.
        count: How many.
        near: The rate near which they are sought.
        rtol: The relative error that finer grids are taken for; None takes 1e-6.

    Raises:
        SolverError: If Arnoldi's iteration does not end.
    """
    coarse, _ = _nearest(level.coarser.operator(), count + _MORE, near)
    before = np.zeros(count)
    while True:
        rates, vectors = _nearest(level.operator(), count, near)
        apart = np.abs(rates[:, None] - coarse[None, :]).min(1)
        scale = np.maximum(np.abs(rates), 1e-300)
        fall = np.divide(apart, before, out=np.ones(count), where=before > 0)
        share = np.clip(fall, _LEAST_SHARE, _MOST_SHARE)
        errors = np.where(rates == 0, 0.0, share * apart / scale + 1e-12)
        worst = float(errors.max())
        if worst <= (rtol or _TARGET) or level.finer.size > MOST_UNKNOWNS:
            break
        coarse, _ = _nearest(level.operator(), count + _MORE, near)
        before, level = apart, level.finer
    decaying = np.flatnonzero(rates.real > 0)
    slowest = float(errors[decaying[0]]) if len(decaying) else 0.0
    told: dict[str, float | Tensor] = {
        "rates": torch.from_numpy(errors),
        "relaxation_time": slowest,
    }
    found = [Kinetic(level.operator(), h) for h in vectors.T]
    return rates, found, ErrorEstimate(told, "two grids and numbers of functions")


def _nearest(
    operator: KineticOperator, count: int, near: complex
) -> tuple[ComplexArray, ComplexArray]:
    """Return the rates nearest to a number, and their vectors as columns."""
    a, m = operator.matrix, operator.mass
    size = a.shape[0]
    count = min(count, size - 3)
    scale = operator.slowest
    sigma = -complex(near) + _SHIFT * scale
    shifted = a - (sigma if sigma.imag else sigma.real) * m
    factors = splu(shifted.tocsc())
    inverse = LinearOperator(a.shape, matvec=lambda b: factors.solve(m @ b), dtype=shifted.dtype)
    start = np.random.default_rng(0).standard_normal(size).astype(shifted.dtype)
    try:
        values, vectors = eigs(inverse, k=count, v0=start, ncv=min(size - 1, 4 * count + 20))
    except ArpackError as error:
        raise SolverError(
            f"the {count} modes near {near:g} were not found: {error}. Ask for fewer, or near "
            "another rate.",
            None,
        ) from error
    rates = -(sigma + 1.0 / values)
    rates = np.where(np.abs(rates) < _ZERO * scale, 0.0, rates)
    flat = np.abs(rates.imag) <= 1e-9 * np.abs(rates)
    rates = np.where(flat, rates.real, rates)
    order = np.lexsort((rates.imag, np.round(rates.real / scale, 9)))
    return rates[order], vectors[:, order]
