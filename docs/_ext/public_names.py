"""The public names: `sdegen/__init__.pyi` is the one list of them, and its comments are the rooms.

What a public module offers is public too, under the module's name.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import sdegen

STUB = Path(sdegen.__file__).with_suffix(".pyi")


@dataclass
class Room:
    """A heading of the list of public names, with the names under it.

    Attributes:
        title: The heading.
        names: Public names, and the modules that they come from.
    """

    title: str
    names: dict[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The heading as the name of a file."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def rooms() -> list[Room]:
    """Return the rooms in the order of the list."""
    text = STUB.read_text(encoding="utf-8")
    found: list[Room] = []
    heads = {i: line[2:] for i, line in enumerate(text.splitlines(), 1) if line.startswith("# ")}
    del heads[1]  # what the file is
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        title = heads[max(i for i in heads if i < node.lineno)]
        if not found or found[-1].title != title:
            found.append(Room(title))
        for name in node.names:
            module = ".".join(filter(None, ["sdegen", node.module]))
            found[-1].names[name.asname or name.name] = module
    return found


def offered(module: ModuleType) -> list[str]:
    """Return the public names of a public module."""
    return sorted(module.__all__, key=lambda name: (not name[0].isupper(), name.lower()))


def pages() -> dict[str, str]:
    """Return the page of each public object, by its full name.

    Two names that differ in upper and lower case alone have pages that differ in more: some file
    systems do not tell them apart.
    """
    found: dict[str, str] = {}
    known = {id(getattr(sdegen, name)): name for name in sdegen.__all__}
    for name in sdegen.__all__:
        item = getattr(sdegen, name)
        found[f"sdegen.{name}"] = name
        if isinstance(item, ModuleType):
            for one in offered(item):
                same = known.get(id(getattr(item, one)))
                found[f"{item.__name__}.{one}"] = same or f"{name}.{one}"
    taken: dict[str, str] = {}
    for full, page in sorted(found.items()):
        if taken.setdefault(page.lower(), page) != page:
            found[full] = f"{page}_function"
    return found


def by_real_place() -> Iterator[tuple[str, str]]:
    """Yield where each public object is defined, with its public name."""
    for full in pages():
        holder, _, name = full.rpartition(".")
        item = getattr(importlib.import_module(holder), name)
        if hasattr(item, "__qualname__"):
            yield f"{item.__module__}.{item.__qualname__}", full
