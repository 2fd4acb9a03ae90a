"""A model in a folder of the Hub: the same bits, and a card that says what was measured."""

import importlib.util
import inspect
import json
import pickle
import re
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, ModelHubMixin

import sdegen as sg
from sdegen.app import hub
from sdegen.storage import load_metadata

X = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
CONFIG = sg.TrainConfig(steps=10, batch_size=64, warmup=2, ema_decay=0.9)


@pytest.fixture(scope="module")
def trained():
    """A model whose weights are a moving average, and what was found of it."""
    model = sg.ScoreModel(sg.MLP(2, width=16, depth=1, rng=0), VP)
    last = {}
    sg.train(
        model, X, CONFIG, rng=0,
        callbacks=[lambda report: last.update({k: v.clone() for k, v in weights(model).items()})],
    )  # fmt: skip
    assert any(bool((last[name] != value).any()) for name, value in weights(model).items())
    held_out = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    return {
        "model": model,
        "residuals": sg.score_residuals(VP, model, held_out, levels=2, rng=0),
        "losses": sg.loss_by_level(model, X, held_out, levels=3, rng=0),
        "sampler": sg.sampler_errors(VP, model, held_out, VP.time_grid(3), eta=0.0, rng=0),
    }


@pytest.fixture(scope="module")
def certificate():
    ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
    run = sg.simulate(ou, torch.zeros(100, 1), [0.01 * k for k in range(51)], rng=0)
    return sg.certify(ou, path=run.states, dt=0.01)


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """No test may reach the network, nor look into a cache of this machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def weights(model):
    return model.network.state_dict()


def same(one, other):
    """Whether all weights, and the scores at some points, are the same bits."""
    assert weights(one).keys() == weights(other).keys()
    equal = [torch.equal(value, weights(other)[name]) for name, value in weights(one).items()]
    with torch.no_grad():
        return all(equal) and torch.equal(one.score(X, 0.3), other.score(X, 0.3))


def test_a_folder_gives_the_same_bits_back(trained, tmp_path):
    published = sg.HubScoreModel(trained["model"])
    assert isinstance(published, ModelHubMixin)
    assert published.save_pretrained(tmp_path / "a" / "moons") is None
    names = {path.name for path in (tmp_path / "a" / "moons").iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    for place in (tmp_path / "a" / "moons", str(tmp_path / "a" / "moons")):
        again = sg.HubScoreModel.from_pretrained(place).model
        assert same(again, trained["model"])  # the averaged weights, which the model ended with
        assert again.event_shape == (2,)
        assert not again.training


def test_help_shows_the_arguments():
    named = ["model", "data", "license", "errors", "certificate", "training"]
    assert list(inspect.signature(sg.HubScoreModel).parameters) == named


def test_the_weights_are_the_file_of_save(trained, tmp_path):
    sg.HubScoreModel(trained["model"]).save_pretrained(tmp_path)
    trained["model"].save(tmp_path / "own.safetensors")
    file = tmp_path / "model.safetensors"
    assert file.read_bytes() == (tmp_path / "own.safetensors").read_bytes()
    assert same(sg.ScoreModel.load(file), trained["model"])


def test_the_config_is_what_the_file_says_of_itself(trained, tmp_path):
    sg.HubScoreModel(trained["model"], training=CONFIG).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("library_name") == "sdegen"
    assert config.pop("sdegen_version") == sg.__version__
    training = config.pop("training")
    assert training.pop("class") == "TrainConfig"
    assert sg.TrainConfig(**training) == CONFIG
    assert config == load_metadata(tmp_path / "model.safetensors", "ScoreModel")
    assert config["sde"]["beta"] == {"class": "LinearBeta", "beta_min": 0.1, "beta_max": 20.0}
    assert same(sg.HubScoreModel.from_pretrained(tmp_path).model, trained["model"])


def test_the_card_has_the_figures_of_the_results(trained, certificate, tmp_path):
    found = [trained[name] for name in ("residuals", "sampler", "losses")]
    sg.HubScoreModel(
        trained["model"], data="N(0, 1), *drawn*.", license="mit", errors=found,
        certificate=certificate, training=CONFIG,
    ).save_pretrained(tmp_path)  # fmt: skip
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "sdegen"
    assert card.data.license == "mit"
    assert {"score-based", "diffusion"} <= set(card.data.tags)
    parts = re.split(r"^## (.*)$", card.text, flags=re.M)
    sections = dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))
    assert list(sections) == [
        "Data", "What it is", "Error", "Certificate", "How to use it", "Versions",
    ]  # fmt: skip
    assert sections["Data"] == "N(0, 1), *drawn*."
    assert "dX = −½ β(t) X dt + √β(t) dW" in sections["What it is"]
    assert "x0 = (x_t − σ ε)/α" in sections["What it is"]
    assert str(certificate) in sections["Certificate"]
    numbers = [
        tuple(map(float, pair))
        for pair in re.findall(r"(\d+\.\d{4}) ± (\d+\.\d{4})", sections["Error"])
    ]
    residuals, losses = trained["residuals"], trained["losses"]
    for values, bars in (
        (residuals.error, residuals.error_bars),
        (residuals.factor, residuals.factor_bars),
        (losses.losses, losses.errors),
        (losses.validation, losses.validation_errors),
    ):
        for value, bar in zip(values.tolist(), bars.tolist(), strict=True):
            assert (round(value, 4), round(bar, 4)) in numbers
    for part in trained["sampler"].parts:
        assert str(part) in sections["Error"]


def test_what_was_not_given_is_said(trained):
    card = sg.HubScoreModel(trained["model"]).generate_model_card()
    assert card.data.license is None
    for line in ("## Data\n\nNot stated.", "## Error\n\nNot measured.", "Training: not stated"):
        assert line in card.text


def test_a_card_is_not_left_from_another_model(trained, tmp_path):
    sg.HubScoreModel(trained["model"], errors=trained["residuals"]).save_pretrained(tmp_path)
    again = sg.HubScoreModel.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)
    assert "Not measured." in (tmp_path / "README.md").read_text()


def test_the_card_says_how_and_it_runs(trained, tmp_path):
    sg.HubScoreModel(trained["model"]).save_pretrained(tmp_path)
    text = ModelCard.load(tmp_path / "README.md").text
    program = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    names = {"x": X, "t": 0.3}
    exec(program.replace("this folder, or user/name", str(tmp_path)), names)
    assert torch.equal(names["score"], trained["model"].score(X, 0.3))


class Own(torch.nn.Module):
    """A network that no file can rebuild."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x, t):
        return self.layer(x)


