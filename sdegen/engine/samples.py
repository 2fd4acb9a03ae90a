"""Samples of a learned model: the short way, with a default that the result states."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.errors import AccuracyWarning
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Rng, seed_of
from sdegen.core.requests import as_number, as_state, kind_of
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.diffusion.samplers.final_denoising import FinalDenoising
from sdegen.diffusion.samplers.multistep import ExponentialAdams
from sdegen.diffusion.timesteps import log_snr
from sdegen.engine.scales import unreached_prior
from sdegen.engine.simulate import simulate
from sdegen.score.composition import guided
from sdegen.score.model import ScoreModel
from sdegen.score.model_checks import check_labels
from sdegen.score.networks import condition_shape
from sdegen.solvers.euler import EulerMaruyama


@dataclass(frozen=True)
class Samples(Labelled):
    """Samples, and how they were made: by dx = [f − ½ (1 + η²) g² ∇ log p_t] dt + η g dW̄.

    Attributes:
        x: The samples, shape (n, *event).
        solver: What took the steps.
        times: From t_max down to where the samples belong, shape (steps + 1,), float64.
        eta: η of the reverse dynamics: 1 the reverse SDE, 0 the probability flow.
        nfe: Evaluations of the score that one sample took.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> some = sg.Samples(torch.zeros(3, 2), sg.Heun(), torch.tensor([1.0, 0.5]), 1.0, 2, 7)
        >>> print(some)
        3 samples of shape (2,): Heun, 1 steps from t = 1 to 0.5, eta = 1, nfe = 2, rng = 7
    """

    x: State
    solver: Solver
    times: Tensor
    eta: float
    nfe: int
    seed: int

    def __str__(self) -> str:
        """Say how many there are, and how they were made."""
        kind, inner = type(self.solver).__name__, getattr(self.solver, "solver", None)
        kind = kind if inner is None else f"{kind} of {type(inner).__name__}"
        return (
            f"{len(self.x)} samples of shape {tuple(self.x.shape[1:])}: {kind}, "
            f"{len(self.times) - 1} steps from t = {float(self.times[0]):g} to "
            f"{float(self.times[-1]):g}, eta = {self.eta:g}, nfe = {self.nfe}, rng = {self.seed}"
        )


def sample(
    model: ScoreModel,
    n: int,
    *,
    labels: int | Tensor | None = None,
    condition: Tensor | None = None,
    guidance: float = 0.0,
    steps: int | None = None,
    solver: Solver | None = None,
    eta: float | None = None,
    rng: Rng = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Samples:
    """Draw samples of a model, from its prior, along its flow or its reverse SDE.

    The default, for a process with numbers α(t) and σ(t): 50 steps of `ExponentialAdams(3, "v")`
    along the probability flow, equal in log α/σ, and the last state denoised where the event is an
    image, of three axes (`FinalDenoising`). Where no signal is left at t_max (`ZeroTerminalSNR`)
    they are 50 equal steps of `DDIM`. For any other process 500 equal steps of `EulerMaruyama` of
    the reverse SDE. What was taken is in the result, and `print(samples)` says it.

    5,000 samples of a mixture of five Gaussians in the plane, with its exact score, come by the
    default within sliced W2 = 0.046 of as many exact ones, and with 100 steps as well; 5,000 other
    exact ones are 0.027 away. The reverse SDE by 50 steps of DDIM: 0.093.

    Args:
        model: Trained; in evaluation mode.
        n: How many.
        labels: A class for all of them, or one for each, shape (n,); None: no class is asked for.
        condition: Of a network that is told one, for all of them, shape network.condition_shape,
            or one for each, (n, *condition_shape), floats.
        guidance: w of classifier-free guidance, (1 + w) s(x | label) − w s(x); 0 is the class as
            learned.
        steps: Steps; None: 50, or 500.
        solver: What takes them, in place of the default; one of your own denoises if it says so.
        eta: η ≥ 0, 1 is the reverse SDE, 0 the probability flow; None: 0, or 1.
        rng: Seed, generator or None; the result records the seed.
        dtype: Of the samples; torch's default unless said.
        device: Where they are made.
        progress: Whether a progress bar is shown.

    Returns:
        The samples, with solver, times, η, cost and seed.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit: guidance without labels, labels of a model without
            classes, a condition of one that is told none, another number of them than n, a model
            whose times or shape are not known.
        NonFiniteError: If samples explode on the way.

    Warns (AccuracyWarning) if the noising of the data that it was trained on did not reach its
    prior, with KL(p_T ‖ prior).

    Example:
        >>> class Known(torch.nn.Module):  # ε̂ of data N(0, 4) on a path α² + σ² = 1
        ...     def forward(self, x, t):
        ...         alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        ...         return sigma * x / (4 * alpha**2 + sigma**2)
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> model = sg.ScoreModel(Known(), path)
        >>> model.event_shape = (1,)
        >>> f"{sg.sample(model, 4000, rng=0).x.std():.1f}"
        '2.0'
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"model must be a ScoreModel, but is {kind_of(model)}; for a score of your own "
            "simulate ReverseSDE(sde, score)."
        )
    check_count("n", n)
    if steps is not None:
        check_count("steps", steps)
    if model.times is None:
        raise ValueError(
            "the times of this model are not known: it has not been trained, and was made without."
        )
    labels = _told(model, labels, condition, guidance)
    score = _score(model, labels, guidance, n)
    if model.unreached is not None and getattr(score, "unreached", None) is None:
        warnings.warn(unreached_prior(model.unreached), AccuracyWarning, stacklevel=2)
    seed = seed_of(rng)
    start = model.draw_prior(n, rng=seed, dtype=dtype, device=device)
    low, high = model.times
    if isinstance(model.sde, GaussianPath) and model.sde.ends_without_signal:
        times, of_default = model.sde.time_grid(50 if steps is None else steps), 0.0
        best: FixedStep = FinalDenoising(DDIM()) if start.ndim == 4 else DDIM()
    elif isinstance(model.sde, GaussianPath):
        times, of_default = log_snr(model.sde, 50 if steps is None else steps), 0.0
        best = ExponentialAdams(3, "v")
        best = FinalDenoising(best) if start.ndim == 4 else best
    else:
        times = torch.linspace(high, low, (500 if steps is None else steps) + 1).double()
        best, of_default = EulerMaruyama(), 1.0
    how = best if solver is None else solver
    dynamics = ReverseSDE(model.sde, score, of_default if eta is None else eta)
    path = simulate(
        dynamics,
        start,
        times,
        solver=how,
        rng=seed,
        keep_path=False,
        interacting=True if isinstance(labels, Tensor) and labels.ndim else None,
        progress=progress,
    )
    return Samples(path.final, how, times, dynamics.eta, path.nfe, path.seed)


