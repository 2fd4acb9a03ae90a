"""Phase space: bounds for log p of positions, from the joint density of positions and velocities.

    log p(x) ≥ E_{v ~ q} log w,                     w = p(x, v)/q(v | x)
    log p(x) ≥ E log (w_1 + … + w_K)/K,             v_k ~ q independent

The first is less than log p(x) by KL(q ‖ p(v | x)). With q = N(0, T/m), which is the default, that
is 0 where the model has learned that at t = 0 velocities are Maxwell's and know nothing of x. The
second, importance-weighted, is no lower for a larger K, and tends to log p(x): it misses about
Var(w)/(2 K p(x)²). Both are exact where q is p(v | x). They are bounds in expectation: an estimate
may lie above log p by its standard error. log p(x, v) is that of the probability flow.

Reference:
    Dockhorn, Vahdat and Kreis 2022, appendix B.3, arXiv:2112.07068; Burda, Grosse and
    Salakhutdinov 2016, theorem 1, arXiv:1509.00519, for K.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_function, check_kind, check_state, kind_of
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.solver import Solver
from sdegen.likelihood.bound_terms import LowerBound
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import log_likelihood
from sdegen.sde.underdamped import UnderdampedLangevin

Proposal = Callable[[State], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PositionBound(LowerBound):
    """Lower bounds for log p of positions, in nats.

        log p(x) ≥ E log (1/K) Σ_k p(x, v_k)/q(v_k | x)

    Attributes:
        log_prob: The bound, shape (batch,), float64: an estimate whose mean is below log p.
        standard_error: Of log_prob over the velocities, shape (batch,); of one estimate by
            several weights that of their mean, to first order; infinite of one weight.
        dimensions: Numbers in one x.
        nfe: Evaluations of the score for each x.
        seed: What to pass as rng to get the same bits again.
        importance: K, weights in each logarithm; 1 is E log w.

    Example:
        >>> class Rest:  # at rest ∇ log p = −(x, v)
        ...     score_range = (0.01, 1.0)
        ...     def __call__(self, state, t):
        ...         return -state
        >>> trap = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=2.0)
        >>> bound = sg.position_bound(trap, Rest(), torch.ones(1, 1), rng=0)
        >>> f"{bound.log_prob.item():.3f} ± {bound.standard_error.item():.3f}"  # log N(1; 0, 1)
        '-1.419 ± 0.000'
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    dimensions: int
    nfe: int
    seed: int
    importance: int = 1


