"""Faults of diffusion samplers, with the exact score of two Gaussians in every dimension.

All run in the time of the noising process, from noise at t = 1 to data at t = 0.01.
"""

import math

import numpy as np
import torch

import sdegen as sg
from benchmarks.zoo_faults.base import Planted, grid, planted, walk

B0, B1, FIRST, LAST, NODES = 0.1, 12.0, 1.0, 0.01, 101
STD = 0.5  # of each component of the data


def beta(t):
    return B0 + (B1 - B0) * t


def alpha_of(t):
    return np.exp(-0.5 * (B0 * t + 0.5 * (B1 - B0) * t**2))


def sigma_of(t):
    return np.sqrt(1 - alpha_of(t) ** 2)


def centre(dim):
    """Return m of the data ½ N(m, STD² I) + ½ N(−m, STD² I), |m| = 1.5."""
    return np.full(dim, 1.5 / math.sqrt(dim))


def noised_score(x, alpha, sigma):
    """Return ∇ log p of the data noised to α x0 + σ z."""
    m, variance = alpha * centre(x.shape[1]), (alpha * STD) ** 2 + sigma**2
    return (np.tanh(x @ m / variance)[:, None] * m - x) / variance


def data_score(x):
    """Return the score at the last time."""
    return noised_score(x, alpha_of(LAST), sigma_of(LAST))


def mixture(dim):
    """Return the data, as sdegen has them."""
    m = centre(dim)
    return sg.GaussianMixture([1.0, 1.0], np.stack([m, -m]), stds=STD)


def path():
    """Return the noising process, as sdegen has it."""
    return sg.VP(sg.LinearBeta(B0, B1), t_min=0.005)


def start(run, alpha, sigma, nodes=NODES):
    """Draw from the noised data."""
    shape = (run.batch(nodes - 1), run.dim)
    sign = run.rng.choice([-1.0, 1.0], (shape[0], 1))
    x0 = sign * centre(run.dim) + STD * run.rng.standard_normal(shape)
    return alpha * x0 + sigma * run.rng.standard_normal(shape)


def down(nodes=NODES):
    """Return the times, from 1 to 0.01."""
    return np.linspace(FIRST, LAST, nodes)


def reverse(run, solver, step, ts):
    """Plant a run of the reverse SDE at these times."""
    vp = path()
    sde = sg.ReverseSDE(vp, mixture(run.dim).noised(vp).score)
    x = start(run, alpha_of(FIRST), sigma_of(FIRST), len(ts))
    states = walk(x, len(ts) - 1, step)
    return Planted(sde, solver, torch.from_numpy(ts), states, score=data_score)


def euler_step(run, x, t, s, weight=1.0, at=None):
    """Take x + dt (f − weight g² score) + √|dt| g z; drift at another time if `at` is one."""
    asked = t if at is None else at
    score = noised_score(x, alpha_of(asked), sigma_of(asked))
    drift = -0.5 * beta(asked) * x - weight * beta(asked) * score
    return x + (s - t) * drift + math.sqrt((t - s) * beta(t)) * run.normal(x.shape)


@planted(
    "drift: sign of the score",
    "The drift of a sampling SDE had the score with the wrong sign.",
    project="atong01/conditional-flow-matching",
    issue=85,
    checked=True,
)
def score_added(run):
    ts, weight = down(), -1.0 if run.faulty else 1.0

    def step(k, x):
        return euler_step(run, x, ts[k], ts[k + 1], weight)

    return reverse(run, sg.EulerMaruyama(), step, ts)


@planted(
    "drift: score halved",
    "Noise was added to the steps of the probability flow, without the drift that goes with it.",
    project="tue-bmd/zea",
    issue=551,
    checked=True,
)
def flow_with_noise(run):
    ts, weight = down(), 0.5 if run.faulty else 1.0

    def step(k, x):
        return euler_step(run, x, ts[k], ts[k + 1], weight)

    return reverse(run, sg.EulerMaruyama(), step, ts)


