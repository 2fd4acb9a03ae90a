"""Sources: where the rows of a step come from, in memory or not.

    a tensor, an array in memory     looked at as a whole, kept where the weights are
    a .npy file, np.memmap, zarr     the rows of each step are read, and no others
    a map-style Dataset              dataset[i] for the rows of each step: x, or (x, label)
    an IterableDataset, a DataLoader what comes, epoch after epoch (`streams.py`)

All but the last are asked for **rows by their number**, drawn with replacement from the stream of
the step. So an array on disk gives the bits that the same array in memory gives; a killed run
continues where it was, at once; and ranks that train together each read their own share.

**Checks.** In memory all rows are looked at. Others are known by up to 256 rows, evenly spread,
and each row is looked at when it is read: one that is not finite is named. A run is told from
others by its kind, its size and a sha256 of those 256 rows: that another row was changed between
kill and resume is not seen.

**Augmentation.** What `dataset[i]` draws from the global generators of torch, NumPy or Python, it
draws from numbers that belong to the seed, the step and the row, so that neither a kill nor the
number of ranks changes it. A generator of the data set's own is beyond that, and is told by an
`AccuracyWarning`: the run cannot be repeated.

**Speed.** A chunk of a zarr array is read whole for one row of it: rows drawn at random want
chunks of few rows. `dataset[i]` runs in this process; a DataLoader has workers.
"""

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.core.errors import AccuracyWarning
from sdegen.core.fingerprint import fingerprint, fingerprint_json
from sdegen.core.noise import Stream
from sdegen.training.loss import Batch
from sdegen.training.rows import as_batch, check_data, check_read, check_row_labels, collated
from sdegen.training.seeding import GlobalGenerators

CheckBatch = Callable[[Batch], None]

_SAMPLE, _SAMPLE_NUMBERS = 256, 2**22  # rows that are looked at, and numbers in them, at most
LOOK = 0x5DE  # what data sets draw from while they are looked at


