"""Kernels: the Gaussian laws of X_t given X_0 of linear processes, as noising asks for them.

    dy = (c − r y) dt + g dW:   α = e^{−rt},   σ² = g² (1 − e^{−2rt})/2r,   m = c (1 − e^{−rt})/r

of each mode, where A and B Bᵀ are diagonal in one basis; of other matrices Φ and Σ as `transition`
has them, at many times in one batch. Rates that change in time are tabulated, by an ODE for the
law that is solved to 1e-10 or better and interpolated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.bases import Basis, Coordinates, Eigenvectors
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.errors import SolverError
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.core.shapes import Time
from sdegen.sde.transitions import Transition, constant_law

_SMALL = 1e-3  # where (1 − e^{−x})/x is its series, of which six terms are all digits
_WELL = 1e-3  # of a smallest eigenvalue relative to the largest, and of 1/cond of eigenvectors
_DECAYED = 80.0  # e⁻⁸⁰ of a mode is below all rounding
_RELATIVE, _ROUNDING = 1e-13, 1e-17  # tolerances of what is tabulated
_Law = tuple[Tensor, Tensor, Tensor]
_Array = NDArray[np.float64]


def mean_decay(x: Tensor) -> Tensor:
    """Return (1 − e^{−x})/x, the mean of e^{−u} from 0 to x; its slope is right at 0 as well."""
    small = x.abs() < _SMALL
    near, far = torch.where(small, x, 0.0), torch.where(small, 1.0, x)
    series = 1 - near / 2 * (1 - near / 3 * (1 - near / 4 * (1 - near / 5 * (1 - near / 6))))
    return torch.where(small, series, -torch.expm1(-far) / far)


def kernel_of_rates(
    rates: Tensor, noise: Tensor, drive: Tensor | None = None, basis: Basis | None = None
) -> DiagonalKernel:
    """Return the kernel of modes dy = (c − r y) dt + g dW.

    Args:
        rates: r of each mode, a number or the last axes of an event, float64.
        noise: g > 0, broadcastable to it.
        drive: c, likewise; None is 0.
        basis: Whose modes; None: of the coordinates.
    """

    def times(t: Time) -> tuple[Tensor, Tensor]:
        t = t.reshape((*t.shape, *(1,) * rates.ndim))
        return t, rates.to(t.device) * t

    def alpha(t: Time) -> Tensor:
        return torch.exp(-times(t)[1])

    def sigma(t: Time) -> Tensor:
        t, rt = times(t)
        return noise.to(t.device) * (t * mean_decay(2 * rt)).sqrt()

    def shift(t: Time) -> Tensor:
        assert drive is not None
        t, rt = times(t)
        return drive.to(t.device) * t * mean_decay(rt)

    slowest = float(rates.detach().min())
    rest = None
    if slowest > 0:
        mean = torch.zeros_like(rates) if drive is None else drive / rates
        rest = (mean.detach(), (noise / (2 * rates).sqrt()).expand_as(rates).detach())
    return DiagonalKernel(
        alpha,
        sigma,
        Coordinates() if basis is None else basis,
        None if drive is None or not bool((drive.detach() != 0).any()) else shift,
        rest,
        slowest if slowest > 0 else None,
    )


def kernel_of_matrices(A: Tensor, square: Tensor, c: Tensor) -> DiagonalKernel | MatrixKernel:
    """Return the kernel of dX = (c − A X) dt + B dW with constants.

    Args:
        A: Shape (d, d), float64.
        square: B Bᵀ, shape (d, d).
        c: Shape (d,).
    """
    A, square, c = (part.detach() for part in (A, square, c))
    noise = square.diagonal()
    if bool((noise > 0).all()) and _is_diagonal(square):
        if _is_diagonal(A):
            return kernel_of_rates(A.diagonal(), noise.sqrt(), c)
        if torch.equal(A, A.T) and bool((noise == noise[0]).all()):
            rates, columns = torch.linalg.eigh(A)
            basis = Eigenvectors(columns.T.contiguous())
            return kernel_of_rates(rates, noise.sqrt(), columns.T @ c, basis)

    spectral = _spectral(A, square, c)

    def law(t: Tensor) -> _Law:
        if spectral is not None:
            return spectral(t)
        return _blocks(_constant(A[None], square[None], c[None], t))

    slowest = float(torch.linalg.eigvals(A).real.min())
    rest = None
    if slowest > 0:
        end = constant_law(A, square, c, _DECAYED / slowest)
        rest = (torch.linalg.solve(A, c)[None], end.covariance[None])
    return MatrixKernel(law, rest=rest, slowest=slowest if slowest > 0 else None)


def kernel_of_pairs(
    stiffness: Tensor, center: Tensor, friction: Tensor, temperature: Tensor, mass: Tensor
) -> MatrixKernel:
    """Return the kernel of positions noised by Langevin dynamics in a trap, v_0 ~ N(0, T/m).

    Args:
        stiffness: k > 0, 0-d.
        center: μ, 0-d.
        friction: γ > 0, a number or one for each of n coordinates, shape (n,).
        temperature: T > 0, 0-d.
        mass: m > 0, as the friction.
    """
    one = torch.ones_like(friction * mass).reshape(-1)
    friction, mass = one * friction.reshape(-1), one * mass.reshape(-1)
    zero, spread = torch.zeros_like(friction), temperature / mass
    A = _of_rows((zero, zero - 1), (stiffness / mass, friction))
    square = _of_rows((zero, zero), (zero, 2 * friction * spread))
    c = torch.stack([zero, stiffness * center / mass], -1)

    def law(t: Tensor) -> _Law:
        whole = _constant(A, square, c, t)
        of_v = whole.matrix[..., :, 1:]
        covariance = whole.covariance + spread[:, None, None] * of_v @ of_v.mT
        return whole.matrix[..., :, :1], whole.shift, covariance

    mean = torch.stack([center + zero, zero], -1)
    rest = _of_rows((zero + temperature / stiffness, zero), (zero, spread))
    slowest = float(torch.linalg.eigvals(A).real.min())
    return MatrixKernel(law, phase_space=True, rest=(mean, rest), slowest=slowest)


class VaryingLaw:
    """The law of X_t given X_0 of rates that change in time, by a table that grows as needed.

    Φ' = −A Φ,   m' = c − A m,   Σ' = −A Σ − Σ Aᵀ + B Bᵀ

    by Runge–Kutta of order 8 with its own interpolation (DOP853) between the steps.

    Args:
        rates: A, shape (d, d), B Bᵀ, (d, d), and c, (d,), at a time.
        name: Whose they are.
        last: The latest time.
    """

    def __init__(
        self, rates: Callable[[float], tuple[Tensor, Tensor, Tensor]], name: str, last: float
    ) -> None:
        self._rates, self._name, self._last = rates, name, last
        self._d, self._end = len(rates(0.0)[0]), 0.0

    def __call__(self, t: Tensor) -> _Law:
        """Return Φ, m and the covariance at times t > 0, shapes (n, 1, d, d) and (n, 1, d)."""
        first, last = float(t.min()), float(t.max())
        if not 0 < first <= last <= self._last:
            raise ValueError(
                f"the kernel of {self._name} is known at times in (0, {self._last:g}], but was "
                f"asked for t = {first:g} … {last:g}."
            )
        if last > self._end:
            self._solve(min(2 * last, self._last))
        d, rows = self._d, torch.from_numpy(self._at(t.numpy()).T.copy())
        phi, shift = rows[:, : d * d], rows[:, d * d : d * d + d]
        covariance = rows[:, d * d + d :].reshape(-1, 1, d, d)
        return (
            phi.reshape(-1, 1, d, d),
            shift.reshape(-1, 1, d),
            0.5 * (covariance + covariance.mT),
        )

    def _solve(self, end: float) -> None:
        """Solve for the law from 0 to a time."""
        d, eye = self._d, np.eye(self._d)

        def slope(t: float, y: _Array) -> _Array:
            with torch.no_grad():
                A, square, c = (part.double().cpu().numpy() for part in self._rates(float(t)))
            phi, m = y[: d * d].reshape(d, d), y[d * d : d * d + d]
            moved = A @ y[d * d + d :].reshape(d, d)
            grown = square - moved - moved.T
            return np.concatenate([(-A @ phi).ravel(), c - A @ m, grown.ravel()])

        start = np.concatenate([eye.ravel(), np.zeros(d + d * d)])
        size = np.abs(slope(0.0, start)[d * d + d :]).max() or 1.0
        atol = np.concatenate([np.full(d * d + d, 1e-13), np.full(d * d, _ROUNDING * size)])
        found = scipy.integrate.solve_ivp(
            slope, (0.0, end), start, "DOP853", dense_output=True, rtol=_RELATIVE, atol=atol
        )
        if not found.success:
            raise SolverError(
                f"the law of {self._name} is not found between t = 0 and {end:g}: {found.message}"
            )
        self._at, self._end = found.sol, end


def _spectral(A: Tensor, square: Tensor, c: Tensor) -> Callable[[Tensor], _Law] | None:
    """Return the law by eigenvectors of A, faster for many times; None where digits are lost.

    Lost they are where eigenvectors nearly coincide, and in a Σ that noise reaches by way of A.
    """
    noise = torch.linalg.eigvalsh(square)
    values, vectors = torch.linalg.eig(A)
    if not float(noise[0]) > _WELL * float(noise[-1]) or (
        not float(torch.linalg.cond(vectors)) * _WELL < 1
    ):
        return None
    back = torch.linalg.inv(vectors)
    inner, driven = back @ square.to(back) @ back.mT, back @ c.to(back)
    pairs = values[:, None] + values

    def law(t: Tensor) -> _Law:
        h = t.to(values)[:, None]
        phi = (vectors * torch.exp(-values * h)[:, None]) @ back
        shift = (vectors @ (h * mean_decay(values * h) * driven)[..., None])[..., 0]
        h = h[..., None]
        covariance = (vectors @ (inner * h * mean_decay(pairs * h)) @ vectors.mT).real
        covariance = 0.5 * (covariance + covariance.mT)
        return phi.real[:, None], shift.real[:, None], covariance[:, None]

    return law


def _constant(A: Tensor, square: Tensor, c: Tensor, t: Tensor) -> Transition:
    """Return the transitions from 0 to times (n,) of blocks, shapes (n, blocks, …)."""
    h = t[:, None]
    return constant_law(A * h[..., None, None], square * h[..., None, None], c * h[..., None], 1.0)


def _blocks(whole: Transition) -> _Law:
    """Return Φ, m and Σ of a transition."""
    return whole.matrix, whole.shift, whole.covariance


def _of_rows(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Return matrices (blocks, 2, 2) from their entries."""
    return torch.stack([torch.stack(first, -1), torch.stack(second, -1)], -2)


def _is_diagonal(matrix: Tensor) -> bool:
    """Return whether all but the diagonal is 0."""
    return torch.equal(matrix, matrix.diagonal().diag())
