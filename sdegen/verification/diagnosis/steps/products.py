"""A factor of one step in the place of the product of all steps, in dynamics of anybody's.

Where g² is, but for a constant, a product over steps, such as ᾱ(t) = Π (1 − β), the factor of one
step is 1 − β = 1 − |Δ log g²|, and the drift, which has the same factor, has it too. The constant
is fitted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.factors import Sums, residual_of
from sdegen.verification.diagnosis.model import Alternative, Fitted
from sdegen.verification.diagnosis.transitions import Transitions

_ROUNDS = 60
_CHANGES = 1e-6  # of log g² in a step: less is a constant


def product_alternatives(belief: Belief) -> list[Alternative]:
    """Return the factor of one step for the product of all, where the noise changes in time."""
    if belief.law.alike or not belief.by_update or belief.sde.phase_space:
        return []
    words = "drift and noise had the factor of one step, not the product of all (α for ᾱ)"
    return [Alternative("α for ᾱ", "schedule", words, _fit)]


def _log_square(data: Transitions) -> tuple[Tensor, Tensor] | None:
    """Return log g² at each frame, and by how much it changes in that step."""
    times, sde, x = data.belief.states.times, data.belief.sde, data.x[0]
    values = []
    asked = {j for i in data.steps.tolist() for j in (max(i - 1, 0), i, i + 1)}
    for i in sorted(asked):
        g = torch.as_tensor(sde.diffusion(x, times[i])).double()
        if float(g.std(correction=0)) > 1e-9 * float(g.abs().mean()) or float(g.abs().min()) == 0:
            return None  # it is no function of time alone
        values.append((i, 2 * math.log(float(g.abs().mean()))))
    table = dict(values)
    now, change = [], []
    for i in data.steps.tolist():
        before, after = max(i - 1, 0), i + 1
        now.append(table[i])
        change.append((table[after] - table[before]) / (after - before))
    return torch.tensor(now).double(), torch.tensor(change).double()


def _fit(data: Transitions) -> Fitted | None:
    """Fit the constant before the factor of each step."""
    found = _log_square(data)
    if found is None or data.base.z.shape[2] == 0:
        return None
    now, change = found
    factor = 1 - change.abs()
    if float(change.abs().max()) < _CHANGES or bool((factor <= 0).any()):
        return None
    sums = Sums.of(data, data.base.pull)
    shape = factor.log() - now

    def gain(constant: float) -> float:
        tau = (shape + constant).exp()
        return sums.gain(tau, tau.sqrt())

    centre = float(now.max())  # the product begins, or ends, near 1
    low, high = centre - 8.0, centre + 8.0
    ratio = 0.5 * (math.sqrt(5) - 1)
    for _ in range(_ROUNDS):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (a, high) if gain(a) < gain(b) else (low, b)
    tau = (shape + 0.5 * (low + high)).exp()
    return Fitted(
        gain(0.5 * (low + high)),
        lambda: residual_of(data, data.base.pull, tau, tau.sqrt()),
        1,
    )
