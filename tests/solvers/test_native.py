import math

import pytest
import torch
from exact import (
    Replay,
    gaussian_flow,
    geometric_errors,
    linear_chain_moments,
    noised_gaussian,
    ou_moments,
    slope,
    solved,
    strong_error_ou,
)

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64


# Euler-Maruyama


def test_euler_maruyama_has_weak_order_one_and_the_right_limit():
    ou = (1.0, 0.5, math.sqrt(2))
    exact = torch.tensor(ou_moments(*ou, 2.0, 0.25, 1.0))
    steps = [16, 32, 64, 128, 256]
    errors = []
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        chain = linear_chain_moments(
            sg.EulerMaruyama(), sg.OrnsteinUhlenbeck(*ou), nodes, 2.0, 0.25
        )
        errors.append(chain[-1] - exact)
    errors = torch.stack(errors)
    h = [1 / n for n in steps]
    for error in errors.T:
        assert slope(h, error) == pytest.approx(1.0, abs=0.05)
    # the limit: one Richardson step leaves O(h²)
    assert float((2 * errors[-1] - errors[-2]).abs().max()) < 5e-5


def test_euler_maruyama_has_strong_order_one_for_additive_noise():
    steps = [16, 32, 64, 128]
    errors = [strong_error_ou(sg.EulerMaruyama(), n) for n in steps]
    assert slope([1 / n for n in steps], errors) == pytest.approx(1.0, abs=0.05)
    assert errors[-1] < 0.5 / steps[-1]  # and to the exact solution on the same path


def test_euler_maruyama_has_strong_order_one_half_for_multiplicative_noise():
    coarsenings = [4, 8, 16, 32]
    errors = geometric_errors(sg.EulerMaruyama(), coarsenings)
    # 4000 shared paths: each error to 2 %, the slope to 0.01
    assert slope(coarsenings, errors) == pytest.approx(0.5, abs=0.1)
    assert errors[0] < 0.06


def test_euler_maruyama_on_ou_has_the_stationary_variance_of_the_chain():
    dt, n = 0.2, 40_000
    exact = 1 / (1 - dt / 2)
    nodes = torch.arange(201, dtype=F64) * dt
    chain = linear_chain_moments(sg.EulerMaruyama(), sg.OrnsteinUhlenbeck(), nodes, 0.0, 1.0)
    assert float(chain[-1, 1]) == pytest.approx(exact, rel=1e-12)
    x0 = torch.zeros(n, 1, dtype=F64)
    out = sg.simulate(sg.OrnsteinUhlenbeck(), x0, nodes, rng=3, keep_path=False)
    standard_error = exact * math.sqrt(2 / (n - 1))
    # two-sided, 4.4 standard errors: false alarm 1e-5; plain 1 would be 16 of them away
    assert abs(float(out.final.var()) - exact) < 4.4 * standard_error


def test_euler_maruyama_is_the_update_written_out(device, dtype):
    def f(x, t):
        return torch.sin(x) - t

    def g(x, t):
        return 1 + 0.1 * x**2

    sde = sg.ItoProcess(f, g)
    times = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=F64)
    x = stream(1, "x").normal((5, 2, 3), dtype=dtype).to(device)
    draws = [stream(k, "z").normal((5, 2, 3), dtype=dtype).to(device) for k in range(3)]
    path = solved(sg.EulerMaruyama(), sde, x, times, noise=Replay(draws), keep_path=True).states
    for k, z in enumerate(draws):
        dt = float(times[k + 1] - times[k])
        x = x + dt * f(x, float(times[k])) + math.sqrt(dt) * g(x, 0.0) * z
        torch.testing.assert_close(path[k + 1], x)


# Heun


def test_heun_has_order_two_on_a_flow_and_the_right_limit():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 3, 6, dtype=F64)[:, None]
    exact = gaussian_flow(noised, x, sde.t_max, sde.t_min)
    steps = [100, 200, 400, 800]
    errors = []
    for n in steps:
        out = sg.simulate(flow, x, sde.time_grid(n), solver=sg.Heun(), keep_path=False)
        errors.append(float((out.final - exact).abs().max()))
    assert slope([1 / n for n in steps], errors) == pytest.approx(2.0, abs=0.05)
    assert errors[-1] < 1e-4


