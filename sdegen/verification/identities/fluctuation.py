"""The integral fluctuation theorem on stored steps: ⟨e^{−R}⟩ = 1, whatever is driven.

    R = log ρ(x_0) − log w(εx_n) + Σ_k [log p(x_{k+1} | x_k) − log p(εx_k | εx_{k+1})]

over a window of n steps that begins with the density ρ, for any normalised density w, here ρ
itself, with ε the sign of velocities, which time reversal changes. It is exact for the steps of a
solver, with no bias in it, since it says no more than that probabilities of reversed windows sum
up to 1. Windows are as long as ⟨R⟩ stays small, so that no few of them decide the mean.

At rest in a potential ρ = e^{−H/T}/Z serves, whose Z cancels; the chain's own law at rest is off
from it by a bias, of which ⟨e^{−R}⟩ − 1 has the square.

Reference:
    Seifert 2005, Phys. Rev. Lett. 95, 040602, eq. (15); Crooks 1999, Phys. Rev. E 60, 2721;
    Sivak, Chodera and Crooks 2013, Phys. Rev. X 3, 011007, for R of discrete steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.identities.averages import Average, averages_of, skewness_of
from sdegen.verification.identities.bias import Bias
from sdegen.verification.identities.excerpt import excerpt_of
from sdegen.verification.innovations.law import Innovations, StepLaw

LogDensity = Callable[[State], Tensor]
_MOST = 2**20  # numbers
_BLOCK = 2**15  # transitions
_LARGEST = 0.5  # ⟨R⟩ of a window, and half of its standard deviation: e^{−R} has no long tail
_FEWEST = 100  # windows
_ROUNDING_UNITS = 2.0**14
_NOTHING = 1e-6  # R that is rounding


def fluctuation_row(
    states: StoredStates, law: StepLaw, log_density: LogDensity, *, everywhere: bool
) -> Bias | str:
    """Return the row of ⟨e^{−R}⟩ = 1, or why there is none.

    Args:
        states: What was stored.
        law: Of its steps, with the density of each.
        log_density: log ρ of states (n, *event), up to a constant.
        everywhere: Whether it is that of all frames, not of the first alone.
    """
    if law.redraws or law.remembers:
        return "the density of a step is not known."
    excerpt = excerpt_of(states, in_a_row=True, autonomous=law.alike, most=_MOST)
    x = excerpt.x
    if len(x) * x.shape[1] < _FEWEST or (not everywhere and x.shape[1] < _FEWEST):
        return f"{x.shape[1]} trajectories are too few for a mean of e^−R."
    production = _production(x, law, states)
    if isinstance(production, str):
        return production
    with torch.no_grad():
        weight = log_density(x.flatten(0, 1)).reshape(x.shape[:2]).double()
        back = log_density(_reversed(x.flatten(0, 1), states)).reshape(x.shape[:2]).double()
    chosen: Tensor | None = None
    length, n = 0, 1
    while n < len(x):
        R = _windows(production, weight, back, n, everywhere)
        if R.numel() < _FEWEST or not bool(R.isfinite().all()):
            break
        if abs(float(R.mean())) > _LARGEST or float(R.std()) > 2 * _LARGEST or _is_of_few(R):
            break
        chosen, length, n = R, n, 2 * n
    if chosen is None:
        return "a single step is so irreversible that no mean of e^−R is known."
    if float(chosen.std()) < _NOTHING:
        return "steps are reversible: R is 0, and ⟨e^−R⟩ = 1 says nothing of them."
    name = f"⟨e^−R⟩ of {length} {'step' if length == 1 else 'steps'}"
    values = (-chosen).exp()[..., None]
    average = averages_of(values) if everywhere else [_of_rows(values)]
    return Bias.of(name, average[0], 1.0, 1.0)


def _is_of_few(R: Tensor) -> bool:
    """Return whether few windows decide the mean of e^−R."""
    weights = (R.min() - R).exp()
    return float(weights.sum().square() / weights.square().sum()) < _FEWEST / 2


def _of_rows(values: Tensor) -> Average:
    """Return the average of numbers that are independent."""
    numbers = values.flatten()
    error = float(numbers.std()) / math.sqrt(len(numbers))
    freedom, skewness = len(numbers) - 1.0, skewness_of(numbers)
    return Average(float(numbers.mean()), error, freedom, skewness=skewness)


def _windows(production: Tensor, weight: Tensor, back: Tensor, n: int, everywhere: bool) -> Tensor:
    """Return R of windows of n steps one after the other, shape (windows, batch)."""
    count = len(production) // n if everywhere else 1
    sums = production[: count * n].reshape(count, n, -1).sum(1)
    starts = torch.arange(count) * n
    return sums + weight[starts] - back[starts + n]


def _production(x: Tensor, law: StepLaw, states: StoredStates) -> Tensor | str:
    """Return log p(x_{k+1} | x_k) − log p(εx_k | εx_{k+1}), shape (F − 1, B)."""
    frames, rows = x.shape[:2]
    count = max(1, _BLOCK // rows) if law.alike else 1
    parts = []
    with torch.no_grad():
        for k in range(0, frames - 1, count):
            some = x[k : k + count + 1]
            before, after = some[:-1].flatten(0, 1), some[1:].flatten(0, 1)
            there = law.innovations(before, after, k)
            back = law.innovations(_reversed(after, states), _reversed(before, states), k)
            if there.judged is not None or back.judged is not None:
                return "steps that begin near an end have no density that is known."
            if not _is_equation(back, states):
                return "a step without noise in some numbers has no reverse."
            parts.append((there.log_density - back.log_density).reshape(-1, rows))
    return torch.cat(parts)


def _is_equation(back: Innovations, states: StoredStates) -> bool:
    """Return whether the equations without noise hold backwards too, up to rounding."""
    if back.gap is None or back.scale is None or back.gap.numel() == 0:
        return True
    unit = torch.finfo(states.precision or states.dtype).eps * back.scale.max()
    return bool(back.gap.abs().nan_to_num(nan=math.inf).max() <= _ROUNDING_UNITS * unit)


def _reversed(x: State, states: StoredStates) -> State:
    """Return states with their velocities turned round."""
    if not states.phase_space:
        return x
    place, v = x.unbind(1)
    return torch.stack([place, -v], 1)
