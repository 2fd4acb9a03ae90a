"""Trajectory: what a simulation returns, always the same thing.

Paths are time-first. `times` are the times that were asked for, however finely a solver walked
between them.
"""

from dataclasses import dataclass, field

from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled


@dataclass(frozen=True)
class Trajectory(Labelled):
    """The paths of a simulation, and what it takes to judge and to repeat them.

        states[j] = X(times[j]),   j = 0 … T − 1

    Attributes:
        times: Times of the states, shape (T,), float64, in the direction of travel.
        states: States, shape (T, batch, *event); T = 1, the last, with keep_path=False.
        nfe: Evaluations of the drift (of the score, for reverse dynamics) that one trajectory
            took.
        seed: What to pass as rng to get the same bits again.
        nonfinite: Which trajectories were lost, shape (batch,). All False unless
            on_nonfinite="freeze"; a lost one stays where it last was finite.
        absorbed: Which trajectories an absorbing end had stopped by each of the times, shape
            (T, batch); None where nothing absorbs.
        windings: How often each coordinate went around a periodic boundary, upwards counted as
            positive, shape of states, int32; None where nothing is periodic.
        periods: Period of each coordinate, shape (*event,), 0 where it is not periodic; None
            where none is.
        step_error: Error of mean and spread by the size of the steps, from a pilot at half of
            them; None where none was made.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
        phase_space: Whether states are positions and velocities, shape (T, batch, 2, *event),
            of which `x` and `v` are views.
        functionals: Values of the functionals that were asked for, by name, shape (T, batch), in
            double precision; NaN for trajectories that were lost.

    Example:
        >>> rise = sg.ItoProcess(lambda t: 2 * t, 0.0)
        >>> path = sg.simulate(rise, torch.zeros(1, 1), [0.0, 1.0, 2.0], solver=sg.Heun())
        >>> path.states.flatten().tolist(), path.final.item(), path.nfe  # t²; two a step
        ([0.0, 1.0, 4.0], 4.0, 4)
    """

    times: Tensor
    states: Tensor
    nfe: int
    seed: int
    nonfinite: Tensor
    absorbed: Tensor | None = None
    windings: Tensor | None = None
    periods: Tensor | None = None
    step_error: ErrorEstimate | None = None
    slope_by: SlopeBy = "none"
    phase_space: bool = False
    functionals: dict[str, Tensor] = field(default_factory=dict)

    def trust(self) -> Trust:
        """Return what is known of the errors of its last states, a row for each cause."""
        n = int((~self.nonfinite).sum())
        lost = len(self.nonfinite) - n
        sampling = f"standard error of the mean {n**-0.5:.1e} of the std ({n} trajectories)"
        return Trust.of(
            "trajectories",
            step=self.step_error,
            grid="none",
            truncation=f"{lost} trajectories lost" if lost else None,
            sampling=sampling if n > 1 else None,
            slope_by=self.slope_by,
        )

    @property
    def final(self) -> State:
        """The last states, shape (batch, *event)."""
        return self.states[-1]

    @property
    def x(self) -> Tensor:
        """The positions of a run in phase space, a view of shape (T, batch, *event).

        Raises AttributeError if states are not positions and velocities.
        """
        return self._half(0)

    @property
    def v(self) -> Tensor:
        """The velocities of a run in phase space, a view of shape (T, batch, *event).

        Raises AttributeError if states are not positions and velocities.
        """
        return self._half(1)

    def _half(self, k: int) -> Tensor:
        """Return positions or velocities."""
        if not self.phase_space:
            raise AttributeError(
                "x and v are those of a run in phase space, such as of UnderdampedLangevin; take "
                "states."
            )
        return self.states[:, :, k]

    @property
    def finite(self) -> Tensor:
        """The states of the trajectories that were not lost, shape (T, kept, *event)."""
        return self.states[:, ~self.nonfinite]

    @property
    def unwrapped(self) -> Tensor:
        """The states on the line, where periodic coordinates count their turns, shape of states.

        x + L w, with w the windings, in double precision; coordinates that are not periodic are
        those of states, and all are where nothing is periodic.

        Raises:
            ValueError: If the turns were not counted, as in compiled runs.
        """
        if self.periods is None:
            return self.states
        if self.windings is None or self.windings.shape != self.states.shape:
            raise ValueError(
                "the turns around the period were not counted, as compiled runs do not; simulate "
                "with a solver without compile=True."
            )
        return self.states.double() + self.windings * self.periods.to(self.states.device)
