"""Noise: from one `rng` argument to streams of Gaussians, and the only place where dynamics draw.

`rng` follows SciPy's SPEC 7: an int is a seed, a `torch.Generator` is drawn from once (for a
seed), None takes fresh entropy. The seed that was used is recorded in the result and gives the
same bits again.

A run draws from **streams**, one for each (seed, purpose, block). The purpose is a word, so that
`sde.prior(shape, rng=1)` and `simulate(…, rng=1)` do not start from the same numbers. Streams do
not depend on how many others exist or in what order they are used; that is what makes blocks of
trajectories reproducible.

On a CPU torch's generator keeps only the low 32 bits of a seed. Hashing (seed, block) into 32 bits
would let two blocks of one large run share all their noise (15,000 blocks: one chance in forty);
numbered through a bijection of 32-bit integers, no two of a run can meet.

The normals of many steps are drawn in one call, because for a small ensemble a call costs more
than its numbers. On a CPU the bits do not depend on how many steps that are: torch's normals come
in groups of 16, so that a step takes whole groups of them, or 16 steps of a small state do
together. On a GPU, without such a rule, their number follows from the size of the state alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sdegen.core.shapes import State

Rng = int | torch.Generator | None

_MAX_SEED = 2**63 - 1
_GROUP = 16  # randn(m + n) is randn(m) and then randn(n) only if 16 divides m
_FEW = 2**12  # numbers of a step for which padding to whole groups would be dear
_FIRST, _MOST = 16, 64  # steps drawn in one call: at first, and at most
_AT_ONCE = {"cpu": 2**16}  # numbers drawn in one call: what stays in cache
_AT_ONCE_ON_DEVICE = 2**22


def seed_of(rng: Rng) -> int:
    """Return the seed that a result records for an `rng` argument.

    Args:
        rng: A seed, 0 ≤ seed < 2⁶³; a generator, which is drawn from once; or None for fresh
            entropy.

    Raises:
        TypeError: If rng is anything else, a bool included.
        ValueError: If the seed is out of range.

    >>> seed_of(7)
    7
    """
    if rng is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
    if isinstance(rng, torch.Generator):
        drawn = torch.randint(_MAX_SEED, (), generator=rng, device=rng.device, dtype=torch.int64)
        return int(drawn)
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(
            f"rng must be an int, a torch.Generator or None, but is {type(rng).__name__}; "
            "pass rng=0 for a reproducible run."
        )
    if not 0 <= rng <= _MAX_SEED:
        raise ValueError(f"rng must be a seed in [0, 2**63), but is {rng}.")
    return int(rng)


def _scatter(n: int) -> int:
    """Scramble 32-bit integers one to one (the finaliser of MurmurHash3)."""
    n ^= n >> 16
    n = (n * 0x85EBCA6B) & 0xFFFFFFFF
    n ^= n >> 13
    n = (n * 0xC2B2AE35) & 0xFFFFFFFF
    return n ^ (n >> 16)


class Stream:
    """One stream of random numbers; draws are in order and never repeat.

    Args:
        key: 64-bit key of the stream.
    """

    def __init__(self, key: int) -> None:
        self._key = key
        self._torch: dict[torch.device, torch.Generator] = {}
        self._numpy: np.random.Generator | None = None
        self._children: dict[str, Stream] = {}

    def child(self, purpose: str) -> Stream:
        """Return a stream of its own for a purpose, the same each time it is asked for.

        What is drawn from it leaves this one where it is. Those of all blocks are distinct.

        Args:
            purpose: A word; another word gives unrelated numbers.
        """
        if purpose not in self._children:
            word = zlib.crc32(purpose.encode())
            low = _scatter((self._key ^ word) & 0xFFFFFFFF)
            self._children[purpose] = Stream(((self._key >> 32) ^ word) << 32 | low)
        return self._children[purpose]

    @property
    def key(self) -> int:
        """The 64-bit key, from which numbers of another purpose may be made (`Counters`)."""
        return self._key

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a `torch.Generator` of this stream on a device, for torch's own samplers."""
        device = torch.device(device)
        if device not in self._torch:
            self._torch[device] = torch.Generator(device).manual_seed(self._key)
        return self._torch[device]

    def normal(
        self,
        shape: tuple[int, ...],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw standard normals.

        Args:
            shape: Shape of the draw.
            dtype: Defaults to torch's default dtype.
            device: Where the numbers are drawn and stay.
        """
        return self.fill(torch.empty(shape, dtype=dtype, device=device))

    def fill(self, out: Tensor) -> Tensor:
        """Draw standard normals into contiguous memory; the same ones as `normal`.

        Args:
            out: What is written to, and returned.
        """
        if out.dtype == torch.float64 and out.device.type == "cpu":
            # numpy's ziggurat draws doubles twice as fast as torch does
            self._sfc64().standard_normal(out=out.numpy())
            return out
        return out.normal_(generator=self.generator(out.device))

    def bits(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        """Draw uniform integers for `box_muller`, on the CPU.

        Args:
            shape: Shape of the draw, an even number of integers.
            dtype: int32 or int64.
        """
        kind = np.int32 if dtype == torch.int32 else np.int64
        words = math.prod(shape) * dtype.itemsize // 8
        raw = np.asarray(self._sfc64().bit_generator.random_raw(words))
        return torch.from_numpy(raw.view(kind).reshape(shape))

    def _sfc64(self) -> np.random.Generator:
        """Return a numpy generator of this stream."""
        if self._numpy is None:
            self._numpy = np.random.Generator(np.random.SFC64(self._key))
        return self._numpy

    def normals(
        self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Normals:
        """Draw standard normals of one shape, step by step.

        Nothing else may draw from the stream: it is ahead of the step by what one call drew.

        Args:
            shape: Shape of the draw of one step.
            dtype: Theirs.
            device: Where the numbers are drawn and stay.
        """
        return Normals(self, shape, dtype, torch.device(device))


class Normals:
    """Standard normals for one step after the other, those of many steps drawn in one call.

    Args:
        source: Stream that they come from.
        shape: Shape of the draw of one step.
        dtype: Theirs.
        device: Where the numbers are drawn and stay.
    """

    def __init__(
        self, source: Stream, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._source, self._shape, self._dtype, self._device = source, shape, dtype, device
        self._numbers = self._padded = math.prod(shape)
        self._on_cpu, self._unit = device.type == "cpu", 1
        if self._on_cpu and dtype != torch.float64 and self._numbers % _GROUP:
            if self._numbers <= _FEW:
                self._unit = _GROUP  # so many steps take whole groups together
            else:
                self._padded = -(-self._numbers // _GROUP) * _GROUP
        at_once = _AT_ONCE.get(device.type, _AT_ONCE_ON_DEVICE)
        most = max(1, min(at_once // max(1, self._padded), _MOST) // self._unit)
        self._most = most * self._unit
        if not self._on_cpu:
            self._unit = self._most
        self._left: Tensor | None = None

    def take(self, steps: int) -> Tensor:
        """Draw the normals of the next steps, shape (steps, *shape), into new memory."""
        left = self._left
        missing = steps if left is None else steps - len(left)
        if missing > 0:
            memory, more = self._memory(-(-missing // self._unit) * self._unit)
            self._fill(memory)
            left = more if left is None else torch.cat([left, more])
        assert left is not None
        self._left = left[steps:] if len(left) > steps else None
        return left[:steps] if self._left is not None else left

    def each(self, *, recycled: bool = False) -> Iterator[Tensor]:
        """Yield the normals step by step.

        Args:
            recycled: Whether the memory of a draw may be reused once one more step has been drawn,
                as where nobody keeps a draw; if not, it is never written again.
        """
        # chained in C: in a small ensemble a generator resumed at each step would be seen
        return chain.from_iterable(self._batches(recycled))

    def _batches(self, recycled: bool) -> Iterator[Sequence[Tensor]]:
        """Draw the normals of many steps at a time, and return them step by step."""
        most = self._most
        # a short run shall not pay for the numbers of a long one
        steps = min(_FIRST, most) if self._on_cpu else most
        while steps < most or not recycled:
            yield self.take(steps).unbind()
            steps = min(2 * steps, most)
        # for a small ensemble, to make a tensor costs as much as to fill it
        pairs = [(memory, view.unbind()) for memory, view in map(self._memory, (most, most))]
        while True:
            for memory, each in pairs:
                self._fill(memory)
                yield each

    def _fill(self, memory: Tensor) -> None:
        """Draw into memory, on a CPU in one call, elsewhere in calls of one size."""
        together = len(memory) if self._on_cpu else self._unit
        for i in range(0, len(memory), together):
            self._source.fill(memory[i : i + together])

    def _memory(self, steps: int) -> tuple[Tensor, Tensor]:
        """Return memory for the normals of so many steps, and these, shape (steps, *shape)."""
        memory = torch.empty((steps, self._padded), dtype=self._dtype, device=self._device)
        return memory, memory[:, : self._numbers].view(steps, *self._shape)


class Noise:
    """What the steps of one block draw: normals like its state.

        z ~ N(0, I)

    Args:
        x: State of the block, shape (batch, *event); draws have its shape, dtype and device.
        rng: Seed, generator or None; or a stream of the block's own.
        recycled: Whether the memory of a draw may serve again once one more step has drawn.
        channels: How many Wiener processes there are, `sde.channels`; None: one for each
            coordinate.

    Attributes:
        normal: normal() draws z ~ N(0, I) like the state, or of shape (batch, channels).
        stream: Where they come from; a solver that never calls normal() may draw from it in an
            order of its own.
        shared: Whether each draw is that of a step, in the place of the Wiener process of each
            coordinate, as where runs of other steps have the same noise. If not, a step that needs
            fewer normals may leave some to the next one.

    Example:
        >>> draws = [sg.Noise(torch.zeros(1000, 2), rng=0).normal() for _ in range(2)]
        >>> draws[0].equal(draws[1]), f"{draws[0].square().mean().item():.1f}"
        (True, '1.0')
    """

    shared: bool = False

    def __init__(
        self,
        x: State,
        rng: Rng | Stream = None,
        *,
        recycled: bool = False,
        channels: int | None = None,
    ) -> None:
        self.channels = channels
        shape = tuple(x.shape) if channels is None else (len(x), channels)
        self.stream: Stream = rng if isinstance(rng, Stream) else stream(rng, "dynamics")
        # the iterator's own method: a call of ours in between would be seen in a small ensemble
        self.normal: Callable[[], State] = (
            self.stream.normals(shape, dtype=x.dtype, device=x.device)
            .each(recycled=recycled)
            .__next__
        )


class RememberedNoise(Noise):
    """Noise that remembers the last normal it drew, for a boundary that tells mean from noise.

    Args:
        noise: What draws.

    Attributes:
        last: The last draw; None before the first.
    """

    def __init__(self, noise: Noise) -> None:
        self.__dict__.update(noise.__dict__)
        self.shared: bool = noise.shared
        self.last: State | None = None
        draw = noise.normal

        def normal() -> State:
            self.last = draw()
            return self.last

        self.normal = normal


class Given(Noise):
    """The noise of one step whose normal is known: normal() returns it, however often.

    Args:
        z: The normal, like the state.
    """

    shared = True

    def __init__(self, z: State) -> None:
        self.channels: None = None
        self.normal: Callable[[], State] = lambda: z


@dataclass(frozen=True)
class Streams:
    """The streams of one run, of a seed as `rng=` takes it; another purpose, unrelated numbers."""

    seed: int
    purpose: str

    def block(self, index: int) -> Stream:
        """Return the stream of block `index`, 0 ≤ index < 2³²; distinct from all other blocks'."""
        low, high = _words(self.seed, self.purpose)
        return Stream((high << 32) | _scatter((low + index) & 0xFFFFFFFF))


@lru_cache(maxsize=64)  # each step of a training asks for blocks of the same streams
def _words(seed: int, purpose: str) -> tuple[int, int]:
    """Return the two words of 32 bits from which the keys of a run's streams follow."""
    entropy = [seed & 0xFFFFFFFF, seed >> 32, zlib.crc32(purpose.encode())]
    return tuple(np.random.SeedSequence(entropy).generate_state(2, np.uint32).tolist())


def stream(rng: Rng, purpose: str) -> Stream:
    """Return the one stream of a draw that is not cut into blocks."""
    return Streams(seed_of(rng), purpose).block(0)


def box_muller(bits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return two standard normals of two uniform integers, by operations that fuse into one loop.

        z₁ = √(−2 log u) cos πv,    z₂ = √(−2 log u) sin πv,    u = (|k₁| + ½)/2ᵇ⁻¹,  v = k₂/2ᵇ⁻¹

    Args:
        bits: k₁ and k₂, shape (2, …), uniform signed integers of b bits.
        dtype: Of the normals.

    Returns:
        z₁ and z₂, shape (…). In float32 |z| ≤ 6.66.

    Reference:
        Box and Muller 1958, Ann. Math. Stat. 29, 610, eq. (1).
    """
    scale = 2.0 ** (1 - 8 * bits.dtype.itemsize)
    k = bits.to(dtype)
    radius = ((k[0].abs() + 0.5) * scale).log().mul(-2).sqrt()
    angle = k[1] * (math.pi * scale)
    return radius * angle.cos(), radius * angle.sin()


def normal_like(x: State, source: Stream) -> State:
    """Draw z ~ N(0, I) with the shape, dtype and device of x."""
    return source.normal(tuple(x.shape), dtype=x.dtype, device=x.device)


def normals_like(x: State, source: Stream) -> Normals:
    """Return normals z ~ N(0, I) like x, step by step."""
    return source.normals(tuple(x.shape), dtype=x.dtype, device=x.device)
