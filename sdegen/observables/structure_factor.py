"""The structure factor: the power of the density of particles at the wave vectors of a box.

    S(k) = |Σ_j e^{−i k·x_j}|²/N,         k = 2π (n₁/L₁, …), k ≠ 0, the mean over a shell of |k|

It is 1 for an ideal gas, and known at the k of the box alone.

Reference:
    Hansen and McDonald 2013, Theory of Simple Liquids, eq. (4.1.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.shapes import Numbers, State
from sdegen.observables.particles import OfSystems, box_lengths
from sdegen.sde.neighbours import Lengths, check_box, check_positions

_MOST_VECTORS = 2**22


@dataclass(frozen=True)
class StructureFactor(OfSystems):
    """The power of the density at wave vectors of the box, averaged over shells, (batch, shells).

        S(k) = |Σ_j e^{−i k·x_j}|²/N

    Args:
        box: Length of the periodic box for each of its 1 to 3 dimensions, such as (10.0, 10.0).
        k_max: Largest |k|.
        bins: Shells of equal width up to k_max; those without a k of the box are left out.
        name: What the result is called.
        origin: Index into times of the first that counts.

    Raises:
        TypeError: If bins is no int, or box no lengths.
        ValueError: If no k of the box is within k_max, or they are too many.

    Example:
        >>> asked = sg.StructureFactor(box=(10.0,), k_max=1.5, bins=2)
        >>> x = torch.tensor([[[0.0], [5.0]]])  # they cancel at k = 2π/10 and add up at 4π/10
        >>> asked.each(x).round(decimals=6)
        tensor([[0., 2.]], dtype=torch.float64)
    """

    box: Numbers
    k_max: float
    bins: int = 50
    name: str = "structure_factor"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("k_max", self.k_max)
        check_count("bins", self.bins)
        lengths = self._box()
        least = 2 * math.pi / max(lengths)
        if self.k_max < least:
            raise ValueError(
                f"k_max must be at least {least:g}, the smallest k of the box, 2π/L, but is "
                f"{self.k_max:g}."
            )
        count = math.prod(self.k_max * length / math.pi + 1 for length in lengths)
        if count > _MOST_VECTORS:
            raise ValueError(
                f"k_max = {self.k_max:g} has {count:.3g} wave vectors of the box, of at most "
                f"{_MOST_VECTORS}; pass a smaller k_max."
            )

    def _box(self) -> Lengths:
        box = check_box(self.box)
        if not isinstance(box, tuple) or len(box) > 3:
            raise ValueError(
                "box must have a length for each of 1 to 3 dimensions, such as (10.0, 10.0), but "
                f"is {self.box!r}."
            )
        return box

    def each(self, x: State) -> Tensor:
        """Return S(k), shape (batch, shells)."""
        x, lengths = check_positions(x, None), box_lengths(self.box, x)
        modes, inside, means, _ = _shells(lengths, self.k_max, self.bins)
        waves = [
            torch.exp(-2j * math.pi / length * x[..., c, None].double() * n.to(x.device))
            for c, (length, n) in enumerate(zip(lengths, modes, strict=True))
        ]
        if len(waves) == 1:
            rho = waves[0].sum(1)
        elif len(waves) == 2:
            rho = waves[0].mT @ waves[1]
        else:
            planes = [(wave[..., None] * waves[1]).mT @ waves[2] for wave in waves[0].unbind(-1)]
            rho = torch.stack(planes, 1)
        power = (rho.real.square() + rho.imag.square()).flatten(1) / x.shape[1]
        return power[:, inside.to(x.device)].cpu() @ means

    def _at(self) -> Tensor:
        return _shells(self._box(), self.k_max, self.bins)[3]


@lru_cache(maxsize=8)
def _shells(
    lengths: Lengths, k_max: float, bins: int
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return wave numbers of each dimension, which of their grid count, means, and mean |k|.

    Of k and −k, which have one power, one counts; the means are a matrix (vectors, shells).
    """
    most = [int(k_max * length / (2 * math.pi)) for length in lengths]
    modes = [torch.arange(-m, m + 1, dtype=torch.float64) for m in most]
    modes[0] = modes[0][most[0] :]
    n = torch.cartesian_prod(*modes).reshape(-1, len(modes))
    k = (2 * math.pi * n / torch.tensor(lengths, dtype=torch.float64)).square().sum(1).sqrt()
    # the first component that is not 0 is positive
    leading = torch.zeros(len(n), dtype=torch.float64)
    for column in n.unbind(1):
        leading = torch.where(leading == 0, column, leading)
    inside = ((leading > 0) & (k <= k_max)).nonzero()[:, 0]
    shell = (k[inside] * (bins / k_max)).long().clamp(max=bins - 1)
    found, place = np.unique(shell.numpy(), return_inverse=True)
    means = torch.zeros(len(inside), len(found), dtype=torch.float64)
    means[torch.arange(len(inside)), torch.from_numpy(place)] = 1.0
    means = means / means.sum(0)
    return modes, inside, means, k[inside] @ means
