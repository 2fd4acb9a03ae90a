"""Docstrings of the house as reStructuredText: equations stay as they are written.

Docstrings are read in a terminal first. Lines that are indented, outside of "Args:" and its like,
are equations, tables or programs, and are shown line by line. `*`, `|` and a trailing `_` are
signs of mathematics unless they open and close an emphasis.
"""

import ast
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.roles import XRefRole

_SECTION = re.compile(r"[A-Z][a-z]+:$")
_ITEM = re.compile(r"([-•]|\d+\.) ")
# what is kept as it is: code, emphasis; what is escaped: other signs of markup
_MARKUP = re.compile(
    r"(?P<kept>`[^`]*`|\*\*[^*\s](?:[^*]*[^*\s])?\*\*|(?<![\w*)])\*[A-Za-z][A-Za-z -]*\*(?!\w))"
    r"|(?P<sign>[*|\\]|_(?!\w))"
)

_ENDS = "~sdegen.core.boundary.Boundary"
_ONE = f"{_ENDS} | tuple[{_ENDS}, {_ENDS}]"
# types as Python prints them, and the names that the code has for them (`sdegen.core.shapes`)
_ALIASES = [
    (f"{_ONE} | ~collections.abc.Mapping[int | tuple[int, ...], {_ONE}]"
     f" | ~collections.abc.Sequence[{_ONE} | None]", "Boundaries"),
    ("~jaxtyping.Float[Tensor, ''] | ~jaxtyping.Float[Tensor, 'batch']", "Time"),
    ("~jaxtyping.Float[Tensor, 'batch *event']", "State"),
    ("~collections.abc.Callable[[State, Time], State]", "ScoreFn"),
    ("~torch.Tensor | ~numpy.ndarray[tuple[~typing.Any, ...], ~numpy.dtype[~numpy.floating]]"
     " | ~collections.abc.Sequence[float]", "Times"),
]  # fmt: skip


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


def process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrite a docstring in place, before napoleon reads it."""
    lines[:] = as_rst([line.rstrip() for line in lines])


def with_aliases(text: str) -> str:
    """Return the text of types with the names that the code has for them."""
    for written, alias in _ALIASES:
        text = text.replace(written, alias)
    return text


def shorten_types(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrite the types of attributes in place, after napoleon read them from annotations."""
    lines[:] = [
        escaped(with_aliases(line)) if line.startswith(":vartype") else line for line in lines
    ]


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returned: str
) -> tuple[str, str] | None:
    """Return a signature with the names that the code has for its types."""
    if not signature:
        return None
    return with_aliases(signature), with_aliases(returned) if returned else returned


class NameRole(XRefRole):
    """Links `name` to the page of a public name; what begins with a dot is said of several."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return a link, or code."""
        if self.text.startswith("."):
            return [nodes.literal(self.rawtext, self.text, classes=["xref", "py"])], []
        return super().run()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc, before and after napoleon."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-docstring", shorten_types, priority=600)
    app.connect("autodoc-process-signature", shorten_signature)
    app.add_role_to_domain("py", "obj", NameRole(), override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
