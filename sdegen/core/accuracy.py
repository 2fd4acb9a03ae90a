"""How far a result can be trusted: estimated errors that stand beside values, and their table.

An `ErrorEstimate` belongs to one result. It holds a relative error for each of the result's
attributes that carries one, by the attribute's name, and says how it was found. Values stay
numbers and tensors; `result.error` is where their errors are. Where a question has a bare number
or a bare tensor for an answer, that is an `Estimated` or an `EstimatedTensor`, which has `.error`
too and is else what it was.

    error = |value − truth| / max(|value|, scale)

with scale the standard deviation for means, the peak for densities, and the one-way flux for
currents. An error above 1e-3 gives an `AccuracyWarning`.

`Trust` is the table that `result.trust()` prints: one row for each cause of error, "not estimated"
where nothing is known of it. Where a derivative of drift or diffusion was found by differences,
since autograd does not see it, a row says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, SupportsFloat

import torch
from torch import Tensor

from sdegen.core.errors import AccuracyWarning

SlopeBy = Literal["none", "given", "autograd", "differences"]
WeakStrong = tuple[float, float | None]

WARNS = 1e-3  # the relative error above which a result warns
NOT_ESTIMATED = "not estimated"
_DIFFERENCES = "by differences: autograd does not see it; about 1e-9, up to 1e-3 in float32"


@dataclass(frozen=True)
class Orders:
    """Orders of convergence of a solver, in the step; None where it refuses the dynamics.

    A strong order is None where the noise is not that of a path, but its law alone.

    Noise commutes where Σ_j G_jk ∂_j G_il is the same with k and l exchanged: additive noise,
    diagonal noise whose g_i depends on x_i alone, one Wiener process for all coordinates.

    Attributes:
        flow: Of noise-free dynamics.
        additive: Weak and strong order for additive noise.
        multiplicative: Weak and strong order for multiplicative noise that commutes.
        channels: Weak and strong order for multiplicative noise that need not commute.
    """

    flow: float | None
    additive: WeakStrong | None
    multiplicative: WeakStrong | None
    channels: WeakStrong | None = None


@dataclass(eq=False, repr=False)
class ErrorEstimate(Mapping[str, float | Tensor]):
    """Estimated relative errors of a result, by the name of the attribute.

        error = |value − truth| / max(|value|, scale)

    with scale the standard deviation for means, the peak for densities.

    Args:
        estimates: A relative error, or a tensor of them of the attribute's shape, for each
            attribute.
        method: How they were estimated, such as "two grids" or "residual".

    Example:
        >>> error = sg.ErrorEstimate({"mean": 2e-5, "variance": 3e-4}, "two grids")
        >>> error["mean"], float(error)  # as a number it is the largest of them
        (2e-05, 0.0003)
    """

    estimates: Mapping[str, float | Tensor]
    method: str

    def __getitem__(self, name: str) -> float | Tensor:
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def __float__(self) -> float:
        """Return the largest of them."""
        return max((largest(v) for v in self.estimates.values()), default=0.0)

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {largest(v):.1e}" for name, v in self.items())
        return f"ErrorEstimate({listed}; {self.method})"


def largest(error: float | Tensor) -> float:
    """Return the largest of one or several errors."""
    return float(error.detach().max()) if isinstance(error, Tensor) else float(error)


def warn_inaccurate(
    error: ErrorEstimate, what: str, cure: str, *, above: float = WARNS, stacklevel: int = 3
) -> None:
    """Warn where an estimated error exceeds 1e-3, or what was asked for.

    Args:
        error: Estimated errors.
        what: Whose they are, such as "the stationary density".
        cure: What to pass to make them smaller.
        above: The largest error that is passed over.
        stacklevel: As `warnings.warn` has it; 3 points at the caller's caller.
    """
    each = {k: largest(v) for k, v in error.items()}
    name = max(each, key=lambda k: math.inf if math.isnan(each[k]) else each[k])
    worst = each[name]
    if not worst <= above:  # NaN warns too
        warnings.warn(
            f"{what}: the estimated relative error of {name} is {worst:.2g} ({error.method}), "
            f"above {above:g}. {cure}",
            AccuracyWarning,
            stacklevel=stacklevel,
        )


class Estimated(float):
    """A number that knows its error: a float in every other respect.

    Args:
        value: The number.
        error: Its estimated relative error, under the name "value".

    >>> sigma = Estimated(50.0, ErrorEstimate({"value": 2e-4}, "two grids"))
    >>> sigma / 2, float(sigma.error)
    (25.0, 0.0002)
    """

    error: ErrorEstimate

    def __new__(cls, value: SupportsFloat, error: ErrorEstimate) -> Estimated:
        """Return the number; it is immutable, as any float."""
        number = super().__new__(cls, value)
        number.error = error
        return number

    def __reduce__(self) -> tuple[type[Estimated], tuple[float, ErrorEstimate]]:
        """Return what a copy is made of."""
        return Estimated, (float(self), self.error)


class EstimatedTensor(Tensor):
    """A tensor that knows its error; what is computed from it is a plain tensor.

    Attributes:
        error: Estimated relative errors.
    """

    error: ErrorEstimate
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(values: Tensor, error: ErrorEstimate) -> EstimatedTensor:
        """Return values with their error beside them."""
        marked = values.as_subclass(EstimatedTensor)
        marked.error = error
        return marked


@dataclass(frozen=True, repr=False)
class Trust:
    """What is known of the errors of a result, one row for each cause.

    Args:
        title: What the result is.
        rows: Pairs (cause, what is known of it); `NOT_ESTIMATED` where nothing is.

    Example:
        >>> print(sg.Trust.of("density at rest", grid="3.1e-06", sampling="none"))
        density at rest
          step        not estimated
          grid        3.1e-06
          truncation  not estimated
          sampling    none
    """

    title: str
    rows: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls,
        title: str,
        *,
        step: ErrorEstimate | str | None = None,
        grid: ErrorEstimate | str | None = None,
        truncation: ErrorEstimate | str | None = None,
        sampling: ErrorEstimate | str | None = None,
        slope_by: SlopeBy = "none",
    ) -> Trust:
        """Return the table of the four causes of error.

        Args:
            title: What the result is.
            step: Error of the steps in time.
            grid: Error of the cells.
            truncation: Error of the ends: of the grid, of the time, of a series.
            sampling: Error of a finite number of samples.
            slope_by: How a derivative that the dynamics need was found.
        """
        causes = {"step": step, "grid": grid, "truncation": truncation, "sampling": sampling}
        if slope_by == "differences":
            causes["derivative"] = _DIFFERENCES
        return cls(title, tuple((cause, in_words(known)) for cause, known in causes.items()))

    @classmethod
    def on_grid(
        cls,
        title: str,
        grid: ErrorEstimate | str | None,
        *,
        step: str = "none",
        truncation: str = "told above 1e-6 of the peak at an end that only cuts the grid",
        slope_by: SlopeBy = "none",
    ) -> Trust:
        """Return the table of what a grid answers, in which nothing is sampled.

        Args:
            title: What the result is.
            grid: Error of the cells.
            step: Error of the steps in time; none by default.
            truncation: Error of the ends of the grid.
            slope_by: How a derivative that the dynamics need was found.
        """
        return cls.of(
            title, step=step, grid=grid, truncation=truncation, sampling="none", slope_by=slope_by
        )

    def __str__(self) -> str:
        width = max((len(cause) for cause, _ in self.rows), default=0)
        return "\n".join([self.title, *(f"  {c:<{width}}  {known}" for c, known in self.rows)])

    __repr__ = __str__  # what a notebook and a prompt show


def in_words(known: ErrorEstimate | str | None) -> str:
    """Return what is known of an error in words: each attribute and its relative error."""
    if known is None:
        return NOT_ESTIMATED
    if isinstance(known, str):
        return known
    each = ", ".join(f"{name} {largest(error):.1e}" for name, error in known.items())
    return f"{each} ({known.method})"
