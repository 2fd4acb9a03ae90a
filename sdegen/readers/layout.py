"""Layout: which axis of an array is time, which counts trajectories, and which make up a state.

    "time"                       one trajectory of one coordinate
    "time, coordinate"           one trajectory
    "time, batch"                trajectories of one coordinate
    "time, batch, coordinate"    trajectories; also the other way around, "batch, time, …"
    "time, batch, atom, axis"    further axes are those of a state, in their order

An array of two axes could be one trajectory of n coordinates or n trajectories of one: nothing
tells which, so it must be said.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdegen.core.requests import kind_of

TIME, BATCH = "time", ("batch", "trajectory")
_EXAMPLE = "'time, batch, coordinate'"


@dataclass(frozen=True)
class Layout:
    """The order of the axes of an array.

    Attributes:
        time: Which axis is time.
        batch: Which counts trajectories; None where there is one.
        event: Those of a state, in order.
    """

    time: int
    batch: int | None
    event: tuple[int, ...]

    def applied(self, x: Tensor) -> Tensor:
        """Return an array as (T, batch, *event), a view."""
        if self.batch is None:
            x = x.permute(self.time, *self.event).unsqueeze(1)
        else:
            x = x.permute(self.time, self.batch, *self.event)
        return x if self.event else x.unsqueeze(-1)


def layout_of(layout: object, shape: tuple[int, ...], name: str = "states") -> Layout:
    """Return the layout of an array.

    Args:
        layout: The names of its axes, such as "batch, time, coordinate"; None where its number of
            axes tells.
        shape: Shape of the array.
        name: What it is.

    Raises:
        TypeError: If it is no text.
        ValueError: If it has no time, a name twice, or another number of axes; if there is none
            and the array has two axes, or none.
    """
    count = len(shape)
    if layout is None:
        if count == 2:
            raise ValueError(
                f"{name} have shape {shape}, which is either {shape[1]} trajectories of one "
                f"coordinate or one trajectory of {shape[1]}; pass layout='time, batch' or "
                "layout='time, coordinate'."
            )
        if count == 0:
            raise ValueError(f"{name} are one number; pass those of all times.")
        names = ["time", "batch", *map(str, range(count - 2))] if count > 1 else ["time"]
    elif isinstance(layout, str):
        names = [word.strip() for word in layout.split(",")]
    else:
        raise TypeError(f"layout must be a text such as {_EXAMPLE}, but is {kind_of(layout)}.")
    if len(names) != count:
        raise ValueError(
            f"layout={layout!r} names {len(names)} axes, but {name} have shape {shape}; name each "
            f"of them, such as {_EXAMPLE}."
        )
    rows = [i for i, word in enumerate(names) if word in BATCH]
    if names.count(TIME) != 1 or len(rows) > 1 or len(set(names)) < count:
        raise ValueError(
            f"layout={layout!r} must name 'time' once, 'batch' at most once, and no axis twice; "
            f"write it like {_EXAMPLE}."
        )
    time = names.index(TIME)
    event = tuple(i for i in range(count) if i != time and i not in rows)
    return Layout(time, rows[0] if rows else None, event)
