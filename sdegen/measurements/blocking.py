"""Blocking: the error of a time average from the averages of longer and longer blocks.

The averages of blocks of B states are nearly independent once B is many correlation times. For a
series of N states in N/B blocks of means m_b,

    σ_B² = Σ (m_b − m̄)²/((N/B)(N/B − 1)),      std σ_B = σ_B/√(2(N/B − 1))

grows with B up to the error of the mean, and then only scatters. B runs through powers of two. The
one taken is the smallest with

    B³ > 2 N (σ_B/σ_1)⁴,       (σ_B/σ_1)² → 2 τ_int/Δ

which balances what is missing, τ_int/(B Δ) of the variance, with the scatter. No correlations are
summed, so that it does not matter how they decay. Blocks never cross from one trajectory into the
next, and the last ones of several trajectories are these themselves, which are independent.

Reference:
    Flyvbjerg and Petersen 1989, J. Chem. Phys. 91, 461, eqs. (26)–(28); Lee et al. 2011, Phys.
    Rev. E 83, 066706, for the choice of B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.shapes import Times
from sdegen.core.shown import Labelled
from sdegen.measurements.series import SeriesLike, series_of
from sdegen.measurements.time_average import student_interval


@dataclass(frozen=True, eq=False)
class BlockAverage(Labelled):
    """An average with the error that blocks tell, for each quantity of an event.

    Args:
        mean: Shape (*event).
        standard_error: σ_B of the block that was taken, shape (*event).
        degrees_of_freedom: N/B − 1, shape (*event).
        block: B in units of the times, or in states, shape (*event).
        sizes: All B that were tried, in the same units, shape (L,).
        errors: σ_B of each, shape (L, *event).
        scatter: The standard error of each σ_B, shape (L, *event).
    """

    mean: Tensor
    standard_error: Tensor
    degrees_of_freedom: Tensor
    block: Tensor
    sizes: Tensor
    errors: Tensor
    scatter: Tensor

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the ends of the interval that holds the true average with a confidence."""
        return student_interval(
            self.mean, self.standard_error, self.degrees_of_freedom, confidence
        )


def block_average(
    series: SeriesLike,
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    times: Times | None = None,
) -> BlockAverage:
    """Return the average of a series, or of a function of its states, with its error by blocks.

        σ_B² = Σ_b (m_b − m̄)²/(n (n − 1)),     m_b the means of n blocks of B states

    Args:
        series: Shape (T,), or (T, batch, *event), or a `Trajectory`; at rest.
        function: f(x) of states, shape (batch, *event), with a row for each; None: the states.
        times: Times of an array, evenly spaced, shape (T,).

    Raises:
        TypeError: If the series is no series of real numbers.
        ValueError: If it is not finite, constant or unevenly spaced, or so short that no block is
            long enough.

    Example:
        >>> x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        >>> average = sg.block_average(x)
        >>> bool(average.standard_error > 1 / 100)
        True
    """
    numbers = series_of(series, function, times)
    blocks = numbers.fluctuations()
    errors, counts = [], []
    while (number := blocks[0].numel()) > 1:
        counts.append(number)
        errors.append((blocks.flatten(1).var(1) / number).sqrt())
        pairs = blocks.shape[2] // 2
        if pairs == 0:
            break
        blocks = (blocks[..., : 2 * pairs : 2] + blocks[..., 1 : 2 * pairs : 2]) / 2
    sizes = 2.0 ** torch.arange(len(counts), dtype=torch.float64)
    if (rows := numbers.trajectories) > 1:
        counts.append(rows)
        errors.append(numbers.means.std(1) / rows**0.5)
        sizes = torch.cat([sizes, torch.tensor([numbers.length], dtype=torch.float64)])
    levels = torch.stack(errors)
    device = levels.device
    sizes = sizes.to(device)
    freedom = torch.tensor(counts, dtype=torch.float64, device=device) - 1
    limit = 2 * numbers.count * (levels / levels[0]) ** 4
    enough = sizes[:, None] ** 3 > limit
    if rows > 1:
        enough[-1] = True
    if not bool(enough.any(0).all()):
        q = int((~enough.any(0)).nonzero()[0])
        need = float(limit[:, q].max()) ** (1 / 3)
        raise ValueError(
            f"no block of a series of {numbers.length} times is long enough: it would hold about "
            f"{need:.2g} of them (quantity {q}); run it longer, or take more trajectories."
        )
    taken = enough.to(torch.uint8).argmax(0)
    shaped = numbers.shaped
    return BlockAverage(
        mean=shaped(numbers.mean),
        standard_error=shaped(levels.gather(0, taken[None])[0]),
        degrees_of_freedom=shaped(freedom[taken]),
        block=shaped(sizes[taken] * numbers.spacing),
        sizes=sizes * numbers.spacing,
        errors=shaped(levels),
        scatter=shaped(levels / (2 * freedom[:, None]).sqrt()),
    )
