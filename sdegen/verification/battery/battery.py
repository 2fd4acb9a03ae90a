"""The battery: every question that is asked of innovations, and one false-alarm rate for all.

A family of statistics answers one question; its p-value is that of the least likely of them, and
the share of the false-alarm rate is the same for all families (Bonferroni).
"""

from __future__ import annotations

from sdegen.verification.battery.comparison import compared
from sdegen.verification.battery.finding import Finding, families_of, of_family
from sdegen.verification.battery.memory import autocorrelations, repeats, trajectories
from sdegen.verification.battery.moments import correlations, moments, normality
from sdegen.verification.battery.regressions import Regressions
from sdegen.verification.check import Check
from sdegen.verification.innovations.law import UNITS
from sdegen.verification.innovations.sample import Sample, Totals, totals_of

FAMILIES = 14  # at most: what a false-alarm rate is divided by
_STALLS = 0.01  # of the numbers: what may stand still beyond what the law expects


def findings_of(sample: Sample, totals: Totals) -> list[Finding]:
    """Return what all families find."""
    if sample.z.shape[2] == 0:
        return []
    return [
        *moments(totals),
        *Regressions(sample, totals).findings(),
        *correlations(sample),
        *autocorrelations(sample, totals),
        *trajectories(sample),
        *normality(sample),
    ]


def findings_beside(sample: Sample, totals: Totals, redrawn: list[list[Sample]]) -> list[Finding]:
    """Return what all families find, beside the same of redrawn transitions; as it is of none.

    Args:
        sample: Innovations of the states.
        totals: Sums over them.
        redrawn: Those of transitions that were taken anew, by each belief.
    """
    findings = findings_of(sample, totals)
    if not redrawn:
        return findings
    others = [[findings_of(one, totals_of(one)) for one in belief] for belief in redrawn]
    return compared(findings, others)


def checks_of(
    findings: list[Finding], sample: Sample, totals: Totals, false_alarm: float
) -> list[Check]:
    """Return a check for each family, and those in which no chance is."""
    each = false_alarm / FAMILIES
    checks = [_check(of_family(group), each) for group in families_of(findings).values()]
    count, where = repeats(sample) if sample.z.shape[2] else (0, "")
    checks.append(
        Check.of_value(
            "draws that occur twice",
            float(count),
            0.0,
            f"{count} draws of the noise occur twice, first at {where}: a stream of random "
            "numbers is used again.",
        )
    )
    if totals.equations:
        step, trajectory, coordinate = totals.gap_at or (0, 0, 0)
        checks.append(
            Check.of_value(
                "equations without noise, in units of rounding",
                totals.gap,
                UNITS,
                f"an equation that has no noise does not hold: at step {step}, trajectory "
                f"{trajectory}, equation {coordinate}.",
            )
        )
    if sample.z.shape[2]:  # without noise a state may rest
        checks.append(_stalled(*sample.stalled))
    return checks


def _stalled(share: float, expected: float) -> Check:
    """Return the check of numbers that stand still."""
    return Check.of_value(
        "share of numbers that stand still",
        max(0.0, share - 3 * expected),
        _STALLS,
        f"{100 * share:.3g} % of the stored numbers are those of the step before, to all "
        "digits: the step is lost in the rounding of the state, or coordinates do not move.",
    )


def _check(finding: Finding, false_alarm: float) -> Check:
    """Return the check of a family."""
    detail = f"{finding.name}{f', {finding.where}' if finding.where else ''}"
    failed = finding.p_value < false_alarm
    return Check(
        finding.family,
        finding.value,
        float("nan"),
        "failed" if failed else "passed",
        false_alarm,
        finding.p_value,
        remark=detail if failed else "",
    )
