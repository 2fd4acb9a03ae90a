"""Autodoc reads docstrings through `rst`, and types by the names that the code has for them."""

from docutils import nodes
from rst import as_rst, escaped
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole

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


class NameRole(PyXRefRole):
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
