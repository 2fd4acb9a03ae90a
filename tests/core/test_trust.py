"""What is known of the errors of a result: the same four causes for each, and its own numbers."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

GRID = sg.Grid(-3.0, 3.0, 200)
WELL = sg.Langevin(sg.DoubleWell(), temperature=0.1)
RING = sg.ItoProcess(lambda x: 0.5 - torch.sin(x), 1.0)


def _rest():
    return sg.FokkerPlanck(WELL, GRID).stationary()


def _in_time():
    return sg.FokkerPlanck(WELL, GRID).solve(GRID.gaussian(-1.0, 0.2), [0.0, 1.0])


def _leaving():
    return sg.FokkerPlanck(WELL, sg.Grid(-3.0, 1.0, 200), ("no-flux", "absorbing"))


def _ring():
    return sg.FokkerPlanck(RING, sg.Grid(0.0, 2 * math.pi, 100), "periodic")


def _plane():
    grid = sg.Grid(-5.0, 5.0, 40)
    return sg.FokkerPlanck2D(sg.ItoProcess(lambda z: -z, 1.0), (grid, grid)).stationary()


RESULTS = {
    "density": _rest,
    "densities in time": _in_time,
    "first passage": lambda: _leaving().first_passage(),
    "survival": lambda: _leaving().survival(-1.0, [0.0, 10.0, 50.0]),
    "escape": lambda: _leaving().escape(),
    "spectrum": lambda: sg.FokkerPlanck(WELL, GRID).spectrum(3),
    "spectrum of a ring": lambda: _ring().turning_spectrum(3),
    "transport around a ring": lambda: _ring().transport(),
    "density in the plane": _plane,
}


@pytest.mark.parametrize("title", RESULTS)
def test_results_of_densities_say_what_is_known_of_each_cause(title):
    result = RESULTS[title]()
    trust = result.trust()
    known = dict(trust.rows)
    assert trust.title == title
    assert list(known) == ["step", "grid", "truncation", "sampling"]
    name = max(result.error, key=lambda k: float(torch.as_tensor(result.error[k]).max()))
    assert f"{name} {float(result.error):.1e}" in known["grid"]
    assert known["sampling"] == "none"
    assert str(trust).splitlines()[0] == title


def test_a_density_of_the_users_own_is_not_estimated():
    density = sg.Density(GRID.nodes, GRID.gaussian(0.0, 1.0).p)
    assert dict(density.trust().rows)["grid"] == "not estimated, 200 cells"


def test_trajectories_know_the_error_of_their_steps_and_of_their_number():
    # Euler-Maruyama on dX = −X dt + √2 dW has the variance 1/(1 − dt/2) at rest: +5.4 % of the
    # std at dt = 0.2, of which halving the steps sees half; 256 paths know it to ± 0.01
    # (false-alarm rate below 1e-5)
    path = sg.simulate(
        sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0),
        torch.randn(10_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0, 4, 21),
        rng=0,
    )
    known = dict(path.trust().rows)
    assert path.step_error["std"] == pytest.approx(1 / (1 - 0.1) ** 0.5 - 1, abs=0.04)
    assert path.step_error["mean"] < 0.1
    assert "(half steps up to t = " in known["step"]
    assert (
        known["sampling"] == "standard error of the mean 1.0e-02 of the std (10000 trajectories)"
    )


def test_samples_of_a_chain_have_no_estimate_of_their_steps():
    chain = sg.DDPM.discretize(sg.VP(sg.LinearBeta(0.1, 20.0)), steps=10)
    path = sg.simulate(chain, torch.zeros(4, 1), torch.arange(11.0), rng=0)
    assert dict(path.trust().rows)["step"] == "not estimated"


def test_an_ensemble_says_what_is_known():
    run = sg.run_ensemble(
        sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0),
        torch.zeros(1, 1),
        [0.0, 1.0],
        trajectories=2500,
        solver=sg.EulerMaruyama(100),
        observables=[sg.Moments()],
        rng=0,
    )
    known = dict(run.trust().rows)
    assert known["sampling"] == "standard error of a mean 2.0e-02 of the std (2500 trajectories)"
    assert run.step_error is not None
    assert f"std {run.step_error['std']:.1e}" in known["step"]


TABLE = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)


def _tabulated(x):
    """g of a table by NumPy, which autograd does not see; linear in x."""
    return torch.as_tensor(np.interp(x.detach().numpy(), TABLE, 1 + 0.1 * TABLE)).to(x)


UNSEEN = sg.ItoProcess(lambda x: -x, _tabulated, interpretation="stratonovich")
BY_DIFFERENCES = {
    "trajectories": lambda: sg.simulate(
        UNSEEN, torch.zeros(8, 1, dtype=torch.float64), [0.0, 1e-3], rng=0
    ),
    "ensemble": lambda: sg.run_ensemble(
        UNSEEN, torch.zeros(1, 1, dtype=torch.float64), [0.0, 1e-3], trajectories=8, rng=0,
        observables=[sg.Moments()], progress=False,
    ),
    "density": lambda: sg.FokkerPlanck(UNSEEN, sg.Grid(-4.0, 4.0, 60)).stationary(),
    "normalised": lambda: BY_DIFFERENCES["density"]().normalized(),
    "densities in time": lambda: sg.FokkerPlanck(UNSEEN, sg.Grid(-4.0, 4.0, 60)).solve(
        sg.Grid(-4.0, 4.0, 60).gaussian(0.0, 0.7), [0.0, 0.1]
    ),
    "one of them": lambda: sg.FokkerPlanck(UNSEEN, sg.Grid(-4.0, 4.0, 60)).solve(
        sg.Grid(-4.0, 4.0, 60).gaussian(0.0, 0.7), [0.0, 0.1]
    ).at(-1),
    "spectrum": lambda: sg.FokkerPlanck(UNSEEN, sg.Grid(-4.0, 4.0, 60)).spectrum(2),
    "first passage": lambda: sg.FokkerPlanck(
        UNSEEN, sg.Grid(-1.0, 1.0, 60), "absorbing"
    ).first_passage(),
    "first passage from elsewhere": lambda: BY_DIFFERENCES["first passage"]().at(0.2),
    "densities between ends that move": lambda: sg.FokkerPlanck(
        UNSEEN, sg.Grid(-2.0, 2.0, 60), sg.Absorbing(-2.0, high=lambda t: 2 - t)
    ).solve(0.0, [0.0, 0.5]),
    "survival": lambda: sg.FokkerPlanck(UNSEEN, sg.Grid(-1.0, 1.0, 60), "absorbing").survival(
        0.0, [0.0, 0.5]
    ),
    "density in the plane": lambda: sg.FokkerPlanck2D(
        UNSEEN, (sg.Grid(-4.0, 4.0, 20),) * 2
    ).stationary(),
}  # fmt: skip


@pytest.mark.parametrize("ask", BY_DIFFERENCES.values(), ids=BY_DIFFERENCES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_results_say_that_a_derivative_was_found_by_differences(ask):
    result = ask()
    assert result.slope_by == "differences"
    assert dict(result.trust().rows)["derivative"].startswith("by differences: autograd does not")


def test_a_potential_that_autograd_does_not_see_is_said_and_others_are_not():
    x = torch.zeros(8, 1, dtype=torch.float64)
    hidden = sg.Langevin(lambda x: torch.as_tensor(0.5 * x.detach().numpy() ** 2).to(x))
    assert sg.simulate(hidden, x, [0.0, 1e-3], rng=0).slope_by == "differences"
    seen = sg.simulate(sg.Langevin(lambda x: 0.5 * x**2), x, [0.0, 1e-3], rng=0)
    assert seen.slope_by == "autograd"
    assert list(dict(seen.trust().rows)) == ["step", "grid", "truncation", "sampling"]
    assert sg.simulate(sg.OrnsteinUhlenbeck(), x, [0.0, 1e-3], rng=0).slope_by == "none"