class Source(ABC):
    """Where the rows of a step come from.

    Args:
        name: What the caller calls the data.
        check: What else is asked of each batch, such as that its labels are known classes.

    Attributes:
        sample: All rows of what is in memory; else some of them.
        labels: What belongs to each row, where it was given beside the data; else None.
    """

    sample: Batch
    labels: Tensor | None = None

    def __init__(self, name: str, check: CheckBatch | None) -> None:
        self.name: str = name
        self._check = check
        self._like: Tensor = torch.empty(0)
        self._seed = 0

    @abstractmethod
    def read(self, k: int, source: Stream, count: int, mine: slice) -> Batch:
        """Return some of the rows of a step.

        Args:
            k: The step.
            source: The stream of the step.
            count: Rows of the whole step.
            mine: Those of them that are returned.
        """

    @abstractmethod
    def spec(self) -> Any:  # noqa: ANN401, whatever JSON can hold
        """Return what tells the data from others, as JSON."""

    @abstractmethod
    def whole(self) -> Batch:
        """Return all rows, as they come, in memory."""

    def begin(self, weight: Tensor, seed: int) -> None:
        """Begin to give rows like the weights, in their dtype, on their device."""
        self._like, self._seed = weight, seed
        self.sample = self._placed(self.sample)

    def state(self) -> dict[str, Any]:
        """Return where the reading is, as JSON; what is asked by number is nowhere."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027, most have none
        """Return to where the reading was."""

    def close(self) -> None:  # noqa: B027, most have none
        """Let go of what reads."""

    def _looked_at(self, batch: Batch, where: Callable[[int], str]) -> Batch:
        """Return what was read, or refuse it."""
        known = getattr(self, "sample", None)
        if known is not None and not len(batch):  # the share of a rank without rows
            return batch
        event = None if known is None else tuple(known.rows.shape[1:])
        batch = check_read(self.name, batch, event, where)
        if known is not None and (known.labels is None) != (batch.labels is None):
            raise ValueError(f"{self.name} gave labels for some rows, and for others none.")
        if self._check is not None:
            self._check(batch)
        return batch

    def _placed(self, batch: Batch) -> Batch:
        """Return rows where the weights are: rows and targets in their dtype, classes in int64."""
        labels = batch.labels
        if labels is not None:
            dtype = self._like.dtype if labels.is_floating_point() else torch.int64
            labels = labels.to(self._like.device, dtype)
        return Batch(batch.rows.to(self._like), labels)

    def _sample_spec(self) -> str:
        """Return a sha256 of the sample and its labels."""
        labels = self.sample.labels
        rows = fingerprint(self.sample.rows)
        return fingerprint_json([rows, None if labels is None else fingerprint(labels)])


class TensorSource(Source):
    """Rows in memory, kept where the weights are.

    Args:
        name: What the caller calls the data.
        rows: Shape (n, *event).
        labels: What belongs to each of them, or None.
        check: What else is asked of them.
    """

    def __init__(
        self, name: str, rows: object, labels: object = None, check: CheckBatch | None = None
    ) -> None:
        super().__init__(name, check)
        rows = check_data(name, rows)
        self.labels: Tensor | None = _labels_for(name, labels, len(rows))
        self.sample: Batch = Batch(rows, self.labels)
        if check is not None:
            check(self.sample)

    def read(self, k: int, source: Stream, count: int, mine: slice) -> Batch:
        """Return some of the rows of a step, drawn with replacement."""
        rows = _drawn(len(self.sample), source, count, mine).to(self._like.device)
        labels = self.sample.labels
        return Batch(self.sample.rows[rows], None if labels is None else labels[rows])

    def whole(self) -> Batch:
        """Return all rows."""
        return self.sample

    def spec(self) -> str:
        """Return the sha256 of all rows; labels are told beside it."""
        return fingerprint(self.sample.rows)


class ArraySource(Source):
    """Rows of an array on disk: a memory-mapped .npy file, or a zarr array.

    Args:
        name: What the caller calls the data.
        array: np.memmap or zarr.Array, shape (n, *event).
        labels: What belongs to each row, in memory; or None.
        check: What else is asked of each batch.
    """

    def __init__(
        self,
        name: str,
        array: Any,  # noqa: ANN401, np.memmap or what zarr gives
        labels: object = None,
        check: CheckBatch | None = None,
    ) -> None:
        super().__init__(name, check)
        self._array, self._dtype = array, np.dtype(array.dtype)
        if not np.issubdtype(self._dtype, np.floating):
            raise TypeError(
                f"{name} must be floating point, but is {self._dtype}; dequantise integers and "
                "scale them to [-1, 1]."
            )
        if len(array.shape) < 2 or 0 in array.shape:
            raise ValueError(
                f"{name} must have shape (n, *event) with n ≥ 1, but has shape "
                f"{tuple(array.shape)}."
            )
        self._count = int(array.shape[0])
        self.labels: Tensor | None = _labels_for(name, labels, self._count)
        self.sample: Batch = self._rows(_spread(self._count, int(np.prod(array.shape[1:]))))

    def read(self, k: int, source: Stream, count: int, mine: slice) -> Batch:
        """Read some of the rows of a step, drawn with replacement."""
        return self._placed(self._rows(_drawn(self._count, source, count, mine)))

    def whole(self) -> Batch:
        """Read all rows."""
        return self._rows(torch.arange(self._count))

    def spec(self) -> dict[str, Any]:
        """Return kind, shape and dtype, and a sha256 of the sample."""
        return {
            "kind": type(self._array).__name__,
            "shape": list(self._array.shape),
            "dtype": str(self._dtype),
            "sample": self._sample_spec(),
        }

    def _rows(self, numbers: Tensor) -> Batch:
        """Read rows by their numbers."""
        # each row once, from the first to the last: what is on disk is read forwards
        ascending, places = np.unique(numbers.numpy(), return_inverse=True)
        if isinstance(self._array, np.memmap):
            read = np.asarray(self._array[ascending])
        else:
            read = np.asarray(self._array.oindex[ascending])
        kind = np.float32 if read.dtype.itemsize <= 4 else np.float64  # in this machine's order
        rows = torch.from_numpy(read.astype(kind, copy=False))
        labels = None if self.labels is None else self.labels[numbers]
        batch = Batch(rows[torch.from_numpy(places)], labels)
        return self._looked_at(batch, lambda i: f"row {int(numbers[i])}")


class DatasetSource(Source):
    """Rows of a map-style Dataset, asked one by one.

    Args:
        name: What the caller calls the data.
        dataset: dataset[i] is x or (x, label), for 0 ≤ i < len(dataset).
        check: What else is asked of each batch.
    """

    def __init__(self, name: str, dataset: Dataset[Any], check: CheckBatch | None = None) -> None:
        super().__init__(name, check)
        self._dataset = dataset
        try:
            self._count = len(dataset)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            raise TypeError(
                f"{name} is a {type(dataset).__name__} without __len__; give it one, or derive it "
                "from torch.utils.data.IterableDataset."
            ) from None
        if self._count == 0:
            raise ValueError(f"{name} is empty: its Dataset has no rows.")
        self._draws = False
        first = self._rows(torch.tensor([0]), (LOOK, 0, 0))
        self.sample: Batch = self._rows(_spread(self._count, first.rows.numel()), (LOOK, 0, 0))
        again = self._rows(torch.tensor([0]), (LOOK, 0, 0))
        self._repeats = torch.equal(again.rows[0], self.sample.rows[0])
        if not self._repeats:
            warnings.warn(
                f"{name}[0] is another each time although the global generators are set: its "
                "Dataset draws from one of its own. So rng= does not repeat this run, and a run "
                "that was killed ends in other bits; draw from torch's, NumPy's or Python's.",
                AccuracyWarning,
                stacklevel=4,
            )

    def read(self, k: int, source: Stream, count: int, mine: slice) -> Batch:
        """Ask for some of the rows of a step, drawn with replacement."""
        first = mine.indices(count)[0]
        numbers = _drawn(self._count, source, count, mine)
        return self._placed(self._rows(numbers, (self._seed, k, first)))

    def whole(self) -> Batch:
        """Ask for all rows."""
        return self._rows(torch.arange(self._count), (LOOK, 1, 0))

    def spec(self) -> dict[str, Any]:
        """Return class and size, and a sha256 of the sample where it repeats itself."""
        return {
            "kind": type(self._dataset).__name__,
            "rows": self._count,
            "repeats": self._repeats,
            "sample": self._sample_spec() if self._repeats else None,
        }

    def _rows(self, numbers: Tensor, key: tuple[int, int, int]) -> Batch:
        """Ask for rows; what they draw follows (seed, step, place in the step) of each of them."""
        wanted: Sequence[int] = numbers.tolist()
        if not wanted:
            labels = self.sample.labels
            return Batch(self.sample.rows[:0], None if labels is None else labels[:0])
        with GlobalGenerators() as generators:
            items: list[Any] = []
            if not self._draws:
                generators.seed(*key)
                before = generators.state()
                items = [self._item(i) for i in wanted]
                self._draws = generators.moved(before)
            if self._draws:
                seed, k, first = key
                items = []
                for place, i in enumerate(wanted, first):
                    generators.seed(seed, k, place)
                    items.append(self._item(i))
        batch = as_batch(self.name, collated(self.name, items))
        return self._looked_at(batch, lambda i: f"row {wanted[i]}")

    def _item(self, i: int) -> Any:  # noqa: ANN401, what the user's data set gives
        """Return what the data set gives for a row, or its error with the row named."""
        try:
            return self._dataset[i]
        except Exception as error:
            error.add_note(f"in {self.name}[{i}] of the training")
            raise


def is_on_disk(data: object) -> bool:
    """Return whether data are an array that is read row by row."""
    if isinstance(data, np.memmap):
        return True
    zarr = sys.modules.get("zarr")  # who has a zarr array has imported it
    return zarr is not None and isinstance(data, zarr.Array)


def opened(name: str, path: str | Path) -> np.memmap:
    """Return a .npy file, mapped into memory.

    Raises:
        ValueError: If it is another kind of file.
        FileNotFoundError: If there is none.
    """
    if Path(path).suffix != ".npy":
        raise ValueError(
            f"{name} must be the path of a .npy file, but is {str(path)!r}; open what is in "
            "another one and pass that, such as zarr.open_array(path)."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: there is no file {path}.")
    array: np.memmap = np.load(path, mmap_mode="r")
    return array


def _labels_for(name: str, labels: object, rows: int) -> Tensor | None:
    """Return the labels of data, which are called after them."""
    called = "labels" if name == "data" else f"{name}_labels"
    return None if labels is None else check_row_labels(called, labels, rows)


def _drawn(total: int, source: Stream, count: int, mine: slice) -> Tensor:
    """Draw the numbers of the rows of a step, and return some of them."""
    return torch.randint(total, (count,), generator=source.generator())[mine]


def _spread(total: int, numbers: int) -> Tensor:
    """Return rows that are looked at, evenly spread, of so many numbers each."""
    count = min(total, _SAMPLE, max(2, _SAMPLE_NUMBERS // max(1, numbers)))
    return torch.linspace(0, total - 1, count, dtype=torch.float64).round().long()
