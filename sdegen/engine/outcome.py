"""Outcome: what the blocks of a simulation make together, whole, failed or interrupted."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch
from torch import Tensor

from sdegen.core.enclosure import Enclosure
from sdegen.core.errors import Interrupted, NonFiniteError, SdegenError, SolverError
from sdegen.core.trajectory import Trajectory
from sdegen.engine.record import Solution


def outcome_of(
    solutions: list[Solution],
    interrupted: bool,
    times: Tensor,
    *,
    keep_path: bool,
    seed: int,
    enclosure: Enclosure | None,
    phase_space: bool,
) -> Trajectory:
    """Return what the blocks make together.

    Raises:
        NonFiniteError: If the last block failed, or SolverError; with the path up to there.
        Interrupted: On Ctrl-C, with what is done.
    """
    if solutions and solutions[-1].failed_at is not None:
        raise _failure(solutions, times, keep_path, seed, enclosure, phase_space)
    if interrupted:
        raise _interruption(solutions, times, keep_path, seed, enclosure, phase_space)
    return _join(solutions, times if keep_path else times[-1:], seed, enclosure, phase_space)


def _join(
    solutions: list[Solution],
    times: Tensor,
    seed: int,
    enclosure: Enclosure | None,
    phase_space: bool,
) -> Trajectory:
    """Return one trajectory from the blocks."""
    reached = min(len(s.states) for s in solutions)
    states, absorbed, windings = (
        parts[0] if len(parts) == 1 else _cat(parts, reached)
        for parts in zip(*((s.states, s.absorbed, s.windings) for s in solutions), strict=True)
    )
    assert states is not None
    return Trajectory(
        times[:reached],
        states,
        max(s.nfe for s in solutions),
        seed,
        torch.cat([s.nonfinite for s in solutions]),
        absorbed=absorbed,
        windings=windings,
        periods=enclosure.periods() if enclosure is not None and enclosure.wraps else None,
        phase_space=phase_space,
        functionals=solutions[0].functionals  # none, of most runs
        and {
            name: torch.cat([s.functionals[name][:reached] for s in solutions], 1)
            for name in solutions[0].functionals
        },
    )


def _cat(parts: Sequence[Tensor | None], reached: int) -> Tensor | None:
    """Return what the blocks have, shape (reached, batch, …); None where they have none."""
    have = [part[:reached] for part in parts if part is not None]
    return torch.cat(have, 1) if len(have) == len(parts) else None


def _failure(
    solutions: list[Solution],
    times: Tensor,
    keep_path: bool,
    seed: int,
    enclosure: Enclosure | None,
    phase_space: bool,
) -> SdegenError:
    """Return the error, with the path up to the last time at which all was finite."""
    last = solutions[-1]
    lost, seen = int(last.nonfinite.sum()), sum(len(s.nonfinite) for s in solutions)
    finite = last.states.flatten(1).isfinite().all(1)
    good = int(finite.long().cumprod(0).sum())

    def upto(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:good]

    kept = [
        replace(s, states=s.states[:good], absorbed=upto(s.absorbed), windings=upto(s.windings))
        for s in solutions
    ]
    seen_finite = last.states[last.states.isfinite()].abs()
    largest = "none on record is finite"
    if len(seen_finite):
        largest = f"the largest finite value on record is {float(seen_finite.max()):.3g}"
    message = (
        f"{lost} of {seen} trajectories non-finite by t = {last.failed_at:g}; {largest}. "
        f"{last.advice}"
    )
    # without the path, what there is belongs to no time that was asked for
    whole = keep_path and good > 0
    result = _join(kept, times, seed, enclosure, phase_space) if whole else None
    return NonFiniteError(message, result) if last.why is None else SolverError(last.why, result)


def _interruption(
    solutions: list[Solution],
    times: Tensor,
    keep_path: bool,
    seed: int,
    enclosure: Enclosure | None,
    phase_space: bool,
) -> Interrupted:
    """Return the error of a Ctrl-C, with the first blocks that are done or else the first, cut.

    Threads may have ended a later block before an earlier one. It is left out: row i of a result
    is the trajectory that began at row i of x0.
    """
    end = float(times[-1])
    done = list(takewhile(lambda s: s.interrupted_at in (None, end), solutions))
    if not done and keep_path:
        done = solutions[:1]
    if not done:
        return Interrupted("interrupted before any trajectory was done.")
    result = _join(done, times if keep_path else times[-1:], seed, enclosure, phase_space)
    reached = float(result.times[-1])
    message = f"interrupted: {len(result.nonfinite)} trajectories are done up to t = {reached:g}."
    return Interrupted(message, result)
