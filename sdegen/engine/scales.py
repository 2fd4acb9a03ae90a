"""Scales: how large the states of a noising path can be, where a sampler starts and where it ends.

At time t a state of a linear path is x = α x0 + σ ε. So its root mean square is σ or more, and it
is not far above √(α² S² + σ²) for data of size S. A start that is smaller, such as N(0, I) where
the noise is σ = 80, or very much larger, is none of the path, and what comes of it is no sample.

On the way to the data x/α does not grow: it loses the noise-to-signal ratio σ/α and keeps x0. A
run that ends with an x/α ten times as large as it began with has exploded, though it may be
finite. Where α is near 0 at the start that says little; what the score says of the ends says more
(`explosion.py`).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning, NonFiniteError
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.engine.explosion import beyond_data, levels_of
from sdegen.score.composition import Product

FEWEST = 32  # numbers: of so many normals the rms is below a half once in 10⁶
_SMALL, _LARGE = 0.5, 3.0  # of the noise alone, and of all that there can be
_DATA = 30.0  # a size of data that nobody should have at the door of a sampler
_NOISE = 0.1  # of α over σ, below which a state is noise alone
_STEEP = 1.5  # times the score of noise alone, which no score of data is
_LATE = 1e-3  # of t_max, up to which a run begins there
_GROWN = 10.0  # of x/α, from which a run has exploded
_CURE = (
    "Take a solver of lower order or of prediction 'v', a grid made for the flow and for this "
    "solver (timesteps.made_for), or more steps, until twice as many change nothing; of a "
    "posterior score, covariance='isotropic'."
)


def warn_start(sde: SDE, x0: State, t: Tensor) -> None:
    """Warn where a start cannot be a state of the path that is to be reversed, or p_T is not π.

    Args:
        sde: Reverse dynamics; of others nothing is known.
        x0: Start, shape (batch, *event).
        t: Its time, 0-d.
    """
    unreached = getattr(getattr(sde, "score", None), "unreached", None)
    if unreached is not None and float(t) >= (1 - _LATE) * sde.time_range[1]:
        warnings.warn(unreached_prior(unreached), AccuracyWarning, stacklevel=3)
    levels = _levels(sde, t)
    if levels is None or x0.numel() < FEWEST:
        return
    alpha, sigma = levels
    size = float(x0.detach().double().square().mean().sqrt())
    most = (sigma**2 + (alpha * _DATA) ** 2) ** 0.5
    if size < _SMALL * sigma:
        told = f"the noise alone has {sigma:.3g}"
    elif size > _LARGE * most:
        told = f"noise and data together have about {max(sigma, alpha):.3g}"
    else:
        return
    warnings.warn(
        f"x0 has a root mean square of {size:.3g}, but at t = {float(t):g}, where the reversal of "
        f"this path begins, {told}: start from sde.prior(shape), or from sde.perturb(data, t) on "
        "the way.",
        AccuracyWarning,
        stacklevel=3,
    )


def unreached_prior(kl: float) -> str:
    """Return the warning that a model's noising did not reach its prior.

    Args:
        kl: KL(p_T ‖ prior) in nats, of the data that it was trained on.
    """
    return (
        f"the noising of the data had not reached the prior of this model when it was trained: "
        f"KL(p_T ‖ prior) is up to {kl:.3g} nats, and so much may samples be off that begin from "
        "it. Train it with a later t_max; or start from the law at t_max, noised data."
    )


def first_rated(sde: SDE, times: Tensor) -> Tensor:
    """Return the first time at which reverse dynamics have rates: not where no signal is left."""
    levels = _levels(sde, times[0]) if isinstance(sde, ReverseSDE) else None
    return times[1] if levels is not None and levels[0] == 0 else times[0]


def warn_score(sde: SDE, x: State, t: Tensor, drift: State) -> None:
    """Warn where a score at the noisy end is steeper than that of noise alone, −x/σ².

    Of data of any law it is −x/(σ² + α² S²) there, or nearly so. A sum of two scores is twice as
    steep: it is that of no noised product, and its flow collapses. `composition.product` says so
    for itself.

    Args:
        sde: Reverse dynamics; of others nothing is known.
        x: States, shape (batch, *event).
        t: Their time, 0-d.
        drift: Of them, as it was evaluated.
    """
    levels = _levels(sde, t)
    if not isinstance(sde, ReverseSDE) or levels is None or isinstance(sde.score, Product):
        return
    alpha, sigma = levels
    if alpha > _NOISE * sigma or x.numel() < FEWEST:
        return
    g = sde.forward.diffusion(x, t)
    score = (sde.forward.drift(x, t) - drift) / (0.5 * (1 + sde.eta**2) * g * g)
    steep = -(sigma**2) * float((x * score).sum(dtype=torch.float64) / x.double().square().sum())
    if not steep > _STEEP:
        return
    warnings.warn(
        f"at t = {float(t):g}, where states are noise alone, the score is {steep:.3g} times that "
        "of noise, -x/sigma**2: it is no score of this path. A sum of scores is none of a noised "
        "product: use composition.product, and PredictorCorrector(corrector_steps=…) with it.",
        AccuracyWarning,
        stacklevel=4,
    )


def check_end(sde: SDE, x0: State, times: Tensor, result: Trajectory, freeze: bool) -> Trajectory:
    """Refuse, or mark, trajectories of reverse dynamics that have exploded and are finite.

    Args:
        sde: What was run.
        x0: Start.
        times: All of the run.
        result: What came of it.
        freeze: Whether lost trajectories are marked, and nothing is raised.

    Raises:
        NonFiniteError: With their number, the largest |x|, and what the path can have.
    """
    lost, told = exploded(sde, x0, times, result.final, result.nonfinite)
    if told is None:
        return result
    marked = replace(result, nonfinite=result.nonfinite | lost)
    if freeze:
        return marked
    raise NonFiniteError(told, marked)


def exploded(
    sde: SDE, x0: State, times: Tensor, final: State, nonfinite: Tensor
) -> tuple[Tensor, str | None]:
    """Return which trajectories of reverse dynamics have exploded and are finite.

    Args:
        sde: What was run.
        x0: Start, shape (batch, *event).
        times: All of the run.
        final: The last states, shape (batch, *event).
        nonfinite: Which are lost already, shape (batch,).

    Returns:
        Which, shape (batch,), and what to say of them; None where there are none.
    """
    none = torch.zeros_like(nonfinite)
    first, last = (_levels(sde, t) for t in times[[0, -1]].unbind())
    if first is None or last is None or times[-1] > times[0]:
        return none, None
    started = max(float(x0.detach().abs().max()), first[1])
    started = started / first[0] if first[0] else math.inf  # where noise alone is left
    size = final.detach().abs().flatten(1).amax(1)
    grown = size > _GROWN * started * last[0]
    lost = (grown | beyond_data(sde, final, times[-1])) & ~nonfinite
    if not bool(lost.any()):
        return none, None
    if not bool((grown & lost).any()):
        return lost, (
            f"{int(lost.sum())} of {len(lost)} trajectories have exploded: the largest |x| at t = "
            f"{float(times[-1]):g} is {float(size[lost].max()):.3g}, and there the score knows no "
            f"data: it takes these x for noise about data that are less than a quarter as large. "
            f"{_CURE}"
        )
    return lost, (
        f"{int(lost.sum())} of {len(lost)} trajectories have exploded: the largest |x| at t = "
        f"{float(times[-1]):g} is {float(size.max()):.3g}, where this path, of starts up to "
        f"{float(x0.detach().abs().max()):.3g}, can have {started * last[0]:.3g}. {_CURE}"
    )


def _levels(sde: SDE, t: Tensor) -> tuple[float, float] | None:
    """Return α and σ of the path that is reversed; None where there is none."""
    if isinstance(sde, AncestralChain):
        return levels_of(sde.chain, int(t))
    if sde.denoising is None or sde.denoising.kernel is None:
        return None
    kernel = sde.denoising.kernel
    with torch.no_grad():  # α and σ may be learned
        return float(kernel.alpha(t)), float(kernel.sigma(t))
