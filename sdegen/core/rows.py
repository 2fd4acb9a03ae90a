"""Rows: whether drift and diffusion treat each trajectory by its own state alone.

A field f of a batch x of trajectories may be one of three kinds:

    free       f(x)_i is a function of x_i: trajectories can be cut into blocks
    coupled    f(x)_i depends on other x_j, as in a mean field: they must run together
    by place   f(x)_i depends on i, as with one parameter for each row: f(x[p]) ≠ f(x)[p]

The third is what `k[:len(x)]` makes of a tensor k of parameters, or a noise matrix of shape (d, d)
of a batch of d trajectories, which broadcasts by accident. It is refused, at any number of
trajectories: `ItoProcess(…, parameters={"k": k})` cuts k with the trajectories. Only with
interacting=True, where all run in one piece and in one order, is it what was meant.

Fields are looked at from outside: rows are permuted, dropped and repeated, and put among others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sdegen.core.derivatives import in_double
from sdegen.core.evaluation import are_alike, check_repeatable, refuse_randomness, watched
from sdegen.core.jumps import CompoundPoisson, continuous_part
from sdegen.core.noise import Stream
from sdegen.core.noise_structure import noise_field
from sdegen.core.sde import SDE
from sdegen.core.shapes import State

_DISPLACEMENTS = (1.0, 1e-2, 1e-4)
_EVERY = 7
_FEW = 4  # rows that are each looked at alone
_EXACT = 64  # roundings, where the number of rows is the same
# relative, in single and in other precision: a matrix product of other rows rounds otherwise
_SINGLE, _DOUBLE = 1e-4, 1e-9

CURE = (
    "If it holds one parameter for each trajectory, pass it as "
    'ItoProcess(…, parameters={"k": k}): f(x, t, k) then gets those of its rows; or pass '
    "interacting=True, so that the batch is not cut."
)


def check_rows(sde: SDE, x: State, t: Tensor) -> None:
    """Refuse a drift or diffusion that depends on the place of a trajectory in the batch.

    f(x[p]) must equal f(x)[p] for a permutation p, and there may be any number of rows.

    Args:
        sde: What moves; with parameters of its own, those of these rows.
        x: States, shape (n, *event).
        t: Time, 0-d.

    Raises:
        ValueError: If f or g fails at another number of rows, has a value that does not broadcast
            to x there, or gives a permuted row another value.
    """
    n = len(x)
    here = torch.arange(n, device=x.device)
    for name in _fields(sde):
        # in a mean field too equal rows get equal values, and a permuted row keeps its own
        more = _at(name, sde, x, torch.cat([here, here[:1]]), t)
        if n > 2:
            _at(name, sde, x, here[: n - 1], t)
        _check_alike(name, more[:1], more[n:], x, t)
    if n > 1:
        check_place(sde, x, t)


def check_place(sde: SDE, x: State, t: Tensor) -> None:
    """Refuse what `check_rows` refuses, by a permutation of many rows: few may be alike.

    Args:
        sde: What moves; with parameters of its own, those of these rows.
        x: States, shape (n, *event).
        t: Time, 0-d.

    Raises:
        ValueError: If f or g gives a permuted row another value.
    """
    here = torch.arange(len(x), device=x.device)
    turned = here.flip(0)
    for name in _fields(sde):
        value, again = (_at(name, sde, x, rows, t) for rows in (here, turned))
        _check_alike(name, value[turned], again, x, t)


def check_autonomous(sde: SDE, name: str, first: Tensor, second: Tensor, t: Tensor) -> None:
    """Refuse dynamics that say that they are the same at every t, and are not.

    Args:
        sde: What moves.
        name: Of drift or diffusion.
        first: Its value at the start.
        second: Its value at the same states, at a later time.
        t: That time, 0-d.

    Raises:
        ValueError: If they differ by more than rounding.
    """
    if not are_alike(first, second, _SINGLE):
        raise ValueError(
            f"{type(sde).__name__} says autonomous = True, but its {name} is another at t = "
            f"{float(t):g} than at the start; say autonomous=False, or None."
        )


@torch.no_grad()
def check_density_of(sde: SDE, x: State, t: Tensor) -> list[Tensor] | None:
    """Refuse dynamics whose density obeys no linear equation of its own.

    Args:
        sde: What moves.
        x: Points of a grid, shape (n, d).
        t: Time, 0-d.

    Returns:
        Drift there and, where it is no number, diffusion, if they were looked at together: on a
        line whoever asks has them evaluated once more, and refuses by `check_repeatable`.

    Raises:
        ValueError: If it has parameters of single trajectories, drift or diffusion draw random
            numbers, or their value at one point depends on the others.
    """
    if sde.trajectories is not None:
        raise ValueError(
            f"{type(sde).__name__} has parameters of {sde.trajectories} trajectories, and each "
            "of them has a density of its own: pass one SDE for each, as FokkerPlanckBatch takes "
            "them."
        )
    fields = _fields(continuous_part(sde))  # the jump term looks at its own
    if x.shape[1] == 1:
        # on a line the solver looks at the shapes itself, and at what is coupled
        values, network, moved = watched(
            lambda: [field(x.clone(), t) for field in fields.values()], x.device
        )
        if moved is None and not network and all(isinstance(v, Tensor) for v in values):
            return list(values)
    whole = torch.arange(len(x), device=x.device)
    few = whole[::_EVERY]
    for name, field in fields.items():
        value, network, moved = watched(partial(field, x.clone(), t), x.device)
        if moved is not None:
            refuse_randomness(name, f"{moved} moved while it was evaluated")
        if network or not isinstance(value, Tensor):
            continue
        check_repeatable(name, value, field(x.clone(), t))
        if x.shape[1] == 1:
            continue
        value, again = (_at(name, sde, x, rows, t) for rows in (whole, few))
        if not are_alike(value[few], again, _DOUBLE):
            raise ValueError(
                f"the {name} of a state depends on the other states of its batch (a mean field); "
                "its density obeys a nonlinear equation, which is not solved here."
            )
    return None


def _check_alike(name: str, expected: Tensor, value: Tensor, x: State, t: Tensor) -> None:
    """Refuse a field whose value at some rows of x depends on their places."""
    if not are_alike(expected, value, _SINGLE if x.dtype == torch.float32 else _DOUBLE):
        raise ValueError(
            f"{name} depends on the place of a trajectory in the batch: f(x[p]) ≠ f(x)[p] for "
            f"{len(x)} rows at t = {float(t):g}. {CURE}"
        )


def _fields(sde: SDE) -> dict[str, Callable[[State, Tensor], Tensor]]:
    """Return drift and what depends on x of diffusion and jumps, by their names."""
    fields: dict[str, Callable[[State, Tensor], Tensor]] = {"drift": sde.drift}
    if sde.constant_noise is None:
        fields.update([noise_field(sde)])
    for one in sde.jumps or ():
        if isinstance(one, CompoundPoisson):
            fields.update(one.fields())
    return fields


def _at(name: str, sde: SDE, x: State, rows: Tensor, t: Tensor) -> Tensor:
    """Return a field at some of the rows, of x's shape.

    Raises:
        ValueError: If it fails there.
    """
    some = x[rows]
    try:
        part = sde.of_rows(rows)
        value = (part.drift if name == "drift" else _fields(part)[name])(some, t)
    except Exception as error:
        raise ValueError(
            f"{name} takes {len(x)} rows, but with {len(some)} it raised {type(error).__name__}: "
            f"{first_line(error)}. {CURE}"
        ) from error
    if name == "drift" and value.shape != some.shape:
        raise ValueError(
            f"drift returned shape {tuple(value.shape)} for x of shape {tuple(some.shape)}. {CURE}"
        )
    try:
        return value.expand_as(some)
    except RuntimeError:
        raise ValueError(
            f"{name} returned shape {tuple(value.shape)} for x of shape {tuple(some.shape)}, "
            f"and fits {len(x)} rows by accident; a noise matrix is declared, by channels=m. "
            f"{CURE}"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def depends_on_batch(
    sde: SDE, rows: State, times: Tensor, noise: Stream, *, sparing: bool = False
) -> bool:
    """Return whether the drift or the diffusion of one trajectory depends on the others.

    Evaluates a few rows at the first, the middle and the last of the times from which a step
    starts, and once more with all but one of them put elsewhere (of many rows, with one half and
    with the other): what that one then gets is coupled if it differs by more than rounding. They
    are put apart by independent noise of three sizes, since all trajectories may start at one
    point, where a mean field vanishes, and forces may be of short range; and once more around one
    point, since trajectories that start far apart may meet later.

    Not seen: a force of a range below 1e-4 of |x|, one that sets in between the three times or
    further from the starts than they are from 0, and one that is weaker than the rounding of f and
    g, which are asked in double precision where they take it.

    Args:
        sde: What moves; with parameters of its own, those of these rows.
        rows: A few states, shape (n, *event).
        times: Shape (T,).
        noise: Stream for the displacement.
        sparing: Whether only starts that are apart are asked, as of a network, which costs.
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
    # no step starts at the last time
    starts = times[:-1] if len(times) > 1 else times
    later = [(pairs[0], t) for t in (starts[len(starts) // 2], starts[-1])]
    asked = [(pair, times[0]) for pair in (pairs[:2] if sparing else pairs)] + later
    first = torch.arange(len(rows)) < (len(rows) + 1) // 2
    each = len(rows) <= _FEW and not sparing
    parts = torch.eye(len(rows), dtype=torch.bool) if each else torch.stack([first, ~first])
    # which rows stay where they are: each one alone, or in halves
    parts = parts.reshape(*parts.shape, *(1,) * (rows.ndim - 1)).to(rows.device)
    return any(
        _differs_among_others(field, *pair, t, parts)
        for field in _fields(sde).values()
        for pair, t in asked
    )


def _differs_among_others(
    field: Callable[[State, Tensor], Tensor], x: State, y: State, t: Tensor, parts: Tensor
) -> bool:
    """Return whether a row of x gets another value among rows of y; False where not finite.

    Args:
        field: Drift or diffusion.
        x: States, shape (n, *event).
        y: Others.
        t: Time, 0-d.
        parts: Which rows of x stay, shape (parts, n, 1, …).
    """
    if x.dtype != torch.float64:
        x = in_double(x, lambda z: field(z, t))
    try:
        among_own = field(x, t).expand_as(x)
        tolerance = _EXACT * torch.finfo(x.dtype).eps * among_own.abs().max()
        for stays in parts:
            # the same number of rows: a matrix product of another one rounds otherwise
            mixed = field(torch.where(stays, x, y.to(x)), t).expand_as(x)
            gap = (mixed - among_own)[stays.flatten()].abs()
            if not bool(gap.isfinite().all()):
                return False  # smaller displacements are for fields that live on part of space
            if bool((gap > tolerance).any()):
                return True
    except Exception:
        return False  # no state of the run need be here: what raises there too says so itself
    return False
