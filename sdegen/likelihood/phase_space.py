"""Phase space: a bound for log p of positions, from the joint density of positions and velocities.

log p(x) ≥ E_{v ~ q} [log p(x, v) − log q(v)] = E_q log p(x, v) + H(q),        q = N(0, T/m)

It is less than log p(x) by KL(q ‖ p(v | x)), which is 0 where the model has learned that at t = 0
velocities are Maxwell's and know nothing of x. log p(x, v) is that of the probability flow.

Reference:
    Dockhorn, Vahdat and Kreis 2022, appendix B.3, arXiv:2112.07068.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, check_state
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.solver import Solver
from sdegen.likelihood.bound import LowerBound
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import log_likelihood
from sdegen.sde.underdamped import UnderdampedLangevin


@dataclass(frozen=True)
class PositionBound(LowerBound):
    """Lower bounds for log p of positions, in nats.

    Attributes:
        log_prob: The bound, shape (batch,), float64.
        standard_error: Of log_prob over the velocities, shape (batch,); infinite for samples=1.
        dimensions: Numbers in one x.
        nfe: Evaluations of the score for each x.
        seed: What to pass as rng to get the same bits again.
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    dimensions: int
    nfe: int
    seed: int


def position_bound(
    sde: UnderdampedLangevin,
    score: ScoreFn,
    x: State,
    *,
    samples: int = 8,
    solver: Solver | None = None,
    divergence: str | Divergence = "exact",
    rng: Rng = None,
) -> PositionBound:
    """Estimate a lower bound of log p(x) of positions, E_v log p(x, v) + H(v).

    Args:
        sde: The forward process, `UnderdampedLangevin` in a `Quadratic` potential.
        score: ∇ log p_t of states, of which the velocities' half is asked for; of a model.
        x: Positions, shape (batch, *event), float32 or float64.
        samples: Velocities for each x, drawn from N(0, T/m).
        solver: As of `log_likelihood`.
        divergence: As of `log_likelihood`.
        rng: Seed, generator or None.

    Returns:
        The bound, and its standard error over velocities.

    Raises:
        TypeError: If sde is no `UnderdampedLangevin`, or samples no int.
        ValueError, SolverError, NonFiniteError: As of `log_likelihood`.
    """
    check_kind("sde", sde, UnderdampedLangevin, "an UnderdampedLangevin, whose x are positions")
    check_count("samples", samples)
    x = check_state(x, name="x").detach()
    seed = seed_of(rng)
    streams = Streams(seed, "position bound")
    rows = x.repeat_interleave(samples, 0)
    v = sde.draw_velocities(rows, streams.block(0).generator())
    found = log_likelihood(
        sde,
        score,
        sde.state(rows, v),
        solver=solver,
        divergence=divergence,  # type: ignore[arg-type]  # which refuses other words
        rng=streams.block(1).generator(),
    )
    mass = torch.as_tensor(sde.mass, dtype=torch.float64).detach()
    variance = torch.as_tensor(sde.temperature, dtype=torch.float64).detach() / mass
    spread = variance.expand(x.shape[1:]).to(x.device)
    # −log q(v) in the place of its mean H takes its noise away where p(v | x) is q
    log_q = -0.5 * (v.double().square() / spread + (2 * math.pi * spread).log()).flatten(1).sum(1)
    terms = (found.log_prob - log_q).reshape(len(x), samples)
    error = torch.full_like(terms[:, 0], torch.inf)
    if samples > 1:
        error = terms.std(1) / math.sqrt(samples)
    return PositionBound(terms.mean(1), error, x[0].numel(), found.nfe * samples, seed)
