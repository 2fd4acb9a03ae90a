"""Optimizer: how far a step goes, and what is averaged.

AdamW is what takes the steps, unless another optimizer of torch is asked for: its class, with
its arguments in `functools.partial`, or a function of the weights that makes one.

**Learning rates.** The rate of step k is the optimizer's own times a factor: by default a linear
warm-up and half a cosine, which ends at zero with the last step. A function k -> factor, or a
scheduler of torch by its class, takes its place. What does not know how many steps there are can
be taken on to more steps later: the cosine cannot.

**Average.** w̄ ← d w̄ + (1 − d) w with d = min(ema_decay, (1 + k)/(10 + k)) after step k: it
remembers about the last tenth of a young run, and forgets the first weights.

**Autocast.** torch keeps the weights that it has cast until the outermost autocast is left. Around
a whole training these would be the weights of the first step for ever, so that a step neither
reads nor fills that store, whoever has switched autocast on.
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from sdegen.core.checks import check_number
from sdegen.core.errors import CheckpointError
from sdegen.core.fingerprint import to_spec
from sdegen.core.requests import check_function, check_kind, kind_of
from sdegen.training.config import FitConfig, TrainPrecision

# a class, a partial of one, or a function that makes one
OptimizerFactory = Callable[..., Optimizer]
Schedule = Callable[[int], float] | Callable[..., LRScheduler]

_PLAIN = FitConfig()


def lr_factor(step: int, config: FitConfig) -> float:
    """Return the learning rate as a share of its largest: linear warm-up, half a cosine to zero.

    >>> lr_factor(0, FitConfig(warmup=4)), lr_factor(4, FitConfig(warmup=4))
    (0.25, 1.0)
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (
        1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))
    )


def make_optimizer(given: object, parameters: list[Tensor], config: FitConfig) -> Optimizer:
    """Return what takes the steps.

    Args:
        given: None for AdamW; a class of torch.optim, bare or in `functools.partial`, which is
            given config.learning_rate where it says no lr; or a function of the weights.
        parameters: The weights that are trained.
        config: How.

    Raises:
        TypeError: If it makes no optimizer.
        ValueError: If it holds other weights, needs a closure, or config says the same twice.
    """
    if given is None:
        rate, decay = config.learning_rate, config.weight_decay
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    kind = _class_of(given, Optimizer)
    if kind is None:
        expected = "a class of torch.optim, a functools.partial of one, or a function of weights"
        check_function("optimizer", given, expected)
    own_rate = kind is None or (isinstance(given, partial) and "lr" in given.keywords)
    made = given(parameters) if own_rate else given(parameters, lr=config.learning_rate)  # type: ignore[operator]
    check_kind("what optimizer makes", made, Optimizer, "a torch.optim.Optimizer")
    assert isinstance(made, Optimizer)
    if isinstance(made, torch.optim.LBFGS):
        raise ValueError(  # noqa: TRY004, it is an optimizer
            "LBFGS asks for the loss several times in a step, of the same rows; take an optimizer "
            "for batches, such as torch.optim.AdamW."
        )
    held = {id(p) for group in made.param_groups for p in group["params"]}
    if held != {id(p) for p in parameters}:
        raise ValueError(
            "the optimizer must hold the weights that are trained, and no others; make it in a "
            "function of them, such as lambda weights: torch.optim.SGD(weights, lr=0.1)."
        )
    _check_once(made, own_rate, config)
    return made


def _check_once(made: Optimizer, own_rate: bool, config: FitConfig) -> None:
    """Refuse what an optimizer and the configuration both say."""
    if config.weight_decay != _PLAIN.weight_decay:
        raise ValueError(
            f"optimizer is given, and config asks for weight_decay = {config.weight_decay:g} too; "
            "say it to the optimizer, functools.partial(torch.optim.SGD, weight_decay=…)."
        )
    rates = {group["lr"] for group in made.param_groups}
    if (
        own_rate
        and config.learning_rate != _PLAIN.learning_rate
        and rates != {config.learning_rate}
    ):
        raise ValueError(
            f"optimizer says its own lr, and config asks for learning_rate = "
            f"{config.learning_rate:g} too; say one of the two."
        )


def optimizer_spec(optimizer: Optimizer) -> dict[str, Any]:
    """Return what tells an optimizer from others, as JSON."""
    plain = (int, float, str, bool, tuple, type(None))
    groups = [
        {k: v for k, v in group.items() if k != "params" and isinstance(v, plain)}
        | {"weights": len(group["params"])}
        for group in optimizer.param_groups
    ]
    spec: dict[str, Any] = to_spec({"class": type(optimizer).__qualname__, "groups": groups})
    return spec


