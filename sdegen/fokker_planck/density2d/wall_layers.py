"""The stencil of offsets at a wall without flux, shortened so that it stays of second order.

Offsets that leave the domain are left out. Those that reach m > 1 nodes across the wall's normal
would then carry what those with m = 1 do not: a density that changes along the wall alone, with
n·J = 0, would not stay as it is, an error of first order. In the rows j = 0, 1, … from the wall
the offsets that start at row j are therefore weighed by

    w_mj = m Σ_{i ≤ j, i ≡ j mod m} c_i,    c = U_{m₁} * U_{m₂} * …,    U_m = 1/m on 0 … m − 1

over the m > 1 that occur there. What leaves row j less what enters it is then m c_j for every m,
the same share c_j of n·J, which vanishes; and w_mj is 1 from row Σ (m − 1) on, where every class
of rows modulo m holds 1/m of c. What the rows lack along the wall is added to their offsets
(0, ± 1): the conductivity s = det D/D_nn of a layer through which nothing flows, less the part of
these offsets, in the shares 1 − Σ_{i ≤ j} c_i. All weights are ≥ 0.

With m ≤ 1 only, c_0 = 1, and these are the control volumes of a wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdegen.fokker_planck.density2d.selling import Integers
from sdegen.fokker_planck.discretization.arrays import Array

_FAINT = 1e-12  # of D: an offset with a smaller weight is none


@dataclass(frozen=True, eq=False)
class WallLayer:
    """Weights near one wall, at every place along it.

    Args:
        weights: w_mj, shape (places, reach + 1, rows); 1 in rows further inside.
        lacking: 1 − Σ c_i, shape (places, rows); 0 further inside.
    """

    weights: Array
    lacking: Array

    @classmethod
    def of(cls, across: Integers, shares: Array, reach: int) -> WallLayer:
        """Return the weights for offsets at the nodes of a wall.

        Args:
            across: How many rows each of them reaches across, shape (places, 3).
            shares: Their weights over the sum of them, shape (places, 3).
            reach: The largest m of all nodes.
        """
        present = np.where(shares > _FAINT, np.abs(across), 0)
        kinds, of_place = np.unique(np.sort(present, 1), axis=0, return_inverse=True)
        spreads = [_spread(kind) for kind in kinds]
        rows = max(len(c) for c in spreads)
        weights = np.ones((len(kinds), reach + 1, rows))
        lacking = np.zeros((len(kinds), rows))
        for k, (kind, c) in enumerate(zip(kinds, spreads, strict=True)):
            weights[k, 0, 0] = 0.5  # along the wall itself: half a row
            lacking[k, : len(c)] = 1 - np.cumsum(c)
            for m in {1, *kind.tolist()} - {0}:
                for j in range(len(c)):
                    weights[k, m, j] = m * c[j % m : j + 1 : m].sum()
        places = of_place.ravel()
        return cls(weights[places], np.maximum(lacking[places], 0.0))

    def at(self, place: Integers, across: Integers, row: Integers) -> Array:
        """Return the weights of offsets that reach `across` rows from a row, or to it."""
        rows = self.weights.shape[2]
        found = self.weights[place, np.abs(across), np.minimum(row, rows - 1)]
        return np.where(row < rows, found, 1.0)

    def lacking_at(self, place: Integers, row: Integers) -> Array:
        """Return which share of what a layer lacks is added in a row."""
        rows = self.lacking.shape[1]
        return np.where(row < rows, self.lacking[place, np.minimum(row, rows - 1)], 0.0)


def _spread(kind: Integers) -> Array:
    """Return c for the numbers of rows that offsets reach across."""
    c = np.ones(1)
    for m in np.unique(kind[kind > 1]).tolist():
        c = np.convolve(c, np.full(m, 1 / m))
    return c
