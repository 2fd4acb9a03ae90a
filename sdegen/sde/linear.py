"""Linear SDEs: their transitions are Gaussian and known at any distance in time.

    dX = (c − A X) dt + B dW,        X_s | X_t ~ N(Φ X_t + m, Σ)

A, B and c are constants, or functions of time. Φ, m and Σ of constants come of one matrix
exponential and are exact to rounding (`transitions.py`); of functions of time, of the Magnus
expansion, to 1e-10 or refused (`magnus.py`). The stationary covariance of constants, the solution
of A C + C Aᵀ = B Bᵀ, is Σ after a time in which every mode has decayed by e⁻⁸⁰, and the stationary
correlations are ⟨δX_{t+τ} δX_tᵀ⟩ = e^{−Aτ} C.

The law of a chain that a solver makes of it (Euler, Heun) is that of `ChainMoments`. Processes
that noise data, with scalar α(t) and σ(t), are the special case `GaussianPath`.

Reference:
    Gardiner 2009, Stochastic Methods, section 4.5.6.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.affine import affine_of
from sdegen.core.checks import check_count
from sdegen.core.jumps import check_no_jumps
from sdegen.core.kernel import GaussianKernel
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import as_number, as_times, check_kind
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time, Times, expand
from sdegen.sde.kernels import VaryingLaw, kernel_of_matrices
from sdegen.sde.magnus import varying_law
from sdegen.sde.rates import Rate, RateFunction, RateLike
from sdegen.sde.transitions import LinearProcess, Transition, constant_law, elapsed, root

_DECAYED = 80.0  # e⁻⁸⁰ of a mode is below all rounding
_ALWAYS = (-float("inf"), float("inf"))


class LinearSDE(LinearProcess):
    """A linear SDE of d coordinates, with A, B and c constant or functions of time.

        dX = (c − A X) dt + B dW,   X_s | X_t ~ N(Φ X_t + m, Σ)

    Noise is diagonal where B is a number, one number for each coordinate, or a constant diagonal
    matrix; else there are m noise channels (`noise_structure`). Exact paths are drawn by `sample`.

    Args:
        A: Shape (d, d); of a stable process its eigenvalues have positive real parts.
        B: Shape (d, m) for m noises; or (d,), or a number: B diagonal.
        c: Shape (d,), or a number.
        time_range: Times at which functions A(t), B(t) and c(t) exist. They take a time, a 0-d
            float64 tensor, and are called at the time of the range that is nearest to 0 to learn
            their shapes.

    Raises:
        TypeError: If one of them is neither an array of numbers nor a function of time that
            returns one; or a subclass defines `alpha` or `sigma`, which a `GaussianPath` has.
        ValueError: If A is not square, shapes do not fit to it, or a number is not finite.

    Example:
        >>> A, B = [[0.0, -1.0], [1.0, 0.5]], [[0.0], [1.0]]  # dq = p dt, dp = −(q + p/2) dt + dW
        >>> [round(v.item(), 6) for v in sg.LinearSDE(A, B).stationary_covariance().diag()]
        [1.0, 1.0]
        >>> driven = sg.LinearSDE([[1.0]], 1.0, lambda t: [t.cos()])
        >>> round(driven.transition(0.0, 2.0).shift.item(), 6)  # (cos 2 + sin 2 − e⁻²)/2
        0.178908
    """

    autonomous: bool | None = True
    noise_structure: NoiseStructure = "diagonal"  # of a matrix B: "channels"
    _has_scalar_kernel: ClassVar[bool] = False
    _time_range: tuple[float, float] = _ALWAYS
    _kernel: GaussianKernel | None = None

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse α and σ outside a `GaussianPath`, which was called LinearSDE in version 0.1."""
        super().__init_subclass__(**options)
        own = [name for name in ("alpha", "sigma") if name in cls.__dict__]
        if own and not cls._has_scalar_kernel:
            raise TypeError(
                f"{cls.__name__} defines {own[0]}(t), but a LinearSDE has the matrices A, B and "
                "c: derive from GaussianPath."
            )

    def __init__(
        self,
        A: RateLike,
        B: RateLike,
        c: RateLike = 0.0,
        *,
        time_range: tuple[float, float] = _ALWAYS,
    ) -> None:
        low, high = self._time_range = _checked_range(time_range)
        start = min(max(0.0, low), high)
        drift = self._A = Rate("A", A, "a square matrix of numbers", start)
        A = drift.value
        if A.ndim != 2 or A.shape[0] != A.shape[1] or len(A) == 0:
            raise ValueError(f"A must be a square matrix, but has shape {tuple(A.shape)}.")
        d = len(A)
        expected = "a matrix, one number for each coordinate, or a number"
        noise = self._B = Rate("B", B, expected, start)
        B = noise.value
        if B.shape not in ((), (d,)) and not (B.ndim == 2 and len(B) == d and B.shape[1] > 0):
            raise ValueError(
                f"B must have {d} rows as A has, shape ({d}, noises), or be diagonal, ({d},) or a "
                f"number, but has shape {tuple(B.shape)}."
            )
        shift = self._c = Rate("c", c, "a number, or one for each coordinate", start)
        c = shift.value
        if c.shape not in ((), (d,)):
            raise ValueError(
                f"c must be a number or have shape ({d},), but has shape {tuple(c.shape)}."
            )
        shift.widen(d)
        self.A = drift.given
        self.B = noise.given
        self.c: RateFunction | Tensor = shift.given
        self._varies = drift.varies or noise.varies or shift.varies
        if self._varies:
            self.autonomous = None
        if not noise.varies and B.shape == (d, d) and bool((B.diag().diag() == B).all()):
            noise.value = B.diag()
        if noise.value.ndim == 2:
            self.noise_structure = "channels"
            self.channels: int | None = noise.value.shape[1]
        elif noise.value.ndim == 0 and not (noise.varies or B.requires_grad):
            self.constant_noise: float | None = float(B)
        self.noise: NoiseKind = "additive" if noise.varies or bool((B != 0).any()) else "none"

    @property
    def linear_part(self) -> Tensor | None:  # type: ignore[override]
        """A, where it is constant; else None."""
        return None if self._A.varies else self._A.value

    @classmethod
    def of(cls, sde: SDE, dimension: int) -> LinearSDE:
        """Return an SDE with a linear drift and additive noise as a `LinearSDE`.

        A and c are read off its drift, at every time at which they are asked for unless it is
        autonomous: OrnsteinUhlenbeck, Langevin in a Quadratic potential, Coloured of either, …

        Args:
            sde: What moves.
            dimension: Numbers of its state, d of (batch, d); in a phase space (batch, 2, d/2),
                the positions first.

        Raises:
            TypeError: If it is no SDE, or the dimension no int.
            ValueError: If its drift is not linear, or its noise depends on x.
        """
        check_kind("sde", sde, SDE, "an SDE, such as OrnsteinUhlenbeck()")
        check_count("dimension", dimension)
        check_no_jumps(sde, "LinearSDE")
        name = type(sde).__name__
        if sde.noise == "multiplicative" or sde.is_discrete or sde.direction != 1:
            raise ValueError(
                f"a LinearSDE runs forwards with noise that does not depend on x, and {name} does "
                "not; say noise='additive' if its g depends on t alone."
            )

        event = sde.event_of(dimension)

        def drift_at(t: Tensor) -> tuple[Tensor, Tensor]:
            def drift(x: Tensor) -> Tensor:
                return sde.drift(x.reshape(-1, *event), t).flatten(1)

            return affine_of(drift, dimension, f"the drift of {name}")

        def noise_at(t: Tensor) -> Tensor:
            zero = torch.zeros(1, dimension, dtype=torch.float64)
            if sde.noise == "none":
                return torch.zeros(dimension, dtype=torch.float64)
            if sde.noise_structure == "general":
                eye = torch.eye(dimension, dtype=torch.float64).reshape(-1, *event)
                return root(sde.covariance_times(eye, t, eye).flatten(1))
            zero = zero.reshape(1, *event)
            g = sde.diffusion(zero, t).double()
            if sde.noise_structure == "channels":
                return g[0].reshape(dimension, -1)
            return g.expand_as(zero)[0].flatten()

        low, high = sde.time_range
        t = torch.tensor(min(max(0.0, low), high), dtype=torch.float64)
        A, c = drift_at(t)
        if sde.autonomous:
            return LinearSDE(-A, noise_at(t), c)
        span = (low, high)
        return LinearSDE(
            lambda t: -drift_at(t)[0], noise_at, lambda t: drift_at(t)[1], time_range=span
        )

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which A, B and c exist."""
        return self._time_range

    def drift(self, x: State, t: Time) -> State:
        """c − A x, shape (batch, d)."""
        d = len(self._A.value)
        if x.shape[1:] != (d,):
            raise ValueError(
                f"x must have shape (batch, {d}), as A has {d} rows, but has shape "
                f"{tuple(x.shape)}."
            )
        A, c = self._A.at(t).to(x), self._c.at(t).to(x)
        if A.ndim == 2:
            return c - x @ A.T
        return c - (A @ x[..., None])[..., 0]

    def diffusion(self, x: State, t: Time) -> Tensor:
        """B: of diagonal noise broadcastable to x, of a matrix shape (1 or batch, d, m)."""
        B = self._B.at(t).to(x)
        if self.noise_structure == "channels":
            return B if B.ndim == 3 else B[None]
        return expand(B, x) if self._B.varies and self._B.value.ndim == 0 else B

    @property
    def noise_kernel(self) -> GaussianKernel | None:
        """The law of X_t given X_0: one α and σ for each mode of diagonal constants, or matrices.

        None without noise, of a drift or noise of one's own, and where t = 0 is no time of it.
        """
        low, high = self.time_range
        if self.noise == "none" or not self._moves_as(LinearSDE) or not low <= 0 < high:
            return None
        if self._kernel is None:
            if self._varies:
                law = VaryingLaw(self._rates, type(self).__name__, high)
                self._kernel = MatrixKernel(law)
            else:
                self._kernel = kernel_of_matrices(*self._rates(0.0))
        return self._kernel

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t: to rounding, of functions of time to 1e-10.

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t, or they are not in `time_range`.
            SolverError: If rates change so fast that 1e-10 is not met.
        """
        h, (low, high) = elapsed(t, s), self.time_range
        if not low <= float(t) <= float(s) <= high:
            raise ValueError(
                f"t and s must lie in [{low:g}, {high:g}], where {type(self).__name__} is "
                f"defined, but are {float(t):g} and {float(s):g}."
            )
        if not self._varies or h == 0:
            return constant_law(*self._rates(float(t)), h)
        return varying_law(self._rates, float(t), float(s), type(self).__name__)

    def stationary_mean(self) -> Tensor:
        """Return A⁻¹ c, shape (d,).

        Raises:
            ValueError: If a mode does not decay, or A, B or c depends on time.
        """
        self._slowest()
        mean: Tensor = torch.linalg.solve(self._A.value, self._c.value)
        return mean

    def stationary_covariance(self) -> Tensor:
        """Return the C of A C + C Aᵀ = B Bᵀ, shape (d, d).

        Raises:
            ValueError: If a mode does not decay, or A, B or c depends on time.
        """
        slowest = self._slowest()
        return constant_law(*self._rates(0.0), _DECAYED / slowest).covariance

    def stationary_correlation(self, times: Times) -> Tensor:
        """Return ⟨δX_τ δX_0ᵀ⟩ = e^{−Aτ} C at rest, δX = X − A⁻¹ c, shape (T, d, d).

        Args:
            times: Values of τ ≥ 0, shape (T,).

        Raises:
            ValueError: If one is negative, a mode does not decay, or A, B or c depends on time.
        """
        ts, covariance, rates = as_times(times), self.stationary_covariance(), self._rates(0.0)
        if bool((ts < 0).any()):
            raise ValueError(f"times must be ≥ 0, but the least is {float(ts.min()):g}.")
        return torch.stack([constant_law(*rates, h).matrix @ covariance for h in ts.tolist()])

    def _rates(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return A, B Bᵀ and c at a time."""
        A, B, c = (rate.finite_at(t) for rate in (self._A, self._B, self._c))
        square = B @ B.T if B.ndim == 2 else (B * B).expand(len(A)).diag()
        return A, square, c

    def _slowest(self) -> float:
        """Return the smallest decay rate of a mode, the real part of an eigenvalue of A."""
        name = type(self).__name__
        if self._varies:
            raise ValueError(
                f"{name} has rates that depend on time, and no stationary law; ask for "
                "transition(t, s) over a long time, or pass A, B and c as numbers."
            )
        slowest = float(torch.linalg.eigvals(self._A.value.detach()).real.min())
        if not slowest > 0:
            raise ValueError(
                f"{name} has no stationary law: an eigenvalue of A has the real part "
                f"{slowest:.4g}, and its mode does not decay."
            )
        return slowest


def _checked_range(given: object) -> tuple[float, float]:
    """Return the times at which rates exist.

    Raises:
        TypeError: If they are no pair of numbers.
        ValueError: If they do not increase.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"time_range must be a pair (low, high), but is {given!r}.")
    low, high = (as_number("time_range", end) for end in given)
    if not low < high:
        raise ValueError(f"time_range must increase, but is ({low:g}, {high:g}).")
    return low, high
