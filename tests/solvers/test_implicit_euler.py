"""Implicit Euler: stable where the linear part is stiff, its variance exact, and its orders."""

import math

import pytest
import torch
from exact import (
    linear_chain_moments,
    moments_of_linear_chain,
    moments_of_linear_sde,
    ou_moments,
    slope,
    strong_error_ou,
)

import sdegen as sg

F64 = torch.float64


@pytest.mark.parametrize("theta", [1.0, 0.75, 0.5])
def test_at_a_thousand_rates_a_step_it_is_stable_and_has_the_variance_of_its_formula(theta):
    """λh = 10³: σ²/2λ · 1/(1 + (θ − ½) λh), and the mean decays by 1 − λh/(1 + θλh)."""
    rate, h, sigma = 1e4, 0.1, 1.5
    sde, nodes = sg.OrnsteinUhlenbeck(rate, 0.0, sigma), torch.tensor([0.0, h], dtype=F64)
    chain = linear_chain_moments(sg.ImplicitEuler(theta=theta), sde, nodes, 1.0, 0.0)
    a, added = map(float, chain[1])
    assert a == pytest.approx(1 - rate * h / (1 + theta * rate * h), rel=1e-11, abs=1e-12)
    assert abs(a) < 1
    at_rest = added / (1 - a * a)
    formula = sigma**2 / (2 * rate) / (1 + (theta - 0.5) * rate * h)
    assert at_rest == pytest.approx(formula, rel=1e-11)
    if theta == 0.5:
        exact = float(sg.LinearSDE([[rate]], sigma).stationary_covariance()[0, 0])
        assert at_rest == pytest.approx(exact, rel=1e-11)


def test_the_variance_at_rest_is_right_to_first_order():
    """Of a stiff mode, λh from 1000 down to 0.01: σ²/2λ in the limit, at slope 1."""
    rate, errors, steps = 1e4, [], [4e-6, 2e-6, 1e-6]
    for h in steps:
        nodes = torch.tensor([0.0, h], dtype=F64)
        sde = sg.OrnsteinUhlenbeck(rate, 0.0, 1.0)
        a, added = map(float, linear_chain_moments(sg.ImplicitEuler(), sde, nodes, 1.0, 0.0)[1])
        errors.append(added / (1 - a * a) * 2 * rate - 1)
    assert slope(steps, errors) == pytest.approx(1.0, abs=0.02)
    assert abs(2 * errors[-1] - errors[-2]) < 1e-4


@pytest.mark.parametrize(("theta", "order"), [(1.0, 1), (0.5, 2)])
def test_weak_order_of_a_linear_drift_and_the_right_limit(theta, order):
    ou, steps = (1.0, 0.5, math.sqrt(2)), (16, 32, 64, 128)
    exact, errors = torch.tensor(ou_moments(*ou, 2.0, 0.25, 1.0)), []
    for n in steps:
        nodes, sde = torch.linspace(0, 1, n + 1, dtype=F64), sg.OrnsteinUhlenbeck(*ou)
        chain = linear_chain_moments(sg.ImplicitEuler(theta=theta), sde, nodes, 2.0, 0.25)
        errors.append(chain[-1] - exact)
    for error in torch.stack(errors).T:
        assert slope([1 / n for n in steps], error) == pytest.approx(order, abs=0.05)
    factor = 2**order
    assert float((factor * errors[-1] - errors[-2]).abs().max()) / (factor - 1) < 5e-5
    strong = [strong_error_ou(sg.ImplicitEuler(theta=theta), n) for n in steps]
    assert slope([1 / n for n in steps], strong) == pytest.approx(1.0, abs=0.05)


def test_weak_order_one_with_a_part_of_the_drift_and_multiplicative_channels():
    """L is half of the drift and turned against it; what is left is the rest."""
    F = torch.tensor([[-0.7, 0.5], [-0.4, -0.9]], dtype=F64)
    B = torch.tensor([[[0.3, 0.4], [-0.2, 0.1]], [[0.2, 0.5], [0.4, -0.3]]], dtype=F64)
    sde = sg.ItoProcess(
        lambda x: x @ F.T,
        lambda x: torch.einsum("kij,nj->nik", B, x),
        channels=2,
        linear_part=[[0.5, 0.2], [0.0, 0.6]],
    )

    def whole(matrix):
        return torch.block_diag(matrix, torch.zeros(1, 1, dtype=F64))

    exact = moments_of_linear_sde(whole(F), [whole(b) for b in B], 1.0)[1]
    steps, seconds = (16, 32, 64), []
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        seconds.append(moments_of_linear_chain(sg.ImplicitEuler(), sde, nodes, 2, 2)[1])
    errors = [float((m - exact).abs().max()) for m in seconds]
    assert slope([1 / n for n in steps], errors) == pytest.approx(1.0, abs=0.06)
    assert float((2 * seconds[-1] - seconds[-2] - exact).abs().max()) < 2e-4


