"""The few exceptions of our own.

A bad request is a `ValueError` or a `TypeError`, raised before the first step. What is here is met
on the way: a computation that cannot go on. Where part of it was done, the exception carries that
part in `.result`.
"""


class SdegenError(Exception):
    """A numerical failure, with what had been computed so far.

    Attributes:
        result: What was computed before the failure (a `Trajectory`, a `TrainResult`, …), or None.

    Example:
        >>> growth = sg.ItoProcess(lambda x: x**3, 0.0)
        >>> try:
        ...     sg.simulate(growth, torch.full((1, 1), 9.0), torch.linspace(0, 40, 41))
        ... except sg.SdegenError as error:  # here a NonFiniteError
        ...     print(error.result.states[:2].flatten().tolist())  # 9, 9 + 9³
        [9.0, 738.0]
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class AccuracyWarning(UserWarning):
    """A result whose estimated error is larger than its user would expect; with the number.

    Example:
        >>> import warnings
        >>> decay = sg.ItoProcess(lambda x: -x, 0.5)
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     _ = sg.simulate(decay, torch.ones(400, 1), [0.0, 1.5], rng=0)  # one step
        >>> said[0].category.__name__
        'AccuracyWarning'
    """


class NonFiniteError(SdegenError):
    """A state, a loss or a density became NaN or infinite.

    Example:
        >>> growth = sg.ItoProcess(lambda x: x**3, 0.0)
        >>> try:
        ...     sg.simulate(growth, torch.full((1, 1), 9.0), torch.linspace(0, 40, 41))
        ... except sg.NonFiniteError as error:
        ...     print(error.result.times.tolist())
        [0.0, 1.0, 2.0, 3.0]
    """


class SolverError(SdegenError):
    """A solver could not go on: a step size that underflows, a tolerance that cannot be met.

    Example:
        >>> burst = sg.ItoProcess(lambda x: x**2, 0.0)  # x = 1/(1 − t)
        >>> try:
        ...     sg.simulate(burst, torch.ones(1, 1), [0.0, 2.0], solver=sg.TorchDiffEq())
        ... except sg.SolverError as error:
        ...     print(str(error)[:32])
        dopri5 could not go on at t = 1:
    """


class RankError(SdegenError):
    """Another process of the same run died, or refused it.

    Example:
        >>> try:  # what the others meet
        ...     raise sg.RankError("rank 1 of 2: rank 0 has refused the run.")
        ... except sg.SdegenError as error:
        ...     print(error)
        rank 1 of 2: rank 0 has refused the run.
    """


class NotNormalizableError(SdegenError):
    """There is no stationary density: e^Φ grows towards an end.

        Φ(x) = ∫ f/D dx − log D,   p ∝ e^Φ

    Example:
        >>> hill = sg.ItoProcess(lambda x: x, 1.0)
        >>> try:
        ...     sg.FokkerPlanck(hill, sg.Grid(-5.0, 5.0, 100)).stationary()
        ... except sg.NotNormalizableError as error:
        ...     print(str(error)[:59])
        there is no stationary density: it grows towards low x (at
    """


class CheckpointError(SdegenError):
    """A file of weights or of training state is damaged, or of another shape or format.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        ...     try:
        ...         sg.ScoreModel.load(file.name)
        ...     except sg.CheckpointError as error:
        ...         print("damaged" in str(error))
        True
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a long computation, after the step has ended, with what was done by then.

    Attributes:
        result: What was computed before (a `Trajectory`), or None.

    Example:
        >>> import signal
        >>> def drift(x, t):
        ...     if t > 0.5 and len(x) > 1000:  # as Ctrl-C does
        ...         signal.raise_signal(signal.SIGINT)
        ...     return -x
        >>> try:
        ...     decay, x0 = sg.ItoProcess(drift, 0.0), torch.ones(2000, 1)
        ...     sg.simulate(decay, x0, torch.linspace(0, 1, 11))
        ... except sg.Interrupted as stopped:
        ...     print(f"{stopped.result.times[-1].item():.1f}")
        0.7
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result
