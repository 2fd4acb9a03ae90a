"""What a density may satisfy at an end: the conditions that grids know, and their words.

    no-flux      J = 0                     mass is kept
    absorbing    p = 0                     mass leaves
    periodic     p and J are the same at both ends, which are one place

Nothing heavy is imported here: a command line reads the words.
"""

from enum import StrEnum


class BoundaryCondition(StrEnum):
    """What a density satisfies at an end; a request may name one by its word.

        "no-flux": J = 0,   "absorbing": p = 0,   "periodic": p and J the same at both ends

    Example:
        >>> sg.BoundaryCondition("absorbing") is sg.Absorbing.condition
        True
        >>> [condition.absorbs for condition in sg.BoundaryCondition]
        [False, True, False]
    """

    NO_FLUX = "no-flux"  # J = 0
    ABSORBING = "absorbing"  # p = 0
    PERIODIC = "periodic"  # p and J are the same at both ends, which are one place

    __repr__ = str.__repr__  # messages have the word

    @property
    def absorbs(self) -> bool:
        """Whether mass leaves."""
        return self is BoundaryCondition.ABSORBING

    @property
    def wraps(self) -> bool:
        """Whether both ends are one place."""
        return self is BoundaryCondition.PERIODIC

    @property
    def reflects(self) -> bool:
        """Whether no current passes."""
        return self is BoundaryCondition.NO_FLUX


def condition_of(word: object, argument: str) -> BoundaryCondition:
    """Return the condition that a word names.

    Raises:
        ValueError: Naming the argument, what came, and the words there are.

    >>> condition_of("absorbing", "boundary").absorbs
    True
    """
    if isinstance(word, str) and word in set(BoundaryCondition):
        return BoundaryCondition(word)
    words = ", ".join(repr(condition) for condition in BoundaryCondition)
    raise ValueError(f"{argument} must be one of {words}, but is {word!r}.")
