"""Dither: states that were rounded are spread again over what the rounding took together.

Numbers that were rounded lie on a lattice, and so does the noise that is told from them, which no
normal does. Adding to each number what a uniform draw of the lattice's width makes it a sum of
what was computed and two uniform errors, without a lattice.

Reference:
    Schuchman 1964, IEEE Trans. Commun. Technol. 12, 162.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.readers.frames import Frames
from sdegen.readers.stored_states import StoredStates

_CHUNK = 64  # frames that are drawn together


class DitheredFrames(Frames):
    """Frames with a uniform draw added to each number, the same whenever they are read.

    Args:
        states: What was stored, and to how many digits.
        seed: Of the draws.
    """

    def __init__(self, states: StoredStates, seed: int) -> None:
        self._states, self._seed = states, seed
        self.shape: tuple[int, ...] = states.shape
        self.dtype: torch.dtype = torch.float64
        self._last: tuple[int, Tensor] | None = None

    def read(self, first: int, last: int) -> Tensor:
        """Return the frames first … last − 1."""
        x = self._states.block(first, last).double()
        chunks = range(first // _CHUNK, (last - 1) // _CHUNK + 1)
        u = torch.cat([self._draws(chunk) for chunk in chunks])
        begin = first - chunks[0] * _CHUNK
        return x + self._states.rounding_at(x) * u[begin : begin + last - first]

    def _draws(self, chunk: int) -> Tensor:
        """Return uniform draws in [−1, 1] for so many frames, the last of which are kept."""
        if self._last is None or self._last[0] != chunk:
            source = stream(self._seed, f"dither {chunk}").generator()
            u = torch.rand((_CHUNK, *self.shape[1:]), generator=source, dtype=torch.float64)
            self._last = chunk, 2 * u - 1
        return self._last[1]


def were_cut(states: StoredStates) -> bool:
    """Return whether digits were cut when states were stored."""
    halved = states.precision in (torch.float16, torch.bfloat16)
    decimals = bool((torch.as_tensor(states.rounding) > 0).any())
    return halved or decimals or states.digits is not None


def dithered(states: StoredStates, seed: int) -> StoredStates:
    """Return states that were cut without their lattice, and others as they are."""
    return replace(states, states=DitheredFrames(states, seed)) if were_cut(states) else states
