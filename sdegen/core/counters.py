"""Counters: uniform numbers that are found by their place, in any order and however often.

    u = uniform(key, n),        n = 0, 1, 2, …

A number is a hash of its place n and of a key. So what one trajectory draws depends on nothing
that another one does, nor on the order in which they come: jumps of a trajectory are the same at
steps of any size. The hash is the SplitMix64 generator at its nth output, with a second key in the
middle, so that two streams that begin near each other do not go on alike. Places of one key are
distinct numbers below 2⁶⁴.

Reference:
    Steele, Lea and Flood 2014, OOPSLA, figure 16, with the constants of Stafford's variant 13.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from sdegen.core.noise import Stream

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64
_BITS = 52  # of a number in (0, 1): with one more, the largest would round to 1


class Counters:
    """Uniform numbers of one stream, by their places.

    Args:
        stream: What they belong to; its other draws are not touched.
        purpose: What they are for: another word gives unrelated numbers.
    """

    def __init__(self, stream: Stream, purpose: str) -> None:
        word = stream.key ^ (zlib.crc32(purpose.encode()) * _GOLDEN)
        self._first, self._second = (_signed(_hashed(word + k * _GOLDEN)) for k in (1, 2))

    def uniform(self, places: Tensor) -> Tensor:
        """Return the numbers at places, float64 in (0, 1), neither of which is ever met.

        Args:
            places: int64, of any shape.
        """
        z = places * _signed(_GOLDEN) + self._first
        z = (z ^ _right(z, 30)) * _signed(_FIRST)
        z = z ^ self._second
        z = (z ^ _right(z, 27)) * _signed(_SECOND)
        z = z ^ _right(z, 31)
        return (_right(z, 64 - _BITS).to(torch.float64) + 0.5) * 2.0**-_BITS


def as_normal(u: Tensor) -> Tensor:
    """Return the standard normal of a uniform number, √2 erf⁻¹(2u − 1)."""
    return math.sqrt(2) * torch.erfinv(2 * u - 1)


def _hashed(n: int) -> int:
    """Return the hash of a Python int, of 64 bits."""
    n %= _WORD
    n = ((n ^ (n >> 30)) * _FIRST) % _WORD
    n = ((n ^ (n >> 27)) * _SECOND) % _WORD
    return n ^ (n >> 31)


def _signed(n: int) -> int:
    """Return a 64-bit word as the signed integer of the same bits."""
    n %= _WORD
    return n - _WORD if n >= _WORD // 2 else n


def _right(z: Tensor, bits: int) -> Tensor:
    """Shift to the right and fill with zeros; torch fills with the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
