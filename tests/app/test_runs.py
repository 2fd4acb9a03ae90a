"""Run folders: made where they may be, refused elsewhere; nothing is lost that no run wrote."""

import json
import re
from pathlib import Path

import pytest

from sdegen.app.runs import make_folder, remove_if_unused, write_metrics


@pytest.fixture
def here(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    return inner


def test_the_name_is_the_command_and_the_time(here):
    first, second = make_folder("simulate", None, False), make_folder("simulate", None, False)
    assert re.fullmatch(r"runs/simulate-\d{8}T\d{6}Z", str(first))
    assert second != first
    assert first.is_dir()
    assert second.is_dir()


def test_a_folder_of_ones_own(here, tmp_path):
    assert make_folder("simulate", "a/b_c-1.0", False) == Path("a/b_c-1.0")
    assert make_folder("simulate", str(tmp_path / "elsewhere"), False).is_dir()


@pytest.mark.parametrize("out", ["../x", "a/../../x", "a/..", ".."])
def test_a_path_that_leaves_the_folder_is_refused(here, tmp_path, out):
    with pytest.raises(ValueError, match=r"leaves the current folder; give an absolute path"):
        make_folder("simulate", out, False)
    assert list(tmp_path.iterdir()) == [here]


def test_a_link_out_of_the_folder_is_refused(here, tmp_path):
    (here / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"leaves the current folder by a link, to"):
        make_folder("simulate", "link/x", False)


@pytest.mark.parametrize(
    "name", ["a b", "a;rm", "-x", ".hidden", "a\nb", "a$b", "ä", "a*", "~", "a\0"]
)
def test_odd_characters_are_refused(here, name):
    for out in (name, f"runs/{name}", str(here / name)):
        with pytest.raises(ValueError, match=r"odd characters in"):
            make_folder("simulate", out, False)
    assert list(here.iterdir()) == []


def test_the_current_folder_and_a_file_are_refused(here):
    with pytest.raises(ValueError, match=r"^out = '\.' is the current folder"):
        make_folder("simulate", ".", False)
    (here / "file").write_text("")
    with pytest.raises(ValueError, match=r"^out = 'file' is a file, not a folder"):
        make_folder("simulate", "file", True)


def test_files_are_refused_and_an_earlier_run_is_overwritten(here):
    folder = make_folder("simulate", "run", False)
    (folder / "config.toml").write_text("")
    (folder / "states.safetensors").write_text("")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001.safetensors").write_text("")
    (folder / "notes.txt").write_text("of the user")
    with pytest.raises(ValueError, match=r"^run has files in it; pass --overwrite"):
        make_folder("simulate", "run", False)
    assert (folder / "states.safetensors").exists()
    make_folder("simulate", "run", True)
    assert sorted(p.name for p in folder.rglob("*")) == ["checkpoints", "notes.txt"]


def test_a_folder_that_is_no_run_is_never_overwritten(here):
    (here / "thesis").mkdir()
    (here / "thesis" / "figure.png").write_text("irreplaceable")
    with pytest.raises(
        ValueError, match=r"no config\.toml, so that it is no earlier run: it is not overwritten"
    ):
        make_folder("simulate", "thesis", True)
    assert (here / "thesis" / "figure.png").read_text() == "irreplaceable"


def test_only_a_folder_with_nothing_but_its_config_is_taken_away(here):
    folder = make_folder("simulate", "run", False)
    (folder / "config.toml").write_text("")
    (folder / "x.png").write_text("")
    assert not remove_if_unused(folder)
    assert folder.is_dir()
    (folder / "x.png").unlink()
    assert remove_if_unused(folder)
    assert not folder.exists()


def test_metrics_are_json_without_nan(here):
    folder = make_folder("simulate", "run", False)
    write_metrics(folder, {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": 2}})
    text = (folder / "metrics.json").read_text()
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": {"d": 2}}
    assert "NaN" not in text
