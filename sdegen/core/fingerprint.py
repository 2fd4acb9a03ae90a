"""Fingerprint: what a run or a tensor is, as JSON and as a sha256, to tell it from another.

An SDE, a solver, a boundary and observables are told by their class and by what they hold, all the
way down: numbers and words as they are, tensors by their sha256 (a few numbers as they are), a
function by a sha256 of its bytecode, with its defaults, what it closes over, and the globals that
it names. An object of this library is told by the arguments that it was made from, whatever it
keeps for itself. A class that is neither ours nor torch's is told by the bytecode of its methods
too. So a drift in which 0.5 has become 0.7 is another drift, wherever the number is kept, and one
that only moved to another line is the same.

What is not seen: what a function reaches through attributes of a module, through a file, or inside
an extension module. The bytecode is that of one minor version of Python, which is among the
`versions` for that reason.
"""

import dis
import functools
import hashlib
import inspect
import json
import math
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen import __version__

_DIGEST = re.compile(r"[0-9a-f]{64}")
_STEPS = {"closure", "globals", "keyword_defaults", "members", "tensor", "array"}
_WHOLE: dict[tuple[str, ...], str] = {
    ("sde", "drift"): "the drift",
    ("sde", "diffusion"): "the diffusion",
    ("sde", "constant_noise"): "the diffusion",
}
_FEW = 8  # numbers of a tensor that are written out
_DEEPEST = 24
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
_METHODS = FunctionType, staticmethod, classmethod, property
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_THEIRS = {"sdegen", "torch", "numpy", "jaxtyping"} | sys.stdlib_module_names


