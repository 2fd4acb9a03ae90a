"""step_bias: how much of an average is due to the step.

A simulation that is right in every line has averages that are off by its step. Of a solver of weak
order p

    A(dt) = ⟨φ⟩ of the steps = A(0) + α dtᵖ + β dtᵖ⁺¹ + …

and how much that is can be seen without knowing A(0): chains at dt, dt/2 and dt/4 that walk on one
Brownian path differ by the step and by little else. Their two differences tell α and β
(`levels/expansion.py`), and the bias is told apart from a mistake, which a smaller step would not
mend: "⟨x²⟩ is 2.50 % ± 0.16 % too small because of the step; at dt = 0.01 it would be 0.22 %".

**At rest.** Starts are states of a path at dt, which has forgotten its own start. The chains at
dt/2 and dt/4 have another law at rest and must come to it: the first quarter of the steps is left
out. Whether that was enough is looked at: the averages that follow must not be correlated with the
starts, nor may averages and differences change from the first half of what is kept to the second.
Else all is done again with twice as many steps.

**At a time.** All chains begin at x0, and φ is averaged at t.

**The interval** holds the sampling error, by Student's law from the spread over trajectories,
which are independent, and what the two terms leave of the bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import AccuracyWarning
from sdegen.core.noise import Rng
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.pool import torch_threads
from sdegen.engine.starts import Start
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.levels.answer import StepBias, scale_of
from sdegen.verification.levels.expansion import Expansion, student
from sdegen.verification.levels.request import (
    FIRST_STEPS,
    MOST_STEPS,
    Problem,
    steps_of,
    validate,
)

_AGAIN, _TELLS = 3.5, 4.5  # standard errors of what is left of the starts


def step_bias(
    sde: SDE,
    observables: Mapping[str, Callable[[State], Tensor]],
    *,
    dt: float,
    path: Trajectory | StoredStates | Tensor | None = None,
    x0: Start | NDArray[np.floating] | None = None,
    t: float | Sequence[float] | None = None,
    solver: Solver | None = None,
    boundary: BoundaryLike | None = None,
    trajectories: int = 1000,
    steps: int | None = None,
    confidence: float = 0.95,
    rng: Rng = None,
) -> StepBias:
    """Return how much averages ⟨φ⟩ of a simulation are off because of its step dt.

        ⟨φ⟩_dt = ⟨φ⟩_0 + C dtᵖ + O(dtᵖ⁺¹)

    Two questions: averages at rest, of a `path` whose states are starts; or at the time t, from
    x0. Chains at dt, dt/2 and dt/4 are walked on one Brownian path for each trajectory.

    Args:
        sde: What moves: noise-free, or with diagonal noise or channels; at rest the same at all
            times.
        observables: φ by name, functions of states (batch, *event) that return (batch,) or
            (batch, k), each of a row by itself.
        dt: The step whose bias is asked for, > 0.
        path: A run at rest: what `simulate` or `read_states` returns, or states (T, batch,
            *event). The states of its later half are starts.
        x0: Starts for averages at a time: (n, *event), of which each is taken equally often, or a
            function x0(rows, rng=generator) that draws them.
        t: Time of the average, of a start at 0; or the pair of both times. Between them is a whole
            number of steps.
        solver: How it moves, by given steps and one increment each; EulerMaruyama() unless said,
            BAOAB() in a phase space.
        boundary: What the states are kept inside of, as `simulate` takes it; none that absorbs.
        trajectories: How many walk at all three steps, ≥ 30.
        steps: Steps of dt of averages at rest, ≥ 64, of which the first quarter is left out; None:
            1000, and twice as many, up to 16,000, while starts are not forgotten.
        confidence: How often the interval is to hold the bias.
        rng: Seed, generator, or None for fresh entropy; the result records the seed.

    Returns:
        The bias of each observable with its interval, in absolute and relative numbers, at dt and
        at smaller steps, and in sentences.

    Warns:
        AccuracyWarning: If starts are not forgotten; or if differences fall so slowly that the
            solver's order is in doubt.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit: steps that are part of the model, are chosen by an
            error, or have no declared weak order; ends that absorb; at rest, dynamics in time.
        NonFiniteError: If a chain or an observable is not finite.

    Reference:
        Talay and Tubaro 1990, Stoch. Anal. Appl. 8, 483, theorem 1, for the expansion.

    Example:
        >>> import torch, sdegen as sg
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> x0 = torch.ones(1, 1, dtype=torch.float64)
        >>> print(sg.step_bias(decay, {"x": lambda x: x[:, 0]}, dt=0.1, x0=x0, t=1.0))
        ⟨x⟩ is 5.22 % ± 0.03 % too small because of the step; at dt = 0.01 it would be 0.501 %
        >>> e = 2.718281828459045
        >>> round(100 * (1 - 0.9**10 * e), 2), round(100 * (1 - 0.99**100 * e), 3)  # exact
        (5.22, 0.502)
    """
    problem = validate(
        sde,
        observables,
        dt,
        path=path,
        x0=x0,
        t=t,
        solver=solver,
        boundary=boundary,
        trajectories=trajectories,
        steps=steps,
        confidence=confidence,
        rng=rng,
    )
    # each sum on one core, so that no bit depends on how many there are
    with torch.no_grad(), torch_threads(1):
        if problem.span is None:
            averages, squares, taken = _at_rest(problem, steps)
        else:
            taken = steps_of(problem)
            nodes = problem.nodes(taken)
            parts = [problem.chains.at_end(x, nodes, b) for b, x in _blocks(problem)]
            averages = torch.cat(parts, 2)[0]
            squares = averages[0].square().mean(0)
        answer = _answer(problem, averages, squares, taken)
    _warn_slow(answer)
    return answer


def _blocks(problem: Problem) -> list[tuple[int, State]]:
    """Return the numbers and the starts of all blocks."""
    rows, total = problem.rows, problem.trajectories
    return [
        (b, problem.block(b, first, min(rows, total - first)))
        for b, first in enumerate(range(0, total, rows))
    ]


def _at_rest(problem: Problem, steps: int | None) -> tuple[Tensor, Tensor, int]:
    """Return averages at rest, (3, rows, k), of squares, (k,), and how many steps it took."""
    blocks, taken = _blocks(problem), FIRST_STEPS if steps is None else steps
    before = torch.cat([problem.chains.quantities(x) for _, x in blocks]).cpu()
    while True:
        nodes = problem.nodes(taken)
        parts = [(len(x), *problem.chains.at_rest(x, nodes, b)) for b, x in blocks]
        windows = torch.cat([part for _, part, _ in parts], 2)
        squares = torch.stack([n * s for n, _, s in parts]).sum(0) / problem.trajectories
        left = _left_of_starts(problem.order, windows, before)
        if steps is not None or taken >= MOST_STEPS or float(left.max()) <= _AGAIN:
            break
        taken *= 2
    if float(left.max()) > _TELLS:
        column = int(left.argmax())
        name = next(
            n
            for n, place in problem.chains.quantities.columns().items()
            if (place == column if isinstance(place, int) else place.start <= column < place.stop)
        )
        warnings.warn(
            f"averages of {name} over {taken} steps of dt = {problem.chains.dt:g} still depend on "
            f"the starts, by {float(left.max()):.2g} standard errors: the interval of its bias "
            "may be too narrow. Pass a path at rest, or more steps=.",
            AccuracyWarning,
            stacklevel=3,
        )
    return windows.mean(0), squares, taken


def _left_of_starts(order: float, windows: Tensor, before: Tensor) -> Tensor:
    """Return by how many standard errors averages depend on starts, or change, shape (k,).

    Args:
        order: Weak order.
        windows: Averages, shape (windows, 3, rows, k).
        before: The observables at the starts, shape (rows, k).
    """
    rows = len(before)
    a, b = before - before.mean(0), windows[0, 0] - windows[0, 0].mean(0)
    size = (a.square().sum(0) * b.square().sum(0)).sqrt()
    memory: Tensor = torch.where(size > 0, (a * b).sum(0).abs() / size, 0.0) * rows**0.5
    half = len(windows) // 2
    halves = windows[:half].mean(0), windows[half:].mean(0)
    # that of the average itself, and that of its bias
    gaps = [halves[1][0] - halves[0][0], _bias_of(order, halves[1]) - _bias_of(order, halves[0])]
    for gap in gaps:
        error = gap.std(0) / rows**0.5
        change = torch.where(error > 0, gap.mean(0).abs() / error, 0.0)
        memory = torch.maximum(memory, change)
    return memory


def _bias_of(order: float, averages: Tensor) -> Tensor:
    """Return the bias of each row, shape (rows, k)."""
    differences = (averages[:-1] - averages[1:]).flatten(1)
    none = torch.zeros(2, 2, differences.shape[1], dtype=torch.float64)
    bias: Tensor = Expansion(order, differences, none, 0.0).value(1.0)
    each: Tensor = bias.reshape(averages.shape[1:])
    return each


def _answer(problem: Problem, averages: Tensor, squares: Tensor, steps: int) -> StepBias:
    """Return the result, from the averages of each trajectory, shape (3, rows, k)."""
    rows = averages.shape[1]
    differences = averages[:-1] - averages[1:]
    mean = differences.mean(1)
    away = differences - mean[:, None]
    quantile, covariance = 0.0, torch.zeros(2, 2, mean.shape[1], dtype=torch.float64)
    if problem.is_random:
        covariance = torch.einsum("irk,jrk->ijk", away, away) / (rows * (rows - 1))
        quantile = student(problem.confidence, rows)
    average = averages[0].mean(0)
    whole = Expansion(problem.order, mean, covariance, quantile)
    deviation = (squares - average.square()).clamp(min=0).sqrt()
    scale = scale_of(average - whole.value(1.0), deviation)
    places = problem.chains.quantities.columns()
    own = {n: p if isinstance(p, slice) else slice(p, p + 1) for n, p in places.items()}
    return StepBias(
        dt=problem.chains.dt,
        average={n: average[p] for n, p in places.items()},
        scale={n: scale[p] for n, p in places.items()},
        expansions={
            n: Expansion(problem.order, mean[:, p], covariance[:, :, p], quantile)
            for n, p in own.items()
        },
        order=problem.order,
        at_rest=problem.span is None,
        trajectories=rows,
        steps=steps,
        confidence=problem.confidence,
        seed=problem.chains.seed,
    )


def _warn_slow(answer: StepBias) -> None:
    """Warn of a bias that may be of a lower order than the solver's."""
    for name, expansion in answer.expansions.items():
        doubtful = expansion.is_doubtful
        if bool(doubtful.any()):
            k = int(doubtful.nonzero()[0])
            warnings.warn(
                f"from dt to dt/4 the bias of {name} falls as dt^"
                f"{float(expansion.shown_order[k]):.2g}, not as dt^{answer.order:g} as the solver "
                f"declares: dt = {answer.dt:g} is too large for an expansion, or the order is "
                "lower here, and the interval holds both. Pass half the step.",
                AccuracyWarning,
                stacklevel=3,
            )
