"""Docstrings of the house as reStructuredText: equations stay as they are written.

Docstrings are read in a terminal first. Lines that are indented, outside of "Args:" and its like,
are equations, tables or programs, and are shown line by line. `*`, `|` and a trailing `_` are
signs of mathematics unless they open and close an emphasis.
"""

import ast
import re
from collections.abc import Iterator

_SECTION = re.compile(r"[A-Z][a-z]+:$")
_ITEM = re.compile(r"([-•]|\d+\.) ")
# what is kept as it is: code, emphasis; what is escaped: other signs of markup
_MARKUP = re.compile(
    r"(?P<kept>`[^`]*`|\*\*[^*\s](?:[^*]*[^*\s])?\*\*|(?<![\w*)])\*[A-Za-z][A-Za-z -]*\*(?!\w))"
    r"|(?P<sign>[*|\\]|_(?!\w))"
)


def escaped(line: str) -> str:
    """Return a line whose signs of mathematics are no markup."""
    return _MARKUP.sub(lambda found: found["kept"] or "\\" + found["sign"], line)


def outside_examples(lines: list[str]) -> Iterator[str]:
    """Yield lines, escaped but for those of examples, from >>> to a blank."""
    inside = False
    for line in lines:
        inside = line.lstrip().startswith(">>>") or (inside and bool(line))
        yield line if inside else escaped(line)


def is_program(lines: list[str]) -> bool:
    """Return whether an indented block is Python rather than mathematics."""
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return any(
        not isinstance(line, ast.Expr) or isinstance(line.value, ast.Call) for line in tree.body
    )


def block(lines: list[str]) -> list[str]:
    """Return an indented block as one that is shown line by line."""
    indent = min(len(line) - len(line.lstrip()) for line in lines if line)
    lines = [line[indent:] for line in lines]
    language = "python" if is_program(lines) else "text"
    shown = [f".. code-block:: {language}"]
    if language == "text":
        shown.append("   :class: equation")
    return [*shown, "", *("   " + line if line else "" for line in lines), ""]


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Yield runs of lines: all blank, all of one example, all indented, or none of these."""
    run: list[str] = []
    kind = ""
    for line in lines:
        if (kind == "example" and line) or line.startswith(">>>"):
            now = "example"
        elif not line:
            now = "indented" if kind == "indented" else "blank"
        else:
            now = "indented" if line[0] == " " else "text"
        if run and now != kind:
            yield run
            run = []
        kind = now
        run.append(line)
    if run:
        yield run


def as_rst(lines: list[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText for napoleon."""
    shown: list[str] = []
    before = ""  # the last line at the margin, and whether a blank line follows it
    apart = True
    for run in paragraphs(lines):
        first = run[0]
        if not first.strip():
            shown += run
            apart = True
        elif first.startswith(">>>"):
            shown += run if apart else ["", *run]
            apart = False
        elif first[0] == " ":
            if _SECTION.match(before) or (_ITEM.match(before)):
                shown += outside_examples(run)
            elif apart:
                shown += block(run)
            else:
                shown += ["", *block(run)]
            apart = True
        else:
            for line in run:
                if _ITEM.match(line) and not apart and not _ITEM.match(before):
                    shown.append("")
                shown.append(escaped(line))
                before, apart = line, False
    return shown
