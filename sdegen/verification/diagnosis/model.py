"""Alternatives: mistakes as models of their own, each with the likelihood that it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions, evaluate
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.sample import Sample

LOG_TWO_PI = math.log(2 * math.pi)
LEAST = 1e-4  # of a factor of noise that is fitted: less is none
STANDS_STILL = "share of numbers that stand still"
TWICE = "draws that occur twice"


@dataclass(frozen=True)
class Fitted:
    """An alternative, fitted.

    Attributes:
        gain: log-likelihood less that of the law that is believed, of the same transitions.
        residual: Makes the innovations under the alternative, for the battery.
        parameters: How many numbers were fitted, and log of how many choices were made, in
            units of ½ log n: `charge` has the rest.
        charge: What is charged beside, such as the log of the number of coordinates tried.
        value, error: A number of the mistake, and its standard error.
        words: Sentence of this fit, in the place of the alternative's own.
        excused: Names of checks that it explains and that are not asked of its residuals.
    """

    gain: float
    residual: Callable[[], Evaluation | Sample]
    parameters: int = 0
    charge: float = 0.0
    value: float | None = None
    error: float | None = None
    words: str = ""
    excused: tuple[str, ...] = ()


RARE = 3.0  # of a mistake that is seldom made: chances of 1 in 20


@dataclass(frozen=True)
class Alternative:
    """A mistake of the table.

    Attributes:
        name: The class that is named.
        kind: What it is a mistake of.
        words: What it says, to follow "it behaves as if".
        fit: Fits it to transitions; None where it does not apply.
        family: Alternatives of one family are one statement with another number.
        costly: Whether it takes more than sums over the innovations.
        charge: What its log-odds are charged with, since it is rarer than others.
        holds: Statements that are special cases of it: it is no rival of theirs.
    """

    name: str
    kind: str
    words: str
    fit: Callable[[Transitions], Fitted | None]
    family: str = ""
    costly: bool = False
    charge: float = 0.0
    holds: tuple[str, ...] = ()

    @property
    def statement(self) -> str:
        """What it is compared as."""
        return self.family or self.name


def of_law(
    name: str,
    kind: str,
    words: str,
    law: Callable[[], StepLaw],
    *,
    family: str = "",
    charge: float = 0.0,
    excused: tuple[str, ...] = (),
) -> Alternative:
    """Return the alternative of steps with another law, without free numbers."""

    def fit(data: Transitions) -> Fitted | None:
        return replace(fitted_law(law(), data), excused=excused)

    return Alternative(name, kind, words, fit, family, costly=True, charge=charge)


def fitted_law(
    law: StepLaw,
    data: Transitions,
    *,
    parameters: int = 0,
    charge: float = 0.0,
    value: float | None = None,
    words: str = "",
    belief: Belief | None = None,
) -> Fitted:
    """Return what a law gains over the one that is believed; in other walls, of that belief."""
    evaluation = evaluated(law, data, belief)
    return Fitted(
        gain_of(evaluation, data), lambda: evaluation, parameters, charge, value, None, words
    )


def evaluated(law: StepLaw, data: Transitions, belief: Belief | None = None) -> Evaluation:
    """Return what a law makes of the transitions that the believed law judges."""
    return evaluate(law, data, belief).within(data.base.judged, data.fresh)


def gain_of(evaluation: Evaluation, data: Transitions) -> float:
    """Return the gain in log-likelihood on what both laws judge."""
    both = evaluation.judged & data.base.judged
    return float(torch.where(both, evaluation.log_p - data.base.log_p, 0.0).sum())


def log_normal(z: Tensor) -> Tensor:
    """Return log φ(z)."""
    return -0.5 * z.square() - 0.5 * LOG_TWO_PI


def with_noise(data: Transitions, z: Tensor, log_ratio: Tensor) -> Evaluation:
    """Return the believed steps with other noise.

    Args:
        data: Transitions.
        z: What should be independent normals, shape (F, B, K).
        log_ratio: What each adds to the log-density, broadcastable to z.
    """
    base = data.base
    mask = base.judged[..., None]
    z = torch.where(mask, z, base.z)
    gains = torch.where(mask, log_ratio, 0.0).expand(base.z.shape).sum(2)
    return replace(base, z=z, log_p=base.log_p + gains)


def stretches_of(data: Transitions) -> Iterator[slice]:
    """Yield stretches of more than one frame."""
    for part in data.stretches:
        if part.stop - part.start > 1:
            yield part
