"""Why trajectories were lost: an end of the space of f and g, or a time where f is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.alpha_stable import AlphaStable
from sdegen.core.channels import deviation
from sdegen.core.noise_structure import fields_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, rows_nonfinite
from sdegen.engine.record import RunMonitor, Solution

_REACH = 6.0  # standard deviations of a step that are looked at for an end of the space
_HALVINGS = 40
_COORDINATES = 16  # of a state that are looked at


def with_cause(solution: Solution, sde: SDE, monitor: RunMonitor, nodes: Tensor) -> Solution:
    """Look for an end of the space of f and g, and for a time at which f is not finite.

    A process that lives where x ≥ 0, as one with noise √x, is lost when a step carries it beyond:
    g is not finite on the other side of an end, which is found by halving. Smaller steps do not
    help there, and to go on without what was lost leaves those that kept away from the end.

    States are looked at every few steps only, so that it is not known where the first was lost.
    But a network that returns NaN at some times does so at the last state that was finite, too,
    where it was finite at the first time: a state that has all but exploded is lost at any time.
    """
    assert monitor.suspect_steps is not None
    if monitor.free:
        with suppress(Exception):  # the run has failed already, which is what to report
            ended = _end_of_space(solution, sde, monitor.finite, nodes, monitor.suspect_steps)
            if ended is not None:
                return ended
    if sde.autonomous:
        return solution  # what is finite at one time is so at all
    name = "drift" if sde.denoising is None else "score"
    with suppress(Exception):  # the run has failed already, which is what to report
        exploded = rows_nonfinite(sde.drift(monitor.finite, nodes[0]))
        for t in nodes[monitor.suspect_steps.start : monitor.suspect_steps.stop].unbind():
            diverged = int((rows_nonfinite(sde.drift(monitor.finite, t)) & ~exploded).sum())
            if diverged > 0:
                cause = (
                    f"The {name} is not finite at t = {float(t):g}, where the states are, for "
                    f"{diverged} of {len(monitor.finite)} of them"
                )
                return replace(solution, cause=cause)
    return solution


def _end_of_space(
    solution: Solution, sde: SDE, x: State, nodes: Tensor, suspects: range
) -> Solution | None:
    """Look within reach for an end beyond which drift or diffusion are not finite."""
    # how far it reaches along a coordinate is not known, or no boundary is taken
    if sde.noise_structure == "general" or sde.jumps is not None:
        return None
    t, end = nodes[suspects.start], nodes[min(suspects.stop, len(nodes)) - 1]
    span = float((end - t).abs().clamp(min=float(nodes.diff().abs().max())))
    with torch.no_grad():
        f, g = sde.drift(x, t), deviation(sde, x, t).expand_as(x)
        reach = (f.abs() * span + _REACH * g.abs() * math.sqrt(span)).flatten(1)
        for name, field in reversed(fields_of(sde)):
            for c in range(min(reach.shape[1], _COORDINATES)):
                low, high = (_edge_of(field, x, t, c, way * reach[:, c]) for way in (-1.0, 1.0))
                ends = {side: at for side, at in (("low", low), ("high", high)) if at is not None}
                if not ends:
                    continue
                place = " and ".join(f"x = {at:.6g}" for at in ends.values())
                boundary = ", ".join(f"{side}={at:.6g}" for side, at in ends.items())
                boundary = f"Reflecting({boundary})"
                if reach.shape[1] > 1:
                    boundary, place = f"{{{c}: {boundary}}}", f"{place} in coordinate {c}"
                return replace(
                    solution,
                    cause=f"The {name} is not finite beyond {place}, where steps lead",
                    cure=f"pass boundary={boundary} to keep the states there",
                )
    return None


def _edge_of(
    field: Callable[[State, Tensor], Tensor], x: State, t: Tensor, c: int, way: Tensor
) -> float | None:
    """Return where a field ceases to be finite along coordinate c, or None."""

    def beyond_end(share: Tensor) -> Tensor:
        y = x.flatten(1).clone()
        y[:, c] = y[:, c] + share * way
        return rows_nonfinite(field(y.reshape(x.shape), t))

    low, high = torch.zeros_like(way), torch.ones_like(way)
    rows = beyond_end(high) & ~beyond_end(low) & way.isfinite()
    if not bool(rows.any()):
        return None
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        beyond = beyond_end(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    at = (x.flatten(1)[:, c] + high * way)[rows].double()
    scale = float(way[rows].abs().max())
    if float(at.max() - at.min()) > 1e-3 * scale:
        return None  # no one place: an explosion, not an end
    edge = float(at.median())
    return 0.0 if abs(edge) < 1e-6 * scale else edge


def without_bound(solution: Solution, sde: SDE) -> Solution:
    """Say what became of trajectories whose α-stable steps leave the numbers: no steps help."""
    tails = [one.alpha for one in sde.jumps or () if isinstance(one, AlphaStable)]
    if not tails:
        return solution
    kind = str(solution.states.dtype).removeprefix("torch.")
    return replace(
        solution,
        cause=f"α-stable steps have no largest size, and those of alpha = {min(tails):g} go "
        f"beyond {kind}",
        cure="pass x0.double() if it is float32, or on_nonfinite='freeze' to go on without them",
    )
