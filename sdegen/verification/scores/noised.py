"""Held-out data noised to a level, in antithetic pairs, and what the score says there.

    x_± = Φ x_0 + m ± L ε,      E[L⁻ᵀε | x] = −∇ log p_t(x)

so that r = s(x, t) + L⁻ᵀε has E[r | x] = s − s*, the error of the score. The two of a pair share
what the noise has that is odd in ε: with any field h, the mean over them of h · L⁻ᵀε stays finite
as the noise goes to 0, where each alone grows like 1/σ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.kernel import GaussianKernel, Kernel
from sdegen.core.noise import Stream, normal_like
from sdegen.core.requests import as_times, kind_of
from sdegen.core.scores import score_of_rows
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.losses.times import TimeSampler

_NUMBERS = 2**22  # of states that a score is asked for at once
_SHIFT = 0.05  # of log σ/α, or of the range: how far the score of another time is asked


@dataclass(frozen=True)
class Noising:
    """A process with a Gaussian kernel, and its noise levels.

    Attributes:
        sde: The process.
        kernel: The law of X_t given X_0.
        low: First time at which there is a score; of a chain its first step.
        high: The last.
    """

    sde: SDE
    kernel: GaussianKernel
    low: float
    high: float

    @classmethod
    def of(cls, sde: SDE, score: ScoreFn) -> Noising:
        """Return the levels of a process, or refuse one without a Gaussian kernel.

        Raises:
            ValueError: If it has no Gaussian kernel, or neither it nor the score has times.
        """
        if isinstance(sde, DDPM):
            alphas, sigmas = sde.alphas, sde.sigmas
            chain = Kernel(lambda t: alphas[t.long().cpu()], lambda t: sigmas[t.long().cpu()])
            with_noise = [k for k in range(sde.steps + 1) if sigmas[k] > 0 and alphas[k] > 0]
            return cls(sde, chain, float(with_noise[0]), float(with_noise[-1]))
        _check_noises(sde)
        span = getattr(score, "score_range", None)
        if span is None and not isinstance(sde, GaussianPath):
            raise ValueError(
                f"{type(sde).__name__} has no t_min and t_max of its own, between which the score "
                "is asked: pass times=, or the score of a model."
            )
        return cls._between(sde, span)

    @classmethod
    def at(cls, sde: SDE, score: ScoreFn, times: object) -> tuple[Noising, Tensor]:
        """Return a process between times that were asked for, and these, increasing.

        Raises:
            ValueError: As `of` does, and if there is no score at one of the times.
        """
        ts = as_times(times).sort().values
        if isinstance(sde, GaussianPath | DDPM):
            noising = cls.of(sde, score)
        else:
            noising = cls._between(sde, (float(ts[0]), float(ts[-1])))
        steps = isinstance(sde, DDPM)
        if (
            not float(ts[0]) > 0
            or bool(((ts < noising.low) | (ts > noising.high)).any())
            or (steps and not bool((ts == ts.round()).all()))
        ):
            kind = "steps k, whole numbers" if steps else "times"
            raise ValueError(
                f"times must be {kind} in [{noising.low:g}, {noising.high:g}], where there is a "
                f"score, but are {float(ts[0]):g} … {float(ts[-1]):g}."
            )
        if bool((ts.diff() <= 0).any()):
            raise ValueError("times must differ from each other, but two of them are the same.")
        return noising, ts

    @classmethod
    def _between(cls, sde: SDE, span: tuple[float, float] | None) -> Noising:
        """Return the levels of a process with a kernel, between times or its own."""
        kernel = _check_noises(sde)
        if isinstance(sde, GaussianPath):
            low, high = sde.t_min, sde.t_max
            if sde.ends_without_signal:  # where the last level holds nothing of the data
                high = low + 0.99 * (high - low)
            return cls(sde, kernel, low, high)
        assert span is not None
        return cls(sde, kernel, float(span[0]), float(span[1]))

    def levels(self, count: int) -> Tensor:
        """Return levels of equal steps in log SNR, or in t where there is none; (count,)."""
        shares = torch.linspace(0, 1, count, dtype=torch.float64)
        if isinstance(self.sde, DDPM):
            ks = torch.arange(int(self.low), int(self.high) + 1)
            ratio = self._path_kernel().log_ratio(ks)
            wanted = torch.lerp(ratio[0], ratio[-1], shares)
            nearest = (ratio[None] - wanted[:, None]).abs().argmin(1)
            steps: Tensor = torch.unique(ks[nearest])
            return steps.double()
        if isinstance(self.sde, GaussianPath):
            if self.high < self.sde.t_max:
                kernel = self._path_kernel()
                ends = kernel.log_ratio(torch.tensor([self.low, self.high], dtype=torch.float64))
                between = torch.lerp(ends[0], ends[1], shares).detach()
                return kernel.time_of_log_nsr(between, self.low, self.high)
            return TimeSampler(self.sde, "likelihood").quantile(shares)
        return self.low + (self.high - self.low) * shares

    def log_snr(self, times: Tensor) -> Tensor | None:
        """Return log α²/σ² at times; None where the kernel is no pair of numbers."""
        if not isinstance(self.kernel, Kernel):
            return None
        return -2 * self.kernel.log_ratio(times).detach().double()

    def squared_sigma(self, times: Tensor) -> Tensor:
        """Return σ(t)² of a pair α and σ, float64."""
        sigma: Tensor = self._path_kernel().sigma(times)
        return sigma.detach().double().square()

    def asked(self, t: Tensor) -> Tensor:
        """Return the time at which the score of a level is asked, 0-d."""
        if not isinstance(self.sde, DDPM):
            return t
        times: Tensor = self.sde.times[t.long()]
        return times

    def beside(self, t: Tensor) -> Tensor:
        """Return the time of a level a little beside another, at which a score is asked."""
        if isinstance(self.sde, DDPM):
            return self.asked(t + (1 if float(t) < self.high else -1))
        if isinstance(self.kernel, Kernel):
            at = self.kernel.log_ratio(t).detach().double()
            up, down = (
                self.kernel.time_of_log_nsr(at + shift, self.low, self.high)
                for shift in (_SHIFT, -_SHIFT)
            )
            return up if float(up) < self.high else down
        step = _SHIFT * (self.high - self.low)
        return t + step if float(t) + step <= self.high else t - step

    def judged(self, numbers: int) -> int:
        """Return the first of a state's numbers whose score is judged: of velocities, or 0."""
        return numbers // 2 if self.sde.phase_space else 0

    def _path_kernel(self) -> Kernel:
        """Return the kernel of a path, which is a pair of numbers."""
        assert isinstance(self.kernel, Kernel)
        return self.kernel


