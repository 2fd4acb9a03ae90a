"""The model behind the page: simulate's bits, FokkerPlanck's density, and what sliders reach."""

import math
import runpy

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.app.configs.explore import ExploreConfig
from sdegen.app.explore import server
from sdegen.app.explore.desk import Desk
from sdegen.app.explore.family import Slider, family_of
from sdegen.app.explore.questions import answers
from sdegen.app.explore.run import FLOOR, Run, Setting, start_of

OWN = '''
from typing import Annotated

import torch
import sdegen as sg


def trap(stiffness: float = 2.0, noise: Annotated[float, (0.1, 1.5)] = 0.5, shift: float = 0.0,
         power: int = 1):
    """Pull to a place.

    Args:
        stiffness (float): stiffness k. In units of 1/time.
        noise: noise σ
    """
    if noise > 1.2:
        raise ValueError("too loud")
    return sg.ItoProcess(lambda x: -stiffness * (x - shift), noise)


def drift(x, t):
    return -x


ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
well = sg.Langevin(sg.DoubleWell(quartic=0.25, quadratic=0.5), temperature=0.3)
opaque = sg.ItoProcess(lambda x: -x, 0.5)
moving = sg.ItoProcess(lambda x, t: torch.sin(t) - x, 0.5)
free = sg.BrownianMotion(1.0)
damped = sg.UnderdampedLangevin(lambda x: x**2 / 2, friction=1.0)
plane = sg.ItoProcess(lambda x: torch.stack([-x[:, 0], -2 * x[:, 1]], 1), 0.5)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setattr("sdegen.app.user_code._LOADED", {})
    (tmp_path / "own_explored.py").write_text(OWN)
    return lambda name: family_of(f"own_explored.py:{name}")


def parameters(family):
    return {slider.name: slider.value for slider in family.sliders}


def test_particles_are_simulates_and_the_density_is_solves():
    family = family_of(None)
    setting = Setting(parameters(family), mean=-1.0, steps=300, particles=500, seed=3)
    run = Run(family, setting)
    run.advance(60)
    run.advance(setting.frames)
    sde = family.make(setting.parameters)
    path = sg.simulate(sde, start_of(run), setting.times(), rng=3)
    assert torch.equal(run.x, path.states[-1])
    start = run.grid.gaussian(-1.0, 0.1)
    solved = sg.FokkerPlanck(sde, run.grid).solve(start, setting.times()[:: setting.stride])
    assert torch.equal(run.path.p, solved.p)
    readings = run.readings()
    assert readings["exact variance"] == float(solved.final.variance)
    # 1.3 times the distance that right particles exceed once in 1,000 runs
    assert readings["distance"] < 1.3 * readings["rare"]


def test_particles_fill_their_density_from_the_first_frame():
    """The start is one law, and its distance the floor of exact samples."""
    family = family_of(None)
    distances = []
    for seed in range(30):
        run = Run(
            family, Setting(parameters(family), mean=-1.0, steps=1, particles=200, seed=seed)
        )
        distances.append(run.readings()["distance"] * math.sqrt(200))
    # the mean of Kolmogorov's law, with its standard deviation 0.26; five errors: 6e-7
    assert np.mean(distances) == pytest.approx(FLOOR, abs=5 * 0.26 / math.sqrt(30) + 0.02)


def test_passages_between_steps_are_seen_too():
    """The chance to wait is that of the density, and not that of looks at the ends of steps."""
    family = family_of(None)
    setting = Setting(parameters(family), mean=-1.0, std=0.1, dt=0.01, level=0.0, steps=300)
    run = Run(family, setting)
    run.advance(setting.frames)
    found = answers(run)
    assert found["reasons"] == {}
    expected = found["survival"][-1]
    error = math.sqrt(expected * (1 - expected) / 5000)
    # five standard errors, 6e-7, and the error of the steps themselves
    assert run.readings()["waiting"] == pytest.approx(expected, abs=5 * error + 0.01)
    side = sg.FokkerPlanck(run.sde, sg.Grid(run.grid.low, 0.0, 800), ("no-flux", "absorbing"))
    passage = side.first_passage()
    exact = np.interp(-1.0, passage.x, passage.moments[0])
    assert found["passage mean"] == pytest.approx(exact, rel=1e-3)
    assert found["rates"][0] == pytest.approx(float(run.fokker_planck.spectrum().rates[1]))


def test_float_parameters_become_sliders(own):
    trap = own("trap")
    assert trap.sliders == (
        Slider("stiffness", "stiffness k", 2.0, 0.0, 6.0),
        Slider("noise", "noise σ", 0.5, 0.1, 1.5),
        Slider("shift", "shift", 0.0, -1.0, 1.0),
    )
    run = Run(trap, Setting({"stiffness": 2.0, "noise": 1.0, "shift": 0.0}, steps=20))
    assert answers(run)["rest variance"] == pytest.approx(1.0 / 4, rel=1e-6)  # σ²/2k
    with pytest.raises(ValueError, match="too loud"):
        Run(trap, Setting({"stiffness": 2.0, "noise": 1.3, "shift": 0.0}))
    with pytest.raises(ValueError, match="drift takes x, which is no float and has no default"):
        own("drift")


def test_objects_of_the_library_are_made_again_with_other_numbers(own):
    assert parameters(own("ou")) == {"rate": 1.0, "mean": 0.0, "sigma": 1.0}
    well = own("well")
    numbers = {"potential.quartic": 0.25, "potential.quadratic": 0.5, "temperature": 0.3}
    assert parameters(well) == numbers
    made = well.make(numbers | {"potential.quartic": 1.0})
    x = torch.tensor([[2.0]])
    assert float(made.drift(x, torch.tensor(0.0))) == -4 * 8 + 2 * 0.5 * 2
    opaque = own("opaque")
    assert opaque.sliders == ()
    assert "name a function with float parameters" in opaque.note


@pytest.mark.parametrize("name", ["moving", "free"])
def test_what_never_rests_has_a_density_and_no_answers_at_rest(own, name):
    family = own(name)
    run = Run(family, Setting(parameters(family), mean=0.5, steps=40, dt=0.02, particles=300))
    run.advance(40)
    assert run.readings()["distance"] < 1.5 * run.readings()["rare"]
    assert "rest" in answers(run)["reasons"]


def test_of_several_coordinates_there_are_moments(own):
    family = own("plane")
    run = Run(family, Setting({}, mean=1.0, std=0.0, steps=200, dt=0.01, particles=4000))
    run.advance(run.setting.frames)
    readings = run.readings()
    assert run.event == (2,)
    assert "exact mean" not in readings
    for j, rate in ((1, 1.0), (2, 2.0)):  # Euler's chain: (1 − k dt)^n; five errors, 6e-7
        exact = (1 - rate * 0.01) ** 200
        error = readings[f"mean error of x{j}"]
        assert readings[f"mean of x{j}"] == pytest.approx(exact, abs=5 * error)


@pytest.mark.parametrize("name", [None, "ou", "plane", "damped"])
def test_a_program_prints_the_numbers_of_the_page(own, tmp_path, capsys, name):
    reference = None if name is None else f"own_explored.py:{name}"
    config = ExploreConfig(reference, particles=400, steps=60)
    desk = Desk(config, tmp_path)
    numbers = {slider[0]: slider[2] for slider in desk.describe()["sliders"]}
    asked = {"mean": -0.5, "std": 0.2, "dt": 0.01, "level": 0.3, "parameters": numbers}
    desk.start("page", asked)
    readings = desk.frame("page", 40)["readings"]
    file, text = desk.program("page")
    assert (tmp_path / file).read_text() == text
    runpy.run_path(str(tmp_path / file))
    out = capsys.readouterr().out
    assert "t = 0.4, 400 particles" in out
    if name in ("plane", "damped"):
        assert f"x2: mean = {readings['mean of x2']:.6g}, " in out
        return
    assert f"mean = {readings['mean']:.6g}, of the density {readings['exact mean']:.6g}" in out
    assert f"distance = {readings['distance']:.6g}, " in out
    passage = desk.ask("page")["passage mean"]
    assert f"mean first-passage time from -0.5 to 0.3 = {passage:.6g}" in out


def test_a_step_that_is_too_long_is_told(own):
    family = family_of(None)
    long = Run(family, Setting(parameters(family), mean=-1.0, dt=0.5, steps=50, particles=300))
    assert "dt = 0.0312 would do there" in long.notes[0]
    long.advance(50)
    assert long.readings()["lost"] == 300
    assert long.picture()["bars"].sum() == 0
    trap = own("trap")
    run = Run(trap, Setting({"stiffness": 6.0, "noise": 0.5, "shift": 0.0}, dt=0.1, steps=20))
    assert any("step" in note for note in run.notes)


def test_what_is_asked_is_checked():
    with pytest.raises(ValueError, match="particles must be ≤ 50000"):
        ExploreConfig(particles=60_000)
    with pytest.raises(ValueError, match="port must be ≤ 65535"):
        ExploreConfig(port=70_000)
    with pytest.raises(ValueError, match="low and high end one grid"):
        ExploreConfig(low=-1.0)


def test_what_is_refused_says_what_to_do(own, tmp_path):
    family = family_of(None)
    run = Run(family, Setting(parameters(family), mean=-1.0, level=-1.0, steps=10, particles=50))
    assert "move its slider" in answers(run)["reasons"]["passage"]
    (tmp_path / "own.v2.py").write_text(OWN)
    with pytest.raises(ValueError, match=r"own\.v2\.py has a dot in its name"):
        family_of("own.v2.py:ou")
    port, pipe = server.begin(None, browser=False, first={})
    with pipe, pytest.raises(ValueError, match=f"port {port} cannot be had"):
        server.begin(port, browser=False, first={})
