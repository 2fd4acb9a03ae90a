"""Progress of steps that a solver chooses: where it goes on for ever without an end.

A drift that jumps against the flow, such as −sign(x), holds a state on the jump, and every step
meets it: its error is that of order 0, dt times the jump, so that steps shrink to the tolerance,
or to what t resolves. Such a run would end after hours, if at all. Steps that are short for a
reason, of a stiff drift or of a fast one, either go on or have drifts that change little in each.
"""

from __future__ import annotations

from torch import Tensor

TRIES = 2000  # steps in a row that are looked at together
_SHARE = 5e-4  # of the run, that they must go on by: at this pace it takes 4 million
_ROUGH = 0.5  # of them, that were refused or met a jump
_JUMP = 0.5  # of the largest |f|, by which it changes from one step to the next


class Progress:
    """What the steps of one run have come to.

    Args:
        span: Length of the run in time, > 0.
    """

    def __init__(self, span: float) -> None:
        self._span = span
        self._tries = self._rough = 0
        self._since = self._t = 0.0
        self._drift: Tensor | None = None

    def halts(self, t: float, drift: Tensor) -> bool:
        """Return whether the steps so far met jumps or were refused, and went on by next to none.

        Args:
            t: Where a step is about to be tried.
            drift: The last that was asked for.
        """
        drift = drift.detach()
        if self._tries == 0:
            self._since = t
        elif t == self._t:
            self._rough += 1
        elif self._drift is not None and drift.numel() > 0:
            jump = (drift - self._drift).abs().max()
            self._rough += int(jump > _JUMP * drift.abs().max())
        self._t, self._drift = t, drift
        self._tries += 1
        if self._tries < TRIES:
            return False
        slow = abs(t - self._since) < _SHARE * self._span
        halts = slow and self._rough > _ROUGH * TRIES
        self._tries = self._rough = 0
        return halts
