"""Writes benchmarks/README.md from the JSON of benchmarks/results.

python -m benchmarks.table
"""

import json
from pathlib import Path

from benchmarks.record import RESULTS

HEAD = """# Benchmarks

Every table is made from the JSON in `results/` by `python -m benchmarks.table`; a benchmark is run
with `python -m benchmarks.NAME` from the project's root, and `make bench` runs all. Each measures
everything it compares in one run on one machine. Evaluations are counted.
"""


def shown(value):
    """A number with the digits that mean something; nothing for what does not apply."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(rows):
    """Rows as a table; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join(
        lines + ["| " + " | ".join(shown(row.get(key)) for key in columns) + " |" for row in rows]
    )


def page():
    """The whole README."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        told = ", ".join(
            f"{key} {value}" for key, value in record["machine"].items() if value is not None
        )
        parts.append(f"## {path.stem}\n\n{record['date']}; {told}.\n")
        parts += [f"### {title}\n\n{markdown(rows)}\n" for title, rows in record["tables"].items()]
    return "\n".join(parts)


def main():
    (Path(__file__).parent / "README.md").write_text(page())


if __name__ == "__main__":
    main()
