"""Doors: what a caller gives as data, made a source of rows, or refused by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sdegen.core.requests import kind_of
from sdegen.training.loss import Batch
from sdegen.training.sources import (
    ArraySource,
    CheckBatch,
    DatasetSource,
    Source,
    TensorSource,
    is_on_disk,
    opened,
)
from sdegen.training.streams import LoaderSource

# a zarr.Array too, which is not imported for its name
Data = (
    Tensor
    | np.ndarray[Any, Any]
    | str
    | Path
    | Dataset[Any]
    | DataLoader[Any]
    | Source
    | Batch
    | Any
)


def open_source(
    name: str,
    data: object,
    labels: object = None,
    *,
    batch_size: int = 1,
    check: CheckBatch | None = None,
) -> Source:
    """Return the source of what a caller gave as data.

    Args:
        name: What the caller calls them.
        data: A tensor or an array in memory, the path of a .npy file, an np.memmap, a zarr.Array,
            a Dataset, or a DataLoader; shape (n, *event).
        labels: What belongs to each row, shape (n, …), in memory; None where there are none, or
            where a Dataset or a loader gives pairs.
        batch_size: Rows in which an IterableDataset is read.
        check: What else is asked of each batch.

    Raises:
        TypeError: If they are nothing of this, or not floats.
        ValueError: If they are empty or not finite, or labels are not one for each row, or said
            twice.
        FileNotFoundError: If there is no such file.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        data = opened(name, data)
    if is_on_disk(data):
        return ArraySource(name, data, labels, check)
    if isinstance(data, Dataset | DataLoader):
        if labels is not None:
            raise ValueError(
                f"labels were given beside {name}, a {type(data).__name__}; give them as pairs "
                "(x, label) from it."
            )
        if isinstance(data, DataLoader):
            return LoaderSource(name, data, _kind(data), check)
        if isinstance(data, IterableDataset):
            loader = DataLoader(data, batch_size=batch_size)
            return LoaderSource(name, loader, type(data).__name__, check)
        return DatasetSource(name, data, check)
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} is {kind_of(data)}, which ends after one epoch; derive a class from "
            "torch.utils.data.IterableDataset whose __iter__ makes it anew."
        )
    return TensorSource(name, data, labels, check)


def read_whole(name: str, data: object, labels: object = None) -> Batch:
    """Return all rows of validation data, which are kept in memory.

    Args:
        name: What the caller calls them.
        data: As for `open_source`; what has no end is refused.
        labels: What belongs to each row.

    Raises:
        TypeError: If they are none, or not floats.
        ValueError: If they are empty or not finite.
    """
    if isinstance(data, Batch):
        return data
    if isinstance(data, IterableDataset) or (
        isinstance(data, DataLoader) and isinstance(data.dataset, IterableDataset)
    ):
        raise TypeError(
            f"{name} must have a known number of rows, but is {kind_of(data)}; collect some "
            "thousands of them in a tensor."
        )
    return open_source(name, data, labels).whole()


def _kind(loader: DataLoader[Any]) -> str:
    """Return what a loader is called: its class and its data set's."""
    return f"{type(loader).__name__} of {type(loader.dataset).__name__}"
