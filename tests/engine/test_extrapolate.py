"""Extrapolation of two runs: its order, its two means, its error bar, and what it refuses."""

import math

import pytest
import torch
from exact import linear_chain_moments, ou_moments, slope

import sdegen as sg

F64 = torch.float64
OU = sg.OrnsteinUhlenbeck(1.0, 0.5, 1.0)
START = torch.full((1, 1), 2.0, dtype=F64)


def square(x):
    return x[:, 0] ** 2


def grid(n):
    return torch.linspace(0, 1, n + 1, dtype=F64)


def second_moments(solver, n):
    mean, variance = linear_chain_moments(solver, OU, grid(n), 2.0, 0.0)[-1]
    return float(mean**2 + variance)


def test_order_two_on_a_flow_and_the_right_limit():
    """Euler's 1, extrapolated, is 2; Heun's 2 is 3. No sampling."""
    flow = sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0)
    for solver, order in ((sg.EulerMaruyama(), 2), (sg.Heun(), 3)):
        steps, errors = (8, 16, 32, 64), []
        for n in steps:
            run = sg.extrapolate(flow, START, grid(n), square, trajectories=2, solver=solver)
            errors.append(float(run.value) - 4 * math.exp(-2))
            assert run.order == order - 1
        assert slope([1 / n for n in steps], errors) == pytest.approx(order, abs=0.1)
        assert abs(errors[-1]) < 2e-4


def test_order_two_with_noise_by_the_exact_laws_of_both_chains():
    """What the two means converge to: 2 ⟨f⟩_{h/2} − ⟨f⟩_h of the chains themselves, slope 2."""
    mean, variance = ou_moments(1.0, 0.5, 1.0, 2.0, 0.0, 1.0)
    steps, errors = (16, 32, 64, 128), []
    for n in steps:
        coarse, fine = (second_moments(sg.EulerMaruyama(), k) for k in (n, 2 * n))
        errors.append(2 * fine - coarse - (mean**2 + variance))
    assert slope([1 / n for n in steps], errors) == pytest.approx(2.0, abs=0.1)
    assert abs(errors[-1]) < 2e-4


def test_both_means_are_those_of_the_chains_and_the_value_has_its_error_bar():
    n, h = 40_000, 8
    run = sg.extrapolate(OU, START, grid(h), square, trajectories=n, rng=1)
    coarse, fine = (second_moments(sg.EulerMaruyama(), k) for k in (h, 2 * h))
    # two-sided, 4.4 standard errors: false alarm 1e-5 each
    assert abs(float(run.value) - (2 * fine - coarse)) < 4.4 * float(run.standard_error)
    assert abs(float(run.fine) - fine) < 4.4 * float(run.standard_error)
    assert abs(float(run.coarse) - coarse) < 4.4 * float(run.standard_error)
    # the difference is known much better than either: one path for both
    assert abs(float(run.removed) - (coarse - fine)) < 4.4 * float(run.removed_error)
    assert float(run.removed_error) < 0.1 * float(run.standard_error)
    assert float(run.correlation) > 0.98
    assert float(run.removed) == pytest.approx(float(run.fine - run.value), abs=1e-12)
    # the error bar is that of V (1 + 4 (1 − ρ)), far below the √5 of two independent runs
    mean, variance = ou_moments(1.0, 0.5, 1.0, 2.0, 0.0, 1.0)
    spread = math.sqrt((2 * variance**2 + 4 * mean**2 * variance) / n)
    assert 0.97 * spread < float(run.standard_error) < 1.15 * spread
    assert "order 1 removed" in str(run.trust())
    assert run.nfe == 3 * h


def test_the_fine_walk_is_simulate_at_half_the_steps():
    x0 = torch.linspace(-1, 1, 60_000, dtype=F64)[:, None]  # two blocks
    run = sg.extrapolate(OU, x0, grid(4), lambda x: x, trajectories=len(x0), rng=5)
    half = sg.simulate(OU, x0, grid(4), solver=sg.EulerMaruyama(2), rng=5, keep_path=False)
    assert run.fine.shape == (1,)
    torch.testing.assert_close(run.fine, half.final.mean(0), rtol=1e-12, atol=1e-15)
    more = sg.extrapolate(OU, x0, grid(4), lambda x: x, trajectories=len(x0), rng=5, threads=2)
    assert torch.equal(more.value, run.value)
    assert torch.equal(more.standard_error, run.standard_error)


