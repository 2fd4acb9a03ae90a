"""Training of a score: denoising score matching, or a loss of one's own, by `sdegen.training.fit`.

**Scale.** Networks are made for data of order one. Data that are more than ten times larger or
smaller than the path and the parameterization expect are told by an `AccuracyWarning` with the
numbers; nothing is scaled in silence.

**Times.** A model of an SDE without a Gaussian kernel that was made without times finds t_min and
t_max from the data (`sdegen.score.forms.noising`): the result and the model say them.

**Prior.** Where the noising does not reach the prior from which samples begin, an
`AccuracyWarning` says so with KL(p_T ‖ prior) (`sdegen.score.forms.advice`); the model remembers
it, and says it again where it is sampled from.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

from torch import Tensor

from sdegen.core.checks import check_word
from sdegen.core.noise import Rng
from sdegen.core.requests import as_state, check_kind, kind_of
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import TrainConfig, Weighting
from sdegen.score.forms.simulated import SimulatedForm
from sdegen.score.losses import DenoisingLoss, ImplicitLoss
from sdegen.score.model import ScoreModel, model_spec
from sdegen.score.model_checks import check_labels
from sdegen.score.networks import condition_shape
from sdegen.score.transition_matching import TransitionMatching
from sdegen.training.callbacks import StepReport
from sdegen.training.config import FitConfig
from sdegen.training.doors import Data, open_source, read_whole
from sdegen.training.fitting import fit
from sdegen.training.loss import Batch, Loss
from sdegen.training.optimizer import OptimizerFactory, Schedule
from sdegen.training.result import TrainResult
from sdegen.training.run import Augment
from sdegen.training.sources import Source


def train(
    model: ScoreModel,
    data: Data,
    config: TrainConfig | None = None,
    *,
    loss: Loss | Weighting | None = None,
    rng: Rng = None,
    labels: Tensor | None = None,
    validation: Data | None = None,
    validation_labels: Tensor | None = None,
    augment: Augment | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    optimizer: OptimizerFactory | None = None,
    schedule: Schedule | None = None,
    callbacks: Sequence[Callable[[StepReport], None]] = (),
) -> TrainResult:
    """Learn a score, in place: make a loss over noise levels small.

        L = (1/Z) ∫ w(t) E ‖ε̂(x_t, t) − ε‖²/d dt,     x_t = α x0 + σ ε

    Args:
        model: The model; ends with the moving average of its weights, in evaluation mode.
        data: Examples, shape (n, *event), scaled to order one: a tensor or an array; on disk, the
            path of a .npy file, an np.memmap or a zarr.Array; a torch Dataset or DataLoader, which
            gives x or (x, label). See `sdegen.training.sources`.
        config: How; None is `TrainConfig()`.
        loss: What is made small: a `DenoisingLoss`, a `Loss` of your own, or the word of a
            weighting; None is DenoisingLoss(config.weighting, config.label_dropout).
        rng: Seed, generator or None.
        labels: The class of each example, shape (n,), for a network with classes. In a share
            `label_dropout` of the rows it is left out, so that `model.score` is the score of all
            classes together and `model.conditional(label).score` that of one. Of a network with
            a `condition_shape` the condition of each, floats of shape (n, *condition_shape).
        validation: Other examples, shape (m, *event), on which the loss is followed.
        validation_labels: The same for them, shape (m,).
        augment: augment(rows, stream) returns other rows that are as likely as these, such as
            fresh dequantisation noise; its random numbers come from the stream.
        folder: Where checkpoints go; None keeps none.
        resume: Resume from the newest checkpoint in the folder, if there is one.
        progress: Show a progress bar.
        optimizer: None for AdamW; a class of torch.optim, bare or in `functools.partial`, or a
            function of the weights.
        schedule: A function k -> factor of the learning rate, or a scheduler's class; None is a
            warm-up and half a cosine. See `fit`.
        callbacks: Functions of a `StepReport`, or objects of `sdegen.training.Callback`.

    Returns:
        The losses, what it takes to repeat them, and `times` where they were found.

    Raises:
        TypeError: If data are not a floating-point tensor, or loss is no loss.
        ValueError: If data are empty, constant or not finite, if times were not said and none are
            found, as the process does not come to rest, if labels are missing, or not those
            of a network's classes, if a loss of your own returns what is none, if the folder holds
            another run or, without `resume`, any.
        NonFiniteError: If the loss becomes NaN or infinite. The model has the averaged weights of
            the step before, and `.result` the losses so far.
        CheckpointError: If the newest checkpoint is damaged.
        RankError: If ranks that train together were given other data or configurations.
        KeyboardInterrupt: On Ctrl-C, after the step has ended and a checkpoint is saved; a second
            one leaves at once.

    Reference:
        Song et al. 2021, eq. (7), arXiv:2011.13456; Ho et al. 2020, algorithm 1, arXiv:2006.11239.

    Example:
        >>> x = torch.special.ndtri(torch.linspace(0.01, 0.99, 99))[:, None]  # about N(0, 1)
        >>> model = sg.ScoreModel(sg.MLP(1, width=16, depth=1, rng=0), sg.VP(sg.ConstantBeta(4.0)))
        >>> config = sg.TrainConfig(80, 256, learning_rate=0.02, warmup=10, ema_decay=0.9)
        >>> result = sg.train(model, x, config, rng=0)
        >>> bool((model.score(x, 0.5) + x).square().mean() < 0.01)  # the score is −x at every t
        True
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"model must be a ScoreModel, but is {kind_of(model)}; a network and the SDE that "
            "noises its data make one: ScoreModel(network, VP(LinearBeta(0.1, 20.0)))."
        )
    check_kind("config", config, (TrainConfig, type(None)), "a TrainConfig or None")
    config = TrainConfig() if config is None else config
    loss = _loss(loss, config, model)
    source, others = _sources(model, data, labels, validation, validation_labels, config)
    rows = source.sample.rows
    if isinstance(model.sde, GaussianPath):
        _check_varied(rows)
    chosen = model.times is None
    if not (isinstance(loss, ImplicitLoss) and loss.at is not None):  # which prepares by samples
        model.form.prepare(model, rows)
    model.event_shape = tuple(rows.shape[1:])
    about = loss.spec()
    if source.sample.labels is None:
        about.pop("label_dropout", None)  # it changes nothing
    result = fit(
        model,
        source,
        loss,
        FitConfig(**{one.name: getattr(config, one.name) for one in fields(FitConfig)}),
        rng=rng,
        validation=others,
        validation_labels=validation_labels if others is None else None,
        augment=augment,
        folder=folder,
        resume=resume,
        progress=progress,
        optimizer=optimizer,
        schedule=schedule,
        callbacks=callbacks,
        spec={**model_spec(model), "loss": about} | _times(model),
    )
    return replace(result, times=model.times) if chosen else result


