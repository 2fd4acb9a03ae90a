"""What a diagnosis says: causes with their odds, and which of them is named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A mistake that was fitted to the steps of stored states.

        log_odds = log p(states | mistake)/p(states | belief) − what fitted numbers cost

    Attributes:
        name: The class of mistakes that have this law.
        kind: What it is a mistake of, such as "drift", "noise" or "boundary".
        sentence: What it says of a simulation, to follow "it behaves as if".
        log_odds: Natural logarithm of its odds against the law that is believed, fitted numbers
            charged for.
        value: A number that was fitted, or that the mistake consists of; None where there is none.
        error: Standard error of that number; None where it was not fitted.
        same_as: Other mistakes of the table that have the same law in these states.

    Example:
        >>> noisy = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.2)  # should have been 1.0
        >>> x0, times = torch.zeros(100, 1), [0.01 * k for k in range(101)]
        >>> states = sg.simulate(noisy, x0, times, rng=0).states
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> cause = sg.certify(ou, path=states, dt=0.01).diagnosis.causes[0]
        >>> cause.kind, f"{cause.value:.1f}"  # as much stronger
        ('noise', '1.2')
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
    """Which mistake explains stored states (T, batch, *event) that do not follow what is believed.

        odds = p(states | likeliest mistake)/p(states | next one)

    Attributes:
        named: The class of mistakes that explains them; None where none of the table does.
        odds: Those of the likeliest cause against the next one that is another statement. At most
            10 where the cause leaves something unexplained.
        causes: The likeliest causes, in order.
        sentence: The diagnosis in words.

    Example:
        >>> noisy = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.2)  # should have been 1.0
        >>> x0, times = torch.zeros(100, 1), [0.01 * k for k in range(101)]
        >>> states = sg.simulate(noisy, x0, times, rng=0).states
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> diagnosis = sg.certify(ou, path=states, dt=0.01).diagnosis
        >>> diagnosis.named
        'noise variance by a factor'
    """

    named: str | None
    odds: float
    causes: tuple[Cause, ...]
    sentence: str

    def __str__(self) -> str:
        return "\n".join([self.sentence, *map(str, self.causes)])
