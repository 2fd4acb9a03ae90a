"""FitConfig: how a module is trained, in plain numbers and words.

Imports no torch: a command line that only prints its help need not wait for it.
"""

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_origin

from sdegen.core.checks import (
    check_count,
    check_int,
    check_not_negative,
    check_number,
    check_positive,
    check_word,
)

Keep = Literal["last", "best"]
TrainPrecision = Literal["full", "bf16"]


@dataclass(frozen=True)
class FitConfig:
    """How a module is trained, whatever its loss, from data of shape (n, *event).

        lr_k = lr · min(1, (k + 1)/warmup) · ½ [1 + cos(π max(0, k − warmup)/(steps − warmup))]

    Args:
        steps: Steps of the optimizer.
        batch_size: Rows of the data in one step, drawn with replacement.
        learning_rate: Largest step size, after the warm-up; falls to zero along a half cosine.
        warmup: Steps over which the learning rate rises from zero.
        weight_decay: Decoupled weight decay of AdamW.
        max_grad_norm: Longer gradients are cut to this length.
        ema_decay: Decay of the moving average of the weights, which the module ends with; early
            on it is (1 + k)/(10 + k).
        keep: The averaged weights to end with: the "last", or the "best" on the validation data.
        precision: "full" computes in the dtype of the weights; "bf16" runs the module under
            torch.autocast to bfloat16, with weights, loss and steps as they are.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints, where a folder is given.
        accumulate: Parts in which the rows of a step are computed, one after the other, in the
            memory of one part; their gradients add up to that of all rows, to rounding.

    Raises:
        TypeError: If a number is not a number, or not a whole one where it counts.
        ValueError: If a number is out of range, or a word is none of those above.

    Example:
        >>> class Zero(sg.Loss):
        ...     def __call__(self, module, batch, noise):
        ...         return module(batch.rows).square().sum(1)
        >>> config = sg.FitConfig(steps=4, warmup=0, learning_rate=1.0)
        >>> rates = []
        >>> note = lambda report: rates.append(round(report.learning_rate, 3))
        >>> line = torch.nn.Linear(1, 1)
        >>> _ = sg.fit(line, torch.eye(1), Zero(), config, rng=0, callbacks=[note])
        >>> rates  # ½ [1 + cos(πk/4)]
        [1.0, 0.854, 0.5, 0.146]
    """

    steps: int = 5_000
    batch_size: int = 512
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    keep: Keep = "last"
    precision: TrainPrecision = "full"
    validate_every: int = 250
    checkpoint_every: int = 1_000
    accumulate: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if get_origin(field.type) is Literal:
                check_word(name, value, get_args(field.type))
            if field.type is int:
                check_int(name, value)
            if field.type is float:
                check_number(name, value)
                if not isinstance(value, int | float):  # NumPy's: checkpoints hold plain numbers
                    object.__setattr__(self, name, float(value))
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every", "accumulate"):
            check_count(name, getattr(self, name))
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate must be ≤ batch_size = {self.batch_size}, the rows that it parts, "
                f"but is {self.accumulate}."
            )
        check_count("warmup", self.warmup, least=0)
        for name in ("learning_rate", "max_grad_norm"):
            check_positive(name, getattr(self, name))
        check_not_negative("weight_decay", self.weight_decay)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay must lie in [0, 1), but is {self.ema_decay:g}; 0 is no average."
            )
