"""Advice of the command line, followed there: flags, folders, files of the user's own."""

import math
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import torch

from sdegen.storage import load_tensors
from tests.cures.places import command, digits, folder, near, run

_SIMULATE = "simulate --sde mine.py:ou --dtype float64 --seed 0 --trajectories 4000 --points 6 "
_TRAIN = "train --samples 100 --width 8 --depth 1 --steps 3 --batch-size 8 --seed 0 "
_MEAN = math.exp(-1.0)  # of the process from 1, at t = 1
_STEPPED = 0.8**5  # the same of its five steps
_SURE = 4.4 / math.sqrt(4000)


def _simulated(flags, mean=None, sde="ou", x0="1"):
    """A run between t = 0 and 1, whose mean is the given one, to 4.4 standard errors."""
    found = command(_SIMULATE.replace(":ou", f":{sde}") + f"--x0 {x0} {flags}")
    if mean is not None:  # a step of 0.01 moves it by 0.002
        near(found["mean"][0], mean, _SURE + 0.002)
    return found


def _resumed():
    first = command(f"{_TRAIN} --out r")
    again = command(f"{_TRAIN} --out r", "train --resume r")
    assert again["loss"] == first["loss"]


def _sampled(flags, model=None):
    found = command(f"sample --model {model or digits()} --samples 3 --steps 3 --seed 0 {flags}")
    assert found["samples"] == 3
    return found


def _guided():
    """One step is linear in the score: with w = 1 it ends at 2 x(label) − x(all)."""
    ends = []
    for flags in ("--label 3 --guidance 1", "--label 3", ""):
        with folder():
            run(f"sample --model {digits()} --samples 3 --steps 1 --seed 0 --out r {flags}")
            ends.append(load_tensors("r/samples.safetensors")[0]["samples"])
    guided, labelled, plain = ends
    assert not torch.equal(labelled, plain)
    torch.testing.assert_close(guided, 2 * labelled - plain, rtol=1e-4, atol=1e-4)


def _changed():
    Path("mine.py").write_text(Path("mine.py").read_text() + "\n")


def _taken_out():
    lines = Path("r/config.toml").read_text().splitlines()
    Path("c.toml").write_text("\n".join(line for line in lines if 'mine.py" =' not in line))


def _linked():
    Path("elsewhere").mkdir()
    Path("sub").mkdir()
    os.symlink(Path("elsewhere").resolve(), "sub/out")
    os.chdir("sub")


def _other_files():
    Path("r").mkdir()
    Path("r/notes.txt").write_text("mine")


class _Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, zone=None):
        return cls(2026, 1, 1, 12, tzinfo=zone)