def test_heun_on_additive_noise_has_weak_order_two_and_strong_order_one():
    steps = [16, 32, 64, 128]
    h = [1 / n for n in steps]
    ou = (1.0, 0.5, math.sqrt(2))
    exact = torch.tensor(ou_moments(*ou, 2.0, 0.25, 1.0))
    errors = []
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        chain = linear_chain_moments(sg.Heun(), sg.OrnsteinUhlenbeck(*ou), nodes, 2.0, 0.25)
        errors.append(chain[-1] - exact)
    for error in torch.stack(errors).T:
        assert slope(h, error) == pytest.approx(2.0, abs=0.05)
        assert abs(float(error[-1])) < 2e-5
    strong = [strong_error_ou(sg.Heun(), n) for n in steps]
    assert slope(h, strong) == pytest.approx(1.0, abs=0.05)


def test_heun_with_time_dependent_noise_has_weak_order_two():
    # VP forwards: both f and g depend on t
    sde, noised = noised_gaussian()
    exact = torch.stack(noised.moments(1.0))
    steps = [100, 200, 400]
    errors = []
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        errors.append(linear_chain_moments(sg.Heun(), sde, nodes, 1.0, 0.0625)[-1] - exact)
    for error in torch.stack(errors).T:
        assert slope([1 / n for n in steps], error) == pytest.approx(2.0, abs=0.1)
        assert abs(float(4 * error[-1] - error[-2]) / 3) < 1e-5  # the limit, by Richardson


def test_heun_refuses_multiplicative_noise():
    sde = sg.ItoProcess(lambda x: -x, lambda x: 1 + x**2)
    with pytest.raises(ValueError, match="would solve the Stratonovich equation"):
        sg.simulate(sde, torch.ones(2, 1), [0.0, 1.0], solver=sg.Heun())


# the family of reverse dynamics


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("solver", "order"),
    [(sg.EulerMaruyama(), 1), (sg.DDIM(), 1), (sg.Heun(), 2)],
    ids=["EulerMaruyama", "DDIM", "Heun"],
)
def test_reverse_dynamics_reach_the_marginals_at_their_order(eta, solver, order):
    sde, noised = noised_gaussian(mean=1.0, std=0.25)
    start, exact = noised.moments(sde.t_max), torch.stack(noised.moments(sde.t_min))
    dynamics = sg.ReverseSDE(sde, noised.score, eta=eta)
    steps = [400, 800, 1600] if isinstance(solver, sg.DDIM) else [200, 400, 800]
    errors = []
    for n in steps:
        chain = linear_chain_moments(solver, dynamics, sde.time_grid(n), *map(float, start))
        errors.append(chain[-1] - exact)
    of_mean, of_variance = torch.stack(errors).T
    h = [1 / n for n in steps]
    if isinstance(solver, sg.DDIM):
        # the mean of a Gaussian is on the straight line that DDIM draws: exact at any step
        assert float(of_mean.abs().max()) < 1e-12
    else:
        assert slope(h, of_mean) == pytest.approx(order, abs=0.1)
    assert slope(h, of_variance) == pytest.approx(order, abs=0.1)
    # and the limit: Richardson removes nearly all of what is left
    factor = 2.0**order
    left = (factor * errors[-1] - errors[-2]) / (factor - 1)
    assert float(left.abs().max()) < 0.1 * float(errors[-1].abs().max())


def test_ddim_has_order_one_on_a_flow_and_the_right_limit():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 3, 6, dtype=F64)[:, None]
    exact = gaussian_flow(noised, x, sde.t_max, sde.t_min)
    for grid in (sg.timesteps.uniform, sg.timesteps.log_snr, sg.timesteps.quadratic):
        steps = [200, 400, 800]
        ends = [
            sg.simulate(flow, x, grid(sde, n), solver=sg.DDIM(), keep_path=False).final
            for n in steps
        ]
        errors = [float((end - exact).abs().max()) for end in ends]
        assert slope([1 / n for n in steps], errors) == pytest.approx(1.0, abs=0.05)
        assert float((2 * ends[-1] - ends[-2] - exact).abs().max()) < 5e-4


