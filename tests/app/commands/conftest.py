"""Commands are called as from a shell, in an empty folder."""

import json
import sys
from dataclasses import dataclass, field

import pytest

from sdegen.app.cli import main
from sdegen.storage import load_tensors


@dataclass
class Result:
    status: int
    out: list[str]
    err: list[str]
    metrics: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    files: set = field(default_factory=set)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sdegen.app.user_code._LOADED", {})
    return tmp_path


@pytest.fixture
def call(here, capsys):
    """Runs a command line, given in words or lines, and collects what it wrote."""

    def call(*arguments):
        status = main([word for argument in arguments for word in str(argument).split()])
        told = capsys.readouterr()
        result = Result(status, told.out.splitlines(), told.err.splitlines())
        if result.out:
            folder = here / result.out[-1]
            result.files = {path.name for path in folder.iterdir()}
            result.metrics = json.loads((folder / "metrics.json").read_text())
            for path in folder.glob("*.safetensors"):
                result.tensors |= load_tensors(path)[0]
        return result

    return call
