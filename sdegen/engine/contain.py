"""contain: a boundary for steps that are taken by hand."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdegen.core.enclosure import BoundaryLike
from sdegen.core.mirrors import enclosure_for
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.period import check_periods
from sdegen.core.requests import as_time_grid, check_kind, check_state
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.engine.containment import Containment


def contain(
    boundary: BoundaryLike,
    sde: SDE,
    x: State,
    nodes: Tensor | Sequence[float],
    rng: Rng = None,
) -> Containment:
    """Return what keeps the states of a run inside a boundary, for a loop over `integrate`.

        x_{i+1} = B(x_i, step(x_i)),     B(x, y) = 2a − y of a reflecting end a that y is beyond

    Args:
        boundary: As `simulate` takes it: `Reflecting`, `Absorbing`, …, or one for each coordinate.
        sde: What moves.
        x: States at nodes[0], shape (batch, *event), inside.
        nodes: Times at which steps begin and end, strictly monotone.
        rng: Seed, generator or None, of what the boundary draws itself.

    Returns:
        The containment of one run; its `absorbed` and `windings` follow the run.

    Raises:
        TypeError: If boundary is no boundary, sde no SDE or x no state.
        ValueError: If the states lie outside, or the boundary does not fit them, bounds nothing,
            or has a period that is not the dynamics' own.

    Example:
        >>> down = sg.OrnsteinUhlenbeck(mean=-1.0, sigma=0.0)
        >>> x, nodes = torch.zeros(1, 1), [0.0, 0.5]
        >>> inside = sg.contain(sg.Reflecting(0.0), down, x, nodes)
        >>> [float(x) for x in sg.integrate(down, sg.EulerMaruyama(), x, nodes, boundary=inside)]
        [0.5]
    """
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g)")
    x, ts = check_state(x), as_time_grid(nodes, "nodes")
    enclosure = enclosure_for(sde, boundary, x.shape[1:])
    if enclosure is None:
        raise ValueError("boundary bounds no coordinate: leave it out.")
    enclosure.check_inside(x, ts[0], "x")
    if enclosure.wraps:
        check_periods(sde, enclosure, x, [ts[0]])
    return Containment(enclosure, sde, x, ts, Streams(seed_of(rng), "boundary").block(0))
