"""Log-likelihoods by the probability flow: what density a score gives to a point.

Along the probability flow F = f − ½ g² ∇ log p_t the density changes by its divergence alone, so
that a point is carried to the prior and the change is added up on the way:

    dx/dt = F(x, t),   dℓ/dt = ∇·F(x, t),   ℓ(t_min) = 0
    log p(x) = log p_T(x(t_max)) + ℓ(t_max)

x and ℓ are one state, and `simulate` runs it: the solver's tolerance holds for both.

**What log p is.** The density that the score's flow gives to x at t_min, under the prior that is
assumed at t_max. With an exact score it differs from the density of the data by two things: the
data have been noised up to t_min, and p_T is not quite N(0, prior_std² I). `prior_log_prob` takes
the second away where p_T is known.

**Precision.** The state is float64 whatever x is, since ℓ is a sum of many terms that cancel; the
score is asked in x's dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen import metrics
from sdegen.core.errors import NonFiniteError
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_function, check_state, first_true, is_word, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver
from sdegen.diffusion.origin import check_origin
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.engine.simulate import simulate
from sdegen.likelihood.divergence import Divergence, ExactTrace, FlowWithDivergence
from sdegen.likelihood.score_checks import (
    check_dynamics,
    check_forward,
    check_score,
    keeps_graph,
    prior_of,
    times_of,
)
from sdegen.score.composition import warn_collapse
from sdegen.solvers.torch_diffeq import TorchDiffEq


@dataclass(frozen=True)
class Likelihood(Labelled):
    """Log-likelihoods, and what it takes to judge and to repeat them.

        log p(x) = log p_T(x_T) + ∫ ∇·F dt along the flow dx = F dt

    Attributes:
        log_prob: log p(x) at t_min in nats, shape (batch,), float64.
        latent: Where the flow carries x by t_max, x's shape and dtype.
        nfe: Evaluations of the score that one trajectory took; their derivatives come on top.
        standard_error: Of log_prob over the probes, shape (batch,): 0 where the divergence is
            exact, infinite for a single probe of many dimensions.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> score = lambda x, t: -x / (1 + 3 * path.alpha(t) ** 2)  # of N(0, 4)
        >>> found = sg.log_likelihood(path, score, torch.tensor([[2.0]]))
        >>> f"{found.log_prob.item():.3f} {found.latent.item():.3f}"  # log N(2; 0, 4); 2 becomes 1
        '-2.112 1.000'
    """

    log_prob: Float[Tensor, " batch"]
    latent: State
    nfe: int
    standard_error: Float[Tensor, " batch"]
    seed: int

    def bits_per_dim(self, bin_width: float = 1.0) -> Float[Tensor, " batch"]:
        """Return −log p(x)/(d ln 2) − log₂ w, bits per dimension of each x, shape (batch,).

        Args:
            bin_width: Width w of one integer value in the units of x, for dequantised integers.
        """
        dimensions = self.latent[0].numel()
        return metrics.bits_per_dim(self.log_prob, dimensions, bin_width=bin_width)


def log_likelihood(
    sde: SDE,
    score: ScoreFn,
    x: State,
    *,
    solver: Solver | None = None,
    divergence: Literal["exact"] | Divergence = "exact",
    rng: Rng = None,
    prior_log_prob: Callable[[State], Tensor] | None = None,
    differentiable: bool | None = None,
) -> Likelihood:
    """Compute log p(x) under a score, by its probability flow from t_min to t_max.

    log p(x) = log p_T(x(t_max)) + ∫ ∇·F(x(t), t) dt,   F = f − ½ g² score

    Args:
        sde: The forward SDE, whose t_min and t_max are the ends; of a process that has none they
            are those of the model whose score it is. Without a Gaussian kernel noise may be
            multiplicative or of channels, and prior_log_prob is needed.
        score: ∇ log p_t(x), learned or exact, differentiable in x.
        x: Points, shape (batch, *event), float32 or float64, in the units of the data; in phase
            space states (batch, 2, *event), whose log p(x, v) is computed: of positions alone
            `position_bound` has a bound.
        solver: Of the flow, one that takes any drift (TorchDiffEq, Heun, EulerMaruyama);
            TorchDiffEq("dopri5", rtol=1e-6, atol=1e-6) by default. A tolerance holds in the root
            mean square over the batch. On 1,000 points of a mixture in the plane these give the
            mean to 6e-6 nats and the worst point to 5e-3 in 120-165 evaluations; "dopri8" with
            1e-9 gives every point to 3e-9 in 440-600.
        divergence: "exact"; for events of many numbers Hutchinson(probes, noise) or
            HutchPlusPlus(probes).
        rng: Seed of the probes, generator or None.
        prior_log_prob: log p_T in nats of float64 latents, (batch, *event) to (batch,); by default
            that of the SDE's prior. Of a process without a kernel the density of its end, such
            as DensityPrior(FokkerPlanck(sde, grid).stationary()).log_prob.
        differentiable: Whether gradients flow from log p to x and to what the score holds, such as
            a network's weights; the graph of the whole solve is then kept in memory. If None,
            where x requires grad.

    Returns:
        log p(x) at t_min in nats, the latents, the cost, and the standard error of the estimate.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit, or the score is not finite where it begins.
        SolverError: If an adaptive solver cannot continue.
        NonFiniteError: If a trajectory or log p is not finite.

    Reference:
        Song et al. 2021, eq. (39), arXiv:2011.13456.

    Example:
        >>> path = sg.VP(sg.ConstantBeta(2.0))
        >>> normal = sg.log_likelihood(path, lambda x, t: -x, torch.zeros(1, 2))
        >>> normal.log_prob  # of N(0, I) in two dimensions: −log 2π
        tensor([-1.8379], dtype=torch.float64)

        Data ±1 under N(0, s²) at s = 2, d⟨log p⟩/ds = 1/s³ − 1/s. Of
        a network, `s` are its weights and `score` is model.score.

        >>> vp = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> s = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> score = lambda x, t: -x / (1 + (s**2 - 1) * vp.alpha(t) ** 2)
        >>> data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> found = sg.log_likelihood(vp, score, data, differentiable=True).log_prob.mean()
        >>> (slope,) = torch.autograd.grad(found, s)
        >>> abs(float(slope) - (1 / 8 - 1 / 2)) < 1e-3
        True
    """
    known = prior_log_prob is not None
    check_forward(sde, "log_likelihood", any_kernel=True, ends_known=known)
    x = check_state(x, name="x")
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x)")
    low, high = times_of(sde, score)
    check_score(score, x, low)
    check_origin(score, sde)
    warn_collapse(score)
    seed = seed_of(rng)
    graph = keeps_graph(differentiable, x)
    flat = (x if graph else x.detach()).flatten(1).to(torch.float64)
    how = _divergence(divergence)
    vectors = how.draw(flat.detach(), Streams(seed, "divergence").block(0))

    flow = ReverseSDE(sde, lambda y, t: score(y.to(x.dtype), t).to(y.dtype), eta=0.0)
    if sde.noise_kernel is None and sde.kernel is None:
        check_dynamics(sde, x, low)
    solver = TorchDiffEq(rtol=1e-6, atol=1e-6) if solver is None else solver
    pair = FlowWithDivergence(flow, x.shape[1:], how, vectors, differentiable=graph)
    ends = torch.tensor([low, high], dtype=torch.float64)
    _check_solver(solver, flow, pair, ends)
    path = simulate(
        pair,
        torch.cat([flat, flat.new_zeros(len(x), how.num_accumulators(flat.shape[1]))], dim=1),
        ends,
        solver=solver,
        keep_path=False,
        interacting=True,  # a probe belongs to one trajectory: the batch must not be cut
        differentiable=graph,
    )
    latent = path.final[:, : flat.shape[1]].reshape(x.shape)
    gained, error = how.estimate(path.final[:, flat.shape[1] :], vectors)
    prior = (prior_of(sde, high) if prior_log_prob is None else prior_log_prob)(latent)
    if prior.shape != x.shape[:1]:
        raise ValueError(
            f"prior_log_prob must return shape ({len(x)},), one number for each latent, but "
            f"returned {tuple(prior.shape)}."
        )
    log_prob = prior.to(torch.float64) + gained
    result = Likelihood(log_prob, latent.to(x.dtype), path.nfe, error, seed)
    lost = ~torch.isfinite(log_prob)
    if (i := first_true(lost)) is not None:
        raise NonFiniteError(
            f"log p is not finite for {int(lost.sum())} of {len(x)} points, the first is row {i}: "
            f"log p_T = {float(prior[i].detach()):g} at its latent, and "
            f"{float(gained[i].detach()):g} was gained on the way.",
            result,
        )
    return result


def _check_solver(
    solver: Solver, flow: ReverseSDE, pair: FlowWithDivergence, ends: Tensor
) -> None:
    """Refuse a solver that looks inside reverse dynamics: the pair (x, ℓ) is not one."""
    if not isinstance(solver, Solver):
        return  # which simulate refuses
    try:
        solver.check(pair, ends)
    except ValueError as error:
        solver.check(flow, ends.flip(0))  # if it does not solve the flow of x, it says why
        raise ValueError(
            f"{type(solver).__name__} does not solve the flow of x and its divergence together, "
            "which a likelihood is: take a solver of any drift, TorchDiffEq(…), "
            "Heun(substeps=…) or EulerMaruyama(substeps=…)."
        ) from error


def _divergence(divergence: object) -> Divergence:
    """Return the divergence that an argument names; raises if it names none."""
    if is_word(divergence, ["exact"]):
        return ExactTrace()
    if not isinstance(divergence, Divergence):
        raise ValueError(  # noqa: TRY004, a word that is misspelt is a wrong value
            "divergence must be 'exact', Hutchinson(probes, noise) or HutchPlusPlus(probes), but "
            f"is {kind_of(divergence)}."
        )
    return divergence
