"""Advice on models in folders of the Hub, followed."""

import tempfile
from pathlib import Path

import torch

import sdegen as sg

_X = torch.linspace(-1, 1, 4)[:, None]


def _model(classes=0):
    network = sg.MLP(1, width=4, depth=1, classes=classes, rng=0)
    return sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0)))


def _saved(change, model=None, then=None):
    """A folder that was saved and changed, as it is loaded; and the weights, as they were."""
    model = _model() if model is None else model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sg.HubScoreModel(model).save_pretrained(folder)
        change(folder)
        if then is not None:
            then(folder)
        again = sg.HubScoreModel.from_pretrained(folder).model
    with torch.no_grad():
        assert bool((again.score(_X, 0.5) == model.score(_X, 0.5)).all())


def _as_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _edited(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace("20.0", "10.0"))


def _refused_config():
    with tempfile.TemporaryDirectory() as folder:
        sg.HubScoreModel(_model()).save_pretrained(folder, config={"width": 4})


def _told_on_the_card():
    card = sg.HubScoreModel(_model(), data="Two points.", license="mit").generate_model_card()
    assert card.data.license == "mit"
    assert "\n\n## Data\n\nTwo points.\n\n" in card.text


FOLLOWED = {
    "a folder without safetensors": (
        "; save the model with HubScoreModel",
        lambda: _saved(_as_pickle),
        lambda: _saved(
            _as_pickle, then=lambda folder: sg.HubScoreModel(_model()).save_pretrained(folder)
        ),
    ),
    "a config that was edited": (
        "in it and {} in {}; remove {}, or save the model again",
        lambda: _saved(_edited),
        lambda: _saved(_edited, then=lambda folder: (folder / "config.json").unlink()),
    ),
    "a conditional model for the Hub": (
        "model is conditional on labels, which a file does not keep; pass",
        lambda: sg.HubScoreModel(_model(3).conditional(2)),
        lambda: _saved(lambda folder: None, _model(3)),
    ),
    "a config of one's own": (
        "is not taken, as config.json and the card are made from the model",
        _refused_config,
        _told_on_the_card,
    ),
}
