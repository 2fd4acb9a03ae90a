"""Statistics of samples that come block by block: count, mean, and central moments up to fourth.

    M_p = Σ_i (y_i − ȳ)^p,        p = 2, 3, 4

Those of two blocks merge exactly, so that the order of the blocks, which is fixed, fixes the bits.
The fourth moment says how well a variance is known: of n samples of kurtosis κ = n M₄/M₂² the
variance has the relative standard error √((κ − 1)/n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdegen.core.central_sums import merged_sums


@dataclass(frozen=True)
class Statistics:
    """Moments of the samples so far.

    Attributes:
        count: How many.
        mean: Theirs.
        m2: Sum of squares about the mean.
        m3: Sum of cubes about it.
        m4: Sum of fourth powers about it.
        largest: The largest |y|.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, y: Tensor) -> Statistics:
        """Return the moments of samples, shape (n,), float64."""
        if len(y) == 0:
            return cls()
        mean = y.mean()
        d = y - mean
        square = d * d
        return cls(
            len(y),
            float(mean),
            float(square.sum()),
            float((square * d).sum()),
            float((square * square).sum()),
            float(y.abs().max()),
        )

    @property
    def variance(self) -> float:
        """The unbiased variance; 0 of one sample."""
        return self.m2 / (self.count - 1) if self.count > 1 else 0.0

    @property
    def kurtosis(self) -> float:
        """n M₄/M₂², 3 of a Gaussian; 1, the least, where all samples are alike."""
        return max(1.0, self.count * self.m4 / self.m2**2) if self.m2 > 0 else 1.0

    @property
    def variance_error(self) -> float:
        """The relative standard error of the variance, √((κ − 1)/n)."""
        return math.sqrt((self.kurtosis - 1) / self.count) if self.count else 0.0

    @property
    def standard_error(self) -> float:
        """That of the mean."""
        return math.sqrt(self.variance / self.count) if self.count else 0.0

    def merge(self, other: Statistics) -> Statistics:
        """Return the moments of both together.

        >>> import torch
        >>> y = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
        >>> both, one = Statistics.of(y[:1]).merge(Statistics.of(y[1:])), Statistics.of(y)
        >>> (both.m2, both.m3, both.m4) == (one.m2, one.m3, one.m4)
        True
        """
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        a, b = self.count, other.count
        gap = other.mean - self.mean
        m2, m3, m4 = merged_sums(
            a, b, gap, (self.m2, self.m3, self.m4), (other.m2, other.m3, other.m4)
        )
        largest = max(self.largest, other.largest)
        return Statistics(a + b, self.mean + gap / (a + b) * b, m2, m3, m4, largest)
