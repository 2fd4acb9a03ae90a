"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend
neither on how many other blocks there are nor on the order in which they run; only the last may be
smaller, and is then reproducible for the same number of trajectories. A block is small enough for
its state to stay in cache for all its steps, which a loop over all of a large ensemble never has.

That the bits are the same holds on one type of device and for one way to take the steps: compiled
runs (`EulerMaruyama(compile=True)`) round otherwise than steps one by one.

Trajectories that feel each other (a mean field) cannot be cut into blocks. `couples` sees that
from outside.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.noise import Stream, Streams
from sdegen.sde.base import SDE
from sdegen.shapes import State
from sdegen.solvers.base import Conditions, Solution, Solver

__all__ = ["block_rows", "check_interacting", "couples", "solve_block"]

# numbers in a block: on a CPU what stays, with the intermediate results of a step, in a
# second-level cache; with fewer, threads wait for each other's turn with the interpreter. No power
# of two: ensembles are powers of ten, and their last block shall not leave threads without work
_NUMBERS = {"cpu": 50_000}
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
_DISPLACEMENTS = (1.0, 1e-2, 1e-4)
_FEWEST_ROWS = 256  # networks on large events still get a batch worth having


def block_rows(x0: State) -> int:
    """Trajectories in a block, from the size of an event and the kind of device alone."""
    numbers = _NUMBERS.get(x0.device.type, _NUMBERS_ON_DEVICE)
    return max(_FEWEST_ROWS, numbers // max(1, x0[0].numel()))


def solve_block(
    sde: SDE,
    solver: Solver,
    x0: State,
    times: Tensor,
    *,
    block: int,
    seed: int,
    keep_path: bool,
    conditions: Conditions = Conditions(),  # noqa: B008 (it is frozen)
) -> Solution:
    """Carries one block along the times, with the stream (seed, "dynamics", block).

    Everything has been checked at the door; what gradients are recorded is the caller's choice.

    Args:
        sde: What moves.
        solver: How it moves.
        x0: The block's states at times[0], shape (rows, *event).
        times: Shape (T,), float64, on the CPU.
        block: Number of the block, 0 ≤ block < 2³².
        seed: Seed of the run.
        keep_path: Whether all T states are kept, or the last one alone.
        conditions: As `Solver.solve` takes them.

    Returns:
        The block as far as it went: `failed_at` and `interrupted_at` say whether to the end.
    """
    noise = Streams(seed, "dynamics").block(block) if solver.draws(sde) else None
    return solver.solve(sde, x0, times, noise=noise, keep_path=keep_path, conditions=conditions)


def check_interacting(interacting: object) -> None:
    """Refuses what is neither yes nor no nor None.

    Raises:
        TypeError: If it is anything else.
    """
    if not (interacting is None or isinstance(interacting, bool)):
        raise TypeError(
            f"interacting must be True, False or None (find out), but is {interacting!r}."
        )


def couples(sde: SDE, rows: State, times: Tensor, noise: Stream) -> bool:
    """Whether the drift or the diffusion of one trajectory depends on the others.

    Evaluates a few rows at the first, the middle and the last of the times (of a chain: of those
    from which a step starts), and once more with all but one of them put elsewhere: what that one
    then gets is coupled if it differs by more than
    rounding. They are put apart by independent noise of three sizes, since all trajectories may
    start at one point, where a mean field vanishes, and forces may be of short range; and once
    more around one point, since trajectories that start far apart may meet later.

    Not seen: a force of a range below 1e-4 of |x|, one that sets in between the three times or
    further from the starts than they are from 0, and one that is weaker than the rounding of f and
    g, which are asked in double precision where they take it.

    Args:
        sde: What moves.
        rows: A few states, shape (n, *event).
        times: Shape (T,).
        noise: Stream for the displacement.
    """
    if len(rows) < 2:
        return False
    z, w = (noise.normal(tuple(rows.shape), dtype=rows.dtype, device=rows.device) for _ in "xy")
    reach = 0.1 + rows.abs().mean()
    pairs = [
        (start + d * reach * z, start + d * reach * w)
        for start in (rows, rows[:1].expand_as(rows))
        for d in _DISPLACEMENTS
    ]
    asked = [(pair, times[0]) for pair in pairs]
    # a chain has no step that starts at its last time
    starts = times[:-1] if sde.clock == "integer" else times
    asked += [(pairs[0], t) for t in (starts[len(starts) // 2], starts[-1])]
    return any(
        _couples(field, *pair, t) for field in (sde.drift, sde.diffusion) for pair, t in asked
    )


def _couples(field: Callable[[State, Tensor], Tensor], x: State, y: State, t: Tensor) -> bool:
    """Whether a row of x gets another value among those of y; False where that is not finite."""
    try:
        field(x.double(), t)
        x, y = x.double(), y.double()
    except Exception:
        pass  # as parameters in single precision raise; in x's own it is asked below
    among_own = field(x, t).expand_as(x)
    # the same number of rows: a matrix product of another one rounds otherwise
    among_others = torch.stack(
        [
            field(torch.cat([y[:i], x[i : i + 1], y[i + 1 :]]), t).expand_as(x)[i]
            for i in range(len(x))
        ]
    )
    if not bool((among_own.isfinite() & among_others.isfinite()).all()):
        return False  # the smaller displacements are for fields that live on part of space
    tolerance = 64 * torch.finfo(x.dtype).eps * among_own.abs().max()
    return bool(((among_own - among_others).abs() > tolerance).any())
