"""Local velocities and currents by a score, beside exact ones, grids and learned scores."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov

import sdegen as sg

F64 = torch.float64


def normal(*shape):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(0))


def test_a_gaussian_of_a_linear_process_moves_as_its_moments_do():
    """N(m, C) under dX = −A X dt + B dW: ν = −A x + D C⁻¹(x − m), with channels."""
    A = torch.tensor([[1.0, 0.7], [-0.4, 1.5]], dtype=F64)
    B = torch.tensor([[1.0, 0.0, 0.3], [0.2, 0.8, -0.5]], dtype=F64)
    C = torch.tensor([[0.9, 0.2], [0.2, 0.5]], dtype=F64)
    m = torch.tensor([0.4, -0.3], dtype=F64)
    x = m + normal(50, 2) @ torch.linalg.cholesky(C).T
    inverse = torch.linalg.inv(C)
    score = lambda x, t: -(x - m) @ inverse  # noqa: E731
    found = sg.local_velocity(sg.LinearSDE(A, B), x, score)
    torch.testing.assert_close(found, -x @ A.T + (x - m) @ inverse @ (B @ B.T) / 2)
    # the continuity equation: with M the matrix of ν, dC/dt = M C + C Mᵀ
    slope = torch.linalg.lstsq(x - m, found + m @ A.T).solution.T
    torch.testing.assert_close(slope @ C + C @ slope.T, -A @ C - C @ A.T + B @ B.T)


def test_at_rest_it_goes_round_and_at_equilibrium_it_does_not():
    A = np.array([[1.0, 2.0], [-2.0, 1.0]])
    C = torch.from_numpy(solve_continuous_lyapunov(A, np.eye(2)))
    x = normal(20, 2)
    score = lambda x, t: -x @ torch.linalg.inv(C)  # noqa: E731
    found = sg.local_velocity(sg.LinearSDE(A, 1.0), x, score)
    torch.testing.assert_close(found, 2 * torch.stack([-x[:, 1], x[:, 0]], 1))
    well = sg.Langevin(sg.DoubleWell(), 0.4)
    still = sg.local_velocity(well, x, lambda x, t: (x - x**3) / 0.4)
    assert float(still.abs().max()) < 1e-12


def test_multiplicative_noise_takes_the_divergence_of_its_covariance():
    """g² = 2 + x²/2 with f = x/2 − D U′ rests at e^{−U}, whatever moves: a force F moves it."""
    x = normal(30, 1)
    sde = sg.ItoProcess(
        lambda x: x / 2 - (1 + x**2 / 4) * x + 0.6, lambda x: (2 + x**2 / 2).sqrt()
    )
    found = sg.local_velocity(sde, x, lambda x, t: -x)
    torch.testing.assert_close(found, torch.full_like(x, 0.6))
    p = lambda x, t: -0.5 * x[:, 0].square() - 0.5 * math.log(2 * math.pi)  # noqa: E731
    j = sg.current(sde, x, lambda x, t: -x, p)
    torch.testing.assert_close(j, 0.6 * torch.exp(p(x, None))[:, None])


def test_in_phase_space_the_current_of_equilibrium_follows_hamilton():
    sde = sg.UnderdampedLangevin(sg.Quadratic(), friction=0.8, temperature=0.5, mass=2.0)
    z = normal(20, 2, 1)
    widths = torch.tensor([0.5, 0.25], dtype=F64)[:, None]
    found = sg.local_velocity(sde, z, lambda z, t: -z / widths)
    torch.testing.assert_close(found, torch.stack([z[:, 1], -z[:, 0] / 2], 1))


def test_it_is_the_current_of_the_grid():
    """A turning drift that no potential has, of a density that is not at rest."""

    def drift(x):
        u, v = x[:, :1], x[:, 1:]
        return torch.cat([u - u**3 - v, u - v], 1)

    sde = sg.ItoProcess(drift, 0.9, noise="additive", autonomous=True)
    plane = sg.FokkerPlanck2D(sde, (sg.Grid(-3.5, 3.5, 56), sg.Grid(-3.5, 3.5, 56)))
    density = plane.gaussian((0.3, 0.0), [[0.4, 0.1], [0.1, 0.3]])
    inverse = torch.linalg.inv(torch.tensor([[0.4, 0.1], [0.1, 0.3]], dtype=F64))
    mean = torch.tensor([0.3, 0.0], dtype=F64)
    x = torch.cartesian_prod(density.x, density.y)
    log_p = density.p.clamp_min(1e-300).log().flatten()
    j = sg.current(sde, x, lambda x, t: -(x - mean) @ inverse, lambda x, t: log_p)
    by_grid = torch.stack(list(plane.current(density)), -1).reshape(-1, 2)
    assert float((j - by_grid).abs().max()) < 1e-3 * float(by_grid.abs().max())


def test_runs_without_noise_and_towards_smaller_times_are_read_as_they_go():
    x = normal(5, 2)
    flow = sg.ItoProcess(lambda x: -2 * x, 0.0)
    assert torch.equal(sg.local_velocity(flow, x, lambda x, t: 1 / 0 * x), -2 * x)
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    law = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=0.5).noised(vp)
    back = sg.ReverseSDE(vp, law.score)
    t = 0.4
    there, here = (sg.local_velocity(s, x, law.score, time=t) for s in (vp, back))
    torch.testing.assert_close(here, -there)  # the same density, filmed backwards


def test_a_learned_score_is_asked_at_the_time():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    model = sg.ScoreModel(sg.MLP(dim=2, width=8, depth=1, rng=0), vp)
    x, t = normal(6, 2), torch.tensor(0.3, dtype=F64)
    found = sg.local_velocity(vp, x, model.score, time=0.3)
    right = vp.drift(x, t) - 0.5 * vp.diffusion(x, t) ** 2 * model.score(x, t).detach()
    torch.testing.assert_close(found, right)
    with pytest.raises(ValueError, match="the score does not exist at t = 0"):
        sg.local_velocity(vp, x, model.score)


def test_what_has_no_current_is_refused_by_name():
    x, score = normal(6, 1), lambda x, t: -x
    ou = sg.OrnsteinUhlenbeck()
    with pytest.raises(ValueError, match=r"score must return a tensor of shape \(6, 1\)"):
        sg.local_velocity(ou, x, lambda x, t: x[:, 0])
    with pytest.raises(ValueError, match="score must be finite where the samples are, but at t"):
        sg.local_velocity(ou, x, lambda x, t: x / 0)
    with pytest.raises(ValueError, match="score must be finite where the samples are, but at t"):
        sg.entropy_production(ou, x, lambda x, t: x / 0)
    with pytest.raises(ValueError, match="the local velocity needs finite floats"):
        sg.local_velocity(ou, x[:, 0], score)
    with pytest.raises(ValueError, match="has integer times"):
        sg.local_velocity(sg.DDPM(torch.full((4,), 0.1)), x, score, time=1.0)
    jumps = sg.JumpDiffusion(ou, sg.CompoundPoisson(1.0, lambda z: z))
    with pytest.raises(ValueError, match="reads drift and diffusion alone"):
        sg.local_velocity(jumps, x, score)
    with pytest.raises(ValueError, match=r"log_density must return a tensor of shape \(6,\)"):
        sg.current(ou, x, score, lambda x, t: x)
