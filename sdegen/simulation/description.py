"""Description: what a run was made of, as JSON, so that another run can be told from it.

An SDE, a solver, walls and observables are described by their class and by what they hold, all the
way down: numbers and words as they are, tensors by their sha256 (a few numbers as they are), a
function by a sha256 of its bytecode, with its defaults, what it closes over, and the globals that
it names. A class that is neither ours nor torch's is described by the bytecode of its methods too.
So a drift in which 0.5 has become 0.7 is another drift, wherever the number is kept, and one that
only moved to another line is the same.

What is not seen: what a function reaches through attributes of a module, through a file, or inside
an extension module. The bytecode is that of one minor version of Python, which belongs to the
description of a run for that reason.
"""

import functools
import hashlib
import math
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.storage import fingerprint

__all__ = ["described", "difference"]

_FEW = 8  # numbers of a tensor that are written out
_DEEPEST = 24
_THEIRS = {"sdegen", "torch", "numpy", "builtins", "abc", "typing", "jaxtyping", "math", "enum"}


def described(value: object) -> Any:  # noqa: ANN401, whatever JSON can hold
    """The value in words of JSON; two that behave differently are described differently.

    >>> described({"substeps": 10, "dtype": torch.float64})
    {'substeps': 10, 'dtype': 'torch.float64'}
    """
    return _described(value, ())


def difference(there: object, here: object, path: str = "") -> str | None:
    """The first place where two descriptions differ, in words, or None.

    >>> difference({"seed": 1}, {"seed": 2})
    'seed is 1 there and 2 here'
    """
    if isinstance(there, dict) and isinstance(here, dict):
        kinds = there.get("class"), here.get("class")
        if kinds[0] != kinds[1]:
            return f"{path} is {_short(kinds[0])} there and {_short(kinds[1])} here"
        for key in [*here, *(key for key in there if key not in here)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in there or key not in here:
                which = "there" if key in there else "here"
                return f"{inner} is only {which}"
            found = difference(there[key], here[key], inner)
            if found is not None:
                return found
        return None
    if there == here:
        return None
    if path.endswith(".code"):
        return f"the code of {path.removesuffix('.code')} is another"
    return f"{path} is {_short(there)} there and {_short(here)} here"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _described(value: object, above: tuple[int, ...]) -> Any:  # noqa: ANN401
    """The value; above are the objects that it is part of, so that a circle ends."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return _described(value.item(), above)
    if id(value) in above or len(above) > _DEEPEST:
        return "…"
    inside = (*above, id(value))
    if isinstance(value, Tensor):
        if value.numel() <= _FEW and not value.is_complex():
            return {"tensor": _described(value.tolist(), inside), "dtype": str(value.dtype)}
        return {"tensor": fingerprint(value)}
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.sha256(f"{value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
        return {"array": digest.hexdigest()}
    if isinstance(value, Mapping):
        return {str(key): _described(item, inside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item, inside) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(_described(item, inside)) for item in value)
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
        return {"class": "functools.partial"} | _described(parts, inside)
    if isinstance(value, MethodType):
        return {"method": value.__name__, "of": _described(value.__self__, inside)}
    if isinstance(value, FunctionType):
        return _function(value, inside)
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, BuiltinFunctionType | ModuleType | type):
        return value.__name__
    return _object(value, inside)


def _function(function: FunctionType, inside: tuple[int, ...]) -> dict[str, Any]:
    """A function by what it does: its code, and the values that it brings along."""
    about: dict[str, Any] = {"function": function.__qualname__}
    if _is_theirs(function.__module__) and function.__closure__ is None:
        return about | {"module": function.__module__}
    about["code"] = _code(function.__code__)
    closure = function.__closure__ or ()
    cells = dict(zip(function.__code__.co_freevars, closure, strict=True))
    parts: dict[str, Any] = {
        "defaults": function.__defaults__,
        "keyword_defaults": function.__kwdefaults__,
        "closure": {name: _content(cell) for name, cell in cells.items()},
    }
    if not _is_theirs(function.__module__):
        names = sorted(_names(function.__code__))
        held = function.__globals__
        parts["globals"] = {name: held[name] for name in names if name in held}
    return about | {key: _described(part, inside) for key, part in parts.items() if part}


def _content(cell: Any) -> object:  # noqa: ANN401, a cell has no public type
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _names(code: CodeType) -> set[str]:
    """Globals and attributes that a code names, those of functions inside it too."""
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: CodeType) -> str:
    """The sha256 of a bytecode and its constants, not of the lines that it stands in."""
    digest = hashlib.sha256(code.co_code)
    for const in code.co_consts:
        text = _code(const) if isinstance(const, CodeType) else repr(const)
        digest.update(text.encode())
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    return digest.hexdigest()


def _object(value: object, inside: tuple[int, ...]) -> dict[str, Any]:
    """An object by its class, what it holds, and what a user's own class does."""
    kind = type(value)
    about: dict[str, Any] = {"class": kind.__qualname__}
    if isinstance(value, torch.nn.Module):
        state = value.state_dict()
        digest = hashlib.sha256()
        for name in sorted(state):
            digest.update(f"{name} {fingerprint(state[name])} ".encode())
        about |= {"network": str(value), "state": digest.hexdigest()}
        held: dict[str, Any] = {}
    else:
        held = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    held[name] = getattr(value, name)
    about |= {name: _described(item, inside) for name, item in sorted(held.items())}
    methods = {
        f"{base.__qualname__}.{name}": _described(member, inside)
        for base in kind.__mro__
        if not _is_theirs(base.__module__)
        for name, member in sorted(vars(base).items())
        if isinstance(member, FunctionType)
    }
    return about | ({"methods": methods} if methods else {})


def _is_theirs(module: str | None) -> bool:
    """Whether a module is of a package whose version is part of the description."""
    return (module or "").partition(".")[0] in _THEIRS
