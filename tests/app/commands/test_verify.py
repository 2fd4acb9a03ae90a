"""sdegen verify: what is believed, right and wrong, from the command line."""

import json
import math

import pytest
import torch
from exact import normal_density

WELL = """
import math
import numpy as np
import sdegen as sg

T = 0.25

def force(x):
    return x - x**3

def sde():
    return sg.ItoProcess(force, math.sqrt(2 * T))

def right(x):
    return x**4 / 4 - x**2 / 2

def upside_down(x):
    return x**2 / 2 - x**4 / 4

def right_in_numpy(x):
    return np.asarray(x)**4 / 4 - np.asarray(x)**2 / 2

def another(x):
    return x**2 / 2

def one(x):
    return 1.0

def word(x):
    return "half"

def infinite(x):
    return right(x) / 0 * x

potential = sg.DoubleWell()
ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
free = sg.BrownianMotion()

def p(x, var=0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))):
    return np.exp(-0.5 * (np.asarray(x) - math.exp(-1))**2 / var) / math.sqrt(2 * math.pi * var)

def wide(x):
    return p(x, 0.6)

def double(x):
    return 2 * p(x)

def negative(x):
    return -p(x)
"""
QUICK = "--trajectories 1000 --substeps 200 --t1 6 --cells 200 --seed 0 --out r"
OU = "--t1 1 --mean 1 --std 0.5 --substeps 50 --low -5 --high 5"


@pytest.fixture
def verify(here, call):
    (here / "well.py").write_text(WELL)
    return lambda sde, *flags: call("verify", f"well.py:{sde}", QUICK, *flags)


def told(here):
    return json.loads((here / "r" / "certificate.json").read_text())


@pytest.mark.parametrize("name", ["right", "right_in_numpy", "potential"])
def test_the_right_potential_passes(here, verify, name):
    found = verify("sde", f"--potential well.py:{name} --temperature 0.25")
    assert (found.status, found.err) == (0, [])
    assert found.out[0].startswith("1000 trajectories follow the law that is believed")
    assert found.files == {
        "config.toml",
        "metrics.json",
        "certificate.json",
        "certificate.html",
        "certificate.safetensors",
        "certificate.png",
    }
    certificate = told(here)
    assert certificate["passed"]
    assert certificate["sentence"] == found.out[0]
    believed = certificate["checks"][3]
    assert believed["name"] == "total variation between the stationary density and e^(−U/T)"
    assert believed["value"] < 1e-12
    # the law is that of the chain at t1, long after the wells are mixed
    x, law = found.tensors["x"], found.tensors["law"][-1]
    boltzmann = torch.exp((x**2 / 2 - x**4 / 4) / 0.25)
    boltzmann = boltzmann / torch.trapezoid(boltzmann, x)
    assert 0.5 * float(torch.trapezoid((law - boltzmann).abs(), x)) < 0.02
    assert found.tensors["states"].shape == (3, 1000, 1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            "--potential well.py:upside_down --temperature 0.25",
            "in e^(U/T) with T = 0.25: the sign of U, or of the drift, is wrong.",
        ),
        (
            "--potential well.py:right --temperature 0.5",
            "in that of T = 0.25, where T = 0.5 is believed.",
        ),
        ("--potential well.py:another --temperature 0.25", "no temperature makes up for it."),
        (
            "--potential well.py:right --temperature 0.25 --t1 0.5",
            "At t = 0.5 the SDE has not settled yet: its relaxation time is 5.34; run longer.",
        ),
    ],
)
def test_a_wrong_belief_is_caught_and_named(here, verify, flags, sentence):
    found = verify("sde", flags)
    assert found.status == 1
    assert sentence in found.err[0]
    assert len(found.err) == 1
    assert found.out[0] in found.err[0]
    assert found.metrics["status"] == "failed"
    assert sentence in found.metrics["error"]
    assert not told(here)["passed"]
    assert "certificate.png" in found.files


def test_a_density_is_believed_or_not(here, verify):
    right = verify("ou", OU, "--density well.py:p")
    assert (right.status, right.err) == (0, [])
    x, law = right.tensors["x"].numpy(), right.tensors["density"][-1].numpy()
    var = 0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))
    assert abs(law - normal_density(x, math.exp(-1), var)).max() < 1e-6
    wrong = verify("ou", OU, "--density well.py:wide --overwrite")
    assert wrong.status == 1
    assert "its standard deviation 0.6828 where 0.7746 is." in wrong.err[0]


def test_a_step_too_long_is_no_bad_request(verify):
    found = verify("sde", "--substeps 30")
    assert found.status == 1
    assert "The step is too long: with dt = 0.1" in found.err[0]


def test_a_run_repeats_bit_for_bit(here, verify, call):
    first = verify("sde", "--potential well.py:right --temperature 0.25")
    again = call("run", "r/config.toml", "--out", "again")
    assert again.status == 0
    assert all(again.tensors[name].equal(value) for name, value in first.tensors.items())


@pytest.mark.parametrize(
    ("sde", "flags", "refusal"),
    [
        ("sde", "--potential well.py:ou", "is a OrnsteinUhlenbeck; expected a Potential, or a"),
        ("sde", "--potential well.py:T", "is a float; expected a Potential, or a function U(x)."),
        ("sde", "--potential well.py:one", "one number for each x, but returned shape ()"),
        ("sde", "--potential well.py:word", "one number for each x, but returned a str."),
        ("sde", "--potential well.py:infinite", "one finite energy for each x on [-2."),
        ("sde", "--potential well.py:u", "well.py has no 'u'; there is ou."),
        ("sde", "--potential x**4", "potential must be file.py:name or module:name, but is"),
        ("ou", f"{OU} --density well.py:T", "is a float; expected a Density, or a function p(x)."),
        ("ou", f"{OU} --density well.py:double", "density must have mass 1, but has 2 on [-5, 5]"),
        ("ou", f"{OU} --density well.py:negative", "density must be finite and ≥ 0, but reaches"),
        ("sde", "--temperature 0", "temperature must be finite and > 0, but is 0."),
        ("sde", "--low 0", "low and high go together; pass both, or neither."),
        ("sde", "--low 1 --high 0", "low must be below high = 0, but is 1."),
        ("sde", "--trajectories 10", "trajectories must be ≥ 100, but is 10."),
        ("sde", "--false-alarm 1", "false_alarm must lie in (0, 1), but is 1."),
        ("sde", "--t1 0", "t1 must exceed t0 = 0, but is 0."),
        ("free", "", "there is no stationary density"),
        ("free", "", "Give the ends of the grid: pass --low and --high."),
    ],
)
def test_refusals(verify, here, sde, flags, refusal):
    found = verify(sde, flags)
    assert (found.status, found.out, len(found.err)) == (2, [], 1)
    assert refusal in found.err[0]
    assert not (here / "r").exists()


def test_without_an_sde_it_is_asked_for(call):
    found = call("verify")
    assert (found.status, found.err) == (
        2,
        [
            "sdegen verify: file.py:name of an SDE, or a file of stored states, is missing; see "
            "sdegen verify --help."
        ],
    )