class Pace:
    """The learning rate of each step.

    Args:
        optimizer: Whose; its rates now are what factors multiply.
        schedule: None, a function k -> factor, or a class of torch's schedulers, bare or in
            `functools.partial`.
        config: How.

    Raises:
        TypeError: If schedule is nothing of this.
        ValueError: If it is a scheduler that needs more than steps, or config says it too.
    """

    def __init__(self, optimizer: Optimizer, schedule: object, config: FitConfig) -> None:
        self._optimizer, self._config = optimizer, config
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self._scheduler: LRScheduler | None = None
        self._factor: Callable[[int], object] = lambda k: lr_factor(k, config)
        if schedule is None:
            return
        if config.warmup != _PLAIN.warmup:
            raise ValueError(
                f"schedule is given, and config asks for warmup = {config.warmup} too; say it in "
                "the schedule, such as lambda k: min(1, (k + 1)/warmup)."
            )
        kind = _class_of(schedule, LRScheduler)
        if kind is not None and issubclass(kind, ReduceLROnPlateau):
            raise ValueError(
                "ReduceLROnPlateau follows a loss, of which a resumed run knows too little; pass "
                "a schedule of the step alone."
            )
        if kind is None:
            check_function("schedule", schedule, "a function k -> factor, or a scheduler's class")
            self._factor = schedule  # type: ignore[assignment]
        else:
            self._scheduler = schedule(optimizer)  # type: ignore[operator]

    def set(self, k: int) -> float:
        """Give the optimizer the rate of step k, and return that of its first group.

        Raises:
            TypeError: If the schedule returned no number.
            ValueError: If it is negative or not finite.
        """
        groups = self._optimizer.param_groups
        if self._scheduler is None:
            factor = self._factor(k)
            if isinstance(factor, Tensor):
                factor = factor.item()
            check_number(f"schedule({k})", factor)
            assert isinstance(factor, int | float)
            if not 0 <= factor < math.inf:
                raise ValueError(
                    f"schedule({k}) must be finite and ≥ 0, a factor of the learning rate, but is "
                    f"{factor:g}."
                )
            for base, group in zip(self._base, groups, strict=True):
                group["lr"] = base * factor
        return float(groups[0]["lr"])

    def stepped(self) -> None:
        """Tell a scheduler that the optimizer has taken a step."""
        if self._scheduler is not None:
            self._scheduler.step()

    def restore(self, steps: int) -> None:
        """Take a scheduler to where it was after so many steps, by taking them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer takes none of them
            for _ in range(steps):
                self.stepped()


class WeightAverage:
    """A module with the moving average of another's weights, and the other's buffers.

    Args:
        module: The other.
        decay: The largest d_k; d_k = min(decay, (1 + k)/(10 + k)).

    Attributes:
        module: With the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module: nn.Module = copy.deepcopy(module)
        self._decay, self._count = decay, 0
        # listed once: to walk through the modules takes longer than to average
        self._current = [p.detach() for p in module.parameters()]
        self._averaged = [p.detach() for p in self.module.parameters()]
        self._buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights that the other has now, w̄ ← w̄ + (1 − d_k)(w − w̄)."""
        k = self._count
        if k:
            weight = 1 - min(self._decay, (1 + k) / (10 + k))
            torch._foreach_lerp_(self._averaged, self._current, weight)
        else:
            torch._foreach_copy_(self._averaged, self._current)
        for averaged, current in self._buffers:
            averaged.copy_(current)
        self._count = k + 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` takes, by the names of torch's AveragedModel."""
        weights = {f"module.{name}": t for name, t in self.module.state_dict().items()}
        return {"n_averaged": torch.tensor(self._count)} | weights

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Return to an average.

        Raises:
            RuntimeError: If it is of another module.
        """
        self._count = int(state["n_averaged"])
        cut = len("module.")
        self.module.load_state_dict({n[cut:]: t for n, t in state.items() if n != "n_averaged"})


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what an optimizer remembers: tensors, and numbers as JSON, by "index.name".

    Raises:
        TypeError: If it remembers anything else.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, memory in optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            elif value is None or isinstance(value, bool | int | float | str):
                numbers[f"{index}.{name}"] = value
            else:
                raise TypeError(
                    f"{type(optimizer).__name__} remembers {name}, {kind_of(value)}, which a "
                    "checkpoint cannot hold; train without folder=, or take another optimizer."
                )
    return tensors, numbers


def restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give an optimizer back what it remembered, in the same bits.

    Raises:
        CheckpointError: If it is of another optimizer.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *numbers.items()):
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError, RuntimeError) as error:
        text = f"the checkpoint's moments do not fit the optimizer: {error}"
        raise CheckpointError(text) from error
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for index, memory in state.items():
        now = optimizer.state[weights[index]]
        for name, value in memory.items():
            if isinstance(value, Tensor):  # torch gives them the dtype of the weight
                now[name] = now[name].to(value.dtype)


def clip_gradients(weights: list[Tensor], most: float) -> float:
    """Return the length of the gradient, and make it `most` where it is longer.

    As clip_grad_norm_ of torch, which multiplies by 1 where it is not.

    Args:
        weights: With their gradients.
        most: The length, > 0; ∞ for any.
    """
    norm = get_total_norm([p.grad for p in weights if p.grad is not None])
    length = float(norm)
    if not length + 1e-6 <= most:  # as torch has it
        clip_grads_with_norm_(weights, most, norm)
    return length


def autocast(device: torch.device, precision: TrainPrecision) -> AbstractContextManager[object]:
    """Return the autocast of a step: the configuration's, or that which is on; without its store.

    Args:
        device: Where the module is.
        precision: "bf16" casts to bfloat16.
    """
    kind, bf16 = device.type, precision == "bf16"
    if not (bf16 or torch.is_autocast_enabled(kind)):
        return nullcontext()
    return torch.autocast(
        kind,
        dtype=torch.bfloat16 if bf16 else torch.get_autocast_dtype(kind),
        enabled=bf16 or torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )


def _class_of(given: object, kind: type) -> type | None:
    """Return a class of a kind, bare or in `functools.partial`; None where there is none."""
    made = given.func if isinstance(given, partial) else given
    return made if isinstance(made, type) and issubclass(made, kind) else None
