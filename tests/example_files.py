"""What is said of the examples: their headers, quick forms, and what their whole forms cost.

A header is a page in reStructuredText: a title, what is shown, and what is printed,

    It prints, in 14 s of one core::

        the lines

`long` examples are those whose whole form costs more than `SHORT` CPU seconds.
"""

import ast
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
TABLES = tomllib.loads((EXAMPLES / "quick.toml").read_text(encoding="utf-8"))
SHORT = 12.0  # CPU seconds
NUMBER = r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?"
COST = re.compile(r"prints,\s+in\s+(\d+)\s+s\s+of\s+one\s+core::\n")


def source(name):
    """The text of an example."""
    return (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def page(name):
    """The docstring of an example."""
    return ast.get_docstring(ast.parse(source(name)))


def header(name):
    """What the docstring says is printed: what is indented below "prints, in … s"."""
    found = COST.search(page(name))
    assert found, f"{name}.py does not say what it prints, in how many seconds"
    lines = []
    for line in page(name)[found.end() :].lstrip("\n").splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line[4:])
    return "\n".join(lines).rstrip("\n")


def shape(text):
    """A text without its numbers."""
    return [" ".join(re.sub(NUMBER, "#", line).split()) for line in text.splitlines()]


def quick(name):
    """An example in its quick form."""
    text = source(name)
    for constant, value in TABLES.get(name, {}).get("quick", {}).items():
        text, found = re.subn(rf"(?m)^{constant} = .*$", f"{constant} = {value}", text)
        assert found == 1, f"{name}.py has no line {constant} = …"
    return text


def is_long(name):
    """Whether an example is marked as long."""
    return TABLES.get(name, {}).get("long", False)


def costs():
    """What is known of whole runs: machine, versions, and CPU seconds by name."""
    return json.loads((EXAMPLES / "full.json").read_text(encoding="utf-8"))
