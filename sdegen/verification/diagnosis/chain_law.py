"""Chains with other coefficients: x' = A x + B score + s z at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.diffusion.ddpm import DDPM, AncestralChain
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import Alternative, of_law
from sdegen.verification.diagnosis.steps.tables import shifted
from sdegen.verification.innovations.law import Innovations, StepLaw
from sdegen.verification.innovations.update_law import of_diagonal

_KIND = "schedule"
# of a forward chain, where 1 − α is nearly 2 (1 − √α)
_SAME = {"α for √α": "drift by a factor", "β for β/2": "drift by a factor"}


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of steps k = 1 … N, each of shape (N,).

    Attributes:
        A, B, s: Of the state, the score and the noise.
    """

    A: Tensor
    B: Tensor
    s: Tensor


@dataclass(frozen=True)
class Numbers:
    """What a schedule has: a_k and b_k of a step, ᾱ_k, σ_k and σ_{k−1} of its ends, shape (N,)."""

    a: Tensor
    b: Tensor
    alpha_bar: Tensor
    sigma: Tensor
    before: Tensor


class ChainLaw(StepLaw):
    """The law of a chain with coefficients of its own.

    Args:
        belief: A `DDPM` or an `AncestralChain`.
        coefficients: Of its steps.
        later: By how many steps they belong to a later step than they are used at.
        score_too: Whether the score is asked at that step's time, too.
    """

    name = "a chain"
    alike = False

    def __init__(
        self,
        belief: Belief,
        coefficients: Coefficients,
        later: int = 0,
        *,
        score_too: bool = False,
    ) -> None:
        self._sde, self._times = belief.sde, belief.states.times
        self._of, self._later, self._score_too = coefficients, later, score_too

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        sde, n = self._sde, len(self._of.A)
        back = isinstance(sde, AncestralChain)
        k = round(float(self._times[i])) - (1 if back else 0)  # index of the step in the tables
        used = min(max(k + self._later, 0), n - 1)
        if used != k + self._later or bool(self._of.A[used].isnan()):  # a table does not say
            nothing = torch.zeros(len(x), x[0].numel(), dtype=torch.float64)
            none = torch.zeros(len(x), dtype=torch.bool)
            return Innovations(nothing, nothing, none.double(), judged=none)
        A, B, s = (float(q[used]) for q in (self._of.A, self._of.B, self._of.s))
        mean = A * x.double()
        if back:
            assert isinstance(sde, AncestralChain)
            at = used if self._score_too else k
            mean = mean + B * sde.score(x, sde.chain.times[at + 1]).double()
        left = (after.double() - mean).flatten(1)
        moved = (mean - x.double()).flatten(1)
        scale = torch.full_like(left, s)
        return of_diagonal(scale, left, moved, x)


def chain_alternatives(belief: Belief) -> list[Alternative]:
    """Return the coefficients that are mixed up."""
    sde = belief.sde
    if isinstance(sde, AncestralChain):
        return [] if sde.variance == "learned" else _backward(belief, sde)
    assert isinstance(sde, DDPM)
    return _forward(belief, sde)


def _numbers(chain: DDPM) -> Numbers:
    return Numbers(
        chain.a.double(), chain.b.double(), chain.alpha_bars.double(), chain.sigmas[1:].double(),
        chain.sigmas[:-1].double(),
    )  # fmt: skip


def _table(
    belief: Belief, base: Coefficients, rows: list[tuple[str, str, Coefficients]]
) -> list[Alternative]:
    """Return alternatives of other coefficients, and of those of a neighbouring step."""
    shifts = [
        ("coefficients were those of k + 1", 1, False),
        ("coefficients were those of k − 1", -1, False),
        ("coefficients and score were those of k + 1", 1, True),
        ("coefficients and score were those of k − 1", -1, True),
    ]
    forward = isinstance(belief.sde, DDPM)
    table = []
    for name, words, coefficients in rows:

        def law(of: Coefficients = coefficients) -> StepLaw:
            return ChainLaw(belief, of)

        table.append(of_law(name, _KIND, words, law, family=_SAME.get(name, "") * forward))
    for words, later, too in shifts:

        def shifted(later: int = later, too: bool = too) -> StepLaw:
            return ChainLaw(belief, base, later, score_too=too)

        table.append(of_law("time off by one", "time", words, shifted))
    return table