def test_a_network_of_ones_own_is_passed_or_refused_by_name(tmp_path):
    model = sg.ScoreModel(Own(), VP)
    published = sg.HubScoreModel(model)
    published.save_pretrained(tmp_path)
    assert 'from_pretrained("this folder, or user/name", network=…)' in str(
        published.generate_model_card()
    )
    with pytest.raises(sg.CheckpointError, match=r"Own, which sdegen cannot .*: network=…"):
        sg.HubScoreModel.from_pretrained(tmp_path)
    assert same(sg.HubScoreModel.from_pretrained(tmp_path, network=Own()).model, model)


class Remote:
    """Stands for the Hub: keeps what would be uploaded."""

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, **options):
        self.made = (repo_id, options)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, **options):
        files = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        Remote.uploaded = (repo_id, files, options)
        return f"commit of {repo_id}"


def test_what_is_uploaded_is_what_is_saved(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Remote)
    published = sg.HubScoreModel(trained["model"], data="N(0, 1).", license="mit")
    assert published.push_to_hub("me/moons", private=True) == "commit of me/moons"
    published.save_pretrained(tmp_path)
    saved = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name, files, options = Remote.uploaded
    assert (name, options["repo_type"]) == ("me/moons", "model")
    assert files == saved
    told = published.save_pretrained(tmp_path, repo_id="me/b", push_to_hub=True, private=True)
    assert told == "commit of me/b"
    assert Remote.uploaded[1] == saved


def test_a_repository_gives_two_files_and_no_other(trained, tmp_path, monkeypatch):
    sg.HubScoreModel(trained["model"]).save_pretrained(tmp_path)
    asked = {}

    def snapshot(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    again = sg.HubScoreModel.from_pretrained("me/moons", revision="v1").model
    assert same(again, trained["model"])
    assert (asked["repo_id"], asked["revision"]) == ("me/moons", "v1")
    assert asked["allow_patterns"] == ["model.safetensors", "config.json"]


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise AssertionError('a pickle was opened')",))

    for name in ("pytorch_model.bin", "model.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(sg.CheckpointError, match=r"model\.pkl, a pickle, which is never opened"):
        sg.HubScoreModel.from_pretrained(tmp_path)
    (tmp_path / "model.pkl").rename(tmp_path / "model.safetensors")
    with pytest.raises(sg.CheckpointError, match="not a safetensors file"):
        sg.HubScoreModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("20.0", "10.0", "'sde' is .*10.0.* in it and .*20.0"),
        ('"kind"', '"model"', "'kind' is missing in it"),
        ("{", "[", "is no JSON"),
    ],
)
def test_a_config_that_says_otherwise_is_refused(trained, tmp_path, old, new, match):
    sg.HubScoreModel(trained["model"]).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(sg.CheckpointError, match=match):
        sg.HubScoreModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["./moons", "~/moons", "/moons", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_network(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        sg.HubScoreModel.from_pretrained(name)


@pytest.mark.parametrize("name", ["me/moons", "no name!"])
def test_a_repository_that_cannot_be_had_is_named(name):
    with pytest.raises(FileNotFoundError, match=f"there is no folder '{name}', and no repository"):
        sg.HubScoreModel.from_pretrained(name)


def test_without_huggingface_hub_the_cure_is_named(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    spec = importlib.util.spec_from_file_location("without_hub", hub.__file__)
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    for call in (
        lambda: without.HubScoreModel(trained["model"]),
        lambda: without.HubScoreModel.from_pretrained("moons"),
    ):
        with pytest.raises(ImportError, match=r"pip install 'sdegen\[hub\]'"):
            call()
