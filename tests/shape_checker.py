"""What the suite checks at run time: shapes and dtypes signed with jaxtyping, and no more.

Words (`Literal`) and kinds (`int`, `str`) stay with our own refusals, whose messages are tested:
a checker that stands before them would answer in their place.

`jaxtyping.jaxtyped` with a checker would do the same, but binds the arguments of each call, checks
each of them twice, and makes and compiles two functions for each closure: two thirds of the time
that a certificate takes. Here a signature is read once, closures of one code
share what was read, and a function that signs no shape stays as it is.
"""

import dataclasses
import functools
import inspect
from types import UnionType
from typing import Union, get_args, get_origin

import jaxtyping

_SIGNED = {}  # a function's code and name → its signed arguments, and the hint of its result


def install():
    """Checks every function of the package that is signed with shapes, as it is loaded."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    # never taken away again: modules are loaded when a test first uses them
    jaxtyping.install_import_hook("sdegen", None)


def checked(thing):
    """A function, or a dataclass with its `__init__`, that checks what it is signed with."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and not hasattr(thing.__init__, "__wrapped__"):
            thing.__init__ = checked(thing.__init__)
        return thing
    arguments, result = _signature(thing)
    if not arguments and result is None:
        return thing

    @functools.wraps(thing)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return thing(*args, **kwargs)
        with _names("context"):
            for place, name, hint in arguments:
                value = args[place] if place < len(args) else kwargs.get(name, _ABSENT)
                if value is not _ABSENT and not _fits(value, hint):
                    raise _error(thing, f"{name}=", value, hint, args, kwargs)
            out = thing(*args, **kwargs)
            if result is not None and not _fits(out, result):
                raise _error(thing, "its result ", out, result, args, kwargs)
        return out

    return wrapper


_names = jaxtyping.jaxtyped  # as a context: names of dimensions mean one number in it
_ABSENT = object()


def _signature(function):
    """The arguments that are signed with shapes, as (place, name, hint), and the result's hint."""
    # codes of two dataclasses with the same fields are equal: they have names besides
    key = function.__code__, function.__module__, function.__qualname__
    found = _SIGNED.get(key)
    if found is None:
        hints = {}
        for name, hint in function.__annotations__.items():
            if isinstance(hint, str):
                try:
                    hint = eval(hint, function.__globals__)
                except Exception:  # a name that only type checkers see
                    continue
            if _has_shape(hint):
                hints[name] = hint
        kinds = inspect.signature(function).parameters
        if any(kinds[n].kind in (2, 4) for n in hints if n != "return"):  # *args, **kwargs
            raise NotImplementedError(f"shapes of *args of {function.__qualname__}")
        places = {name: i for i, (name, p) in enumerate(kinds.items()) if p.kind != p.KEYWORD_ONLY}
        arguments = [
            (places.get(name, len(kinds)), name, hints[name]) for name in kinds if name in hints
        ]
        found = _SIGNED[key] = arguments, hints.get("return")
    return found


def _has_shape(hint):
    """Whether a hint is a jaxtyping array, or a union or tuple of nothing else."""
    if get_origin(hint) in (Union, UnionType, tuple):
        parts = [part for part in get_args(hint) if part not in (type(None), ...)]
        return bool(parts) and all(_has_shape(part) for part in parts)
    return getattr(type(hint), "__module__", "").startswith("jaxtyping")


def _fits(value, hint):
    """Whether a value is what a hint of `_has_shape` says."""
    origin = get_origin(hint)
    if origin is None:
        return isinstance(value, hint)
    parts = get_args(hint)
    if origin is not tuple:
        return any(value is None if part is type(None) else _fits(value, part) for part in parts)
    if not isinstance(value, tuple):
        return False
    if parts[-1] is ...:
        return all(_fits(item, parts[0]) for item in value)
    return len(value) == len(parts) and all(map(_fits, value, parts))


def _error(function, what, value, hint, args, kwargs):
    """What came and what was signed; shapes of all arguments, whose names must agree."""

    def told(thing):
        if isinstance(thing, tuple):
            return f"({', '.join(map(told, thing))})"
        shape = getattr(thing, "shape", None)
        return type(thing).__name__ if shape is None else f"{thing.dtype}{list(shape)}"

    others = ", ".join([*map(told, args), *(f"{name}={told(v)}" for name, v in kwargs.items())])
    return jaxtyping.TypeCheckError(
        f"{function.__module__}.{function.__qualname__}: {what}{told(value)}, but it is signed "
        f"{hint}; called with ({others})"
    )
