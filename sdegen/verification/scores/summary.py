"""What the checks of all levels say in words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdegen.verification.check import Check
from sdegen.verification.scores.level_checks import RootRatio
from sdegen.verification.scores.level_findings import LevelFinding

_MOST = 0.8  # of the squared error, from which on one coordinate is named for it


@dataclass(frozen=True)
class JudgedLevel:
    """What was found at one level.

    Attributes:
        finding: What rows say.
        error: |s − s*|/|s*|.
        curl: Antisymmetric share of the Jacobian.
        equation: What is left of the score Fokker–Planck equation.
        checks: Its checks.
        beside: How far the time beside is.
        event: Shape of a state.
    """

    finding: LevelFinding
    error: RootRatio
    curl: RootRatio
    equation: RootRatio
    checks: list[Check]
    beside: float
    event: tuple[int, ...]


def summary_of(checks: tuple[Check, ...], found: list[JudgedLevel], ts: Tensor) -> str:
    """Say what is wrong where most is, or that nothing is."""
    failed = [check for check in checks if check.verdict == "failed"]
    if not failed:
        return "The score is that of the data, as far as they can tell."
    moments = [c for c in failed if c.p_value is not None]
    if not moments:
        return f"Its moments are right, but {failed[0].name} is not. {failed[0].remark}"
    worst = max(
        {c.time for c in moments}, key=lambda t: found[_place(ts, t)].error.value, default=None
    )
    level = found[_place(ts, worst)]
    text = (
        f"The score is wrong at {len({c.time for c in moments})} of {len(ts)} levels, most at "
        f"t = {worst:g}, by {100 * level.error.value:.3g} % ± {100 * level.error.error:.2g} % of "
        "its size or more."
    )
    return text + cause_of(level)


def _place(ts: Tensor, t: float | None) -> int:
    """Return the index of a level."""
    assert t is not None
    return int((ts - t).abs().argmin())


def cause_of(level: JudgedLevel) -> str:
    """Name the cause of most of an error, where it has one."""
    finding = level.finding
    if finding.cause == "factor":
        return f" It is {finding.factor:.4g} ± {finding.factor_bar:.2g} times the true score."
    if finding.cause == "width":
        return " The error is along x − E x: the width of the law, α or σ, is another."
    if finding.cause == "time":
        return f" It is nearly that of t + {finding.shift * level.beside:.3g}."
    shares = finding.by_coordinate.clamp(min=0.0)
    d, worst = len(shares), int(shares.argmax())
    if d > 1 and float(shares[worst]) > _MOST * float(shares.sum()):
        return f" Most of it is in coordinate {worst}."
    return ""


def shown(checks: tuple[Check, ...]) -> list[Check]:
    """Return the failed checks worth a line: of a level's moments the one least due to chance."""
    failed = [check for check in checks if check.verdict == "failed"]
    surest: dict[float | None, Check] = {}
    for check in failed:
        if check.p_value is not None:
            other = surest.get(check.time, check)
            surest[check.time] = min(other, check, key=lambda c: (c.p_value or 0.0, -c.value))
    return [c for c in failed if c.p_value is None or c is surest[c.time]]
