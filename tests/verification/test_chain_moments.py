"""Means and covariances of chains, against recursions of other ways and laws at rest."""

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

import sdegen as sg
from sdegen.core.fixed_steps import OneStep

F64 = torch.float64
A = [[1.0, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.2, 0.0, 1.5]]
B = [[0.7, 0.1], [-0.9, 0.5], [0.3, 0.4]]  # d = 3, m = 2
C = [0.5, -0.2, 1.0]
SDE = sg.LinearSDE(A, B, C)
DIAGONAL = sg.LinearSDE(A, [0.7, 0.9, 0.3], C)
START = [[0.5, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.0]]


def euler(dt):
    """M, b and S of a step in 50 digits."""
    eye, a, h = mp.eye(3), mp.matrix(A), mp.mpf(dt)
    return eye - a * h, mp.matrix(C) * h, mp.matrix(B) * mp.sqrt(h)


def array(matrix):
    return torch.tensor(np.array(matrix.tolist(), dtype=float), dtype=F64)


def test_the_law_of_a_chain_is_the_recursion_in_fifty_digits():
    with mp.workdps(50):
        matrix, shift, spread = euler(0.03125)
        mean, cov = mp.matrix([1.0, 0.0, -1.0]), mp.matrix(START)
        for _ in range(64):
            mean = matrix * mean + shift
            cov = matrix * cov * matrix.T + spread * spread.T
        mean, cov = array(mean)[:, 0], array(cov)
    times = torch.linspace(0.0, 2.0, 9, dtype=F64)
    chain = sg.ChainMoments(SDE, 3, sg.EulerMaruyama(substeps=8))
    path = chain.run([1.0, 0.0, -1.0], START, times)
    assert path.means.shape == (9, 3)
    torch.testing.assert_close(path.final.mean, mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(path.final.covariance, cov, rtol=1e-12, atol=1e-13)
    law = chain.transition(0.0, 0.25).after(sg.ChainMoments(SDE, 3).run(C, START, [0, 1]).final)
    assert law.covariance.shape == (3, 3)


def test_a_chain_at_rest_solves_its_lyapunov_equation():
    """C = M C Mᵀ + S Sᵀ by scipy, and the mean is that of the process."""
    law = sg.ChainMoments(SDE, 3).stationary(0.1)
    matrix, _, spread = (array(part).numpy() for part in euler(0.1))
    expected = torch.from_numpy(solve_discrete_lyapunov(matrix, spread @ spread.T))
    torch.testing.assert_close(law.covariance, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(law.mean, SDE.stationary_mean(), rtol=1e-12, atol=1e-13)


def test_short_steps_come_to_the_lyapunov_equation():
    """The bias of Euler at rest halves with its steps; extrapolated it is of second order."""
    exact = SDE.stationary_covariance()
    found = [sg.ChainMoments(SDE, 3).stationary(dt).covariance for dt in (0.02, 0.01, 0.005)]
    biases = [float((cov - exact).norm()) for cov in found]
    assert 1.9 < biases[1] / biases[2] < 2.1
    once = [2 * fine - rough for rough, fine in pairwise(found)]
    second = [float((cov - exact).norm()) for cov in once]
    assert 3.6 < second[0] / second[1] < 4.4
    assert float(((4 * once[1] - once[0]) / 3 - exact).norm()) < 1e-5 * float(exact.norm())


@pytest.mark.parametrize("sde", [SDE, DIAGONAL], ids=["channels", "diagonal"])
def test_a_chain_of_heun_is_its_formula(sde):
    """M = 1 − A h + A² h²/2 and S = (1 − A h/2) B √h; its bias at rest falls by 4."""
    h = 0.1
    a = np.array(A)
    b = np.array(B) if sde is SDE else np.diag([0.7, 0.9, 0.3])
    matrix = np.eye(3) - a * h + a @ a * h * h / 2
    spread = (np.eye(3) - a * h / 2) @ b * math.sqrt(h)
    expected = torch.from_numpy(solve_discrete_lyapunov(matrix, spread @ spread.T))
    law = sg.ChainMoments(sde, 3, sg.Heun()).stationary(h)
    torch.testing.assert_close(law.covariance, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sde", [SDE, DIAGONAL], ids=["channels", "diagonal"])
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (sg.EulerMaruyama(), 1),
        (sg.Milstein(), 1),
        (sg.SKROCK(), 1),
        (sg.ImplicitEuler(), 1),
        (sg.Heun(), 2),
        (sg.SRA(), 2),
        (sg.DRI1(), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_bias_at_rest_has_the_weak_order_that_is_declared(sde, solver, order):
    """Exactly, without a sample: slope and limit of each solver on additive noise."""
    exact = sde.stationary_covariance()
    found = [sg.ChainMoments(sde, 3, solver).stationary(h).covariance for h in (0.02, 0.01)]
    biases = [float((cov - exact).norm()) for cov in found]
    assert solver.orders.additive[0] == order
    assert abs(math.log2(biases[0] / biases[1]) - order) < 0.05
    limit = (2**order * found[1] - found[0]) / (2**order - 1)
    assert float((limit - exact).norm()) < 0.02 * biases[1]


def test_chains_of_other_dynamics():
    """A Gaussian path, a sampler with the exact score of Gaussian data, and rates of time."""
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    data = sg.GaussianMixture([1.0], [[0.5, -1.0]], covariances=[[[1.0, 0.3], [0.3, 0.5]]])
    reverse = sg.ReverseSDE(vp, data.noised(vp).score)
    times = torch.linspace(1.0, 1e-3, 201, dtype=F64)
    ends = [
        sg.ChainMoments(reverse, 2, sg.DDIM(substeps=n)).run([0.0, 0.0], 1.0, times).final
        for n in (1, 2)
    ]
    exact = vp.moments([0.5, -1.0], [[1.0, 0.3], [0.3, 0.5]], [0.0, 1e-3]).final
    gaps = [float((end.covariance - exact.covariance).norm()) for end in ends]
    assert 1.7 < gaps[0] / gaps[1] < 2.3
    limit = 2 * ends[1].covariance - ends[0].covariance
    assert float((limit - exact.covariance).norm()) < 0.1 * gaps[1]
    timed = sg.LinearSDE(lambda t: [[1 + t]], lambda t: [[1.0, t]], lambda t: [t])
    path = sg.ChainMoments(timed, 1).run(2.0, 0.0, [0.0, 0.5, 1.0])
    # x → x (1 − ½ · 1) and then x (1 − ½ · 1.5) + ½ · 0.5; noise ½ (1 + t²) each
    assert float(path.final.mean) == pytest.approx(1.0 * 0.25 + 0.25, rel=1e-14)
    assert float(path.final.covariance) == pytest.approx(0.5 * 0.25**2 + 0.5 * 1.25, rel=1e-14)


def test_paths_have_the_moments_of_their_chain():
    """Of 10⁵ paths of `simulate`, within 4.4 standard errors."""
    n, times = 100_000, torch.linspace(0.0, 1.0, 6, dtype=F64)
    x0 = torch.tensor([[1.0, 0.0, -1.0]], dtype=F64).expand(n, 3)
    x = sg.simulate(SDE, x0, times, rng=0, keep_path=False).final
    law = sg.ChainMoments(SDE, 3).run(x0[0], 0.0, times).final
    variances = law.covariance.diag()
    assert bool(((x.mean(0) - law.mean).abs() < 4.4 * (variances / n).sqrt()).all())
    error = ((torch.outer(variances, variances) + law.covariance.square()) / n).sqrt()
    assert bool(((torch.cov(x.T) - law.covariance).abs() < 4.4 * error).all())


def test_gradients_flow_through_the_moments_of_a_chain():
    """dC/dk of C = σ²/(2k − k² h), the variance of Euler's chain at rest."""
    k = torch.tensor(1.3, dtype=F64, requires_grad=True)
    cov = sg.ChainMoments(sg.OrnsteinUhlenbeck(k, 0.0, 0.9), 1).stationary(0.1).covariance
    (slope,) = torch.autograd.grad(cov.sum(), k)
    expected = -0.81 * (2 - 2 * 1.3 * 0.1) / (2 * 1.3 - 1.69 * 0.1) ** 2
    assert float(slope) == pytest.approx(expected, rel=1e-12)


class Correlated(sg.SDE):
    """General noise: what it adds is known, and no G."""

    noise, noise_structure, autonomous = "additive", "general", True

    def drift(self, x, t):
        return -x

    def add_noise(self, after, x, t, root_dt, noise):
        z = noise.normal()
        return after + root_dt * torch.stack([z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1]], 1)

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v @ torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=v.dtype)


def test_a_chain_of_general_noise():
    """x → (1 − h) x + √h L z comes to L Lᵀ/(2 − h)."""
    cov = sg.ChainMoments(Correlated(), 2).stationary(0.1).covariance
    expected = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=F64) / 1.9
    torch.testing.assert_close(cov, expected, rtol=1e-13, atol=1e-14)


class TwoDraws(OneStep):
    """Half of the noise by each of two draws."""

    noise_structures = ("diagonal", "channels")

    def step(self, sde, x, i, noise, memory):
        t, _, dt, root_dt = memory[i]
        after = sg.update(x, sde.drift(x, t), dt)
        for share in (0.6, 0.8):
            after = sde.add_noise(after, x, t, share * root_dt, noise)
        return after, memory


def test_a_step_may_draw_more_than_once():
    one, two = (
        sg.ChainMoments(SDE, 3, s).stationary(0.1) for s in (sg.EulerMaruyama(), TwoDraws())
    )
    torch.testing.assert_close(two.covariance, one.covariance, rtol=1e-13, atol=1e-14)


def test_what_has_no_moments_of_its_own_is_refused():
    cubic = sg.ItoProcess(lambda x: x - x**3, 1.0)
    driven = sg.LinearSDE([[1.0]], 1.0, lambda t: [t])
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    flow = sg.ReverseSDE(vp, lambda x, t: -x, 0.0)
    adams = sg.ChainMoments(flow, 1, sg.ExponentialAdams(2))
    for call, said in (
        (lambda: sg.ChainMoments(cubic, 1).stationary(0.1), "EulerMaruyama on ItoProcess is not"),
        (
            lambda: sg.ChainMoments(sg.ItoProcess(lambda x: -x, lambda x: x), 1).run(1, 0, [0, 1]),
            "on ItoProcess is not linear",
        ),
        (lambda: sg.ChainMoments(SDE, 3).stationary(3.0), "a mode grows by 3.672.* smaller steps"),
        (lambda: sg.ChainMoments(SDE, 3).stationary(0.0), "step must be finite and > 0"),
        (
            lambda: sg.ChainMoments(SDE, 2).run([0, 0], 0.0, [0, 1]),
            r"x must have shape \(batch, 3",
        ),
        (lambda: sg.ChainMoments(SDE, 3).run([0, 0], 0.0, [0, 1]), "mean must have 3 coordinates"),
        (lambda: sg.ChainMoments(driven, 1).stationary(0.1), "does not say that it is the same"),
        (lambda: sg.ChainMoments(SDE, 0), "dimension must be ≥ 1"),
        (lambda: adams.run(0.0, 1.0, [1.0, 0.7, 0.4]), "ExponentialAdams remembers earlier steps"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    for bad, said in (
        (lambda: sg.ChainMoments("SDE", 3), "dynamics must be an SDE"),
        (lambda: sg.ChainMoments(SDE, 3, sg.TorchDiffEq()), "need a solver with fixed steps"),
    ):
        with pytest.raises(TypeError, match=said):
            bad()