def fingerprint(tensor: Tensor) -> str:
    """Return the sha256 of a tensor's dtype, shape and bytes, in hexadecimal.

    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2, 1))
    False
    """
    tensor = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint_json(value: object) -> str:
    """Return the sha256 of JSON in one canonical spelling, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return what bits depend on besides what was asked: versions, and the kind of processor.

    Args:
        packages: Names of packages; sdegen, torch and numpy unless given.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    # sums and normals are another with vectors of another length
    cpu = {"machine": platform.machine(), "cpu": torch.backends.cpu.get_cpu_capability()}
    names = packages or ("sdegen", "torch", "numpy")
    return {"python": python} | {name: _told_version(name) for name in names} | cpu


def _told_version(package: str) -> str:
    """Return the version of the code that runs, be the installation an older editable one."""
    return __version__ if package == "sdegen" else version(package)


def to_spec(value: object) -> Any:  # noqa: ANN401, whatever JSON can hold
    """Return the value in words of JSON; two that behave differently have different words.

    >>> to_spec({"substeps": 10, "dtype": torch.float64})
    {'substeps': 10, 'dtype': 'torch.float64'}
    """
    return _Reader(()).read(value)


def difference(there: object, here: object) -> str | None:
    """Return the first place where two specs differ, in words, or None.

    >>> difference({"seed": 1}, {"seed": 2})
    'seed is 1 there and 2 here'
    """
    gap = first_difference(there, here)
    return None if gap is None else in_words(*gap)


def first_difference(
    there: object, here: object, path: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], str] | None:
    """Return where two specs differ first: the keys that lead there, and how; or None.

    Words and numbers of an object (`constant_noise`) are told before its functions (`diffusion`).

    >>> one, two = ({"class": "A", "f": {"function": x}, "n": x} for x in ("a", "b"))
    >>> first_difference(one, two)
    (('n',), 'is a there and b here')
    """
    if isinstance(there, dict) and isinstance(here, dict):
        kinds = there.get("class"), here.get("class")
        if kinds[0] != kinds[1]:
            return path, f"is {_short(kinds[0])} there and {_short(kinds[1])} here"
        keys = [*here, *(key for key in there if key not in here)]
        keys.sort(key=lambda key: (str(key).startswith("_"), _is_function(here.get(key))))
        for key in keys:
            inner = (*path, str(key))
            if key not in there or key not in here:
                return inner, f"is only {'there' if key in there else 'here'}"
            gap = first_difference(there[key], here[key], inner)
            if gap is not None:
                return gap
        return None
    if there == here:
        return None
    if path[-1:] == ("code",):
        return path, "is another"
    if any(_DIGEST.fullmatch(str(value)) for value in (there, here)):
        return path, "holds other numbers"
    return path, f"is {_short(there)} there and {_short(here)} here"


def _is_function(spec: object) -> bool:
    return isinstance(spec, dict) and "function" in spec


def in_words(path: tuple[str, ...], how: str) -> str:
    """Return a difference in the words of the user, who wrote a drift.

    >>> in_words(("sde", "drift", "closure", "k"), "is 1 there and 2 here")
    'k of the drift is 1 there and 2 here'
    """
    if path[-1:] == ("code",):
        return f"the code of {_named(path[:-1])} {how}"
    if path == ("sde", "constant_noise") and how.startswith("is only"):
        return f"the diffusion is a number {how.removeprefix('is ')}"
    return f"{_named(path)} {how}"


def _named(path: tuple[str, ...]) -> str:
    """Return what stands at a path, without the steps that are Python's or ours."""
    whole = _WHOLE.get(path[:2], "")
    rest = path[2:] if whole else path
    rest = tuple(
        key
        for i, key in enumerate(rest)
        if key not in _STEPS and not (key == "function" and (i == len(rest) - 1 or whole))
    )
    if not whole:
        return ".".join(rest)
    return f"{'.'.join(rest)} of {whole}" if rest else whole


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Reader:
    """Read one value to the ground.

    Args:
        above: Objects that the value is part of, by id, so that a circle ends.
    """

    def __init__(self, above: tuple[int, ...]) -> None:
        self._above = above
        self._known: dict[int, int] = {}  # functions and classes, in the order they were met

    def read(self, value: object) -> Any:  # noqa: ANN401
        """Return the value in words of JSON."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, np.generic):
            return self.read(value.item())
        if id(value) in self._above or len(self._above) > _DEEPEST:
            return "…"
        self._above = (*self._above, id(value))
        try:
            return self._read(value)
        finally:
            self._above = self._above[:-1]

    def _read(self, value: object) -> Any:  # noqa: ANN401
        if isinstance(value, Tensor):
            if value.numel() <= _FEW and not value.is_complex():
                return {"tensor": self.read(value.tolist()), "dtype": str(value.dtype)}
            return {"tensor": fingerprint(value)}
        if isinstance(value, np.ndarray) and value.dtype != object:
            digest = hashlib.sha256(f"{value.dtype} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
            return {"array": digest.hexdigest()}
        if isinstance(value, Mapping):
            return {str(key): self.read(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.read(item) for item in value]
        if isinstance(value, set | frozenset):
            # each by itself: their order is another in each process
            return sorted(str(_Reader(self._above).read(item)) for item in value)
        if isinstance(value, functools.partial):
            parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
            return {"class": "functools.partial"} | self.read(parts)
        if isinstance(value, MethodType):
            return {"method": value.__name__, "of": self.read(value.__self__)}
        if isinstance(value, staticmethod | classmethod):
            return self.read(value.__func__)
        if isinstance(value, property):
            return self.read({"get": value.fget, "set": value.fset})
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, torch.dtype | torch.device):
            return str(value)
        if isinstance(value, BuiltinFunctionType | ModuleType):
            return value.__name__
        if isinstance(value, type):
            members = self._members(value)
            return {"class": value.__qualname__} | members if members else value.__name__
        return self._object(value)

    def _again(self, value: object) -> str | None:
        """Return a reference to a function or a class that has been read, or None."""
        if id(value) in self._known:
            return f"…{self._known[id(value)]}"
        self._known[id(value)] = len(self._known)
        return None

    def _function(self, function: FunctionType) -> dict[str, Any]:
        """Read a function by what it does: its code, and the values that it brings along."""
        about: dict[str, Any] = {"function": function.__qualname__}
        is_theirs = _is_theirs(function.__module__)
        if is_theirs:
            about |= {"module": function.__module__} | _version(function.__module__)
            if "<locals>" not in function.__qualname__:  # it follows from the version
                return about
        if (known := self._again(function)) is not None:
            return about | {"code": known}
        about["code"] = _code(function.__code__)
        closure = function.__closure__ or ()
        cells = dict(zip(function.__code__.co_freevars, closure, strict=True))
        parts: dict[str, Any] = {
            "defaults": function.__defaults__,
            "keyword_defaults": function.__kwdefaults__,
            "closure": {name: _content(cell) for name, cell in cells.items()},
        }
        if not is_theirs:
            names = sorted(_globals(function.__code__))
            held = function.__globals__
            parts["globals"] = {name: held[name] for name in names if name in held}
        return about | {key: self.read(part) for key, part in parts.items() if part}

    def _object(self, value: object) -> dict[str, Any]:
        """Read an object by its class, what it holds, and what a user's own class does."""
        kind = type(value)
        about: dict[str, Any] = {"class": kind.__qualname__}
        if isinstance(value, torch.nn.Module):
            weights = sorted(value.state_dict().items())
            digests = "".join(f"{name} {fingerprint(weight)} " for name, weight in weights)
            state = hashlib.sha256(digests.encode()).hexdigest()
            about |= {"network": str(value), "state": state}
            held = self._modules(value)
        else:
            held = dict(getattr(value, "__dict__", {}))
            for base in kind.__mro__:
                slots = base.__dict__.get("__slots__", ())
                for name in (slots,) if isinstance(slots, str) else slots:
                    if hasattr(value, name):
                        held[name] = getattr(value, name)
            held = _of_arguments(kind, held)
        about |= {name: self.read(item) for name, item in sorted(held.items())}
        return about | self._members(kind)

    def _modules(self, network: torch.nn.Module) -> dict[str, Any]:
        """Return what the parts of a network hold besides weights, but for torch's own."""
        return {
            f"{name}.{key}" if name else key: item
            for name, module in network.named_modules()
            if type(module).__module__.partition(".")[0] != "torch"
            for key, item in [*vars(module).items(), ("type", type(module))]
            if not key.startswith("_")
        }

    def _members(self, kind: type) -> dict[str, Any]:
        """Read what stands in a class and in those it inherits from, unless they are theirs."""
        members: dict[str, Any] = {}
        for base in kind.__mro__:
            if _is_theirs(base.__module__):
                members |= _version(base.__module__)
                continue
            if (known := self._again(base)) is not None:
                members[base.__qualname__] = known
                continue
            for name, member in sorted(vars(base).items()):
                # of what has two underscores Python writes some itself, as where a class stands
                if isinstance(member, _METHODS) or not name.startswith("__"):
                    members[f"{base.__qualname__}.{name}"] = self.read(member)
        return {"members": members} if members else {}


