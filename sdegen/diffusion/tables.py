"""Tables: a β-schedule from the ᾱ_1 … ᾱ_N that a network was trained with elsewhere.

    α(t_k)² = ᾱ_k at t_k = k/N,     λ = log(α/σ) a monotone cubic in t between

A DDPM knows noise levels 1 … N and nothing between them; what is between is a choice. Straight
lines of λ would let β = −d log ᾱ/dt jump at every level, and an adaptive solver stop there: so λ
is the piecewise cubic of Fritsch and Carlson, which is monotone and has a continuous slope (six
levels by dopri5 at 10⁻⁶: 80 evaluations, with straight lines 560). Before t_1 there is no level
to interpolate from: B = ∫β grows linearly from 0, and a score is not to be asked for there.

Reference:
    Fritsch and Carlson 1980, SIAM J. Numer. Anal. 17, 238, with scipy's choice of the slopes.
"""

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from sdegen.core.requests import as_numbers, as_time, first_true
from sdegen.core.shapes import Time
from sdegen.diffusion.schedules import BetaSchedule

_NO_SIGNAL = (
    "no signal is left there, and the score does not tell x0; leave that level out of the table"
)


class TabulatedBeta(BetaSchedule):
    """The β-schedule of a table of ᾱ, with λ = log(α/σ) a monotone cubic between its levels.

        e^{−B(k/N)} = ᾱ_k,   k = 1 … N

    β and B are functions of t, of its shape.

    Args:
        alpha_bars: ᾱ_1 … ᾱ_N, shape (N,), N ≥ 2, in (0, 1) and decreasing.

    Raises:
        TypeError: If they are no numbers, or a tensor that requires grad.
        ValueError: If they are fewer, leave (0, 1) or do not decrease, naming the index.

    Reference:
        Fritsch and Carlson 1980, SIAM J. Numer. Anal. 17, 238.

    Example:
        >>> f"{sg.TabulatedBeta([0.9, 0.5, 0.1]).integral(2 / 3).neg().exp():.4f}"  # ᾱ_2
        '0.5000'
    """

    def __init__(self, alpha_bars: Tensor | list[float] | tuple[float, ...]) -> None:
        table = as_numbers("alpha_bars", alpha_bars, expected="a list ᾱ_1 … ᾱ_N").cpu()
        if table.requires_grad:
            raise TypeError(
                "alpha_bars is a tensor that requires grad, and a table of numbers would lose its "
                "gradient; pass alpha_bars.detach()."
            )
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(
                "alpha_bars must be a list ᾱ_1 … ᾱ_N of at least two, but have shape "
                f"{tuple(table.shape)}."
            )
        if (i := first_true(~((table > 0) & (table < 1)))) is not None:
            cure = "" if float(table[i]) else f": {_NO_SIGNAL}"
            raise ValueError(
                f"every ᾱ must lie in (0, 1), but alpha_bars[{i}] = {float(table[i]):g}{cure}."
            )
        if (i := first_true(~(table.diff() < 0))) is not None:
            raise ValueError(
                f"ᾱ must decrease, but alpha_bars[{i}] = {float(table[i]):g} is followed by "
                f"{float(table[i + 1]):g}."
            )
        self.alpha_bars: tuple[float, ...] = tuple(table.tolist())
        levels = 0.5 * (table.log() - torch.log1p(-table))
        # highest power first, one column for each interval, in units of the index
        cubic = PchipInterpolator(np.arange(len(table)), levels.numpy()).c
        self._cubic = torch.from_numpy(np.ascontiguousarray(cubic))
        self._first = -float(table[0].log())  # B(t_1)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.alpha_bars)

    def __call__(self, t: Time | float) -> Tensor:
        """β(t) = −2 λ' σ², shape of t; before t_1 the constant −N log ᾱ_1."""
        t = as_time(t)
        at = t.to(torch.float64)
        level, pace = self._interpolated(at)
        beta = -2 * pace * torch.sigmoid(-2 * level)
        return torch.where(at * self.steps < 1, self.steps * self._first, beta).to(t.dtype)

    def integral(self, t: Time | float) -> Tensor:
        """B(t) = log(1 + e^{−2λ}), shape of t; before t_1 linear from 0."""
        t = as_time(t)
        at = t.to(torch.float64)
        level, _ = self._interpolated(at)
        grown = -torch.nn.functional.logsigmoid(2 * level)
        early = self.steps * self._first * at
        return torch.where(at * self.steps < 1, early, grown).to(t.dtype)

    def _interpolated(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """λ(t) and dλ/dt; before t_1 as on the first interval."""
        place = self.steps * t - 1
        left = place.detach().floor().clamp(0, self.steps - 2)
        a, b, c, d = self._cubic.to(t.device)[:, left.long()]
        u = place - left
        return ((a * u + b) * u + c) * u + d, self.steps * ((3 * a * u + 2 * b) * u + c)
