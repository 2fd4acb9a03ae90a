"""Cite: the BibTeX of the paper or book behind a method.

What a docstring names under "Reference", that of a class, of those it derives from, or else of the
module it stands in, is looked up in `references.bib`: by the arXiv number, or by the first author
and the year.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import sdegen
from sdegen.core.requests import kind_of

_ENTRY = re.compile(r"^@\w+\{(?P<key>[\w-]+),\n(?P<fields>(?:  .*\n)+)\}", re.M)
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.M)
_SECTION = re.compile(r"^Reference:\n((?:[ \t]+.*\n?|\n)+)", re.M)


def cite(method: object = None) -> str:
    """Return the BibTeX of a method's sources, or of sdegen itself.

    Args:
        method: An object, a class, a function or a public name, such as "BAOAB": a solver, an SDE,
            a sampler, a loss, an observable. None is sdegen itself.

    Returns:
        One entry for each source, in the order of `references.bib`, a blank line between them.

    Raises:
        TypeError: If it is none of these.
        ValueError: If no name is so called, or its documentation names no source.

    Example:
        >>> print(sg.cite(sg.BAOAB()))
        @article{leimkuhler2013,
          author = {Leimkuhler, Benedict and Matthews, Charles},
          title = {{Rational Construction of Stochastic Numerical Methods for Molecular Sampling}},
          year = {2013},
          journal = {Applied Mathematics Research eXpress},
          pages = {34},
        }
    """
    if method is None:
        return (
            "@software{sdegen,\n  author = {{The sdegen authors}},\n"
            "  title = {{sdegen: stochastic dynamics that generate}},\n"
            f"  year = {{2026}},\n  version = {{{sdegen.__version__}}},\n}}"
        )
    target = _named(method) if isinstance(method, str) else method
    if not (inspect.isclass(target) or inspect.isroutine(target) or inspect.ismodule(target)):
        target = type(target)
    name = getattr(target, "__name__", str(method))
    if not getattr(target, "__module__", name).startswith("sdegen") and not _bases(target):
        raise TypeError(
            f"cite takes what sdegen has, an object, a class, a function or a name, but got "
            f"{kind_of(method)}."
        )
    for text in _references(target):
        found = [entry for key, entry in entries().items() if _is_named(key, text)]
        if found:
            return "\n\n".join(found)
    raise ValueError(
        f"the documentation of {name} names no source: cite() cites sdegen itself, and "
        f"help({name}) says what it is made of."
    )


@functools.cache
def entries() -> dict[str, str]:
    """Return the entries of `references.bib` by their keys, in its order."""
    text = (Path(sdegen.__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {match["key"]: match.group(0) for match in _ENTRY.finditer(text)}


def reference_of(text: str | None) -> str:
    """Return what a docstring has under "Reference", in one line; empty where it has nothing."""
    match = _SECTION.search(inspect.cleandoc(text or "") + "\n")
    return " ".join(match.group(1).split()) if match else ""


def _named(name: str) -> object:
    """Find a public name, or refuse it."""
    if name not in sdegen.__all__:
        raise ValueError(
            f"sdegen has no public name {name!r} to cite: sdegen.__all__ lists those it has."
        )
    return getattr(sdegen, name)


def _bases(target: object) -> list[type]:
    """Return the class and those it derives from, as far as they are of this library."""
    return [one for one in getattr(target, "__mro__", ()) if one.__module__.startswith("sdegen.")]


def _references(target: object) -> list[str]:
    """Return the texts under "Reference", the nearest first: classes before their modules."""
    kinds: list[object] = [*_bases(target)] or [target]
    if isinstance(target, ModuleType):
        return [reference_of(target.__doc__)]
    texts = []
    for kind in kinds:
        module = str(getattr(kind, "__module__", ""))
        own = vars(kind).get("__doc__") if inspect.isclass(kind) else kind.__doc__
        home = sys.modules.get(module) or importlib.import_module(module)
        texts.append(reference_of(own) or reference_of(home.__doc__))
    return texts


@functools.cache
def _marks(key: str) -> tuple[str, str, str]:
    """Return the arXiv number of an entry, the family name of its first author, and its year."""
    fields = dict(_FIELD.findall(entries()[key]))
    return fields.get("eprint", ""), fields["author"].partition(",")[0], fields["year"]


def _is_named(key: str, text: str) -> bool:
    """Return whether a reference names an entry: by arXiv number, or by author and year."""
    number, author, year = _marks(key)
    if number:
        return number in text
    return re.search(rf"\b{re.escape(author)}\b[^;0-9]*\b{year}\b", text) is not None
