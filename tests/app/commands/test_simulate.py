"""sdegen simulate: what the flags say is what the library is asked."""

import math

import pytest
import torch
import zarr

import sdegen as sg
from sdegen.app.cli import main
from sdegen.app.commands import simulate as simulation
from sdegen.app.configs.simulate import SimulateConfig
from sdegen.core.boundary_words import of_words
from sdegen.core.noise import stream
from sdegen.engine import store_layout
from sdegen.engine.blocks import solve

OU = """
import sdegen as sg
ou = sg.OrnsteinUhlenbeck(rate=1.0, sigma=2**0.5)
ode = sg.ItoProcess(drift=lambda x, t: -x, diffusion=0.0)
brownian = sg.BrownianMotion()

def growth(x, t):
    return 0.0 * x

def proportional(x, t):
    return 0.5 * x
"""


@pytest.fixture
def simulate(here, call):
    (here / "ou.py").write_text(OU)
    return lambda sde, *flags: call("simulate", "--sde", f"ou.py:{sde}", *flags, "--overwrite")


def test_mean_and_spread_are_those_of_the_chain(simulate):
    """The law after k Euler-Maruyama steps, within 4.4 standard errors (false alarms: 1e-5 each).

    With a = 1 − dt its mean is aᵏ x0, its variance 2dt (1 − a²ᵏ)/(1 − a²) + a²ᵏ v0.
    """
    n, steps, dt = 40_000, 20, 0.05
    found = simulate(
        f"ou --x0 3 --x0-std 0.5 --trajectories {n} --points 3 --substeps 10",
        "--dtype float64 --seed 1",
    )
    a = 1 - dt
    mean = 3 * a**steps
    variance = 2 * dt * (1 - a ** (2 * steps)) / (1 - a * a) + 0.25 * a ** (2 * steps)
    assert (found.status, found.err) == (0, [])
    assert found.metrics["mean"][0] == pytest.approx(mean, abs=4.4 * math.sqrt(variance / n))
    assert found.metrics["std"][0] == pytest.approx(
        math.sqrt(variance), rel=4.4 / math.sqrt(2 * n)
    )
    assert found.metrics["nfe"] == steps
    assert found.tensors["times"].tolist() == [0.0, 0.5, 1.0]
    assert found.tensors["states"].dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "solver", "sde"),
    [
        ("euler-maruyama", sg.EulerMaruyama(substeps=2), "ou"),
        ("heun", sg.Heun(substeps=2), "ou"),
        ("milstein", sg.Milstein(substeps=2), "ou"),
        ("sra", sg.SRA(substeps=2), "ou"),
        ("dri1", sg.DRI1(substeps=2), "ou"),
        ("torchsde-euler", sg.TorchSDE("euler", substeps=2), "ou"),
        ("torchsde-milstein", sg.TorchSDE("milstein", substeps=2), "ou"),
        ("torchsde-srk", sg.TorchSDE("srk", substeps=2), "ou"),
        ("torchsde-heun", sg.TorchSDE("heun", substeps=2), "ou"),
        ("dopri5", sg.TorchDiffEq("dopri5", rtol=1e-3, atol=1e-3), "ode"),
    ],
)
def test_each_solver_is_the_one_that_is_named(simulate, name, solver, sde):
    found = simulate(
        f"{sde} --solver {name} --substeps 2 --tolerance 1e-3 --points 5 --x0 1 -2",
        "--trajectories 20 --seed 3 --dtype float64 --t1 2",
    )
    process = {
        "ou": sg.OrnsteinUhlenbeck(rate=1.0, sigma=math.sqrt(2)),
        "ode": sg.ItoProcess(drift=lambda x: -x, diffusion=0.0),
    }[sde]
    x0 = torch.tensor([1.0, -2.0], dtype=torch.float64).repeat(20, 1)
    times = torch.linspace(0, 2, 5, dtype=torch.float64)
    same = sg.simulate(process, x0, times, solver=solver, rng=3)
    assert torch.equal(found.tensors["states"], same.states)
    assert found.metrics["nfe"] == same.nfe
    assert found.files == {
        "config.toml",
        "metrics.json",
        "trajectory.safetensors",
        "trajectory.png",
    }


