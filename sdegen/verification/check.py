"""One thing that was checked: what came out, what was allowed, and how often exact input fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdegen.core.shown import Labelled

Verdict = Literal["passed", "failed", "not judged"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        value: What came out; NaN if it was not judged.
        threshold: The largest value that passes; NaN where the p-value alone decides.
        verdict: "passed", "failed", or "not judged".
        false_alarm: Chance that exact input fails; 0 for what draws nothing.
        p_value: Chance that exact input shows this value or a larger one; for distances an upper
            bound; None for what draws nothing.
        floor: What exact input shows on average, where it is not 0.
        time: Time that was judged, or None for all.
        remark: What is wrong and what to change, or why it was not judged.
    """

    name: str
    value: float
    threshold: float
    verdict: Verdict
    false_alarm: float = 0.0
    p_value: float | None = None
    floor: float | None = None
    time: float | None = None
    remark: str = ""

    @classmethod
    def of_value(cls, name: str, value: float, threshold: float, remark: str) -> Check:
        """Judge a number without randomness; the remark is kept if it fails."""
        passed = value <= threshold  # NaN fails
        return cls(
            name,
            value,
            threshold,
            "passed" if passed else "failed",
            remark="" if passed else remark,
        )

    @classmethod
    def skipped(cls, name: str, threshold: float, why: str) -> Check:
        """Return a check that could not be judged."""
        return cls(name, float("nan"), threshold, "not judged", remark=why)

    def __str__(self) -> str:
        when = "" if self.time is None else f" at t = {self.time:g}"
        text = f"{self.verdict:10s}  {self.name}{when}"
        if self.verdict != "not judged":
            text += f": {self.value:.3g}"
            if self.threshold == self.threshold:
                text += f", at most {self.threshold:.3g}"
        if self.floor is not None:
            text += f", exact samples {self.floor:.3g}"
        if self.p_value is not None:
            text += f", p = {self.p_value:.3g}"
        return text + (f". {self.remark}" if self.remark else "")


class Checked(Labelled):
    """What consists of checks.

    Attributes:
        checks: All of them.
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")


@dataclass(frozen=True)
class Limits:
    """What is allowed where no chance is in it.

    Args:
        edge: Density at an end of the grid over its peak.
        resolution: Total variation that a refinement of the grid may make.
        step: Total variation between the law of the chain and that of the SDE.
        reference: Total variation between the law of the SDE and the assumed density.
        relaxation: Total variation between the last density and the stationary one, where a
            potential is assumed.
    """

    edge: float = 1e-6
    resolution: float = 1e-4
    step: float = 1e-2
    reference: float = 1e-3
    relaxation: float = 1e-2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), but is {value:g}.")