def _told(
    model: ScoreModel, labels: int | Tensor | None, condition: object, guidance: float
) -> int | Tensor | None:
    """Return what the network is told, of which labels and a condition are two names."""
    if condition is None:
        return labels
    if labels is not None:
        raise ValueError("labels and condition are given; a network is told one: leave one out.")
    if condition_shape(model.network) is None:
        raise ValueError(
            f"condition is given, but the {type(model.network).__name__} is told none: pass "
            "labels=, if it has classes, or make it with conditions=…, such as MLP(dim, "
            "conditions=3)."
        )
    if guidance != 0:
        raise ValueError(
            f"guidance = {guidance} needs a score without the condition, which a network that is "
            "told one has not; leave guidance out."
        )
    told = as_state("condition", condition)
    check_labels("condition", told, model.network)
    return told


def _score(model: ScoreModel, labels: int | Tensor | None, guidance: float, n: int) -> ScoreFn:
    """Return the score of all classes, of some, or of some with guidance."""
    guidance = as_number("guidance", guidance)
    if labels is None:
        if guidance != 0:
            raise ValueError(
                f"guidance = {guidance:g} overstates a class, but labels is None: pass labels=."
            )
        return model.score
    conditional = model.conditional(labels)
    several = conditional.score.trajectories
    if several not in (None, n):
        name = "labels" if condition_shape(model.network) is None else "condition"
        raise ValueError(f"{name} must be one for all, or {n} of them, but are {several}.")
    if guidance == 0:
        return conditional.score
    return guided(conditional.score, model.score, guidance)
