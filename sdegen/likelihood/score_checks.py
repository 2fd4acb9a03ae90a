"""Checks: what a likelihood asks of an SDE and of a score, before anything is computed."""

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.evaluation import check_repeatable, refuse_randomness, watched
from sdegen.core.kernel import Kernel
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.core.requests import check_function, check_kind, first_true
from sdegen.core.scores import score_of_rows, trajectories_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.signature import check_order
from sdegen.core.slope_checks import check_seen
from sdegen.core.tolerances import SAME_MODEL
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.signal import check_signal
from sdegen.score.model_checks import check_derivative

_MIXED = (
    "the score of one point changes with the others in its batch, or from call to call; put the "
    "network in evaluation mode with model.eval()."
)


def check_forward(
    sde: SDE, name: str, *, any_kernel: bool = False, ends_known: bool = False
) -> None:
    """Raise if sde is not a forward SDE with a Gaussian kernel.

    Args:
        sde: What should be one.
        name: The caller.
        any_kernel: Whether the kernel may be of modes or of matrices.
        ends_known: Whether the density at t_max is given, so that no kernel is needed.
    """
    check_kind("sde", sde, SDE, "a GaussianPath such as VP(…)")
    if sde.direction != 1:
        raise ValueError(
            f"sde must be the forward SDE, from which the flow is made here, but is a "
            f"{type(sde).__name__}: pass {name}(forward, score, x)."
        )
    check_signal(sde, name)
    if any_kernel and sde.noise == "additive" and sde.noise_kernel is not None:
        return
    if ends_known and sde.noise != "none" and not sde.is_discrete:
        return  # any that has a flow: its ReverseSDE refuses the rest
    if any_kernel and sde.noise != "none" and sde.kernel is None and not sde.is_discrete:
        raise ValueError(
            f"{type(sde).__name__} has no Gaussian kernel, and the density at which its noising "
            f"ends is not known: pass {name}(…, prior_log_prob=), log p at t_max, such as "
            "DensityPrior(density).log_prob."
        )
    if sde.noise != "additive" or sde.kernel is None:
        raise ValueError(
            f"{name} needs a GaussianPath, with additive noise, t_min, t_max and a prior, but "
            f"sde is a {type(sde).__name__} with {sde.noise} noise"
            f"{'' if sde.kernel else ' and no Gaussian kernel'}: use one such as VP, SubVP or VE."
        )


def times_of(sde: SDE, score: ScoreFn) -> tuple[float, float]:
    """Return t_min and t_max of a process, or of the model whose score it is.

    Raises:
        ValueError: If neither says them.
    """
    if isinstance(sde, GaussianPath):
        return (sde.t_min, sde.t_max)
    times = getattr(score, "score_range", None)
    if times is None:
        raise ValueError(
            f"{type(sde).__name__} has no t_min and t_max of its own, and a likelihood goes from "
            "one to the other: pass the score of a model, model.score, which has times."
        )
    low, high = times
    return (float(low), float(high))


def prior_of(sde: SDE, t_max: float) -> Callable[[State], Tensor]:
    """Return log p_T of the law at rest, or of what X_t_max is from x0 = 0."""
    if isinstance(sde, GaussianPath):
        return sde.prior_log_prob
    kernel = sde.noise_kernel
    if isinstance(kernel, Kernel):
        kernel = DiagonalKernel.of(kernel)
    assert isinstance(kernel, DiagonalKernel | MatrixKernel)  # the form of a model takes no other
    return kernel.end(t_max).log_prob


def check_dynamics(sde: SDE, x: State, t_min: float) -> None:
    """Refuse a drift or a noise of its user whose change with x autograd does not see."""
    rows, t = x[:4].detach(), torch.tensor(t_min, dtype=torch.float64)
    check_seen(lambda y: sde.drift(y, t), rows, "drift")
    if sde.noise == "multiplicative":
        check_seen(lambda y: sde.covariance_times(y, t, torch.ones_like(y)), rows, "noise")


def check_score(score: ScoreFn, x: State, t_min: float) -> None:
    """Refuse a score of another shape, not finite, without a derivative, or that mixes points."""
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x)")
    check_order(score, "score")
    t = torch.tensor(t_min, dtype=torch.float64)
    with torch.inference_mode(False), torch.enable_grad():
        if trajectories_of(score) in (None, len(x)):  # else the score says what is wrong
            score = score_of_rows(score, slice(4))
        rows = x[:4].detach().clone().requires_grad_()
        value, network, moved = watched(lambda: score(rows, t), x.device)
    if moved is not None:
        refuse_randomness("score", f"{moved} moved while it was evaluated")
    if not isinstance(value, Tensor) or value.shape != rows.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"score must return x's shape {tuple(rows.shape)}, but returned {got}.")
    if (i := first_true(~torch.isfinite(value).flatten(1).all(1))) is not None:
        raise ValueError(
            f"score is not finite at t_min = {t_min:g}: row {i} of x is "
            f"{rows[i].flatten()[:4].tolist()} and the score is {value[i].flatten()[:4].tolist()}."
        )
    with torch.no_grad():
        if not network:
            check_repeatable("score", value, score(rows, t))
        scale = value.abs().max()
        check_derivative(score, value, rows, t, "its divergence")
    check_seen(lambda y: score(y, t), rows, "score")
    with torch.no_grad():
        try:
            apart = torch.cat(
                [score_of_rows(score, slice(i, i + 1))(row[None], t) for i, row in enumerate(rows)]
            )
        except Exception as error:  # batch normalisation in training takes no single point
            raise ValueError(_MIXED) from error
        if bool(((apart - value).abs() > SAME_MODEL * scale).any()):
            raise ValueError(_MIXED)


def keeps_graph(differentiable: object, x: State) -> bool:
    """Return whether gradients are to flow: as said, or else where x requires grad.

    Raises:
        TypeError: If differentiable is neither True, False nor None.
        ValueError: If it is True under no_grad.
    """
    if not (differentiable is None or isinstance(differentiable, bool)):
        raise TypeError(f"differentiable must be True, False or None, but is {differentiable!r}.")
    if differentiable and not torch.is_grad_enabled():
        raise ValueError(
            "differentiable=True, but gradients are switched off around the call: take it out of "
            "torch.no_grad() or inference_mode()."
        )
    if differentiable is None:
        return x.requires_grad and torch.is_grad_enabled()
    return differentiable