@dataclass(frozen=True)
class NoisedRows:
    """Rows at one level, `copies` of each: pairs ±ε side by side; flat, float64.

    Attributes:
        t: The level, 0-d.
        whole: States, shape (copies, n, D).
        x: The coordinates of them whose score is judged, shape (copies, n, d): all, but in phase
            space the velocities, of which alone a reversal asks.
        s: The score there.
        pulled: L⁻ᵀε, minus what the score of the kernel is.
        beside: The score at a time a little beside, minus s.
        event: Shape of one state.
    """

    t: Tensor
    whole: Tensor
    x: Tensor
    s: Tensor
    pulled: Tensor
    beside: Tensor
    event: tuple[int, ...]

    @property
    def residual(self) -> Tensor:
        """Return r = s + L⁻ᵀε, whose mean given x is the error of the score."""
        return self.s + self.pulled


@torch.no_grad()
def noised_rows(
    noising: Noising, score: ScoreFn, data: State, t: Tensor, pairs: int, source: Stream
) -> NoisedRows:
    """Return data noised to a level in pairs, with the score.

    Args:
        noising: The process.
        score: What is judged.
        data: Rows, shape (n, *event).
        t: The level, 0-d.
        pairs: How many pairs of each row.
        source: Where ε comes from.

    Raises:
        ValueError: If the score has another shape than x, or is not finite.
    """
    asked, other = noising.asked(t), noising.beside(t)
    mean = noising.kernel.mean(data, t)
    xs, scores, pulled, beside = [], [], [], []
    for _ in range(pairs):
        eps = normal_like(mean, source)
        spread, pull = noising.kernel.spread(eps, t), noising.kernel.pull_back(eps, t)
        for sign in (1, -1):
            x = (mean + sign * spread).to(data.dtype)
            s = asked_score(score, x, asked)
            xs.append(x)
            scores.append(s)
            pulled.append(sign * pull)
            beside.append(asked_score(score, x, other) - s)
    flat = [torch.stack(each).flatten(2).double().cpu() for each in (xs, scores, pulled, beside)]
    x, s, p, b = (each[..., noising.judged(each.shape[2]) :] for each in flat)
    return NoisedRows(t, flat[0], x, s, p, b, tuple(mean.shape[1:]))


def asked_score(score: ScoreFn, x: State, t: Tensor) -> State:
    """Return the score of many states, some at a time; refuse one that is not finite."""
    size = max(1, _NUMBERS // max(1, x[0].numel()))
    if len(x) <= size:
        value = score(x, t)
    else:
        parts = [slice(first, first + size) for first in range(0, len(x), size)]
        value = torch.cat([score_of_rows(score, rows)(x[rows], t) for rows in parts])
    if not isinstance(value, Tensor) or value.shape != x.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"score must return x's shape {tuple(x.shape)}, but returned {got}.")
    if not bool(torch.isfinite(value).all()):
        row = int((~torch.isfinite(value).flatten(1).all(1)).nonzero()[0])
        raise ValueError(f"score is not finite at t = {float(t):g}, the first in row {row}.")
    return value


def _check_noises(sde: SDE) -> GaussianKernel:
    """Return the kernel of a forward process, or refuse what has none."""
    kernel = sde.noise_kernel
    if kernel is None or sde.direction != 1 or sde.is_discrete:
        raise ValueError(
            f"a score is judged on data that are noised by a Gaussian kernel, which "
            f"{kind_of(sde)} has not: pass the forward process, such as "
            "VP(LinearBeta(0.1, 20.0)), a LinearSDE or a DDPM chain."
        )
    return kernel
