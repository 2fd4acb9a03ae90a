"""sdegen verify FILE: states that any program stored, right and wrong, from the command line."""

import json
import re

import numpy as np
import pytest

THEIRS = """
import torch
import sdegen as sg

ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
hot = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.3)
walk = sg.BrownianMotion()
trap = sg.UnderdampedLangevin(sg.Quadratic())

def drift(x):
    return -x

def narrow(x):
    return x[:, :1]

half = sg.ItoProcess(lambda x: -x * torch.tensor([0.0, 1.0], dtype=x.dtype), 1.0)

def raises(x):
    raise ValueError("an error of the user")

def three(x):
    return x @ torch.eye(3, dtype=x.dtype)
"""


def walked(steps=400, batch=20, d=2, pull=1.0, dt=0.01):
    """Euler–Maruyama in NumPy."""
    rng = np.random.default_rng(0)
    x = np.zeros((steps + 1, batch, d))
    for k in range(steps):
        z = rng.standard_normal((batch, d))
        x[k + 1] = x[k] - pull * x[k] * dt + np.sqrt(dt) * z
    return x


@pytest.fixture
def judge(here, call):
    """Stores states, and judges them."""
    (here / "theirs.py").write_text(THEIRS)
    np.save(here / "traj.npy", walked())
    return lambda *words: call("verify", *words)


def certificate(here):
    return json.loads((here / "r" / "certificate.json").read_text())


def test_right_states_pass_and_leave_a_page(here, judge):
    found = judge("traj.npy --sde theirs.py:ou --dt 0.01 --out r")
    assert (found.status, found.err) == (0, [])
    assert found.out[0].startswith("400 steps of 20 trajectories follow the SDE")
    names = {f"certificate.{kind}" for kind in ("json", "html", "png")}
    assert found.files == names | {"config.toml", "metrics.json"}
    record = certificate(here)
    assert record["passed"]
    assert record["sentence"] == found.out[0]
    assert record["judged"]["shortest_step"] == pytest.approx(0.01)
    assert found.metrics["p_value"] == record["p_value"]
    page = (here / "r" / "certificate.html").read_text()
    assert found.out[0] in page
    assert "data:image/png;base64," in page
    assert not re.search(r"<script|https?://", page)  # nothing is fetched
    again = judge("traj.npy --sde theirs.py:drift --diffusion 1.0 --dt 0.01 --out again")
    assert again.metrics["p_value"] == record["p_value"]


def test_wrong_states_are_refused_with_the_reason(here, judge, call):
    found = judge("--sde theirs.py:hot traj.npy --dt 0.01 --out r")
    assert found.status == 1
    assert len(found.err) == 1
    assert found.err[0].startswith("sdegen verify-states: 400 steps of 20 trajectories do not")
    assert "variance of the noise" in found.err[0]
    assert found.metrics["status"] == "failed"
    assert not certificate(here)["passed"]
    page = (here / "r" / "certificate.html").read_text()
    assert "✗ failed" in page
    assert "<h2" in page
    repeated = call("run r/config.toml --out again")
    assert repeated.status == 1
    assert repeated.err == found.err


def test_the_words_of_the_command_line_reach_the_reader_and_the_solver(here, judge):
    x = walked(steps=900, batch=40, d=1, dt=0.005)[::3, :, 0]  # two thirds are not stored
    np.savez(here / "many.npz", x=x.T, other=x[:2])
    words = "many.npz --sde theirs.py:ou --dt 0.005 --solver euler-maruyama --substeps 3 --key x"
    from sdegen.app.cli import main

    layout = ["--layout", "batch, time", "--out", "r"]
    assert main(["verify", *words.split(), *layout]) == 0
    assert certificate(here)["judged"]["shortest_step"] == pytest.approx(0.015)
    np.savetxt(
        here / "table.csv",
        np.column_stack([0.01 * np.arange(401), walked()[:, 0]]),
        delimiter=",",
        header="clock,left,right",
        comments="",
    )
    found = judge(
        "table.csv --sde theirs.py:ou --times clock --columns left right --solver exact",
        "--false-alarm 1e-6 --out table",
    )
    assert found.status == 0, found.err
    record = json.loads((here / "table" / "certificate.json").read_text())
    assert (record["judged"]["event"], record["false_alarm"]) == ([2], 1e-6)


