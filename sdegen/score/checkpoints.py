"""Checkpoints: the state of a training run in a folder, from which it goes on to the same bits.

One file for each kept step, `step-00001000.safetensors`: the weights, their average, the moments
of the optimizer and the losses so far, and in its metadata what the run is: configuration, seed,
model, fingerprint of the data. The numbers of step k come from a stream of their own, (seed,
"train", k), so no generator's state needs keeping.

The newest two are kept. A damaged file is never skipped in silence: the disk that damaged one
deserves a look.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sdegen.core.errors import CheckpointError
from sdegen.storage import load_tensors, save_tensors

__all__ = ["Checkpoints"]

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
        """The steps there are files of, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:08d}.safetensors"

    def save(self, step: int, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Writes the file of a step, then removes all but the newest `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self.path(step), tensors, metadata | {"kind": "training", "step": step})
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink()

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the newest file holds, or None where there is none.

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

    def _load(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the file of a step holds, once it is found to be of a training."""
        tensors, metadata = load_tensors(self.path(step))
        if metadata.get("kind") != "training":
            raise CheckpointError(
                f"{self.path(step)} holds a {metadata.get('kind')}, not the state of a training."
            )
        return tensors, metadata

    def _advice(self, damaged: int) -> str:
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
