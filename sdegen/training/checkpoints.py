"""Checkpoints: the state of a training run in a folder, from which it goes on to the same bits.

One file for each saved step, `step-00001000.safetensors`: the weights, their average, the moments
of the optimizer and the losses so far, and in its metadata what the run is: configuration, seed,
module, loss, fingerprint of the data. The numbers of step k come from a stream of their own,
(seed, "train", k), so no generator's state needs keeping.

The newest two stay. A damaged file is never skipped in silence: the disk that damaged one
deserves a look.

Version 0.1 wrote the parameters of its one loss, denoising score matching, into the configuration;
and a version writes no field of the configuration that came later. Their files are read as if they
had been written today, with what a later field is by default.
"""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from sdegen.core.errors import CheckpointError
from sdegen.storage import load_tensors, save_tensors
from sdegen.training.config import FitConfig

Saved = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and metadata

_LATER = ("precision", "accumulate")  # fields that files of earlier versions do not have
_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they are; made if need be.
        keep: How many of the newest stay.
    """

    folder: Path
    keep: int = 2

    def steps(self) -> list[int]:
        """Return the steps that have a file, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Return the path of a step's file."""
        return self.folder / f"step-{step:08d}.safetensors"

    def save(self, step: int, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write the file of a step, then remove all but the newest `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self.path(step), tensors, metadata | {"kind": "training", "step": step})
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink()

    def newest(self) -> Saved | None:
        """Return tensors and metadata of the newest file, or None where there is none.

        Raises:
            CheckpointError: If it is damaged; names the newest good one.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return self._load(steps[-1])
        except CheckpointError as error:
            raise CheckpointError(f"{error} {self._advice(steps[-1])}") from error

    def _load(self, step: int) -> Saved:
        """Return tensors and metadata of a step's file; refuse one that is of no training."""
        tensors, metadata = load_tensors(self.path(step), "training")
        return tensors, metadata | {"run": _current(metadata["run"])}

    def _advice(self, damaged: int) -> str:
        """Return what to do about a damaged file."""
        for step in reversed([step for step in self.steps() if step < damaged]):
            try:
                self._load(step)
            except CheckpointError:
                continue
            return (
                f"The newest good one is {self.path(step)}; remove the damaged file to go on from "
                "there."
            )
        return "There is no good one beside it; remove it to start anew."


def _current(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a run is, of a file of version 0.1 too, as it is written today."""
    known = {field.name for field in fields(FitConfig)}
    config = {name: value for name, value in run["config"].items() if name in known}
    loss = {name: value for name, value in run["config"].items() if name not in known}
    if loss:
        run = run | {"loss": {"class": "DenoisingLoss"} | loss}
    plain = {name: value for name, value in asdict(FitConfig()).items() if name in _LATER}
    return run | {"config": plain | config}
