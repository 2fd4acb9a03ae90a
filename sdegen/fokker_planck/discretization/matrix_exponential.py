"""The action of e^{M⁻¹K} on a vector, in seven tridiagonal solves, however long the time.

The best rational approximation of e^z of degree 14 on the negative real axis is, in partial
fractions,

    r(z) = r_∞ + 2 Re Σ_{k=1}^{7} c_k / (z − z_k),        max_{z ≤ 0} |r(z) − e^z| = 1.8e-14

With z replaced by M⁻¹K each fraction is one complex tridiagonal solve, (K − z_k M) y_k = M p. A
one-dimensional generator without circulation is similar to a symmetric matrix, hence has a real
spectrum, and no step is needed: t = 10⁶ costs as much as t = 1. On a ring with a current
eigenvalues leave the axis, and the time is cut into pieces so short that they stay where r is
good.

Reference:
    Trefethen, Weideman and Schmelzer 2006, BIT 46, 653, section 4 (Carathéodory–Fejér and
    Chebyshev approximations of degree 14 agree to rounding); the numbers are those of Pusa 2012,
    Nucl. Sci. Eng. 169, 155, table I, evaluated again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdegen.fokker_planck.discretization import tridiagonal

Array = NDArray[Any]

_AT_INFINITY = 1.8321743782540412751e-14
_POLES = np.array(
    [
        -8.8977731864688888199 + 16.630982619902085304j,
        -3.7032750494234480603 + 13.656371871483268171j,
        -0.2087586382501301251 + 10.991260561901260913j,
        3.9933697105785685194 + 6.0048316422350373178j,
        5.0893450605806245066 + 3.5888240290270065102j,
        5.6231425727459771248 + 1.1940690463439669766j,
        2.2697838292311127097 + 8.4617379730402214019j,
    ]
)
_RESIDUES = np.array(
    [
        -7.1542880635890672853e-05 + 1.4361043349541300111e-04j,
        9.4390253107361688779e-03 - 1.7184791958483017511e-02j,
        -3.7636003878226968717e-01 + 3.3518347029450104214e-01j,
        -2.3498232091082701191e01 - 5.8083591297142074004e00j,
        4.6933274488831293047e01 + 4.5643649768827760791e01j,
        -2.7875161940145646468e01 - 1.0214733999056451434e02j,
        4.8071120988325088907e00 - 1.3209793837428723881e00j,
    ]
)
_DOUBLED = 2 * _RESIDUES  # with that of the conjugate pole
_SHIFTS = np.stack([np.ones(len(_POLES)), -_POLES.real, -_POLES.imag], 1)
_FEW = 2048  # unknowns: as many for every pole stay in the cache, and cost no new pages


def expm_action(mass: Tensor, rates: Tensor, p: Tensor) -> Tensor:
    """Return e^{M⁻¹K} p.

    Args:
        mass: Bands of M, shape (3, n).
        rates: Bands of K, the time included, shape (3, n).
        p: Vector, shape (n,).

    Returns:
        Shape (n,).
    """
    if torch.is_grad_enabled() and (mass.requires_grad or rates.requires_grad or p.requires_grad):
        moved: Tensor = _Action.apply(mass, rates, p)  # type: ignore[no-untyped-call]
        return moved
    return _sum(mass, rates, p, None)


def renewed_action(mass: Tensor, rates: Tensor, load: Tensor, p: Tensor) -> Tensor:
    """Return e^{M⁻¹(K + b ℓᵀ)} p with ℓ = −1ᵀK: all that K loses is put back at b.

    By Sherman and Morrison, (A + b ℓᵀ)⁻¹ v = y − w (ℓ·y)/(1 + ℓ·w), A y = v, A w = b.

    Args:
        mass: Bands of M, shape (3, n).
        rates: Bands of K, the time included, shape (3, n).
        load: b, of sum 1, shape (n,).
        p: Vector, shape (n,).

    Returns:
        Shape (n,).
    """
    z = torch.from_numpy(_POLES)[:, None, None]
    systems = rates - z * mass
    lost = -(rates[0].roll(-1) + rates[1] + rates[2].roll(1))  # of columns
    v = tridiagonal.multiply(mass, p) * torch.from_numpy(_DOUBLED)[:, None]
    y = tridiagonal.solve(systems, v)
    w = tridiagonal.solve(systems, load.to(systems).expand_as(v))
    loss = lost.to(systems)
    share = (y @ loss) / (1 + w @ loss)
    return _AT_INFINITY * p + (y - share[:, None] * w).real.sum(0)


def _sum(mass: Tensor, rates: Tensor, p: Tensor, fractions: Array | None) -> Tensor:
    """Return r(M⁻¹K) p; the seven 2 c_k y_k go to `fractions`, if given."""
    m, k, start = (v.detach().numpy() for v in (mass, rates, p))
    return torch.from_numpy(Systems(m, k).action(start, fractions=fractions))


class Systems:
    """The systems dt K − z_k M of the poles, for any dt.

    On few nodes all poles are solved for at once, which saves calls; on many one after the other
    and in the same memory, since fetching new pages takes longer than solving. What does not
    depend on dt is laid out once: 480 bytes for each of few nodes, 192 for each of many.

    Args:
        mass: Bands of M, shape (3, n).
        rates: Bands of K, shape (3, n).

    Attributes:
        blocks: Which poles are solved for together.
    """

    def __init__(self, mass: Array, rates: Array) -> None:
        nodes = mass.shape[-1]
        count = len(_POLES) if nodes <= _FEW else 1
        self.blocks: list[slice] = [slice(i, i + count) for i in range(0, len(_POLES), count)]
        self._bands, self._mass = np.empty((3, count, nodes), dtype=np.complex128), mass
        # K, M and iM, real and imaginary parts in turn: shifts are a product of real matrices
        self._parts = np.zeros((3, 3, 2 * nodes))
        self._parts[:, 0, ::2] = rates
        self._parts[:, 1, ::2] = mass
        self._parts[:, 2, 1::2] = mass

    def bands(self, few: slice, dt: float = 1.0) -> Array:
        """Return dt K − z_k M for a block of poles, shape (3, poles, n), until the next call."""
        np.matmul(_SHIFTS[few] * (dt, 1, 1), self._parts, out=self._bands.view(np.float64))
        return self._bands

    def solve(self, few: slice, load: Array, dt: float = 1.0) -> Array:
        """Return (dt K − z_k M)⁻¹ load_k for a block of poles, (poles, n); overwrites load."""
        return tridiagonal.eliminate(self.bands(few, dt), load)

    def factors(self, dt: float) -> list[tridiagonal.Factors]:
        """Return the systems factorised block by block, for many vectors: 500 bytes a node."""
        return [tridiagonal.Factors(self.bands(few, dt)) for few in self.blocks]

    def action(
        self,
        p: Array,
        dt: float = 1.0,
        *,
        factors: Sequence[tridiagonal.Factors] | None = None,
        fractions: Array | None = None,
    ) -> Array:
        """Return e^{dt M⁻¹K} p, shape (n,).

        Args:
            p: Vector, shape (n,).
            dt: Time.
            factors: Those of dt, where it is asked for often.
            fractions: Where the seven 2 c_k y_k go, if anywhere.
        """
        load = tridiagonal.multiply(self._mass, p)
        out: Array = _AT_INFINITY * p
        for k, few in enumerate(self.blocks):
            right = load * _DOUBLED[few, None]
            solved = factors[k].solve(right) if factors else self.solve(few, right, dt)
            if fractions is not None:
                fractions[few] = solved
            out += np.add.reduce(solved.real, 0)
        return out


class _Context(tridiagonal.Context, Protocol):
    """What autograd keeps for the way back."""

    fractions: Array


class _Action(torch.autograd.Function):
    """q = r_∞ p + Re Σ y_k with A_k y_k = 2 c_k M p, A_k = K − z_k M; u_k = A_k⁻ᵀ q̄."""

    @staticmethod
    def forward(ctx: _Context, mass: Tensor, rates: Tensor, p: Tensor) -> Tensor:
        ctx.fractions = np.empty((len(_POLES), len(p)), dtype=np.complex128)
        ctx.save_for_backward(mass, rates, p)
        return _sum(mass, rates, p, ctx.fractions)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mass, rates, p = ctx.saved_tensors
        m, k = (tridiagonal.transposed(v).contiguous().numpy() for v in (mass, rates))
        u = np.tile(grad.numpy().astype(np.complex128), (len(_POLES), 1))
        systems = Systems(m, k)
        for few in systems.blocks:
            u[few] = systems.solve(few, u[few])
        back = torch.from_numpy((_DOUBLED @ u).real)  # Re Σ 2 c_k u_k: the gradient of M p
        y = np.pad(ctx.fractions, ((0, 0), (1, 1)), mode="wrap")
        outers = [-u * y[:, band : band + len(p)] for band in range(3)]  # −u yᵀ on A = K − z M
        on_rates = np.stack([outer.real.sum(0) for outer in outers])
        on_mass = np.stack([-(_POLES @ outer).real for outer in outers])
        return (
            torch.from_numpy(on_mass) + back * tridiagonal.neighbours(p),
            torch.from_numpy(on_rates),
            _AT_INFINITY * grad + tridiagonal.multiply(tridiagonal.transposed(mass), back),
        )
