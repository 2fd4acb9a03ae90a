"""README: as short as it says, its programs run as written, its links lead somewhere."""

import math
import re
from pathlib import Path

import pytest
import torch

import sdegen as sg

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
NAMES = (
    "VP, VE, sub-VP, DDPM, DDIM, EDM, flow matching, torchsde, torchdiffeq, Fokker–Planck, BAOAB, "
    "first passage, cosine β, U-Net, timesteps, DPM-Solver, UniPC, ELBO, VAE, Langevin, Milstein, "
    "diffusers, probability flow"
)


def run(program, **names):
    exec(compile(program, "README.md", "exec"), names)
    return names


def test_it_is_short():
    lines = PAGE.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 110] == []


@pytest.mark.parametrize("name", NAMES.split(", "))
def test_what_the_field_looks_for_is_named(name):
    assert name in PAGE


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)|^\[[^\]]+\]: (.+)$", PAGE, flags=re.MULTILINE)
    files = [ROOT / (one or other) for one, other in links]
    assert len(files) > 20
    assert [file for file in files if not file.exists()] == []
    assert set(re.findall(r"\[([^\]]+)\] \|$", PAGE, flags=re.MULTILINE)) == set(
        re.findall(r"^\[([^\]]+)\]: ", PAGE, flags=re.MULTILINE)
    )


def test_a_drift_of_your_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run(PROGRAMS[0])
    # 20,000 particles in the bins of the density: its floor is the mean of that distance, whose
    # scatter is under a tenth of it; Euler's step adds less than that
    floor = sg.metrics.total_variation_floor(names["density"].at(100), 20_000)
    assert abs(float(capsys.readouterr().out) / floor - 1) < 0.5
    assert (tmp_path / "double_well.png").stat().st_size > 10_000


def test_a_diffusion_model(capsys):
    program = PROGRAMS[1]
    for size, smaller in (
        ("steps=5_000", "steps=150"),
        ("(4096, 2)", "(512, 2)"),
        ("[:256]", "[:16]"),
    ):
        assert program.count(size) == 1
        program = program.replace(size, smaller)
    names = run(program, sg=sg, torch=torch)
    nfe, distance = capsys.readouterr().out.splitlines()[0].split()
    assert int(nfe) == 200
    # noise itself is 0.9 off, a trained network 0.04: of 150 steps at most half of the first
    assert float(distance) < 0.45
    # both draw from what one network has learned, with spreads below 1: means of 512 agree to
    # 5 standard errors, once in 10⁶, and the difference of 200 and 1,000 steps
    apart = (names["ddpm"].final.mean(0) - names["out"].final.mean(0)).abs().max()
    assert float(apart) < 0.3


def test_a_verdict(capsys):
    names = run(PROGRAMS[2])
    assert capsys.readouterr().out == "noise variance half\n"
    assert not names["certificate"].passed
    assert math.isfinite(names["certificate"].diagnosis.odds)
