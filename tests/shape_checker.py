"""What the suite checks at run time: shapes and dtypes signed with jaxtyping, and no more.

Words (`Literal`) and kinds (`int`, `str`) stay with our own refusals, whose messages are tested:
a checker that stands before them would answer in their place. A function that is signed with no
shape stays as it is: jaxtyping would bind its arguments at each call, and build two functions
for each closure, to check nothing.
"""

import inspect
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import jaxtyping
from beartype import beartype

_jaxtyped = jaxtyping.jaxtyped
_WITHOUT = set()  # code of functions that are signed with no shape: closures are made often


def install():
    """Checks every function of the package that is signed with shapes, as it is loaded."""
    jaxtyping.jaxtyped = _where_signed
    # never taken away again: modules are loaded when a test first uses them
    jaxtyping.install_import_hook("sdegen", "shape_checker.check_shapes")


def check_shapes(function):
    """Checks those arguments and results of a function that are signed with shapes."""
    try:
        hints = get_type_hints(function)
    except NameError:  # a name that only type checkers see
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return beartype(function)


def _where_signed(*, typechecker):
    """Stands for `jaxtyping.jaxtyped` in the package; leaves alone what signs no shape."""

    def decorate(thing):
        signed = _is_signed(thing.__init__ if inspect.isclass(thing) else thing)
        return _jaxtyped(thing, typechecker=typechecker) if signed else thing

    return decorate


def _is_signed(function):
    """Whether any argument or result is signed with a shape, as jaxtyping reads signatures."""
    code = getattr(function, "__code__", None)
    if code in _WITHOUT:
        return False
    whole = True
    for hint in getattr(function, "__annotations__", {}).values():
        if isinstance(hint, str):
            try:
                hint = eval(hint, function.__globals__)
            except Exception:  # a name that only type checkers see: nobody checks it
                whole = False
                continue
        if _has_shape(hint):
            return True
    if whole:
        _WITHOUT.add(code)
    return False


def _has_shape(hint):
    """Whether a hint is a jaxtyping array, or a union or tuple of nothing else."""
    if get_origin(hint) in (Union, UnionType, tuple):
        return all(_has_shape(part) for part in get_args(hint) if part is not type(None))
    return getattr(type(hint), "__module__", "").startswith("jaxtyping")
