"""The spectrum of a ring with a current: relaxation that turns as it decays.

    L ψ_n = −λ_n ψ_n,    λ_n complex, in conjugate pairs

A current breaks detailed balance, L is similar to no symmetric matrix, and its rates leave the
real axis: Re λ is how fast a mode decays, Im λ the frequency at which it goes around. A constant
drift v on a ring of length ℓ has λ = D q² ± i v q, q = 2πn/ℓ.

Rates are found by Arnoldi's iteration with the compact form of the operator, twice. On
(K − σM)⁻¹ M, by one sparse factorisation, they have the rounding of the largest rate of the grid.
On the inverse of K among densities without mass they have that of the slowest: currents are summed
up, J_{i+½} = J_0 − Σ r_k, and densities are sums of them with positive weights,

    p_i = Σ_{k=i}^{i+N−1} J_k e^{−(w_i + … + w_{k−1})} / a_k / (1 − e^{−W}),    W = Σ w

so that behind a barrier of 40 kT too nothing is eliminated. Each rate is taken from where it has
more digits, on finer and finer grids, extrapolated by its fourth order.

Reference:
    Risken 1989, The Fokker–Planck Equation, section 11.5; Saad 2011, Numerical Methods for Large
    Eigenvalue Problems, section 8.1, for the shift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs, splu
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.cubics import integral
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.operator import Operator, assemble
from sdegen.fokker_planck.discretization.refinement import halved
from sdegen.fokker_planck.questions.stationary import on_a_ring
from sdegen.fokker_planck.questions.two_grids import Answer, Problem, hidden

ComplexArray = NDArray[np.complex128]

_SHIFT = 0.1  # of D/ℓ²: beside the eigenvalue 0, where the matrix is regular
_TARGET = 1e-7
_KEPT = 4  # times as many vectors as modes, where Arnoldi does not end with fewer
_MOST_CELLS = 12_000
_ROUNDING = 1e-12
_KNOWN = 1e-8  # of the largest eigenvalue of an inverse: smaller ones are lost in rounding
_FAINTEST = -300.0  # log of the smallest root of a density at rest that is divided by
_SLOWER = 1e-4  # of the fastest times the slowest rate: squares below it are of slow modes
_MISSED, _LOST = 1e-10, 0.1  # what a mode with all digits misses, and one with hardly any
_WEAK = 1.0  # |W| of a tilt that is taken off


@dataclass(frozen=True, eq=False)
class ComplexSpectrum(Answer):
    """The modes of a ring whose rates are nearest to 0.

    Args:
        x: Nodes, shape (nodes,).
        rates: λ_n, by growing real part, in units of 1/time; λ_0 = 0, shape (count,).
        densities: ψ_n, each with ∫ |ψ|² dx = 1 and real where |ψ| is largest, shape (count,
            nodes).
        error: Estimated relative errors of `rates` and `relaxation_time`.
    """

    x: Float[Tensor, " nodes"]
    rates: Complex[Tensor, " count"]
    densities: Complex[Tensor, "count nodes"]
    _title = "spectrum of a ring"
    _causes: ClassVar = {"truncation": "none: a ring has no ends"}

    @property
    def relaxation_time(self) -> float:
        """1/Re λ_1, what the slowest mode takes to decay by e, in units of time."""
        return 1 / float(self.rates[1].real)


@torch.no_grad()
def turning_spectrum(
    problem: Problem, grid: Grid, count: int, rtol: float | None
) -> ComplexSpectrum:
    """Return the modes nearest to rest.

    Args:
        problem: Fluxes and walls of the SDE on a grid.
        grid: The user's grid, of a ring.
        count: How many modes.
        rtol: Relative error of the rates that grids are refined for; None takes 1e-7.

    Raises:
        SolverError: If no grid within 12,000 cells meets rtol.
    """
    finer, step = grid, 1
    coarse, before = _Ring(*problem(grid)).modes(count)[0], np.zeros(count)
    raised: ComplexArray | None = None
    while True:
        finer, step = halved(finer), 2 * step
        flux, ends = problem(finer)
        fine, vectors, residual = _Ring(flux, ends).modes(count)
        size = np.where(np.abs(fine) > 0, np.abs(fine), 1.0)
        better = fine + (fine - coarse) / 15
        apart = np.abs(fine - coarse) / size
        # where modes bend within a cell differences fall less than by 16, and so does the error
        fell = np.clip(before / np.maximum(apart, _ROUNDING), 2.0, 16.0)
        error = apart / (fell - 1)
        if raised is not None:
            error = np.minimum(error, np.abs(better - raised) / size / (fell - 1))
        error = np.maximum(error + hidden(flux, ends), np.maximum(residual, _ROUNDING))
        error[0] = 0.0
        if (error <= (rtol or _TARGET)).all() or 2 * finer.cells > _MOST_CELLS:
            break
        before, coarse, raised = apart, fine, better
    lost = better.real[1:] <= 0
    if lost.any():
        k = int(lost.argmax()) + 1
        raise SolverError(
            f"the rate of mode {k} is lost in rounding: Re λ = {better.real[k]:.3g} on "
            f"{finer.cells} cells. Ask for fewer modes, or first_passage() for the time over a "
            "barrier."
        )
    if rtol is not None and not error.max() <= rtol:
        raise SolverError(
            f"the rate of mode {int(error.argmax())} was not found to rtol = {rtol:g} on "
            f"{finer.cells} cells: its estimated relative error is {error.max():.2g}. Pass a "
            "larger rtol, or a grid with nodes where drift or diffusion jump: Grid.of(nodes)."
        )
    x = finer.nodes
    psi = torch.from_numpy(np.concatenate([vectors, vectors[:, :1]], 1))
    peak = psi.gather(1, psi.abs().argmax(1, keepdim=True))
    psi = psi * peak.conj() / peak.abs()
    psi = psi / integral(x, psi.abs() ** 2).sqrt()[:, None]
    told = torch.from_numpy(error)
    return ComplexSpectrum(
        grid.nodes,
        torch.from_numpy(better),
        psi[:, ::step].contiguous(),
        error=ErrorEstimate({"rates": told, "relaxation_time": float(told[1])}, "two grids"),
    )


class _Ring:
    """The ring on one grid.

    Args:
        flux: Fluxes of its cells.
        ends: Its walls.
    """

    def __init__(self, flux: Fluxes, ends: BoundaryNodes) -> None:
        operator: Operator = assemble(flux, ends, compact=True)
        self._mass, self._rates = (_matrix(bands) for bands in (operator.mass, operator.rates))
        self._fastest = float((operator.rates[1] / operator.mass.sum(0)).abs().max())
        w = flux.w.numpy()
        phi = np.concatenate([[0.0], np.cumsum(w)])
        self._phi, self._total = phi[:-1], float(phi[-1])
        self._log_weight = -self._phi - np.log(flux.a.numpy())
        # the density of a constant current, to a factor; on a ring without a tilt that of none
        log_rest = on_a_ring(flux).numpy()[:-1]
        self._rest = np.exp(log_rest)
        # p over the root of it is what a symmetric operator acts on, where no current runs
        self._root = np.exp(np.maximum(0.5 * log_rest, _FAINTEST))
        self._size = self._mass.shape[0]

    def modes(self, count: int) -> tuple[ComplexArray, ComplexArray, Array]:
        """Return rates and densities of the modes, and by how much the latter miss to be modes.

        Returns:
            Arrays of shapes (count,), (count, cells) and (count,).
        """
        shift = _SHIFT * self._fastest / self._size**2
        factors = splu((self._rates - shift * self._mass).tocsc())
        values, vectors = self._nearest(lambda v: factors.solve(self._mass @ v), count)
        found = -(shift + 1 / values)
        found = np.where(np.abs(found) < 1e-11 * self._fastest, 0, found)
        found, vectors = _sorted(found, vectors)
        missed = np.array([self._missed(*mode) for mode in zip(found, vectors, strict=True)])
        # rounding of the one is ε·fastest/|λ|, of the other ε·|λ|/slowest
        values, slow = self._nearest(self._inverse, count - 1)
        known = np.abs(values) > _KNOWN * np.abs(values).max()
        slow_rates, slow = _sorted(-1 / values[known], slow[:, known])
        slowest = float(np.abs(slow_rates).min())
        for k, rate in enumerate(slow_rates):
            slower = abs(rate) ** 2 < _SLOWER * self._fastest * slowest
            if slower and missed[k + 1] > _MISSED:
                # where both know something of a mode, they are to agree
                apart = abs(found[k + 1] - rate) / abs(rate) if missed[k + 1] < _LOST else 0.0
                found[k + 1], vectors[k + 1], missed[k + 1] = rate, slow[k], apart
        found[0], vectors[0], missed[0] = 0.0, self._rest, 0.0
        if found[-1].imag < 0 and found[-2] != found[-1].conj():
            # of a pair that the count splits, the partner that turns forward
            found[-1], vectors[-1] = found[-1].conj(), vectors[-1].conj()
        return found, vectors, missed

    def _missed(self, rate: complex, p: ComplexArray) -> float:
        """Return |K p + λ M p| over |λ M p|, in the norm in which no current is symmetric."""
        mass = self._mass @ p
        off, size = ((v / self._root) for v in (self._rates @ p + rate * mass, rate * mass))
        return float(np.linalg.norm(off) / max(float(np.linalg.norm(size)), 1e-300))

    def _nearest(
        self, apply: Callable[[Array], Array], count: int
    ) -> tuple[ComplexArray, ComplexArray]:
        """Return the largest eigenvalues of an operator, and their vectors as columns."""
        n = self._size
        # a start of its own: ARPACK would take one from numpy's global generator
        start = 1 + np.cos(np.arange(n) * 0.7) / (1 + np.arange(n))
        root = self._root
        operator = LinearOperator(
            (n, n), matvec=lambda y: apply(root * y.ravel()) / root, dtype=np.float64
        )
        first = apply(root * start) / root
        for kept in (None, min(n - 1, _KEPT * max(2 * count + 1, 20))):
            try:
                values, vectors = eigs(operator, k=count, which="LM", v0=first, ncv=kept)
            except ArpackError:
                continue
            break
        else:
            raise SolverError(
                f"the {count} modes nearest to rest were not told from others on {n} cells: their "
                "rates are too close to each other. Ask for fewer modes, or for more cells."
            )
        return np.asarray(values), root[:, None] * np.asarray(vectors)

    def _inverse(self, p: Array) -> Array:
        """Return the density without mass whose change is that of p, less its mass."""
        change = self._mass @ p
        rest = self._mass @ self._rest
        change = change - rest * (change.sum() / rest.sum())
        moved = self._summed(self._current(change))
        moved -= self._rest * ((self._mass @ moved).sum() / rest.sum())
        return moved

    def _current(self, change: Array) -> Array:
        """Return the current in each cell that makes a change, to a constant that is free.

        It is summed both ways from the top of the barrier to the peak of the density at rest. So
        it is small beside the barrier to all its digits, where it counts e^barrier times.
        """
        n, top = self._size, int(np.argmin(self._rest))
        turned = np.roll(change, -top - 1)  # the node behind the cell at the top comes first
        ahead = -np.cumsum(turned)
        behind = np.append(np.cumsum(turned[::-1])[::-1][1:], 0.0)
        peak = (int(np.argmax(self._rest)) - top - 1) % n
        return np.roll(np.where(np.arange(n) < peak, ahead, behind), top + 1)

    def _summed(self, current: Array) -> Array:
        """Return p of currents in the cells, from sums of positive terms of either sign.

        Where the tilt is weak a constant current changes p by 1/W times the density at rest. It
        is chosen so that p is that of a ring cut open, −e^Φ Σ J e^{−Φ}/a, and W is divided by
        no longer.
        """
        if abs(self._total) < _WEAK:
            weight = np.exp(self._log_weight - self._log_weight.max())
            terms = weight * (current - (weight @ current) / weight.sum())
            ahead = np.concatenate([[0.0], np.cumsum(terms)[:-1]])
            behind = -np.cumsum(terms[::-1])[::-1]
            near = np.arange(len(terms)) <= int(np.argmax(weight))
            cut: Array = np.exp(self._phi + self._log_weight.max())
            return -cut * np.where(near, ahead, behind)
        positive, negative = (self._summed_log(part) for part in (current, -current))
        if self._total < 0:
            positive, negative = negative, positive
        scale = abs(np.expm1(-self._total)) if self._total > -700 else np.inf
        density: Array = (positive - negative) / (scale or 1.0)
        return density

    def _summed_log(self, current: Array) -> Array:
        """Return Σ_k J_k e^{Φ_i − Φ_k}/a_k once around from i, of the positive J_k."""
        with np.errstate(divide="ignore"):
            term = self._log_weight + np.log(np.maximum(current, 0.0))
            ahead = np.logaddexp.accumulate(term[::-1])[::-1]
            before = np.logaddexp.accumulate(term)[:-1] - self._total
            log_sum = self._phi + np.concatenate([ahead[:1], np.logaddexp(ahead[1:], before)])
        summed: Array = np.exp(log_sum)
        return summed


def _sorted(rates: ComplexArray, columns: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
    """Return rates by growing real part, and their vectors as rows."""
    # partners differ by rounding in their real parts
    order = np.lexsort((-rates.imag, np.array([float(f"{v:.8e}") for v in rates.real])))
    return rates[order].copy(), columns.T[order].copy()


def _matrix(bands: Tensor) -> sparse.csr_matrix:
    """Return the bands of a ring as a sparse matrix."""
    n = bands.shape[-1]
    row = np.arange(n)
    columns = np.concatenate([(row - 1) % n, row, (row + 1) % n])
    entries = (bands.numpy().ravel(), (np.tile(row, 3), columns))
    return sparse.csr_matrix(entries, shape=(n, n))