@planted(
    "reversed time",
    "A reverse run asked its drift at 1 − t while its times went down too.",
    project="hustvl/LightningDiT",
    issue=89,
    checked=True,
)
def turned_twice(run):
    ts = down()

    def step(k, x):
        at = FIRST + LAST - ts[k] if run.faulty else None
        return euler_step(run, x, ts[k], ts[k + 1], at=at)

    return reverse(run, sg.EulerMaruyama(), step, ts)


def chain(run, step):
    """Plant a run of the inverse of the exact chain; step(k, x) goes from k to k − 1."""
    ts = torch.from_numpy(down()).flip(0)
    vp, n = path(), NODES - 1
    forward = sg.DDPM.discretize(vp, times=ts)
    sde = forward.reverse(mixture(run.dim).noised(vp).score, "posterior")
    states = walk(start(run, alpha_of(FIRST), sigma_of(FIRST)), n, lambda i, x: step(n - i, x))
    times = torch.arange(n, -1, -1, dtype=torch.float64)
    return Planted(sde, sg.EulerMaruyama(), times, states, score=data_score)


def levels():
    """Return α_k and σ_k of the chain, k = 0 … N."""
    ts = down()[::-1]
    return alpha_of(ts), sigma_of(ts)


@planted(
    "posterior: β for its variance",
    "Ancestral steps had the variance β_t where the posterior's was said to be taken.",
    project="jhbastek/PhysicsInformedDiffusionModels",
    issue=4,
    checked=True,
)
def betas_for_the_posterior(run):
    alpha, sigma = levels()

    def step(k, x):
        a = alpha[k] / alpha[k - 1]
        b = math.sqrt(sigma[k] ** 2 - (a * sigma[k - 1]) ** 2)
        mean = (x + b**2 * noised_score(x, alpha[k], sigma[k])) / a
        std = b if run.faulty else b * sigma[k - 1] / sigma[k]
        return mean + std * run.normal(x.shape)

    return chain(run, step)


@planted(
    "schedule: one step off",
    "ᾱ of the previous step was padded on the wrong side, and was ᾱ of the step itself.",
    project="lucidrains/denoising-diffusion-pytorch",
    issue=18,
    checked=True,
)
def padded_on_the_right(run):
    alpha, sigma = levels()
    squares = alpha**2

    def step(k, x):
        before = squares[k - 1]
        if run.faulty:
            before = squares[k] if k < len(alpha) - 1 else 1.0
        square = squares[k] / squares[k - 1]  # α_k of the chain
        b2 = 1 - square
        x0 = (x + sigma[k] ** 2 * noised_score(x, alpha[k], sigma[k])) / alpha[k]
        mean = math.sqrt(before) * b2 * x0 + math.sqrt(square) * (1 - before) * x
        std = math.sqrt(b2 * (1 - before)) / sigma[k]
        return mean / sigma[k] ** 2 + std * run.normal(x.shape)

    return chain(run, step)


def ddim(run, ts, alpha, sigma, *, stop=None):
    """Plant a run of DDIM with η = 1, of which a faulty run has these α and σ.

    Args:
        run: What is asked for.
        ts: The times.
        alpha: α at the nodes of a faulty run.
        sigma: σ there.
        stop: The step from which on a faulty run stays where it is.
    """
    true = alpha_of(ts), sigma_of(ts)
    alpha, sigma = (alpha, sigma) if run.faulty else true

    def step(k, x):
        z = run.normal(x.shape)
        if stop is not None and run.faulty and k >= stop:
            return x
        eps = -true[1][k] * noised_score(x, true[0][k], true[1][k])
        a, s, b, r = alpha[k], sigma[k], alpha[k + 1], sigma[k + 1]
        width = r / s * math.sqrt(max(1 - (a / b) ** 2, 0.0)) if s > 0 else 0.0
        x0 = (x - s * eps) / a
        return b * x0 + math.sqrt(max(r**2 - width**2, 0.0)) * eps + width * z

    return reverse(run, sg.DDIM(), step, ts)


