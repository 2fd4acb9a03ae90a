"""Signatures: what a function of the user's takes is read by the names of its arguments."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.signature import Signature, check_order

F64 = torch.float64
ONES = torch.ones(3, 1, dtype=F64)


def _wanted_by_torchsde(t, y):
    return -y + torch.sin(t)


class _Module(torch.nn.Module):
    def forward(self, t, x):
        return -x * t


# --- time before the state


@pytest.mark.parametrize(
    "function", [_wanted_by_torchsde, lambda t, x: -x, lambda time, state: -state, _Module()]
)
def test_time_before_the_state_is_refused_wherever_a_function_enters(function):
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    chain = sg.DDPM.discretize(vp, steps=5)
    for enter in (
        lambda: sg.ItoProcess(function, 1.0),
        lambda: sg.ItoProcess(lambda x: -x, function),
        lambda: sg.ReverseSDE(vp, function),
        lambda: chain.reverse(function),
        lambda: sg.ScoreModel(function, vp),
        lambda: sg.log_likelihood(vp, function, ONES),
        lambda: sg.composition.product([function, function]),
        lambda: sg.from_denoiser(function),
    ):
        with pytest.raises(TypeError, match=r"time before the state, but is called with \(x"):
            enter()


def test_the_cure_of_time_before_the_state_cures():
    with pytest.raises(TypeError, match=r"pass lambda x, t: _wanted_by_torchsde\(t, x\)"):
        sg.ItoProcess(_wanted_by_torchsde, 0.0)
    sde = sg.ItoProcess(lambda x, t: _wanted_by_torchsde(t, x), 0.0)
    times = torch.linspace(0, 2, 21, dtype=F64)
    found = sg.simulate(sde, ONES, times, solver=sg.Heun(100)).final
    # dy/dt = −y + sin t from 1
    expected = 0.5 * (math.sin(2) - math.cos(2)) + 1.5 * math.exp(-2)
    torch.testing.assert_close(found, expected * ONES, rtol=1e-6, atol=0)


def test_a_solver_of_noise_levels_is_asked_with_the_state_first():
    with pytest.raises(TypeError, match=r"takes \(sigma, x\), time before the state"):
        check_order(lambda sigma, x: x, "denoiser")
    check_order(lambda sigma, t: sigma, "score")  # a state may have any name
    check_order(torch.neg, "score")


# --- functions of time alone


def test_a_function_of_t_is_one_of_time():
    sde = sg.ItoProcess(lambda x: 0 * x, lambda t: 1 + t)
    assert sde.noise == "additive"
    assert sde.autonomous is None
    x0 = torch.zeros(40_000, 1)
    path = sg.simulate(sde, x0, torch.linspace(0, 2, 21), solver=sg.Heun(20), rng=0)
    # ∫ (1 + t)² dt = 26/3; the sample variance of a Gaussian has the error σ² √(2/n)
    assert abs(float(path.final.var()) - 26 / 3) < 4.42 * 26 / 3 * math.sqrt(2 / 40_000) + 1e-3


@pytest.mark.parametrize("drift", [lambda t: torch.cos(t), lambda t: math.cos(t)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_drift_of_t_alone_is_the_same_for_every_state(drift, dtype):
    sde = sg.ItoProcess(drift, 0.0)
    x0 = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=dtype)
    found = sg.simulate(sde, x0, [0.0, 1.0], solver=sg.Heun(200)).final
    assert found.dtype == dtype
    torch.testing.assert_close(found, x0 + math.sin(1.0), rtol=1e-5, atol=1e-5)


def test_a_drift_of_t_alone_may_have_the_shape_of_an_event():
    sde = sg.ItoProcess(lambda t: torch.stack([torch.cos(t), -torch.sin(t)]), 0.0)
    for batch in (1, 2, 5):
        x0 = torch.zeros(batch, 2, dtype=F64)
        found = sg.simulate(sde, x0, [0.0, 1.0], solver=sg.Heun(200)).final
        expected = torch.tensor([math.sin(1.0), math.cos(1.0) - 1], dtype=F64)
        torch.testing.assert_close(found, expected.expand(batch, 2), rtol=1e-5, atol=1e-5)


def test_times_of_each_trajectory_meet_their_own_states():
    sde = sg.ItoProcess(lambda t: t**2, lambda t: 1 + t)
    x, t = torch.zeros(2, 2, dtype=F64), torch.tensor([1.0, 3.0], dtype=F64)
    assert sde.drift(x, t).tolist() == [[1.0, 1.0], [9.0, 9.0]]
    assert sde.diffusion(x, t).tolist() == [[2.0, 2.0], [4.0, 4.0]]


def test_vectors_and_matrices_of_time_meet_their_own_states_too():
    # as many times as the array has numbers in its last axis, which would broadcast
    G = torch.arange(1.0, 7.0, dtype=F64).reshape(2, 3)
    x, t = torch.zeros(3, 2, dtype=F64), torch.tensor([1.0, 3.0, 5.0], dtype=F64)
    for matrix in (lambda t: (1 + t) * G, lambda t: (1 + t) * G[None]):
        sde = sg.ItoProcess(lambda x: -x, matrix, channels=3)
        torch.testing.assert_close(sde.diffusion(x, t), (1 + t)[:, None, None] * G)
    v = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    sde = sg.ItoProcess(lambda t: t * v, lambda t: (1 + t) * v)
    for event in ((3,), (3, 3)):
        y, times = torch.zeros(3, *event, dtype=F64), t.reshape(-1, *(1,) * len(event))
        torch.testing.assert_close(sde.drift(y, t), times * v.expand_as(y))
        torch.testing.assert_close(sde.diffusion(y, t), (1 + times) * v.expand_as(y))


def test_a_density_reads_the_noise_of_time_too():
    sde = sg.ItoProcess(lambda x: 0 * x, lambda t: 0.5 * (1 + t))
    grid = sg.Grid(-12.0, 12.0, 400)
    solved = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(0.0, 0.5), [0.0, 1.0, 2.0])
    torch.testing.assert_close(float(solved.at(-1).variance), 0.25 + 26 / 12, rtol=1e-3, atol=0)


# --- others


@pytest.mark.parametrize(
    ("function", "of_state", "of_time"),
    [
        (lambda x, t: x, True, True),
        (lambda x, time: x, True, True),
        (lambda x: x, True, False),
        (lambda y: y, True, False),
        (lambda t: t, False, True),
        (lambda time: time, False, True),
        (lambda x, t=0.0: x, True, True),
        (lambda x, k=2.0: x, True, False),
        (lambda t, k=2.0: t, False, True),
        (lambda x, *, t: x * t, True, True),
        (lambda *arguments: arguments[0], True, True),
        (torch.neg, True, False),
    ],
)
def test_functions_are_read_by_the_names_of_their_arguments(function, of_state, of_time):
    read = Signature.of(function, "drift")
    assert (read.of_state, read.of_time) == (of_state, of_time)
    assert read.function(ONES, torch.tensor(2.0, dtype=F64)).shape == ONES.shape


@pytest.mark.parametrize("function", [lambda: 1.0, lambda x, t, k: x, lambda x, *, k: x])
def test_what_takes_other_arguments_is_refused(function):
    with pytest.raises(TypeError, match=r"drift takes \(x, t\), \(x\) or \(t\), but this one"):
        sg.ItoProcess(function, 1.0)


@pytest.mark.parametrize("order", ["s, y", "tau, state", "a, x"])
def test_a_state_in_the_second_place_is_no_time(order):
    function = eval(f"lambda {order}: -{order.split(', ')[1]}")
    with pytest.raises(TypeError, match="time before the state"):
        sg.ItoProcess(function, 0.0)


def test_two_coordinates_are_one_state():
    with pytest.raises(TypeError, match=r"takes \(x, y\), but its second argument is the time"):
        sg.ItoProcess(lambda x, y: x - y, 0.0)
    rotation = sg.ItoProcess(lambda x: torch.stack([x[:, 0] - x[:, 1], x[:, 0] + x[:, 1]], 1), 0.0)
    moved = sg.simulate(rotation, torch.ones(1, 2, dtype=F64), [0.0, 0.1]).final
    torch.testing.assert_close(moved, torch.tensor([[1.0, 1.2]], dtype=F64))
