"""The checks of one noise level: a failure must be beyond chance, and of a size that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdegen.core.checks import check_number
from sdegen.verification.check import Check
from sdegen.verification.scores.level_findings import FieldFinding, LevelFinding

FIELDS = 8  # kinds of fields, each a test of every level
_SURE = 2.0  # standard errors by which curl and equation must be beyond their limit


@dataclass(frozen=True)
class ScoreLimits:
    """What is allowed of a score, however sure it is.

        |s − s*| ≤ error |s*|,     ‖½ (J − Jᵀ)‖ ≤ curl ‖J‖,     J of shape (d, d)

    Args:
        error: |s − s*| over |s*|, root mean squares.
        curl: Antisymmetric part of the Jacobian over the whole, in Frobenius' norm.
        equation: What is left of the score Fokker–Planck equation over the size of its terms.

    Example:
        >>> vp, z = sg.VP(sg.LinearBeta(0.1, 20.0)), (torch.arange(500.0) + 0.5) / 500
        >>> x = torch.special.ndtri(z)[:, None]  # N(0, 1)
        >>> wrong = lambda x, t: -1.05 * x  # 5 % too large
        >>> loose = sg.ScoreLimits(error=0.1, equation=0.2)
        >>> sg.score_residuals(vp, wrong, x, levels=2, limits=loose, rng=0).passed
        True
    """

    error: float = 0.02
    curl: float = 0.02
    equation: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(name, value)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), but is {value:g}.")


@dataclass(frozen=True)
class RootRatio:
    """√(E a/E b) of two numbers of each row, with its error bar.

    Attributes:
        value: The root; 0 where the ratio is negative by chance; NaN where it was not judged.
        error: Its standard error: how far up the root of the ratio and one error of it is.
    """

    value: float
    error: float

    @classmethod
    def of(cls, ratio: float, error: float) -> RootRatio:
        """Return the root of a ratio with a standard error."""
        root = math.sqrt(max(ratio, 0.0))
        return cls(root, math.sqrt(max(ratio, 0.0) + error) - root)

    @classmethod
    def of_rows(cls, a: Tensor, b: Tensor) -> RootRatio:
        """Return √(mean a/mean b) of rows, shapes (n,)."""
        below = max(float(b.mean()), 1e-300)
        ratio = float(a.mean()) / below
        error = float((a - ratio * b).std()) / (math.sqrt(len(a)) * below)
        return cls.of(ratio, error)

    @classmethod
    def unknown(cls) -> RootRatio:
        """Return that of what was not judged."""
        return cls(math.nan, math.nan)


def field_checks(
    finding: LevelFinding, t: float, limits: ScoreLimits, false_alarm: float
) -> list[Check]:
    """Return a check for each kind of field, and of the correction.

    Args:
        finding: What rows say.
        t: The level.
        limits: What is allowed.
        false_alarm: Of each check.
    """
    return [_of_field(field, finding, t, limits.error, false_alarm) for field in finding.fields]


def _of_field(
    field: FieldFinding, finding: LevelFinding, t: float, limit: float, false_alarm: float
) -> Check:
    """Judge one kind of field by the largest that is beyond chance, or the least likely one."""
    beyond = field.p_value < false_alarm
    i = int((field.size * beyond).argmax()) if bool(beyond.any()) else int(field.p_value.argmin())
    failed = bool(beyond[i]) and float(field.size[i]) > limit
    remark = ""
    if failed:
        remark = _remark(field.name, i, finding)
    elif bool(beyond[i]):
        remark = "Beyond chance, but smaller than the limit."
    return Check(
        f"score, {field.name}",
        float(field.size[i]),
        limit,
        "failed" if failed else "passed",
        false_alarm,
        float(field.p_value[i]),
        time=t,
        remark=remark,
    )


def _remark(name: str, i: int, finding: LevelFinding) -> str:
    """Say what a kind of field says is wrong."""
    if name == "factor":
        return f"s is {finding.factor:.4g} ± {finding.factor_bar:.2g} times the true score."
    if name == "size of x":
        return "E[s·(x − E x)] is not −d: a wrong width, a wrong factor or a wrong time."
    if name == "offset":
        return f"E s is not 0 in coordinate {i}."
    if name.startswith("coordinate"):
        return f"Coordinate {i} is wrong by itself."
    if name == "random fields":
        return "The error has a part that is even or mixes coordinates."
    return f"E|s − s*|² is {finding.squared_error:.3g} ± {finding.squared_error_bar:.2g} or more."


def slope_check(name: str, found: RootRatio, limit: float, t: float, remark: str) -> Check:
    """Judge what is 0 of an exact score: it fails if it is beyond the limit by its error."""
    failed = found.value - _SURE * found.error > limit
    return Check(
        name, found.value, limit, "failed" if failed else "passed", time=t, remark=remark * failed
    )


def skipped_slope(name: str, limit: float, t: float, why: str) -> Check:
    """Return a check that could not be judged at a level."""
    return Check(name, math.nan, limit, "not judged", time=t, remark=why)
