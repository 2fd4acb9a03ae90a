"""What was asked for and what a source has, made into stored states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.core.checks import check_not_negative, check_positive
from sdegen.core.requests import check_kind, kind_of
from sdegen.readers.arrays import at_least_single, numbers_of
from sdegen.readers.frames import Frames, combined
from sdegen.readers.stored_states import StoredStates, check_shape
from sdegen.readers.times import check_even_steps, times_of

_UNITS = ("length", "time", "velocity")


@dataclass(frozen=True)
class Request:
    """What was said of a source: the arguments of `read_states`, by their names."""

    dt: object = None
    times: object = None
    layout: object = None
    key: object = None
    columns: object = None
    format: object = None
    velocities: object = None
    phase_space: bool = False
    periods: object = None
    wrapped: object = None
    fixed: object = None
    centre_removed: bool = False
    rounding: Any = None
    units: object = None

    def refuse_said(self, source: object) -> None:
        """Refuse what was said of an object that says it itself.

        Raises:
            ValueError: Naming the argument.
        """
        for field in fields(self):
            if getattr(self, field.name) is not field.default:
                raise ValueError(
                    f"{field.name} is that of the {type(source).__name__} itself; leave "
                    f"{field.name}= out."
                )

    def scales(self) -> dict[str, float]:
        """Return how large units of the source are in those of the SDE."""
        units = {} if self.units is None else self.units
        cure = "a dict of factors such as {'length': 0.1, 'time': 1e-3}"
        check_kind("units", units, Mapping, cure)
        assert isinstance(units, Mapping)
        for name, value in units.items():
            if name not in _UNITS:
                raise ValueError(
                    f"units are of {', '.join(_UNITS)}, and {name!r} is none of them."
                )
            check_positive(f"units[{name!r}]", value)
        length, time = float(units.get("length", 1.0)), float(units.get("time", 1.0))
        velocity = float(units.get("velocity", length / time))
        return {"length": length, "time": time, "velocity": velocity}


@dataclass(frozen=True)
class Found:
    """What a source has, in its own units.

    Attributes:
        positions: States, or positions of them, shape (T, batch, *event).
        velocities: The same of velocities, or None.
        times: Times of the frames, shape (T,), or None.
        times_rounding: How far these may be from what a text rounded.
        steps: Number of the step of each frame, shape (T,), where it alone is known.
        rounding: Half of a unit of the last decimal, of positions and of velocities, each a number
            or shape of an event.
        digits: Significant digits that a text kept; None where it kept all.
        periods: Shape (*event,), or None.
        wrapped: Whether positions were folded; None where the source does not say.
        fixed: Shape (*event,), or None.
        columns: Names of coordinates.
        lost: How many trajectories were left out.
        where: What the source is.
    """

    positions: Tensor | Frames
    velocities: Tensor | Frames | None = None
    times: Tensor | None = None
    times_rounding: float = 0.0
    steps: Tensor | None = None
    rounding: tuple[float | Tensor, float | Tensor] = (0.0, 0.0)
    digits: int | None = None
    periods: Tensor | None = None
    wrapped: bool | None = None
    fixed: Tensor | None = None
    columns: tuple[str, ...] = ()
    lost: int = 0
    where: str = "source"


def settled(found: Found, request: Request) -> StoredStates:
    """Return the stored states of what was found and said.

    Raises:
        TypeError, ValueError: As `read_states`.
    """
    scales = request.scales()
    phase_space = request.phase_space or found.velocities is not None
    if found.velocities is None:
        check_shape(tuple(found.positions.shape), phase_space=phase_space)
    count = found.positions.shape[0]
    own = None if found.times is None else found.times * scales["time"]
    said = None if isinstance(request.times, str) else request.times
    if found.steps is not None and own is None and said is None:
        check_even_steps(found.steps, found.where)
    half = found.times_rounding * scales["time"]
    times = times_of(count, request.dt, said, own, half=half, where=found.where)
    states, rounding, unit = _scaled(found, scales, phase_space=phase_space)
    if request.rounding is not None:
        check_not_negative("rounding", request.rounding)
        rounding, found = float(request.rounding), replace(found, digits=None)
    event = tuple(states.shape[3 if phase_space else 2 :])
    periods = None if found.periods is None else found.periods * scales["length"]
    if request.periods is not None:
        periods = _of_event("periods", request.periods, event).double()
        if bool((periods == 0).all()):
            periods = None
    fixed = found.fixed
    if request.fixed is not None:
        fixed = _of_event("fixed", request.fixed, event)
        if fixed.dtype != torch.bool:
            raise TypeError(
                f"fixed must be True or False for each coordinate, but is "
                f"{kind_of(request.fixed)}."
            )
    wrapped = request.wrapped if request.wrapped is not None else found.wrapped
    return StoredStates(
        times,
        states,
        rounding=rounding,
        digits=found.digits,
        unit=unit,
        precision=found.positions.dtype,
        phase_space=phase_space,
        periods=periods,
        wrapped=periods is not None if wrapped is None else wrapped,  # type: ignore[arg-type]
        fixed=fixed,
        centre_removed=request.centre_removed,
        columns=found.columns,
        lost=found.lost,
        source=found.where,
    )


def _scaled(
    found: Found, scales: Mapping[str, float], *, phase_space: bool
) -> tuple[Tensor | Frames, float | Tensor, float | Tensor]:
    """Return states in units of the SDE, their rounding, and what a unit of the source is."""
    x, v = found.positions, found.velocities
    factors = torch.tensor([scales["length"], scales["velocity"]], dtype=torch.float64)
    if v is not None and tuple(v.shape) != tuple(x.shape):
        raise ValueError(
            f"velocities have shape {tuple(v.shape)}, but positions {tuple(x.shape)}; pass one "
            "for each of them."
        )
    if v is not None and v.dtype != x.dtype:
        raise TypeError(
            f"velocities have dtype {v.dtype}, but positions {x.dtype}; pass both in one."
        )
    states = x if v is None else combined([x, v], lambda parts: torch.stack(list(parts), 2))
    ones = [1] * (len(x.shape) - (2 if v is not None else 3))
    unit: float | Tensor = float(factors[0])
    rounding: float | Tensor = found.rounding[0]
    if phase_space:
        unit = factors.reshape(2, *ones)
        halves = [torch.as_tensor(r, dtype=torch.float64) for r in found.rounding]
        if any(bool((h != 0).any()) for h in halves):
            place = states.shape[3:]
            rounding = torch.stack([h.expand(place) for h in halves])
        if bool((factors == 1).all()):
            unit = 1.0
    if isinstance(unit, Tensor) or unit != 1.0:
        states = combined([states], lambda parts: _times_unit(parts[0], unit))
        rounding = rounding * unit
    if isinstance(rounding, Tensor) and bool((rounding == rounding.flatten()[0]).all()):
        rounding = float(rounding.flatten()[0])
    return states, rounding, unit


def _times_unit(x: Tensor, unit: float | Tensor) -> Tensor:
    """Return states in other units, in their dtype; half precision would be rounded once more."""
    factor = unit.to(x.device) if isinstance(unit, Tensor) else unit
    return (x.double() * factor).to(at_least_single(x[:0]).dtype)


def _of_event(name: str, value: object, event: Sequence[int]) -> Tensor:
    """Return one value for each coordinate, shape (*event,)."""
    numbers = numbers_of(name, value, f"a number, or an array of shape {tuple(event)}")
    shape = tuple(numbers.shape)
    # with fewer axes, three atoms and three axes would be mixed up
    fits = len(shape) == len(event) and all(a in (1, b) for a, b in zip(shape, event, strict=True))
    if shape and not fits:
        raise ValueError(
            f"{name} has shape {shape}, but a state has {tuple(event)}; pass one number, or one "
            "for each coordinate, with as many axes."
        )
    return numbers.expand(*event)