def _times(model: ScoreModel) -> dict[str, list[float]]:
    """Return what tells times that are the model's own, and not its SDE's."""
    return (
        {} if model.form.times() is not None or model.times is None else {"times": [*model.times]}
    )


def _sources(
    model: ScoreModel,
    data: object,
    labels: object,
    validation: object,
    validation_labels: object,
    config: TrainConfig,
) -> tuple[Source, Batch | None]:
    """Return where rows come from, and the validation data; labels are asked of the network."""
    for name, given in (("labels", labels), ("validation_labels", validation_labels)):
        if given is not None:
            check_labels(name, as_state(name, given), model.network)

    def check(batch: Batch) -> None:
        _check_labels("labels", batch, model)

    source = open_source("data", data, labels, batch_size=config.batch_size, check=check)
    if validation is None:
        return source, None
    others = read_whole("validation", validation, validation_labels)
    _check_labels("validation_labels", others, model)
    return source, others


def _loss(loss: object, config: TrainConfig, model: ScoreModel) -> Loss:
    """Return a loss as an object, or refuse what is none, and what is said twice."""
    if isinstance(model.form, SimulatedForm):
        _check_simulated(loss, config, model)
        if loss is None:
            return TransitionMatching(label_dropout=config.label_dropout)
    if loss is None:
        return DenoisingLoss(config.weighting, config.label_dropout)
    plain = TrainConfig()
    if config.weighting not in (plain.weighting, loss):
        raise ValueError(
            f"loss is given, and config asks for weighting = {config.weighting!r} too; say one of "
            "the two."
        )
    if isinstance(loss, str):
        check_word("loss", loss, get_args(Weighting))
        return DenoisingLoss(loss, config.label_dropout)  # type: ignore[arg-type]
    check_kind("loss", loss, Loss, "a DenoisingLoss, or an object of a class derived from Loss")
    if config.label_dropout != plain.label_dropout:
        raise ValueError(
            f"loss is given, and config asks for label_dropout = {config.label_dropout:g} too; "
            "say it to the loss, DenoisingLoss(label_dropout=…)."
        )
    assert isinstance(loss, Loss)
    return loss


def _check_simulated(loss: object, config: TrainConfig, model: ScoreModel) -> None:
    """Refuse losses and weightings of α and σ for a process that has none."""
    asked = loss if isinstance(loss, str) else None
    if config.weighting != TrainConfig().weighting:
        asked = config.weighting
    if asked is None and not isinstance(loss, DenoisingLoss):
        return
    what = f"weighting {asked!r}" if asked is not None else type(loss).__name__
    raise ValueError(
        f"{what} is one of α(t) and σ(t), which {type(model.sde).__name__}, without a Gaussian "
        "kernel, has not; leave it out, or pass loss=TransitionMatching()."
    )


def _check_varied(rows: Tensor) -> None:
    """Refuse data whose rows are all the same point, which has no density to learn."""
    if bool((rows == rows[:1]).all()):
        raise ValueError(
            f"data are constant: all of the {len(rows)} rows that were looked at are the same. A "
            "point has no density, and its score grows without bound; check how they were read."
        )


def _check_labels(name: str, batch: Batch, model: ScoreModel) -> None:
    """Refuse labels that do not go with the rows or the network, and their absence."""
    classes = int(getattr(model.network, "classes", 0))
    shape = condition_shape(model.network)
    if batch.labels is None:
        if classes or shape:
            has = f"classes = {classes}" if classes else f"a condition of shape {shape}"
            raise ValueError(
                f"the network has {has}, but no {name} were given; pass {name}=, or make it "
                "without."
            )
        return
    check_labels(name, batch.labels, model.network)
    if batch.labels.shape[:1] != (len(batch),) or batch.labels.ndim != 1 + len(shape or ()):
        raise ValueError(
            f"{name} must have shape ({len(batch)},), one for each row, but have "
            f"{tuple(batch.labels.shape)}."
        )
