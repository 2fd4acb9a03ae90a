"""Linear SDEs: their transitions are Gaussian and known at any distance in time.

    dX = (c − A X) dt + B dW,        X_s | X_t ~ N(Φ X_t + m, Σ)

    Φ = e^{−Ah},    m = ∫₀ʰ e^{−Au} c du,    Σ = ∫₀ʰ e^{−Au} B Bᵀ e^{−Aᵀu} du,    h = s − t

All three come of one matrix exponential (Van Loan) over a time in which |A| h ≤ 1, which is then
doubled, Σ(2h) = Σ + Φ Σ Φᵀ: a sum of positive matrices loses no digits, however stiff A is, and
where A has modes that rest or oscillate it holds as well. The stationary covariance, the solution
of A C + C Aᵀ = B Bᵀ, is Σ after a time in which every mode has decayed by e⁻⁸⁰.

Processes that noise data, with scalar α(t) and σ(t) that depend on time, are the special case
`GaussianPath`.

Reference:
    Van Loan 1978, IEEE Trans. Autom. Control 23, 395; Gardiner 2009, section 4.5.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.noise import Noise, Rng, normal_like, seed_of, stream
from sdegen.core.noise_structure import NoiseStructure, check_diagonal
from sdegen.core.requests import as_numbers, as_state, as_times
from sdegen.core.sde import SDE
from sdegen.core.shapes import Numbers, State, Time, Times, rows_nonfinite
from sdegen.core.trajectory import Trajectory
from sdegen.core.update import Number

_DECAYED = 80.0  # e⁻⁸⁰ of a mode is below all rounding


@dataclass(frozen=True)
class Transition:
    """The law X_s | X_t ~ N(Φ X_t + m, Σ) of a linear SDE.

    Attributes:
        matrix: Φ, shape (d, d); a number where it is the same for every coordinate.
        shift: m, shape (d,), or a number.
        covariance: Σ, shape (d, d), or a number: the variance of each coordinate.
    """

    matrix: Tensor
    shift: Tensor
    covariance: Tensor

    def mean(self, x: State) -> State:
        """Return Φ x + m, shape of x."""
        matrix, shift = self.matrix.to(x), self.shift.to(x)
        return matrix * x + shift if matrix.ndim == 0 else x @ matrix.T + shift

    def draw(self, x: State, z: State) -> State:
        """Return Φ x + m + √Σ z, shape of x.

        Args:
            x: States at t, shape (batch, *event).
            z: Standard normals, shape of x.
        """
        if self.covariance.ndim == 0:
            return self.mean(x) + self.covariance.sqrt().to(x) * z
        return self.mean(x) + z @ _root(self.covariance).to(x).T


class LinearSDE(SDE):
    """dX = (c − A X) dt + B dW of d coordinates, with constant A, B and c.

    Noise is diagonal where B is a number, one number for each coordinate, or a diagonal matrix;
    else it is general (`noise_structure`), which `simulate` takes with `EulerMaruyama`. Exact
    paths are drawn by `sample`.

    Args:
        A: Shape (d, d); of a stable process its eigenvalues have positive real parts.
        B: Shape (d, m) for m noises; or (d,), or a number: B diagonal.
        c: Shape (d,), or a number.

    Raises:
        TypeError: If one of them is no array of numbers; or a subclass defines `alpha` or `sigma`,
            which a `GaussianPath` has.
        ValueError: If A is not square, shapes do not fit to it, or a number is not finite.

    >>> spring = LinearSDE([[0.0, -1.0], [1.0, 0.5]], [[0.0], [1.0]])  # dq = p dt, dp = −q − p/2
    >>> [round(float(v), 12) for v in spring.stationary_covariance().diag()]  # equipartition
    [1.0, 1.0]
    """

    autonomous: bool | None = True
    noise_structure: NoiseStructure = "diagonal"  # of a matrix B: "general"
    _has_scalar_kernel: ClassVar[bool] = False

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse α and σ outside a `GaussianPath`, which was called LinearSDE in version 0.1."""
        super().__init_subclass__(**options)
        own = [name for name in ("alpha", "sigma") if name in cls.__dict__]
        if own and not cls._has_scalar_kernel:
            raise TypeError(
                f"{cls.__name__} defines {own[0]}(t), but a LinearSDE has the matrices A, B and "
                "c: derive from GaussianPath."
            )

    def __init__(self, A: Numbers, B: Numbers, c: Numbers = 0.0) -> None:
        A = as_numbers("A", A, expected="a square matrix of numbers")
        if A.ndim != 2 or A.shape[0] != A.shape[1] or len(A) == 0:
            raise ValueError(f"A must be a square matrix, but has shape {tuple(A.shape)}.")
        d = len(A)
        B = as_numbers("B", B, expected="a matrix, one number for each coordinate, or a number")
        if B.shape not in ((), (d,)) and not (B.ndim == 2 and len(B) == d):
            raise ValueError(
                f"B must have {d} rows as A has, shape ({d}, noises), or be diagonal, ({d},) or a "
                f"number, but has shape {tuple(B.shape)}."
            )
        c = as_numbers("c", c, expected="a number, or one for each coordinate")
        if c.shape not in ((), (d,)):
            raise ValueError(
                f"c must be a number or have shape ({d},), but has shape {tuple(c.shape)}."
            )
        for name, value in (("A", A), ("B", B), ("c", c)):
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} must be finite, but is {value.tolist()}.")
        self.A, self.B, self.c = A, B, c.expand(d)
        if B.ndim == 2 and B.shape == (d, d) and bool((B.diag().diag() == B).all()):
            B = B.diag()
        self._g = None if B.ndim == 2 else B
        self._square = B @ B.T if B.ndim == 2 else (B * B).expand(d).diag()
        self.noise = "additive" if bool((B != 0).any()) else "none"
        if B.ndim == 0 and not B.requires_grad:
            self.constant_noise = float(B)
        if B.ndim == 2:
            self.noise_structure = "general"
            # of m ≠ d noises those d are drawn that have the same covariance
            self._mixing = B if B.shape == (d, d) else _root(self._square)

    def drift(self, x: State, t: Time) -> State:
        """c − A x, shape (batch, d)."""
        if x.shape[1:] != self.c.shape:
            raise ValueError(
                f"x must have shape (batch, {len(self.c)}), as A has {len(self.c)} rows, but has "
                f"shape {tuple(x.shape)}."
            )
        return self.c.to(x) - x @ self.A.to(x).T

    def diffusion(self, x: State, t: Time) -> Tensor:
        """B of diagonal noise, shape () or (d,)."""
        if self._g is None:
            check_diagonal(self, "diffusion(x, t)")
        assert self._g is not None
        return self._g.to(x)

    def add_noise(self, after: State, x: State, t: Time, root_dt: Number, noise: Noise) -> State:
        """Add √|dt| B z."""
        if self._g is not None:
            return super().add_noise(after, x, t, root_dt, noise)
        return after + root_dt * (noise.normal() @ self._mixing.to(x).T)

    def covariance_times(self, x: State, t: Time, v: State, scale: float = 1.0) -> State:
        """Return scale · B Bᵀ v, shape of x."""
        if self._g is not None:
            return super().covariance_times(x, t, v, scale)
        return scale * (v @ self._square.to(v))

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t, to rounding.

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t.
        """
        h = float(s) - float(t)
        if not 0 <= h < math.inf:
            raise ValueError(f"s must not be before t, but s − t = {h:g}.")
        return self._law(h)

    def stationary_mean(self) -> Tensor:
        """Return A⁻¹ c, shape (d,).

        Raises:
            ValueError: If a mode does not decay.
        """
        self._slowest()
        mean: Tensor = torch.linalg.solve(self.A, self.c)
        return mean

    def stationary_covariance(self) -> Tensor:
        """Return the C of A C + C Aᵀ = B Bᵀ, shape (d, d).

        Raises:
            ValueError: If a mode does not decay.
        """
        return self._law(_DECAYED / self._slowest()).covariance

    def sample(self, x0: State, times: Times, *, rng: Rng = None) -> Trajectory:
        """Draw paths from the exact transitions, whatever the distance of the times.

        Args:
            x0: States at times[0], shape (batch, *event).
            times: Increasing, shape (T,).
            rng: Seed, generator or None.

        Raises:
            ValueError: If times do not increase.
        """
        x, ts, seed = as_state("x0", x0), as_times(times), seed_of(rng)
        if not bool((ts.diff() > 0).all()):
            raise ValueError(f"times must increase, but are {ts.tolist()[:4]} …")
        source, states = stream(seed, "transition"), [x]
        for t, s in pairwise(ts):
            x = self.transition(t, s).draw(x, normal_like(x, source))
            states.append(x)
        return Trajectory(ts, torch.stack(states), 0, seed, rows_nonfinite(x))

    def _slowest(self) -> float:
        """Return the smallest decay rate of a mode, the real part of an eigenvalue of A."""
        slowest = float(torch.linalg.eigvals(self.A).real.min())
        if not slowest > 0:
            raise ValueError(
                f"{type(self).__name__} has no stationary law: an eigenvalue of A has the real "
                f"part {slowest:.4g}, and its mode does not decay."
            )
        return slowest

    def _law(self, h: float) -> Transition:
        """Return the transition over a time h ≥ 0."""
        A, d = self.A, len(self.A)
        size = float(torch.linalg.matrix_norm(A.detach(), 1)) * h
        doublings = max(0, math.ceil(math.log2(size))) if size > 0 else 0
        block = torch.zeros(2 * d + 1, 2 * d + 1, dtype=A.dtype, device=A.device)
        block[:d, :d], block[:d, d : 2 * d] = -A, self._square
        block[:d, 2 * d], block[d : 2 * d, d : 2 * d] = self.c, A.T
        whole = torch.linalg.matrix_exp(block * (h / 2**doublings))
        matrix, shift = whole[:d, :d], whole[:d, 2 * d]
        covariance = whole[:d, d : 2 * d] @ matrix.T
        for _ in range(doublings):
            covariance = covariance + matrix @ covariance @ matrix.T
            shift = shift + matrix @ shift
            matrix = matrix @ matrix
        return Transition(matrix, shift, 0.5 * (covariance + covariance.T))


def _root(covariance: Tensor) -> Tensor:
    """Return R with R Rᵀ = Σ, also of a Σ that is singular."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0.0).sqrt()
    return root
