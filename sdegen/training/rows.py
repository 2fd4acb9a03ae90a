"""Rows: what examples must be to be learned from, looked at as a whole or as they come.

Rows are finite floats of one shape, (n, *event). Labels are finite numbers, one or more for each
row: classes as integers, targets and conditions as floats.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from sdegen.core.requests import as_state, first_true, kind_of
from sdegen.training.loss import Batch

Where = Callable[[int], str]  # what row i of a batch is called


def check_data(name: str, data: object) -> Tensor:
    """Return data as a tensor, or refuse what cannot be learned from.

    Args:
        name: What the caller calls them.
        data: Examples, shape (n, *event).

    Raises:
        TypeError: If they are not floats.
        ValueError: If there are none, or rows that are not finite.
    """
    data = as_state(name, data)
    _check_floats(name, data)
    if data.ndim < 2 or data.numel() == 0:
        raise ValueError(
            f"{name} must have shape (n, *event) with n ≥ 1, but has shape {tuple(data.shape)}."
        )
    check_rows_finite(name, data)
    return data


def check_row_labels(name: str, labels: object, rows: int) -> Tensor:
    """Return labels as a tensor, floats as they are and others as int64, or refuse them.

    Args:
        name: What the caller calls them.
        labels: Shape (rows, …).
        rows: How many there must be.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are not one for each row, or not finite.
    """
    labels = as_state(name, labels)
    if labels.shape[:1] != (rows,):
        raise ValueError(
            f"{name} must have shape ({rows}, …), one for each row, but have "
            f"{tuple(labels.shape)}."
        )
    check_rows_finite(name, labels)
    return labels if labels.is_floating_point() else labels.long()


def check_rows_finite(name: str, rows: Tensor) -> None:
    """Refuse rows with NaN or ±∞, naming the first.

    Raises:
        ValueError: Naming it.
    """
    bad = ~rows.reshape(len(rows), -1).isfinite().all(1)
    if (i := first_true(bad)) is not None:
        raise ValueError(
            f"{name} has {int(bad.sum())} of {len(rows)} rows that are not finite, the first of "
            f"them row {i}; remove them."
        )


def check_read(name: str, batch: Batch, event: tuple[int, ...] | None, where: Where) -> Batch:
    """Return rows that were read while training, or refuse them, naming the row.

    Args:
        name: What the caller calls the data.
        batch: The rows, and what belongs to them.
        event: Shape of one row; None where it is not known yet.
        where: What row i of the batch is called.

    Raises:
        TypeError: If they are not floats.
        ValueError: If a row has another shape or is not finite, or its label is not.
    """
    rows, labels = batch.rows, batch.labels
    _check_floats(name, rows)
    if rows.ndim < 2 or rows.numel() == 0:
        raise ValueError(
            f"{name} must give rows of shape (n, *event) with n ≥ 1, but gave {tuple(rows.shape)}."
        )
    if event is not None and rows.shape[1:] != event:
        raise ValueError(
            f"{name} gave rows of shape {tuple(rows.shape[1:])} ({where(0)}), but of {event} "
            "before."
        )
    _check_finite(name, rows, where)
    if labels is None:
        return batch
    if labels.shape[:1] != (len(rows),):
        raise ValueError(
            f"{name} gave {len(rows)} rows with labels of shape {tuple(labels.shape)}, which are "
            "not one for each."
        )
    _check_finite(f"the labels of {name}", labels, where)
    return Batch(rows, labels if labels.is_floating_point() else labels.long())


def as_batch(name: str, item: object) -> Batch:
    """Return what a data set or a loader gave, x or (x, y), as a batch; refuse anything else.

    Args:
        name: What the caller calls the data.
        item: Rows, or a pair or list of rows and labels.

    Raises:
        TypeError: If it is none of these.
    """
    parts: list[Any] = list(item) if isinstance(item, tuple | list) else [item]
    arrays = all(isinstance(part, Tensor | np.ndarray) for part in parts)
    if not arrays or not 1 <= len(parts) <= 2:
        came = ", ".join(map(kind_of, parts)) if isinstance(item, tuple | list) else kind_of(item)
        raise TypeError(
            f"{name} must give x or (x, label) for each row, tensors or NumPy arrays, but gave "
            f"{came}; return these from its __getitem__ or __iter__."
        )
    rows, *labels = map(torch.as_tensor, parts)
    return Batch(rows, labels[0] if labels else None)


def collated(name: str, items: list[Any]) -> Any:  # noqa: ANN401, what the user's data set gives
    """Return what a data set gave for some rows as arrays, x or [x, label].

    Raises:
        TypeError: If there is no array of it.
        ValueError: If rows are of several shapes.
    """
    try:
        return default_collate(items)
    except RuntimeError as error:
        raise ValueError(f"{name} gave rows of several shapes: {error}") from error
    except TypeError as error:
        raise TypeError(
            f"{name} must give x or (x, label) for each row, tensors or NumPy arrays, but gave "
            f"{kind_of(items[0])}; return these from its __getitem__."
        ) from error


def _check_floats(name: str, rows: Tensor) -> None:
    """Refuse what are no floats."""
    if not rows.is_floating_point():
        raise TypeError(
            f"{name} must be floating point, but is {rows.dtype}; dequantise integers and scale "
            "them to [-1, 1]."
        )


def _check_finite(name: str, rows: Tensor, where: Where) -> None:
    """Refuse rows with NaN or ±∞, calling the first as its reader does."""
    finite = rows.isfinite()
    if bool(finite.all()):
        return
    bad = ~finite.reshape(len(rows), -1).all(1)
    first = first_true(bad)
    assert first is not None
    raise ValueError(f"{name} has rows that are not finite, among them {where(first)}; remove it.")
