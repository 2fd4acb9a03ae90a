"""Certificate page: a certificate as JSON, as a picture, and as one HTML file to send around.

certificate.json   what a program reads
certificate.html   the verdict, what explains it, the picture, every check, what was judged
certificate.png    the picture alone, where there is one
"""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sdegen import plots
from sdegen.app.report import Cell, Measured, Report, Verdict
from sdegen.core.requests import check_kind
from sdegen.plots.ticks import scientific
from sdegen.storage import atomic_write
from sdegen.verification.certificate import Certificate
from sdegen.verification.check import Check

JSON, HTML, PNG = "certificate.json", "certificate.html", "certificate.png"
_LABELS = {
    "source": "states",
    "sde": "equation that is believed",
    "solver": "judged as steps of",
    "frames": "stored times",
    "trajectories": "trajectories",
    "lost": "trajectories that were lost and left out",
    "event": "shape of a state",
    "phase_space": "positions and velocities",
    "noises": "numbers of noise in a step",
    "times": "first and last time",
    "shortest_step": "shortest step",
    "longest_step": "longest step",
    "rounding_in_noise": "rounding of states, in units of the noise",
    "all_in_every_test": "every test saw all steps",
}


def save_certificate(certificate: Certificate, folder: str | os.PathLike[str]) -> Path:
    """Write a certificate as certificate.json, certificate.html and certificate.png.

    The page holds its picture and its style, and asks for nothing else.

    Args:
        certificate: What `certify` returned.
        folder: Where the files go; it is made, and files of these names in it are replaced.

    Returns:
        The path of certificate.html.

    Raises:
        TypeError: If certificate is none, or folder no path.
        OSError: If they cannot be written.

    Example:
        >>> import json, tempfile
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> times = [0.01 * k for k in range(51)]
        >>> run = sg.simulate(ou, torch.zeros(100, 1), times, rng=0)
        >>> certificate = sg.certify(ou, path=run.states, dt=0.01)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = sg.save_certificate(certificate, folder)
        ...     print(page.name, json.loads(page.with_suffix(".json").read_text())["passed"])
        certificate.html True
    """
    check_kind("certificate", certificate, Certificate, "a Certificate, as certify returns it")
    check_kind("folder", folder, (str, os.PathLike), "the path of a folder")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    record = certificate.to_dict()
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(place / JSON, f"{text}\n".encode())
    figure = picture_of(certificate)
    picture = None if figure is None else _png(figure)
    if picture is not None:
        atomic_write(place / PNG, picture)
    certificate_page(certificate, picture).write(place / HTML)
    return place / HTML


def picture_of(certificate: Certificate) -> Figure | None:
    """Return the picture of a certificate; None where it has none."""
    steps = certificate.steps
    if steps is not None:
        return plots.innovations(certificate) if steps.sample.z.shape[2] else None
    drawn = certificate.law is not None and certificate.path is not None
    return plots.certificate(certificate) if drawn else None


def certificate_page(certificate: Certificate, picture: bytes | None = None) -> Report:
    """Return the page of a certificate.

    Args:
        certificate: What it is about.
        picture: A PNG of it.
    """
    record = certificate.to_dict()
    page = Report("Certificate of a simulation")
    page.verdict(certificate.summary, holds=certificate.passed)
    if record["diagnosis"] is not None:
        _add_diagnosis(page, record["diagnosis"])
    if picture is not None:
        page.section("What was seen")
        page.figure(picture, _caption(certificate))
    page.section("Checks")
    rows = [_row(check) for check in certificate.checks]
    columns = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    page.table([{name: row[name] for name in columns} for row in rows], _about(certificate))
    if "judged" in record:
        page.section("What was judged")
        # words and numbers in one column: all as words, from one edge
        page.table([{"what": r["what"], "value": _in_words(r[""])} for r in _judged(record)])
    page.section("Made by")
    page.table([{"what": name, "version": str(v)} for name, v in record["versions"].items()])
    return page


def _png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _add_diagnosis(page: Report, diagnosis: dict[str, Any]) -> None:
    """Add what explains the failure, and what else was thought of."""
    rows: list[dict[str, Cell]] = []
    for cause in diagnosis["causes"]:
        log_odds = cause["log_odds"]  # None where they are infinite
        rows.append(
            {
                "cause": " or ".join([cause["name"], *cause["same_as"]]),
                "number ± standard error": _with_error(cause["value"], cause["error"]),
                "log₁₀ odds against what is believed": log_odds and log_odds / math.log(10),
            }
        )
    if rows:
        page.section("Diagnosis")
        caption = "The likeliest of the usual mistakes, each refitted as a model of its own."
        page.table(rows, caption)


def _with_error(value: float | None, error: float | None) -> Cell:
    """Return a number with its standard error, where there is one."""
    return value if value is None or error is None else Measured(value, error)


def _caption(certificate: Certificate) -> str:
    """Return what the picture shows."""
    if certificate.steps is None:
        return "Trajectories and their law at the last time, and every check over its threshold."
    return (
        "The noise z that the stored steps must have had under the law that is believed. Above: "
        "by how much the simulated drift exceeds it, and the variance of the noise over it, along "
        "the coordinates that deviate most. Below: density of z, its memory, its strength along "
        "the run, and correlations. Error bars are standard errors, grey bands three of them."
    )


def _about(certificate: Certificate) -> str:
    """Return what the table of checks shows."""
    if certificate.steps is None:
        return "Values, the largest that pass, and chances of an exact simulation to show more."
    return (
        "Values are in standard errors where a p-value is given, or squares of these; a check "
        "fails below its share of the false-alarm rate, and a right simulation is refused once "
        f"in {1 / certificate.steps.false_alarm:,.0f}."
    )


def _row(check: Check) -> dict[str, Cell]:
    """Return the row of a check."""
    signs = {"passed": ("✓ passed", True), "failed": ("✗ failed", False)}
    verdict: Cell = "not judged"
    if check.verdict in signs:
        verdict = Verdict(*signs[check.verdict])
    return {
        "check": check.name,
        "time": check.time,
        "value": _known(check.value),
        "at most": _known(check.threshold),
        "p-value": check.p_value,
        "fails below": check.false_alarm if check.p_value is not None else None,
        "verdict": verdict,
        "remark": check.remark,
    }


def _known(value: float) -> float | None:
    """Return a number; None for NaN."""
    return None if math.isnan(value) else value


def _in_words(value: Cell) -> str:
    """Return a number or a word as a word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return scientific(value, 3) if isinstance(value, float) else str(value)


def _judged(record: dict[str, Any]) -> list[dict[str, Cell]]:
    """Return rows on what was judged, and with what power."""
    rows: list[dict[str, Cell]] = []
    for name, label in _LABELS.items():
        if name in record["judged"]:
            value = record["judged"][name]
            listed = ", ".join(f"{v:g}" for v in value) if isinstance(value, list) else value
            rows.append({"what": label, "": listed})
    if "smallest_errors" in record:
        for name, label in (("drift", "the drift"), ("noise", "the standard deviation of noise")):
            smallest = record["smallest_errors"][name]
            if smallest is not None:
                text = f"relative error of {label} that is seen nine times in ten"
                rows.append({"what": text, "": smallest})
        rows.append({"what": "chance to refuse a right simulation", "": record["false_alarm"]})
        rows.append({"what": "p-value of all checks together", "": record["p_value"]})
    return rows
