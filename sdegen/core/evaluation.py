"""An evaluation of a user's drift, diffusion or score before it is trusted.

A field f(x, t) must give the same value whenever it is asked at one x and t. One that draws random
numbers of its own does not: no `rng=` repeats a run of it, and what it draws enters as dt · f, so
that its noise depends on the step. It shows in two ways: the state of a global generator moves
while it is evaluated, and two evaluations differ. The first needs no second evaluation, and sees
rare events too (a Poisson count that is nearly always zero); the second sees generators of the
user's own.

Networks are known by the `torch.nn.Parameter` that their operations take. They are evaluated once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sdegen.core.tolerances import IN_FLOAT32


class _Parameters(TorchFunctionMode):
    """Whether an operation has taken a parameter of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401, whatever torch returns
        kwargs = kwargs or {}
        given = (*args, *kwargs.values())
        self.seen = self.seen or any(isinstance(one, torch.nn.Parameter) for one in given)
        return func(*args, **kwargs)


def watched(evaluate: Callable[[], Any], device: torch.device) -> tuple[Any, bool, str | None]:
    """Evaluate a field, watching the global generators of random numbers.

    Args:
        evaluate: Evaluates it.
        device: Where its states are.

    Returns:
        What it returned, whether a network took part, and which generator moved, or None.
    """
    with _Parameters() as mode:
        before = _generators(device)
        value = evaluate()
        after = _generators(device)
        if before != after:
            # another thread may have drawn meanwhile: only what happens twice is the field's
            before = _generators(device)
            evaluate()
            after = _generators(device)
    moved = next((which for which, state in before.items() if state != after[which]), None)
    return value, mode.seen, moved


@contextmanager
def told_of_graphs() -> Iterator[None]:
    """Say what to do where a field takes a derivative by autograd, and has no graph to do so.

    Raises:
        ValueError: In place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise ValueError(
            "drift or diffusion take a derivative by autograd, but are evaluated under no_grad: "
            "put it into `with torch.enable_grad():`, and take it with respect to "
            "y = x.detach().requires_grad_()."
        ) from error


def check_repeatable(name: str, first: Tensor, second: Tensor) -> None:
    """Refuse a field whose two values at one x and t differ.

    Args:
        name: What the field is called.
        first: Its value.
        second: Its value at the same x and t.

    Raises:
        ValueError: If they differ by more than rounding.
    """
    if first.shape != second.shape or not are_alike(first, second, IN_FLOAT32):
        refuse_randomness(name, "two evaluations at the same x and t differ")


def are_alike(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Return whether values of one shape agree, relative to the largest; NaN in one place do."""
    if torch.equal(first, second):  # as nearly always, and where there is nothing
        return True
    scale = float(first.detach().abs().nan_to_num(posinf=0.0).max())
    close = torch.isclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)
    return bool(close.all())


def refuse_randomness(name: str, how: str) -> None:
    """Refuse a field that draws random numbers of its own.

    Args:
        name: What the field is called.
        how: By what it is known.

    Raises:
        ValueError: Saying where noise belongs.
    """
    raise ValueError(
        f"the {name} has randomness of its own: {how}. It must be a function of x and t alone, or "
        "no rng repeats a run and the strength of its noise depends on the step. White noise is "
        "what diffusion=g is for; a network with dropout is put in evaluation mode with "
        "model.eval(); jumps are not built."
    )


def _generators(device: torch.device) -> dict[str, object]:
    """Return the states of the global generators."""
    _, key, *rest = np.random.get_state()  # noqa: NPY002, read only
    states: dict[str, object] = {
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's global generator": (np.asarray(key).tobytes(), *rest),
        "the generator of the module random": random.getstate(),
    }
    if device.type == "cuda":
        on_gpu = torch.cuda.get_rng_state(device).numpy().tobytes()
        states["torch's global generator of the GPU"] = on_gpu
    return states
