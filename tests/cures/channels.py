"""Advice on noise with channels, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import F64, TWO, column, near, simulate

ZERO = torch.tensor(0.0, dtype=F64)
G = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)


def of_matrix(diffusion, **options):
    return sg.ItoProcess(lambda x: 0 * x, diffusion, **options)


def own_column(x):
    """G of one noise in one coordinate: g = x, shape (batch, 1, 1)."""
    return x[..., None]


def hidden(x):
    return own_column(x.detach()).round()


def half_of_x(sde):
    """The Stratonovich drift of g = x is x/2."""
    near(sde.drift(column(2.0), ZERO).detach(), column(1.0))


class Declared(sg.SDE):
    """Brownian motion by a matrix, which says of its structure what it is told."""

    noise = "additive"

    def __init__(self, structure):
        self.channels, self.noise_structure = 3, structure

    def drift(self, x, t):
        return 0 * x

    def diffusion(self, x, t):
        return G.to(x)[None]


class Twice(Declared):
    """Twice the noise, with the columns of the other."""

    def diffusion(self, x, t):
        return 2 * super().diffusion(x, t)

    def diffusion_column(self, x, t, k):
        return G[:, k].to(x)


class Whole(Twice):
    """Twice the noise, and its columns."""

    diffusion_column = sg.SDE.diffusion_column


def of_mean(solver):
    """Noise of the mean moves a trajectory by it: those that stand at 0 and 2 by 1."""
    x0 = torch.tensor([[0.0], [2.0]], dtype=F64)
    matrix = of_matrix(lambda x: x.mean(0, keepdim=True).expand_as(x)[..., None], channels=1)
    path = sg.BrownianPath(0, [0.0, 0.1])
    w = path.noise(x0, [0.0, 0.1], channels=1).increment(0)
    near(sg.simulate(matrix, x0, [0.0, 0.1], solver=solver, brownian=path).final - x0, w)


def spreads(sde, trajectories=4000):
    """The covariance of G W at t = 1, within 4.4 standard errors."""
    x = simulate(sde, torch.zeros(trajectories, 2, dtype=F64)).final
    square, found = G @ G.T, torch.cov(x.T, correction=0)
    error = ((torch.outer(square.diag(), square.diag()) + square**2) / trajectories).sqrt()
    assert bool(((found - square).abs() < 4.4 * error).all())


class General(sg.SDE):
    """g = x in both coordinates by one noise, as `add_noise` alone says it."""

    noise_structure = "general"

    def drift(self, x, t):
        return 0 * x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * x * noise.normal()[:, :1]

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * x * (x * v).sum(1, keepdim=True)


def by_hand(noise):
    *_, x = sg.integrate(of_matrix(G, channels=3), sg.EulerMaruyama(), TWO, [0.0, 1.0], noise)
    assert x.shape == TWO.shape
    assert float(x.std()) > 0


def square(root):
    """A noise matrix of 3 coordinates, or with an axis more and declared."""
    x0 = torch.zeros(3, 3, dtype=F64)
    sde = of_matrix(root, noise="additive", channels=3 if root(x0).ndim == 3 else None)
    x = simulate(sde, x0, interacting=True).final
    assert math.isfinite(float(x.sum()))


FOLLOWED = {
    "a derivative of a matrix": (
        "leave it out: derivatives of G are found by autograd",
        lambda: of_matrix(
            own_column,
            channels=1,
            interpretation="stratonovich",
            diffusion_derivative=torch.ones_like,
        ),
        lambda: half_of_x(of_matrix(own_column, channels=1, interpretation="stratonovich")),
    ),
    "channels without their structure": (
        "set channels = m with noise_structure = 'channels'",
        lambda: spreads(Declared("diagonal")),
        lambda: spreads(Declared("channels")),
    ),
    "a divergence of general noise": (
        r"write it as ItoProcess\(f, G, channels=m\)",
        lambda: General().covariance_divergence(TWO + 1, ZERO),
        lambda: near(  # ∂_j (x_i x_j) = 3 x_i in two dimensions
            of_matrix(own_column, channels=1).covariance_divergence(TWO + 1, ZERO).detach(),
            3 * (TWO + 1),
        ),
    ),
    "a matrix that jumps": (
        "or add the drift of the interpretation to f yourself",
        lambda: simulate(
            of_matrix(hidden, channels=1, interpretation="stratonovich"), column(2.0)
        ),
        lambda: half_of_x(sg.ItoProcess(lambda x: x / 2, hidden, channels=1)),
    ),
    "noise of other channels": (
        "noise must draw one number for each Wiener process of",
        lambda: by_hand(sg.Noise(TWO, rng=0)),
        lambda: by_hand(sg.Noise(TWO, rng=0, channels=3)),
    ),
    "a square matrix of all rows": (
        r"return it with an axis more, G\[None\], and pass channels=",
        lambda: square(lambda x: torch.eye(3).to(x)),
        lambda: square(lambda x: torch.eye(3).to(x)[None]),
    ),
    "columns of another matrix": (
        "is not that of its diffusion: .*; define both, or the diffusion alone",
        lambda: simulate(Twice("channels"), TWO),
        lambda: near(
            simulate(Whole("channels"), TWO).final - TWO,
            2 * (simulate(Declared("channels"), TWO).final - TWO),
        ),
    ),
    "noise of a mean field": (
        r"take EulerMaruyama\(\), with interpretation='ito'",
        lambda: of_mean(sg.DRI1()),
        lambda: of_mean(sg.EulerMaruyama()),
    ),
}

# of messages that hold no verb of the list
UNSEEN = {"columns of another matrix"}
