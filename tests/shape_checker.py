"""What the suite checks at run time: shapes and dtypes signed with jaxtyping, and no more.

Words (`Literal`) and kinds (`int`, `str`) stay with our own refusals, whose messages are tested:
a checker that stands before them would answer in their place.

`jaxtyping.jaxtyped` with a checker would do the same, but binds the arguments of each call, checks
each of them twice, makes and compiles two functions for each closure, and asks for the name of a
dtype and copies of four tables at each array: more than half of the time that a certificate takes.
Here a signature is read once, closures of one code share what was read, an array is compared with
the numbers and names of its hint, and a function that signs no shape stays as it is.
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
    if thing.__qualname__ == "Reader._answers":
        return _asked_in_columns(thing)
    arguments, result = _signature(thing)
    if not arguments and result is None:
        return thing
    config = jaxtyping.config

    @functools.wraps(thing)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return thing(*args, **kwargs)
        names = {}  # of dimensions, which mean one number in a call
        for place, name, hint, fits in arguments:
            value = args[place] if place < len(args) else kwargs.get(name, _ABSENT)
            if value is not _ABSENT and not fits(value, names):
                raise _error(thing, f"{name}=", value, hint, args, kwargs)
        out = thing(*args, **kwargs)
        if result is not None and not result[1](out, names):
            raise _error(thing, "its result ", out, result[0], args, kwargs)
        return out

    return wrapper


_ABSENT = object()


def _asked_in_columns(answers):
    """A density on a line asks at many times at once, with a column of them that no hint has.

    Refused here, it would ask for one after the other, as no run of a user does.
    """
    config = jaxtyping.config

    @functools.wraps(answers)
    def wrapper(self, x, t):
        if t.ndim < 2 or config.jaxtyping_disable:
            return answers(self, x, t)
        config.jaxtyping_disable = True
        try:
            return answers(self, x, t)
        finally:
            config.jaxtyping_disable = False

    return wrapper


def _signature(function):
    """The arguments that are signed with shapes, (place, name, hint, fits), and (hint, fits)."""
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
        read = {name: (hint, _reader(hint)) for name, hint in hints.items()}
        arguments = [
            (places.get(name, len(kinds)), name, *read[name]) for name in kinds if name in read
        ]
        found = _SIGNED[key] = arguments, read.get("return")
    return found


def _has_shape(hint):
    """Whether a hint is a jaxtyping array, or a union or tuple of nothing else."""
    if get_origin(hint) in (Union, UnionType, tuple):
        parts = [part for part in get_args(hint) if part not in (type(None), ...)]
        return bool(parts) and all(_has_shape(part) for part in parts)
    return getattr(type(hint), "__module__", "").startswith("jaxtyping")


def _reader(hint):
    """A function of a value and the names so far: whether it is what a hint of `_has_shape` says.

    Names that a value gives a number are added, if it fits.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is None:
        return _array(hint)
    if origin is not tuple:
        options = [_reader(part) for part in parts if part is not type(None)]
        optional = len(options) < len(parts)

        def union(value, names):
            if value is None:
                return optional
            return any(fits(value, names) for fits in options)

        return union
    if parts[-1] is ...:
        each = _reader(parts[0])
        return lambda value, names: (
            isinstance(value, tuple) and all(each(item, names) for item in value)
        )
    every = [_reader(part) for part in parts]
    return lambda value, names: (
        isinstance(value, tuple)
        and len(value) == len(every)
        and all(fits(item, names) for fits, item in zip(every, value, strict=True))
    )


def _array(hint):
    """The same for an array: its kind and dtype, and sizes that are numbers or names."""
    kind, at, dtypes = hint.array_type, hint.index_variadic, {}
    whatever = hint.dtype[kind, "..."]  # of any shape
    count, sizes, several = len(hint.dims), [], None
    for k, dim in enumerate(hint.dims):
        if "Anonymous" in type(dim).__name__:  # of any size
            continue
        size = getattr(dim, "size", getattr(dim, "name", None))
        if size is None or dim.broadcastable or getattr(dim, "treepath", False):
            raise NotImplementedError(f"the dimension {dim} of {hint}")
        if k == at:
            several = f"*{size}"
        else:
            sizes.append((k if at is None or k < at else k - count, size))

    def fits(value, names):
        if not isinstance(value, kind):
            return False
        dtype = value.dtype
        if dtype not in dtypes:
            dtypes[dtype] = isinstance(value, whatever)
        shape = value.shape
        if not dtypes[dtype] or (len(shape) != count if at is None else len(shape) < count - 1):
            return False
        met = {}
        for place, size in sizes:
            found = shape[place]
            if type(size) is int:
                if found != size:
                    return False
            elif met.setdefault(size, names.get(size, found)) != found:
                return False
        if several is not None:
            found = shape[at : len(shape) - count + 1 + at]
            if met.setdefault(several, names.get(several, found)) != found:
                return False
        names.update(met)
        return True

    return fits


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