def test_ddim_walks_the_flow_forwards_too():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(0.5, 1.5, 5, dtype=F64)[:, None]
    times = sg.timesteps.log_snr(sde, 1000).flip(0)
    out = sg.simulate(flow, x, times, solver=sg.DDIM(), keep_path=False)
    exact = gaussian_flow(noised, x, sde.t_min, sde.t_max)
    assert float((out.final - exact).abs().max()) < 2e-2


def test_ddim_does_the_linear_part_exactly():
    # a frozen ε̂: x(s)/α(s) is on a straight line in σ/α, whatever the step
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    eps = torch.tensor([[0.7, -1.2]], dtype=F64)
    flow = sg.ReverseSDE(sde, lambda x, t: -eps / sde.sigma(t), eta=0.0)
    x0 = torch.tensor([[0.3, 0.4]], dtype=F64)
    t, s = torch.tensor(1.0, dtype=F64), torch.tensor(0.2, dtype=F64)
    x = sde.alpha(t) * x0 + sde.sigma(t) * eps
    out = sg.simulate(flow, x, torch.stack([t, s]), solver=sg.DDIM())
    torch.testing.assert_close(out.final, sde.alpha(s) * x0 + sde.sigma(s) * eps)


def test_ddim_refusals():
    sde, noised = noised_gaussian()
    x, times = torch.zeros(2, 1), sde.time_grid(2)
    process = sg.ItoProcess(lambda x: -x, 0.0)
    with pytest.raises(ValueError, match=r"DDIM needs the α and σ of a kernel.*not ItoProcess"):
        sg.simulate(process, x, times, solver=sg.DDIM())
    with pytest.raises(ValueError, match=r"0 ≤ eta ≤ 1, but eta is 1\.5"):
        sg.simulate(sg.ReverseSDE(sde, noised.score, 1.5), x, times, solver=sg.DDIM())


# PredictorCorrector


def test_corrector_is_langevin_with_the_step_of_the_signal_to_noise_ratio():
    sde, noised = noised_gaussian()
    dynamics = sg.ReverseSDE(sde, noised.score)
    nodes = torch.tensor([0.5, 0.4], dtype=F64)
    source = stream(0, "z")
    x, z1, z2, z3 = (source.normal((6, 1), dtype=F64) for _ in range(4))
    solver = sg.PredictorCorrector(corrector_steps=2, snr=0.2)
    out = solved(solver, dynamics, x, nodes, noise=Replay([z1, z2, z3]), keep_path=False)
    s = nodes[1]
    g = sde.diffusion_rate(nodes[0])
    x = x - 0.1 * (sde.drift_rate(nodes[0]) * x - g**2 * noised.score(x, nodes[0]))
    x = x + math.sqrt(0.1) * g * z1
    for z in (z2, z3):
        score = noised.score(x, s)
        h = 2 * sde.alpha(s) ** 2 * (0.2 * z.abs().mean() / score.abs().mean()) ** 2
        x = x + h * score + torch.sqrt(2 * h) * z
    torch.testing.assert_close(out.states[-1], x, rtol=1e-12, atol=1e-12)
    assert out.nfe == 3


