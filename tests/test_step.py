"""The update is the formula, term by term, and promotes nothing."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64


@pytest.mark.parametrize("dt", [0.3, -0.3, 1.0, -1.0])
def test_update_is_the_formula(dt):
    g = torch.Generator().manual_seed(0)
    x, f, z = (torch.randn(5, 3, dtype=F64, generator=g) for _ in range(3))
    diffusion = torch.rand(5, 1, dtype=F64, generator=g)
    moved = sg.update(x, f, diffusion, torch.tensor(dt, dtype=F64), z)
    expected = x + dt * f + math.sqrt(abs(dt)) * diffusion * z
    torch.testing.assert_close(moved, expected, rtol=0, atol=4e-16 * 10)


@pytest.mark.parametrize("dt", [0.3, -0.3])
def test_numbers_say_the_same_as_tensors(dt):
    g = torch.Generator().manual_seed(0)
    x, f, z = (torch.randn(5, 3, dtype=F64, generator=g) for _ in range(3))
    b = torch.rand(5, 1, dtype=F64, generator=g)
    kept = x.clone(), f.clone(), z.clone()
    t, root = torch.tensor(dt, dtype=F64), math.sqrt(abs(dt))
    for diffusion in (0.7, torch.tensor(0.7, dtype=F64), b):
        expected = x + dt * f + root * diffusion * z
        for moved in (
            sg.update(x, f, diffusion, dt, z),
            sg.update(x, f, diffusion, dt, z, root=root),
            sg.update(x, f, diffusion, t, z),
            sg.update(x, f, diffusion, t, z, root=t.abs().sqrt()),
        ):
            torch.testing.assert_close(moved, expected, rtol=0, atol=4e-16 * 10)
    # a drift that returns its argument, too, leaves it as it was
    torch.testing.assert_close(sg.update(x, x, 0.7, dt, None), (1 + dt) * x)
    assert all(torch.equal(a, b) for a, b in zip((x, f, z), kept, strict=True))


def test_without_noise_the_diffusion_is_not_asked():
    x, f = torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor([[4.0, -8.0]], dtype=F64)
    nan = torch.tensor(math.nan, dtype=F64)
    moved = sg.update(x, f, nan, torch.tensor(0.25, dtype=F64), None)
    assert torch.equal(moved, torch.tensor([[2.0, 0.0]], dtype=F64))


def test_float64_numbers_promote_no_float32_state(device):
    x = torch.ones(4, 2, dtype=torch.float32, device=device)
    half = torch.tensor(0.5, dtype=F64)  # times and constants live on the CPU in float64
    assert sg.update(x, -x, half, half, x).dtype == torch.float32


def test_one_update_has_the_mean_and_variance_of_the_chain(device):
    # x + dt f + √dt σ z with f = −k x: mean (1 − k dt) x, variance σ² dt, exactly
    n, k, sigma, dt = 40_000, 2.0, 0.7, 0.1
    path = sg.simulate(
        sg.OrnsteinUhlenbeck(rate=k, sigma=sigma),
        torch.full((n, 1), 3.0, dtype=F64, device=device),
        [0.0, dt],
        rng=0,
    )
    mean, variance = (1 - k * dt) * 3.0, sigma**2 * dt
    # both bounds: false alarm 1e-5
    assert abs(float(path.final.mean()) - mean) < 4.42 * math.sqrt(variance / n)
    assert abs(float(path.final.var()) / variance - 1) < 4.42 * math.sqrt(2 / n)
