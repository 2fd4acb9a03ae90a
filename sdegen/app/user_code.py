"""User code: objects named at the command line as `file.py:name` or `module:name`.

What is named is Python that the user wrote in a file of their own; the name after the colon is
looked up in it, dots and all. Nothing after the colon is evaluated: `well.py:f(0.7)` names
nothing.
"""

import difflib
import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_LOADED: dict[Path, ModuleType] = {}


def is_reference(text: str) -> bool:
    """Return whether a text has the form `file.py:name` or `module:name`.

    >>> is_reference("well.py:drift"), is_reference("0.7"), is_reference("f(x): g")
    (True, False, False)
    """
    place, _, name = text.rpartition(":")
    return bool(place) and all(part.isidentifier() for part in name.split("."))


def load_object(reference: str, argument: str) -> object:
    """Find what a reference names.

    Args:
        reference: `file.py:name`, or `module:name` of anything that can be imported.
        argument: What it is for, to be named in an error.

    Raises:
        ValueError: If it has another form, or there is no such file, module or name. What the file
            itself raises passes through.
    """
    if not is_reference(reference):
        raise ValueError(
            f"{argument} must be file.py:name or module:name, but is {reference!r}; nothing in "
            "it is evaluated: put the formula into a function in a file."
        )
    place, _, name = reference.rpartition(":")
    file = source_file(reference)
    module = _from_module(place, argument) if file is None else _from_file(file, argument)
    item: object = module
    for part in name.split("."):
        if not hasattr(item, part):
            near = difflib.get_close_matches(part, dir(item), 1)
            hint = f"; there is {near[0]}" if near else ""
            raise ValueError(f"{argument}: {place} has no {name!r}{hint}.")
        item = getattr(item, part)
    return item


def source_file(reference: str) -> Path | None:
    """Return the resolved file of `file.py:name`; None for `module:name`."""
    place, _, _ = reference.rpartition(":")
    return Path(place).expanduser().resolve() if place.endswith(".py") else None


def loaded_files() -> set[str]:
    """Return the files loaded so far, to tell errors of user code from a bad request."""
    return {str(path) for path in _LOADED}


class _FromSource(SourceFileLoader):
    """Load a module from its source, never from cached bytecode.

    A cached bytecode is matched by seconds and size, which a change of 0.5 to 0.7 leaves equal.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _from_file(path: Path, argument: str) -> ModuleType:
    """Run a file as a module of its own, once."""
    if path in _LOADED:
        return _LOADED[path]
    if not path.is_file():
        raise ValueError(f"{argument}: there is no file {path}.")
    # a name that no import can meet, so that a user's random.py shadows nothing
    name = f"sdegen user code {len(_LOADED)}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for the user's own imports, behind all others
    _LOADED[path] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_module(name: str, argument: str) -> ModuleType:
    """Import a module; the current folder counts, as for `python -m`."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"{argument}: there is no module {name!r}; a file is named file.py:name."
        ) from error
    package = str(Path(__file__).parents[1])
    if module.__file__ is not None and not module.__file__.startswith(package):
        _LOADED.setdefault(Path(module.__file__).resolve(), module)
    return module
