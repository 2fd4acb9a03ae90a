"""Expectation: an average to a tolerance, what is known of its error, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdegen.core.accuracy import Trust
from sdegen.core.shown import Labelled


@dataclass(frozen=True, eq=False)
class Expectation(Labelled):
    """An average ⟨f(X_t)⟩ and the interval that holds it, with what each level added.

        half_width = z standard_error + bias

    The interval mean ± half_width holds the average with probability `confidence` or more:
    half_width is the Gaussian quantile times standard_error, plus bias.

    Attributes:
        mean: The estimate.
        half_width: Of the interval, bias included; at most the tolerance.
        confidence: Of the interval.
        standard_error: Of the mean, by the number of samples.
        bias: The most that steps of finite size are likely to cost, by the differences of levels.
        steps: Steps of each level, shape (levels,); of the finer run from the second one on.
        samples: How many of each, shape (levels,).
        means: Of f at the first level, of the differences at the others, shape (levels,).
        variances: Theirs, shape (levels,).
        costs: Evaluations of the drift at each level, shape (levels,).
        evaluations: Of the drift in all, those of the pilot and of levels left out included.
        variance_order: β of V ∝ dt^β, as the differences show it; infinite where they have none.
        weak_order: α of bias ∝ dt^α, as it was used.
        coupling: How fine and coarse steps were coupled, in words.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> growth, x0 = sg.ItoProcess(lambda x: x, 0.0), torch.ones(1, 1, dtype=torch.float64)
        >>> found = sg.expectation(growth, x0, 1.0, lambda x: x[:, 0], tolerance=0.01, rng=0)
        >>> found.standard_error, abs(found.mean - 2.71828) < found.bias  # no noise: all bias
        (0.0, True)
    """

    mean: float
    half_width: float
    confidence: float
    standard_error: float
    bias: float
    steps: Tensor
    samples: Tensor
    means: Tensor
    variances: Tensor
    costs: Tensor
    evaluations: int
    variance_order: float
    weak_order: float
    coupling: str
    seed: int

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends."""
        return self.mean - self.half_width, self.mean + self.half_width

    def trust(self) -> Trust:
        """Return what is known of its error, a row for each cause."""
        return Trust.of(
            f"average {self.mean:.6g} ± {self.half_width:.2g} ({self.confidence:.0%})",
            step=f"bias {self.bias:.1e} at {int(self.steps[-1])} steps ({self.coupling})",
            grid="none",
            truncation="none",
            sampling=f"standard error {self.standard_error:.1e} "
            f"({int(self.samples.sum()):,} trajectories at {len(self.steps)} levels)",
        )
