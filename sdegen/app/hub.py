"""Hub: a score model as a folder that the Hugging Face Hub keeps, and back.

    model.safetensors  the file of `ScoreModel.save`: weights and what the model is, with checksums
    config.json        what the model is, to be read: equal to what model.safetensors says
    README.md          the model card

Nothing else is ever fetched or opened, and no code of a folder is run: a pickle is left unread.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from torch import nn

import sdegen
from sdegen.app.model_card import Error, Facts, card_text
from sdegen.core.errors import CheckpointError
from sdegen.core.optional import needed
from sdegen.core.requests import check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn
from sdegen.score.model import ScoreModel, model_spec
from sdegen.score.parameterization import Parameterization
from sdegen.storage import atomic_write, load_metadata
from sdegen.training.config import FitConfig
from sdegen.verification.certificate import Certificate

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelHubMixin
else:
    try:
        from huggingface_hub import ModelHubMixin
    except ImportError:  # the class is there, and says what it needs when it is used
        ModelHubMixin = object

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TAGS = ("score-based", "diffusion", "sde")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_OURS = ("library_name", "sdegen_version", "training")  # of config.json, beside the specification


class HubScoreModel(ModelHubMixin):  # type: ignore[misc]  # typed, at minutes of reading
    """A score model with what is said of it, as huggingface_hub saves, uploads and loads it.

        score(x, t) = ∇ log p_t(x) of model.safetensors, shape (batch, *event), bit for bit

    `save_pretrained(folder)` writes model.safetensors, config.json and README.md, and
    `push_to_hub("user/name")` uploads these three. Results that are passed must be of this model:
    they are printed on the card as they are. A model that was loaded has the weights and no
    card: pass its data and results anew before it is saved again.

    Args:
        model: The model.
        data: What it was trained on, in your words; Markdown. None is "Not stated."
        license: Identifier as the Hub has it, such as "mit"; None leaves it out.
        errors: What it was found to be: a `ScoreResiduals`, a `SamplerErrors`, a `LevelLosses`, or
            several. () is "Not measured."
        certificate: Of samples or trajectories that the model made, as `certify` returns it.
        training: The configuration that it was trained by.

    Attributes:
        model: The model.

    Raises:
        ImportError: If huggingface_hub is not installed.
        TypeError: If an argument is of another kind.
        ValueError: If the model is conditional on labels, which a file does not keep.

    Example:
        >>> import huggingface_hub, tempfile
        >>> model = sg.ScoreModel(sg.MLP(1, rng=0), sg.VP(sg.ConstantBeta(2.0)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sg.HubScoreModel(model, data="None: untrained.").save_pretrained(folder)
        ...     again = sg.HubScoreModel.from_pretrained(folder).model
        >>> x = torch.ones(1, 1)
        >>> bool((again.score(x, 0.5) == model.score(x, 0.5)).all())
        True
    """

    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012, the mixin's: none is made of arguments

    def __init__(
        self,
        model: ScoreModel,
        *,
        data: str | None = None,
        license: str | None = None,
        errors: Error | Sequence[Error] = (),
        certificate: Certificate | None = None,
        training: FitConfig | None = None,
    ) -> None:
        needed("huggingface_hub", "HubScoreModel", extra="hub")
        check_kind("model", model, ScoreModel, "a ScoreModel")
        if model.labels is not None:
            raise ValueError(
                "model is conditional on labels, which a file does not keep; pass the model "
                "itself."
            )
        for name, text in (("data", data), ("license", license)):
            check_kind(name, text, (str, type(None)), "a text, or None")
        check_kind("certificate", certificate, (Certificate, type(None)), "a Certificate, or None")
        check_kind("training", training, (FitConfig, type(None)), "a TrainConfig, or None")
        self.model: ScoreModel = model
        self._license = license
        self._facts = Facts(data, _checked_errors(errors), certificate, training)

    # else help() and the site show (*args, **kwargs), which is how the mixin makes objects
    __signature__: ClassVar[inspect.Signature] = inspect.Signature(
        list(inspect.signature(__init__).parameters.values())[1:]
    )

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **options: Any,  # noqa: ANN401, the mixin's
    ) -> str | None:
        """Write model.safetensors, config.json and README.md.

        Args:
            save_directory: The folder; it is made, and files of these names in it are replaced.
            repo_id: Repository "user/name"; None is the name of the folder.
            push_to_hub: Whether it is uploaded too.
            options: Of huggingface_hub's `push_to_hub`, such as private=True.

        Returns:
            The address of the upload; None without.

        Raises:
            TypeError: If save_directory is no path.
            ValueError: If a config or parts of a card are given: both are made from the model.
            OSError: If they cannot be written.
        """
        check_kind("save_directory", save_directory, (str, os.PathLike), "the path of a folder")
        check_kind("push_to_hub", push_to_hub, bool, "True or False")
        given = [name for name in ("config", "model_card_kwargs") if options.pop(name, None)]
        if given:
            raise ValueError(
                f"{given[0]} is not taken, as config.json and the card are made from the model; "
                "pass data=, license=, errors= and certificate= to HubScoreModel."
            )
        address: str | None = super().save_pretrained(
            Path(save_directory), repo_id=repo_id, push_to_hub=push_to_hub, **options
        )
        return address

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the three files, as huggingface_hub asks for it."""
        self.model.save(save_directory / WEIGHTS)
        config: dict[str, Any] = {"library_name": "sdegen", "sdegen_version": sdegen.__version__}
        config |= load_metadata(save_directory / WEIGHTS, "ScoreModel")
        if self._facts.training is not None:
            training = dataclasses.asdict(self._facts.training)
            config["training"] = {"class": type(self._facts.training).__name__, **training}
        text = json.dumps(config, indent=2, ensure_ascii=False)
        atomic_write(save_directory / CONFIG, f"{text}\n".encode())
        atomic_write(save_directory / CARD, str(self.generate_model_card()).encode())

    def generate_model_card(self) -> ModelCard:
        """Return the model card, which `save_pretrained` writes to README.md."""
        hub = needed("huggingface_hub", "HubScoreModel", extra="hub")
        head = hub.ModelCardData(
            library_name="sdegen", license=self._license, tags=[*TAGS, "safetensors"]
        )
        text = card_text(self.model, model_spec(self.model), self._facts)
        card: ModelCard = hub.ModelCard(f"---\n{head.to_yaml()}\n---\n\n{text}")
        return card

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        network: nn.Module | None = None,
        sde: SDE | None = None,
        parameterization: Parameterization | None = None,
        base: ScoreFn | Literal[0] | None = None,
    ) -> Self:
        """Load a model from a folder, without a network, or from a repository of the Hub.

        Args:
            pretrained_model_name_or_path: A folder, or the name of a repository, "user/name",
                of which model.safetensors and config.json are fetched and nothing else.
            force_download: Fetch again what is in the cache.
            token: What the Hub knows you by; None is that of `hf auth login`.
            cache_dir: Where fetched files are kept; None is huggingface_hub's cache.
            local_files_only: Ask no network: a folder, or what is in the cache.
            revision: A branch, tag or commit of the repository; None is main.
            network: A network of your own, to be given the weights, as `ScoreModel.load` takes it.
            sde: The same for an SDE.
            parameterization: The same for a parameterization.
            base: The score that the network was added to, where there is one.

        Returns:
            The model, in `.model`, in evaluation mode on the CPU or where `network` is.

        Raises:
            ImportError: If huggingface_hub is not installed.
            TypeError: If an argument is of another kind.
            FileNotFoundError: If there is no such folder, and no repository that can be reached.
            CheckpointError: If there is no model.safetensors in it, a file is damaged or of
                another kind, config.json says otherwise than model.safetensors, or a class is none
                of the library's and was not passed.
        """
        needed("huggingface_hub", "HubScoreModel", extra="hub")
        name = pretrained_model_name_or_path
        check_kind("pretrained_model_name_or_path", name, (str, os.PathLike), "a folder or a name")
        if not isinstance(name, str) and not Path(name).is_dir():
            raise FileNotFoundError(f"there is no folder {name}.")
        for part, given, kind in (
            ("network", network, nn.Module),
            ("sde", sde, SDE),
            ("parameterization", parameterization, Parameterization),
        ):
            check_kind(part, given, (kind, type(None)), f"a {kind.__name__}, or None")
        return cls._from_pretrained(
            model_id=os.fspath(name),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            network=network,
            sde=sde,
            parameterization=parameterization,
            base=base,
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        network: nn.Module | None = None,
        sde: SDE | None = None,
        parameterization: Parameterization | None = None,
        base: ScoreFn | Literal[0] | None = None,
        **fetched: Any,  # noqa: ANN401, how huggingface_hub fetches
    ) -> Self:
        """Return the model of a folder or a repository, as huggingface_hub asks for it."""
        folder = Path(model_id)
        folder = folder if folder.is_dir() else _fetched(model_id, fetched)
        path = folder / WEIGHTS
        if not path.is_file():
            raise CheckpointError(_no_weights(folder))
        _check_config(folder)
        model = ScoreModel.load(
            path, network, sde=sde, parameterization=parameterization, base=base
        )
        return cls(model)


def _checked_errors(errors: object) -> tuple[Error, ...]:
    """Return results on the error of a model, or refuse what is none."""
    given = tuple(errors) if isinstance(errors, Sequence) else (errors,)
    for one in given:
        if not isinstance(one, get_args(Error)):
            raise TypeError(
                "errors must be results with error bars, of score_residuals, sampler_errors or "
                f"loss_by_level, but hold {kind_of(one)}."
            )
    return given


def _fetched(name: str, options: dict[str, Any]) -> Path:
    """Return the folder where the two files of a repository were put."""
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {name}.")
    hub = needed("huggingface_hub", "HubScoreModel", extra="hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG], **options))
    except (OSError, ValueError) as error:  # of the network, of the Hub, of a name
        raise FileNotFoundError(
            f"there is no folder {name!r}, and no repository of this name was fetched: {error}"
        ) from error


def _no_weights(folder: Path) -> str:
    """Return what is said of a folder without weights."""
    text = f"{folder} holds no {WEIGHTS}"
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        text += f", but {pickles[0]}, a pickle, which is never opened as it may run code"
    return f"{text}; save the model with HubScoreModel(model).save_pretrained(folder)."


def _check_config(folder: Path) -> None:
    """Refuse a config.json that says otherwise than model.safetensors.

    Raises:
        CheckpointError: Naming the first entry that differs.
    """
    path = folder / CONFIG
    if not path.is_file():  # model.safetensors alone knows all
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no entries, but {kind_of(config)}.")
    for name in _OURS:
        config.pop(name, None)
    stored = load_metadata(folder / WEIGHTS, "ScoreModel")
    for name in sorted(set(config) | set(stored)):
        there, here = config.get(name, "missing"), stored.get(name, "missing")
        if there != here:
            raise CheckpointError(
                f"{path} does not belong to {WEIGHTS}: {name!r} is {there} in it and {here} in "
                f"{WEIGHTS}; remove {CONFIG}, or save the model again."
            )
