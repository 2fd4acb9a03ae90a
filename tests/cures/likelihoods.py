"""Advice on likelihoods and on models from elsewhere, followed."""

import math
import tomllib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

import sdegen as sg
from sdegen.core.optional import needed
from tests.cures.common import F64, GAUSS, REVERSE, VP, column, near

X = column(0.3, 3)
EXACT = GAUSS.log_prob(X, torch.tensor(VP.t_min, dtype=F64))
CHAIN = sg.DDPM.discretize(VP, 200)
ROOT = Path(sg.__file__).parents[1]


def log_prob(sde=VP, score=GAUSS.score, x=X, solver=None, **options):
    solver = sg.Heun(60) if solver is None else solver
    return sg.log_likelihood(sde, score, x, solver=solver, rng=0, **options).log_prob


def exactly(sde=VP, score=GAUSS.score, tolerance=3e-3, **options):
    """The likelihood of Gaussian data, which has a formula."""
    near(log_prob(sde, score, **options), EXACT, tolerance)


def bounded(found, gap=0.1):
    """A bound on log p(x) of Gaussian data, within its error and so far below what is right."""
    exact = sg.GaussianMixture([1.0], [0.0], stds=0.5).log_prob(X)
    low, high = (
        found.log_prob - 5 * found.standard_error,
        found.log_prob + 5 * found.standard_error,
    )
    assert bool((low < exact).all()), (low, exact)
    assert bool((high > exact - gap).all()), (high, exact)


def bounds_of_chains():
    """Each cure gives a bound: loose by what a step of 200 loses, and by the noise up to t_min."""
    late = sg.DDPM.discretize(VP, times=sg.timesteps.log_snr(VP, 200))
    std = float(f"{float(CHAIN.sigmas[1] / CHAIN.a[0]):.3g}")
    bounded(sg.elbo(CHAIN.reverse(GAUSS.score), X, decoder_std=std, rng=0), 1.5)
    bounded(sg.elbo(CHAIN.reverse(GAUSS.score, variance="beta"), X, rng=0), 0.6)
    bounded(sg.elbo(late.reverse(GAUSS.score), X, rng=0), 0.6)


