import pytest
import torch
from exact import affine_run_moments, noised_gaussian

import sdegen as sg

F64 = torch.float64


@pytest.mark.parametrize("std", [0.25, 1.0])
@pytest.mark.parametrize("solver", [sg.Heun(), sg.ExponentialAdams(3, "v"), sg.DDIM()])
def test_denoising_a_gaussian_only_turns_the_error_round(std, solver):
    sde, noised = noised_gaussian(1.0, std, t_min=1e-2)
    flow, times = sg.ReverseSDE(sde, noised.score, eta=0.0), sg.timesteps.log_snr(sde, 400)
    start = [float(m) for m in noised.moments(1.0)]
    t = torch.tensor(sde.t_min, dtype=F64)
    alpha, rho2 = float(sde.alpha(t)), float((sde.sigma(t) / sde.alpha(t)) ** 2)
    left = affine_run_moments(solver, flow, times, *start)
    done = affine_run_moments(sg.FinalDenoising(solver), flow, times, *start)
    # Tweedie contracts the variance at t_min, whatever it is, by s⁴/(s² + ρ²)² of itself
    factor = std**4 / (std**2 + rho2) ** 2
    assert float(done[1]) == pytest.approx(float(left[1]) / alpha**2 * factor, rel=1e-10)
    assert float(done[0]) == pytest.approx(1.0, abs=2e-2 if solver == sg.Heun() else 1e-9)
    if solver == sg.ExponentialAdams(3, "v"):
        # so that, from the law at t_min, it ends as far below s² as the noise was above it
        assert float(done[1]) == pytest.approx(std**2 / (1 + rho2 / std**2), rel=1e-4)
        assert float(left[1]) / alpha**2 == pytest.approx(std**2 + rho2, rel=1e-4)


def test_denoising_finds_data_that_are_two_points():
    # there the noise at t_min was all error: 0.066 of it, and none after the mean is taken
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    points = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=1e-6).noised(sde)
    x = sde.prior((400, 1), rng=0, dtype=F64)
    dynamics, times = sg.ReverseSDE(sde, points.score), sg.timesteps.log_snr(sde, 50)
    left = sg.simulate(dynamics, x, times, solver=sg.DDIM(), rng=1).final
    solver = sg.FinalDenoising(sg.DDIM())
    done = sg.simulate(dynamics, x, times, solver=solver, rng=1)
    noise = float(sde.sigma(times[-1]))
    assert float((done.final.abs() - 1).abs().max()) < 1e-9
    spread = float((left.abs() - float(sde.alpha(times[-1]))).square().mean().sqrt())
    assert spread == pytest.approx(noise, rel=0.15)  # 4.2 standard errors of 400 draws
    assert done.nfe == 51
    one = sg.simulate(dynamics, x, sde.time_grid(1), solver=solver, rng=1)
    assert one.nfe == 2


def test_substeps_and_stirring_are_those_of_the_solver():
    sde, noised = noised_gaussian(t_min=1e-2)
    flow, x = sg.ReverseSDE(sde, noised.score, eta=0.0), torch.ones(3, 1, dtype=F64)
    run = sg.simulate(flow, x, sde.time_grid(4), solver=sg.FinalDenoising(sg.DDIM(substeps=3)))
    assert run.nfe == 13
    assert run.states.shape == (5, 3, 1)
    plain = sg.simulate(flow, x, sde.time_grid(4), solver=sg.DDIM(substeps=3))
    assert torch.equal(run.states[:-1], plain.states[:-1])
    churned = sg.FinalDenoising(sg.KarrasHeun(sg.Churn(5.0)))
    ends = [sg.simulate(flow, x, sde.time_grid(4), solver=churned, rng=k).final for k in (0, 1)]
    assert not torch.equal(*ends)


def test_refusals():
    sde, noised = noised_gaussian()
    flow, x = sg.ReverseSDE(sde, noised.score, eta=0.0), torch.zeros(2, 1, dtype=F64)
    with pytest.raises(
        ValueError, match=r"end at t = 1, in noise.*pass the solver itself, DDIM\("
    ):
        sg.simulate(flow, x, sde.time_grid(3).flip(0), solver=sg.FinalDenoising())
    with pytest.raises(ValueError, match=r"FinalDenoising needs the α and σ.*not ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 0.0), x, [1.0, 0.5], solver=sg.FinalDenoising(sg.Heun())
        )
    with pytest.raises(ValueError, match=r"solver must end .* which FinalDenoising replaces"):
        sg.FinalDenoising(sg.FinalDenoising())
    with pytest.raises(TypeError, match=r"solver must be a solver, .* class: pass DDIM\(\)"):
        sg.FinalDenoising(sg.DDIM)
    for other in (sg.AdaptiveHeun(), sg.TorchDiffEq()):
        with pytest.raises(TypeError, match=rf"fixed steps, .* but is {type(other).__name__}"):
            sg.FinalDenoising(other)


def test_a_chain_denoises_already_and_says_so():
    """Following the advice ends with Tweedie's mean, for either kind of chain."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    points = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=1e-6).noised(sde)
    x = sde.prior((50, 1), rng=0, dtype=F64)
    chain = sg.DDPM.discretize(sde, 40)
    k = torch.arange(41.0).flip(0)
    for solver in (sg.FinalDenoising(sg.EulerMaruyama()), sg.FinalDenoising()):
        with pytest.raises(ValueError, match=r"denoises already.*itself, EulerMaruyama\(\)"):
            sg.simulate(chain.reverse(points.score), x, k, solver=solver, rng=1)
    cured = sg.simulate(chain.reverse(points.score, "beta"), x, k, rng=1)
    assert float((cured.final.abs() - 1).abs().max()) < 1e-3
    times = sg.timesteps.log_snr(sde, 40)
    with pytest.raises(ValueError, match=r"ends at t = 0\.01, in noise.*times=\[0, …\]\)"):
        sg.simulate(
            sg.DDPM.discretize(sde, times=times).reverse(points.score), x, k,
            solver=sg.FinalDenoising(sg.EulerMaruyama()), rng=1,
        )  # fmt: skip
    longer = sg.DDPM.discretize(sde, times=[0.0, *times.flip(0).tolist()])
    cured = sg.simulate(longer.reverse(points.score), x, torch.arange(42.0).flip(0), rng=1)
    assert float((cured.final.abs() - 1).abs().max()) < 1e-3
