"""What a diagnosis says: causes with their odds, and which of them is named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A mistake that was fitted to the steps of stored states.

    Attributes:
        name: The class of mistakes that have this law.
        kind: What it is a mistake of, such as "drift", "noise" or "boundary".
        sentence: What it says of a simulation, to follow "it behaves as if".
        log_odds: Natural logarithm of its odds against the law that is believed, fitted numbers
            charged for.
        value: A number that was fitted, or that the mistake consists of; None where there is none.
        error: Standard error of that number; None where it was not fitted.
        same_as: Other mistakes of the table that have the same law in these states.
    """

    name: str
    kind: str
    sentence: str
    log_odds: float
    value: float | None = None
    error: float | None = None
    same_as: tuple[str, ...] = ()

    def __str__(self) -> str:
        same = f", or {', or '.join(self.same_as)}" if self.same_as else ""
        return f"{self.name}{same}: log-odds {self.log_odds:.4g}"


@dataclass(frozen=True)
class Diagnosis:
    """Which mistake explains stored states that do not follow what is believed.

    Attributes:
        named: The class of mistakes that explains them; None where none of the table does.
        odds: Those of the likeliest cause against the next one that is another statement. At most
            10 where the cause leaves something unexplained.
        causes: The likeliest causes, in order.
        sentence: The diagnosis in words.
    """

    named: str | None
    odds: float
    causes: tuple[Cause, ...]
    sentence: str

    def __str__(self) -> str:
        return "\n".join([self.sentence, *map(str, self.causes)])
