"""Multistep methods and Heun against diffusers' schedulers, on one grid, with float64 tables.

diffusers steps with x on the grid of its sigmas, which are our σ/α. Its `step` rounds the state to
float32 in some schedulers; there the formulas below it, which do not, are called one by one.
"""

import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
)
from exact import mixture_flow, slope, walked

import sdegen as sg
from sdegen.core.noise import stream

# "dpmsolver" is on its way out there, and numpy 2 looks at how a tensor is made an array
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

F64 = torch.float64
SDE = sg.VP(sg.LinearBeta(0.1, 20.0))
NOISED = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(SDE)


def eps(x, t):
    return -SDE.sigma(t) * NOISED.score(x, t)


def theirs(scheduler, x, times, orders, noises):
    """Runs a multistep scheduler of diffusers on our times, with formulas of these orders.

    Its predictions are from x, so that ε̂ is all it is given.
    """
    scheduler.sigmas = SDE.sigma(times) / SDE.alpha(times)
    outputs, states = [], [x]
    updates = {
        "DPMSolverMultistepScheduler": "dpm_solver",
        "DEISMultistepScheduler": "deis",
    }[type(scheduler).__name__]
    for i, t in enumerate(times[:-1]):
        scheduler._step_index = i
        outputs = [*outputs, scheduler.convert_model_output(eps(x, t), sample=x)][-3:]
        noise = {} if noises is None else {"noise": noises[i]}
        if orders[i] == 1:
            # in float64 as well: their first step is the only one of another name
            first = getattr(scheduler, f"{updates}_first_order_update")
            x = first(outputs[-1], sample=x, **noise)
        else:
            word = {2: "second", 3: "third"}[orders[i]]
            x = getattr(scheduler, f"multistep_{updates}_{word}_order_update")(
                outputs, sample=x, **noise
            )
        states.append(x)
    return torch.stack(states)


def ours(solver, eta, x, times, noises=None):
    dynamics = sg.ReverseSDE(SDE, NOISED.score, eta)
    return walked(solver, dynamics, times, x, noises)


@pytest.mark.parametrize("grid", ["log_snr", "karras", "uniform"])
@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize(
    ("solver", "kind"),
    [
        (sg.ExponentialAdams(2, "x0", rule="midpoint"), ("dpmsolver++", "midpoint")),
        (sg.ExponentialAdams(2, "x0"), ("dpmsolver++", "heun")),
        (sg.ExponentialAdams(2, "eps", rule="midpoint"), ("dpmsolver", "midpoint")),
        (sg.ExponentialAdams(2, "eps"), ("dpmsolver", "heun")),
        (sg.ExponentialAdams(2, "x0", rule="midpoint"), ("sde-dpmsolver++", "midpoint")),
        (sg.ExponentialAdams(2, "x0"), ("sde-dpmsolver++", "heun")),
    ],
)
def test_dpm_solver_2m_is_that_of_diffusers(solver, kind, steps, grid):
    times = getattr(sg.timesteps, grid)(SDE, steps)
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type=kind[0], solver_type=kind[1], final_sigmas_type="sigma_min"
    )
    x = stream(0, "x").normal((32, 1), dtype=F64)
    noisy = kind[0].startswith("sde")
    z = [stream(i, "z").normal((32, 1), dtype=F64) for i in range(steps)] if noisy else None
    a = theirs(scheduler, x, times, [1] + [2] * (steps - 1), z)
    b = ours(solver, float(noisy), x, times, z)
    assert float((a - b).abs().max()) <= 1e-8 * float(a.abs().max())


@pytest.mark.parametrize("steps", [5, 20])
def test_adams_in_eps_is_deis_of_diffusers(steps):
    times = sg.timesteps.log_snr(SDE, steps)
    x = stream(0, "x").normal((32, 1), dtype=F64)
    a = theirs(DEISMultistepScheduler(), x, times, [1] + [2] * (steps - 1), None)
    b = ours(sg.ExponentialAdams(2, "eps"), 0.0, x, times)
    assert float((a - b).abs().max()) <= 1e-8 * float(a.abs().max())


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_heun_is_that_of_diffusers(steps):
    times = sg.timesteps.karras(SDE, steps)
    r = SDE.sigma(times) / SDE.alpha(times)
    scheduler = HeunDiscreteScheduler()
    scheduler.timesteps = torch.zeros(1, dtype=F64)
    # each inner sigma stands there twice, and the last two are the end of the last step
    scheduler.sigmas = torch.cat([r[:1], r[1:-1].repeat_interleave(2), r[-1:], r[-1:]])
    x = stream(0, "x").normal((32, 1), dtype=F64)
    y, states = x / SDE.alpha(times[0]), [x]
    for i in range(steps):
        for j, k in ((0, i), (1, i + 1)):
            scheduler._step_index = 2 * i + j
            t = times[k]
            y = scheduler.step(eps(SDE.alpha(t) * y, t), scheduler.timesteps[0], y).prev_sample
        states.append(SDE.alpha(times[i + 1]) * y)
    a = torch.stack(states)
    b = ours(sg.KarrasHeun(), 0.0, x, times)
    assert float((a - b).abs().max()) <= 1e-8 * float(a.abs().max())


def test_third_order_keeps_its_order_where_that_of_diffusers_has_two(as_user):
    # D2 there is half the second difference, and its coefficient is that of the whole
    sde = SDE
    x = torch.linspace(-1.5, 1.6, 7, dtype=F64)[:, None]
    exact = mixture_flow(NOISED, x, 0.8, 0.1)
    full = sg.VP(sde.beta, t_min=0.1)
    full.t_max = 0.8
    errors = {"theirs": [], "ours": []}
    for n in (100, 200):
        times = sg.timesteps.log_snr(full, n)
        scheduler = DPMSolverMultistepScheduler(
            solver_order=3, solver_type="heun", final_sigmas_type="sigma_min"
        )
        a = theirs(scheduler, x, times, [1, 2] + [3] * (n - 2), None)[-1]
        b = ours(sg.ExponentialAdams(3, "x0"), 0.0, x, times)[-1]
        errors["theirs"].append(float((a - exact).abs().max()))
        errors["ours"].append(float((b - exact).abs().max()))
    assert slope([1 / 100, 1 / 200], errors["ours"]) == pytest.approx(3, abs=0.25)
    assert slope([1 / 100, 1 / 200], errors["theirs"]) == pytest.approx(2, abs=0.25)
