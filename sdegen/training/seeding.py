"""Seeding: torch's, NumPy's and Python's global generators, set for a moment and put back.

A module draws its dropout, a data set its augmentations, and a loader its order from global
generators. Set from the seed of a run and a number, they give the same numbers again wherever a
run is resumed, and what the caller had in them is not touched.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.core.noise import Streams

_MASK = 0xFFFFFFFF


@contextmanager
def seeded(seed: int, purpose: str, k: int, device: torch.device) -> Iterator[None]:
    """Set torch's global generators for a step, and put them back as they were.

    What a module draws itself, such as dropout, comes from them.

    Args:
        seed: The seed of the run.
        purpose: What the numbers are for.
        k: The step.
        device: Where the module is.
    """
    state = Streams(seed, purpose).block(k).key
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(state)
        yield
    finally:
        for generator, kept in zip(generators, before, strict=True):
            generator.set_state(kept)


class GlobalGenerators:
    """The generators that data sets and loaders draw from; a context that puts them back.

    Args:
        own: Generators beside the global ones, such as that of a loader.
    """

    def __init__(self, *own: torch.Generator) -> None:
        self._own = own
        self._before: tuple[Any, ...] = ()

    def __enter__(self) -> "GlobalGenerators":
        self._before = self.state()
        return self

    def __exit__(self, *error: object) -> None:
        first, others, numpy, python = self._before
        torch.default_generator.set_state(first)
        for generator, kept in zip(self._own, others, strict=True):
            generator.set_state(kept)
        np.random.set_state(numpy)  # noqa: NPY002, what data sets draw from
        random.setstate(python)

    def seed(self, *numbers: int) -> None:
        """Set all of them by some numbers, each < 2⁶⁴; other numbers give unrelated draws."""
        words = [word for number in numbers for word in (number & _MASK, number >> 32)]
        mixed = np.random.SeedSequence(words).generate_state(3, np.uint64).tolist()
        for generator in (torch.default_generator, *self._own):
            generator.manual_seed(mixed[0] >> 1)
        np.random.seed(mixed[1] & _MASK)  # noqa: NPY002, what data sets draw from
        random.seed(mixed[2])

    def state(self) -> tuple[Tensor, list[Tensor], Any, Any]:
        """Return where they are."""
        numpy = np.random.get_state()  # noqa: NPY002, what data sets draw from
        others = [generator.get_state() for generator in self._own]
        return torch.default_generator.get_state(), others, numpy, random.getstate()

    def moved(self, since: tuple[Any, ...]) -> bool:
        """Return whether something has been drawn since a state."""
        now = self.state()
        return (
            not torch.equal(now[0], since[0])
            or not all(map(torch.equal, now[1], since[1]))
            or now[2][2:] != since[2][2:]
            or not np.array_equal(now[2][1], since[2][1])
            or now[3] != since[3]
        )
