"""The command line: help without torch, refusals in one line, and runs that repeat bit for bit."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from waiting import wait_for

import sdegen as sg
from sdegen.app.cli import main
from sdegen.app.configs import commands
from sdegen.app.runs import write_metrics
from sdegen.storage import load_tensors

COMMANDS = [
    "simulate",
    "fokker-planck",
    "explore",
    "verify",
    "verify-states",
    "train",
    "sample",
    "likelihood",
    "demo",
    "run",
]
WELL = """
import torch
import sdegen as sg

def drift(x, t):
    return x - x**3

def noise(x):
    return 0.5 + 0.1 * x**2

def makes():
    return sg.OrnsteinUhlenbeck(rate=2.0, sigma=1.0)

def nothing():
    return {}

def explodes(x, t):
    return x**3

def raises(x, t):
    raise ValueError("an error of the user")

well = sg.ItoProcess(drift=drift, diffusion=0.7)
seven = 7
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sdegen.app.user_code._LOADED", {})
    (tmp_path / "well.py").write_text(WELL)
    return tmp_path


@pytest.fixture
def call(here, capsys):
    """Runs a command line; gives its status, the lines of stdout and those of stderr."""

    def call(*arguments):
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return status, told.out.splitlines(), told.err.splitlines()

    return call


def results(folder):
    """sha256 of each result of a run."""
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)]
)
def test_help_waits_for_nothing_heavy(arguments):
    program = (
        "import sys; from sdegen.app.cli import main; status = main(sys.argv[1:]); heavy = "
        "{'torch', 'numpy', 'scipy', 'matplotlib', 'torchsde', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("sdegen 0" if arguments == ["--version"] else "usage: sdegen")


def test_the_overview_names_every_command(call):
    status, out, err = call("--help")
    assert (status, err) == (0, [])
    assert [line.split()[0] for line in out if line.startswith("  ")] == COMMANDS


def test_every_option_is_explained(call):
    for command, kind in commands.COMMANDS.items():
        _, out, _ = call(command, "--help")
        text = " ".join(" ".join(line.strip("│| ") for line in out).split())
        for field in dataclasses.fields(kind):
            option = "--" + field.name.replace("_", "-")
            if (command, field.name) in (("verify", "sde"), ("verify-states", "states")):
                option = "STR"  # comes first, without a flag
            if field.default is True:
                option = option.replace("--", "--no-", 1)  # what changes it
            explained = re.search(
                rf"{option}( [^a-z ]+| {{\S+( \S+)?}}| \[[^]]+\]+)? ([A-Z]|\S+[ :(])", text
            )
            assert explained, f"{command} {option}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            [],
            r"sdegen: no command is given; the commands are simulate, .*, run. See sdegen --help.",
        ),
        (
            ["simlate"],
            "sdegen: there is no command 'simlate'; did you mean simulate? See sdegen --help.",
        ),
        (["simulate"], "sdegen simulate: --sde is missing; see sdegen simulate --help."),
        (["run"], "sdegen run: the config.toml is missing; see sdegen run --help."),
        (
            ["simulate", "--sde", "well.py:well", "--trajectoris", "3"],
            "sdegen simulate: Unrecognized options: --trajectoris, 3; did you mean "
            "--trajectories?",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--points", "many"],
            "sdegen simulate: Error parsing --points: invalid literal for int() with base 10: "
            "'many'",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--solver", "rk4"],
            "sdegen simulate: invalid choice 'rk4' for argument '--solver'. Expected one of",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--points", "1"],
            "sdegen simulate: points must be ≥ 2, but is 1.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--x0", "nan"],
            "sdegen simulate: x0 must be finite, but is nan.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--seed", "-1"],
            "seed must lie in [0, 2**63), but is -1.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--threads", "0"],
            "threads must be ≥ 1, but is 0.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--boundary", "no-flux", "--low", "0"],
            "sdegen simulate: boundary = 'no-flux' needs low and high; pass --low and --high.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--boundary", "brick"],
            "sdegen simulate: boundary must be one of 'no-flux', 'absorbing', 'periodic', or "
            "file.py:Class of a boundary of your own, but is 'brick'.",
        ),
        (["simulate", "--sde", "well.py:wel"], "/well.py has no 'wel'; there is well."),
        (
            ["simulate", "--sde", "x - x**3"],
            "sdegen simulate: sde must be file.py:name or module:name, but is 'x - x**3'",
        ),
        (
            ["simulate", "--sde", "well.py:drift"],
            "takes arguments, as a drift does; give its noise with --diffusion, say "
            "--diffusion 0.7",
        ),
        (
            ["simulate", "--sde", "well.py:drift", "--diffusion", "0.1*x"],
            "diffusion must be a number, file.py:name or module:name, but is '0.1*x'; no "
            "formula is evaluated.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--diffusion", "1"],
            "is an SDE with a diffusion of its own; leave --diffusion out.",
        ),
        (["simulate", "--sde", "well.py:seven"], "well.py:seven' is a int; expected an SDE"),
        (
            ["simulate", "--sde", "well.py:nothing"],
            "well.py:nothing' returned a dict, not an SDE.",
        ),
        (
            ["simulate", "--sde", "well.py:drift", "--diffusion", "-1"],
            "diffusion must be finite and ≥ 0, but is -1.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--device", "gpu"],
            "device must be 'cpu', 'cuda' or 'cuda:1', but is 'gpu'.",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--t0", "1", "--t1", "0"],
            "times decrease, but ItoProcess is a noisy SDE meant for increasing time",
        ),
        (
            [
                "simulate",
                "--sde",
                "well.py:well",
                "--x0",
                "9",
                "--boundary",
                "no-flux",
                "--low",
                "0",
                "--high",
                "1",
            ],
            "x0 must start inside the boundary [0, 1], but spans 9 … 9; start it inside",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--out", "../x"],
            "out = '../x' leaves the current folder",
        ),
        (
            ["simulate", "--sde", "well.py:well", "--out", "a b"],
            "out = 'a b' has odd characters in 'a b'",
        ),
        (["run", "absent.toml"], "sdegen run: there is no file absent.toml."),
        (["train", "--resume", "absent"], "sdegen train: there is no file absent/config.toml."),
    ],
)
def test_a_bad_request_is_one_line_and_leaves_nothing(here, call, arguments, told):
    status, out, err = call(*arguments)
    assert status == 2
    assert out == []
    assert len(err) == 1, err
    assert told in err[0] or re.fullmatch(told, err[0])
    left = [p for p in here.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert left == [here / "well.py"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(call):
    status, _, err = call("simulate", "--sde", "well.py:well", "--device", "cuda")
    assert (status, err) == (2, ["sdegen simulate: no CUDA device; pass --device cpu."])


def test_a_numerical_failure_keeps_what_was_done(here, call):
    """dx = x³ dt from 2 reaches infinity at t = 1/8."""
    arguments = ["--diffusion", 0, "--x0", 2, "--t1", 1, "--points", 201, "--dtype", "float64"]
    status, out, err = call("simulate", "--sde", "well.py:explodes", *arguments, "--out", "r")
    assert status == 1
    assert out[-1] == "r"
    assert len(err) == 1
    assert "1000 of 1000 trajectories non-finite by t = " in err[0]
    tensors, _ = load_tensors(here / "r" / "trajectory.safetensors")
    assert tensors["states"].isfinite().all()
    # before 1/8 the exact solution, 1/√(1/4 − 2t), to first order in dt = 0.005
    k = 10
    exact = (0.25 - 2 * tensors["times"][k]) ** -0.5
    assert float(tensors["states"][k, 0]) == pytest.approx(float(exact), rel=0.05)
    metrics = json.loads((here / "r" / "metrics.json").read_text())
    assert metrics["status"] == "failed"
    assert "non-finite" in metrics["error"]


def test_an_error_of_the_user_keeps_its_traceback(here, call):
    status, _, err = call("simulate", "--sde", "well.py:raises", "--diffusion", 1, "--out", "r")
    text = "\n".join(err)
    assert status == 1
    assert "Traceback (most recent call last):" in text
    assert f'{here}/well.py", line ' in text
    assert "ValueError: an error of the user" in text


def test_a_run_folder_holds_all_and_repeats_bit_for_bit(here, call):
    status, out, err = call(
        "simulate",
            "--sde", "well.py:drift", "--diffusion", "well.py:noise", "--x0", -1, "--x0-std", 0.2,
        "--trajectories", 300, "--points", 11,
    )  # fmt: skip
    assert (status, err) == (0, [])
    folder = here / out[-1]
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.toml", "metrics.json", "trajectory.safetensors", "trajectory.png"}
    config = (folder / "config.toml").read_text()
    assert f'sde = "{here}/well.py:drift"' in config
    assert f'"{here}/well.py" = "{hashlib.sha256(WELL.encode()).hexdigest()}"' in config
    assert "\nseed = " in config
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "complete"
    assert metrics["nfe"] == 10
    assert f"seed = {metrics['seed']}\n" in config

    status, out, err = call("run", folder / "config.toml", "--out", "again")
    assert (status, out[-1], err) == (0, "again", [])
    assert results(here / "again") == results(folder)
    assert (here / "again" / "config.toml").read_bytes() == (folder / "config.toml").read_bytes()

    # another seed is another path, so that the equality above says something
    other = config.replace(f"seed = {metrics['seed']}", "seed = 12345")
    (here / "other.toml").write_text(other)
    assert call("run", "other.toml", "--out", "other")[0] == 0
    assert results(here / "other") != results(folder)


def test_a_repetition_refuses_inputs_that_have_changed(here, call):
    assert call("simulate", "--sde", "well.py:well", "--trajectories", 5, "--out", "r")[0] == 0
    (here / "well.py").write_text(WELL.replace("0.7", "0.8"))
    status, _, err = call("run", "r/config.toml", "--out", "again")
    assert status == 2
    assert "well.py is not what it was in the recorded run: its sha256 differs" in err[0]
    config = (here / "r" / "config.toml").read_text()
    (here / "new.toml").write_text(
        "\n".join(line for line in config.splitlines() if 'well.py" =' not in line)
    )
    assert call("run", "new.toml", "--out", "again")[0] == 0


def test_a_repetition_tells_of_other_packages(here, call):
    assert call("simulate", "--sde", "well.py:well", "--trajectories", 5, "--out", "r")[0] == 0
    config = (here / "r" / "config.toml").read_text()
    (here / "old.toml").write_text(
        config.replace(f'torch = "{torch.__version__}"', 'torch = "1.0"')
    )
    status, _, err = call("run", "old.toml", "--out", "again")
    assert status == 0
    assert err == [
        f"sdegen simulate: note: recorded with torch 1.0, this is {torch.__version__}; the bits "
        "may differ."
    ]


def test_an_unknown_key_is_told_with_its_line(here, call):
    (here / "c.toml").write_text('command = "simulate"\nsde = "well.py:well"\n\ntrajectoris = 5\n')
    status, out, err = call("run", "c.toml")
    assert (status, out) == (2, [])
    assert err == [
        "sdegen run: c.toml, line 4: simulate has no key 'trajectoris'; did you mean "
        "'trajectories'?"
    ]


def test_a_folder_with_files_needs_overwrite(here, call):
    line = ["simulate", "--sde", "well.py:well", "--trajectories", 5, "--seed", 0, "--out", "r"]
    assert call(*line)[0] == 0
    before = results(here / "r")
    status, _, err = call(*line, "--seed", 1)
    assert status == 2
    assert (
        "r has files in it; pass --overwrite to replace the run there, or another --out." in err[0]
    )
    assert results(here / "r") == before
    assert call(*line, "--seed", 1, "--overwrite")[0] == 0
    assert results(here / "r") != before


def test_a_process_gives_the_same_bits_and_prints_its_folder_last(here, call, programs):
    line = ["simulate", "--sde", "well.py:well", "--trajectories", "50", "--seed", "4", "--out"]
    assert call(*line, "inside")[0] == 0
    threads = str(torch.get_num_threads())
    done = programs.start(*line, "outside", module="sdegen", OMP_NUM_THREADS=threads)
    out, err = done.communicate()
    assert (done.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "outside"
    assert results(here / "inside") == results(here / "outside")


SLOW = """
import time, sdegen as sg

def drift(x, t):
    if len(x) < 1000:  # a pilot
        return -x
    time.sleep(0.02)
    if t > 0.05:
        open("begun", "a").close()
    return -x

ou = sg.ItoProcess(drift=drift, diffusion=1.0)
"""


# the second step goes on until a first Ctrl-C is held back, and then for an hour
STUCK = SLOW.replace(
    "close()\n",
    """close()
        while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            time.sleep(0.01)
        open("heard", "a").close()
        time.sleep(3600)
        open("slept", "a").close()
""",
).replace("import time", "import signal, time")


def interrupted(programs, arguments, here, *after):
    """Sends Ctrl-C to a run once there is a file, and again after each other: status and words."""
    process = programs.start(*arguments, module="sdegen")
    for name in ("begun", *after):
        wait_for((here / name).exists, process)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    return process.returncode, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("solver", ["euler-maruyama", "torchsde-euler"])
def test_ctrl_c_ends_the_step_and_saves_what_is_done(programs, here, solver):
    """20,000 steps of 0.02 s would take 400 s."""
    (here / "slow.py").write_text(SLOW)
    line = ["simulate", "--sde", "slow.py:ou", "--points", "20001", "--t1", "200", "--seed", "0"]
    line += ["--solver", solver, "--out", "r"]
    status, out, err = interrupted(programs, line, here)
    assert (status, out[-1]) == (130, "r")
    assert err == ["sdegen simulate: interrupted; what is done is in r."]
    tensors, _ = load_tensors(here / "r" / "trajectory.safetensors")
    done = len(tensors["times"])
    assert 2 <= done < 2000  # the step that it was in, and not those of 400 s
    assert json.loads((here / "r" / "metrics.json").read_text())["status"] == "interrupted"

    # what was saved is the beginning of the run that was not cut
    times = torch.linspace(0, 200, 20001, dtype=torch.float64)[:done]
    sde = sg.ItoProcess(drift=lambda x: -x, diffusion=1.0)
    same = sg.TorchSDE("euler") if solver == "torchsde-euler" else sg.EulerMaruyama()
    whole = sg.simulate(sde, torch.zeros(1000, 1), times, solver=same, rng=0)
    assert torch.equal(whole.states, tensors["states"])


def test_a_second_ctrl_c_leaves_at_once(programs, here):
    """The drift sleeps for an hour in a step; a first Ctrl-C waits for it."""
    (here / "slow.py").write_text(STUCK)
    line = ["simulate", "--sde", "slow.py:ou", "--seed", "0", "--out", "r"]
    status, _, _ = interrupted(programs, line, here, "heard")
    assert status == 130
    assert not (here / "slept").exists()


def test_ctrl_c_before_the_first_step(programs, here):
    slow = (
        "import time\nopen('begun', 'w').close()\ntime.sleep(3600)\nopen('slept', 'w').close()\n"
    )
    (here / "slow.py").write_text(slow)
    status, out, err = interrupted(programs, ["simulate", "--sde", "slow.py:ou"], here)
    assert (status, out, err) == (130, [], ["sdegen simulate: interrupted."])
    assert not (here / "slept").exists()
    assert list(here.glob("runs/*")) == []


def test_a_full_disk_is_told_once(here, call, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status, _, err = call("simulate", "--sde", "well.py:well", "--out", "r")
    assert status == 1
    assert len(err) == 1
    assert re.search(r"No space left on device: [\d,]+ bytes were needed, [\d,]+ are free", err[0])
    assert not (here / "r").exists()


def test_help_does_not_fail_on_a_terminal_without_greek(here):
    done = subprocess.run(
        [sys.executable, "-m", "sdegen", "simulate", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "a number ? ?" in done.stdout


def test_the_demo_leads_to_its_report(here, call, monkeypatch):
    """The demonstration itself is tested in tests/demo; here, that its config arrives."""

    def run_demo(config, folder, *, progress):
        (folder / "report.html").write_text("")
        write_metrics(folder, {"claims_made": 3, "quick": config.quick, "with_seed": config.seed})

    monkeypatch.setattr("sdegen.app.commands.demo.run_demo", run_demo)
    status, out, err = call("demo", "--quick", "--seed", 7, "--out", "r")
    assert (status, err) == (0, [])
    assert out[-1] == "r/report.html"
    metrics = json.loads((here / "r" / "metrics.json").read_text())
    assert metrics.pop("seconds") >= 0
    told = {"claims_made": 3, "quick": True, "with_seed": 7}
    assert metrics == {"command": "demo", "status": "complete", **told}
    assert 'command = "demo"' in (here / "r" / "config.toml").read_text()
