"""Residence times of stored paths, as they are looked at.

What happens between two times is not seen: of a path with noise stays come out too long, by
O(√dt), since short excursions out of the region are missed; `ResidenceTimes`, an observable of a
run, draws them. Of a process that jumps nothing is missed. Stays are samples of their own, so that
a single long trajectory has errors as it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.shapes import Times
from sdegen.measurements.path import measured_path
from sdegen.observables.coordinates import coordinate_of
from sdegen.observables.residence import ResidenceTimes, Stays


def residence_times(
    path: object,
    times: Times | None = None,
    *,
    core: Sequence[float],
    region: Sequence[float] | None = None,
    longest: float | None = None,
    bins: int = 50,
    coordinate: int = 0,
    from_start: bool = False,
) -> Stays:
    """Return how long one coordinate stays in a region, from coming into its core.

        S_{j+1} = S_j (1 − d_j/n_j′),     rate = stays that ended/(time of all stays)

    A stay begins and ends in the middle between two times.

    Args:
        path: A `Trajectory`, on the line where it is periodic, or states of shape (T, batch,
            *event).
        times: Of the states of an array, shape (T,).
        core: As `ResidenceTimes` takes it.
        region: Likewise.
        longest: Likewise.
        bins: Likewise.
        coordinate: Likewise.
        from_start: Likewise.

    Returns:
        Histogram, survival and rate, with errors.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one does not fit the path, or trajectories of it were absorbed.

    Example:
        >>> x = torch.tensor([0.0, 2, 2, 2, 0, 2, 2, 0, 2])[:, None]
        >>> stays = sg.residence_times(x, torch.arange(9), core=(1, 3), longest=4.0, bins=4)
        >>> stays.ended, stays.cut  # of 2 and 3, and one that has not ended
        (tensor([0, 1, 1, 0]), tensor([1, 0, 0, 0]))
    """
    about = ResidenceTimes(
        core,  # type: ignore[arg-type]  # it takes a list
        region,  # type: ignore[arg-type]
        longest,
        bins,
        coordinate,
        from_start=from_start,
    )
    measured = measured_path(path, times, unwrapped=True)
    if measured.absorbed is not None and bool(measured.absorbed[-1].any()):
        raise ValueError(
            f"{int(measured.absorbed[-1].sum())} of {measured.absorbed.shape[1]} trajectories "
            "were absorbed, and their stays are not known; drop the absorbing boundary, or use "
            "FirstPassage(…)."
        )
    states = measured.states
    flat = states.reshape(states.shape[0] * states.shape[1], -1)
    x = coordinate_of(flat, coordinate, "path").reshape(states.shape[:2])
    since = (measured.times - measured.times[0]).abs()
    return replace(_stays(about, x, since), lost=measured.lost)


def _stays(about: ResidenceTimes, x: Tensor, since: Tensor) -> Stays:
    """Return the stays of values, shape (T, rows)."""
    steps, rows = x.shape
    core, out = about.inside(x, about.core), ~about.inside(x, about.region_ends)
    # what was last, in the core or out of the region, tells whether a trajectory stays
    index = torch.arange(1, steps + 1)[:, None]
    stays = (index * core).cummax(0).values > (index * out).cummax(0).values
    last = torch.cat([torch.zeros(1, rows, dtype=torch.bool), stays[:-1]])
    middle = torch.cat([since[:1], (since[1:] + since[:-1]) / 2])
    # in the order of trajectories the k-th beginning and the k-th end are of one stay
    at = (stays & ~last).T.nonzero()[:, 1]
    end_row, end_at = (last & ~stays).T.nonzero().unbind(1)
    cut_row = stays[-1].nonzero()[:, 0]
    ends = torch.cat([middle[end_at], since[-1].expand(len(cut_row))])
    over = torch.cat([torch.zeros(len(end_at)), torch.ones(len(cut_row))]).bool()
    order = torch.argsort(torch.cat([end_row, cut_row]), stable=True)
    lengths, over = ends[order] - middle[at], over[order]
    counts = (at > 0) | about.from_start
    edges = about.edges(since)
    total = {
        "n": torch.tensor(rows),
        "ended": about.binned(lengths[counts & ~over], edges),
        "cut": about.binned(lengths[counts & over], edges),
        "unbegun": (~counts).sum(),
        "exposure": lengths[counts].sum(),
    }
    return about.result(total, since)
