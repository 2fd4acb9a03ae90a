"""Straight paths: rectified flow and EDM, linear SDEs that were born as interpolations.

    x_t = α(t) x0 + σ(t) ε,        drift a(t) x, a = d log α/dt,      b² = dσ²/dt − 2 a σ²

Flow matching and EDM write down α and σ, and learn a velocity or a denoiser. Every such path is
the kernel of exactly one linear SDE, whose rates a and b follow from α and σ as above; its
probability flow is the ordinary differential equation that these methods integrate. So their
networks are scores, and every solver, likelihood and identity of a linear SDE holds for them.

    path              α        σ      a            b²             t
    RectifiedFlow     1 − t    t      −1/(1 − t)   2 t/(1 − t)    [10⁻³, 0.999] unless said
    EDM               1        t      0            2 t            [0.002, 80] unless said

What changes from path to path is the clock and the scale of the state, and nothing else: at one
noise-to-signal ratio σ/α all have the same x_t/α, hence the same E[x0 | x_t].
"""

import torch
from torch import Tensor

from sdegen.core.requests import as_time
from sdegen.core.shapes import Time
from sdegen.diffusion.gaussian_path import ExplodingPath, GaussianPath


class RectifiedFlow(GaussianPath):
    """The straight line from data to noise: flow matching.

        x_t = (1 − t) x0 + t ε,   α(t) = 1 − t,   σ(t) = t
        dX = −X/(1 − t) dt + √(2 t/(1 − t)) dW

    At t = 1 no signal is left: a and b² diverge, though the velocity E[ε − x0 | x_t] of the flow
    does not. The path therefore ends at t_max < 1, where x_t is Gaussian up to (1 − t_max) x0, and
    the prior is N(0, t_max² I). Towards t_max a step of noise that is not small beside 1 − t
    overshoots: generate with noise on `timesteps.log_snr`, or by DDIM, which needs no rates. α, σ
    and the rates have the shape of t.

    Args:
        t_min: Smallest time at which the score is asked for.
        t_max: Time at which the prior is reached, < 1.

    Raises:
        ValueError: Unless 0 < t_min < t_max < 1.

    Reference:
        Liu et al. 2022, eq. (1), arXiv:2209.03003, and Lipman et al. 2023, eq. (20) with σ_min =
        0, arXiv:2210.02747, both with time the other way round (data at t = 1).

    Example:
        >>> f"{sg.RectifiedFlow().diffusion_rate(0.5):.4f}"  # √2
        '1.4142'
    """

    def __init__(self, *, t_min: float = 1e-3, t_max: float = 0.999) -> None:
        super().__init__(t_min, t_max)
        if t_max >= 1:
            raise ValueError(
                f"t_max must be below 1, where no signal is left and the rates of RectifiedFlow "
                f"diverge, but is {t_max:g}."
            )

    @property
    def prior_std(self) -> float:
        """σ(t_max) = t_max; what is left of the data is neglected beside it."""
        return self.t_max

    def alpha(self, t: Time | float) -> Tensor:
        """1 − t."""
        return 1 - as_time(t)

    def sigma(self, t: Time | float) -> Tensor:
        """t."""
        return as_time(t)

    def drift_rate(self, t: Time | float) -> Tensor:
        """−1/(1 − t)."""
        return -1 / (1 - as_time(t))

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """√(2 t/(1 − t))."""
        t = as_time(t)
        return torch.sqrt(2 * t / (1 - t))


class EDM(ExplodingPath):
    """The path of Karras et al., on which time is the noise itself.

        x_t = x0 + t ε,   dX = √(2 t) dW,   α(t) = 1,   σ(t) = t

    Its network is `EDMPrediction`'s. The grid that goes with it is `timesteps.karras`: a uniform
    one in t spends its steps where there is nothing but noise. α, σ and the rates have t's shape.

    Args:
        t_min: Smallest noise level at which the score is asked for, σ_min.
        t_max: The largest one, σ_max, large beside the spread of the data: the prior is
            N(0, σ_max² I).

    Raises:
        ValueError: Unless 0 < t_min < t_max.

    Reference:
        Karras et al. 2022, table 1, last column, arXiv:2206.00364.

    Example:
        >>> f"{sg.EDM().diffusion_rate(8.0):.4f}"  # √(2 · 8)
        '4.0000'
    """

    def __init__(self, *, t_min: float = 0.002, t_max: float = 80.0) -> None:
        super().__init__(t_min, t_max)

    def sigma(self, t: Time | float) -> Tensor:
        """t."""
        return as_time(t)

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """√(2 t)."""
        return torch.sqrt(2 * as_time(t))
