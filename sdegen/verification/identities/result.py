"""Identities: what stored states obey on average, and by how much their step is off."""

from __future__ import annotations

from dataclasses import dataclass

from sdegen.readers.stored_states import StoredStates
from sdegen.verification.check import Check, Checked
from sdegen.verification.identities.bias import Bias


@dataclass(frozen=True)
class Identities(Checked):
    """What averages of stored states of shape (T, batch, *event) say.

    Attributes:
        checks: What holds exactly for right steps: a mistake where it fails.
        biases: What the SDE itself obeys, and a step only nearly.
        at_rest: Whether the law of the states was taken not to change.
        judged_as: The solver whose steps they were taken for.
        states: What was looked at.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> x0 = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 0.5**0.5
        >>> states = sg.simulate(ou, x0, [0.01 * k for k in range(101)], rng=0).states
        >>> found = sg.identities(ou, states, dt=0.01)
        >>> found.passed, found.at_rest, found.judged_as
        (True, True, 'EulerMaruyama')
    """

    checks: tuple[Check, ...]
    biases: tuple[Bias, ...]
    at_rest: bool
    judged_as: str
    states: StoredStates

    def __str__(self) -> str:
        rest = "at rest" if self.at_rest else "on their way"
        lines = [f"{self.states.shape[0]} frames {rest}, as steps of {self.judged_as}"]
        lines += [str(check) for check in self.checks]
        return "\n".join([*lines, *self.lines()])

    def beside(self, summary: str) -> str:
        """Return a summary of steps with what failed here."""
        reasons = [f"{c.name} ({c.remark})" if c.remark else c.name for c in self.failed]
        return f"{summary} Averages fail: {'; '.join(reasons)}." if reasons else summary

    def lines(self) -> list[str]:
        """Return the biases, a line each."""
        return [f"bias of the step  {row.sentence}" for row in self.biases]
