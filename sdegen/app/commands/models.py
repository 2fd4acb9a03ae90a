"""Models: a trained model, found by its file or its run folder, and what it generates."""

import json
from pathlib import Path
from typing import Any

import torch

from sdegen.app.runs import METRICS, MODEL
from sdegen.score.model import ScoreModel


def model_file(model: str) -> str:
    """Return the absolute path of a model.safetensors, given it or its folder.

    Raises:
        ValueError: If there is none.
    """
    path = Path(model).resolve()
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"model: there is no file {file}; name a model.safetensors, or the run folder of "
            "sdegen train."
        )
    return str(file)


def load_model(file: str, dtype: torch.dtype, device: torch.device) -> ScoreModel:
    """Load a model, ready to be called.

    Raises:
        CheckpointError: If the file is damaged.
    """
    return ScoreModel.load(file).to(device=device, dtype=dtype)


def event_shape(file: str) -> tuple[int, ...]:
    """Return the shape of one row of a model's training data, from the metrics beside it.

    Raises:
        ValueError: If they are not there.
    """
    path = Path(file).parent / METRICS
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
        return tuple(int(size) for size in metrics["event_shape"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"shape: {path} does not tell the shape of one sample; say it, --shape 2 for the "
            "plane, --shape 1 8 8 for the digits."
        ) from None
