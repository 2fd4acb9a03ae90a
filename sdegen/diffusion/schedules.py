"""Schedules: how fast a forward SDE noises.

A β-schedule gives the rate β(t) and its integral B(t) = ∫₀ᵗ β, from which a variance-preserving
kernel follows as α = e^{−B/2}, σ² = 1 − e^{−B}. A σ-schedule gives the variance of a
variance-exploding kernel and its rate of growth. Both hold Python floats, follow the dtype and
device of t, and end at `t_max`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_number, as_time, check_kind
from sdegen.core.shapes import Time


class BetaSchedule(ABC):
    """A noise rate β(t) > 0, in units of inverse time, and its integral.

        B(t) = ∫₀ᵗ β(s) ds,   α(t) = e^{−B(t)/2} of a variance-preserving path

    A subclass defines `__call__`, β(t), and `integral`, B(t), both of the shape of t.

    Example:
        >>> class Steep(sg.BetaSchedule):
        ...     def __call__(self, t):
        ...         return 6 * t**2
        ...     def integral(self, t):
        ...         return 2 * t**3
        >>> f"{sg.VP(Steep()).alpha(1.0):.4f}"  # e⁻¹
        '0.3679'
    """

    t_max: float = 1.0

    @abstractmethod
    def __call__(self, t: Time | float) -> Tensor:
        """β(t), shape of t."""

    @abstractmethod
    def integral(self, t: Time | float) -> Tensor:
        """B(t) = ∫₀ᵗ β(s) ds, shape of t."""


class ConstantBeta(BetaSchedule):
    """The same noise rate at all times.

        β(t) = β,   B(t) = β t

    Both are functions of t, of its shape.

    Args:
        beta: Noise rate β > 0, in units of inverse time.
        t_max: Final time.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0.

    Example:
        >>> sg.ConstantBeta(2.0).integral(0.5).item()  # β t
        1.0
    """

    def __init__(self, beta: float, t_max: float = 1.0) -> None:
        self.beta: float = _positive("beta", beta)
        self.t_max: float = _positive("t_max", t_max)

    def __call__(self, t: Time | float) -> Tensor:
        """β, shape of t."""
        return torch.full_like(as_time(t), self.beta)

    def integral(self, t: Time | float) -> Tensor:
        """B(t) = β t."""
        return self.beta * as_time(t)


class LinearBeta(BetaSchedule):
    """A noise rate that grows linearly on [0, 1].

        β(t) = β_min + (β_max − β_min) t,   B(t) = β_min t + ½ (β_max − β_min) t²

    Both are functions of t, of its shape.

    Args:
        beta_min: β(0) > 0, in units of inverse time.
        beta_max: β(1) > 0.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0.

    Reference:
        Song et al. 2021, eq. (32), arXiv:2011.13456.

    Example:
        >>> f"{sg.LinearBeta(0.1, 20.0).integral(1.0):.2f}"  # ½ (β_min + β_max)
        '10.05'
    """

    def __init__(self, beta_min: float, beta_max: float) -> None:
        self.beta_min: float = _positive("beta_min", beta_min)
        self.beta_max: float = _positive("beta_max", beta_max)

    def __call__(self, t: Time | float) -> Tensor:
        """β(t), shape of t."""
        return self.beta_min + (self.beta_max - self.beta_min) * as_time(t)

    def integral(self, t: Time | float) -> Tensor:
        """B(t) = β_min t + ½ (β_max − β_min) t²."""
        t = as_time(t)
        return (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t


class QuadraticBeta(BetaSchedule):
    """A noise rate whose root grows linearly on [0, 1].

        β(t) = (√β_min + (√β_max − √β_min) t)²

    It is a function of t, of its shape, as its `integral` is.

    Args:
        beta_min: β(0) > 0, in units of inverse time.
        beta_max: β(1) > 0.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0.

    Reference:
        The quadratic schedule of Ho et al. 2020, appendix B, in continuous time, arXiv:2006.11239.

    Example:
        >>> beta = sg.QuadraticBeta(1.0, 4.0)
        >>> f"{beta(0.5):.4f}, {beta.integral(1.0):.4f}"  # 1.5² and (2³ − 1)/3
        '2.2500, 2.3333'
    """

    def __init__(self, beta_min: float, beta_max: float) -> None:
        self.beta_min: float = _positive("beta_min", beta_min)
        self.beta_max: float = _positive("beta_max", beta_max)
        self._root = math.sqrt(self.beta_min)
        self._growth = math.sqrt(self.beta_max) - self._root

    def __call__(self, t: Time | float) -> Tensor:
        """β(t), shape of t."""
        return (self._root + self._growth * as_time(t)) ** 2

    def integral(self, t: Time | float) -> Tensor:
        """B(t) = β_min t + √β_min δ t² + ⅓ δ² t³, δ = √β_max − √β_min."""
        t = as_time(t)
        r, d = self._root, self._growth
        return ((d * d / 3 * t + r * d) * t + r * r) * t


class CosineBeta(BetaSchedule):
    """The cosine schedule, whose signal falls slowly at first.

        e^{−B(t)} = cos²(u(t))/cos²(u(0)),   u(t) = (π/2) (t + s)/(1 + s)

    At t = 1 the cosine vanishes and β diverges; the schedule therefore ends at t_max = 0.999. Both
    β and B are functions of t, of its shape.

    Args:
        offset: s > 0, which keeps β(0) from vanishing.
        t_max: Final time, below 1.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0, or t_max ≥ 1.

    Reference:
        Nichol and Dhariwal 2021, eq. (17), arXiv:2102.09672; β = −d log ᾱ/dt.

    Example:
        >>> f"{sg.CosineBeta(offset=1e-6).integral(0.5).neg().exp():.4f}"  # cos² π/4
        '0.5000'
    """

    def __init__(self, offset: float = 0.008, t_max: float = 0.999) -> None:
        self.offset: float = _positive("offset", offset)
        self.t_max: float = _positive("t_max", t_max)
        if self.t_max >= 1:
            raise ValueError(
                "t_max must be below 1, where the rate of CosineBeta diverges, but is "
                f"{self.t_max:g}."
            )
        self._start = 0.5 * math.pi * self.offset / (1 + self.offset)
        self._pace = 0.5 * math.pi / (1 + self.offset)

    def __call__(self, t: Time | float) -> Tensor:
        """β(t) = (π/(1 + s)) tan u(t), shape of t."""
        return 2 * self._pace * torch.tan(self._start + self._pace * as_time(t))

    def integral(self, t: Time | float) -> Tensor:
        """B(t) = −2 log(cos u(t) / cos u(0)), without cancellation at small t."""
        d = self._pace * as_time(t)
        ratio_less_one = -2 * torch.sin(0.5 * d) ** 2 - torch.sin(d) * math.tan(self._start)
        return -2 * torch.log1p(ratio_less_one)


class ZeroTerminalSNR(BetaSchedule):
    """A β-schedule rescaled so that no signal is left at t_max: α(t_max) = 0, and B(t_max) = ∞.

        e^{−B'(t)/2} = (e^{−B(t)/2} − c)/(1 − c),   c = e^{−B(t_max)/2}
        β'(t) = β e^{−B/2}/(e^{−B/2} − c)

    At t_max the state is noise alone, as samples begin; of other schedules a trace of the data is
    left, from which a network learns their mean. Rates diverge there, and no ε tells x0: a model
    needs `VPrediction`, `X0Prediction` or `FlowPrediction`, is trained with the weighting
    "flow-matching" (an error of the output), and is sampled from t_max by `DDIM` or the chain of
    `DDPM.discretize`, whose first step is taken in x0. What else begins at t_max refuses. The
    rates are functions of t, of its shape.

    Args:
        beta: The schedule to be rescaled.

    Raises:
        TypeError: If it is no schedule.
        ValueError: If it is rescaled already.

    Reference:
        Lin et al. 2024, section 3.1 and algorithm 1, arXiv:2305.08891, with α(0) = 1 kept in the
        place of their ᾱ_1.

    Example:
        >>> linear = sg.LinearBeta(0.1, 20.0)
        >>> [f"{sg.VP(beta).alpha(1.0):.4f}" for beta in (linear, sg.ZeroTerminalSNR(linear))]
        ['0.0066', '0.0000']
    """

    def __init__(self, beta: BetaSchedule) -> None:
        check_kind("beta", beta, BetaSchedule, "a schedule β(t), such as LinearBeta(0.1, 20.0)")
        if isinstance(beta, ZeroTerminalSNR):
            raise ValueError(  # noqa: TRY004, it is a schedule
                "beta is rescaled already; pass it as it is."
            )
        self.beta: BetaSchedule = beta
        self.t_max: float = beta.t_max
        end = beta.integral(torch.tensor(beta.t_max, dtype=torch.float64))
        self._left = float(torch.exp(-0.5 * end))  # c

    def __call__(self, t: Time | float) -> Tensor:
        """Return β'(t), shape of t; ∞ at t_max."""
        t = as_time(t)
        at = t.to(torch.float64)
        alpha = torch.exp(-0.5 * self.beta.integral(at))
        rate = self.beta(at) * alpha / (alpha - self._left).clamp(min=0.0)
        return torch.where(t >= self.t_max, math.inf, rate).to(t.dtype)

    def integral(self, t: Time | float) -> Tensor:
        """B'(t) = −2 log(1 − (1 − e^{−B/2})/(1 − c)), shape of t; ∞ at t_max."""
        t = as_time(t)
        at = t.to(torch.float64)
        lost = -torch.expm1(-0.5 * self.beta.integral(at)) / (1 - self._left)
        grown = -2 * torch.log1p(-lost.clamp(max=1.0))
        return torch.where(t >= self.t_max, math.inf, grown).to(t.dtype)


class GeometricSigma:
    """Noise levels that grow geometrically on [0, 1], from zero variance.

        σ(t)² = σ_min² ((σ_max/σ_min)^{2t} − 1)

    The usual σ_min (σ_max/σ_min)^t starts from σ_min² without an SDE that gave it. Here the kernel
    is the SDE's own. `variance` and `variance_rate` are functions of t, of its shape.

    Args:
        sigma_min: Noise scale of the start, > 0, in units of the data.
        sigma_max: Noise scale of the end, > σ_min.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0, or sigma_max ≤ sigma_min.

    Reference:
        Song et al. 2021, eqs. (30) and (31), arXiv:2011.13456, less the variance at t = 0.

    Example:
        >>> sigma = sg.GeometricSigma(1.0, 2.0)
        >>> [f"{sigma.variance(t):.4f}" for t in (0.0, 0.5, 1.0)]  # 4ᵗ − 1
        ['0.0000', '1.0000', '3.0000']
    """

    t_max: float = 1.0

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        self.sigma_min: float = _positive("sigma_min", sigma_min)
        self.sigma_max: float = _positive("sigma_max", sigma_max)
        if self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sigma_max must exceed sigma_min = {self.sigma_min:g}, but is {self.sigma_max:g}."
            )
        self._log_ratio = math.log(self.sigma_max / self.sigma_min)

    def variance(self, t: Time | float) -> Tensor:
        """σ(t)², shape of t."""
        return self.sigma_min**2 * torch.expm1(2 * self._log_ratio * as_time(t))

    def variance_rate(self, t: Time | float) -> Tensor:
        """dσ²/dt, shape of t."""
        pace = 2 * self._log_ratio
        return pace * self.sigma_min**2 * torch.exp(pace * as_time(t))


def _positive(name: str, value: float) -> float:
    """Return a finite number > 0, or refuse it by its name."""
    number = as_number(name, value, cure="an SDE of your own, a GaussianPath, may hold it")
    check_positive(name, number)
    return number
