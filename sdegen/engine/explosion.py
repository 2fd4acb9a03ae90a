"""Explosions of samplers that stay finite: what the score says of where a run has ended.

Nobody says how large the data are, and where α(t_max) is near 0 the start knows nothing of them.
The score does. With noise of standard deviation σ/α = s on data x0 the state is α (x0 + s ε), and

    x̂0(α x, t) = x + (σ²/α) score(α x, t),     σ(t)/α(t) = s        (Tweedie)

is where the data lie that x may have come from. The best guess is never worse than no guess, so
that E|x̂0 − x0|² ≤ s² d of data of any law. Ends x of a run are therefore asked about at a noise
of a tenth of their own size: of data they stay, but for a tenth of themselves. Of Gaussian data of
size S about 0 the answer is

    x̂0 = x S²/(S² + s²),

half of x where x is ten times as large as the data. An end of which less than half is left has
exploded. It is asked without noise, so that nothing is drawn, and modes that are far and rare
keep what belongs to them: at ten standard deviations the odds of another mode are e⁻⁵⁰.

Whoever draws samples counts evaluations, and those of a network are dear: nothing is asked of
ends that are no larger than four times what data usually are, one, or what a mixture says that its
own are; nor of ends that are noise still, below ten times σ/α at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.kernel import Kernel
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, rows_nonfinite
from sdegen.diffusion.ddpm import DDPM, AncestralChain
from sdegen.diffusion.mixtures import MixtureScore
from sdegen.engine.containment import where_rows
from sdegen.score.inverse import PosteriorScore

_NOISE = 0.1  # of the size of an end, at which its score is asked
_LEFT = 0.25  # of it: where the score leaves less, it has exploded
_USUAL, _LARGE = 1.0, 4.0  # size of data, of which nothing is known; ends that are asked about
_SUSPECT = 1.0 / 3.0  # of the largest end; the others are asked at a noise that is not theirs


def beyond_data(sde: SDE, x: State, t: Tensor) -> Tensor:
    """Return which ends of reverse dynamics are of no size that the score's data have.

    Args:
        sde: Reverse dynamics with a kernel, or an ancestral chain.
        x: States at the end of the run, shape (batch, *event).
        t: Its time, 0-d.

    Returns:
        Which have exploded, shape (batch,).
    """
    none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if isinstance(sde, AncestralChain):
        path: _Path | _Chain = _Chain(sde.chain)
        score = sde.score
    elif sde.denoising is not None and sde.denoising.kernel is not None:
        path = _Path(sde.denoising.kernel, *sde.time_range)
        score = sde.denoising.score
    else:
        return none
    while isinstance(score, PosteriorScore):
        score = score.prior  # of all data, measured or not: a likelihood leaps where it is far off
    with torch.no_grad():  # α and σ may be learned
        alpha, sigma = path.levels(t)
        scaled = x.detach() / alpha
        rows = ~rows_nonfinite(scaled)
        scaled = where_rows(rows, scaled, torch.zeros_like(scaled))
        sizes, diverged = _sizes(scaled), none
        while True:  # what has gone farthest hides the rest
            left = torch.where(rows & ~diverged, sizes, 0.0)
            largest = float(left.max()) if len(left) else 0.0
            noise = _NOISE * largest
            if not (noise > sigma / alpha and largest > _LARGE * _usual(score)):
                return diverged
            at, time = path.at(noise)
            a, s = path.levels(at)
            guess = scaled + (s**2 / a) * score(a * scaled, time)
            gone = (left > _SUSPECT * largest) & (_sizes(guess) < _LEFT * sizes)
            if not bool(gone.any()):
                return diverged
            diverged = diverged | gone


@dataclass(frozen=True)
class _Path:
    """The kernel of a path, and the times between which it has a score."""

    kernel: Kernel
    low: float
    high: float

    def levels(self, t: Tensor) -> tuple[float, float]:
        """Return α and σ."""
        return float(self.kernel.alpha(t)), float(self.kernel.sigma(t))

    def at(self, noise: float) -> tuple[Tensor, Tensor]:
        """Return the time at which σ/α is this, or the nearest, twice."""
        level = torch.tensor(noise, dtype=torch.float64).log()
        t = self.kernel.time_of_log_nsr(level, self.low, self.high)
        return t, t


@dataclass(frozen=True)
class _Chain:
    """The same of a chain, whose score is asked at times of its own."""

    chain: DDPM

    def levels(self, t: Tensor) -> tuple[float, float]:
        """Return α and σ at step k."""
        return levels_of(self.chain, int(t))

    def at(self, noise: float) -> tuple[Tensor, Tensor]:
        """Return the first step at which σ/α is so much, or the last, and its time."""
        alphas, sigmas = _levels(self.chain)
        last = len(self.chain.times) - 1
        reached = (sigmas[1:last] >= noise * alphas[1:last]).nonzero()
        k = 1 + int(reached[0]) if len(reached) else last
        return torch.tensor(k), self.chain.times[k]


def levels_of(chain: DDPM, k: int) -> tuple[float, float]:
    """Return α and σ of x_k = α x0 + σ ε."""
    alphas, sigmas = _levels(chain)
    return float(alphas[k]), float(sigmas[k])


def _levels(chain: DDPM) -> tuple[Tensor, Tensor]:
    """Return α and σ of all x_k, k = 0 … N, shapes (N + 1,)."""
    return chain.alphas, chain.sigmas


def _sizes(x: State) -> Tensor:
    """Return the root mean square of each event."""
    return x.double().flatten(1).square().mean(1).sqrt()


def _usual(score: ScoreFn) -> float:
    """Return the root mean square of the data's numbers, where it is known; else what is usual."""
    if not isinstance(score, MixtureScore):
        return _USUAL
    law = score.law.mixture
    squares = law.means.square().mean(1) + law.variances.mean(1)
    return float((law.weights @ squares).sqrt())