class Normalised(torch.nn.Module):
    """A network that normalises over the batch in training, and by what it remembers after."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1, affine=False, dtype=F64)

    def forward(self, x, t):
        return -self.norm(x)


def in_evaluation():
    """In evaluation mode the network is −x, the score of N(0, 1), which VP leaves as it is."""
    model = Normalised()
    model.eval()
    normal = -0.5 * (X[:, 0] ** 2 + math.log(2 * math.pi))
    near(log_prob(score=model), normal, 1e-3)


def without_gradients():
    with torch.no_grad():
        return log_prob(differentiable=True)


def with_gradients():
    """d log p/dx of Gaussian data is its score."""
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_prob(x=x, differentiable=True).sum(), x)
    near(slope, GAUSS.score(X, torch.tensor(VP.t_min, dtype=F64)), 3e-3)


def sketched():
    """The number of probes that is named serves, in three dimensions; one is exact."""
    law = sg.GaussianMixture([1.0], [[0.0] * 3], stds=0.5).noised(VP)
    x = torch.full((2, 3), 0.3, dtype=F64)
    expected = law.log_prob(x, torch.tensor(VP.t_min, dtype=F64))
    for divergence in ("exact", sg.HutchPlusPlus(4)):
        near(log_prob(score=law.score, x=x, divergence=divergence), expected, 3e-3)
    near(log_prob(divergence="exact"), EXACT, 3e-3)


# --- models from elsewhere: networks of N(0, 1) data


def denoiser(x, sigma):
    """E[x0 | x] of N(0, 1) data."""
    return x / (1 + sigma.reshape(-1, 1) ** 2)


class Limited(torch.nn.Module):
    """The same, made for some noise levels; not for those of every path."""

    sigma_min, sigma_max = 0.0123456789, 60.123456789

    def forward(self, x, sigma):
        assert bool((sigma >= self.sigma_min * (1 - 1e-5)).all())
        assert bool((sigma <= self.sigma_max * (1 + 1e-5)).all())
        return denoiser(x, sigma)


def of_normal_data(model):
    """The score of N(0, 1) data, noised; at the ends of the path and beside the last."""
    sde = model.sde
    for t in (sde.t_min, 0.99 * sde.t_max, sde.t_max):
        at = torch.tensor(t, dtype=F64)
        near(model.score(X, at), -X / (sde.alpha(at) ** 2 + sde.sigma(at) ** 2), 1e-6)


def within_levels(path):
    """Both cures: without a path, and on this one, cut as the message says."""
    of_normal_data(sg.from_denoiser(Limited()))
    try:
        sg.from_denoiser(Limited(), path())
    except ValueError as error:
        words = str(error).split()
        start, end = (float(w.split("=")[1].rstrip(".")) for w in words if "t_m" in w)
    of_normal_data(sg.from_denoiser(Limited(), path(t_min=start, t_max=end)))


def scheduler(name, **config):
    """What is read of a scheduler of diffusers: its name, its configuration and its table."""
    known = {"num_train_timesteps": 100, "prediction_type": "epsilon"} | config
    table = (1 - torch.linspace(1e-3, 0.1, 100, dtype=F64)).cumprod(0)
    made = type(f"{name}Scheduler", (), {})()
    made.config, made.alphas_cumprod = SimpleNamespace(**known), table
    return made


def noise_of(x, k):
    """ε̂ of N(0, 1) data: a DDPM leaves them as they are."""
    return (1 - scheduler("DDPM").alphas_cumprod[k.long()]).sqrt().reshape(-1, 1) * x


def velocity(x, k):
    """dx/ds of N(0, 1) data, s = k/100 from noise at 0 to data at 1: x_s = s x0 + (1 − s) ε."""
    s = (k / 100).reshape(-1, 1).to(x)
    return (s - (1 - s)) / (s**2 + (1 - s) ** 2) * x


def turned_round():
    flow = scheduler("FlowMatchEulerDiscrete")
    of_normal_data(sg.from_diffusers(lambda x, k: -velocity(x, 100 - k), flow))


def given_labels(x, sigma, labels):
    return denoiser(x, sigma) + 0 * labels.reshape(-1, 1)


def with_labels():
    """Told a label, or with a label for none."""
    model = sg.from_denoiser(given_labels, classes=3)
    of_normal_data(model.conditional(1))
    of_normal_data(sg.from_denoiser(given_labels, classes=3, none=3))


def to_diffusers(times):
    """The table of a path at given times, ᾱ = α²/(α² + σ²)."""
    model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0), VP)
    library = SimpleNamespace(DDPMScheduler=lambda **config: SimpleNamespace(**config))
    with mock.patch("sdegen.adaptors.diffusers_unet.needed", return_value=library):
        _, made = sg.to_diffusers(model, (1, 1, 1), times=times)
    near(made.alphas_cumprod.flip(0), VP.alpha(torch.as_tensor(times, dtype=F64)) ** 2, 1e-9)


def missing(library, extra):
    """The name that pip is told is one of the package's, and brings the library."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(word.startswith(library) for word in written["optional-dependencies"][extra])


def not_there(library, extra):
    with mock.patch("importlib.import_module", side_effect=ImportError(library)):
        try:
            needed(library, f"to_{library}", extra=extra)
        except ImportError as error:
            raise ValueError(str(error)) from error


RESTING = sg.ItoProcess(lambda x: -x, 2**0.5)


class AtRest:
    """The score of N(0, 1), which is at rest."""

    score_range = (0.1, 1.0)

    def __call__(self, x, t):
        return -x


def at_rest():
    law = sg.GaussianPrior(torch.zeros(X.shape[1]))
    found = sg.log_likelihood(
        RESTING, AtRest(), X, solver=sg.Heun(60), prior_log_prob=law.log_prob
    )
    near(found.log_prob, law.log_prob(X), 1e-6)


