"""Words: the numbers of the page, each with its error."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any


def reading_table(readings: dict[str, float], found: dict[str, Any]) -> str:
    """Return the numbers of a frame, particles beside density."""
    head = f"<b>t = {readings['t']:.4g}</b> &nbsp; {readings['particles']:,.0f} particles"
    if "exact mean" not in readings:
        means = [name for name in readings if name.startswith("mean of")]
        rows = [
            (
                name.removeprefix("mean of "),
                _pm(readings, name),
                _pm(readings, f"variance{name[4:]}"),
            )
            for name in means
        ]
        return f"{head}{_table(['', 'mean', 'variance'], rows)}" + (
            "<span class=dim>Of several coordinates the page has particles and moments, and no "
            "density; a program can ask FokkerPlanck2D for that of two.</span>"
        )
    lines: list[tuple[str, ...]] = [
        (
            "particles", _pm(readings, "mean"), _pm(readings, "variance"),
            f"{readings['distance']:.4f}" if "distance" in readings else "–",
        ),
        (
            "Fokker–Planck", f"{readings['exact mean']:.4f}", f"{readings['exact variance']:.4f}",
            f"floor {readings['floor']:.4f}",
        ),
    ]  # fmt: skip
    if "rest mean" in found:
        rest = ("at rest", f"{found['rest mean']:.4f}", f"{found['rest variance']:.4f}", "")
        lines.append(rest)
    return f"{head}{_table(['', 'mean', 'variance', 'distance'], lines)}"


def lines_beside(found: dict[str, Any]) -> str:
    """Return the exact numbers beside the figures, or why they are missing."""
    reasons, lines = found["reasons"], []
    if "passage mean" in found:
        lines.append(
            f"mean first-passage time, start's mean to level: <b>{found['passage mean']:.5g}</b> "
            f"<span class=dim>(relative error {_relative(found['passage error'])})</span>"
        )
    if "rates" in found:
        slowest = found["rates"][0]
        lines.append(
            f"slowest rate λ₁ = <b>{slowest:.5g}</b>, relaxation time {1 / slowest:.5g} "
            f"<span class=dim>(relative error {_relative(found['rates error'])})</span>"
        )
    names = {
        "rest": "at rest",
        "spectrum": "spectrum",
        "passage": "passage",
        "survival": "waiting",
    }
    for name, reason in reasons.items():
        lines.append(f"<span class=dim>{names[name]}: {html.escape(reason)}</span>")
    lines += [f"<span class=bad>{html.escape(note)}</span>" for note in found["notes"]]
    return "<br>".join(lines)


def _pm(readings: dict[str, float], name: str) -> str:
    """Return a number and its standard error, to the digits that the error leaves."""
    kind, _, of = name.partition(" of ")
    error = readings[f"{kind} error of {of}" if of else f"{kind} error"]
    return f"{readings[name]:.4f} ± {error:.4f}"


def _relative(error: float) -> str:
    """Return a relative error in words."""
    return f"{max(error, 1e-12):.0e}" if error == error else "not estimated"


def _table(head: list[str], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"
