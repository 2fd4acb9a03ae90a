"""Exact laws of linear dynamics over many steps, and stored states that are judged by them.

    X_{k+n} | X_k ~ N(M X_k + b, C)         of the chain that the solver makes (`ChainMoments`)

The whitened residuals C^{−½} (X_{k+n} − M X_k − b) of stretches one after the other, and of the
first state where all is at rest, are independent standard normals, exactly, of one trajectory and
of many. Beside the noise of single steps they show what hangs together over many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.sde import SDE
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.linear import LinearSDE
from sdegen.sde.transitions import GaussianLaw, Transition
from sdegen.verification.battery.finding import Finding, of_normals, of_square, of_variance
from sdegen.verification.chain_moments import ChainMoments
from sdegen.verification.innovations.law import is_even

_WIDEST = 64  # coordinates
_STRETCHES = 3  # of each of many trajectories, at least
_FEWEST = 40  # residuals
_MANY = 200  # residuals that are aimed at
_NOTHING = 1e-8  # of the largest variance in units of each coordinate: what is determined
_FAMILY = "means and covariances over many steps"


@dataclass(frozen=True)
class LinearChain:
    """The Gaussian law of stored states whose steps are all alike.

    Attributes:
        step: That of the next state given one.
        rest: That at rest; None where nothing comes to rest.
    """

    step: Transition
    rest: GaussianLaw | None

    def over(self, count: int) -> Transition:
        """Return the law of so many steps, ≥ 1, by doubling."""
        power, total = self.step, None
        while True:
            if count % 2:
                total = power if total is None else total.then(power)
            count //= 2
            if not count:
                break
            power = power.then(power)
        assert total is not None
        return total


@torch.no_grad()
def linear_chain_of(sde: SDE, solver: object, states: StoredStates) -> LinearChain | None:
    """Return the law of stored states of linear dynamics; None of others.

    Args:
        sde: What moves, by belief.
        solver: How it moves; "exact": as the process itself.
        states: What was stored.
    """
    d = math.prod(states.event)
    flat = len(states.place) == 1
    if (
        not (flat and is_even(states.times) and sde.autonomous and d <= _WIDEST)
        or sde.noise == "multiplicative"
    ):
        return None
    if (
        sde.is_discrete
        or states.times[1] < states.times[0]
        or states.centre_removed
        or states.fixed is not None
    ):
        return None
    t, s = float(states.times[0]), float(states.times[1])
    try:
        if solver == "exact":
            return _exact(LinearSDE.of(sde, d), s - t, d)
        if not isinstance(solver, FixedStep):
            return None
        chain = ChainMoments(sde, d, solver)
        step = _full(chain.transition(t, s), d)
    except (ValueError, TypeError):  # not linear: other tests judge it
        return None
    try:
        return LinearChain(step, chain.stationary((s - t) / solver.substeps))
    except ValueError:
        return LinearChain(step, None)


def _exact(process: LinearSDE, h: float, d: int) -> LinearChain:
    """Return the law of a linear process without a step."""
    step = _full(process.transition(0.0, h), d)
    try:
        rest = GaussianLaw(process.stationary_mean(), process.stationary_covariance())
    except ValueError:
        return LinearChain(step, None)
    return LinearChain(step, rest)


def moments_findings(
    states: StoredStates, chain: LinearChain, *, at_rest: bool
) -> list[Finding] | str:
    """Return what residuals over many steps say, or why nothing.

    Args:
        states: What was stored.
        chain: Their law.
        at_rest: Whether the first states have the law at rest.
    """
    total, batch = states.shape[0] - 1, states.shape[1]
    stride = _stride(chain, total, batch)
    frames = list(range(0, total + 1, stride))
    law = chain.over(stride)
    x = torch.stack([states.block(k, k + 1)[0] for k in frames]).flatten(2).double()
    half = float(states.rounding_at(states.block(0, 1)).amax())
    residuals = x[1:] - (x[:-1] @ law.matrix.T + law.shift)
    parts = [_whitened(residuals.flatten(0, 1), law.covariance, half)]
    if at_rest and chain.rest is not None:
        first = _whitened(x[0] - chain.rest.mean, chain.rest.covariance, half)
        if first.shape[1] == parts[0].shape[1]:
            parts.append(first)
    r = torch.cat(parts)
    n, k = r.shape
    if k == 0:
        return "no noise moves the states."
    if n < _FEWEST:
        return f"{n} stretches are too few."
    findings = [
        of_square(_FAMILY, "means", float(r.mean(0).square().sum() * n), k),
        of_variance(_FAMILY, "variances", r.square().sum(0), n, "direction"),
    ]
    if k > 1:
        i, j = torch.triu_indices(k, k, 1)
        pairs = (r[:, i] * r[:, j]).sum(0) / (r[:, i].square() * r[:, j].square()).sum(0).sqrt()
        findings.append(of_normals(_FAMILY, "covariances", pairs, "pair"))
    return findings


def _stride(chain: LinearChain, total: int, batch: int) -> int:
    """Return over how many steps residuals are taken: a time of relaxation, or less."""
    rates = 1 - torch.linalg.eigvals(chain.step.matrix).abs()
    slowest = float(rates.clamp(min=1e-12).min())
    longest = max(
        total // _STRETCHES if batch >= _MANY // _STRETCHES else total * batch // _MANY, 1
    )
    return int(max(1, min(1 / slowest, longest)))


def _whitened(x: Tensor, covariance: Tensor, rounding: float) -> Tensor:
    """Return rows of this covariance as standard normals, without what is determined.

    Args:
        x: Shape (n, d).
        covariance: Shape (d, d).
        rounding: Of a number of x: directions that vary by little more are left out.
    """
    unit = covariance.diagonal().clamp(min=0).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    values, vectors = torch.linalg.eigh(covariance / torch.outer(unit, unit))
    least = max(_NOTHING, (10 * rounding / float(unit.min())) ** 2)
    kept = values > least * values[-1]
    whitened: Tensor = (x / unit) @ vectors[:, kept] * values[kept].rsqrt()
    return whitened


def _full(law: Transition, d: int) -> Transition:
    """Return a transition with matrices, where it has numbers."""
    if law.matrix.ndim:
        return law
    eye = torch.eye(d, dtype=torch.float64)
    return Transition(law.matrix * eye, law.shift.expand(d), law.covariance * eye)
