"""What the suite checks at run time: shapes and dtypes signed with jaxtyping, and no more.

Words (`Literal`) and kinds (`int`, `str`) stay with our own refusals, whose messages are tested:
a checker that stands before them would answer in their place.
"""

from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from beartype import beartype


def check_shapes(function):
    """Checks those arguments and results of a function that are signed with shapes."""
    try:
        hints = get_type_hints(function)
    except NameError:  # a name that only type checkers see
        return function
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return beartype(function)


def _has_shape(hint):
    """Whether a hint is a jaxtyping array, or a union or tuple of nothing else."""
    if get_origin(hint) in (Union, UnionType, tuple):
        return all(_has_shape(part) for part in get_args(hint) if part is not type(None))
    return getattr(type(hint), "__module__", "").startswith("jaxtyping")
