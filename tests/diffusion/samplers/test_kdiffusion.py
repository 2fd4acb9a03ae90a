"""Our solvers against k-diffusion's own functions, on one grid and one noise; skipped without it.

Its states are y = x/α and its sigmas r = σ/α.
"""

import pytest
import torch
from exact import mixture_flow, slope, walked

import sdegen as sg
from benchmarks import bare
from sdegen.core.noise import stream
from sdegen.diffusion.samplers.karras import _times_at

F64 = torch.float64
SDE = sg.VP(sg.LinearBeta(0.1, 20.0))
NOISED = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(SDE)
ENDS = torch.tensor([SDE.t_max, SDE.t_min], dtype=F64)


@pytest.fixture(scope="module")
def kdiffusion():
    package = bare.k_diffusion() or pytest.skip("k-diffusion is not installed")
    return package.sampling


def denoiser(y, sigma):
    """E[x0 | y], at the time at which σ/α is sigma."""
    r = sigma[0]
    t = _times_at(SDE.kernel, r[None], ENDS)[0]
    alpha, sd = SDE.alpha(t), SDE.sigma(t)
    return y + sd**2 / alpha * NOISED.score(alpha * y, t)


def compare(theirs, solver, eta, steps, grid, noisy=True):
    """theirs(y, sigmas, draws) against ours; both see the same draws in the same order."""
    times = getattr(sg.timesteps, grid)(SDE, steps)
    sigmas = SDE.sigma(times) / SDE.alpha(times)
    x = SDE.prior((32, 1), rng=0, dtype=F64)
    draws = [stream(i, "z").normal((32, 1), dtype=F64) for i in range(2 * steps)]
    a = theirs(x / SDE.alpha(times[0]), sigmas, iter(draws)) * SDE.alpha(times[-1])
    dynamics = sg.ReverseSDE(SDE, NOISED.score, eta)
    x = walked(solver, dynamics, times, x, draws if noisy else None)[-1]
    assert float((a - x).abs().max()) <= 1e-8 * float(a.abs().max())


grids = pytest.mark.parametrize(
    ("grid", "steps"), [("karras", 1), ("karras", 12), ("log_snr", 5), ("uniform", 20)]
)


@grids
def test_euler_is_ddim(kdiffusion, grid, steps):
    def theirs(y, sigmas, draws):
        return kdiffusion.sample_euler(denoiser, y, sigmas, disable=True)

    compare(theirs, sg.DDIM(), 0.0, steps, grid, noisy=False)


@grids
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_is_ddim_with_eta(kdiffusion, grid, steps, eta):
    def theirs(y, sigmas, draws):
        return kdiffusion.sample_euler_ancestral(
            denoiser, y, sigmas, eta=eta, noise_sampler=lambda a, b: next(draws), disable=True
        )

    compare(theirs, sg.DDIM(), eta, steps, grid)
    if eta == 1:
        compare(theirs, sg.ExponentialAdams(1, "x0"), eta, steps, grid)


@grids
def test_dpmpp_2m(kdiffusion, grid, steps):
    def theirs(y, sigmas, draws):
        return kdiffusion.sample_dpmpp_2m(denoiser, y, sigmas, disable=True)

    compare(theirs, sg.ExponentialAdams(2, "x0", rule="midpoint"), 0.0, steps, grid, noisy=False)


@grids
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(("rule", "kind"), [("exact", "heun"), ("midpoint", "midpoint")])
def test_dpmpp_2m_sde_has_the_square_of_our_eta(kdiffusion, grid, steps, eta, rule, kind):
    def theirs(y, sigmas, draws):
        return kdiffusion.sample_dpmpp_2m_sde(
            denoiser, y, sigmas, eta=eta**2, noise_sampler=lambda a, b: next(draws),
            solver_type=kind, disable=True,
        )  # fmt: skip

    compare(theirs, sg.ExponentialAdams(2, "x0", rule=rule), eta, steps, grid)


@grids
@pytest.mark.parametrize("solver", [sg.KarrasHeun, sg.DPM2])
@pytest.mark.parametrize("amount", [0.0, 3.0, 100.0])
def test_heun_and_dpm_2_with_churn(kdiffusion, monkeypatch, grid, steps, solver, amount):
    # below the largest r: beyond it their denoiser would be asked past t_max
    churn = sg.Churn(amount, low=0.05, high=50.0, scale=1.003)
    function = {sg.KarrasHeun: "sample_heun", sg.DPM2: "sample_dpm_2"}[solver]

    def theirs(y, sigmas, draws):
        # they draw in every step, and use it where they stir
        used = [churn.low <= s <= churn.high and amount > 0 for s in sigmas[:-1].tolist()]
        steps_used = iter(used)
        monkeypatch.setattr(
            torch, "randn_like", lambda v: next(draws) if next(steps_used) else 0 * v
        )
        return getattr(kdiffusion, function)(
            denoiser, y, sigmas, s_churn=amount, s_tmin=churn.low, s_tmax=churn.high,
            s_noise=churn.scale, disable=True,
        )  # fmt: skip

    compare(theirs, solver(churn), 0.0, steps, grid)


@grids
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_dpm_2_ancestral(kdiffusion, grid, steps, eta):
    def theirs(y, sigmas, draws):
        return kdiffusion.sample_dpm_2_ancestral(
            denoiser, y, sigmas, eta=eta, noise_sampler=lambda a, b: next(draws), disable=True
        )

    compare(theirs, sg.DPM2(), eta, steps, grid)


def test_their_third_order_method_has_order_two_and_ours_three(kdiffusion):
    # they halve the second difference once too often, as the page of multistep.py says
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=5e-2)
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)

    def denoise(y, sigma):
        t = times[int((sigmas - sigma[0]).abs().argmin())]
        return y + sde.sigma(t) ** 2 / sde.alpha(t) * noised.score(sde.alpha(t) * y, t)

    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    exact, steps, theirs, ours = (
        mixture_flow(noised, x, sde.t_max, sde.t_min),
        [80, 160, 320],
        [],
        [],
    )
    for n in steps:
        times = sg.timesteps.log_snr(sde, n)
        alpha = sde.alpha(times)
        sigmas = sde.sigma(times) / alpha
        y = kdiffusion.sample_dpmpp_3m_sde(
            denoise, x / alpha[0], sigmas, eta=0.0,
            noise_sampler=lambda a, b: None, disable=True,
        )  # fmt: skip
        theirs.append(float((alpha[-1] * y - exact).abs().mean()))
        flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
        run = sg.simulate(flow, x, times, solver=sg.ExponentialAdams(3, "x0"))
        ours.append(float((run.final - exact).abs().mean()))
    assert slope([1 / n for n in steps], theirs) == pytest.approx(2, abs=0.15)
    assert slope([1 / n for n in steps], ours) == pytest.approx(3, abs=0.15)
