"""diffusers_states: what a scheduler of diffusers made of noise, step by step, with its times.

A pipeline tells `callback_on_step_end` its latents after each step:

    latents = []

    def keep(pipeline, step, timestep, tensors):
        latents.append(tensors["latents"].clone())
        return tensors

    pipeline(…, callback_on_step_end=keep)

| scheduler | certified as |
| --- | --- |
| DDPM "fixed_small", of N steps | `chain.reverse(score, "posterior")`, with `chain=True` |
| DDPM "fixed_large", of N steps | `chain.reverse(score, "beta")`, with `chain=True` |
| DDPM "fixed_small", of any number of steps | `ReverseSDE(path, score)` and `solver=DDIM()` |
| DDIM at η | `ReverseSDE(path, score, η)` and `solver=DDIM()` |

diffusers counts levels k = 0 … N − 1. They are t = (k + 1)/N of the path of `from_diffusers`, and
k + 1 of a chain, whose state 0 is the last sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdegen.core.checks import check_flag
from sdegen.core.requests import as_numbers, check_kind
from sdegen.readers.read import read_states
from sdegen.readers.stored_states import StoredStates

_NO_SIGNAL = 2.0**-24  # ᾱ of the last level of a schedule with zero terminal SNR, at most


class Scheduler(Protocol):
    """A scheduler of diffusers with a table of ᾱ."""

    @property
    def config(self) -> Any:  # noqa: ANN401, diffusers'
        """Its configuration."""


def diffusers_states(
    latents: Sequence[Tensor],
    timesteps: Tensor | Sequence[int],
    scheduler: Scheduler,
    *,
    chain: bool = False,
) -> StoredStates:
    """Return the states that a scheduler of diffusers went through, for `certify(…, path=…)`.

        t = (timestep + 1)/N of a path,     k = timestep + 1 of a chain

    They are judged by certify(ReverseSDE(model.path, model.score), path=states, solver=DDIM()),
    model = from_diffusers(network, scheduler).

    Args:
        latents: States after each step, as a pipeline tells its callback; or with the state before
            the first step in front of them. Each of shape (batch, *event).
        timesteps: Of each step, as `scheduler.timesteps` has them.
        scheduler: One that keeps states at their variance, such as DDPM, DDIM, PNDM, DPM-Solver.
        chain: Whether times are those of a chain, k + 1, down to 0, which needs every level; else
            they are those of a path, and the last sample, which is at t = 0 where there is no
            noise, is left out.

    Raises:
        TypeError: If scheduler has no table of ᾱ, or latents are no tensors.
        ValueError: If the numbers of latents and timesteps do not go together, timesteps do not
            decrease, skip levels of a chain, or begin where no signal is left; if the scheduler
            keeps states in other units, or shapes differ.

    Example:
        >>> import diffusers
        >>> scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000)
        >>> scheduler.set_timesteps(10)
        >>> latents = [torch.randn(4, 1, 8, 8) for _ in range(10)]
        >>> states = sg.diffusers_states(latents, scheduler.timesteps, scheduler)
        >>> [f"{t:.3f}" for t in states.times[:3].tolist()], scheduler.timesteps[1:4].tolist()
        (['0.801', '0.701', '0.601'], [800, 700, 600])
    """
    check_flag("chain", chain)
    table = _table_of(scheduler)
    steps = as_numbers("timesteps", timesteps, expected="those of the scheduler").flatten().cpu()
    states = _stacked(latents)
    before = len(states) == len(steps) + 1
    if len(states) not in (len(steps), len(steps) + 1):
        raise ValueError(
            f"latents are {len(states)}, but there are {len(steps)} timesteps; pass the state "
            "after each step, or the one before the first too."
        )
    if bool((steps.diff() >= 0).any()) or bool(((steps < 0) | (steps >= len(table))).any()):
        raise ValueError(
            f"timesteps must decrease within 0 … {len(table) - 1}, but are {_few(steps)}; pass "
            "those of one run, scheduler.timesteps."
        )
    levels = torch.cat([steps[0 if before else 1 :], steps.new_full((1,), -1)])
    if chain:
        if bool((levels.diff() != -1).any()):
            raise ValueError(
                f"a chain takes every level, but timesteps are {_few(steps)}; pass chain=False, "
                "and certify by DDIM()."
            )
        return read_states(states, times=levels + 1)
    return read_states(states[:-1], times=(levels[:-1] + 1) / len(table))


def _table_of(scheduler: object) -> Tensor:
    """Return ᾱ of the levels that a path has; refuse schedulers whose states are others."""
    name, table = type(scheduler).__name__, getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, Tensor) or table.ndim != 1:
        raise TypeError(
            f"scheduler must be one of diffusers with a table of ᾱ, such as DDPMScheduler, but is "
            f"{name}; pass read_states(latents, times=…) with times of your own."
        )
    size = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if abs(size - 1) > 1e-6:
        raise ValueError(
            f"{name} keeps states in units in which noise begins at {size:g}, and not at their "
            "variance; divide them, and pass read_states(states, times=…) with times of your own."
        )
    return table[:-1] if len(table) > 2 and float(table[-1]) <= _NO_SIGNAL else table


def _stacked(latents: object) -> Tensor:
    """Return states, shape (T, batch, *event)."""
    check_kind("latents", latents, (list, tuple, Tensor), "a list of tensors, one after each step")
    assert isinstance(latents, list | tuple | Tensor)
    if len(latents) == 0:
        raise ValueError("latents are empty; pass the state after each step.")
    for one in latents:
        check_kind("each of latents", one, Tensor, "a tensor of shape (batch, *event)")
    shapes = {tuple(one.shape) for one in latents}
    if len(shapes) > 1:
        first, other, *_ = sorted(shapes)
        raise ValueError(
            f"latents must have one shape, but have {first} and {other}; pass those of one run."
        )
    return latents if isinstance(latents, Tensor) else torch.stack(list(latents))


def _few(steps: Tensor) -> str:
    """Return the first timesteps and the last, in words."""
    words = [f"{float(step):g}" for step in steps]
    return ", ".join(words if len(words) <= 6 else [*words[:4], "…", words[-1]])