@pytest.mark.parametrize("kind", ["no-flux", "absorbing", "periodic"])
def test_a_boundary(simulate, kind):
    flags = f"--boundary {kind} --low -0.5 --high 0.75 --trajectories 50 --seed 0"
    found = simulate("brownian", flags)
    box = of_words(kind, -0.5, 0.75)
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    same = sg.simulate(sg.BrownianMotion(), torch.zeros(50, 1), times, boundary=box, rng=0)
    assert torch.equal(found.tensors["states"], same.states)
    assert found.tensors["states"].abs().max() <= 0.75


def test_readings_of_multiplicative_noise(simulate):
    """dX = ½X ∘_α dW from 1: E X_t = e^{αt/4}, within 4.4 standard errors and O(dt)."""
    for reading, alpha in (("ito", 0.0), ("stratonovich", 0.5), ("klimontovich", 1.0)):
        found = simulate(
            f"growth --diffusion ou.py:proportional --interpretation {reading} --x0 1",
            "--trajectories 20000 --seed 5 --last-only",
        )
        exact = math.exp(alpha / 4)
        spread = exact * math.sqrt(math.expm1(0.25) / 20_000)
        assert found.metrics["mean"][0] == pytest.approx(exact, abs=4.4 * spread + 0.002)


def test_last_only_keeps_the_last_states(simulate):
    flags = "--trajectories 30 --seed 2"
    path, last = simulate("ou", flags), simulate("ou", flags, "--last-only")
    assert last.tensors["states"].shape == (1, 30, 1)
    assert torch.equal(last.tensors["states"][0], path.tensors["states"][-1])
    assert "trajectory.png" in last.files


def test_starts_are_drawn_around_x0(simulate):
    found = simulate("ou --x0 5 -5 --x0-std 0.1 --trajectories 40 --seed 9")
    z = stream(9, "x0").normal((40, 2))
    assert torch.equal(found.tensors["states"][0], torch.tensor([5.0, -5.0]) + 0.1 * z)


def test_frozen_trajectories_are_counted(here, call):
    """dx = x² dt explodes at t = 1/x0, for nearly half of the starts N(0, 1) before t = 8."""
    (here / "up.py").write_text("def up(x, t):\n    return x**2\n")
    flags = "--diffusion 0 --x0 0 --x0-std 1 --trajectories 100 --t1 8"
    found = call("simulate --sde up.py:up", flags, "--seed 0 --on-nonfinite freeze")
    lost = int(found.tensors["nonfinite"].sum())
    assert found.metrics["nonfinite"] == lost
    assert 0 < lost < 100
    assert found.tensors["states"].isfinite().all()
    assert math.isfinite(found.metrics["mean"][0])


def test_particles_against_fokker_planck(simulate):
    """Exact samples show the floor on average; dt = 0.005 adds little to it."""
    found = simulate(
        "ou --x0 2 --x0-std 0.5 --trajectories 50000 --points 5 --substeps 50",
        "--fokker-planck --low -8 --high 8 --seed 0",
    )
    assert (found.status, found.err) == (0, [])
    assert found.metrics["total_variation"] < 1.3 * found.metrics["total_variation_floor"]
    assert 0.005 < found.metrics["total_variation_floor"] < 0.05


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--fokker-planck", "fokker_planck needs low and high, the ends of its grid"),
        (
            "--fokker-planck --low -5 --high 5 --x0 0 0",
            "fokker_planck is for one-dimensional states, but x0 has 2 coordinates",
        ),
        (
            "--fokker-planck --low -5 --high 5 --last-only",
            "fokker_planck is compared at all times; leave --last-only out.",
        ),
        (
            "--fokker-planck --low -1 --high 1 --seed 0",
            ": the grid cuts it.",
        ),
        (
            "--solver dopri5",
            "TorchDiffEq solves noise-free dynamics, but OrnsteinUhlenbeck is noisy",
        ),
        ("--resume", "resume goes on with a store; pass --store with it."),
        ("--observables histogram", "observables: histogram needs low and high; pass --low and"),
        ("--observables first-passage", "above and below are the region of first-passage: pass"),
        ("--above 1", "above and below are the region of first-passage: pass --observables"),
        (
            "--observables moments --fokker-planck --low -1 --high 1",
            "fokker_planck is compared with trajectories in memory; leave --store and",
        ),
        ("--solver dopri5 --compile", "compile is for --solver euler-maruyama or heun, but sol"),
        ("--x0 0 0 --coordinate 2", "coordinate must be 0 … 1, as x0 has 2 numbers, but is 2"),
        (
            "--observables first-passage --above 1 --between 0 1",
            "a first passage needs a region: above=…, below=…, both, or between=",
        ),
        ("--store here --threads 0", "threads must be ≥ 1, but is 0"),
        (
            "--trajectories 1000000 --points 1000000",
            "pass --last-only, fewer times, or fewer",
        ),
    ],
)
def test_refusals(here, simulate, flags, told):
    found = simulate("ou", flags)
    assert (found.status, found.out, len(found.err)) == (2, [], 1)
    assert told in found.err[0]
    assert not list(here.glob("runs/*"))


