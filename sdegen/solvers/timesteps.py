"""Grids of times for generation: where the steps from t_max down to t_min go.

A grid is uniform in some function of t that says how hard a stretch is. For a linear SDE with
kernel α, σ that is often the noise-to-signal ratio σ/α, which grows with t, or λ = log(α/σ), half
the log of the signal-to-noise ratio. Every grid is a float64 tensor of steps + 1 times, decreasing
from t_max to t_min, both met exactly, and goes to `simulate` as `times`.

What is assumed: σ/α increases in t, as it does where noise is added. The t that belongs to a σ/α
is found by bisection, down to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.checks import check_positive
from sdegen.sde.linear import LinearSDE

__all__ = ["karras", "log_snr", "power", "quadratic", "uniform"]


def uniform(sde: LinearSDE, steps: int) -> Tensor:
    """Equal steps in t: t_i = t_max + (i/N)(t_min − t_max).

    Args:
        sde: Any linear SDE.
        steps: N ≥ 1.

    Reference:
        Song et al. 2021, the grid of appendix G, arXiv:2011.13456.
    """
    _check(sde)
    return sde.time_grid(steps)


def quadratic(sde: LinearSDE, steps: int) -> Tensor:
    """Equal steps in √t: t_i = (√t_max + (i/N)(√t_min − √t_max))²; more of them near the data.

    Args:
        sde: Any linear SDE.
        steps: N ≥ 1.

    Reference:
        Song, Meng and Ermon 2021, appendix D.2 ("quadratic"), arXiv:2010.02502.
    """
    return power(sde, steps, rho=2.0)


def power(sde: LinearSDE, steps: int, rho: float = 2.5) -> Tensor:
    """Equal steps in t^{1/ρ}: t_i = (t_max^{1/ρ} + (i/N)(t_min^{1/ρ} − t_max^{1/ρ}))^ρ.

    ρ = 1 is `uniform`, ρ = 2 `quadratic`. ρ = 5/2 is the one rule that benchmarks/samplers.py
    takes for the flow of a VP-SDE of linear β, from 1 to 200 evaluations.

    Args:
        sde: Any linear SDE.
        steps: N ≥ 1.
        rho: ρ > 0.

    Raises:
        TypeError: If sde is no LinearSDE, or rho no number.
        ValueError: If rho is not finite and > 0.
    """
    _check(sde, rho)
    return powers(sde.t_max, sde.t_min, _count(sde, steps), rho)


def log_snr(sde: LinearSDE, steps: int) -> Tensor:
    """Equal steps in λ(t) = log(α/σ).

    Args:
        sde: Any linear SDE.
        steps: N ≥ 1.

    Reference:
        Lu et al. 2022, section 3.4 of DPM-Solver ("uniform λ"), arXiv:2206.00927.
    """
    _check(sde)
    low, high = _log_ratios(sde, _ends(sde)).tolist()
    fraction = torch.linspace(0.0, 1.0, _count(sde, steps) + 1, dtype=torch.float64)
    return _between(sde, _invert(sde, high + fraction * (low - high)))


def karras(sde: LinearSDE, steps: int, rho: float = 7.0) -> Tensor:
    """Equal steps in r^{1/ρ}, r = σ/α.

    r_i = (r_max^{1/ρ} + (i/N)(r_min^{1/ρ} − r_max^{1/ρ}))^ρ

    Args:
        sde: Any linear SDE.
        steps: N ≥ 1.
        rho: ρ > 0; 1 is uniform in r, large ρ tends to `log_snr`.

    Raises:
        TypeError: If sde is no LinearSDE, or rho no number.
        ValueError: If rho is not finite and > 0.

    Reference:
        Karras et al. 2022, eq. (5), arXiv:2206.00364, r being its σ.
    """
    _check(sde, rho)
    low, high = _log_ratios(sde, _ends(sde)).exp().tolist()
    return _between(sde, _invert(sde, powers(high, low, _count(sde, steps), rho).log()))


def _check(sde: object, rho: object = 1.0) -> None:
    """Refuses what is no linear SDE, and a ρ that is no number > 0."""
    if not isinstance(sde, LinearSDE):
        raise TypeError(
            f"sde must be the forward SDE, a LinearSDE such as VP(…), but is {type(sde).__name__}."
        )
    if not isinstance(rho, int | float):
        raise TypeError(f"rho must be a number, but is {rho!r}.")
    check_positive("rho", rho)


def _count(sde: LinearSDE, steps: int) -> int:
    """steps, once `time_grid` has not refused it."""
    return len(sde.time_grid(steps)) - 1


def powers(first: float, last: float, steps: int, rho: float) -> Tensor:
    """(first^{1/ρ} + (i/N)(last^{1/ρ} − first^{1/ρ}))^ρ, both ends met exactly; N ≥ 1."""
    a, b = first ** (1 / rho), last ** (1 / rho)
    fraction = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    values = torch.pow(a + fraction * (b - a), rho)
    values[0], values[-1] = first, last
    return values


def _ends(sde: LinearSDE) -> Tensor:
    return torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)


def _log_ratios(sde: LinearSDE, t: Tensor) -> Tensor:
    """log(σ/α) = −λ, shape of t."""
    return sde.kernel.log_ratio(t)


def _invert(sde: LinearSDE, log_ratios: Tensor) -> Tensor:
    """The times at which log(σ/α) takes these values, by bisection of [t_min, t_max]."""
    return sde.kernel.time_at(log_ratios, sde.t_min, sde.t_max)


def _between(sde: LinearSDE, times: Tensor) -> Tensor:
    """The grid with its ends put exactly where they belong."""
    times[0], times[-1] = sde.t_max, sde.t_min
    return times
