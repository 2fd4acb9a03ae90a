"""The few exceptions of our own.

A bad request is a `ValueError` or a `TypeError`, raised before the first step. What is here is met
on the way: a computation that cannot go on. Where part of it was done, the exception carries that
part in `.result`.
"""


class SdegenError(Exception):
    """A numerical failure, with what had been computed so far.

    Attributes:
        result: What was computed before the failure (a `Trajectory`, a `TrainResult`, …), or None.
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class AccuracyWarning(UserWarning):
    """A result whose estimated error is larger than its user would expect; with the number."""


class NonFiniteError(SdegenError):
    """A state, a loss or a density became NaN or infinite."""


class SolverError(SdegenError):
    """A solver could not go on: a step size that underflows, a tolerance that cannot be met."""


class RankError(SdegenError):
    """Another process of the same run died, or refused it."""


class NotNormalizableError(SdegenError):
    """There is no stationary density: e^Φ grows towards an end."""


class CheckpointError(SdegenError):
    """A file of weights or of training state is damaged, or of another shape or format."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a long computation, after the step has ended, with what was done by then.

    Attributes:
        result: What was computed before (a `Trajectory`), or None.
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result
