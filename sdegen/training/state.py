"""State: what a training run is at a step, as tensors and JSON of a checkpoint, and back.

Weights, their average, the memory of the optimizer, the losses so far, what the loss carries from
step to step, and where the reading of the data is. Random numbers are those of (seed, step), so
that no generator is among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdegen.core.errors import CheckpointError
from sdegen.training.optimizer import optimizer_state, restore_optimizer

if TYPE_CHECKING:
    from sdegen.training.run import TrainingRun


def state_of(run: TrainingRun) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata of a checkpoint.

    Raises:
        TypeError: If the optimizer remembers what no file can hold.
    """
    tensors = {"losses": run.losses[: run.step]}
    tensors |= {f"model.{name}": t for name, t in run.module.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in run.average.state_dict().items()}
    tensors |= {f"best.{name}": t for name, t in run.best.items()}
    tensors |= {f"logs.{name}": t[: run.step] for name, t in run.logs.items()}
    tensors |= {f"loss.{name}": t for name, t in run.loss.state().items()}
    moments, numbers = optimizer_state(run.optimizer)
    tensors |= {f"optimizer.{name}": t for name, t in moments.items()}
    # "looks" is what the files have called validations since their first version
    metadata = {"run": run.spec, "looks": run.validations, "source": run.source.state()}
    return tensors, metadata | {"optimizer": numbers}


def restore(run: TrainingRun, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Return a run to where a checkpoint of it was written.

    Raises:
        CheckpointError: If its weights do not fit the module, or the data are others.
        ValueError: If it ended earlier, by a validation that a longer run has not.
    """

    def under(part: str) -> dict[str, Tensor]:
        cut = len(part) + 1
        return {name[cut:]: t for name, t in tensors.items() if name.startswith(f"{part}.")}

    try:
        run.module.load_state_dict(under("model"))
        run.average.load_state_dict(under("average"))
    except RuntimeError as error:
        text = f"the checkpoint's weights do not fit the network: {error}"
        raise CheckpointError(text) from error
    run.step = int(metadata["step"])
    run.pace.restore(run.step)  # before the optimizer, whose rates schedulers set
    restore_optimizer(run.optimizer, under("optimizer"), metadata.get("optimizer", {}))
    run.best = {name: tensor.to(run.device) for name, tensor in under("best").items()}
    run.validations = _validations(run, metadata["looks"])
    run.loss.restore({name: t.to(run.device) for name, t in under("loss").items()})
    run.source.restore(metadata.get("source", {}))
    run.losses[: run.step] = tensors["losses"]
    for name, values in under("logs").items():
        run.logs[name] = torch.zeros_like(run.losses)
        run.logs[name][: run.step] = values


def _validations(run: TrainingRun, looks: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the validations that this run makes too; a shorter one made another at its end."""
    every, steps = run.config.validate_every, run.config.steps
    kept = [(int(step), float(loss)) for step, loss in looks]
    mine = [one for one in kept if one[0] % every == 0 or one[0] == steps]
    if len(mine) < len(kept) and run.config.keep == "best":
        raise ValueError(
            f"the run ended at step {kept[-1][0]} with a validation that a longer one has not "
            f"(validate_every = {every}), and may have kept those weights as the best; train anew "
            "in another folder."
        )
    return mine