ENSEMBLE = """--trajectories 3000 --seed 3 --points 5 --x0 1 --substeps 4 --store run.zarr --low -3
    --high 3 --cells 30 --above 1.5 --observables moments histogram correlation first-passage
    current"""


def same_bits(a, b):
    return torch.equal(
        a.nan_to_num(7.0), b.nan_to_num(7.0)
    )  # a constant start correlates with 0/0


def test_an_ensemble_is_run_ensemble(here, simulate):
    found = simulate("ou", ENSEMBLE)
    assert (found.status, found.err) == (0, [])
    assert found.files == {"config.toml", "metrics.json", "observables.safetensors"}
    ou = sg.OrnsteinUhlenbeck(rate=1.0, sigma=math.sqrt(2))
    run = sg.run_ensemble(
        ou,
        torch.ones(1, 1),
        torch.linspace(0, 1, 5, dtype=torch.float64),
        trajectories=3000,
        solver=sg.EulerMaruyama(substeps=4),
        rng=3,
        observables=[
            sg.Moments(),
            sg.Histogram(-3, 3, 30),
            sg.TimeCorrelation(),
            sg.FirstPassage(above=1.5),
            sg.ProbabilityCurrent(-3, 3, 30),
        ],
    )
    for name, result in run.observables.items():
        for field, value in vars(result).items():
            assert same_bits(found.tensors[f"{name}.{field}"], torch.as_tensor(value)), field
    assert found.metrics["mean"] == [float(run.observables["moments"].mean[-1])]
    assert found.metrics["rate"] == run.observables["first_passage"].rate
    assert found.metrics["trajectories"] == 3000
    same = sg.simulate(
        ou, torch.ones(3000, 1), run.times, solver=sg.EulerMaruyama(substeps=4), rng=3
    )
    stored = zarr.open_array(here / "run.zarr" / "states", mode="r")[:]
    assert torch.equal(torch.from_numpy(stored), same.states)


def test_what_an_ensemble_is_asked_goes_through(simulate):
    """Region, coordinate, bridge and what feels each other are those of the library."""
    ou, times = sg.OrnsteinUhlenbeck(rate=1.0, sigma=math.sqrt(2)), torch.linspace(0, 1, 3)
    wanted = [
        sg.Histogram(-3, 3, 30, coordinate=1),
        sg.FirstPassage(between=(0.5, 0.6), coordinate=1, bridge=False),
        sg.ProbabilityCurrent(-3, 3, 30, coordinate=1),
    ]
    run = sg.run_ensemble(
        ou, torch.tensor([[1.0, -1.0]]), times, trajectories=40_000, rng=3, interacting=True,
        solver=sg.EulerMaruyama(substeps=4), observables=wanted, progress=False,
    )  # fmt: skip
    found = simulate(
        "ou --trajectories 40000 --seed 3 --points 3 --x0 1 -1 --substeps 4 --low -3 --high 3",
        "--cells 30 --observables histogram first-passage current --coordinate 1 --no-bridge",
        "--between 0.5 0.6 --interacting True",
    )
    assert (found.status, found.err) == (0, [])
    for name, result in run.observables.items():
        for field, value in vars(result).items():
            assert same_bits(found.tensors[f"{name}.{field}"], torch.as_tensor(value)), field


