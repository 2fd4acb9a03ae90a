"""Datasets: the data that a name or a file stands for.

    two_moons, eight_gaussians, swiss_roll, checkerboard
        drawn fresh; what is held out is another draw
    digits
        the split of `data.digits`, always the same one
    file.npy, file.safetensors, file.py:name, module:name
        the user's own, as they are

A .npy is read without pickles, and a .safetensors holds one tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdegen import data
from sdegen.app.user_code import is_reference, load_object
from sdegen.core.noise import stream
from sdegen.core.shapes import State
from sdegen.training.run import Augment

PLANAR: dict[str, Callable[..., State]] = {
    "two_moons": data.two_moons,
    "eight_gaussians": data.eight_gaussians,
    "swiss_roll": data.swiss_roll,
    "checkerboard": data.checkerboard,
}
_DRAWN = 1_000  # points of a planar set, unless another number is said


@dataclass(frozen=True)
class TrainingData:
    """What a score is learned from.

    Attributes:
        train: Rows to learn from, shape (n, *event).
        validation: Rows on which the loss is followed, or None.
        augment: What makes other rows that are as likely, or None.
        labels: The class of each row to learn from, or None where there are none.
        validation_labels: The same for the validation rows.
    """

    # of two batch sizes, which one `State` each in one signature would bind together
    train: Tensor
    validation: Tensor | None
    augment: Augment | None = None
    labels: Tensor | None = None
    validation_labels: Tensor | None = None


def training_data(
    name: str,
    *,
    samples: int,
    validation: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> TrainingData:
    """Return the data to learn from.

    Args:
        name: A name of the list above, or a file.
        samples: Points drawn from a planar set.
        validation: Rows to set aside, or to draw besides; 0 for none.
        seed: Of the draws, and of the choice of the rows that are set aside.
        dtype: Of the data.
        device: Where they go.

    Raises:
        ValueError: If nothing is named, or too little is left to learn from.
        TypeError: If what is named is no array of floating-point numbers.
        ImportError: If the digits are asked for and scikit-learn is not installed.
    """
    if name in PLANAR:
        train = _planar(name, samples, seed, "train", dtype, device)
        rest = _planar(name, validation, seed, "validation", dtype, device) if validation else None
        return TrainingData(train, rest)
    if name == "digits":
        # the split has a seed of its own: another one would learn from what others are judged by
        digits = data.digits(validation=validation or 1, dtype=dtype, device=device)
        train, rest = digits.train, digits.validation
        labels, rest_labels = digits.train_labels, digits.validation_labels
        if validation:
            return TrainingData(train, rest, data.redequantise, labels, rest_labels)
        train, labels = torch.cat([train, rest]), torch.cat([labels, rest_labels])
        return TrainingData(train, None, data.redequantise, labels)
    rows = _of_the_user(name).to(dtype=dtype, device=device)
    if not validation:
        return TrainingData(rows, None)
    if validation >= len(rows):
        raise ValueError(
            f"validation = {validation} of {len(rows)} rows leaves none to learn from."
        )
    order = torch.randperm(len(rows), generator=stream(seed, "split").generator()).to(device)
    return TrainingData(rows[order[validation:]], rows[order[:validation]])


def held_out(
    name: str, *, samples: int | None, seed: int, dtype: torch.dtype, device: torch.device
) -> State:
    """Return data that no training run has seen; of a file, all it holds.

    Args:
        name: A name of the list above, or a file.
        samples: How many rows, the first ones; None takes all there are, and draws 1,000 of a
            planar set.
        seed: Of the draw.
        dtype: Of the data.
        device: Where they go.

    Raises:
        ValueError: If nothing is named, or fewer rows are there.
        TypeError: If what is named is no array of floating-point numbers.
        ImportError: If the digits are asked for and scikit-learn is not installed.
    """
    if name in PLANAR:
        return _planar(name, samples or _DRAWN, seed, "held out", dtype, device)
    if name == "digits":
        rows = data.digits(dtype=dtype, device=device).test
    else:
        rows = _of_the_user(name).to(dtype=dtype, device=device)
    if samples is not None and samples > len(rows):
        raise ValueError(f"samples = {samples} rows are asked for, but {name} has {len(rows)}.")
    return rows[:samples]


def _planar(
    name: str, rows: int, seed: int, purpose: str, dtype: torch.dtype, device: torch.device
) -> State:
    """Draw from a planar set, independently of draws for other purposes."""
    rng = stream(seed, f"data: {purpose}").generator()
    return PLANAR[name](rows, rng=rng, dtype=dtype, device=device)


def _of_the_user(name: str) -> Tensor:
    """Return the tensor in a file or behind a reference."""
    path = Path(name)
    if is_reference(name):
        named: Any = load_object(name, "data")
        named = named() if callable(named) else named
        rows: Any = torch.as_tensor(named) if hasattr(named, "__array__") else named
        if not isinstance(rows, Tensor):
            raise TypeError(
                f"data = {name!r} is a {type(named).__name__}, not a tensor or an array of shape "
                "(n, *event)."
            )
    elif path.suffix not in (".npy", ".safetensors"):
        known = ", ".join([*PLANAR, "digits"])
        raise ValueError(
            f"data must be one of {known}, a .npy or .safetensors file, or file.py:name, but is "
            f"{name!r}; pickles are not read."
        )
    elif not path.is_file():
        raise ValueError(f"data: there is no file {path}.")
    else:
        rows = _npy(path) if path.suffix == ".npy" else _safetensors(path)
    if not rows.is_floating_point() or rows.ndim < 2 or len(rows) == 0:
        raise TypeError(
            "data must be floating-point numbers of shape (n, *event), scaled to order one, but "
            f"{name} holds {rows.dtype} of shape {tuple(rows.shape)}."
        )
    return cast(Tensor, rows)


def _npy(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, TypeError) as error:
        raise ValueError(f"data: {path} is no array of numbers ({error}).") from error


def _safetensors(path: Path) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) != 1:
                raise ValueError(
                    f"data: {path} must hold one tensor, but holds {len(names)}: "
                    f"{', '.join(names)}."
                )
            tensor: Tensor = file.get_tensor(names[0])
            return tensor
    except SafetensorError as error:
        raise ValueError(
            f"data: {path} is no safetensors file, or a damaged one ({error})."
        ) from error
