"""The recipes of CONTRIBUTING.md, run as they are written, against what is known of them."""

import math
import re
from pathlib import Path

import pytest
import torch

import sdegen as sg
from tests.exact import robin_cdf

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
F64 = torch.float64


def programs():
    """The Python programs of the page, by heading."""
    sections = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    for heading, text in zip(sections[1::2], sections[2::2], strict=True):
        for program in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            yield heading, program


def run(heading):
    """Names that the programs of a section define."""
    names = {"__name__": "recipe"}
    for title, program in programs():
        if title == heading:
            exec(compile(program, heading, "exec"), names)
    return names


def steps_by_hand(names):
    # the loop ends where the spread first passes 0.9, or at 5; simulate walks the same path
    path = sg.simulate(names["well"], torch.zeros(1000, 1), names["times"], rng=0)
    spreads = path.states.std((1, 2))
    passed = (spreads > 0.9).nonzero()
    end = int(passed[0]) if len(passed) else len(spreads) - 1
    assert torch.equal(names["x"], path.states[end])


def rotation(names):
    # α² + σ² = 1 and d log α/dt = −(π/2) tan(πt/2): a VP-SDE of β = π tan(πt/2), since g² = β
    path = names["Rotation"]()
    t = torch.linspace(0.05, 0.95, 19, dtype=F64)
    rate = -0.5 * math.pi * torch.tan(0.5 * math.pi * t)
    torch.testing.assert_close(path.drift_rate(t), rate, rtol=1e-12, atol=0)
    torch.testing.assert_close(path.diffusion_rate(t), (-2 * rate).sqrt(), rtol=1e-12, atol=0)
    # the flow carries N(0, s²) by x → x √(α² s² + σ²)/…; DDIM has order 1, so that two grids
    # together leave a hundredth of the error of one
    law = sg.GaussianMixture([1.0], [[0.0]], stds=[0.3]).noised(path)
    x = torch.tensor([[0.5], [-1.0]], dtype=F64)
    flow, ends = sg.ReverseSDE(path, law.score, eta=0.0), []
    for steps in (400, 800):
        grid = path.time_grid(steps)
        ends.append(sg.simulate(flow, x, grid, solver=sg.DDIM()).final)
    width = torch.sqrt(path.alpha(grid) ** 2 * 0.09 + path.sigma(grid) ** 2)
    exact = x * width[-1] / width[0]
    first, second = (end - exact for end in ends)
    assert torch.allclose(first / second, torch.full_like(x, 2.0), rtol=0.02)
    torch.testing.assert_close(2 * ends[1] - ends[0], exact, rtol=1e-4, atol=0)

    # the swimmer moves along its heading alone: its displacement lies on it for every noise
    swimmer = names["Swimmer"]()
    x = torch.tensor([[0.0, 0.0, 0.4], [1.0, -1.0, 2.0]], dtype=F64)
    end = sg.simulate(swimmer, x, [0.0, 0.1], rng=0).final
    across = (end - x)[:, 1] * x[:, 2].cos() - (end - x)[:, 0] * x[:, 2].sin()
    assert float(across.abs().max()) < 1e-12
    covariance = swimmer.covariance_times(x, torch.tensor(0.0), torch.ones_like(x))
    push = 0.09 * (x[:, 2].cos() + x[:, 2].sin())
    expected = torch.stack([push * x[:, 2].cos(), push * x[:, 2].sin(), 0.09 + 0 * push], 1)
    torch.testing.assert_close(covariance, expected)


def midpoint(names):
    # on x' = −x each step multiplies by 1 − h + h²/2 exactly
    decay = sg.ItoProcess(lambda x: -x, 0.0)
    x = torch.ones(3, 1, dtype=F64)
    for steps in (10, 20):
        times = torch.linspace(0, 1, steps + 1, dtype=F64)
        end = sg.simulate(decay, x, times, solver=names["Midpoint"]()).final
        h = 1 / steps
        torch.testing.assert_close(end, x * (1 - h + h * h / 2) ** steps, rtol=1e-13, atol=0)


def highest(names):
    x0, times = torch.zeros(4000, 2, dtype=F64), torch.linspace(0, 1, 11, dtype=F64)
    sde, seen = sg.BrownianMotion(1.0), [names["Highest"]()]
    ensemble = sg.run_ensemble(sde, x0, times, trajectories=4000, observables=seen, rng=3)
    states = sg.simulate(sde, x0, times, rng=3).states
    assert torch.equal(ensemble.observables["highest"], states.amax((0, 1)))


def losses(names):
    # noise of variance ¼ on x: w = 2 ⟨x²⟩/(⟨x²⟩ + ¼); one batch alone would scatter by 0.04
    square = float(names["x"].square().mean())
    weight = names["line"].weight.detach()
    assert weight.item() == pytest.approx(2 * square / (square + 0.25), abs=0.02)
    sizes = names["result"].logs["size of x"]
    assert float(sizes.mean()) == pytest.approx(square + 0.25, rel=0.01)
    assert not names["model"].training


def partially_absorbing(names):
    # reflecting at 0, with a reactivity of 2 at 1: a series of cosines; steps err by O(√dt)
    n, t, kappa = 20_000, 0.5, 2.0
    ends = (sg.Reflecting(0.0), names["PartiallyAbsorbing"](high=1.0, reactivity=kappa))
    path = sg.simulate(
        sg.BrownianMotion(1.0), torch.full((n, 1), 0.7, dtype=F64), [0.0, t], rng=1,
        solver=sg.EulerMaruyama(400), boundary=ends, keep_path=False,
    )  # fmt: skip
    survival = float(robin_cdf(1.0, 0.5, 0.7, t, kappa)(1.0))
    left = float((~path.absorbed[-1]).double().mean())
    assert abs(left - survival) < 4.42 * math.sqrt(survival * (1 - survival) / n) + 0.02


def heights(names):
    mean, error = torch.tensor([3.0, 1.0], dtype=F64), torch.tensor([0.1, 0.2], dtype=F64)
    result = names["Heights"](mean, error)
    assert result.to_dataframe()["mean_error"].tolist() == error.tolist()
    assert result.to_xarray()["mean"].attrs == {"long_name": "mean height", "units": "m"}
    point, *_ = result.plot().axes[0].containers[0].lines
    assert point.get_ydata().tolist() == mean.tolist()
    assert "Heights" in result._repr_html_()


CHECKS = {
    "Take the steps by hand": steps_by_hand,
    "Adding an SDE": rotation,
    "Adding a solver": midpoint,
    "Adding a loss": losses,
    "Adding a boundary": partially_absorbing,
    "Adding an observable": highest,
    "Adding a result": heights,
}


@pytest.mark.parametrize("heading", list(dict.fromkeys(title for title, _ in programs())))
def test_a_recipe_runs_as_written(heading):
    CHECKS[heading](run(heading))


def test_every_kind_of_extension_has_a_recipe():
    assert set(CHECKS) == {title for title, _ in programs()}
