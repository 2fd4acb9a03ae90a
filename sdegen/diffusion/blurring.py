"""Blurring diffusion: images are blurred and noised at once, each frequency at its own pace.

    u_k(t) | u_k(0) ~ N(α(t) d_k(t) u_k(0), σ(t)²),        u = DCT of the image
    d_k = (1 − d_min) e^{−λ_k τ} + d_min,   λ_k = π² Σ_a (k_a/n_a)²,   τ = ½ σ_B²
    σ_B(t) = σ_max sin²(π t/2 t_max)

with α and σ of a VP schedule. In each frequency it is a linear SDE, du = a_k u dt + b_k dW, with
a_k = d log(α d_k)/dt and b_k² = dσ²/dt − 2 a_k σ² > 0: the noise of neighbouring pixels is
correlated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.core.bases import Cosines
from sdegen.core.checks import check_positive
from sdegen.core.diagonal_kernel import DiagonalKernel, meet
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import as_number, as_time
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time
from sdegen.diffusion.gaussian_path import VP
from sdegen.diffusion.schedules import BetaSchedule, CosineBeta
from sdegen.sde.fields import as_shape


class Blurring(SDE):
    """Blurring diffusion of images, each frequency with its own α_k(t), all with one σ(t).

        u_k(t) | u_k(0) ~ N(α(t) d_k(t) u_k(0), σ(t)²),   u = DCT of the image
        d_k = (1 − d_min) e^{−λ_k τ} + d_min,   λ_k = π² Σ_a (k_a/n_a)²,   τ = ½ σ_B²

    Args:
        shape: Shape of an image, such as (1, 8, 8) or (8,); the last two axes, or the one, are
            blurred.
        blur: σ_max > 0, the width of the blur at t_max, in pixels.
        least: d_min in (0, 1), what is left of each frequency at least.
        beta: The schedule of α and σ, as of `VP`; None is CosineBeta().
        t_min: Smallest time at which the score is asked for.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If a number is out of its range.

    Reference:
        Hoogeboom and Salimans 2023, section 3 and appendix A, arXiv:2209.05557.

    Example:
        >>> path = sg.Blurring((2,), blur=2.0, least=0.5, beta=sg.ConstantBeta(2.0))
        >>> images = torch.tensor([[1.0, 1.0], [1.0, -1.0]])  # k = 0 and 1
        >>> path.noise_kernel.mean(images, torch.tensor(1.0))  # e⁻¹ and e⁻¹ (½ e^{−π²/2} + ½)
        tensor([[ 0.3679,  0.3679],
                [ 0.1853, -0.1853]])
    """

    noise: NoiseKind = "additive"
    noise_structure: NoiseStructure = "channels"

    def __init__(
        self,
        shape: Sequence[int],
        blur: float = 20.0,
        least: float = 1e-3,
        beta: BetaSchedule | None = None,
        *,
        t_min: float = 1e-3,
    ) -> None:
        self.shape: tuple[int, ...] = as_shape("shape", shape)
        self.blur: float = as_number("blur", blur)
        self.least: float = as_number("least", least)
        check_positive("blur", self.blur)
        if not 0 < self.least < 1:
            raise ValueError(f"least must lie in (0, 1), but is {self.least:g}.")
        self._path = VP(CosineBeta() if beta is None else beta, t_min=t_min)
        self.beta: BetaSchedule = self._path.beta
        self.t_min: float = self._path.t_min
        self.t_max: float = self._path.t_max
        self.channels: int | None = math.prod(self.shape)
        blurred = self.shape[-2:]
        self._basis = Cosines(len(blurred))
        squares = torch.zeros((), dtype=torch.float64)
        for n in blurred:
            squares = squares[..., None] + (torch.arange(n, dtype=torch.float64) / n).square()
        self._lam = math.pi**2 * squares

    @property
    def time_range(self) -> tuple[float, float]:
        """[0, t_max]."""
        return self._path.time_range

    @property
    def score_range(self) -> tuple[float, float]:
        """[t_min, t_max]."""
        return self._path.score_range

    @property
    def noise_kernel(self) -> DiagonalKernel:
        """One α for each frequency, and one σ."""
        rest = (torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
        return DiagonalKernel(self._alpha, self._path.sigma, self._basis, rest=rest)

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the shape of an image.

        Raises ValueError if it holds another number of pixels.
        """
        if numbers != self.channels:
            raise ValueError(
                f"a state of this {type(self).__name__} has {self.channels} numbers, but "
                f"{numbers} are asked for."
            )
        return self.shape

    def drift(self, x: State, t: Time | float) -> State:
        """Blurring and decay, a_k of each frequency; shape of x."""
        self._check(x)
        t = as_time(t)
        path = self._path.drift_rate(t)
        a = path.reshape(*path.shape, *(1,) * self._lam.ndim) + self._faded(t)[1]
        return self._basis.from_modes(meet(a, t, x) * self._basis.to_modes(x))

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """G(t) = Qᵀ diag(b_k), a matrix of all pixels and as many noises, (1 or batch, *event, d).

        d is the number of pixels: `diffusion_times` and `covariance_times` need no such matrix.
        """
        t = as_time(t)
        b, d = self._noise(t), self.channels or 0
        eye = torch.eye(d, dtype=torch.float64, device=b.device).reshape(d, *self.shape)
        columns = self._basis.from_modes(eye).reshape(d, d).T  # a column for each frequency
        whole = b.expand(*t.shape, *self.shape).reshape(*t.shape, 1, d)
        G = (columns * whole).reshape(-1, *self.shape, d)
        return G.to(x) if x.is_floating_point() else G

    def diffusion_times(self, x: State, t: Time, z: Tensor) -> State:
        """Return Qᵀ b z, shape of x."""
        return self._basis.from_modes(meet(self._noise(t), t, x) * z.reshape(x.shape))

    def covariance_times(self, x: State, t: Time, v: State, scale: float = 1.0) -> State:
        """Return scale · Qᵀ b² Q v, shape of x."""
        square = scale * self._noise(t).square()
        return self._basis.from_modes(meet(square, t, v) * self._basis.to_modes(v))

    def _alpha(self, t: Time) -> Tensor:
        """α d_k, shape (*t.shape, *frequencies)."""
        path = self._path.alpha(t)
        return path.reshape(*path.shape, *(1,) * self._lam.ndim) * self._faded(t)[0]

    def _noise(self, t: Time) -> Tensor:
        """Return b_k, with b_k² = b² − 2 σ² d log d_k/dt, shape (*t.shape, *frequencies)."""
        rate, sigma = self._path.diffusion_rate(t), self._path.sigma(t)
        ones = (1,) * self._lam.ndim
        square = rate.square().reshape(*rate.shape, *ones)
        return (
            square - 2 * sigma.square().reshape(*sigma.shape, *ones) * self._faded(t)[1]
        ).sqrt()

    def _faded(self, t: Time) -> tuple[Tensor, Tensor]:
        """Return d_k and d log d_k/dt, shape (*t.shape, *frequencies)."""
        angle = 0.5 * math.pi * t.double() / self.t_max
        tau = 0.5 * self.blur**2 * angle.sin().pow(4)
        pace = self.blur**2 * math.pi / self.t_max * angle.sin().pow(3) * angle.cos()
        shape = (*t.shape, *(1,) * self._lam.ndim)
        lam = self._lam.to(t.device)
        kept = (1 - self.least) * torch.exp(-lam * tau.reshape(shape))
        whole = kept + self.least
        return whole, -lam * pace.reshape(shape) * kept / whole

    def _check(self, x: State) -> None:
        """Refuse states of another shape."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"a state of this {type(self).__name__} has shape (batch, "
                f"{', '.join(map(str, self.shape))}), but has shape {tuple(x.shape)}."
            )
