"""DDPM: a linear SDE on a grid, which is a Markov chain on the integers, and its inverse.

The forward chain of any linear SDE on a grid t_0 < t_1 < … < t_N is exact,

    x_k = a_k x_{k−1} + b_k z,     a_k = α(t_k)/α(t_{k−1}),     b_k² = σ(t_k)² − a_k² σ(t_{k−1})²

and with α² + σ² = 1 it is DDPM: a_k = √(1 − β_k), b_k = √β_k. It is the update with dt = 1,
f = (a_k − 1) x, g = b_k. Its inverse under a score, walked with dt = −1, is

    x_{k−1} = (x_k + b_k² ∇ log p_k(x_k))/a_k + s_k z

with s_k = b_k σ_{k−1}/σ_k ("posterior", exact if the data are one point) or s_k = b_k ("beta",
exact if they are N(0, I)). The step that ends at the data, where σ_0 = 0, adds no noise with
either: x_0 is the mean, Tweedie's (x_1 + σ_1² score)/α_1, as in Algorithm 2 of Ho et al. A chain
whose grid begins at t_min > 0 ends in a state at t_min, which has noise in it, and so has its last
step. A third s_k lies between these two, where a network has learned to put it ("learned").

Where no signal is left at N, a_N = 0, the first step back is α_{N−1} E[x0 | x_N] + s_N z: a score
alone does not tell it.

Neither is a discretised differential equation any more: half steps mean nothing, so that
`simulate` takes Euler-Maruyama with consecutive integer times and refuses all else. As N → ∞ both
tend to the SDE and its reverse, with a gap of O(1/N).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import ClassVar, Literal, Self, cast, get_args

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_word
from sdegen.core.requests import as_numbers, as_time, as_times, check_function, first_true, kind_of
from sdegen.core.scores import (
    DenoisingScore,
    VarianceScore,
    check_tells_x0,
    score_of_rows,
    tells_variance,
    trajectories_of,
)
from sdegen.core.sde import SDE, NoiseKind, Rows
from sdegen.core.shapes import ScoreFn, State, Time, expand
from sdegen.core.signature import check_order
from sdegen.diffusion.chain_steps import between, coefficient_at, posterior_stds, variance_ends
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path

Variance = Literal["posterior", "beta", "learned"]


class DDPM(SDE):
    """The forward chain that noises data, on k = 0 … N.

        x_k = √(1 − β_k) x_{k−1} + √β_k z,   ᾱ_k = Π_{j≤k} (1 − β_j)

    Args:
        betas: β_1 … β_N, shape (N,), each in (0, 1). With β_N = 1 no signal is left at N
            (Lin et al. 2024, arXiv:2305.08891), and a score must tell x0 there.
        times: Continuous times of k = 0 … N, at which a score is asked; k/N unless said.

    Attributes:
        times: Shape (N + 1,), float64.
        alpha_bars: ᾱ_1 … ᾱ_N, the squared factor of the data X_0 in the mean, shape (N,).
        prior_std: Standard deviation of the Gaussian that stands for the law at k = N.

    Raises:
        ValueError: If a β leaves (0, 1), naming its index, or times do not increase.

    Reference:
        Ho, Jain and Abbeel 2020, eqs. (2) and (4), arXiv:2006.11239.

    Example:
        >>> [f"{a:.2f}" for a in sg.DDPM([0.1, 0.5]).alpha_bars]  # 0.9 and 0.9 · 0.5
        ['0.90', '0.45']
    """

    is_discrete: ClassVar[bool] = True
    noise: NoiseKind = "additive"

    def __init__(self, betas: Tensor | Sequence[float], *, times: Tensor | None = None) -> None:
        if isinstance(betas, SDE):
            raise TypeError(
                f"betas must be a list β_1 … β_N, but is {kind_of(betas)}; the chain of an SDE is "
                "DDPM.discretize(sde, steps=1000)."
            )
        betas = as_numbers("betas", betas, expected="a list β_1 … β_N").cpu()
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(
                f"betas must be a non-empty list β_1 … β_N, but have shape {tuple(betas.shape)}."
            )
        inside = (betas > 0) & (betas < 1)
        inside[-1] |= betas[-1] == 1
        if (i := first_true(~inside)) is not None:
            raise ValueError(
                f"every β must lie in (0, 1), and the last may be 1, but betas[{i}] = "
                f"{float(betas[i]):g}."
            )
        n = len(betas)
        times = torch.arange(n + 1, dtype=torch.float64) / n if times is None else times
        log_alpha_bars = torch.log1p(-betas).cumsum(0)
        sigmas = torch.sqrt(-torch.expm1(log_alpha_bars))
        sigmas = torch.cat([sigmas.new_zeros(1), sigmas])
        self._set(times, torch.sqrt(1 - betas), torch.sqrt(betas), sigmas)
        self._first = sigmas.new_ones(1)
        self.alpha_bars: Tensor = torch.exp(log_alpha_bars)
        self.prior_std: float = 1.0

    @classmethod
    def discretize(
        cls, sde: GaussianPath, steps: int | None = None, *, times: Tensor | None = None
    ) -> Self:
        """Return the exact chain of a Gaussian path on a grid.

        Args:
            sde: Any GaussianPath.
            steps: N, for the grid t_k = k t_max/N, k = 0 … N.
            times: Or a grid of your own within [0, t_max]; a decreasing one is turned round.

        Returns:
            The chain; `times` are those of its states, x_k being X at times[k].

        Raises:
            TypeError: If steps is no int.
            ValueError: If both or neither are given, or times are not monotone and in [0, t_max].
        """
        check_gaussian_path(sde)
        if (steps is None) == (times is None):
            raise ValueError("give steps, or times of your own, one of the two.")
        if steps is not None:
            check_count("steps", steps)
            times = torch.arange(steps + 1, dtype=torch.float64) * (sde.t_max / steps)
        times = as_times(times)
        times = times.flip(0) if times[0] > times[-1] else times
        # a grid that was made in float32 may end a rounding beyond t_max
        if not (times[0] >= 0 and times[-1] <= sde.t_max * (1 + 1e-7)):
            raise ValueError(
                f"times must lie in [0, t_max] = [0, {sde.t_max:g}], but span {times[0]:g} … "
                f"{times[-1]:g}."
            )
        alpha, sigma = sde.alpha(times), sde.sigma(times)
        a = alpha[1:] / alpha[:-1]
        # σ_k² − a_k² σ_{k−1}², as σ_k² − σ_{k−1}² + (1 − a_k²) σ_{k−1}², differences factored
        grown = (sigma[1:] - sigma[:-1]) * (sigma[1:] + sigma[:-1])
        b = torch.sqrt(grown + (1 - a) * (1 + a) * sigma[:-1].square())
        chain = cls.__new__(cls)
        chain._set(times, a, b, sigma)
        chain._first = alpha[:1]
        chain.alpha_bars = alpha[1:].square()
        chain.prior_std = sde.prior_std
        return chain

    def _set(self, times: Tensor, a: Tensor, b: Tensor, sigmas: Tensor) -> None:
        """Set the coefficients: a, b of step k at index k − 1, σ_k at index k."""
        times = as_numbers("times", times, expected="a list of times").cpu()
        if times.shape != (len(a) + 1,):
            raise ValueError(
                f"times must have shape ({len(a) + 1},), one for each k = 0 … N, but has "
                f"{tuple(times.shape)}."
            )
        if (i := first_true(~(times.diff() > 0))) is not None:
            raise ValueError(
                f"times must increase, but times[{i}] = {times[i]:g} is followed by "
                f"{times[i + 1]:g}."
            )
        if (i := first_true(~(b > 0))) is not None:
            raise ValueError(
                f"every step must add noise, but step {i + 1} of {len(b)}, t = {times[i]:g} to "
                f"{times[i + 1]:g}, has σ_k² ≤ a_k² σ_{{k−1}}²: does ᾱ decrease there?"
            )
        self.times: Tensor = times
        self.a: Tensor = a
        self.b: Tensor = b
        self.sigmas: Tensor = sigmas

    @property
    def alphas(self) -> Tensor:
        """α_0 … α_N, the factors of the data X_0 in the means, shape (N + 1,)."""
        return torch.cat([self._first, self.alpha_bars.sqrt()])

    @property
    def steps(self) -> int:
        """N."""
        return len(self.a)

    @property
    def betas(self) -> Tensor:
        """b_k²: for a variance-preserving chain β_1 … β_N, shape (N,)."""
        return self.b.square()

    @property
    def time_range(self) -> tuple[float, float]:
        """[0, N]."""
        return (0.0, float(self.steps))

    def drift(self, x: State, t: Time | float) -> State:
        """(a_{k+1} − 1) x at t = k: with dt = 1 the step to k + 1."""
        return expand(coefficient_at(self.a, t) - 1, x) * x

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """b_{k+1} at t = k, broadcastable to x."""
        return expand(coefficient_at(self.b, t), x)

    def reverse(self, score: ScoreFn, variance: Variance = "posterior") -> AncestralChain:
        """Return the chain that goes back from k = N to 0.

        Args:
            score: ∇ log p_t(x); it is asked at the continuous times[k].
            variance: "posterior", b_k σ_{k−1}/σ_k, "beta", b_k, or "learned", between them, by
                the score of a `ScoreModel` with `LearnedVariance`. The step that ends at the
                data, at t = 0, adds no noise with any.
        """
        return AncestralChain(self, score, variance)


class AncestralChain(SDE):
    """Ancestral sampling: the chain that goes back, the update with dt = −1.

        x_{k−1} = (x_k + b_k² score(x_k))/a_k + s_k z

    Args:
        chain: The forward chain.
        score: ∇ log p_t(x), asked at chain.times[k].
        variance: "posterior" gives s_k = b_k σ_{k−1}/σ_k, "beta" gives s_k = b_k; both s_1 = 0
            where x_0 are data, σ_0 = 0. "learned" gives s_k = b_k^w (b_k σ_{k−1}/σ_k)^{1−w}, w of
            the score at x_k, one for each coordinate, by the same call of the network as the
            mean; at k = 1 the posterior's σ_0 = 0 gives way to its s_2, and sampling ends in the
            mean all the same.

    Raises:
        TypeError: If the chain is none, or score is not callable.
        ValueError: If variance is another word, or "learned" and the score tells none.

    Attributes:
        stds: s_1 … s_N, shape (N,), float64; a learned variance has none, since it depends on x.
        decoder_std: Standard deviation of the density p(x_0 | x_1) that a likelihood asks for,
            by the variance: b_1 of "beta", though sampling takes the mean of that density.

    Reference:
        Ho, Jain and Abbeel 2020, algorithm 2, eqs. (7) and (11), and the two choices of section
        3.2, arXiv:2006.11239; the learned variance: Nichol and Dhariwal 2021, eq. (15),
        arXiv:2102.09672.

    Example:
        >>> chain = sg.DDPM([0.5, 0.5])
        >>> [f"{s:.4f}" for s in chain.reverse(lambda x, t: -x).stds]  # 0 and √(½ · ½/¾)
        ['0.0000', '0.5774']
    """

    is_discrete: ClassVar[bool] = True
    _counted: ClassVar[str] = "score"
    noise: NoiseKind = "additive"
    direction: Literal[1, -1] = -1

    def __init__(self, chain: DDPM, score: ScoreFn, variance: Variance = "posterior") -> None:
        if not isinstance(chain, DDPM):
            raise TypeError(
                f"chain must be a DDPM chain, but is {kind_of(chain)}; make one of an SDE by "
                "DDPM.discretize(sde, steps=1000)."
            )
        check_function("score", score, "a function (x, t) -> ∇ log p_t(x)")
        check_order(score, "score")
        check_word("variance", variance, get_args(Variance))
        if float(chain.a[-1]) == 0:
            check_tells_x0(score, "the inverse chain")
        self.chain: DDPM = chain
        self.score: ScoreFn = score
        self.variance = variance
        if variance == "learned":
            if not tells_variance(score):
                raise ValueError(
                    "variance = 'learned' needs a score that tells it: model.score of a "
                    "ScoreModel(network, sde, LearnedVariance()), trained by HybridLoss(steps=…); "
                    "for any other take 'posterior' or 'beta'."
                )
            self.noise = "multiplicative"
            self._ends = variance_ends(chain.b, chain.sigmas)
            self._told: dict[int, tuple[object, ...]] = {}
            return
        stds = posterior_stds(chain.b, chain.sigmas) if variance == "posterior" else chain.b
        self.decoder_std: float = float(stds[0])
        self.stds: Tensor = self._without_last(stds)

    def _without_last(self, stds: Tensor) -> Tensor:
        """Return 0 in the place of s_1, where the step ends at the data and returns the mean."""
        return torch.cat([stds[:1] * (self.chain.sigmas[0] > 0), stds[1:]])

    def __getattr__(self, name: str) -> float:
        """Refuse what a variance that depends on x has not."""
        if name in ("stds", "decoder_std"):
            raise ValueError(
                f"{name} is none of a chain with a learned variance, which depends on x; ask "
                "chain.step_std(x, k), or take chain.reverse(score, 'posterior')."
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    @property
    def time_range(self) -> tuple[float, float]:
        """[0, N]."""
        return self.chain.time_range

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the score holds labels or conditions for."""
        return trajectories_of(self.score)

    def of_rows(self, rows: Rows) -> Self:
        """Return the chain of some of the trajectories, with their labels alone."""
        if self.trajectories is None:
            return self
        clone = copy.copy(self)
        clone.score = score_of_rows(self.score, rows)
        return clone

    def drift(self, x: State, t: Time | float) -> State:
        """x less the ancestral mean at t = k: with dt = −1 the step to k − 1."""
        if float(self.chain.a[-1]) == 0 and bool((as_time(t) == self.chain.steps).any()):
            return self._from_noise(x, as_time(t))
        a = expand(coefficient_at(self.chain.a, t, -1), x)
        b = expand(coefficient_at(self.chain.b, t, -1), x)
        if self.variance == "learned":
            score = self._asked(x, t)[0]
        else:
            score = self.score(x, self._time_of(x, t))
        return -((1 / a - 1) * x + (b * b / a) * score)

    def _from_noise(self, x: State, t: Time) -> State:
        """Return x less the mean of the first step from noise alone, a_N = 0: α_{N−1} x̂0."""
        if t.ndim:  # a time for each row, some of which may be others
            last = t == self.chain.steps
            out = x - self.chain.alphas[-2].to(x) * self._x0(x, self.chain.times[-1])
            rest = self.drift(x[~last], t[~last]) if bool((~last).any()) else x[:0]
            return out.index_put((~last,), rest)
        return x - self.chain.alphas[-2].to(x) * self._x0(x, self.chain.times[-1])

    def _x0(self, x: State, t: Time) -> State:
        """Return what the score says of x0."""
        return cast(DenoisingScore, self.score).x0(x, t)

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """s_k at t = k, broadcastable to x."""
        if self.variance != "learned":
            return expand(coefficient_at(self.stds, t, -1), x)
        noisy = expand(coefficient_at(self._without_last(torch.ones_like(self.chain.b)), t, -1), x)
        std = self._std_of(x, t, self._asked(x, t, again=True)[1])
        return torch.where(noisy > 0, std, 0.0)

    def step_std(self, x: State, t: Time | float) -> Tensor:
        """Return the standard deviation of p(x_{k−1} | x_k) as a density, broadcastable to x.

        It is `diffusion` but at k = 1, where sampling takes the mean: there that of the decoder.

        Args:
            x: States x_k, shape (batch, *event).
            t: k, shape () or (batch,).
        """
        return self.score_and_std(x, t)[1]

    def score_and_std(self, x: State, t: Time | float) -> tuple[State, Tensor]:
        """Return the score at x_k, and `step_std`, by one call of the score."""
        if self.variance == "learned":
            score, fraction = self._asked(x, t)
            return score, self._std_of(x, t, fraction)
        stds = (
            posterior_stds(self.chain.b, self.chain.sigmas)
            if self.variance == "posterior"
            else self.chain.b
        )
        return self.score(x, self._time_of(x, t)), expand(coefficient_at(stds, t, -1), x)

    def _time_of(self, x: State, t: Time | float) -> Tensor:
        """Return the continuous time of k, at which the score is asked."""
        now = self.chain.times[as_time(t).long().cpu()]
        return now if now.ndim == 0 else now.to(x)

    def _std_of(self, x: State, t: Time | float, fraction: State) -> Tensor:
        """Return b_k^w b̃_k^{1−w}, shape of x."""
        low, high = (expand(coefficient_at(end, t, -1), x) for end in self._ends)
        return between(low, high, fraction)

    def _asked(self, x: State, t: Time | float, *, again: bool = False) -> tuple[State, State]:
        """Return the score and w at x_k; what drift was told serves the noise of its step."""
        this = threading.get_ident()
        asked = (None if x.is_inference() else x._version, self.score, t)
        if again and (known := self._told.pop(this, None)) is not None:
            was, answer, *before = known
            same = all(a is b for a, b in zip(asked[1:], before[1:], strict=True))
            if was is x and before[0] == asked[0] is not None and same:
                return cast(tuple[State, State], answer)
        assert isinstance(self.score, VarianceScore)
        answer = self.score.with_fraction(x, self._time_of(x, t))
        if not again:
            self._told[this] = (x, answer, *asked)
        return cast(tuple[State, State], answer)
