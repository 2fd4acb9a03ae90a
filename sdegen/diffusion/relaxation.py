"""Relaxation: how fast simulated states forget their start, and when they have.

The slowest rate λ is read from the autocorrelation at rest, λ = −log ρ/τ, with the largest
generalised eigenvalue ρ of the coordinates and their squares over a lag τ; ρ is a lower bound, so
that λ is rather too large. KL(p_t ‖ π) is the `prior_mismatch` of the states at t and of those of
other trajectories at the end; below what samples show it falls as e^{−2λt}.

Reference:
    Noé and Nüske 2013, Multiscale Model. Simul. 11, 635, eq. (19) (the eigenvalue); Risken 1989,
    section 6.1 (the divergence falls).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_number
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.diffusion.mismatch import prior_mismatch, warn_unreached
from sdegen.diffusion.priors import SamplePrior

_PARTS = 10  # of trajectories, for errors
_SQUARES = 12  # coordinates up to which their products are features of an autocorrelation too
_SPAN = 3.0  # relaxation times in the second half of a simulation
_MOVED = 5.0  # standard errors that a mean may move by in it
_SEEN = 4.0  # standard errors above which a divergence of samples is a number


@dataclass(frozen=True, eq=False)
class NoisingTime(Labelled):
    """The time after which the start is forgotten: `float(result)` is the number.

        KL(p_t ‖ π) ≤ tolerance for t ≥ time

    Attributes:
        time: The time, from t = 0.
        method: How it was found.
        slowest_rate: λ, the slowest rate of the process, in units of 1/time; None of a Gaussian
            path, whose rates change.
        kl: KL(p_t ‖ π) at that time, in nats.
        tolerance: What was asked for.
        standard_error: Of `time`, by sampling; 0 where nothing is drawn.

    Example:
        >>> T = sg.noising_time(sg.OrnsteinUhlenbeck(), 2.0, tolerance=1e-2)  # slowest rate k = 1
        >>> f"{T.time:.3f}, {T.kl_at(T.time + 1) / T.kl:.3f}"  # then by e^{−2k} in a time of 1
        '2.649, 0.135'
    """

    time: float
    method: str
    slowest_rate: float | None
    kl: float
    tolerance: float
    standard_error: float
    _kl_at: Callable[[float], float] = field(repr=False)

    def __float__(self) -> float:
        """Return the time."""
        return self.time

    def kl_at(self, t: float) -> float:
        """Return KL(p_t ‖ π) in nats at another time t > 0."""
        t = as_number("t", t)
        check_positive("t", t)
        return self._kl_at(t)

    def warn_before(self, t: float) -> None:
        """Give an `AccuracyWarning` if the prior has not been reached at t, with both numbers."""
        kl = self.kl_at(t)
        if kl > self.tolerance * (1 + 1e-3):
            warn_unreached(kl, self.tolerance, self.time, at=t, stacklevel=2)


@dataclass(frozen=True)
class Rest:
    """What the second half of a simulation says of the law at rest.

    Attributes:
        rate: λ, the slowest rate, in units of 1/time.
        rate_error: Its standard error.
        moved: By how many standard errors a mean has moved.
        span: The time of the second half.
    """

    rate: float
    rate_error: float
    moved: float
    span: float

    @property
    def reached(self) -> bool:
        """Whether the states were at rest all that time."""
        return self.moved <= _MOVED and self.rate * self.span >= _SPAN


def rest_of(states: Tensor, times: Tensor) -> Rest:
    """Return the slowest rate of simulated states, and whether they were at rest.

    Args:
        states: Shape (times, trajectories, *event).
        times: Increasing, equal steps in the second half, shape (times,).
    """
    rate, rate_error = _slowest(states, times)
    half = len(times) // 2
    middle, end = (_features(states[k]) for k in (half, -1))
    off = (end.mean(0) - middle.mean(0)).abs() * math.sqrt(len(end))
    moved = float((off / (end.std(0) + middle.std(0)).clamp(min=1e-300)).max())
    return Rest(rate, rate_error, moved, float(times[-1] - times[half]))


def noising_time_of(
    states: Tensor, others: State, times: Tensor, rest: Rest, tolerance: float
) -> NoisingTime | None:
    """Return the time after which simulated states have forgotten their start.

    Args:
        states: Shape (times, trajectories, *event).
        others: Other trajectories at rest, shape (trajectories, *event).
        times: Increasing from 0, shape (times,).
        rest: `rest_of` them.
        tolerance: KL in nats.

    Returns:
        The time; None where KL is below what so many trajectories show at all times.
    """
    prior, rate = SamplePrior(others), rest.rate
    found = [prior_mismatch(states[k], prior) for k in range(1, len(times))]
    ts = times[1:].tolist()
    seen = [k for k, one in enumerate(found) if one.kl > _SEEN * one.standard_error]
    if not seen:
        return None
    # the last that is a number before the first that is none, or is below the tolerance
    last = next((k - 1 for k in range(1, len(ts)) if k not in seen), len(ts) - 1)
    last = next((k for k in range(last + 1) if found[k].kl <= tolerance), max(last, 0))
    anchor, at = found[last], ts[last]

    def kl_at(t: float) -> float:
        if t >= at:
            return anchor.kl * math.exp(-2 * rate * (t - at))
        k = max(next(i for i, s in enumerate(ts) if s >= t), 1)
        share = (t - ts[k - 1]) / (ts[k] - ts[k - 1])
        low, high = math.log(max(found[k - 1].kl, 1e-12)), math.log(max(found[k].kl, 1e-12))
        return math.exp(low + share * (high - low))

    time = at + math.log(anchor.kl / tolerance) / (2 * rate)
    error = math.hypot(
        anchor.standard_error / anchor.kl / (2 * rate), (time - at) * rest.rate_error / rate
    )
    method = f"simulation of {states.shape[1]} trajectories, {anchor.method}"
    return NoisingTime(time, method, rate, kl_at(time), tolerance, error, kl_at)


def _features(x: Tensor) -> Tensor:
    """Return coordinates, and their products or squares, shape (n, features)."""
    flat = x.flatten(1)
    d = flat.shape[1]
    if d > _SQUARES:
        return torch.cat([flat, flat.square().sum(1, keepdim=True)], 1)
    i, j = torch.triu_indices(d, d)
    return torch.cat([flat, flat[:, i] * flat[:, j]], 1)


def _slowest(states: Tensor, times: Tensor) -> tuple[float, float]:
    """Return the slowest rate at rest and its standard error, from the second half of a run."""
    n, half = states.shape[1], len(times) // 2
    best: tuple[float, float] | None = None
    for lag in (1, 2, 4, 8):  # a longer one has less bias, until its correlation is noise
        if half + lag >= len(times):
            break
        tau = float(times[half + lag] - times[half])
        parts = torch.arange(n) % _PARTS
        rho = [_correlation(states, half, lag, parts != k) for k in range(_PARTS)]
        whole = _correlation(states, half, lag, parts >= 0)
        spread = math.sqrt((_PARTS - 1) / _PARTS * sum((r - whole) ** 2 for r in rho))
        if best is not None and whole < max(0.2, 10 * spread):
            break
        rho_safe = min(max(whole, 1e-6), 1 - 1e-9)
        best = (-math.log(rho_safe) / tau, spread / rho_safe / tau)
    assert best is not None
    return best


def _correlation(states: Tensor, half: int, lag: int, rows: Tensor) -> float:
    """Return the largest generalised eigenvalue of the correlation over a lag."""
    pairs = range(half, len(states) - lag)
    a = torch.cat([_features(states[k][rows]) for k in pairs])
    b = torch.cat([_features(states[k + lag][rows]) for k in pairs])
    centre = 0.5 * (a.mean(0) + b.mean(0))
    a, b = a - centre, b - centre
    zero, one = (a.T @ a + b.T @ b) / (2 * len(a)), (a.T @ b + b.T @ a) / (2 * len(a))
    size = zero.diagonal().sqrt().clamp(min=1e-300)
    zero, one = zero / size / size[:, None], one / size / size[:, None]
    values, vectors = torch.linalg.eigh(zero)
    kept = values > 1e-8 * values.max()
    white = vectors[:, kept] / values[kept].sqrt()
    return float(torch.linalg.eigvalsh(white.T @ one @ white).max())
