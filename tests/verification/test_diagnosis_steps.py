"""Diagnosis of whole steps: left out, begun elsewhere, of other tables, with noise unasked for.

Each run is seeded; anew, about one in 10⁴ would leave its cause unnamed.
"""

import math

import pytest
import torch

import sdegen as sg
from sdegen.verification.innovations.normal import lower_tail, normal_between

H = 0.05


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(x, steps, step):
    states = [x]
    for k in range(steps):
        states.append(step(k, states[-1]))
    return torch.stack(states)


def named(sde, path, **more):
    certificate = sg.certify(sde, path=path, **more)
    assert not certificate.passed
    return certificate.diagnosis


ou = sg.OrnsteinUhlenbeck(1.0, 0.5, 0.8)


def ou_path(keep, steps=100, batch=50):
    z = normals(steps, batch, 2)

    def step(k, x):
        return keep(k, x, x - H * (x - 0.5) + 0.8 * math.sqrt(H) * z[k])

    return walk(0.5 + 0.5 * normals(batch, 2, seed=2), steps, step)


@pytest.mark.parametrize(
    ("keep", "name"),
    [
        (lambda k, x, ahead: x, "nothing moves"),
        (lambda k, x, ahead: ahead - x, "state forgotten"),
        (lambda k, x, ahead: x if k == 0 else ahead, "first step left out"),
        (lambda k, x, ahead: x if k == 99 else ahead, "last step left out"),
        (lambda k, x, ahead: x if k % 10 == 3 else ahead, "steps left out"),
    ],
)
def test_steps_that_are_left_out_or_forget_the_state(keep, name):
    assert named(ou, ou_path(keep), dt=H).named == name


def test_noise_of_a_coordinate_that_has_none():
    g = torch.tensor([0.6, 0.0], dtype=torch.float64)
    sde = sg.ItoProcess(lambda x: -x, lambda x, t: g.to(x), noise="additive")
    z = normals(100, 50, 2)
    path = walk(normals(50, 2, seed=2), 100, lambda k, x: x - H * x + 0.6 * math.sqrt(H) * z[k])
    assert named(sde, path, dt=H).named == "noise where there is none"


def test_another_equation_without_noise_is_no_noise():
    g = torch.tensor([0.6, 0.0], dtype=torch.float64)
    sde = sg.ItoProcess(lambda x: -x, lambda x, t: g.to(x), noise="additive")
    z = normals(100, 50, 2) * g
    path = walk(normals(50, 2, seed=2), 100, lambda k, x: x - 2 * H * x + math.sqrt(H) * z[k])
    assert named(sde, path, dt=H).named != "noise where there is none"


@pytest.mark.parametrize(("image", "name"), [(0.0, "minimum image missing"), (None, None)])
def test_images_of_pairs(image, name):
    length, dt = 3.0, 0.02
    pairs = sg.PairForces(sg.HarmonicRepulsion(8.0, 1.0), box=length)
    sde = sg.Langevin(pairs, 0.2)
    z = normals(100, 30, 4, 1)

    def step(k, x):
        apart = x[:, :, None] - x[:, None]
        turns = (apart / length).round()
        apart = apart - length * (turns if image is None else image)
        r = apart.abs() + torch.eye(4, dtype=x.dtype)[None, :, :, None]
        force = (8 * (1 - r).clamp(min=0) / r * apart).sum(2)
        return (x + dt * force + math.sqrt(0.4 * dt) * z[k]) % length

    start = length * torch.rand(30, 4, 1, generator=torch.Generator().manual_seed(3)).double()
    boundary = sg.Periodic(0.0, length, coordinates="all")
    certificate = sg.certify(sde, path=walk(start, 100, step), dt=dt, boundary=boundary)
    assert certificate.passed == (name is None)
    assert name is None or certificate.diagnosis.named == name


def test_trajectories_that_freeze_at_a_wall():
    sde = sg.ItoProcess(lambda x: 0 * x - 1, 1.0)
    z = normals(100, 60, 1)
    frozen = torch.zeros(60, dtype=torch.bool)

    def step(k, x):
        ahead = x - H + math.sqrt(H) * z[k]
        hit = ahead[:, 0] < 0
        ahead = torch.where(frozen[:, None], x, ahead.abs())
        frozen.logical_or_(hit)
        return ahead

    path = walk(2 + normals(60, 1, seed=2).abs(), 100, step)
    said = named(sde, path, dt=H, boundary=sg.Reflecting(0.0))
    assert said.named == "absorbing for reflecting"


def later(alpha, sigma):
    return torch.cat([alpha[1:], alpha.new_ones(1)]), torch.cat([sigma[1:], sigma.new_zeros(1)])


def turned(alpha, sigma):
    return alpha.flip(0), sigma.flip(0)


def coarse(alpha, _):
    bar = alpha.square().bfloat16().double()
    return bar.sqrt(), (1 - bar).sqrt()


@pytest.mark.parametrize(
    ("table", "name"),
    [(later, "time off by one"), (turned, "time reversed"), (coarse, "schedule rounded")],
)
def test_tables_of_ddim(table, name):
    vp = sg.VP(sg.LinearBeta(0.1, 12.0), t_min=0.005)
    ts = torch.linspace(1, 0.01, 81, dtype=torch.float64)
    alpha, sigma = vp.kernel.alpha(ts), vp.kernel.sigma(ts)
    a, s = table(alpha, sigma)
    sde = sg.ReverseSDE(vp, lambda x, t: -x)  # of standard normal data
    z = normals(80, 100, 2)

    def step(k, x):
        eps = sigma[k] * x
        width = s[k + 1] * (1 - (a[k] * s[k + 1] / (a[k + 1] * s[k])) ** 2).clamp(min=0).sqrt()
        rest = (s[k + 1] ** 2 - width**2).clamp(min=0).sqrt()
        return a[k + 1] * (x - s[k] * eps) / a[k] + rest * eps + width * z[k]

    path = walk(normals(100, 2, seed=2), 80, step)
    assert named(sde, path, times=ts, solver=sg.DDIM()).named == name


def test_twice_the_noise_of_milstein_is_one_law():
    sde = sg.ItoProcess(lambda x: -x, lambda x: 0.5 * (1 + x**2).sqrt())
    z = normals(100, 100, 2)

    def step(k, x):
        w = math.sqrt(H) * z[k]
        return x - H * x + (1 + x**2).sqrt() * w + 0.5 * x * (w**2 - H)

    path = walk(normals(100, 2, seed=2), 100, step)
    assert named(sde, path, dt=H, solver=sg.Milstein()).named == "noise variance four times"


def test_probabilities_of_both_tails_keep_their_digits():
    x = torch.tensor([-20.0, -9.0, 9.0], dtype=torch.float64)
    assert torch.allclose(lower_tail(x[:2]).log(), torch.special.log_ndtr(x[:2]), rtol=1e-12)
    end = torch.full_like(x, math.inf)
    assert torch.allclose(normal_between(-end, x), x, rtol=1e-9)
    assert torch.allclose(normal_between(-x, end), x, rtol=1e-9)
