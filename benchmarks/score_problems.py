"""Seven noising processes whose true score ∇ log p_t is known, and the error of a learned one.

Truths are solutions of the Fokker–Planck equation on a line and in the plane, and exact mixtures
of Gaussians of linear processes. The error of a score ŝ is relative and weighted by p_t,

    √(E_p |ŝ − s|² / E_p |s|²),    worst of t = 0.2, 0.5, 1, 2

On a grid E_p is a sum over its nodes; of a mixture it is a mean over 20,000 samples. How far a
truth can be trusted is measured: by a grid with half of the cells; of a mixture it is rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from scipy.interpolate import CubicSpline

import sdegen as sg

F64 = torch.float64
TIMES = (0.2, 0.5, 1.0, 2.0)
SAMPLES = 20_000  # of an exact law
FAINT = 1e-9  # of the peak: below it a density has no digits, and no weight


@dataclass(frozen=True)
class Truth:
    """The score of p_t where p_t is.

    Args:
        t: Time.
        x: Places, shape (n, d), float64.
        weights: p_t of each, of sum 1, shape (n,).
        score: ∇ log p_t at them, shape (n, d).
        error: Its relative error in the same norm, estimated.
    """

    t: float
    x: torch.Tensor
    weights: torch.Tensor
    score: torch.Tensor
    error: float

    def distance(self, score):
        """Return √(E|ŝ − s|²/E|s|²) of values of a score at the places, shape (n, d)."""
        square = self.weights @ (score.double() - self.score).square().sum(1)
        return float((square / (self.weights @ self.score.square().sum(1))).sqrt())

    def judge(self, score):
        """Return the relative error of a score (x, t), asked in float32 as it was trained."""
        with torch.no_grad():
            values = score(self.x.float(), torch.tensor(self.t))
        return self.distance(values)


@dataclass(frozen=True)
class Problem:
    """A noising process, a law to start from, and what solves for its density.

    Args:
        name: What it is called.
        sde: The process.
        start: The law p_0, a mixture of Gaussians.
        solve: solve(problem) returns a `Truth` for each of TIMES.
        words: f, g and p_0 in words.
        goal: The relative error that is asked for.
        network: Width and depth of the MLP.
        batch: Rows of a step.
    """

    name: str
    sde: sg.SDE
    start: sg.GaussianMixture
    solve: Callable
    words: str
    goal: float = 0.04
    network: tuple[int, int] = (64, 3)
    batch: int = 1024

    @property
    def dim(self):
        return self.start.dim

    def truths(self):
        """Return the truth at each of TIMES; solved for once."""
        return _solved(self.name)

    def judge(self, score):
        """Return {t: relative error} of a score (x, t)."""
        return {truth.t: truth.judge(score) for truth in self.truths()}


def on_a_line(low, high, cells=1600):
    """Return what solves on [low, high], and again with half of the cells."""

    def scores(problem, cells):
        grid = sg.Grid(low, high, cells)
        p0 = torch.exp(problem.start.log_prob(grid.nodes[:, None]))
        solver = sg.FokkerPlanck(problem.sde, grid)
        start = sg.Density(grid.nodes, p0).normalized()
        path = solver.solve(start, torch.tensor([0.0, *TIMES], dtype=F64))
        for p in path.p[1:]:
            kept = p > FAINT * p.max()
            x, p = grid.nodes[kept], p[kept]
            yield x, p, torch.from_numpy(CubicSpline(x.numpy(), p.log().numpy())(x.numpy(), 1))

    def solve(problem):
        out = []
        coarse = scores(problem, cells // 2)
        for t, (x, p, s), (x2, _, s2) in zip(TIMES, scores(problem, cells), coarse, strict=True):
            common = torch.isclose(x[:, None], x2[None, :], atol=1e-9, rtol=0)
            i, j = common.nonzero().unbind(1)
            apart = p[i] @ (s[i] - s2[j]).square() / (p[i] @ s[i].square())
            out.append(Truth(t, x[:, None], p / p.sum(), s[:, None], float(apart.sqrt())))
        return out

    return solve


def in_the_plane(low, high, cells=160):
    """Return what solves on [low, high] × [low, high] of two pairs of numbers."""

    def solve(problem):
        grids = tuple(sg.Grid(a, b, cells) for a, b in zip(low, high, strict=True))
        solver = sg.FokkerPlanck2D(problem.sde, grids)
        blank = solver.gaussian((0.0, 0.0), [[1.0, 0.0], [0.0, 1.0]])
        nodes = torch.cartesian_prod(blank.x, blank.y)
        p0 = torch.exp(problem.start.log_prob(nodes)).reshape(blank.p.shape)
        p0 = sg.PlaneDensity(blank.x, blank.y, p0)
        p0 = sg.PlaneDensity(blank.x, blank.y, p0.p / p0.mass)
        out = []
        for t, density in zip(TIMES, solver.solve(p0, [0.0, *TIMES])[1:], strict=True):
            score = sg.PlaneScore([density])
            p = density.p.flatten()
            kept = p > FAINT * p.max()
            x, p = nodes[kept], p[kept]
            error = float(score.error["score"][0])
            out.append(Truth(t, x, p / p.sum(), score(x, t), error))
        return out

    return solve


def linear_mixture(start, sde, t):
    """Return the law of X_t of a linear process, a mixture again: N(Φμ + m, Φ C Φᵀ + Σ)."""
    step = sde.transition(0.0, t)
    own = torch.einsum("kij,kj,klj->kil", start.axes, start.variances, start.axes)
    means = start.means @ step.matrix.T + step.shift
    covariances = step.matrix @ own @ step.matrix.T + step.covariance
    return sg.GaussianMixture(start.weights, means, covariances=covariances)


def exactly(problem):
    """Return the truth of a linear process, at samples."""
    out = []
    for t in TIMES:
        law = linear_mixture(problem.start, problem.sde, t)
        x = law.sample(SAMPLES, rng=int(1000 * t), dtype=F64)
        weights = torch.full((len(x),), 1 / len(x), dtype=F64)
        out.append(Truth(t, x, weights, law.force(x), 1e-12))
    return out


def _well(x):
    return x - x**3


def _washboard(x):
    return 0.7 - 2 * torch.sin(2 * x)


def _deep(x):
    return 4 * x - 4 * x**3 - 0.4


def _noise(x):
    return 0.7 * torch.sqrt(1 + 0.5 * x**2)


def _maier_stein(x):
    u, v = x[:, :1], x[:, 1:]
    return torch.cat([u - u**3 - 5.0 * u * v**2, -(1 + u**2) * v], 1)


def _ten_dimensional():
    """Return A, whose symmetric part has eigenvalues 0.5 … 1.4 and B, a lower triangle."""
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(3, 10, 10, generator=generator, dtype=F64)
    q, _ = torch.linalg.qr(z[0])
    turn = 0.5 * (z[1] - z[1].T) / math.sqrt(2)
    A = q @ torch.linspace(0.5, 1.4, 10, dtype=F64).diag() @ q.T + turn
    B = torch.eye(10, dtype=F64) + 0.3 * z[2].tril(-1) / math.sqrt(5)
    return sg.LinearSDE(A, B)


def _four_in_ten():
    generator = torch.Generator().manual_seed(11)
    means = torch.randn(4, 10, generator=generator, dtype=F64)
    means = 3.0 * means / means.norm(dim=1, keepdim=True)
    return sg.GaussianMixture([0.4, 0.3, 0.2, 0.1], means, stds=[0.5, 0.6, 0.7, 0.5])


def _problems():
    """Yield every problem."""
    pair = sg.GaussianMixture([0.6, 0.4], [[-1.2], [0.6]], stds=[0.3, 0.4])
    yield Problem(
        "double well",
        sg.ItoProcess(_well, 1.0, noise="additive", autonomous=True),
        pair,
        on_a_line(-5.0, 5.0),
        "f = x − x³, D = ½; p_0 = 0.6 N(−1.2, 0.3²) + 0.4 N(0.6, 0.4²)",
        goal=0.02,
    )
    yield Problem(
        "tilted washboard",
        sg.ItoProcess(_washboard, 1.0, noise="additive", autonomous=True),
        sg.GaussianMixture([1.0], [[0.0]], stds=0.5),
        on_a_line(-10.0, 13.0, 2400),
        "f = 0.7 − 2 sin 2x, D = ½; p_0 = N(0, 0.5²)",
    )
    yield Problem(
        "deep tilted well",
        sg.ItoProcess(_deep, 1.0, noise="additive", autonomous=True),
        sg.GaussianMixture([1.0], [[0.2]], stds=0.6),
        on_a_line(-4.0, 4.0),
        "U = x⁴ − 2x² + 0.4x, D = ½; p_0 = N(0.2, 0.6²)",
    )
    yield Problem(
        "Maier–Stein",
        sg.ItoProcess(_maier_stein, 0.6, noise="additive", autonomous=True),
        sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.3], [0.5, -0.4]], stds=[0.3, 0.4]),
        in_the_plane((-3.0, -3.0), (3.0, 3.0)),
        "f = (x − x³ − 5xy², −(1 + x²)y), D = 0.18; p_0 = "
        "½ N((−1, .3), .3²) + ½ N((.5, −.4), .4²)",
    )
    yield Problem(
        "rotating trap",
        sg.LinearSDE([[1.0, 2.0], [-2.0, 1.0]], 1.0),
        sg.GaussianMixture([0.5, 0.3, 0.2], [[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]], stds=0.4),
        exactly,
        "f = −x + 2Rx, D = ½; p_0 three Gaussians of 0.4 at (2, 0), (−1, ±1.5)",
    )
    yield Problem(
        "multiplicative noise",
        sg.ItoProcess(_well, _noise, autonomous=True),
        pair,
        on_a_line(-6.0, 6.0),
        "f = x − x³, g = 0.7 √(1 + x²/2) (Itô); p_0 as for the double well",
    )
    yield Problem(
        "10-D linear",
        _ten_dimensional(),
        _four_in_ten(),
        exactly,
        "full A and B; p_0 four Gaussians at distance 3 from 0",
        network=(128, 3),
    )


PROBLEMS = {problem.name: problem for problem in _problems()}


@cache
def _solved(name):
    """Return the truths of a problem."""
    problem = PROBLEMS[name]
    return problem.solve(problem)
