"""Densities at times: the path of a density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust, in_words
from sdegen.core.requests import kind_of
from sdegen.core.shown import Labelled
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.power_law import Powers


@dataclass(frozen=True, eq=False)
class DensityPath(Labelled):
    """Densities at times.

        ∂p/∂t = −(f p)′ + (D p)″,     D = g²/2

    Args:
        times: Times, strictly monotone in the direction of travel, shape (T,).
        p: Values at the nodes, shape (T, nodes); p[0] is the start.
        x: Nodes, shape (nodes,).
        powers: q of p ∝ ξ^q at the lower and the upper wall; None where p is smooth.
        fine: The same densities on a finer grid, which has all nodes x; as in `Density`.
        compared: The same problem's densities with all cells halved; likewise.
        told: Errors at each time, shape (T,), that were estimated where they were found.
        form: Form of the operator that carried them, "compact" or "lumped" (of second order,
            positive); None where none did.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.
        hidden: An error that `compared` shares, of all that is told; see `gaps`.
        jumped: Of dynamics that jump, the mass that was carried beyond ends that only end the
            grid, up to each time, shape (T,): it was put at the ends. None without jumps.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> path = sg.FokkerPlanck(ou, sg.Grid(-8.0, 8.0, cells=100)).solve(2.0, [0.0, 0.5, 1.0])
        >>> [f"{m:.4f}" for m in path.mean.tolist()]  # 2 e^−t
        ['2.0000', '1.2131', '0.7358']
    """

    times: Float[Tensor, " T"]
    p: Float[Tensor, "T nodes"]
    x: Float[Tensor, " nodes"]
    powers: Powers = (None, None)
    fine: DensityPath | None = None
    compared: DensityPath | None = None
    told: ErrorEstimate | None = None
    form: str | None = None
    slope_by: SlopeBy = "none"
    hidden: float = 0.0
    jumped: Float[Tensor, " T"] | None = None

    def at(self, k: int) -> Density:
        """Return the density at times[k]; k is an index, and −1 is the last.

        Raises:
            TypeError: If k is no int; a time is none.
            ValueError: If there are fewer times.
        """
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(
                f"k must be the index of one of {len(self)} times, but is {kind_of(k)}."
            )
        if not -len(self) <= k < len(self):
            raise ValueError(f"k must be the index of one of {len(self)} times, but is {k}.")
        fine = None if self.fine is None else self.fine.at(k)
        compared = None if self.compared is None else self.compared.at(k)
        told = None
        if self.told is not None:
            each = {name: float(torch.as_tensor(e)[k]) for name, e in self.told.items()}
            told = ErrorEstimate(each, self.told.method)
        return Density(
            self.x, self.p[k], self.powers, fine, compared, told=told, slope_by=self.slope_by,
            hidden=self.hidden, jumped=None if self.jumped is None else float(self.jumped[k]),
        )  # fmt: skip

    @cached_property
    def error(self) -> ErrorEstimate | None:
        """Estimated errors at each time, shape (T,), as those of `Density`; None for none."""
        if self.compared is None:
            return self.told
        each = [self.at(k).error for k in range(len(self))]
        known = [error for error in each if error is not None]
        if not known:
            return None
        told = {
            name: torch.tensor([float(error[name]) for error in known], dtype=torch.float64)
            for name in known[0]
        }
        return ErrorEstimate(told, known[0].method)

    @property
    def final(self) -> Density:
        """The density at the last time."""
        return self.at(-1)

    def trust(self) -> Trust:
        """Return what is known of their errors, the largest at any time, a row for each cause."""
        nodes = self.x if self.fine is None else self.fine.x
        form = "" if self.form is None else f", {self.form}"
        p = self.p.detach()
        peaks = p.where(torch.isfinite(p), 0.0).amax(1)
        low, high = (f"{float((p[:, end] / peaks).max()):.1e}" for end in (0, -1))
        return Trust.on_grid(
            "densities in time",
            f"{in_words(self.error)}, {len(nodes) - 1} cells{form}",
            step="within that of the grid",
            truncation=f"{low} and {high} of the peak at the ends of the grid"
            + ("" if self.jumped is None else f", {float(self.jumped[-1]):.1e} jumped beyond"),
            slope_by=self.slope_by,
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def mass(self) -> Float[Tensor, " T"]:
        """∫ p dx at each time; it falls where mass is absorbed."""
        return self._each(lambda density: density.mass)

    @property
    def mean(self) -> Float[Tensor, " T"]:
        """E X of the mass that is there at each time, in units of the state."""
        return self._each(lambda density: density.mean)

    @property
    def variance(self) -> Float[Tensor, " T"]:
        """Var X of the mass that is there at each time."""
        return self._each(lambda density: density.variance)

    @property
    def std(self) -> Float[Tensor, " T"]:
        """√Var X at each time."""
        return self.variance.sqrt()

    @property
    def entropy(self) -> Float[Tensor, " T"]:
        """−∫ p log p dx at each time, in units of k_B (nats)."""
        return self._each(lambda density: density.entropy)

    def expect(self, f: Callable[[Tensor], Tensor]) -> Float[Tensor, " T"]:
        """Return E f(X) of the mass that is there at each time; f is elementwise."""
        return self._each(lambda density: density.expect(f))

    def cdf(self, x: Float[Tensor, "*points"]) -> Tensor:
        """Return ∫_{−∞}^{x} p at each time, shape (T, *points); reaches `mass`.

        Args:
            x: Positions, any shape.
        """
        return self._each(lambda density: density.cdf(x))

    def quantile(self, q: Float[Tensor, "*levels"] | float) -> Tensor:
        """Return x with cdf(x) = q · mass at each time, shape (T, *levels).

        Args:
            q: Levels in [0, 1], any shape.

        Raises:
            ValueError: If a level lies outside of [0, 1].
        """
        return self._each(lambda density: density.quantile(q))

    def _each(self, of: Callable[[Density], Tensor]) -> Tensor:
        """Apply a function of a density to all of them."""
        return torch.stack([of(self.at(k)) for k in range(len(self))])
