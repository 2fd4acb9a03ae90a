"""Data by name or from a file: what is held out was never trained on, and no pickle is read."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sdegen as sg
from sdegen.app.commands.datasets import PLANAR, held_out, training_data

CPU = {"dtype": torch.float64, "device": torch.device("cpu")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sdegen.app.user_code._LOADED", {})
    return tmp_path


def train(name, **changed):
    given = {"samples": 100, "validation": 0, "seed": 0} | changed
    return training_data(name, **given, **CPU)


def rows(*sets):
    """All rows of some sets, as tuples."""
    return [tuple(row.flatten().tolist()) for part in sets for row in part]


@pytest.mark.parametrize("name", sorted(PLANAR))
def test_planar_draws_have_nothing_in_common(name):
    sets = train(name, samples=200, validation=50)
    other = held_out(name, samples=70, seed=0, **CPU)
    assert [len(part) for part in (sets.train, sets.validation, other)] == [200, 50, 70]
    assert len(set(rows(sets.train, sets.validation, other))) == 320
    assert torch.equal(train(name, samples=200).train, sets.train)
    assert not torch.equal(train(name, samples=200, seed=1).train, sets.train)
    assert len(held_out(name, samples=None, seed=0, **CPU)) == 1_000
    assert sets.augment is None


def test_the_test_half_of_the_digits_is_never_trained_on():
    sets, other = train("digits", validation=180), held_out("digits", samples=None, seed=0, **CPU)
    whole = train("digits")
    assert [len(part) for part in (sets.train, sets.validation, other)] == [718, 180, 899]
    assert len(whole.train) == 898
    assert whole.validation is None
    # without dequantisation: the split is one of the images
    levels = [rows(sg.data.to_levels(part)) for part in (whole.train, other)]
    assert not set(levels[0]) & set(levels[1])
    # another seed draws other numbers and never another split
    assert torch.equal(held_out("digits", samples=None, seed=7, **CPU), other)
    assert sets.augment is sg.data.redequantise


def test_files_are_read_as_they_are(here):
    x = np.arange(12.0).reshape(6, 2)
    np.save("x.npy", x)
    save_file({"any": torch.from_numpy(x)}, "x.safetensors")
    (here / "mine.py").write_text(
        "import numpy, torch\nx = torch.arange(12.).reshape(6, 2)\n"
        "def make():\n    return numpy.arange(12.).reshape(6, 2)\n"
    )
    for name in ("x.npy", "x.safetensors", "mine.py:x", "mine.py:make"):
        assert torch.equal(train(name).train, torch.from_numpy(x))
        assert torch.equal(held_out(name, samples=3, seed=0, **CPU), torch.from_numpy(x[:3]))


def test_rows_that_are_set_aside_are_not_trained_on(here):
    np.save("x.npy", np.arange(50.0)[:, None])
    sets = train("x.npy", validation=20)
    assert (len(sets.train), len(sets.validation)) == (30, 20)
    assert sorted(rows(sets.train, sets.validation)) == [(float(i),) for i in range(50)]
    # at random: 20 rows in a row come by chance once in 10¹³
    assert sets.validation.flatten().tolist() != sorted(sets.validation.flatten().tolist())
    with pytest.raises(ValueError, match=r"^validation = 50 of 50 rows leaves none to learn from"):
        train("x.npy", validation=50)
    with pytest.raises(ValueError, match=r"^samples = 51 rows are asked for, but x\.npy has 50"):
        held_out("x.npy", samples=51, seed=0, **CPU)


class Trap:
    def __reduce__(self):
        return open, ("sprung", "w")


def test_a_pickle_is_never_opened_however_it_is_named(here):
    np.save("x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (here / "y.npy").write_bytes(pickle.dumps(Trap()))
    (here / "y.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save({"x": torch.zeros(3)}, "y.pt")
    for name, told in (
        ("x.npy", r"^data: x\.npy is no array of numbers"),
        ("y.npy", r"^data: y\.npy is no array of numbers"),
        ("y.safetensors", r"^data: y\.safetensors is no safetensors file, or a damaged one"),
        ("y.pt", r"^data must be one of two_moons, .* but is 'y\.pt'; pickles are not read"),
    ):
        with pytest.raises(ValueError, match=told):
            train(name)
    assert not (here / "sprung").exists()


def test_what_is_no_data_is_refused(here):
    np.save("line.npy", np.arange(5.0))
    np.save("whole.npy", np.arange(6).reshape(3, 2))
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, "two.safetensors")
    (here / "mine.py").write_text("word = 'x'\n")
    with pytest.raises(
        TypeError, match=r"shape \(n, \*event\).*line\.npy holds torch\.float64 of shape \(5,\)"
    ):
        train("line.npy")
    with pytest.raises(TypeError, match=r"whole\.npy holds torch\.int64 of shape \(3, 2\)"):
        train("whole.npy")
    with pytest.raises(
        ValueError, match=r"two\.safetensors must hold one tensor, but holds 2: a, b"
    ):
        train("two.safetensors")
    with pytest.raises(TypeError, match=r"data = 'mine\.py:word' is a str, not a tensor"):
        train("mine.py:word")
    with pytest.raises(ValueError, match=r"^data: there is no file absent\.npy"):
        train("absent.npy")
    with pytest.raises(ValueError, match=r"^data must be one of two_moons, eight_gaussians"):
        train("three_moons")
