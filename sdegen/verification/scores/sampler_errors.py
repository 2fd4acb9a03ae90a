"""Score, step or prior: what a sampler loses where, in the data's own dimension.

    p_ε  ──score error──►  q¹  ──prior mismatch──►  q²  ──time discretisation──►  q³

as `error_budget` has it on a line, from samples alone. p_ε is the law of held-out data noised to
the last time; q¹ that of the reverse dynamics with the score that is judged, from data noised to
the first time, by steps several times as fine as the sampler's; q² the same from the prior; q³ the
sampler's. The two runs of a neighbouring pair have the same noise, and those that start at the
prior the ε of those that start at noised data, so that they differ by their cause. What is left of
the steps' error after the refinement is counted for the score: a quarter of it, of a method of
weak order one and four steps in place of one.

Beside the distances stand divergences where they are known: Girsanov's bound for the score
(`score_residuals`), and KL(N(p_T) ‖ prior) of means and covariances for the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.brownian import BrownianPath
from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, normal_like, seed_of, stream
from sdegen.core.requests import as_time_grid, check_kind, check_state
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Times
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.mismatch import gaussian_kl, prior_mismatch
from sdegen.diffusion.priors import GaussianPrior, Prior, check_prior
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.engine.simulate import simulate
from sdegen.score.model import ScoreModel
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.score_residuals import ScoreResiduals, score_residuals
from sdegen.verification.scores.noised import Noising
from sdegen.verification.scores.transport import sliced_distance

_GROUPS = 10  # of rows, each left out once
_BEYOND = 2.0  # errors of a distance, from which on it is told from 0


@dataclass(frozen=True)
class SamplerError:
    """How far two laws are apart.

    Attributes:
        cause: What they differ in.
        wasserstein: Sliced Wasserstein-1 in units of the data, at least; negative by chance alone.
        wasserstein_bar: Its standard error.
        kl: Divergence in nats; None where none is known.
        kl_bar: Its standard error.
    """

    cause: str
    wasserstein: float
    wasserstein_bar: float
    kl: float | None = None
    kl_bar: float | None = None

    def __str__(self) -> str:
        text = f"{self.cause:22s} {self.wasserstein:10.3e} ± {self.wasserstein_bar:8.1e}"
        if self.kl is None:
            return text + f" {'':>10s}"
        return text + f" {self.kl:10.3e} ± {self.kl_bar or 0.0:8.1e}"


@dataclass(frozen=True)
class SamplerErrors(Labelled):
    """What each cause costs a sampler, as distances and divergences of its samples.

        W(p_ε, q³) ≤ W(p_ε, q¹) + W(q¹, q²) + W(q², q³)

    Attributes:
        parts: Prior mismatch, score error, time discretisation.
        whole: From the noised data to the samples.
        residuals: What the score was found to be; None where the sampler draws no noise and none
            were passed.
        samples: What the sampler returned, shape (n, *event).
        seed: What to pass as rng to get the same numbers again.

    Example:
        >>> vp, law = sg.VP(sg.LinearBeta(0.1, 20.0)), sg.GaussianMixture([1.0], [0.5], stds=0.5)
        >>> data, score = law.sample(200, rng=0), law.noised(vp).score
        >>> found = sg.sampler_errors(vp, score, data, vp.time_grid(5), eta=0.0, rng=1)
        >>> found.largest, found.samples.shape == data.shape  # five steps are few
        ('time discretisation', True)
    """

    parts: tuple[SamplerError, SamplerError, SamplerError]
    whole: SamplerError
    residuals: ScoreResiduals | None
    samples: State
    seed: int

    @property
    def largest(self) -> str | None:
        """The cause of the largest distance; None where no distance is told from 0."""
        told = [p for p in self.parts if p.wasserstein > _BEYOND * p.wasserstein_bar]
        return max(told, key=lambda part: part.wasserstein).cause if told else None

    def __str__(self) -> str:
        head = f"{'cause':22s} {'sliced W1':>10s}   {'':8s} {'KL':>10s}"
        return "\n".join([head, *map(str, (*self.parts, self.whole)), self._verdict()])

    def _verdict(self) -> str:
        """Name the largest part, and what may be larger than it for all that is known."""
        most = {p.cause: p.wasserstein + _BEYOND * p.wasserstein_bar for p in self.parts}
        largest = self.largest
        if largest is None:
            bound = max(most.values())
            return f"no cause is told from 0 by these rows: each is below {bound:.2g}"
        size = next(p.wasserstein for p in self.parts if p.cause == largest)
        hidden = [
            f"{c} may be up to {m:.2g}" for c, m in most.items() if c != largest and m > size
        ]
        return ", but ".join([f"largest: {largest}", *hidden])


def sampler_errors(
    sde: SDE,
    score: ScoreFn | ScoreModel,
    data: State,
    times: Times,
    *,
    eta: float = 1.0,
    solver: Solver | None = None,
    prior: Prior | None = None,
    finer: int = 4,
    residuals: ScoreResiduals | None = None,
    rng: Rng = None,
) -> SamplerErrors:
    """Split the error of a sampler into those of its score, its steps and its prior.

        W(p_ε, q³) ≤ W(p_ε, q¹) + W(q¹, q²) + W(q², q³)

    Args:
        sde: Forward process with a Gaussian kernel.
        score: The score that the sampler uses, or a `ScoreModel`.
        data: Rows that the score has not seen, shape (n, *event), n ≥ 100; in phase space
            positions. As many samples are drawn.
        times: The sampler's, decreasing, such as sde.time_grid(50).
        eta: η of the `ReverseSDE`; 0 is the probability flow.
        solver: How the sampler moves; EulerMaruyama() by default.
        prior: Where it starts; None: `GaussianPrior.stationary(sde, …)`, which of a path is
            N(0, prior_std² I).
        finer: Steps in place of one, ≥ 2, by which what the steps cost is measured.
        residuals: What `score_residuals` said of this score; None: it is asked, for η > 0.
        rng: Seed, generator or None.

    Returns:
        The three parts and the whole.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something is refused that `score_residuals`, `ReverseSDE` or `simulate`
            refuse, or the prior has states of another shape.

    Reference:
        Song et al. 2021, theorem 1, arXiv:2101.09258, for the divergence of the score.

    Example:
        >>> vp, law = sg.VP(sg.LinearBeta(0.1, 20.0)), sg.GaussianMixture([1.0], [0.5], stds=0.5)
        >>> data, score = law.sample(200, rng=0), law.noised(vp).score
        >>> found = sg.sampler_errors(vp, score, data, vp.time_grid(5), eta=0.0, rng=1)
        >>> [part.cause for part in found.parts if part.wasserstein > 4 * part.wasserstein_bar]
        ['time discretisation']
    """
    check_kind("sde", sde, SDE, "an SDE, such as VP(LinearBeta(0.1, 20.0))")
    ts = as_time_grid(times)
    if solver is not None:
        check_kind("solver", solver, Solver, "a solver, such as EulerMaruyama()")
    check_count("finer", finer, least=2)
    if residuals is not None:
        check_kind("residuals", residuals, ScoreResiduals, "what score_residuals returned")
    seed = seed_of(rng)
    function = score.score if isinstance(score, ScoreModel) else score
    reverse = ReverseSDE(sde, function, eta)
    rows = check_state(data, name="data").detach()
    if residuals is None and reverse.eta > 0:
        residuals = score_residuals(sde, score, rows, rng=seed)
    noising, _ = Noising.at(sde, function, ts)
    start = _Start.of(noising, rows, ts[0], prior, seed)
    run = _Run(reverse, EulerMaruyama() if solver is None else solver, ts, finer, seed)
    ended = noising.kernel.mean(rows, ts[-1])
    eps = normal_like(ended, stream(seed, "noised data at the end"))
    target = (ended + noising.kernel.spread(eps, ts[-1])).to(rows.dtype)
    from_data, fine = run.fine(start.noised), run.fine(start.prior)
    samples = run.coarse(start.prior)

    def part(cause: str, p: State, q: State) -> SamplerError:
        return SamplerError(cause, *sliced_distance(p, q, stream(seed, f"halves of {cause}")))

    mismatch = part("prior mismatch", from_data, fine)
    of_score = part("score error", target, from_data)
    steps = part("time discretisation", fine, samples)
    parts = (
        SamplerError(mismatch.cause, mismatch.wasserstein, mismatch.wasserstein_bar, *start.kl()),
        _with_girsanov(of_score, residuals, reverse.eta),
        steps,
    )
    return SamplerErrors(parts, part("whole", target, samples), residuals, samples, seed)


def _with_girsanov(
    found: SamplerError, residuals: ScoreResiduals | None, eta: float
) -> SamplerError:
    """Return the error of the score with Girsanov's bound of η.

    The drifts differ by ½ (1 + η²) C (s − s*) and the noise is η G, so that the bound is
    (1 + η²)²/(4 η²) times that of η = 1.
    """
    if residuals is None or eta == 0:
        return found
    factor = (1 + eta**2) ** 2 / (4 * eta**2)
    return SamplerError(
        found.cause,
        found.wasserstein,
        found.wasserstein_bar,
        max(residuals.kl, 0.0) * factor,
        residuals.kl_bar * factor,
    )


@dataclass(frozen=True)
class _Start:
    """Where runs start: at noised data, and at the prior, with the same ε where it is Gaussian."""

    noised: State
    prior: State
    law: Prior
    means: Tensor
    root: Tensor

    @classmethod
    def of(
        cls, noising: Noising, data: State, t: Tensor, prior: Prior | None, seed: int
    ) -> _Start:
        """Draw both."""
        mean = noising.kernel.mean(data, t)
        event = tuple(mean.shape[1:])
        law = GaussianPrior.stationary(noising.sde, event) if prior is None else check_prior(prior)
        if law.event_shape != event:
            raise ValueError(
                f"prior must have states of shape {event}, as the noised data have, but has "
                f"{law.event_shape}."
            )
        eps = normal_like(mean, stream(seed, "noised data at the start"))
        noised = (mean + noising.kernel.spread(eps, t)).to(data.dtype)
        if isinstance(noising.sde, GaussianPath) and prior is None:
            drawn = (noising.sde.prior_std * eps).to(data.dtype)
        else:
            drawn = law.sample(len(data), rng=seed, dtype=data.dtype, device=data.device)
        d = mean[0].numel()
        eye = torch.eye(d, dtype=torch.float64).reshape(d, *event)
        root = noising.kernel.spread(eye, t).flatten(1).T
        return cls(noised, drawn, law, mean.flatten(1).double().cpu(), root)

    def kl(self) -> tuple[float, float]:
        """Return KL(N(p_T) ‖ prior), each of ten groups of rows left out once, or KL(p_T ‖ prior).

        What is left out corrects the number for the finite number of rows and gives its error.
        """
        if not isinstance(self.law, GaussianPrior):
            found = prior_mismatch(self.noised, self.law)
            return found.kl, found.standard_error
        group = torch.arange(len(self.means)) % _GROUPS
        whole = self._gaussian(self.means)
        parts = torch.tensor([self._gaussian(self.means[group != k]) for k in range(_GROUPS)])
        parts = parts.double()
        kl = _GROUPS * whole - (_GROUPS - 1) * float(parts.mean())
        error = math.sqrt((_GROUPS - 1) / _GROUPS * float((parts - parts.mean()).square().sum()))
        return max(kl, 0.0), error

    def _gaussian(self, means: Tensor) -> float:
        """Return KL of the mean and covariance that some rows have, noised."""
        assert isinstance(self.law, GaussianPrior)
        d = means.shape[1]
        covariance = torch.cov(means.T).reshape(d, d) + self.root @ self.root.T
        return gaussian_kl(means.mean(0), covariance, self.law)


@dataclass(frozen=True)
class _Run:
    """Runs of a sampler at two sizes of steps, with the same noise where the solver takes it."""

    reverse: ReverseSDE
    solver: Solver
    times: Tensor
    finer: int
    seed: int

    def coarse(self, x: State) -> State:
        """Return where the sampler's own steps end."""
        return self._to_end(x, self.times)

    def fine(self, x: State) -> State:
        """Return where fine steps end."""
        return self._to_end(x, self._fine_times())

    def _fine_times(self) -> Tensor:
        """Return the times with each step cut into equal parts."""
        shares = torch.arange(self.finer, dtype=torch.float64) / self.finer
        inner = self.times[:-1, None] + self.times.diff()[:, None] * shares
        return torch.cat([inner.flatten(), self.times[-1:]])

    def _to_end(self, x: State, times: Tensor) -> State:
        """Return the last states of a run."""
        rng: int | None = self.seed
        path = None
        if self.reverse.noise != "none":
            try:
                self.solver.check_asked("brownian")
                path, rng = BrownianPath(rng, self.solver.nodes(self._fine_times())), None
            except (
                ValueError
            ):  # its noise cannot be shared, and the error bars say what that costs
                path = None
        return simulate(
            self.reverse, x, times, solver=self.solver, keep_path=False, brownian=path, rng=rng
        ).final
