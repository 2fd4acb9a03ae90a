"""TrainResult: how a training went."""

from dataclasses import dataclass, field

from torch import Tensor

from sdegen.core.shown import Labelled


@dataclass(frozen=True)
class TrainResult(Labelled):
    """How a training went: losses[k] = (1/n) Σ_i ℓ_i of step k. The weights are in the module.

    Attributes:
        losses: Loss of each step done, shape (steps,), float64; of a score, that of ε̂ = 0 is
            about 1.
        validation_steps: Steps after which there was a validation, shape (validations,).
        validation_losses: Loss of the averaged weights there, shape (validations,), float64.
        selected_step: The step whose averaged weights the module has.
        seed: What to pass as rng to get the same bits again.
        logs: Terms that the loss names, by name: their mean in each step, shape (steps,), float64.
        times: t_min and t_max of a score, where the training found them; else None.

    Example:
        >>> class Square(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return (module(batch.rows) - 1).square().sum(1)
        >>> line = torch.nn.Linear(1, 1, bias=False)
        >>> _ = line.weight.data.zero_()
        >>> result = sg.fit(line, torch.ones(4, 1), Square(), sg.FitConfig(5, warmup=0), rng=0)
        >>> result.losses[0].item(), bool(result.losses[-1] < 1)  # (0 − 1)² at first
        (1.0, True)
        >>> result.selected_step
        5
    """

    losses: Tensor
    validation_steps: Tensor
    validation_losses: Tensor
    selected_step: int
    seed: int
    logs: dict[str, Tensor] = field(default_factory=dict)
    times: tuple[float, float] | None = None
