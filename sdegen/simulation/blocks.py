"""Blocks: trajectories are run in blocks of fixed size, each with a random stream of its own.

The stream of a block follows from (seed, block), so that the numbers of a full block depend
neither on how many other blocks there are nor on the order in which they run; only the last may be
smaller, and is then reproducible for the same number of trajectories. A block is small enough for
its state to stay in cache for all its steps, which a loop over all of a large ensemble never has.

That the bits are the same holds on one type of device and for one way to take the steps: compiled
runs (`EulerMaruyama(compile=True)`) round otherwise than steps one by one.

Trajectories that feel each other (a mean field) cannot be cut into blocks: see
`sdegen.sde.rows`.
"""

from dataclasses import replace

from torch import Tensor

from sdegen.noise import Streams
from sdegen.sde.base import SDE
from sdegen.shapes import State
from sdegen.solvers.base import Conditions, Solution, Solver

__all__ = ["block_rows", "check_interacting", "solve_block"]

# numbers in a block: on a CPU what stays, with the intermediate results of a step, in a
# second-level cache; with fewer, threads wait for each other's turn with the interpreter. No power
# of two: ensembles are powers of ten, and their last block shall not leave threads without work
_NUMBERS = {"cpu": 50_000}
_NUMBERS_ON_DEVICE = 2**24  # what fills a GPU
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
    if conditions.boundary is not None:
        # of its own, so that a trajectory that meets no absorbing end keeps its bits
        conditions = replace(conditions, uniforms=Streams(seed, "boundary").block(block))
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
