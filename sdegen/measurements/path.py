"""Paths that are measured: a `Trajectory`, or an array of states with their times.

Trajectories that were lost, and those of an array that are not finite throughout, are left out and
counted. A long single trajectory has errors too: it is cut into parts of equal length, one after
the other, and each counts as a trajectory. That holds as far as the parts are independent: what
correlates them, a memory as long as a part, makes the errors too small.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import as_state, as_time_grid
from sdegen.core.trajectory import Trajectory

_PARTS = 16  # of a single trajectory


@dataclass(frozen=True)
class MeasuredPath:
    """States that are measured.

    Attributes:
        times: Shape (T,), float64.
        states: Shape (T, kept, *event), float64, on the CPU.
        lost: Trajectories that were left out.
        absorbed: Which had been absorbed by each of the times, shape (T, kept), or None.
    """

    times: Tensor
    states: Tensor
    lost: int
    absorbed: Tensor | None


def measured_path(
    path: object, times: object, *, unwrapped: bool, positions: bool = False
) -> MeasuredPath:
    """Return what is measured.

    Args:
        path: A `Trajectory`, or states of shape (T, batch, *event).
        times: Of the states, shape (T,); None with a `Trajectory`, which has its own.
        unwrapped: Whether periodic coordinates of a `Trajectory` are taken on the line.
        positions: Whether of a `Trajectory` in phase space positions alone are taken.

    Raises:
        TypeError: If path is neither, or times are given beside a `Trajectory`.
        ValueError: If shapes do not fit, or no trajectory is left.
    """
    if isinstance(path, Trajectory):
        if times is not None:
            raise TypeError("times came beside a Trajectory, which has its own; leave them out.")
        grid, absorbed = path.times, path.absorbed
        states = path.unwrapped if unwrapped else path.states
        states = states[:, :, 0] if positions and path.phase_space else states
        lost = path.nonfinite
    else:
        states, absorbed = as_state("path", path), None
        if states.ndim < 2:
            raise ValueError(
                "path must be states of shape (T, batch, *event), but has shape "
                f"{tuple(states.shape)}; pass path[:, None] of a single trajectory."
            )
        if times is None:
            raise TypeError(
                "times must be the times of the states, but is None; pass times=torch.linspace("
                "t_start, t_end, n), or a Trajectory."
            )
        grid, lost = as_time_grid(times), torch.zeros(states.shape[1], dtype=torch.bool)
    if len(states) != len(grid) or len(grid) < 2:
        raise ValueError(
            f"path has {len(states)} states along its first axis, and times are {len(grid)}: they "
            "must be equally many, two at least; pass states of shape (T, batch, *event), and "
            "keep_path=True to simulate."
        )
    states = states.detach().double().cpu()
    left_out = lost.cpu() | ~states.transpose(0, 1).flatten(1).isfinite().all(1)
    if bool(left_out.all()):
        raise ValueError(f"none of {len(left_out)} trajectories is finite at all times.")
    kept = ~left_out
    absorbed = None if absorbed is None else absorbed.cpu()[:, kept]
    return MeasuredPath(grid, states[:, kept], int(left_out.sum()), absorbed)


def in_parts(path: MeasuredPath, parts: int | None) -> tuple[Tensor, Tensor]:
    """Return times and states of parts that stand beside each other as trajectories do.

    Args:
        path: What is measured.
        parts: Into how many each trajectory is cut; None cuts one alone into 16, and leaves
            several whole.

    Returns:
        Times of a part, shape (T // parts,), and states, shape (T // parts, kept · parts, *event).

    Raises:
        TypeError: If parts is neither an int nor None.
        ValueError: If parts is below 1, or a part has fewer than two states.
    """
    steps, batch = path.states.shape[:2]
    if parts is None:
        parts = _PARTS if batch == 1 and steps >= 2 * _PARTS else 1
    check_count("parts", parts)
    length = steps // parts
    if length < 2:
        raise ValueError(
            f"parts must be ≤ {steps // 2}, half of the {steps} states of a trajectory, but is "
            f"{parts}."
        )
    cut = path.states[: parts * length].reshape(parts, length, *path.states.shape[1:])
    return path.times[:length], cut.transpose(0, 1).flatten(1, 2)
