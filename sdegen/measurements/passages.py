"""First passages of stored paths, as they are looked at.

A passage is counted in the middle between the last time outside of the region and the first one in
it. What happens between two times is not seen: of a path with noise passages come out too late, by
O(√dt); `FirstPassage`, an observable of a run, draws them from a Brownian bridge.
"""

from collections.abc import Sequence

import torch

from sdegen.core.bounds import Bound, values_of
from sdegen.core.shapes import Times
from sdegen.measurements.path import measured_path
from sdegen.observables.coordinates import coordinate_of
from sdegen.observables.passages import FirstPassage, Passages


def first_passages(
    path: object,
    times: Times | None = None,
    *,
    above: Bound | None = None,
    below: Bound | None = None,
    between: Sequence[float] | None = None,
    coordinate: int = 0,
) -> Passages:
    """Return when trajectories were first seen in a region: survival, histogram and rate.

        S(t) = P(τ > t),     rate = passages/(time of all that wait)

    Trajectories of a path that were lost are left out; an absorbed one stands still.

    Args:
        path: A `Trajectory`, on the line where it is periodic, or states of shape (T, batch,
            *event).
        times: Of the states of an array, shape (T,).
        above: As `FirstPassage` takes it.
        below: Likewise.
        between: Likewise.
        coordinate: Likewise.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one does not fit the path, or the region is empty.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.5], [0.0, 3.0]])
        >>> sg.first_passages(x, [0.0, 1.0, 2.0], above=1.0).density
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    about = FirstPassage(
        above,
        below,
        between,  # type: ignore[arg-type]  # it takes a list
        coordinate,
        bridge=False,
    )
    measured = measured_path(path, times, unwrapped=True)
    grid, states = measured.times, measured.states
    edges = torch.stack([values_of(edge, grid) for edge in about.edges], 1).tolist()
    passed = torch.zeros(states.shape[1], dtype=torch.bool)
    waiting, moments = [], torch.zeros(states.shape[1], dtype=torch.float64)
    since = (grid - grid[0]).abs()
    middle = torch.cat([since[:1], (since[1:] + since[:-1]) / 2]).tolist()
    for k, x in enumerate(states.reshape(*states.shape[:2], -1)):
        now = about.holds(coordinate_of(x, coordinate, "path"), edges[k]) & ~passed
        moments[now] = middle[k]
        passed |= now
        waiting.append(int((~passed).sum()))
    total = {
        "n": torch.tensor(len(passed)),
        "waiting": torch.tensor(waiting),
        "first": moments.sum(),
        "second": moments.square().sum(),
    }
    return about.result(total, grid)
