"""Starts: where the trajectories of an ensemble begin, a tensor or a function of rows and rng."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.noise import Streams
from sdegen.core.requests import check_state, kind_of

Start = Tensor | Callable[..., Tensor]

FEW = 4  # rows that are asked for a shape or a gradient
_PILOTS = 256  # starts of a pilot, of those that a function makes


def example_states(x0: Start, trajectories: int, seed: int) -> Tensor:
    """Return starts that stand for all: a row for each where x0 has one, else a few.

    Args:
        x0: Where all start, a row for each, or a function that makes them.
        trajectories: How many the run has.
        seed: Seed of the run.

    Raises:
        TypeError: If a function takes no rng, or returns the wrong dtype.
        ValueError: If a tensor has another number of rows than there are trajectories, or a
            function draws from elsewhere than its generator.
    """
    few = min(FEW, trajectories)
    if not isinstance(x0, Tensor):
        made, again = (made_of(x0, few, seed, "start probe", 0) for _ in range(2))
        if not torch.equal(made, again):
            raise ValueError(
                "x0(rows, rng=…) returned other states for the same rng, so that no seed would "
                "repeat the run: draw from rng alone, as torch.randn(rows, 1, generator=rng) does."
            )
        return made
    if len(x0) not in (1, trajectories):
        raise ValueError(
            f"x0 has {len(x0)} rows for {trajectories} trajectories; pass one row for each, shape "
            f"({trajectories}, *event), one where all start, or a function x0(rows, rng=…)."
        )
    return x0 if len(x0) == trajectories else x0.expand(few, *x0.shape[1:])


def pilot_starts(x0: Start, states: Tensor, trajectories: int, seed: int) -> Tensor:
    """Return starts of a pilot: those that stand for all, or more that a function makes.

    Args:
        x0: A tensor, or a function that makes the starts.
        states: What `example_states` returned.
        trajectories: How many the run has.
        seed: Seed of the run.
    """
    if isinstance(x0, Tensor):
        return states
    return made_of(x0, min(_PILOTS, trajectories), seed, "pilot start", 0)


def made_of(x0: Callable[..., Tensor], rows: int, seed: int, purpose: str, b: int) -> Tensor:
    """Return rows that a function makes, from a stream of their own."""
    if isinstance(x0, type) or not _takes_rng(x0):
        raise TypeError(
            f"x0 must be a tensor, or a function x0(rows, rng=generator) that draws from rng, but "
            f"is {kind_of(x0)} without an argument rng."
        )
    try:
        made: object = x0(rows, rng=Streams(seed, purpose).block(b).generator())
    except Exception as error:
        error.add_note(
            f"in x0(rows, rng=…), called with rows = {rows} and a generator on the CPU: what is "
            "drawn from it goes to another device by .to(device)"
        )
        raise
    made = check_state(made, name=f"what x0({rows}, rng=…) returned")
    if len(made) != rows:
        raise ValueError(f"x0({rows}, rng=…) returned {len(made)} rows.")
    return made


def _takes_rng(x0: Callable[..., Tensor]) -> bool:
    """Return whether a function takes rng by name, as far as it says what it takes."""
    try:
        arguments = inspect.signature(x0).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "rng" or p.kind is p.VAR_KEYWORD for p in arguments)
