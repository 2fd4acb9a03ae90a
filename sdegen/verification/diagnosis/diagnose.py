"""The diagnosis: alternatives are compared by likelihood, and the winner is asked to explain all.

The log-odds of an alternative against the belief are

    Δ log L − ½ p log n − log (size of the table)

with p numbers fitted to n innovations (Schwarz's criterion). The likeliest statement is named if
the innovations under it pass the battery, at a false-alarm rate of their own. If they do not, it
is at most a part of what is wrong, and the diagnosis says that it does not know.

Reference:
    Schwarz 1978, Ann. Statist. 6, 461; Kass and Raftery 1995, J. Am. Stat. Assoc. 90, 773,
    section 4.1.3, for odds by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdegen.core.errors import SdegenError
from sdegen.verification.battery.battery import checks_of, findings_beside
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.causes import table_of_causes
from sdegen.verification.diagnosis.generic import UNKNOWN, detail_left
from sdegen.verification.diagnosis.model import Alternative, Fitted
from sdegen.verification.diagnosis.result import Cause, Diagnosis
from sdegen.verification.diagnosis.steps.left_out import left_out_alternatives
from sdegen.verification.diagnosis.steps.unasked import unasked_alternatives
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions
from sdegen.verification.innovations.sample import Sample, totals_of

_MOST, _FIRST_LOOK = 2**18, 2**14
_FINALISTS = 8
_FALSE_ALARM = 1e-4  # of the battery that an explanation must pass
_AT_MOST = 10.0  # odds of what leaves something unexplained
_TIED, _TIED_BY = 1e-3, 1e-9  # difference of gains of one law, and relative to them
_SHOWN = 8
_REFUSED = (ValueError, TypeError, NotImplementedError, RuntimeError, SdegenError)


@dataclass(frozen=True)
class _Entry:
    """An alternative, its fit, and its log-odds."""

    place: int  # in the table
    alternative: Alternative
    fitted: Fitted
    log_odds: float

    def cause(self, same_as: tuple[str, ...] = ()) -> Cause:
        """Return it as the diagnosis shows it."""
        one, fitted = self.alternative, self.fitted
        return Cause(
            one.name, one.kind, fitted.words or one.words, self.log_odds, fitted.value,
            fitted.error, same_as,
        )  # fmt: skip


def diagnose(belief: Belief, sample: Sample) -> Diagnosis:
    """Say which mistake explains stored states that failed their tests.

    Args:
        belief: What they should follow.
        sample: The innovations that the tests have seen.
    """
    data = Transitions.of(belief, _MOST)
    if data.base.z.shape[2] == 0:
        table = [*unasked_alternatives(), *left_out_alternatives(belief)]  # a flow: it has no z
    else:
        table = table_of_causes(belief, sample)
    entries = _compared(table, data)
    groups = _grouped(entries)
    if not groups or groups[0][0].log_odds <= 0:
        causes = tuple(_cause_of(group) for group in groups[:_SHOWN])
        sentence = (
            "None of the usual mistakes explains it better than chance: the cause is unknown."
        )
        return Diagnosis(None, 1.0, causes, sentence)
    best, *others = groups
    left = _unexplained(best[0].fitted, data)
    said = best[0].alternative.statement
    rivals = [
        group
        for group in others
        if group[0].alternative.statement != said and said not in group[0].alternative.holds
    ]
    second = rivals[0][0] if rivals else None
    difference = best[0].log_odds - max(0.0, second.log_odds if second else 0.0)
    odds = math.exp(min(difference, 700.0))
    causes = tuple(_cause_of(group) for group in groups[:_SHOWN])
    return _said(causes, odds, second, left)


def _compared(table: Sequence[Alternative], data: Transitions) -> list[_Entry]:
    """Return what applies by its log-odds, what is costly after a first look."""
    prior = math.log(len(table))
    few = data.few(_FIRST_LOOK)
    looked = _fitted([a for a in table if a.costly], few, prior)
    finalists = [entry.alternative for entry in looked[:_FINALISTS] if entry.fitted.gain > 0]
    chosen = [a for a in table if not a.costly or a in finalists]
    return _fitted(chosen, data, prior)


def _fitted(table: Sequence[Alternative], data: Transitions, prior: float) -> list[_Entry]:
    """Return fits in the order of their log-odds, those of the table where they are equal."""
    entries = []
    n = max(2.0, float(data.base.judged.sum()) * max(1, data.base.z.shape[2]))
    for place, alternative in enumerate(table):
        try:
            fitted = alternative.fit(data)
        except _REFUSED:
            continue  # it is no mistake that could be made of these dynamics
        if fitted is None or not math.isfinite(fitted.gain):
            continue
        log_odds = fitted.gain - 0.5 * fitted.parameters * math.log(n) - fitted.charge
        log_odds -= prior + alternative.charge
        entries.append(_Entry(place, alternative, fitted, log_odds))
    return sorted(entries, key=lambda e: -e.log_odds)


def _grouped(entries: list[_Entry]) -> list[list[_Entry]]:
    """Put together what has one law: equal gains, and as many numbers."""
    groups: list[list[_Entry]] = []
    for entry in entries:
        first = groups[-1][0] if groups else None
        same = first is not None and (
            abs(first.fitted.gain - entry.fitted.gain) <= _TIED + _TIED_BY * abs(first.fitted.gain)
            and first.fitted.parameters == entry.fitted.parameters
        )
        if same:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [sorted(group, key=lambda e: e.place) for group in groups]


def _cause_of(group: list[_Entry]) -> Cause:
    """Return the cause of a group, with the names of the others."""
    first, *others = group
    names = [e.alternative.name for e in others if e.alternative.name != first.alternative.name]
    return first.cause(tuple(dict.fromkeys(names)))


def _unexplained(fitted: Fitted, data: Transitions) -> str:
    """Return what the battery finds in the innovations under an alternative, or nothing."""
    residual = fitted.residual()
    law = data.belief.law
    redrawn: list[list[Sample]] = []
    if isinstance(residual, Evaluation):
        if residual.impossible:
            return "states outside of the walls"
        sample = data.sample_of(residual)
        totals = totals_of(sample)
        totals.equations, totals.gap = residual.gap > 0, residual.gap
        for way, turns in enumerate(law.redraws):
            again = [data.redrawn(way, turn) for turn in range(turns)]
            redrawn.append([replace(one.sample_of(one.base), past=sample.z) for one in again])
    else:
        sample, totals = residual, totals_of(residual)
    findings = findings_beside(sample, totals, redrawn)
    checks = checks_of(findings, sample, totals, _FALSE_ALARM)
    failed = [
        check for check in checks if check.verdict == "failed" and check.name not in fitted.excused
    ]
    if failed or redrawn:
        return failed[0].name if failed else ""
    return detail_left(sample, _FALSE_ALARM)


def _said(causes: tuple[Cause, ...], odds: float, second: _Entry | None, left: str) -> Diagnosis:
    """Return the diagnosis in words."""
    best = causes[0]
    if best.kind == UNKNOWN:
        odds = min(odds, _AT_MOST)
        sentence = f"The cause is unknown: it behaves as if {best.sentence}."
        return Diagnosis(None, odds, causes, sentence)
    if left:
        odds = min(odds, _AT_MOST)
        sentence = (
            f"The cause is unknown: of the usual mistakes the likeliest is that it behaves as if "
            f"{best.sentence}, but this leaves the {left} unexplained, so that it is at most a "
            "part of it."
        )
        return Diagnosis(None, odds, causes, sentence)
    against = "" if second is None else f": {second.alternative.name}"
    same = (
        f" ({best.name}, or {', or '.join(best.same_as)})" if best.same_as else f" ({best.name})"
    )
    sentence = (
        f"It behaves as if {best.sentence}{same}, with odds of {_odds_in_words(odds)} over the "
        f"next{against}."
    )
    return Diagnosis(best.name, odds, causes, sentence)


def _odds_in_words(odds: float) -> str:
    """Return odds as people say them.

    >>> _odds_in_words(12.3), _odds_in_words(2.2e9)
    ('12 : 1', '10⁹ : 1')
    """
    if odds < 1e4:
        return f"{odds:.2g} : 1" if odds < 100 else f"{odds:.0f} : 1"
    power = str(min(300, int(math.log10(odds)))).translate(
        str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    )
    return f"10{power} : 1"
