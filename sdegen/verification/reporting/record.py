"""The record of a certificate: what a program, or a page, is told of it.

Everything is of JSON's kinds: a number that is not finite is None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdegen.core.fingerprint import versions

if TYPE_CHECKING:
    from sdegen.verification.certificate import Certificate
    from sdegen.verification.path_certificate import PathVerdict

_FORMAT = 1
_OF_FINDINGS = ("family", "name", "value", "p_value", "where")


def record_of(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate as a dictionary for JSON; see `Certificate.to_dict`."""
    record: dict[str, Any] = {
        "format": _FORMAT,
        "passed": certificate.passed,
        "sentence": certificate.summary,
        "diagnosis": certificate.diagnosis,
        "checks": [dataclasses.asdict(check) for check in certificate.checks],
        "versions": versions(),
    }
    if certificate.steps is not None:
        record |= _steps(certificate.steps)
    elif certificate.path is not None:
        record["judged"] = {
            "source": "a Trajectory on a grid",
            "trajectories": int((~certificate.path.nonfinite).sum()),
            "lost": int(certificate.path.nonfinite.sum()),
            "frames": len(certificate.path.times),
            "times": [float(certificate.path.times[0]), float(certificate.path.times[-1])],
        }
    plain: dict[str, Any] = _plain(record)
    return plain


def _steps(verdict: PathVerdict) -> dict[str, Any]:
    """Return what was judged of stored states, and with what power."""
    states, sample = verdict.states, verdict.sample
    lengths = states.times.diff()
    return {
        "p_value": verdict.p_value,
        "false_alarm": verdict.false_alarm,
        "smallest_errors": {"drift": verdict.smallest_drift, "noise": verdict.smallest_noise},
        "judged": {
            "source": states.source,
            "sde": type(verdict.sde).__name__,
            "solver": verdict.judged_as,
            "frames": states.shape[0],
            "trajectories": states.shape[1],
            "lost": states.lost,
            "event": list(states.event),
            "phase_space": states.phase_space,
            "noises": sample.z.shape[2],
            "times": [float(states.times[0]), float(states.times[-1])],
            "shortest_step": float(lengths.abs().min()),
            "longest_step": float(lengths.abs().max()),
            "rounding_in_noise": sample.rounding,
            "all_in_every_test": sample.whole,
        },
        "findings": [
            {name: getattr(finding, name) for name in _OF_FINDINGS} for finding in verdict.findings
        ],
    }


def _plain(value: object) -> Any:  # noqa: ANN401, whatever JSON can hold
    """Return a value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