FOLLOWED = {
    # --- likelihoods
    "a likelihood of a reverse process": (
        "sde must be the forward SDE, from which the flow is made here",
        lambda: log_prob(REVERSE),
        lambda: (
            exactly(REVERSE.forward),
            bounded(sg.continuous_elbo(REVERSE.forward, GAUSS.score, X, rng=0)),
        ),
    ),
    "a likelihood of what has no kernel": (
        "{} needs a GaussianPath, with additive noise",
        lambda: sg.continuous_elbo(sg.OrnsteinUhlenbeck(), GAUSS.score, X),
        lambda: bounded(sg.continuous_elbo(VP, GAUSS.score, X, rng=0)),
    ),
    "a likelihood whose end is not known": (
        "has no Gaussian kernel, and the density at which its noising ends is not known",
        lambda: sg.log_likelihood(RESTING, AtRest(), X, solver=sg.Heun(60)),
        at_rest,
    ),
    "a likelihood of points that mix": (
        "the score of one point changes with the others in its batch",
        lambda: log_prob(score=Normalised().train()),
        in_evaluation,
    ),
    "gradients that are switched off": (
        "differentiable=True, but gradients are switched off around the call",
        without_gradients,
        with_gradients,
    ),
    "more probes than dimensions": (
        r"take divergence='exact'\{\}",
        lambda: log_prob(divergence=sg.HutchPlusPlus(8)),
        sketched,
    ),
    "a likelihood by a sampler": (
        "does not solve the flow of x and its divergence together",
        lambda: log_prob(solver=sg.DDIM()),
        lambda: [
            exactly(solver=solver, tolerance=tolerance)
            for solver, tolerance in (
                (sg.TorchDiffEq(), 1e-3),
                (sg.Heun(substeps=60), 3e-3),
                (sg.EulerMaruyama(substeps=400), 5e-2),
            )
        ],
    ),
    "a bound of an SDE": (
        "elbo takes the chain that walks back",
        lambda: sg.elbo(VP, X),
        lambda: (
            bounded(sg.elbo(CHAIN.reverse(GAUSS.score, "beta"), X, rng=0), 0.6),
            bounded(sg.continuous_elbo(VP, GAUSS.score, X, rng=0)),
        ),
    ),
    "a last step without noise": (
        "has no noise and therefore no density: pass decoder_std=",
        lambda: sg.elbo(CHAIN.reverse(GAUSS.score), X),
        bounds_of_chains,
    ),
    # --- denoisers
    "a conditional denoiser without a label": (
        "classes and no label for none: ask",
        lambda: sg.from_denoiser(given_labels, classes=3).score(X, 1.0),
        with_labels,
    ),
    "noise levels that a denoiser does not know": (
        r"leave sde out, for EDM within them",
        lambda: sg.from_denoiser(Limited(), sg.EDM()),
        lambda: [within_levels(path) for path in (sg.EDM, sg.RectifiedFlow)],
    ),
    # --- diffusers
    "a scheduler that says nothing of a score": (
        "{} cannot be converted: it is not one of the schedulers",
        lambda: sg.from_diffusers(noise_of, scheduler("DDPMWuerstchen")),
        lambda: of_normal_data(sg.from_diffusers(noise_of, scheduler("DDPM"))),
    ),
    "a scheduler of noise levels": (
        r"tells its network a noise level, not a timestep",
        lambda: sg.from_diffusers(
            noise_of, scheduler("EulerDiscrete", timestep_type="continuous")
        ),
        lambda: of_normal_data(sg.from_denoiser(denoiser)),
    ),
    "a scheduler that counts the other way": (
        r"counts its noise from 1 down \(invert_sigmas\)",
        lambda: sg.from_diffusers(
            velocity, scheduler("FlowMatchEulerDiscrete", invert_sigmas=True)
        ),
        turned_round,
    ),
    "times of a scheduler outside the path": (
        r"times must be monotone within \[t_min, t_max\]",
        lambda: to_diffusers([0.0, 0.5, 1.0]),
        lambda: to_diffusers(VP.time_grid(9)),
    ),
    "a library that is not there": (
        r"which is not installed: pip install 'sdegen\[",
        lambda: not_there("diffusers", "diffusers"),
        lambda: (missing("diffusers", "diffusers"), missing("azula", "azula")),
    ),
}
