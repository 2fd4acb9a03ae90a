"""Where programs of advice run: folders of their own, the command line, machines that are full."""

import atexit
import functools
import io
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import sdegen as sg
from sdegen.app.cli import main
from sdegen.app.runs import METRICS

USER_CODE = """
import torch
import sdegen as sg

ou = sg.OrnsteinUhlenbeck(rate=1.0, sigma=2**0.5)
brownian = sg.BrownianMotion(1.0)

def makes():
    return ou

def drift(x, t):
    return -x

def stiff(x, t):
    return -100.0 * (x - 1.0)

def creep(x, t):
    return 0.001 + 0.0 * x

def field(x, t):
    return x.mean(0) - x

def noise(x):
    return 1.0 + 0.0 * x
"""


def _unpainted(figure: object, place: object, **options: object) -> None:
    """Save no picture; into a buffer, what a PNG begins with."""
    if isinstance(place, io.BytesIO):
        place.write(b"\x89PNG\r\n\x1a\n")


@contextmanager
def folder() -> Iterator[Path]:
    """A current folder that is taken away again, with a file of user code and no GPU."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr("sdegen.app.user_code._LOADED", {})
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setattr("matplotlib.figure.Figure.savefig", _unpainted)
        here = Path(name).resolve()
        (here / "mine.py").write_text(USER_CODE)
        yield here


def run(line: str) -> dict[str, Any]:
    """Run a command line; its metrics.

    Raises:
        SdegenError: With what it says, where it is not done.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(shlex.split(line))
    if status:
        raise sg.SdegenError(err.getvalue())
    assert err.getvalue() == "", err.getvalue()
    metrics: dict[str, Any] = json.loads(Path(out.getvalue().split()[-1], METRICS).read_text())
    assert metrics["status"] == "complete"
    return metrics


def command(*lines: str | Callable[[], object]) -> dict[str, Any]:
    """Run command lines one after the other in one folder; the metrics of the last."""
    metrics: dict[str, Any] = {}
    with folder():
        for line in lines:
            if isinstance(line, str):
                metrics = run(line)
            else:
                line()
    return metrics


@functools.cache
def digits() -> Path:
    """Return the run folder of a tiny network of digits and their classes."""
    kept = Path(tempfile.mkdtemp(), "digits")
    atexit.register(shutil.rmtree, kept.parent, ignore_errors=True)
    with folder() as here:
        run(
            "train --data digits --classes --width 8 --depth 1 --steps 2 --batch-size 8 "
            "--seed 0 --out digits"
        )
        shutil.copytree(here / "digits", kept)
    return kept


def inside(program: Callable[[], Any]) -> Callable[[], Any]:
    """The program, run in a folder of its own."""

    def runs() -> Any:
        with folder():
            return program()

    return runs


def patched(name: str, value: object, program: Callable[[], Any]) -> Callable[[], Any]:
    """The program, run where a name of the library means something else."""

    def runs() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(name, value)
            return program()

    return runs


def ours(program: Callable[[], Any], *kinds: type[BaseException]) -> Callable[[], Any]:
    """The program, whose error of another kind counts as one of ours; or its warning."""

    def runs() -> Any:
        try:
            return program()
        except kinds as error:
            raise sg.SdegenError(str(error)) from error

    return runs


def near(value: float, right: float, error: float) -> None:
    """Compare a number with the right one, within an error."""
    assert abs(value - right) <= error, f"{value} is not {right} to {error}"
