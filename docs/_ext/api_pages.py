"""The pages of the interface: one for each public name, by the rooms of `sdegen/__init__.pyi`.

That file is the one list of public names. Its comments are the headings of the rooms, and a name
stands under the heading that it stands under there. What a public module offers has pages too.
A room's theory is what the docstrings of its modules say.
"""

import importlib
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType

from docutils import nodes
from public_names import Room, by_real_place, offered, pages, rooms
from rst import escaped
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import sdegen

_WAY_BACK = re.compile(r'(?P<page>class="viewcode-back" href="[^"#]*)#(?P<name>[^"]*)"')
SHORTEST_THEORY = 6  # lines of a module's docstring that is a page of theory


def summary(item: object) -> str:
    """Return the first sentence of a docstring."""
    text = inspect.getdoc(item) or ""
    return " ".join(text.split("\n\n")[0].split())


def kind(item: object) -> str:
    """Return the directive of autodoc that documents an object."""
    if inspect.isclass(item):
        return "autoexception" if issubclass(item, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(item) else "autodata"


def heading(text: str, sign: str = "=") -> str:
    """Return a heading of reStructuredText."""
    return f"{text}\n{sign * len(text)}\n"


def table(rows: list[tuple[str, str]]) -> str:
    """Return a list of names that are links, each with what it is."""
    lines = [".. list-table::", "   :class: names", "   :widths: 30 70", ""]
    for name, text in rows:
        lines += [f"   * - {name}", f"     - {text}"]
    return "\n".join(lines) + "\n"


def toctree(names: list[str], *options: str) -> str:
    """Return a toctree."""
    return "\n   ".join([".. toctree::", *(f":{o}:" for o in options), "", *names]) + "\n"


class Writer:
    """Writes the pages into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._backreferences = folder.parent / "gallery" / "backreferences"
        self._pages = pages()
        self._rooms = rooms()

    def write(self) -> None:
        """Write all of them, and nothing else is left in the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        (self._folder / "theory").mkdir()
        for room in self._rooms:
            self._put(room.slug, self._room(room))
            theory = self._theory(room)
            if theory:
                self._put(f"theory/{room.slug}", theory)
            for name in room.names:
                self._object(f"sdegen.{name}", getattr(sdegen, name))
        self._put("index", self._index())
        self._put("theory/index", self._theory_index())

    def _put(self, page: str, text: str) -> None:
        (self._folder / f"{page}.rst").write_text(text, encoding="utf-8")

    def _index(self) -> str:
        parts = [heading("Interface by room"), _WELCOME]
        for room in self._rooms:
            names = ", ".join(f":doc:`{n} <{self._pages[f'sdegen.{n}']}>`" for n in room.names)
            title = room.title[0].upper() + room.title[1:]
            parts += [heading(title, "-"), f":doc:`{room.slug}`\n", names + "\n"]
        parts.append(toctree([room.slug for room in self._rooms], "hidden"))
        return "\n".join(parts)

    def _row(self, full: str, item: object) -> tuple[str, str]:
        short = full.removeprefix("sdegen.")
        return f":doc:`{short} <{self._pages[full]}>`", escaped(summary(item))

    def _room(self, room: Room) -> str:
        names = [f"sdegen.{name}" for name in room.names]
        rows = [self._row(full, getattr(sdegen, full.removeprefix("sdegen."))) for full in names]
        parts = [heading(room.title[0].upper() + room.title[1:]), ".. currentmodule:: sdegen\n"]
        if self._modules(room):
            parts.append(f"What is behind it, equation by equation: :doc:`theory/{room.slug}`.\n")
        parts += [table(rows), toctree([self._pages[full] for full in names], "hidden")]
        return "\n".join(parts)

    def _object(self, full: str, item: object) -> None:
        page = self._pages[full]
        if isinstance(item, ModuleType):
            self._put(page, self._module(full, item))
            return
        short = full.removeprefix("sdegen.")
        parts = [heading(short), ".. currentmodule:: sdegen\n", f".. {kind(item)}:: {full}"]
        if kind(item) == "autoclass":
            parts += ["   :members:", "   :show-inheritance:"]
        used = self._backreferences / f"{full}.examples"
        if used.exists() and used.stat().st_size:
            parts += ["", f".. minigallery:: {full}", "   :add-heading: Examples that use it"]
            parts += ["   :heading-level: -"]
        parts.append("")
        self._put(page, "\n".join(parts))

    def _module(self, full: str, module: ModuleType) -> str:
        name = full.removeprefix("sdegen.")
        members = [f"{module.__name__}.{one}" for one in offered(module)]
        rows = [
            (f":doc:`{one} <{self._pages[path]}>`", escaped(summary(getattr(module, one))))
            if inspect.isroutine(getattr(module, one)) or inspect.isclass(getattr(module, one))
            else (f":doc:`{one} <{self._pages[path]}>`", repr(getattr(module, one)))
            for one, path in zip(offered(module), members, strict=True)
        ]
        own = [path for path in members if self._pages[path].startswith(f"{name}.")]
        for path in own:
            self._object(path, getattr(module, path.rpartition(".")[2]))
        docs = f".. automodule:: {module.__name__}\n   :no-members:\n"
        return "\n".join(
            [heading(name), docs, table(rows), toctree([self._pages[p] for p in own], "hidden")]
        )

    def _modules(self, room: Room) -> list[str]:
        """Return the modules of a room whose docstrings are pages of theory."""
        found = []
        for module in dict.fromkeys(room.names.values()):
            text = inspect.getdoc(importlib.import_module(module)) or ""
            if module != "sdegen" and len(text.splitlines()) >= SHORTEST_THEORY:
                found.append(module)
        return found

    def _theory(self, room: Room) -> str:
        parts = [heading("Theory: " + room.title), ".. currentmodule:: sdegen\n"]
        for module in self._modules(room):
            title = module.removeprefix("sdegen.")
            parts += [heading(title, "-"), f".. automodule:: {module}\n   :no-members:\n"]
        return "\n".join(parts) if len(parts) > 2 else ""

    def _theory_index(self) -> str:
        found = [room.slug for room in self._rooms if self._modules(room)]
        return "\n".join([heading("Theory"), _THEORY, toctree(found)])


_WELCOME = """
``import sdegen as sg``: each name below is ``sg.NAME``, and has a page with its equation, its
shapes, its errors, its source and the examples that use it.
"""
_THEORY = """
Each file of the package begins with a page of theory: the equation, the symbols, what is assumed,
where it comes from. Here they are, in the order of the interface.
"""


def write_pages(app: Sphinx) -> None:
    """Write the pages before Sphinx looks for them."""
    Writer(Path(app.srcdir, "api")).write()


def resolve(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, child: nodes.Node
) -> nodes.Element | None:
    """Find the public name of an object that is referred to by the place of its definition."""
    if node.get("refdomain") != "py":
        return None
    place = node["reftarget"]
    known = app.config.sdegen_places
    if place not in known:
        return None
    python = env.domains.python_domain
    return python.resolve_xref(
        env, node.get("refdoc", ""), app.builder, "obj", known[place], node, child
    )


def mend_ways_back(
    app: Sphinx, page: str, template: str, context: dict[str, object], doctree: object
) -> None:
    """Let a link from source to a page end at the page where viewcode takes the wrong place on it.

    It takes all objects of a file to be documented under one module, and ours are under two.
    """
    if page.startswith("_modules/"):
        known = app.env.domains.python_domain.objects
        context["body"] = _WAY_BACK.sub(
            lambda found: (
                found[0]
                if found["name"] in known
                and found["page"].endswith(f"{known[found['name']].docname}.html")
                else f'{found["page"]}"'
            ),
            str(context["body"]),
        )


def drop_builtins(app: Sphinx) -> list[tuple[str, dict[str, str], str]]:
    """Take modules without a page out of viewcode's list: a public number is of `builtins`."""
    modules = getattr(app.env, "_viewcode_modules", {})
    for name in [name for name, entry in modules.items() if not entry]:
        del modules[name]
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx; pages are written once the gallery is."""
    app.add_config_value("sdegen_places", dict(by_real_place()), "env", {dict})
    app.connect("builder-inited", write_pages, priority=900)
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", mend_ways_back)
    app.connect("html-collect-pages", drop_builtins, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
