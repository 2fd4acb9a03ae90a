"""Ensemble: what an ensemble returns, its observables and what is known of their errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, SlopeBy, Trust
from sdegen.core.optional import needed
from sdegen.core.shown import Labelled

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class Ensemble(Labelled):
    """What an ensemble showed: the result of each observable A is ⟨A⟩ = Σ_i A_i/n.

    Attributes:
        times: Times of the run, shape (T,), float64.
        observables: Result of each observable, by its name; None where no trajectory was left.
        trajectories: How many were run; fewer than asked for only in the `.result` of an error.
        nonfinite: How many of them were lost; they are in no observable.
        nfe: Evaluations of the drift that one trajectory took.
        seed: What to pass as rng to get the same bits again.
        store: Where the states are, or None.
        step_error: Error of mean and spread by the size of the steps, from a pilot at half of
            them; None where none was made.
        slope_by: How a derivative that the dynamics need was found, as `SDE.slope_by` says it.

    Example:
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.tensor([[1.0], [3.0]])
        >>> asked = [sg.Moments()]
        >>> run = sg.run_ensemble(decay, x0, [0.0, 0.5], trajectories=2, observables=asked, rng=7)
        >>> run.observables["moments"].mean[-1].item(), run.nfe, run.seed  # 2 · ½, one step
        (1.0, 1, 7)
    """

    times: Tensor
    observables: dict[str, Any]
    trajectories: int
    nonfinite: int
    nfe: int
    seed: int
    store: Path | None
    step_error: ErrorEstimate | None = None
    slope_by: SlopeBy = "none"

    def trust(self) -> Trust:
        """Return what is known of the errors of its observables, a row for each cause."""
        n = self.trajectories - self.nonfinite
        return Trust.of(
            "ensemble",
            step=self.step_error,
            grid="none",
            truncation=f"{self.nonfinite} trajectories lost" if self.nonfinite else None,
            sampling=f"standard error of a mean {n**-0.5:.1e} of the std ({n} trajectories)"
            if n > 1
            else None,
            slope_by=self.slope_by,
        )

    def open(self) -> xarray.Dataset:
        """Return the stored states as an `xarray.Dataset`: (time, trajectory, coordinate).

        They are read when they are used.

        Raises:
            ValueError: If nothing was stored.
            ImportError: If xarray is not installed.
        """
        if self.store is None:
            raise ValueError('no states were stored; pass store="run.zarr" to run_ensemble.')
        library = needed("xarray", by="opening a store", extra="io")
        dataset: xarray.Dataset = library.open_zarr(self.store, consolidated=False, chunks=None)
        return dataset
