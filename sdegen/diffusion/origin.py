"""Origin: whether a score is that of the process which it is used for.

A score that says whose it is, by an attribute `sde`, is compared with the process: α and σ of
Gaussian paths, drift and noise of others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.kernel import Kernel
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.tolerances import SAME_MODEL
from sdegen.diffusion.gaussian_path import GaussianPath


def check_origin(score: ScoreFn, forward: SDE) -> None:
    """Refuse a score of another process, of an object with an `sde`, and rates that do not belong.

    Args:
        score: ∇ log p_t(x); one that has an `sde`, such as `model.score`, or the model itself.
        forward: The SDE that it is to be the score of.

    Raises:
        ValueError: Naming the first time at which α, σ, drift or noise differ, or at which the
            forward SDE has rates other than those of its α and σ.
    """
    if isinstance(forward, GaussianPath):
        forward.check_rates()
    own = getattr(score, "sde", None)
    if own is forward or not isinstance(own, SDE):
        return
    times = _times_of(score, forward)
    if own.kernel is not None and forward.kernel is not None:
        _compare_kernels(own, own.kernel, forward, forward.kernel, times)
        return
    x = _probe(score, forward)
    if x is not None and own.trajectories is None and forward.trajectories is None:
        _compare_dynamics(own, forward, x, times)


def _times_of(score: ScoreFn, forward: SDE) -> tuple[float, float, float]:
    """Return the last, a middle and the first time at which the score is asked for."""
    low, high = getattr(score, "score_range", None) or forward.score_range
    low = low if math.isfinite(low) else 0.0
    high = high if math.isfinite(high) else low + 1.0
    return (high, 0.5 * (low + high), low)


def _probe(score: ScoreFn, forward: SDE) -> State | None:
    """Return two states, or None where the shape of a state is not known."""
    event = getattr(score, "event_shape", None)
    if event is None:
        return None
    if forward.phase_space and (len(event) < 2 or event[0] != 2):
        event = (2, *event)  # of a model, which tells the shape of its data
    numbers = torch.arange(1, 2 * math.prod(event) + 1, dtype=torch.float64)
    return (2.3 * numbers).cos().reshape(2, *event)


def _compare_kernels(
    own: SDE, there: Kernel, forward: SDE, here: Kernel, times: tuple[float, ...]
) -> None:
    """Refuse another α or σ."""
    for t in times:
        at = torch.tensor(t, dtype=torch.float64)
        for symbol in ("alpha", "sigma"):
            with torch.no_grad():
                ours, its = (float(getattr(kernel, symbol)(at)) for kernel in (here, there))
            if not abs(ours - its) <= SAME_MODEL * abs(ours):
                _refuse(own, forward, t, symbol, its, ours)


def _compare_dynamics(own: SDE, forward: SDE, x: State, times: tuple[float, ...]) -> None:
    """Refuse another drift, or another g gᵀ v."""
    for t in times:
        at = torch.tensor(t, dtype=torch.float64)

        def answers(sde: SDE, at: Tensor = at) -> tuple[State, State]:
            return sde.drift(x, at), sde.covariance_times(x, at, x)

        with torch.no_grad():
            pairs = zip(("drift", "g gᵀ x"), answers(forward), answers(own), strict=True)
        for name, ours, its in pairs:
            gap = (ours - its).abs()
            if not float(gap.max()) <= SAME_MODEL * float(ours.abs().max()):
                i = int(gap.argmax())
                _refuse(own, forward, t, name, float(its.flatten()[i]), float(ours.flatten()[i]))


def _refuse(own: SDE, forward: SDE, t: float, name: str, its: float, ours: float) -> None:
    """Refuse the score, with both numbers."""
    raise ValueError(
        f"the score is that of another SDE, a {type(own).__name__}: at t = {t:g} its {name} is "
        f"{its:.6g}, but that of this {type(forward).__name__} is {ours:.6g}. Pass its own, "
        "model.sde; or, if it is meant, the score as a function, lambda x, t: model.score(x, t)."
    )
