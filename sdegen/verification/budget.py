"""The error budget of a sampler: where, on the way from the data to the samples, what is lost.

    p_0  ──early stopping──►  p_ε  ──prior mismatch──►  q¹  ──score error──►  q²  ──time──►  q³

p_0 is the law of the data, p_ε its noised law where sampling ends. The others are laws of reverse
dynamics from the prior: q¹ with the exact score and q² with the score that is judged, both in
continuous time, and q³ that of the solver's own steps, which the samples have. Neighbours differ
in one cause, and total variation and Wasserstein-1 obey the triangle inequality, so that the parts
bound the whole. Kullback–Leibler, which does not, is reported beside them.

In one dimension all of it is computed, nothing sampled: q¹ and q² by Fokker–Planck, or along
characteristics where the noise is off; q³ by the law of the chain. What the first of these costs
in accuracy is measured too: from the exact p_T with the exact score it must come back to p_ε.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Protocol

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.shown import Labelled
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.engine.validation import check_dynamics
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.score.model import ModelScore
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.chain import ChainDensity
from sdegen.verification.characteristics import carried_by_flow
from sdegen.verification.distances import kullback_leibler, total_variation, wasserstein

_MASS_TOLERANCE = 1e-6


class NoisedLaw(Protocol):
    """The law of the data under an SDE, known at every t: `GaussianMixture.noised(sde)`."""

    def score(self, x: State, t: Time) -> State:
        """Return ∇ log p_t(x)."""

    def log_prob(self, x: State, t: Time) -> Tensor:
        """Return log p_t(x), shape (batch,)."""


@dataclass(frozen=True)
class ErrorTerm:
    """How far two laws are apart.

    Attributes:
        cause: What they differ in.
        total_variation: ½ ∫ |p − q|, between 0 and 1.
        wasserstein: Wasserstein-1, in units of the data.
        kl: Kullback–Leibler divergence of the former from the latter, in nats.
    """

    cause: str
    total_variation: float
    wasserstein: float
    kl: float


@dataclass(frozen=True)
class ErrorBudget(Labelled):
    """What each cause costs a sampler, as distances between laws on a grid, p of shape (nodes,).

        W(p_0, q³) ≤ W(p_0, p_ε) + W(p_ε, q¹) + W(q¹, q²) + W(q², q³)

    Attributes:
        parts: Early stopping, prior mismatch, score error, time discretisation.
        whole: From the data to the samples.
        densities: The five laws, from that of the data to that of the samples.
        accuracy: Total variation that the computation itself makes.

    Example:
        >>> vp, grid = sg.VP(sg.LinearBeta(0.1, 20.0)), sg.Grid(-8.0, 8.0, cells=400)
        >>> law = sg.GaussianMixture([1.0], [0.5], stds=0.5).noised(vp)
        >>> budget = sg.error_budget(vp, law, law.score, grid, vp.time_grid(25))
        >>> sum(part.wasserstein for part in budget.parts) >= budget.whole.wasserstein
        True
    """

    parts: tuple[ErrorTerm, ErrorTerm, ErrorTerm, ErrorTerm]
    whole: ErrorTerm
    densities: tuple[Density, Density, Density, Density, Density]
    accuracy: float

    def __str__(self) -> str:
        rows = [f"{'cause':22s} {'TV':>10s} {'W1':>10s} {'KL':>10s}"]
        rows += [
            f"{p.cause:22s} {p.total_variation:10.3e} {p.wasserstein:10.3e} {p.kl:10.3e}"
            for p in (*self.parts, self.whole)
        ]
        return "\n".join([*rows, f"accuracy of the computation: {self.accuracy:.1e} in TV"])


class ErrorBudgets(dict[int, ErrorBudget], Labelled):
    """Error budgets of a sampler by its number of steps."""


def error_budget(
    sde: GaussianPath,
    law: NoisedLaw,
    score: ScoreFn,
    grid: Grid,
    times: Tensor | Sequence[float],
    *,
    eta: float = 1.0,
    solver: FixedStep | None = None,
    prior: Density | None = None,
    sampler: AncestralChain | None = None,
) -> ErrorBudget:
    """Split the error of a sampler of one-dimensional data into its causes.

        W(p_0, q³) ≤ W(p_0, p_ε) + W(p_ε, q¹) + W(q¹, q²) + W(q², q³)

    from the data by early stopping, prior, score and steps; laws at the nodes, shape (nodes,).

    Args:
        sde: What noises the data.
        law: Exact law of the data under it.
        score: The score that the sampler uses, learned or exact. That of a module in float32, such
            as `model.score`, is asked of a copy in float64: a budget would resolve its rounding.
        grid: Uniform nodes.
        times: The sampler's, decreasing, for example sde.time_grid(50).
        eta: η of the `ReverseSDE`; 0 is the probability flow.
        solver: How the sampler moves, EulerMaruyama() by default; whatever `ChainDensity` takes.
            The last step of `FinalDenoising`, to t = 0, is part of the discretisation.
        prior: Density that sampling starts from; N(0, prior_std²) if None.
        sampler: Ancestral chain of the same score, `DDPM.discretize(sde, N).reverse(score)`, if
            that is what takes the steps; times are then its integers N … 0, and the continuous
            dynamics run between its own times, down to t_min at least: from there on to t = 0 a
            chain takes its last step, which is part of the discretisation.

    Returns:
        The parts and the whole.

    Raises:
        TypeError: If sde is not a Gaussian path, or law has no noised law.
        ValueError: If the grid does not hold the laws, if the score rounds to float32, if the
            sampler has another score, or if something is refused that `ChainDensity` or
            `FokkerPlanck` refuse.

    Example:
        >>> vp, grid = sg.VP(sg.LinearBeta(0.1, 20.0)), sg.Grid(-8.0, 8.0, cells=400)
        >>> law = sg.GaussianMixture([1.0], [0.5], stds=0.5).noised(vp)
        >>> budget = sg.error_budget(vp, law, law.score, grid, vp.time_grid(25))
        >>> max(budget.parts, key=lambda part: part.wasserstein).cause  # the score is exact
        'time discretisation'
    """
    ts, steps = as_time_grid(times), solver or EulerMaruyama()
    _check_kinds(sde, law, grid)
    judged = ReverseSDE(sde, _in_double(score), eta)
    dynamics: SDE = judged
    ends = ts[[0, -1]]
    if sampler is not None:
        if sampler.score != score:
            raise ValueError(
                "sampler must use the score that is judged; pass chain.reverse(score) of the same "
                "score."
            )
        dynamics = sampler.chain.reverse(judged.score, sampler.variance)
        check_dynamics(dynamics, steps, ts, None)
        ends = sampler.chain.times[ends.long()].clamp(min=sde.t_min)
    laws = _Laws.of(sde, law, judged, grid, ends, prior)
    return laws.budget(ChainDensity(dynamics, grid, steps).run(laws.prior, ts).final)


def error_budgets(
    sde: GaussianPath,
    law: NoisedLaw,
    score: ScoreFn,
    grid: Grid,
    runs: Sequence[Tensor],
    *,
    eta: float = 1.0,
    solver: FixedStep | None = None,
    prior: Density | None = None,
) -> ErrorBudgets:
    """Return error budgets of a sampler for several numbers of steps; see `error_budget`.

        W(p_0, q³) ≤ W(p_0, p_ε) + W(p_ε, q¹) + W(q¹, q²) + W(q², q³)

    from the data by early stopping, prior, score and steps; laws at the nodes, shape (nodes,).

    What does not depend on the steps is computed once.

    Args:
        sde: What noises the data.
        law: Exact law of the data under it.
        score: The score that the sampler uses.
        grid: Uniform nodes.
        runs: Times of each run, all from and to the same time.
        eta: η of the `ReverseSDE`.
        solver: How the sampler moves.
        prior: Density that sampling starts from.

    Returns:
        A budget for each number of steps: a dictionary that draws itself too.

    Raises:
        ValueError: As `error_budget` does, and if runs do not start and end together.

    Example:
        >>> vp, grid = sg.VP(sg.LinearBeta(0.1, 20.0)), sg.Grid(-8.0, 8.0, cells=400)
        >>> law = sg.GaussianMixture([1.0], [0.5], stds=0.5).noised(vp)
        >>> runs = [vp.time_grid(25), vp.time_grid(50)]
        >>> budgets = sg.error_budgets(vp, law, law.score, grid, runs)
        >>> few, many = (budget.parts[3].wasserstein for budget in budgets.values())
        >>> f"{few / many:.1f}"  # the steps' error, of first order
        '2.2'
    """
    _check_kinds(sde, law, grid)
    check_kind("runs", runs, (list, tuple), "a list of times, [sde.time_grid(10), …]")
    checked = [as_time_grid(times) for times in runs]
    if not checked:
        raise ValueError("runs is empty; pass a list of times, [sde.time_grid(10), …].")
    ends = checked[0][[0, -1]]
    for k, ts in enumerate(checked):
        if not torch.equal(ts[[0, -1]], ends):
            raise ValueError(
                f"all runs must start and end together, but runs[0] goes from {float(ends[0]):g} "
                f"to {float(ends[1]):g} and runs[{k}] from {float(ts[0]):g} to {float(ts[-1]):g}."
            )
    judged = ReverseSDE(sde, _in_double(score), eta)
    laws = _Laws.of(sde, law, judged, grid, ends, prior)
    chain = ChainDensity(judged, grid, solver or EulerMaruyama())
    budgets = {len(ts) - 1: laws.budget(chain.run(laws.prior, ts).final) for ts in checked}
    return ErrorBudgets(budgets)


@dataclass(frozen=True)
class _Laws:
    """What does not depend on the steps of a sampler."""

    prior: Density
    continuous: tuple[Density, Density, Density, Density]
    accuracy: float

    @classmethod
    def of(
        cls,
        sde: GaussianPath,
        law: NoisedLaw,
        judged: ReverseSDE,
        grid: Grid,
        ends: Tensor,
        prior: Density | None,
    ) -> _Laws:
        """Compute the laws before the last one; `judged` has the score that is judged."""
        start, end = ends.tolist()
        _check_precision(judged.score, grid, 0.5 * (start + end))
        exact = ReverseSDE(sde, law.score, judged.eta)
        prior = grid.gaussian(0.0, sde.prior_std) if prior is None else prior
        stopped, data = _at(law, grid, end), _at(law, grid, 0.0)
        mismatched, wrong = (_continuous(sde, grid, prior, start, end) for sde in (exact, judged))
        again = _continuous(exact, grid, _at(law, grid, start), start, end)
        laws = (data, stopped, mismatched, wrong)
        return cls(prior, laws, total_variation(again, stopped))

    def budget(self, final: Density) -> ErrorBudget:
        """Return the budget of a sampler whose samples have the density `final`."""
        laws = (*self.continuous, final)
        causes = ("early stopping", "prior mismatch", "score error", "time discretisation")
        early, mismatch, wrong, steps = map(_term, causes, laws[:-1], laws[1:])
        whole = _term("whole", laws[0], final)
        return ErrorBudget((early, mismatch, wrong, steps), whole, laws, self.accuracy)


def _check_kinds(sde: object, law: object, grid: object) -> None:
    """Refuse an SDE without a prior, and a law without `prob` or `score`."""
    check_gaussian_path(sde)
    if not hasattr(law, "score") or not hasattr(law, "log_prob"):
        raise TypeError(
            f"law must know the noised data, score(x, t) and log_prob(x, t), but "
            f"{type(law).__name__} does not; pass GaussianMixture(…).noised(sde)."
        )
    check_kind("grid", grid, Grid, "a Grid, such as Grid(-3.0, 3.0, cells=400)")


def _in_double(score: ScoreFn) -> ScoreFn:
    """Return the same score, from a float64 copy if it is a module or a method of one."""
    if isinstance(score, ModelScore):
        return score.in_double()
    if isinstance(score, torch.nn.Module):
        return copy.deepcopy(score).to("cpu", torch.float64)
    if isinstance(score, MethodType) and isinstance(score.__self__, torch.nn.Module):
        twin = copy.deepcopy(score.__self__).to("cpu", torch.float64)
        method: ScoreFn = getattr(twin, score.__name__)
        return method
    return score


def _check_precision(score: ScoreFn, grid: Grid, t: float) -> None:
    """Refuse a score that rounds its argument to float32, which adaptive steps would follow."""
    time = torch.tensor(t, dtype=torch.float64)
    x = grid.nodes[:, None] + 1e-3  # nodes may be such that float32 holds them
    with torch.no_grad():
        unmoved = score(x, time)
        moved, moves = (score(x * (1 + share), time) != unmoved for share in (1e-9, 1e-3))
    if float(moved.double().mean()) < 0.5 * float(moves.double().mean()):  # a constant has none
        raise ValueError(
            "score does not change between x and x (1 + 1e-9): it is computed in float32, whose "
            "rounding an error budget would resolve; pass one in float64, or a method of a "
            "torch.nn.Module, such as model.score, of which a copy is made in float64."
        )


def _term(cause: str, p: Density, q: Density) -> ErrorTerm:
    """Return the distances between two laws."""
    return ErrorTerm(cause, total_variation(p, q), wasserstein(p, q), kullback_leibler(p, q))


def _at(law: NoisedLaw, grid: Grid, t: float) -> Density:
    """Return the exact law at t; raises if the grid cuts it or cannot resolve it."""
    x = grid.nodes
    density = Density(x, law.log_prob(x[:, None], torch.tensor(t, dtype=x.dtype)).exp().detach())
    mass = float(density.mass)
    if not math.isclose(mass, 1, abs_tol=_MASS_TOLERANCE):
        raise ValueError(
            f"the law at t = {t:g} has a mass of {mass:.6g} on [{grid.low:g}, {grid.high:g}] with "
            f"{grid.cells} cells: the grid cuts it, or is too coarse for it."
        )
    return density


def _continuous(
    reverse: ReverseSDE, grid: Grid, prior: Density, start: float, end: float
) -> Density:
    """Return the law of reverse dynamics in continuous time."""
    if reverse.noise == "none":
        return carried_by_flow(reverse, prior, start, end)
    return FokkerPlanck(reverse, grid).solve(prior, [start, end]).final