def _a_full_second(line):
    """Of 999 runs of one second, or of two here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdegen.app.runs.datetime", _Noon)
        patch.setattr("sdegen.app.runs.range", lambda *ends: range(1, 3), raising=False)
        return command(_SIMULATE, _SIMULATE, line)


def _compared(found):
    """Particles are as far from the density as exact ones would be."""
    assert found["total_variation"] < 2 * found["total_variation_floor"]


def _overwritten(flags):
    other = command(_SIMULATE + "--seed 1")
    found = command(_SIMULATE + "--out r", f"{_SIMULATE}--seed 1 {flags}")
    assert found["mean"] == other["mean"]


def _passed(flags):
    """The chance that Brownian motion from 0 has not reached 1 by t = 1 is erf(1/√2)."""
    found = _simulated(f"--observables first-passage {flags}", sde="brownian", x0="0")
    near(found["survival"], math.erf(0.5**0.5), 0.5 * _SURE)


def _uniform_between_walls():
    """Reflected between 0 and 2, a Brownian motion is spread evenly soon."""
    flags = "--boundary no-flux --low 0 --high 2 --t1 5 --substeps 50"
    found = _simulated(flags, sde="brownian")
    near(found["mean"][0], 1.0, _SURE / math.sqrt(3.0))
    near(found["std"][0], 1 / math.sqrt(3.0), _SURE / math.sqrt(3.0))


def _certified(flags, sde="ou"):
    found = command(
        f"verify mine.py:{sde} --trajectories 200 --t1 1 --points 2 --substeps 50 --seed 0 "
        f"--cells 200 {flags}"
    )
    assert found["checks"] > 5


def _absolute(*before):
    with folder() as there:
        line = f"{_SIMULATE}--out {there / 'run'}".replace("mine.py", f"{there}/mine.py")
        command(*before, line)
        assert (there / "run" / "trajectory.safetensors").is_file()


def _without_metrics():
    shutil.copy(digits() / "model.safetensors", "m.safetensors")


def _of_a_changed_file(*lines):
    return command(_SIMULATE + "--out r", _changed, *lines)


def _best():
    found = command(f"{_TRAIN} --keep best --validate-every 1 --validation 1000")
    assert 1 <= found["selected_step"] <= 3
    assert found["validation_loss"] > 0


FOLLOWED = {
    # --- what is simulated
    "an SDE with noise of its own": (
        "is an SDE with a diffusion of its own; leave --diffusion",
        lambda: _simulated("--diffusion 1"),
        lambda: _simulated("--substeps 20", _MEAN),
    ),
    "a drift without noise": (
        "takes arguments, as a drift does; give its noise with",
        lambda: _simulated("", sde="drift"),
        lambda: (
            _simulated("--substeps 20 --diffusion 0.7", _MEAN, sde="drift"),
            _simulated("--substeps 20 --diffusion mine.py:noise", _MEAN, sde="drift"),
            _simulated("--substeps 20", _MEAN, sde="makes"),
        ),
    ),
    "a formula in the place of a name": (
        "nothing in it is evaluated: put the formula into a function",
        lambda: command("simulate --sde x-x**3"),
        lambda: _simulated("--substeps 20 --diffusion 0.5", _MEAN, sde="drift"),
    ),
    "no GPU": (
        "no CUDA device; pass --device cpu",
        lambda: _simulated("--device cuda"),
        lambda: _simulated("--device cpu --substeps 20", _MEAN),
    ),
    "no start": (
        "x0 must have one number for each coordinate, but has none",
        lambda: _simulated("", x0=""),
        lambda: near(_simulated("", x0="0")["mean"][0], 0.0, 0.22),
    ),
    "walls without ends": (
        r"boundary = \{\} needs low and high",
        lambda: _simulated("--boundary no-flux"),
        _uniform_between_walls,
    ),
    "a density at the last time alone": (
        "fokker_planck is compared at all times; leave --last-only",
        lambda: _simulated("--fokker-planck --low -6 --high 6 --last-only"),
        lambda: _compared(_simulated("--fokker-planck --low -6 --high 6 --substeps 20")),
    ),
    "a density without a grid": (
        "fokker_planck needs low and high, the ends of its grid",
        lambda: _simulated("--fokker-planck"),
        lambda: _compared(_simulated("--fokker-planck --low -6 --high 6 --substeps 20")),
    ),
    "a density beside a store": (
        "fokker_planck is compared with trajectories in memory",
        lambda: _simulated("--fokker-planck --low -6 --high 6 --observables moments"),
        lambda: _compared(_simulated("--fokker-planck --low -6 --high 6 --substeps 20")),
    ),
    "a density in the plane": (
        "fokker_planck is for one-dimensional states, but x0 has",
        lambda: _simulated("--fokker-planck --low -6 --high 6", x0="1 1"),
        lambda: _simulated("--low -6 --high 6 --substeps 20", _MEAN, x0="1 1"),
    ),
    "no store to go on with": (
        "resume goes on with a store; pass --store with it",
        lambda: _simulated("--resume"),
        lambda: _simulated("--resume --store run.zarr --observables moments", _STEPPED),
    ),
    "a histogram without ends": (
        r"observables: \{\} needs low and high",
        lambda: _simulated("--observables histogram"),
        lambda: _simulated("--observables histogram moments --low -6 --high 6", _STEPPED),
    ),
    "a region without a passage": (
        "above and below are the region of first-passage",
        lambda: _simulated("--above 1 --observables moments"),
        lambda: (
            _passed("--above 1"),
            _passed("--below -1"),
            _passed("--between 1 40"),
        ),
    ),
    # --- what is learned and drawn
    "a run of another command": (
        r"resume = \{\} holds a run of \{\}, not of train",
        lambda: command(_SIMULATE + "--out r", "train --resume r"),
        _resumed,
    ),
    "no model": (
        "name a model.safetensors, or the run folder of sdegen train",
        lambda: _sampled("", "absent"),
        lambda: (_sampled(""), _sampled("", f"{digits()}/model.safetensors")),
    ),
    "a model without its metrics": (
        "does not tell the shape of one sample; say it, --shape 2",
        lambda: command(_without_metrics, "sample --model m.safetensors"),
        lambda: command(
            _without_metrics,
            "sample --model m.safetensors --shape 1 8 8 --samples 3 --steps 3",
        ),
    ),
    "no shape": (
        "shape must have at least one number; pass --shape 2",
        lambda: _sampled("--shape"),
        lambda: _sampled("--shape 1 8 8"),
    ),
    "guidance towards nothing": (
        "guidance overstates a class; say which, --label 3",
        lambda: _sampled("--guidance 1"),
        _guided,
    ),
    "a U-Net for points": (
        r"network = 'unet' takes images of shape \(channels",
        lambda: command(f"{_TRAIN} --network unet"),
        lambda: command(f"{_TRAIN} --network mlp"),
    ),
    "the best of no validation, as a flag": (
        "keep = 'best' asks for the best weights on validation data",
        lambda: command(f"{_TRAIN} --keep best"),
        _best,
    ),
    "labels that are not there": (
        r"\{\} has no labels; leave --classes out",
        lambda: command(f"{_TRAIN} --classes"),
        lambda: (
            near(command(f"{_TRAIN} --data digits --classes")["classes"], 10, 0),
            near(command(_TRAIN)["classes"], 0, 0),
        ),
    ),
    # --- what is certified
    "one end of a grid": (
        "low and high go together; pass both, or neither",
        lambda: command("verify mine.py:ou --low -5"),
        lambda: (_certified("--low -6 --high 6"), _certified("")),
    ),
    "no density at rest to find a grid by": (
        r"Give the ends of the grid: pass --low and --high",
        lambda: _certified("", "brownian"),
        lambda: _certified("--low -6 --high 6", "brownian"),
    ),
    # --- folders
    "a file that has changed": (
        "is not what it was in the recorded run: its sha256",
        lambda: _of_a_changed_file("run r/config.toml --out again"),
        lambda: near(
            _of_a_changed_file(_taken_out, "run c.toml --out again")["mean"][0],
            command(_SIMULATE)["mean"][0],
            0.0,
        ),
    ),
    "odd characters": (
        r"has odd characters in \{\}; use letters",
        lambda: command(_SIMULATE + "--out 'a b'"),
        lambda: command(_SIMULATE + "--out a_b-c.2"),
    ),
    "the current folder": (
        "is the current folder; name one inside it",
        lambda: command(_SIMULATE + "--out ."),
        lambda: command(_SIMULATE + "--out inside"),
    ),
    "a folder behind a link": (
        "leaves the current folder by a link, to",
        lambda: command(_linked, _SIMULATE.replace("mine.py", "../mine.py") + "--out out"),
        lambda: _absolute(_linked),
    ),
    "a folder above": (
        "leaves the current folder; give an absolute path",
        lambda: command(_SIMULATE + "--out ../x"),
        lambda: _absolute(),
    ),
    "a second with too many runs": (
        "has too many runs of this second; pass --out",
        lambda: _a_full_second(_SIMULATE),
        lambda: _a_full_second(_SIMULATE + "--out other"),
    ),
    "an earlier run": (
        "has files in it; pass --overwrite to replace the run there",
        lambda: command(_SIMULATE + "--out r", _SIMULATE + "--out r"),
        lambda: (_overwritten("--out r --overwrite"), _overwritten("--out s")),
    ),
    "a folder that is no run": (
        "so that it is no earlier run: it is not overwritten",
        lambda: command(_other_files, _SIMULATE + "--out r --overwrite"),
        lambda: command(_other_files, _SIMULATE + "--out s"),
    ),
}
