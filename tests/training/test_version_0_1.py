"""Checkpoints of version 0.1: resumed to what its unbroken runs ended with."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import sdegen as sg
from sdegen.storage import load_tensors, save_tensors

FOLDER = Path(__file__).parent.parent / "fixtures" / "v0_1"
sys.path.insert(0, str(FOLDER))
sys.path.insert(0, str(FOLDER / "trainings"))
cases = importlib.import_module("cases")
trainings = importlib.import_module("write_trainings")

SAME_MACHINE = json.loads((FOLDER / "machine.json").read_text()) == cases.machine()
NAMES = ("plain", "labels")


@pytest.fixture
def folder(tmp_path):
    """A copy of the checkpoints, and one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Path(shutil.copytree(FOLDER / "trainings", tmp_path / "trainings"))
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_resumed_to_the_end_of_an_unbroken_run(name, folder):
    given, named = trainings.arguments(name)
    result = sg.train(*given, **named, folder=folder / name, resume=True)
    whole, again = trainings.arguments(name)
    expected = sg.train(*whole, **again)
    # the first eight steps are those of the machine that wrote the file
    off = 0.0 if SAME_MACHINE else 1e-4
    torch.testing.assert_close(result.losses[8:], expected.losses[8:], rtol=off, atol=off)
    assert result.validation_steps.tolist() == [5, 10, 12]
    assert result.selected_step == expected.selected_step
    then, _ = load_tensors(FOLDER / "trainings" / f"{name}.safetensors")
    for key, tensor in given[0].network.state_dict().items():
        if SAME_MACHINE:
            assert torch.equal(tensor, then[key]), key
        else:
            torch.testing.assert_close(tensor, then[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("plain", {"weighting": "simple"}, "loss.weighting is 'likelihood' there and 'simple'"),
        ("labels", {"label_dropout": 0.1}, "loss.label_dropout is 0.3 there and 0.1 here"),
        ("plain", {"precision": "bf16"}, "config.precision is 'full' there and 'bf16' here"),
        ("plain", {"batch_size": 17}, "config.batch_size is 16 there and 17 here"),
    ],
)
def test_another_run_is_refused_by_the_difference(name, change, message, folder):
    given, named = trainings.arguments(name)
    config = sg.TrainConfig(**{**vars(given[2]), **change})
    with pytest.raises(ValueError, match=re.escape(message)):
        sg.train(*given[:2], config, **named, folder=folder / name, resume=True)


def test_label_dropout_changes_nothing_without_labels(folder):
    given, named = trainings.arguments("plain")
    config = sg.TrainConfig(**{**vars(given[2]), "label_dropout": 0.7})
    sg.train(*given[:2], config, **named, folder=folder / "plain", resume=True)


def test_a_file_of_a_later_format_is_refused(folder, monkeypatch):
    path = folder / "plain" / "step-00000008.safetensors"
    tensors, metadata = load_tensors(path)
    monkeypatch.setattr("sdegen.storage.FORMAT", 2)
    save_tensors(path, tensors, metadata)
    monkeypatch.undo()
    given, named = trainings.arguments("plain")
    with pytest.raises(sg.CheckpointError, match="has format 2, and this version reads up to 1"):
        sg.train(*given, **named, folder=folder / "plain", resume=True)
