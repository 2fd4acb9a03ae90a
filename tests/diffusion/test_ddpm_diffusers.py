"""Our DDPM chain and DDIM steps against diffusers' schedulers, with float64 tables and one noise.

diffusers counts its timesteps from 0: its t is our k − 1. Its tables are float32 and are replaced.
"""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from exact import Replay, solved

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64


def network(x, k):
    """Any smooth function of the state and of the integer timestep will do for ε̂."""
    return torch.sin(1.3 * x + 0.01 * k) + 0.2 * x


def with_tables(scheduler, alpha_bars):
    """The scheduler with these ᾱ, float64; asserts that it had them, to single precision."""
    assert float((scheduler.alphas_cumprod - alpha_bars).abs().max()) < 1e-4
    previous = torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    scheduler.alphas_cumprod = alpha_bars
    scheduler.alphas = alpha_bars / previous
    scheduler.betas = 1 - scheduler.alphas
    scheduler.one = torch.tensor(1.0, dtype=F64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    return scheduler


@pytest.mark.parametrize(("variance", "theirs"), [("posterior", "small"), ("beta", "large")])
def test_ancestral_steps_are_those_of_ddpm_scheduler(variance, theirs):
    n = 100
    betas = torch.linspace(1e-4, 0.2, n, dtype=F64)
    chain = sg.DDPM(betas)
    scheduler = with_tables(
        DDPMScheduler(
            trained_betas=betas.tolist(), clip_sample=False, variance_type=f"fixed_{theirs}"
        ),
        (1 - betas).cumprod(0),
    )
    assert float((chain.alpha_bars - scheduler.alphas_cumprod).abs().max()) < 1e-14

    def score(x, t):
        k = torch.round(t * n)
        return -network(x, k) / torch.sqrt(1 - chain.alpha_bars[k.long() - 1])

    x = stream(0, "x").normal((4, 3, 2), dtype=F64)
    generator = torch.Generator().manual_seed(5)
    draws = torch.Generator().manual_seed(5)
    z = [torch.randn(x.shape, generator=draws, dtype=F64) for _ in range(n)]
    k = torch.arange(n, -1, -1, dtype=F64)
    path = solved(
        sg.EulerMaruyama(), chain.reverse(score, variance), x, k, noise=Replay(z), keep_path=True
    )
    for i in range(n):
        kk = n - i
        step = scheduler.step(network(x, kk), kk - 1, x, generator=generator)
        x = step.prev_sample
        assert float((path.states[i + 1] - x).abs().max()) <= 1e-10 * float(x.abs().max())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_steps_are_those_of_ddim_scheduler(eta, steps):
    n = 1000
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    t = torch.arange(1, n + 1, dtype=F64) / n
    alpha_bars = sde.alpha(t) ** 2
    betas = 1 - alpha_bars / torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    scheduler = with_tables(
        DDIMScheduler(trained_betas=betas.tolist(), clip_sample=False, set_alpha_to_one=True),
        alpha_bars,
    )
    scheduler.set_timesteps(steps)

    def score(x, t):
        return -network(x, torch.round(t * n) - 1) / sde.sigma(t)

    timesteps = scheduler.timesteps.tolist()
    assert len(timesteps) == steps
    assert timesteps[-1] == 0
    nodes = torch.tensor([(k + 1) / n for k in timesteps] + [0.0], dtype=F64)
    dynamics = sg.ReverseSDE(sde, score, eta=eta)
    x = stream(0, "x").normal((4, 3, 2), dtype=F64)
    z = [stream(i, "z").normal((4, 3, 2), dtype=F64) for i in range(steps)]
    # the door refuses t = 0, where a score does not exist; the last step only goes there
    path = solved(
        sg.DDIM(), dynamics, x, nodes, noise=Replay(z) if eta > 0 else None, keep_path=True
    )
    for i, k in enumerate(timesteps):
        noise = z[i] if eta > 0 else None
        x = scheduler.step(network(x, k), k, x, eta=eta, variance_noise=noise).prev_sample
        assert float((path.states[i + 1] - x).abs().max()) <= 1e-10 * float(x.abs().max())