def test_corrector_brings_the_variance_closer_than_the_predictor_alone():
    sde, noised = noised_gaussian(mean=0.0, std=0.1)
    dynamics, times = sg.ReverseSDE(sde, noised.score), sde.time_grid(50)
    exact, start = (float(noised.moments(t)[1]) for t in (sde.t_min, sde.t_max))
    alone = float(linear_chain_moments(sg.EulerMaruyama(), dynamics, times, 0.0, start)[-1, 1])
    n = 40_000
    x = math.sqrt(start) * stream(0, "x").normal((n, 1), dtype=F64)
    out = sg.simulate(
        dynamics, x, times, solver=sg.PredictorCorrector(corrector_steps=3), rng=1, keep_path=False
    )
    variance = float(out.final.square().mean())
    # 4.4 standard errors of a variance from n draws: false alarm 1e-5
    upper = variance * (1 + 4.4 * math.sqrt(2 / n))
    assert exact < upper < 1 + exact
    assert abs(variance - exact) + 4.4 * variance * math.sqrt(2 / n) < abs(alone - exact)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_corrector_goes_with_other_predictors_and_with_the_flow(eta):
    # VE in 5 steps: Euler–Maruyama ends 50 (flow) and 2000 times too wide, with a corrector too
    sde = sg.VE(sg.GeometricSigma(0.01, 50.0))
    noised = sg.GaussianMixture([1.0], [[0.5]], stds=0.5).noised(sde)
    dynamics, n = sg.ReverseSDE(sde, noised.score, eta), 20_000
    x = noised.sample(n, torch.tensor(1.0, dtype=F64), rng=0, dtype=F64)

    def end(solver, steps):
        times = sg.timesteps.log_snr(sde, steps)
        return sg.simulate(dynamics, x, times, solver=solver, rng=1, keep_path=False)

    for steps in (5, 20):
        alone = end(sg.DDIM(), steps)
        mended = end(sg.PredictorCorrector(snr=0.1, predictor=sg.DDIM()), steps)
        assert (alone.nfe, mended.nfe) == (steps, 2 * steps)
        # 4.4 standard errors of a mean and of a width: false alarm 2e-5
        assert abs(float(mended.final.mean()) - 0.5) < 4.4 * 0.5 / math.sqrt(n)
        off = [abs(float(run.final.std()) - 0.5) for run in (alone, mended)]
        assert off[1] + 4.4 * 0.5 / math.sqrt(2 * n) < 0.8 * off[0]
    # a corrector that hardly moves leaves the predictor's own state
    if eta == 0:
        still = end(sg.PredictorCorrector(snr=1e-9, predictor=sg.DDIM()), 5).final
        torch.testing.assert_close(still, end(sg.DDIM(), 5).final, rtol=0, atol=1e-6)


def test_one_lost_trajectory_does_not_stop_the_corrector_of_the_others():
    sde, noised = noised_gaussian()

    def bad(x, t):
        return torch.where((x.abs() > 40) & (t < 0.99), torch.nan, noised.score(x, t).clamp(-3, 3))

    x = stream(0, "x").normal((8, 1), dtype=F64)
    x[3] = 49.0
    out = sg.simulate(
        sg.ReverseSDE(sde, bad), x, sde.time_grid(100), solver=sg.PredictorCorrector(),
        rng=0, on_nonfinite="freeze",
    )  # fmt: skip
    assert out.nonfinite.tolist() == [i == 3 for i in range(8)]


def test_predictor_corrector_refusals():
    sde, noised = noised_gaussian()
    x, times = torch.zeros(2, 1), sde.time_grid(2)
    noisy = sg.ReverseSDE(sde, noised.score)
    with pytest.raises(ValueError, match=r"AngularAdams is for the probability flow"):
        sg.simulate(noisy, x, times, solver=sg.PredictorCorrector(predictor=sg.AngularAdams()))
    with pytest.raises(ValueError, match=r"needs a score.*not ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 1.0), x, [0.0, 1.0], solver=sg.PredictorCorrector()
        )
    with pytest.raises(ValueError, match="corrector_steps must be ≥ 1, but is 0"):
        sg.PredictorCorrector(corrector_steps=0)
    with pytest.raises(ValueError, match=r"snr must lie in \(0, 1\), but is 1\.5"):
        sg.PredictorCorrector(snr=1.5)
    with pytest.raises(TypeError, match="corrector_steps must be an int, but is float"):
        sg.PredictorCorrector(corrector_steps=1.5)
    with pytest.raises(TypeError, match=r"predictor must be a solver, .* class: pass DDIM\(\)"):
        sg.PredictorCorrector(predictor=sg.DDIM)
    with pytest.raises(ValueError, match=r"predictor\.substeps must be 1, but is 2"):
        sg.PredictorCorrector(predictor=sg.DDIM(substeps=2))
    with pytest.raises(ValueError, match=r"predictor must end .* which FinalDenoising replaces"):
        sg.PredictorCorrector(predictor=sg.FinalDenoising())