def position_bound(
    sde: UnderdampedLangevin,
    score: ScoreFn,
    x: State,
    *,
    samples: int = 8,
    importance: int = 1,
    proposal: Proposal | None = None,
    solver: Solver | None = None,
    divergence: str | Divergence = "exact",
    rng: Rng = None,
) -> PositionBound:
    """Estimate a lower bound of log p(x) of positions.

        log p(x) ≥ E log (1/K) Σ_k p(x, v_k)/q(v_k | x)

    Args:
        sde: The forward process, `UnderdampedLangevin` in a `Quadratic` potential.
        score: ∇ log p_t of states, of which the velocities' half is asked for; of a model.
        x: Positions, shape (batch, *event), float32 or float64.
        samples: Estimates for each x that are averaged, each of K velocities.
        importance: K; 1 is the bound E_v log p(x, v) + H(q).
        proposal: q: a function of positions that returns mean and standard deviation of their
            velocities, each broadcastable to x; None is N(0, T/m).
        solver: As of `log_likelihood`.
        divergence: As of `log_likelihood`; "exact" where K > 1.
        rng: Seed, generator or None.

    Returns:
        The bound, and its standard error over velocities.

    Raises:
        TypeError: If sde is no `UnderdampedLangevin`, samples or importance no int, or proposal
            no function of positions that returns two tensors.
        ValueError: If K > 1 and the divergence is an estimate, whose exponential is biased
            upwards, or a standard deviation is not > 0.
        ValueError, SolverError, NonFiniteError: As of `log_likelihood`.

    Example:
        >>> class Rest:  # at rest ∇ log p = −(x, v)
        ...     score_range = (0.01, 1.0)
        ...     def __call__(self, state, t):
        ...         return -state
        >>> trap = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=2.0)
        >>> bound = sg.position_bound(trap, Rest(), torch.ones(1, 1), rng=0)
        >>> f"{bound.log_prob.item():.3f}"  # at rest v is N(0, 1) whatever x is: log N(1; 0, 1)
        '-1.419'
    """
    check_kind("sde", sde, UnderdampedLangevin, "an UnderdampedLangevin, whose x are positions")
    check_count("samples", samples)
    check_count("importance", importance)
    if importance > 1 and divergence != "exact":
        raise ValueError(
            f"importance = {importance} averages p(x, v), and an estimated divergence makes that "
            "too large on average: no bound would be left. Pass divergence='exact', or "
            "importance=1."
        )
    x = check_state(x, name="x").detach()
    seed = seed_of(rng)
    streams = Streams(seed, "position bound")
    rows = x.repeat_interleave(samples * importance, 0)
    v, log_q = _drawn(sde, rows, proposal, streams.block(0).generator())
    found = log_likelihood(
        sde,
        score,
        sde.state(rows, v),
        solver=solver,
        divergence=divergence,  # type: ignore[arg-type]  # which refuses other words
        rng=streams.block(1).generator(),
    )
    # −log q(v) in the place of its mean H takes its noise away where p(v | x) is q
    log_w = (found.log_prob - log_q).reshape(len(x), samples, importance)
    terms = log_w.logsumexp(2) - math.log(importance)
    if samples > 1:
        error = terms.std(1) / math.sqrt(samples)
    elif importance > 1:
        weights = (log_w[:, 0] - log_w[:, 0].amax(1, keepdim=True)).exp()
        error = weights.std(1) / weights.mean(1) / math.sqrt(importance)
    else:
        error = torch.full_like(terms[:, 0], torch.inf)
    nfe = found.nfe * samples * importance
    return PositionBound(terms.mean(1), error, x[0].numel(), nfe, seed, importance)


def _drawn(
    sde: UnderdampedLangevin, rows: State, proposal: Proposal | None, rng: torch.Generator
) -> tuple[State, Tensor]:
    """Return velocities of q(v | x), shape of the positions, and log q of each, float64."""
    mass = torch.as_tensor(sde.mass, dtype=torch.float64).detach()
    variance = torch.as_tensor(sde.temperature, dtype=torch.float64).detach() / mass
    std = variance.sqrt().expand(rows.shape[1:]).to(rows.device)
    v, mean = sde.draw_velocities(rows, rng), torch.zeros_like(std)
    if proposal is not None:
        z, (mean, std) = v.double() / std, _proposed(proposal, rows)
        v = (mean + std * z).to(rows)
    z = (v.double() - mean) / std
    log_q = -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi))
    return v, log_q.expand(rows.shape).flatten(1).sum(1)


def _proposed(proposal: Proposal, rows: State) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of a proposal, float64; refuse what are none."""
    check_function("proposal", proposal, "a function of positions -> (mean, std) of velocities")
    with torch.no_grad():
        answer = proposal(rows)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(
            "proposal must return two, the mean and the standard deviation of velocities, but "
            f"returns {kind_of(answer)}."
        )
    mean, std = (torch.as_tensor(one).detach().double().to(rows.device) for one in answer)
    for name, one in (("mean", mean), ("standard deviation", std)):
        try:
            fits = (rows + one).shape == rows.shape
        except RuntimeError:
            fits = False
        if not fits or not bool(one.isfinite().all()):
            raise ValueError(
                f"proposal must return a {name} that is finite and broadcasts to positions of "
                f"shape {tuple(rows.shape)}, but has shape {tuple(one.shape)}."
            )
    if not bool((std > 0).all()):
        raise ValueError(
            f"proposal must return standard deviations > 0, but the least is {float(std.min()):g}."
        )
    return mean, std
