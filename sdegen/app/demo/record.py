"""The record of a demonstration: what is reported is also kept as numbers and as files.

Every table and claim is written twice, once to be read and once to be computed with, and every
picture is a file beside the report that holds it. Nothing can be said in one place and not in the
other.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sdegen.app.report import Cell, Claim, Measured, Report
from sdegen.app.runs import write_metrics


class Record:
    """A report in the making, with its numbers and pictures.

    Args:
        report: Where it is told.
        folder: Where the files go.
    """

    def __init__(self, report: Report, folder: Path) -> None:
        self.report: Report = report
        self.folder: Path = folder
        self._tables: dict[str, list[dict[str, Cell]]] = {}
        self._claims: list[dict[str, Any]] = []

    def table(self, name: str, columns: str, rows: Sequence[Sequence[Cell]], caption: str) -> None:
        """Add a table; `name` is its key in metrics.json, headings are between bars.

        There a measured number has its error under its heading and " ±".
        """
        table = [dict(zip(columns.split(" | "), row, strict=True)) for row in rows]
        self.report.table(table, caption)
        self._tables[name] = [_as_numbers(row) for row in table]

    def claims(self, *claims: Claim) -> None:
        """Add claims, each with what was measured, what was required, and the verdict."""
        self._claims += [{**dataclasses.asdict(c), "holds": c.holds} for c in claims]
        self.report.claims(claims)

    def figure(self, name: str, figure: Figure, caption: str, *, sharp: bool = False) -> None:
        """Add a picture, and keep it as name.png."""
        figure.savefig(self.folder / f"{name}.png")
        self.report.figure(self.folder / f"{name}.png", caption, sharp=sharp)

    def film(self, name: str, caption: str) -> None:
        """Add name.gif, which is in the folder already."""
        self.report.figure(self.folder / f"{name}.gif", caption)

    def write(self) -> Path:
        """Write report.html and metrics.json.

        Returns:
            The path of the report.
        """
        held = sum(claim["holds"] for claim in self._claims)
        counts = {"claims_held": held, "claims_made": len(self._claims)}
        write_metrics(self.folder, counts | {"claims": self._claims} | self._tables)
        path = self.folder / "report.html"
        self.report.write(path)
        return path


def _as_numbers(row: dict[str, Cell]) -> dict[str, Cell]:
    """Return a row with two entries for each measured number."""
    flat: dict[str, Cell] = {}
    for name, cell in row.items():
        if isinstance(cell, Measured):
            flat |= {name: cell.value, f"{name} ±": cell.error}
        else:
            flat[name] = cell
    return flat