@planted(
    "schedule: one step off",
    "DDIM took α and σ of a step from the table of the previous ones.",
    project="lucidrains/denoising-diffusion-pytorch",
    issue=81,
    checked=True,
)
def table_of_previous(run):
    ts = down()
    later = np.append(ts[1:], 0.0)
    return ddim(run, ts, alpha_of(later), sigma_of(later))


@planted(
    "step: the last one left out",
    "The smallest σ stood twice in the schedule, so that the last step went nowhere.",
    project="huggingface/diffusers",
    issue=6477,
    checked=True,
)
def last_sigma_twice(run):
    ts = down()
    return ddim(run, ts, alpha_of(ts), sigma_of(ts), stop=NODES - 2)


@planted(
    "schedule: rounded",
    "Cumulative products ᾱ were cast to half precision when a model was loaded.",
    project="AUTOMATIC1111/stable-diffusion-webui",
    issue=14071,
    checked=True,
)
def half_precision_products(run):
    ts = down(1001)  # steps between neighbours in the table
    squares = (alpha_of(ts) ** 2).astype(np.float16).astype(np.float64)
    return ddim(run, ts, np.sqrt(squares), np.sqrt(1 - squares))


@planted(
    "schedule: α for ᾱ",
    "The Langevin corrector's step was scaled by 1 − β of a step, where the paper has ᾱ.",
    project="yang-song/score_sde_pytorch",
    issue=73,
    checked=True,
)
def corrector(run):
    # corrector steps alone, annealed: x + h ᾱ score + √(2 h ᾱ) z while the level goes down
    n, h, vp = NODES - 1, 0.05, path()
    slope = (FIRST - LAST) / (n * h)
    exact = mixture(run.dim).noised(vp).score
    sde = sg.ItoProcess(
        lambda x, t: vp.alpha(FIRST - slope * t) ** 2 * exact(x, FIRST - slope * t),
        lambda t: 2**0.5 * vp.alpha(FIRST - slope * t),
    )

    def step(k, x):
        t = FIRST - slope * k * h
        scale = 1 - beta(t) * slope * h if run.faulty else alpha_of(t) ** 2
        score = noised_score(x, alpha_of(t), sigma_of(t))
        return x + h * scale * score + math.sqrt(2 * h * scale) * run.normal(x.shape)

    states = walk(start(run, alpha_of(FIRST), sigma_of(FIRST)), n, step)
    return Planted(sde, sg.EulerMaruyama(), grid(n, h), states)


@planted(
    "noise where there is none",
    "max stood for min in the amount of churn: noise was stirred into a deterministic sampler.",
    project="Koishi-Star/Euler-Smea-Dyn-Sampler",
    issue=11,
    checked=True,
)
def always_churning(run):
    ts = np.geomspace(20.0, 0.05, 31)
    edm = sg.EDM(t_min=0.01, t_max=40.0)
    sde = sg.ReverseSDE(edm, mixture(run.dim).noised(edm).score, 0.0)

    def slope(x, r):
        return -r * noised_score(x, 1.0, r)

    def step(k, x):
        r, end = ts[k], ts[k + 1]
        if run.faulty:
            hot = math.sqrt(2) * r
            x, r = x + math.sqrt(hot**2 - r**2) * run.normal(x.shape), hot
        first = slope(x, r)
        ahead = x + (end - r) * first
        return x + 0.5 * (end - r) * (first + slope(ahead, end))

    states = walk(start(run, 1.0, ts[0]), len(ts) - 1, step)

    def score(x):
        return noised_score(x, 1.0, ts[-1])

    return Planted(sde, sg.KarrasHeun(), torch.from_numpy(ts), states, score=score)