def _backward(belief: Belief, sde: AncestralChain) -> list[Alternative]:
    """Return mistakes of ancestral sampling."""
    q = _numbers(sde.chain)
    a, b, s = q.a, q.b, sde.stds.double()
    base = Coefficients(1 / a, b * b / a, s)
    posterior = torch.where(s > 0, b * q.before / q.sigma, 0.0)
    beta = torch.where(s > 0, b, 0.0)
    last = torch.where(torch.arange(len(s)) == 0, b, s)
    bar = q.alpha_bar.sqrt()

    one = torch.ones_like(a)
    return _tables(belief, q, s) + _table(
        belief,
        base,
        [
            ("posterior variance for β", "the noise had the posterior's variance, not β",
             Coefficients(base.A, base.B, posterior)),
            ("β for the posterior variance", "the noise had the variance β, not the posterior's",
             Coefficients(base.A, base.B, beta)),
            ("noise in the last step", "the step that ends at the data had noise too",
             Coefficients(base.A, base.B, last)),
            ("α for ᾱ", "the noise in a state were taken for √(1 − α), not √(1 − ᾱ)",
             Coefficients(base.A, base.B * q.sigma / b, s)),
            ("ᾱ for α", "a state were divided by √ᾱ, not by √α",
             Coefficients(1 / bar, b * b / bar, s)),
            ("α for √α", "a state were divided by α, not by √α",
             Coefficients(1 / a**2, b * b / a**2, s)),
            ("no division by √α", "a state were not divided by √α", Coefficients(one, b * b, s)),
            ("√β for β", "the score were multiplied by √β, not by β",
             Coefficients(base.A, b / a, s)),
            ("score of the wrong sign", "the score had the wrong sign",
             Coefficients(base.A, -base.B, s)),
            ("score missing", "there were no score", Coefficients(base.A, 0 * base.B, s)),
            ("score half", "the score counted half", Coefficients(base.A, base.B / 2, s)),
            ("score twice", "the score counted twice", Coefficients(base.A, 2 * base.B, s)),
            ("variance for standard deviation", "the noise were multiplied by its variance",
             Coefficients(base.A, base.B, s * s)),
            ("standard deviation for variance", "the root of a standard deviation were taken",
             Coefficients(base.A, base.B, s.sqrt())),
        ],
    )  # fmt: skip


def _tables(belief: Belief, q: Numbers, s: Tensor) -> list[Alternative]:
    """Return steps by way of x̂0 whose tables of ᾱ are shifted or rounded.

    x' = √ᾱ_{k−1} b² x̂0/σ² + a (1 − ᾱ_{k−1}) x/σ² + s z,   x̂0 = (x + σ² score)/√ᾱ_k
    """
    now, before = 1 - q.sigma.square(), 1 - q.before.square()
    sde = belief.sde
    assert isinstance(sde, AncestralChain)

    def of(now: Tensor, before: Tensor, a: Tensor, b: Tensor) -> Coefficients:
        square = 1 - now
        of_x0 = before.sqrt() * b.square() / square / now.sqrt()
        std = b * ((1 - before) / square).sqrt() if sde.variance == "posterior" else s
        std = torch.where(s > 0, std, 0.0)
        A = a * (1 - before) / square + of_x0
        return Coefficients(A, of_x0 * q.sigma.square(), torch.where(A.isnan(), A, std))

    own = (q.a, q.b)
    two_before = shifted(before, -1)
    rows = [
        ("time off by one", "ᾱ of the step before were that of the step itself",
         of(now, torch.where(torch.arange(len(now)) == len(now) - 1, torch.nan, now), *own)),
        ("time off by one", "ᾱ of the step before were that of two steps before",
         of(now, two_before, *own)),
        ("time off by one", "ᾱ of a step were that of the step before", of(before, before, *own)),
        ("time off by one", "ᾱ of a step were that of the next one",
         of(shifted(now, 1), before, *own)),
        ("time off by one", "ᾱ of a step, and of that before, were those of the next",
         of(shifted(now, 1), now, *own)),
        ("time off by one", "ᾱ of a step, and of that before, were those of the last",
         of(before, two_before, *own)),
    ]  # fmt: skip
    for dtype, word in ((torch.float16, "half precision"), (torch.bfloat16, "bfloat16")):
        low, first = now.to(dtype).double(), before.to(dtype).double()
        a = (low / first).sqrt()
        b = (1 - a.square()).clamp(min=0).sqrt()
        rows.append(("schedule rounded", f"ᾱ were rounded to {word}", of(low, first, a, b)))
        a = q.a.square().to(dtype).double().sqrt()
        b = (1 - a.square()).clamp(min=0).sqrt()
        rows.append(("schedule rounded", f"α were rounded to {word}", of(now, before, a, b)))

    def law(of: Coefficients) -> Callable[[], StepLaw]:
        return lambda: ChainLaw(belief, of)

    kept = 1 - before > 0
    return [of_law(name, _KIND, words, law(_where(kept, c))) for name, words, c in rows]


def _where(kept: Tensor, c: Coefficients) -> Coefficients:
    """Return coefficients of some steps, NaN elsewhere."""
    return Coefficients(*(torch.where(kept, v, torch.nan) for v in (c.A, c.B, c.s)))


def _forward(belief: Belief, sde: DDPM) -> list[Alternative]:
    """Return mistakes of noising."""
    q = _numbers(sde)
    a, b = q.a, q.b
    zero = torch.zeros_like(a)
    return _table(
        belief,
        Coefficients(a, zero, b),
        [
            ("α for √α", "a state were multiplied by α, not by √α", Coefficients(a * a, zero, b)),
            ("ᾱ for α", "a state were multiplied by √ᾱ, not by √α",
             Coefficients(q.alpha_bar.sqrt(), zero, b)),
            ("ᾱ for α", "state and noise had √ᾱ and √(1 − ᾱ), not those of a step",
             Coefficients(q.alpha_bar.sqrt(), zero, q.sigma)),
            ("variance for standard deviation", "the noise had β for √β",
             Coefficients(a, zero, b * b)),
            ("β for β/2", "a state were multiplied by 1 − β, as by a drift of β",
             Coefficients(1 - b * b, zero, b)),
        ],
    )  # fmt: skip