@pytest.mark.parametrize("flags", ["", "--observables moments"])
def test_steps_are_compiled_where_that_is_asked(simulate, monkeypatch, flags):
    asked = []

    def one_by_one(sde, solver, *args, **options):
        asked.append((type(solver).__name__, solver.substeps, solver.compile))
        return solve(sde, type(solver)(substeps=solver.substeps), *args, **options)

    for room in ("blocks", "half_steps"):
        monkeypatch.setattr(f"sdegen.engine.{room}.solve", one_by_one)
    found = simulate("ou --trajectories 5 --points 3 --substeps 2 --compile", flags)
    assert (found.status, found.err) == (0, [])
    # after the pilot, which goes step by step
    assert asked[-1] == ("EulerMaruyama", 2, True)
    assert set(asked[:-1]) <= {("EulerMaruyama", 2, False)}


def test_a_passage_that_nobody_waits_for(simulate):
    found = simulate("ou --x0 2 --trajectories 5 --observables first-passage --above 1.5")
    assert (found.status, found.err) == (0, [])
    assert found.metrics["survival"] == 0.0


def test_a_store_is_gone_on_with(here, simulate):
    first = simulate("ou", ENSEMBLE)
    refused = simulate("ou", ENSEMBLE)
    assert refused.status == 2
    assert "run.zarr exists; pass --resume to go on with it" in refused.err[0]
    (here / "run.zarr" / "progress" / "records" / "c" / "0" / "0").unlink()
    again = simulate("ou", ENSEMBLE, "--resume")
    assert again.status == 0
    for name, tensor in first.tensors.items():
        assert same_bits(tensor, again.tensors[name])
    other = simulate("ou", ENSEMBLE, "--resume --substeps 5")
    assert other.status == 2
    assert "holds another run: solver.substeps is 4 there and 5 here" in other.err[0]


def test_a_store_that_is_gone_on_with_has_the_seed_that_it_was_begun_with(simulate):
    flags = ENSEMBLE.replace("--seed 3", "")
    first = simulate("ou", flags)
    again = simulate("ou", flags, "--resume")
    assert (again.status, again.err) == (0, [])
    assert again.metrics["seed"] == first.metrics["seed"]


def test_a_run_for_which_the_disk_is_too_small_leaves_nothing(here, call, monkeypatch):
    """The corrected line needs no --overwrite."""
    (here / "ou.py").write_text(OU)
    line = "simulate --sde ou.py:ou --out r --trajectories 5000"
    usage = store_layout.shutil.disk_usage(here)
    with monkeypatch.context() as patch:
        patch.setattr(store_layout.shutil, "disk_usage", lambda path: usage._replace(free=30_000))
        refused = call(line, "--store run.zarr")
    assert (refused.status, refused.out, len(refused.err)) == (1, [], 1)
    assert "keep fewer times (--last-only keeps the last), or fewer traj" in refused.err[0]
    assert not (here / "r").exists()
    assert call(line, "--store run.zarr").status == 0


def test_an_ensemble_is_gone_on_with_in_its_own_folder(here, call):
    """--resume needs no --overwrite there, and a refused one changes nothing."""
    (here / "ou.py").write_text(OU)
    line = f"simulate --sde ou.py:ou --out r {ENSEMBLE}"
    first = call(line)
    before = {path.name: path.read_bytes() for path in (here / "r").iterdir()}
    (here / "run.zarr" / "progress" / "records" / "c" / "0" / "0").unlink()
    refused = call(line, "--resume --substeps 5")
    assert refused.status == 2
    assert {path.name: path.read_bytes() for path in (here / "r").iterdir()} == before
    again = call(line, "--resume")
    assert (again.status, again.err) == (0, [])
    assert all(same_bits(first.tensors[name], again.tensors[name]) for name in first.tensors)
    other = call(line.replace("run.zarr", "other.zarr"), "--resume")  # not that of the folder
    assert other.status == 2
    assert "r has files in it; pass --overwrite to replace the run there" in other.err[0]