def test_a_stiff_matrix_is_one_backward_step():
    """x' = (1 + hA)⁻¹ (x + h c + √h B z) of a LinearSDE, λh = 10³, against a solve."""
    A = torch.tensor([[1e4, 0.0], [1.0, 1.0]], dtype=F64)
    G, c, h = (
        torch.tensor([[20.0, 1.0], [0.0, 1.0]], dtype=F64),
        torch.tensor([3.0, 1.0]).double(),
        0.1,
    )
    sde, x = sg.LinearSDE(A, G, c), torch.randn(6, 2, dtype=F64, generator=_seeded())
    draws = sg.Noise(x, rng=5, channels=sde.channels)
    z = sg.Noise(x, rng=5, channels=sde.channels).normal()
    (after,) = sg.integrate(sde, sg.ImplicitEuler(), x, [0.0, h], draws)
    moved = x + h * c + math.sqrt(h) * z @ G.T
    expected = torch.linalg.solve(torch.eye(2, dtype=F64) + h * A, moved.T).T
    torch.testing.assert_close(after, expected, rtol=1e-10, atol=1e-12)


def _seeded():
    return torch.Generator().manual_seed(0)


def test_a_number_a_vector_and_a_matrix_are_one_linear_part():
    ends = []
    for L in (30.0, [30.0, 30.0, 30.0, 30.0], 30.0 * torch.eye(4)):
        sde = sg.ItoProcess(lambda x: -30 * x + torch.sin(x), 0.4, linear_part=L)
        x0, times = torch.ones(3, 2, 2, dtype=F64), torch.linspace(0, 1, 11)
        ends.append(sg.simulate(sde, x0, times, solver=sg.ImplicitEuler(), rng=1).final)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-13, atol=1e-15)


def test_a_matrix_is_inverted_once_for_a_length_of_steps(monkeypatch):
    calls, own = [], torch.linalg.inv
    monkeypatch.setattr(torch.linalg, "inv", lambda A: calls.append(1) or own(A))
    sde = sg.ItoProcess(lambda x: -x, 0.4, linear_part=torch.eye(3))
    x, times = torch.ones(2, 3, dtype=F64), torch.linspace(0, 1, 101, dtype=F64)
    [*sg.integrate(sde, sg.ImplicitEuler(), x, times, sg.Noise(x, 0))]
    assert len(calls) == 1
    [*sg.integrate(sde, sg.ImplicitEuler(), x, [0.0, 0.1, 0.3, 0.5], sg.Noise(x, 0))]
    assert len(calls) == 3


def test_with_half_of_the_linear_part_at_either_end_the_covariance_at_rest_is_exact():
    """By the moments of the chain, λh = 10³, a fast and a slow mode; with θ = 1 the slow one."""
    sde = sg.LinearSDE([[1e4, 0.0], [1.0, 1.0]], [[20.0, 1.0], [0.0, 1.0]])
    exact = sde.stationary_covariance()
    half = sg.ChainMoments(sde, 2, sg.ImplicitEuler(theta=0.5)).stationary(0.1).covariance
    torch.testing.assert_close(half, exact, rtol=1e-9, atol=0)
    whole = sg.ChainMoments(sde, 2, sg.ImplicitEuler()).stationary(0.1).covariance
    assert float(whole[1, 1]) == pytest.approx(float(exact[1, 1]) / 1.05, rel=1e-4)


def test_steps_that_differ_by_rounding_are_of_one_length():
    sde, nodes = sg.OrnsteinUhlenbeck(50.0), torch.linspace(0, 1, 1001, dtype=F64)
    assert len(set(nodes.diff().tolist())) > 1
    assert len(set(sg.ImplicitEuler().begin(sde, nodes).lengths)) == 1


def test_dynamics_without_a_linear_part_are_refused():
    with pytest.raises(ValueError, match="ItoProcess has none: pass ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 0.1), torch.ones(2, 1), [0.0, 1.0],
            solver=sg.ImplicitEuler(), rng=0,
        )  # fmt: skip


def test_a_mode_that_grows_by_more_than_a_step_can_follow_is_refused():
    growing = sg.ItoProcess(lambda x: 3 * x, 0.0, linear_part=-3.0)
    x0 = torch.ones(2, 1, dtype=F64)
    with pytest.raises(ValueError, match=r"λh = -1\.5 must be above -1"):
        sg.simulate(growing, x0, [0.0, 0.5, 1.0], solver=sg.ImplicitEuler())
    end = sg.simulate(growing, x0, [0.0, 0.1], solver=sg.ImplicitEuler(100)).final
    assert float(end[0]) == pytest.approx(math.exp(0.3), rel=2e-3)
    decays = sg.OrnsteinUhlenbeck(3.0, 0.0, 0.0)  # backwards it grows
    with pytest.raises(ValueError, match="take shorter steps"):
        sg.simulate(decays, x0, [1.0, 0.5], solver=sg.ImplicitEuler())


@pytest.mark.parametrize(
    ("L", "error", "words"),
    [
        ([[1.0, 2.0]], ValueError, "linear_part must be a number, one for each"),
        (float("nan"), ValueError, "linear_part must be finite"),
        ("stiff", TypeError, "linear_part must be a number, one for each"),
    ],
)
def test_a_linear_part_that_is_none_is_refused(L, error, words):
    with pytest.raises(error, match=words):
        sg.ItoProcess(lambda x: -x, 0.1, linear_part=L)


def test_a_linear_part_of_another_size_is_refused():
    sde = sg.ItoProcess(lambda x: -x, 0.1, linear_part=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"shape \(3,\) for states of 2 numbers"):
        sg.simulate(sde, torch.ones(4, 2), [0.0, 1.0], solver=sg.ImplicitEuler(), rng=0)


@pytest.mark.parametrize("theta", [0.4, 1.1, True])
def test_theta_outside_its_range_is_refused(theta):
    with pytest.raises((ValueError, TypeError), match="theta must be"):
        sg.ImplicitEuler(theta=theta)
