"""Streams: rows of a DataLoader or an IterableDataset, which come as they come.

Epoch after epoch the loader is gone through from its beginning, and steps of `batch_size` rows are
cut from what it gives: the rest of one batch begins the next step. The rows of a step are shuffled
among themselves; what order the loader has beyond that is its own affair.

**The same bits.** The global generators of torch, NumPy and Python, and the loader's own, are set
by (seed, epoch, batch) whenever the loader is asked, so that its order, its base seed and with
that its workers follow `rng`. On resume what was read of the epoch is read again and dropped,
which takes its time, and the last batch is compared with the one that was read before the kill: a
loader that gives others, as one does that reads from the network or draws from a generator of its
own, is refused. A map-style Dataset given itself is resumed at once, whatever it holds.

**Ranks** each go through the whole loader and take their rows of a step. To share the reading,
give the Dataset itself.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from sdegen.core.errors import CheckpointError
from sdegen.core.fingerprint import fingerprint
from sdegen.core.noise import Stream
from sdegen.training.loss import Batch
from sdegen.training.rows import as_batch
from sdegen.training.seeding import GlobalGenerators
from sdegen.training.sources import LOOK, CheckBatch, Source


class LoaderSource(Source):
    """Rows of a loader.

    Args:
        name: What the caller calls the data.
        loader: Gives batches, x or (x, label), of any number of rows.
        kind: What the data are called in the specification of a run.
        check: What else is asked of each batch.
    """

    def __init__(
        self, name: str, loader: DataLoader[Any], kind: str, check: CheckBatch | None = None
    ) -> None:
        super().__init__(name, check)
        if isinstance(loader.sampler, DistributedSampler):
            raise ValueError(  # noqa: TRY004, a DataLoader is right
                f"{name} has a DistributedSampler, and ranks take their share of each step "
                "themselves; make the DataLoader without it, or give its Dataset."
            )
        self._loader, self._kind = loader, kind
        self._own = [] if loader.generator is None else [loader.generator]
        self._batches: Iterator[Any] | None = None
        self._epoch, self._fetched = 0, 0
        self._last = self._left = Batch(torch.empty(0))
        self._seed = LOOK
        self.sample: Batch = self._fetch()
        self.close()
        self._epoch, self._fetched = 0, 0

    def read(self, k: int, source: Stream, count: int, mine: slice) -> Batch:
        """Return some of the next rows, in an order drawn from the stream."""
        parts: list[Batch] = []
        missing = count
        while missing:
            if not len(self._left):
                self._last = self._left = self._fetch()
            parts.append(self._left.cut(slice(0, missing)))
            self._left = self._left.cut(slice(missing, None))
            missing -= len(parts[-1])
        # times are stratified along a batch: its order must tell nothing about the rows
        order = torch.randperm(count, generator=source.generator())[mine]
        rows = torch.cat([part.rows for part in parts])[order]
        given = [part.labels for part in parts if part.labels is not None]
        return self._placed(Batch(rows, torch.cat(given)[order] if given else None))

    def whole(self) -> Batch:
        """Return all rows of one epoch."""
        parts = [self._fetch()]
        while True:
            part = self._fetch()
            if self._epoch:
                break
            parts.append(part)
        self.close()
        labels = [part.labels for part in parts if part.labels is not None]
        rows = torch.cat([part.rows for part in parts])
        return Batch(rows, torch.cat(labels) if labels else None)

    def spec(self) -> dict[str, Any]:
        """Return what it is, and a sha256 of its first batch."""
        return {"kind": self._kind, "sample": self._sample_spec()}

    def state(self) -> dict[str, Any]:
        """Return the epoch, its batches read, the rows left of the last one, and its sha256."""
        return {
            "epoch": self._epoch,
            "batches": self._fetched,
            "left": len(self._left),
            "last": fingerprint(self._last.rows),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Read again what was read of the epoch.

        Raises:
            CheckpointError: If it is not what was read before.
        """
        self.close()
        self._epoch, self._fetched = int(state["epoch"]), 0
        for _ in range(int(state["batches"])):
            self._last = self._fetch()
        if (self._epoch, fingerprint(self._last.rows)) != (state["epoch"], state["last"]):
            raise CheckpointError(
                f"{self.name} gave other rows than before the checkpoint was written (batch "
                f"{state['batches']} of epoch {state['epoch']}), so that the run cannot end in "
                "the same bits; give a map-style Dataset, whose rows are asked for by number, or "
                "train anew in another folder."
            )
        self._left = self._last.cut(slice(len(self._last) - int(state["left"]), None))

    def close(self) -> None:
        """Let go of the loader's workers."""
        self._batches = None

    def _fetch(self) -> Batch:
        """Return the next batch, of the next epoch where this one has ended."""
        with GlobalGenerators(*self._own) as generators:
            for _ in range(2):
                generators.seed(self._seed, self._epoch, self._fetched)
                if self._batches is None:
                    self._batches = iter(self._loader)
                item = next(self._batches, None)
                if item is not None:
                    break
                self._batches, self._epoch, self._fetched = None, self._epoch + 1, 0
            else:
                raise ValueError(f"{self.name} is empty: an epoch of it gives no batch.")
        at = f"of batch {self._fetched} of epoch {self._epoch}"
        self._fetched += 1
        return self._looked_at(as_batch(self.name, item), lambda i: f"row {i} {at}")