def test_an_ensemble_takes_the_cores_or_their_share(monkeypatch):
    monkeypatch.setattr("sdegen.engine.pool.available_cores", lambda: 8)
    for ranks, threads in ((1, 8), (3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert simulation.resolved(SimulateConfig("ou.py:ou", store="x")).threads == threads
    assert simulation.resolved(SimulateConfig("ou.py:ou", store="x", threads=5)).threads == 5


def test_the_help_says_what_flags_do(capsys):
    assert main(["simulate", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(line.strip("│| ") for line in lines).split())
    assert (
        "--no-bridge Only look at steps; unless said, first passages between two steps are drawn "
        "too. (in a config.toml: bridge = false) --coordinate"
    ) in text
    assert "or --between. (default: none) --above" in text
    assert "for an ensemble the cores that the process may use, of which processes of" in text


def test_starts_of_an_ensemble_are_drawn_around_x0(simulate):
    """Mean and standard deviation of 40,000 starts N(5, 0.1²), to 4.4 standard errors."""
    found = simulate(
        "ou --x0 5 --x0-std 0.1 --seed 9 --observables moments --trajectories 40000 --points 2"
    )
    mean, std = found.tensors["moments.mean"][0, 0], found.tensors["moments.variance"][0, 0].sqrt()
    assert float(mean) == pytest.approx(5, abs=4.4 * 0.1 / 200)
    assert float(std) == pytest.approx(0.1, rel=4.4 / math.sqrt(80_000))


def test_processes_of_torchrun_share_an_ensemble_and_nothing_else(simulate, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = simulate("ou", "--trajectories 10")
    assert found.status == 2
    assert "processes that torchrun started share an ensemble: pass --observables" in found.err[0]


def test_ctrl_c_tells_where_to_go_on(here, simulate):
    (here / "ou.py").write_text(
        OU.replace("0.0 * x", "interrupts(x)")
        + """

import itertools, signal
calls = itertools.count()

def interrupts(x):
    if len(x) > 1000 and next(calls) == 130:  # 100 for a block
        signal.raise_signal(signal.SIGINT)
    return 0.0 * x
"""
    )
    flags = "--diffusion 1 --trajectories 200000 --seed 1 --observables moments --store run.zarr"
    cut = simulate("growth", flags, "--threads 1 --last-only")
    assert cut.status == 130
    assert cut.metrics["status"] == "interrupted"
    told = f", and in {here / 'run.zarr'}: --resume goes on with that."
    assert cut.err[-1].endswith(told)
    assert int(cut.tensors["moments.count"]) < 200_000
    whole = simulate("growth", flags, "--last-only --resume")
    assert int(whole.tensors["moments.count"]) == 200_000


def test_a_boundary_is_of_the_coordinate_that_is_named(simulate):
    flags = "--x0 0 0 --boundary no-flux --low -0.5 --high 0.75 --coordinate 1 --trajectories 50"
    found = simulate("brownian", flags, "--seed 0")
    states = found.tensors["states"]
    assert states[..., 1].min() >= -0.5
    assert states[..., 1].max() <= 0.75
    assert states[..., 0].abs().max() > 0.75


WALLS = """
import torch
from sdegen import Boundary, BoundaryCondition, PositionBoundary

class Stopping(PositionBoundary):
    condition = BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        return x.clamp(low, high)

class Sticky(Boundary):
    absorbs = True

    def apply(self, before, after, step):
        stays = step.uniform(after) < 0.5
        wall = after.clamp(step.low, step.high)
        back = (2 * wall - after).clamp(step.low, step.high)
        return torch.where(stays, wall, back)

height = 1.0
"""


def test_a_boundary_of_a_file(here, simulate, call):
    """A class of one file, and nothing else: particles take it, and densities as it declares."""
    (here / "walls.py").write_text(WALLS)
    flags = "--low -0.5 --high 0.75 --trajectories 50 --seed 0"
    found = simulate("brownian", f"--boundary walls.py:Stopping --fokker-planck {flags}")
    assert found.status == 0, found.err
    states = found.tensors["states"]
    assert float(states.max()) == 0.75
    sticky = simulate("brownian", f"--boundary walls.py:Sticky {flags}")
    assert sticky.status == 0, sticky.err
    told = simulate("brownian", f"--boundary walls.py:Sticky --fokker-planck {flags}")
    assert told.status == 2
    assert "Sticky declares no condition of a density" in told.err[0]
    told = call(
        "fokker-planck", "--sde", "ou.py:brownian", "--boundary", "walls.py:Sticky", "--overwrite"
    )
    assert "Sticky declares no condition of a density" in told.err[0]
    told = simulate("brownian", f"--boundary walls.py:height {flags}")
    assert "boundary = " in told.err[0]
    assert "expected a class that derives from sdegen.Boundary" in told.err[0]
