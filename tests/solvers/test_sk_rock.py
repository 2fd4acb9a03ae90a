"""SK-ROCK: its stability polynomial, its law where drift and noise are stiff, and its orders."""

import math

import numpy as np
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
from sdegen.core.noise import Given

F64 = torch.float64


def factors(stages, rates):
    """What flows of these rates λh are multiplied by in one step."""
    rates = torch.as_tensor(rates, dtype=F64)[:, None]
    ode = sg.ItoProcess(lambda x: -rates * x, 0.0)
    x = torch.ones(len(rates), 1, dtype=F64)
    (after,) = sg.integrate(ode, sg.SKROCK(stages=stages), x, [0.0, 1.0])
    return after.flatten()


@pytest.mark.parametrize("stages", [1, 2, 3, 5, 10, 30, 100])
def test_the_stability_length_grows_as_the_square_of_the_stages(stages):
    """Asked: ≥ 0.3 s². At every rate up to the length a flow is damped; a little beyond, none."""
    length = sg.SKROCK(stages=stages).stability
    assert length >= 1.9 * stages**2
    inside = factors(stages, np.linspace(0.03 * length, length, 2000)).abs()
    assert float(inside.max()) < 0.98
    assert float(factors(stages, [1.06 * length]).abs()) > 1


@pytest.mark.parametrize("stages", [2, 7, 20])
def test_the_factor_of_a_flow_is_chebyshevs(stages):
    w0 = 1 + 0.05 / stages**2
    T = np.polynomial.chebyshev.Chebyshev.basis(stages)
    w1 = T(w0) / T.deriv()(w0)
    rates = np.linspace(0, (1 + w0) / w1, 100)
    expected = torch.tensor(T(w0 - w1 * rates) / T(w0))
    torch.testing.assert_close(factors(stages, rates), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("stages", [5, 20])
def test_the_mean_square_stays_bounded_as_far_as_that_of_the_equation(stages):
    """dX = −λX dt + μX dW, whose mean square decays for μ² < 2λ; exact, at 95 % of that."""
    length = sg.SKROCK(stages=stages).stability
    for rate in np.linspace(0.05, 1.0, 25) * length:
        mu = math.sqrt(0.95 * 2 * rate)
        sde = sg.ItoProcess(lambda x, k=rate: -k * x, lambda x, m=mu: m * x)
        step = torch.tensor([0.0, 1.0], dtype=F64)
        second = moments_of_linear_chain(sg.SKROCK(stages=stages), sde, step, 1, 1)[1]
        assert float(second[0, 0]) < 1


def test_weak_order_one_with_any_noise_and_the_right_limit():
    F = torch.tensor([[-0.7, 0.5], [-0.4, -0.9]], dtype=F64)
    B = torch.tensor([[[0.3, 0.4], [-0.2, 0.1]], [[0.2, 0.5], [0.4, -0.3]]], dtype=F64)
    sde = sg.ItoProcess(lambda x: x @ F.T, lambda x: torch.einsum("kij,nj->nik", B, x), channels=2)

    def whole(matrix):
        return torch.block_diag(matrix, torch.zeros(1, 1, dtype=F64))

    exact = moments_of_linear_sde(whole(F), [whole(b) for b in B], 1.0)[1]
    steps, seconds = (16, 32, 64), []
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        seconds.append(moments_of_linear_chain(sg.SKROCK(stages=4), sde, nodes, 2, 2)[1])
    errors = [float((m - exact).abs().max()) for m in seconds]
    assert slope([1 / n for n in steps], errors) == pytest.approx(1.0, abs=0.05)
    assert float((2 * seconds[-1] - seconds[-2] - exact).abs().max()) < 1e-4


def test_orders_with_additive_noise_and_a_drift_of_time():
    """dX = (cos t − X) dt + σ dW: the stages know their own times."""
    sde = sg.ItoProcess(lambda x, t: torch.cos(t) - x, 0.7)
    t = 1.0
    mean = (math.cos(t) + math.sin(t) - math.exp(-t)) / 2 + 2.0 * math.exp(-t)
    variance = ou_moments(1.0, 0.0, 0.7, 0.0, 0.25, t)[1]
    exact, steps, errors = torch.tensor([mean, variance]), (16, 32, 64), []
    for n in steps:
        nodes = torch.linspace(0, t, n + 1, dtype=F64)
        chain = linear_chain_moments(sg.SKROCK(stages=3), sde, nodes, 2.0, 0.25)
        errors.append(chain[-1] - exact)
    for error in torch.stack(errors).T:
        assert slope([1 / n for n in steps], error) == pytest.approx(1.0, abs=0.05)
    assert float((2 * errors[-1] - errors[-2]).abs().max()) < 2e-4
    strong = [strong_error_ou(sg.SKROCK(stages=3), n) for n in steps]
    assert slope([1 / n for n in steps], strong) == pytest.approx(1.0, abs=0.05)


def test_diffusion_on_a_grid_has_its_variance_at_steps_that_euler_does_not_survive():
    """A chain of 32 beads, λh up to 100: 8 stages; the variance of the slow modes is right."""
    n, h = 32, 25.0
    L = 2 * torch.eye(n, dtype=F64) - torch.eye(n, dtype=F64).roll(1, 0) - torch.eye(
        n, dtype=F64
    ).roll(-1, 0)  # fmt: skip
    L = L + 0.002 * torch.eye(n, dtype=F64)
    sde = sg.LinearSDE(L, 1.0)
    solver = sg.SKROCK(stages=8)
    assert h * float(torch.linalg.eigvalsh(L).max()) < solver.stability
    # the step is A x + R z: A by unit vectors, R by unit normals
    memory, eye, zero = solver.begin(sde, torch.tensor([0.0, h])), torch.eye(n, dtype=F64), None
    zero = torch.zeros(n, n, dtype=F64)
    A = solver.step(sde, eye, 0, None, memory)[0].T
    R = solver.step(sde, zero, 0, Given(eye), memory)[0].T
    C = torch.zeros(n, n, dtype=F64)
    for _ in range(400):
        C = A @ C @ A.T + R @ R.T
    exact = sde.stationary_covariance()
    # the mean over all beads is the slowest mode, λh = 0.05
    ones = torch.full((n,), n**-0.5, dtype=F64)
    assert float(ones @ C @ ones) == pytest.approx(float(ones @ exact @ ones), rel=0.03)
    assert float(C.diag().max()) < 1.05 * float(exact.diag().max())


@pytest.mark.parametrize(
    ("stages", "error", "words"),
    [(0, ValueError, "stages must be ≥ 1"), (201, ValueError, "must be ≤ 200"),
     (2.5, TypeError, "stages must be an int")],
)  # fmt: skip
def test_stages_that_make_no_sense_are_refused(stages, error, words):
    with pytest.raises(error, match=words):
        sg.SKROCK(stages=stages)


M = torch.tensor([[0.5, 0.0], [-0.3, 0.4]], dtype=F64)


class Correlated(sg.SDE):
    """Noise that only its class can add, √dt M z."""

    noise_structure = "general"
    noise = "additive"
    linear_part = torch.tensor(2.0, dtype=F64)

    def drift(self, x, t):
        return -2 * x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * (noise.normal() @ M.T)

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v @ (M @ M.T)


@pytest.mark.parametrize("solver", [sg.SKROCK(stages=4), sg.ImplicitEuler()], ids=repr)
def test_general_noise_is_that_of_the_same_matrix_as_channels(solver):
    written = sg.ItoProcess(lambda x: -2 * x, M, channels=2, linear_part=2.0)
    x0, times = torch.ones(50, 2, dtype=F64), torch.linspace(0, 1, 11)
    ends = [
        sg.simulate(sde, x0, times, solver=solver, rng=3).final for sde in (Correlated(), written)
    ]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)