def test_with_channels_and_a_solver_of_order_two():
    """GBM of two processes with DRI1: (4 ⟨f⟩_{h/2} − ⟨f⟩_h)/3."""
    sde = sg.ItoProcess(
        lambda x: 0.5 * x, lambda x: torch.stack([0.3 * x, 0.4 * x], -1), channels=2
    )
    one = torch.ones(1, 1, dtype=F64)
    run = sg.extrapolate(sde, one, grid(2), square, trajectories=20_000, solver=sg.DRI1(), rng=0)
    assert run.order == 2
    exact = math.exp(1 + 0.25)
    assert abs(float(run.value) - exact) < 4.4 * float(run.standard_error) + 1e-3
    torch.testing.assert_close(run.value, (4 * run.fine - run.coarse) / 3)


def test_starts_of_a_function_and_values_of_any_shape():
    law = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0)

    def f(x):
        return torch.stack([x, x**2], -1)

    run = sg.extrapolate(sg.OrnsteinUhlenbeck(), law.sample, grid(4), f, trajectories=1000, rng=2)
    assert run.value.shape == run.standard_error.shape == run.correlation.shape == (2, 2)
    assert float(run.value[:, 1].max()) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"f": lambda x: x.mean()}, ValueError, r"f must return one value for each state"),
        ({"f": lambda x: 1.0}, TypeError, "f must return a tensor"),
        ({"f": 3}, TypeError, "f must be a function of states"),
        ({"trajectories": 1}, ValueError, "trajectories must be ≥ 2"),
        ({"solver": sg.EulerMaruyama(compile=True)}, ValueError, "leave compile out"),
        (
            {"sde": sg.RateNetwork([[0.5]], sigma=0.1)},
            ValueError,
            "steps of RateNetwork are part of the model",
        ),
        (
            {"sde": sg.ItoProcess(lambda x: -x, 0.0), "solver": sg.TorchDiffEq()},
            ValueError,
            "no steps that can be halved",
        ),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(change, error, words):
    given = {"sde": OU, "f": square, "trajectories": 100, "solver": None} | change
    sde, f = given.pop("sde"), given.pop("f")
    with pytest.raises(error, match=words):
        sg.extrapolate(sde, START, grid(4), f, **given, rng=0)


def test_a_solver_without_a_declared_order_is_refused():
    class Mine(sg.EulerMaruyama):
        orders = None

    with pytest.raises(ValueError, match="Mine declares no weak order for additive noise"):
        sg.extrapolate(OU, START, grid(4), square, trajectories=100, solver=Mine(), rng=0)


def test_states_that_are_lost_end_it():
    grows = sg.ItoProcess(lambda x: x**3 * 40, 0.1)
    with pytest.raises(sg.NonFiniteError, match="trajectories of block 0 are not finite"):
        sg.extrapolate(grows, START, grid(20), square, trajectories=100, rng=0)
    with pytest.raises(sg.NonFiniteError, match="f is not finite"):
        sg.extrapolate(OU, START, grid(20), lambda x: 1 / (0 * x), trajectories=100, rng=0)


def test_positions_and_velocities_are_moved_by_baoab():
    """The same bits as with BAOAB(), of weak order 2."""
    sde = sg.UnderdampedLangevin(sg.Quadratic(4.0))
    start = sde.state(torch.ones(1, 1, dtype=torch.float64), 0.0)

    def run(**options):
        return sg.extrapolate(
            sde,
            start,
            [0.0, 0.2, 0.4],
            lambda z: z[:, 0, 0] ** 2,
            trajectories=50,
            rng=1,
            **options,
        )

    said = run(solver=sg.BAOAB())
    assert run().order == said.order == 2
    assert torch.equal(run().value, said.value)
