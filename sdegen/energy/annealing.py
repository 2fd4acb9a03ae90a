"""Annealed importance sampling: log Z of a Boltzmann machine that is too large to be summed up.

Chains go from a machine without weights, whose Z is known, to the machine itself,

    f_β(v) = e^{((1 − β) a + β b)·v} Π_j (1 + e^{β (c_j + (vᵀW)_j)}),      β = 0 … 1,

by a step of block Gibbs sampling at each β, which leaves f_β stationary, and collect

    w = Π_k f_{β_k}(v_{k−1})/f_{β_{k−1}}(v_{k−1}),    Z = Z_0 E w,    Z_0 = 2^H Π_i (1 + e^{a_i}).

E w is right for any number of temperatures; how much w scatters depends on it.

**The error** is that of log w̄ by the delta method, s_w/(w̄ √n), n chains. It holds where w
scatters moderately: `effective` = (Σ w)²/Σ w² tells how many chains count, and where few do a
warning says to take more temperatures. As a mean of logs, log w̄ is low by about error²/2.

Reference:
    Neal 2001, Statistics and Computing 11, 125, eq. (11); Salakhutdinov and Murray 2008, eqs. (15)
    to (18), with the hidden units of both machines being the same.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.errors import AccuracyWarning, NonFiniteError
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State
from sdegen.energy.boltzmann import RBM, coins

_FEW = 0.1  # of the chains, that must count


@dataclass(frozen=True)
class LogPartition:
    """An estimate of log Z, by weights w of chains.

        Z/Z_0 = E w,     effective = (Σ w)²/Σ w²

    Attributes:
        value: In nats.
        error: Its standard error.
        effective: How many of the chains count, (Σ w)²/Σ w².
        log_weights: log w + log Z_0 of each chain, shape (chains,), float64.

    Example:
        >>> machine = sg.RBM(3, 2, rng=0)
        >>> _ = [p.data.zero_() for p in machine.parameters()]  # all weights alike
        >>> found = sg.energy.annealed_log_partition(machine, chains=16, temperatures=10, rng=0)
        >>> f"{found.value:.4f}", f"{found.effective:.0f}"  # 5 log 2, all chains
        ('3.4657', '16')
    """

    value: float
    error: float
    effective: float
    log_weights: Tensor

    def __float__(self) -> float:
        return self.value


@torch.no_grad()
def annealed_log_partition(
    machine: RBM,
    chains: int = 256,
    temperatures: int = 1000,
    *,
    data: State | None = None,
    rng: Rng = None,
) -> LogPartition:
    """Estimate log Z of an `RBM` by annealed importance sampling, weights of shape (chains,).

        log Z = log Z_0 + log (1/n) Σ w,     w = Π_k e^{−(U_{k+1} − U_k)(v_k)}

    Args:
        machine: Whose.
        chains: n ≥ 2.
        temperatures: Steps from β = 0 to 1, evenly.
        data: Examples, whose means make the machine that chains begin at; None: fair coins.
        rng: Seed, generator or None.

    Returns:
        log Z, its standard error, and how many chains count.

    Raises:
        TypeError: If machine is no `RBM`, or a number is none.
        ValueError: If a number is too small, or data are refused.
        NonFiniteError: If weights of the machine are not finite.

    Warns:
        AccuracyWarning: If fewer than a tenth of the chains count.

    Example:
        >>> machine = sg.RBM(6, 3, rng=0)
        >>> found = sg.energy.annealed_log_partition(machine, chains=64, temperatures=50, rng=0)
        >>> bool(abs(found.value - machine.log_partition()) < 4 * found.error)
        True
    """
    check_kind("machine", machine, RBM, "an RBM(visible, hidden)")
    check_count("chains", chains, 2)
    check_count("temperatures", temperatures)
    parameters = (machine.weight, machine.visible_bias, machine.hidden_bias)
    if not all(bool(p.isfinite().all()) for p in parameters):
        raise NonFiniteError("the weights of the machine are not finite.")
    weight, b, c = (p.double() for p in parameters)
    a = torch.zeros_like(b) if data is None else _base(machine.checked("data", data))
    draws = stream(rng, "annealing").generator(weight.device)
    v = coins(a.sigmoid().expand(chains, -1), draws)
    log_w = torch.zeros(chains, dtype=torch.float64, device=weight.device)
    softplus = nn.functional.softplus
    before = 0.0
    for k in range(1, temperatures + 1):
        beta = k / temperatures
        field = c + v @ weight
        log_w += (beta - before) * (v @ (b - a))
        log_w += (softplus(beta * field) - softplus(before * field)).sum(1)
        if k < temperatures:
            h = coins((beta * field).sigmoid(), draws)
            v = coins((a + beta * (b - a + h @ weight.T)).sigmoid(), draws)
        before = beta
    log_w += len(c) * math.log(2) + float(softplus(a).sum())
    return _estimate(log_w.cpu())


def _base(data: Tensor) -> Tensor:
    """Return biases of independent units with the means of the data, none of them 0 or 1."""
    n = len(data)
    return ((data.double().sum(0) + 0.5) / (n + 1)).logit()


def _estimate(log_w: Tensor) -> LogPartition:
    """Return the log of the mean weight and its standard error, or warn of few that count."""
    n = len(log_w)
    w = (log_w - log_w.max()).exp()
    mean = float(w.mean())
    error = float(w.std()) / (mean * math.sqrt(n))
    effective = float(w.sum().square() / w.square().sum())
    if effective < _FEW * n:
        warnings.warn(
            f"{effective:.3g} of {n} chains count for log Z, whose error is not to be relied on; "
            "pass more temperatures, or the data that the machine was trained on.",
            AccuracyWarning,
            stacklevel=3,
        )
    return LogPartition(float(log_w.max()) + math.log(mean), error, effective, log_w)
