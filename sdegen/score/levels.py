"""Losses by noise level: where a score is wrong, and where it has learned its data by heart.

    ℓ(t) = E ‖ε̂(x_t, t) − ε‖²/d,        from 1 at much noise, for data of one point 0 at every t

A training loss is one number, which the levels of little noise rule. ℓ(t) of data that were
trained on beside ℓ(t) of others shows at which levels the two part: a network memorises where
there is little noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, normal_like, stream
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State
from sdegen.core.shown import Labelled
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.losses.times import TimeSampler
from sdegen.score.model import ScoreModel, with_labels
from sdegen.score.model_checks import check_labels
from sdegen.training.rows import check_data


@dataclass(frozen=True)
class LevelLosses(Labelled):
    """The loss of denoising at each noise level.

        ℓ(t) = E ‖ε̂(x_t, t) − ε‖²/d

    Attributes:
        times: t of each level, increasing, float64, shape (levels,).
        losses: E ‖ε̂ − ε‖²/d there, shape (levels,).
        errors: Standard errors of them.
        validation: The same of other data; None where there were none.
        validation_errors: Standard errors of these.
        log_snr: log α²/σ² at the times; None where the process has no α and σ.

    Example:
        >>> model = sg.ScoreModel(sg.MLP(1, rng=0), sg.VP(sg.ConstantBeta(2.0)))
        >>> found = sg.loss_by_level(model, torch.zeros(1000, 1), levels=3, rng=0)
        >>> [f"{snr:.1f}" for snr in found.log_snr.tolist()]  # of equal steps
        ['6.2', '2.2', '-1.9']
        >>> bool(((found.losses - 1).abs() < 5 * found.errors).all())  # untrained: E ε² = 1
        True
    """

    times: Tensor
    losses: Tensor
    errors: Tensor
    validation: Tensor | None
    validation_errors: Tensor | None
    log_snr: Tensor | None


def loss_by_level(
    model: ScoreModel,
    data: Tensor,
    validation: Tensor | None = None,
    *,
    levels: int = 20,
    labels: Tensor | None = None,
    validation_labels: Tensor | None = None,
    rng: Rng = None,
) -> LevelLosses:
    """Compute the loss of denoising at noise levels of equal steps in log SNR.

        ℓ(t) = E ‖ε̂(x_t, t) − ε‖²/d

    Every row is noised once at each level.

    Args:
        model: Whose loss; of a process with a Gaussian kernel. The times of one without α and σ
            have equal steps.
        data: Examples, shape (n, *event), n ≥ 2.
        validation: Others, on which it was not trained, shape (m, *event), m ≥ 2.
        levels: How many, ≥ 2, from t_min to t_max.
        labels: Classes or conditions of the data, one for each row; None asks without.
        validation_labels: The same for the others.
        rng: Seed, generator or None.

    Returns:
        The losses with their standard errors.

    Raises:
        TypeError: If model is no `ScoreModel` or data no floats.
        ValueError: If there are fewer than two rows or levels, labels are not the network's, or
            the process has no Gaussian kernel.

    Example:
        >>> model = sg.ScoreModel(sg.MLP(1, rng=0), sg.VP(sg.ConstantBeta(2.0)), sg.X0Prediction())
        >>> found = sg.loss_by_level(model, torch.zeros(100, 1), levels=3, rng=0)
        >>> found.losses  # x̂0 = 0 = x0: ε̂ = x_t/σ is ε itself
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    check_kind("model", model, ScoreModel, "a ScoreModel")
    check_count("levels", levels, least=2)
    if model.sde.noise_kernel is None or model.times is None:
        raise ValueError(
            f"loss_by_level noises data by a Gaussian kernel between t_min and t_max, which "
            f"{type(model.sde).__name__} has not."
        )
    shares = torch.linspace(0, 1, levels, dtype=torch.float64)
    log_snr = None
    if isinstance(model.sde, GaussianPath):
        times = TimeSampler(model.sde, "likelihood").quantile(shares)
        log_snr = -2 * model.sde.kernel.log_ratio(times).detach()
    else:
        low, high = model.times
        times = low + (high - low) * shares
    source = stream(rng, "levels").generator()
    losses, errors = _losses("data", model, data, labels, times, source)
    other = other_errors = None
    if validation is not None:
        other, other_errors = _losses(
            "validation", model, validation, validation_labels, times, source
        )
    elif validation_labels is not None:
        raise ValueError("validation_labels were given without validation; pass both.")
    return LevelLosses(times, losses, errors, other, other_errors, log_snr)


@torch.no_grad()
def _losses(
    name: str,
    model: ScoreModel,
    rows: State,
    labels: Tensor | None,
    times: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return means and standard errors at each time, float64, shape (levels,)."""
    rows = check_data(name, rows)
    if len(rows) < 2:
        raise ValueError(f"{name} must hold 2 rows or more, of which an error is known.")
    if labels is not None:
        what = "labels" if name == "data" else "validation_labels"
        check_labels(what, labels, model.network)
        if labels.shape[:1] != (len(rows),):
            raise ValueError(
                f"{what} must be {len(rows)}, one for each row, but have shape "
                f"{tuple(labels.shape)}."
            )
        model = with_labels(model, labels)
    was = model.training
    model.eval()
    try:
        found = []
        for t in times:
            eps = normal_like(model.form.like_state(rows), stream(generator, "perturb"))
            at = t.to(rows).expand(len(rows))
            error = model.form.error(model, rows, at, eps, in_output=False)
            found.append(error.double().square().flatten(1).mean(1).cpu())
    finally:
        model.train(was)
    each = torch.stack(found)
    return each.mean(1), each.std(1) / len(rows) ** 0.5
