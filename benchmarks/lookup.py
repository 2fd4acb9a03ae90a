"""Look up results of the benchmarks, and set them in Markdown."""

import json

from benchmarks.record import RESULTS


def load(name):
    """Return the record {date, machine, tables} of one benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def rows_of(name, title):
    """Return the rows of the table of a benchmark whose title begins with `title`."""
    tables = load(name)["tables"]
    return next(rows for full, rows in tables.items() if full.startswith(title))


def one(rows, **where):
    """Return the one row that has these values."""
    (row,) = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return row


def number(value):
    """Return a number with three digits, as the archive has it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ratio(value, win="below"):
    """Return a ratio with three digits, in bold where it is on the losing side of 1."""
    if value is None:
        return ""
    lost = value > 1 if win == "below" else value < 1
    return f"**{value:.3g}**" if lost and f"{value:.3g}" != "1" else f"{value:.3g}"


def behind(value, win="below"):
    """Return a ratio for a sentence that says that sdegen loses; raises if it does not."""
    lost = value > 1 if win == "below" else value < 1
    assert lost, "no loss any more: write the sentence anew"
    return number(value)


def lines(columns, rows):
    """Return a table in Markdown."""
    head = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join(head + ["| " + " | ".join(row) + " |" for row in rows])


def largest(rows, column):
    """Return the largest value of a column."""
    return max(row[column] for row in rows if row.get(column) is not None)


def smallest(rows, column):
    """Return the smallest value of a column."""
    return min(row[column] for row in rows if row.get(column) is not None)


def names():
    """Return the benchmarks that have results."""
    return sorted(path.stem for path in RESULTS.glob("*.json"))
