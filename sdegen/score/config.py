"""TrainConfig: how a score is learned, in plain numbers and words.

Imports no torch: a command line that only prints its help need not wait for it.
"""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from sdegen.core.checks import check_count, check_not_negative, check_positive

__all__ = ["Keep", "TrainConfig", "TrainPrecision", "Weighting"]

Weighting = Literal["simple", "likelihood", "flow-matching", "edm"]
Keep = Literal["last", "best"]
TrainPrecision = Literal["full", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """How a score is learned.

    Args:
        steps: Steps of the optimizer.
        batch_size: Rows of the data in one step, drawn with replacement.
        learning_rate: Largest step size, after the warm-up; falls to zero along a half cosine.
        warmup: Steps over which the learning rate rises from zero.
        weight_decay: Decoupled weight decay of AdamW.
        max_grad_norm: Longer gradients are cut to this length.
        ema_decay: Decay of the moving average of the weights, which the model ends with; early on
            it is (1 + k)/(10 + k).
        weighting: Which noise levels count: "simple" (uniform in t), "likelihood" (uniform in
            log-SNR), "flow-matching" or "edm" (the losses of these methods, in the network's own
            output).
        label_dropout: Share of the rows of a step whose label is kept from the network, so that
            it learns the score without a label too; where there are labels.
        keep: The averaged weights to end with: the "last", or the "best" on the validation data.
        precision: "full" computes in the dtype of the weights; "bf16" runs the network under
            torch.autocast to bfloat16, with weights, loss and steps as they are.
        validate_every: Steps between two looks at the validation data.
        checkpoint_every: Steps between two checkpoints, where a folder is given.
    """

    steps: int = 5_000
    batch_size: int = 512
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    weighting: Weighting = "likelihood"
    label_dropout: float = 0.1
    keep: Keep = "last"
    precision: TrainPrecision = "full"
    validate_every: int = 250
    checkpoint_every: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{field.name} must be an int, but is {type(value).__name__}.")
            if field.type is float and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise TypeError(f"{field.name} must be a number, but is {type(value).__name__}.")
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "max_grad_norm"):
            check_positive(name, getattr(self, name))
        for name in ("warmup", "weight_decay"):
            check_not_negative(name, getattr(self, name))
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay must lie in [0, 1), but is {self.ema_decay:g}; 0 is no average."
            )
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout must lie in [0, 1], but is {self.label_dropout:g}.")
        for name, words in (
            ("weighting", get_args(Weighting)),
            ("keep", get_args(Keep)),
            ("precision", get_args(TrainPrecision)),
        ):
            if getattr(self, name) not in words:
                listed = " or ".join(map(repr, words))
                raise ValueError(f"{name} must be {listed}, but is {getattr(self, name)!r}.")