def test_walls_periods_and_units_are_said(here, judge):
    np.save(here / "ring.npy", walked(pull=0.0) % 1.0)
    ring = "ring.npy --sde theirs.py:walk --dt 0.01"
    assert judge(f"{ring} --out free").status == 1
    assert judge(f"{ring} --periods 1.0 --out ring").status == 0
    assert judge(f"{ring} --boundary periodic --low 0 --high 1 --out walls").status == 0
    half = np.stack([walked(pull=0.0)[..., 0] % 1.0, walked()[..., 1]], -1)
    np.save(here / "half.npy", half)
    wrapped = "half.npy --sde theirs.py:half --dt 0.01 --boundary periodic --low 0 --high 1"
    assert judge(f"{wrapped} --coordinate 0 --out half").status == 0
    np.save(here / "nm.npy", 10 * walked())
    assert judge("nm.npy --sde theirs.py:ou --dt 0.01 --length-unit 0.1 --out unit").status == 0


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("traj.npy --dt 0.01", "the SDE that states should follow is missing; pass --sde file.py"),
        ("--sde theirs.py:ou", "a file of stored states is missing; see sdegen verify-states --"),
        ("none.npy --sde theirs.py:ou --dt 1", "there is no file none.npy"),
        ("traj.npy --sde theirs.py:ou", "pass --dt, the step of the solver, or --times, the name"),
        ("flat.npy --sde theirs.py:ou --dt 1", "pass --layout 'time, batch' or --layout 'time, "),
        ("traj.npy --sde theirs.py:ou --dt 0", "dt must be finite and > 0, but is 0."),
        ("traj.npy --sde theirs.py:ou --dt=-1", "dt must be finite and > 0, but is -1."),
        ("traj.npy --sde theirs.py:ou --dt 1 --substeps 2", "pass --solver, say euler-maruyama."),
        (
            "traj.npy --sde theirs.py:ou --dt 1 --substeps 2 --solver exact",
            "solver = 'exact' has no substeps; leave --substeps out",
        ),
        ("traj.npy --sde theirs.py:ou --dt 1 --low 0", "boundary, low and high go together"),
        ("traj.npy --sde theirs.py:ou --dt 1 --coordinate 0", "coordinate is that of a boundary"),
        ("traj.npy --sde theirs.py:ou --dt 1 --false-alarm 1", "must lie in (0, 1), but is 1."),
        ("traj.npy --sde theirs.py:narrow --diffusion 1 --dt 1", "of shape (2,), for which the"),
        ("traj.npy --sde theirs.py:three --diffusion 1 --dt 1", "which the drift of ItoProcess"),
        ("traj.npy --sde theirs.py:ou --dt 0.01 --solver baoab", "BAOAB"),
        ("nan.npy --sde theirs.py:ou --dt 1", "nan in frame 9, trajectory 3, coordinate 1"),
        ("few.npy --sde theirs.py:ou --dt 1", "too few to say anything: with"),
        ("traj.xtc --sde theirs.py:ou --dt 1", "traj.xtc"),
    ],
)
def test_refusals(judge, here, as_user, words, refusal):
    x = walked(20, 5)
    np.save(here / "flat.npy", x[..., 0])
    np.save(here / "few.npy", x[:3])
    x[9, 3, 1] = np.nan
    np.save(here / "nan.npy", x)
    (here / "traj.xtc").write_bytes(b"\x00" * 64)
    found = judge(words, "--out r")
    assert (found.status, found.out, len(found.err)) == (2, [], 1)
    assert refusal in found.err[0]
    assert not (here / "r").exists()


def test_an_error_of_the_users_own_is_shown_whole(judge):
    found = judge("traj.npy --sde theirs.py:raises --diffusion 1 --dt 0.01")
    assert found.status == 1
    assert found.err[0].startswith("Traceback")
    assert found.err[-1] == "ValueError: an error of the user"


def test_an_sde_with_a_simulation_on_a_grid_is_verified_as_before(call):
    assert call("verify").err == [
        "sdegen verify: file.py:name of an SDE, or a file of stored states, is missing; see "
        "sdegen verify --help."
    ]
    assert "sde must be file.py:name" in call("verify theirs.py").err[0]


def test_it_is_a_program_with_an_exit_status(here, judge, programs):
    arguments = ["verify", "traj.npy", "--sde", "theirs.py:hot", "--dt", "0.01", "--out", "r"]
    program = programs.start(*arguments, module="sdegen", folder=here)
    out, err = program.communicate()
    assert program.returncode == 1, err
    assert "do not follow the SDE" in err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == "r"