def _of_arguments(kind: type, held: dict[str, Any]) -> dict[str, Any]:
    """Return what an object holds; of one of the library without what follows from its arguments.

    Args:
        kind: Its class.
        held: Attributes by name. An argument `x` of the constructor is held as x or _x.
    """
    if kind.__module__.partition(".")[0] != "sdegen":
        return held
    names = set(inspect.signature(kind).parameters)
    arguments = {name: f"_{name}" if f"_{name}" in held else name for name in names}
    if any(key not in held and callable(getattr(kind, key, dict)) for key in arguments.values()):
        return held  # what it was made from is not all there
    public = {key: item for key, item in held.items() if not key.startswith("_")}
    return public | {name: held[key] for name, key in arguments.items() if key in held}


def _content(cell: Any) -> object:  # noqa: ANN401, a cell has no public type
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _globals(code: CodeType) -> set[str]:
    """Return globals that a code loads, those of functions inside it too; no attributes."""
    inner = [_globals(const) for const in code.co_consts if isinstance(const, CodeType)]
    loaded = {str(i.argval) for i in dis.get_instructions(code) if i.opname in _LOADS}
    return loaded.union(*inner)


def _code(code: CodeType) -> str:
    """Return the sha256 of a bytecode and its constants, not of the lines it stands in."""
    names = repr((code.co_names, code.co_varnames, code.co_freevars))
    text = "".join(map(_constant, code.co_consts)) + names
    return hashlib.sha256(code.co_code + text.encode()).hexdigest()


def _constant(const: object) -> str:
    """Return a constant of a code in words; a set, as in `x in {"a", "b"}`, is sorted."""
    if isinstance(const, CodeType):
        return _code(const)
    if isinstance(const, frozenset):
        return f"{{{', '.join(sorted(map(_constant, const)))}}}"
    if isinstance(const, tuple):
        return f"({', '.join(map(_constant, const))})"
    return repr(const)


def _is_theirs(module: str | None) -> bool:
    """Return whether a module is of a package whose version is told with every run."""
    return (module or "").partition(".")[0] in _THEIRS or bool(_version(module))


def _version(module: str | None) -> dict[str, str]:
    """Return the version of an installed package that is not told with every run."""
    root = (module or "").partition(".")[0]
    package = sys.modules.get(root)
    if root in _THEIRS or package is None:
        return {}
    places = [str(getattr(package, "__file__", "")), *map(str, getattr(package, "__path__", ()))]
    if not any(place.startswith(_INSTALLED) for place in places):
        return {}
    return {root: str(getattr(package, "__version__", ""))}
