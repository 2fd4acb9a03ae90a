"""Are estimated errors true? Densities of random problems, at rest and in time, beside the truth.

    python -m benchmarks.random_problems                    # SEED, the published ones
    python -m benchmarks.random_problems --seed 20261130    # others, to see them hold

510 problems, a third of them in the plane, each asked at rest or in time; their seeds are
fixed here, `SEED` and the number of the problem. A potential over kT is a random Fourier sum or a
random quintic, its barrier 0 to 20; D varies by a factor of 1 to 100; there are 60 to 1,000 cells
on a line, 24² to 72² in the plane; and the cell Péclet number |f| h/D is 0.01 to 30, by a
constant force on top of the potential where that is too smooth for it. Truth is an integral over
eight times as many cells by eight Gauss points in each (rest on a line), the answer on a grid of
eight times as many cells and more in layers at walls (rings, and time on a line), or a formula
(the plane: e^{−U} with any divergence-free circulation, and Gaussians of a linear drift in time).

An estimate is covered if it is at least a third of the true error. Errors below 1e-9 are rounding:
they are covered, and left out of ratios. A refusal of a problem is false if the truth exists,
which is always. An error is that of p over its peak, of the mean over max(|mean|, deviation), of
the variance, and in the plane of the covariance over its largest entry.
"""

import argparse
import math
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import linalg

import sdegen as sg
from benchmarks.record import write

SEED = 20261129
LINE, PLANE = 340, 170
ROUNDING = 1e-9
_EXACT = 1e-7  # what the truth in time is asked for
_GAUSS, _WEIGHTS = np.polynomial.legendre.leggauss(8)


@dataclass
class Problem:
    """One problem, what it is made of, and how it is asked and answered."""

    seed: int
    question: str  # "rest" or "time"
    where: str
    cells: int
    peclet: float
    barrier: float
    contrast: float
    ask: object = field(repr=False)  # () → values and estimates by name
    truth: object = field(repr=False)  # () → values and scales by name


# ---- a line ------------------------------------------------------------------------------------


def fourier(rng, most):
    """A random Fourier sum of period 1 and its derivative, of range 1."""
    k = np.arange(1, rng.integers(1, most + 1) + 1)
    amplitude = rng.normal(size=(2, len(k))) / k ** rng.uniform(0.5, 1.5)
    x = np.linspace(0, 1, 4001)
    y = np.cos(2 * np.pi * np.outer(x, k)) @ amplitude[0]
    y += np.sin(2 * np.pi * np.outer(x, k)) @ amplitude[1]
    size = y.max() - y.min()
    a, b = (torch.from_numpy(row / size) for row in amplitude)
    w = 2 * math.pi * torch.from_numpy(k.astype(float))

    def value(x):
        return torch.cos(x[..., None] * w) @ a + torch.sin(x[..., None] * w) @ b

    def slope(x):
        return torch.cos(x[..., None] * w) @ (w * b) - torch.sin(x[..., None] * w) @ (w * a)

    return value, slope


def quintic(rng):
    """A random polynomial of degree 5 on [0, 1] and its derivative, of range 1."""
    c = rng.normal(size=6)
    x = np.linspace(-1, 1, 4001)
    c /= np.ptp(np.polynomial.polynomial.polyval(x, c))
    slopes = np.polynomial.polynomial.polyder(c)

    def poly(y, coefficients):
        total = torch.zeros_like(y)
        for a in coefficients[::-1]:
            total = total * y + float(a)
        return total

    return lambda x: poly(2 * x - 1, c), lambda x: 2 * poly(2 * x - 1, slopes)


def on_a_line(number, seed=SEED):
    """A problem on [0, 1] between walls, or on a ring."""
    rng = np.random.default_rng((seed, number))
    question = ("rest", "time")[number % 2]
    ring = rng.random() < 0.4
    smooth = ring or rng.random() < 0.5
    cells = round(60 * (1000 / 60) ** rng.random())
    peclet = 0.01 * 3000 ** rng.random()
    barrier = 20 * rng.random()
    contrast = 100 ** rng.random()
    _, slope = fourier(rng, 8) if smooth else quintic(rng)
    level, _ = fourier(rng, 3)
    x = torch.linspace(0, 1, 8001, dtype=torch.float64)
    low = float(level(x).min())
    steepest = float(slope(x).abs().max())
    barrier = min(barrier, peclet * cells / steepest)
    push = (peclet * cells - barrier * steepest) * rng.choice([-1.0, 1.0])
    if rng.random() < 0.3:  # a potential alone, as steep as it is
        peclet, push = barrier * steepest / cells, 0.0

    def d(x):
        return contrast ** (level(x) - low - 1)  # from 1/contrast to 1

    sde = sg.ItoProcess(
        lambda x: d(x) * (push - barrier * slope(x)), lambda x: torch.sqrt(2 * d(x))
    )
    grid = sg.Grid(0.0, 1.0, cells)
    walls = "periodic" if ring else "no-flux"
    start = (rng.uniform(0.3, 0.7), max(rng.uniform(3, 20) / cells, 0.01))
    reach = 2.0 if ring else 1.0  # a ring is run around twice at most
    end = 10 ** rng.uniform(-3, -0.3)
    end = min(end, reach / (abs(push) * float(d(x).max()) + 1e-9))

    def solver(grid):
        return sg.FokkerPlanck(sde, grid, walls, truncation_is_physical=True)

    def ask():
        if question == "rest":
            p = solver(grid).stationary()
        else:
            p = solver(grid).solve(grid.gaussian(*start), [0.0, end]).final
        error = {} if p.error is None else p.error
        return (
            {"p": p.p.numpy(), "mean": float(p.mean), "variance": float(p.variance)},
            {name: float(error.get(name, math.nan)) for name in ("p", "mean", "variance")},
        )

    def truth():
        if question == "rest" and not ring:
            return quadrature(sde, grid)
        fine = eight_times_finer(sde, grid, ring=ring)
        if question == "rest":
            p = solver(fine).stationary(rtol=1e-8)
        else:
            p = solver(fine).solve(fine.gaussian(*start), [0.0, end], rtol=_EXACT).final
        kept = torch.searchsorted(fine.nodes, grid.nodes)
        return moments(p.p[kept].numpy(), float(p.mean), float(p.variance))

    where = "ring" if ring else "box"
    return Problem(number, question, where, cells, peclet, barrier, contrast, ask, truth)


def eight_times_finer(sde, grid, *, ring):
    """All cells in eight, and over a layer at a wall as many more as make f h/D an eighth."""
    parts = torch.arange(8, dtype=torch.float64) / 8
    cells = grid.nodes[:-1, None] + grid.widths[:, None] * parts
    nodes = torch.cat([cells.flatten(), grid.nodes[-1:]])
    for wall in () if ring else (grid.low, grid.high):
        x = torch.tensor([[wall]], dtype=torch.float64)
        f, g = sde.drift(x, torch.tensor(0.0)), sde.diffusion(x, torch.tensor(0.0))
        steep = abs(float(f / (0.5 * g**2)))
        while True:
            middle, h = 0.5 * (nodes[1:] + nodes[:-1]), nodes.diff()
            wide = ((middle - wall).abs() * steep < 40) & (h * steep > 0.125)
            if not wide.any():
                break
            nodes = torch.cat([nodes, middle[wide]]).sort().values
    return sg.Grid.of(nodes)


def moments(p, mean, variance):
    """Values and scales."""
    return (
        {"p": p, "mean": mean, "variance": variance},
        {"p": p.max(), "mean": max(abs(mean), math.sqrt(variance)), "variance": variance},
    )


def quadrature(sde, grid):
    """The density without current, by Gauss points in eight parts of each cell."""
    nodes = torch.linspace(grid.low, grid.high, 8 * grid.cells + 1, dtype=torch.float64).numpy()
    h = nodes[1] - nodes[0]
    xi = 0.5 * (1 + _GAUSS)

    def slope(x):
        state = torch.from_numpy(x.reshape(-1, 1))
        f, g = sde.drift(state, torch.tensor(0.0)), sde.diffusion(state, torch.tensor(0.0))
        return (f / (0.5 * g**2)).numpy().reshape(x.shape), (0.5 * g**2).numpy().reshape(x.shape)

    def risen(left, length):  # ∫ f/D from left over a length
        return (slope(left[..., None] + length[..., None] * xi)[0] @ (0.5 * _WEIGHTS)) * length

    left = nodes[:-1]
    gains = risen(left, np.full_like(left, h))
    log_s = np.concatenate([[0.0], np.cumsum(gains)])
    log_p = log_s - np.log(slope(nodes)[1])
    top = log_p.max()
    inside = left[:, None] + h * xi
    within = log_s[:-1, None] + risen(
        np.broadcast_to(left[:, None], inside.shape), inside - left[:, None]
    )
    p = np.exp(within - np.log(slope(inside)[1]) - top) * (0.5 * h * _WEIGHTS)
    mass = p.sum()
    mean = (p * inside).sum() / mass
    variance = (p * (inside - mean) ** 2).sum() / mass
    return moments(np.exp(log_p[::8] - top) / mass, mean, variance)


# ---- the plane ---------------------------------------------------------------------------------


def in_the_plane(number, seed=SEED):
    """A problem on a square: e^{−U} with a circulation at rest, a linear drift in time."""
    rng = np.random.default_rng((seed, 10_000 + number))
    cells = int(rng.integers(24, 73))
    return (resting if number % 2 == 0 else linear)(rng, number, cells)


def resting(rng, number, cells):
    """p = e^{−U}/Z: J = p (−∂_y ψ, ∂_x ψ) + …, f = −D∇U + ∇D + c (∂_y, −∂_x)(ψ p)/p."""
    barrier, contrast = 20 * rng.random(), 100 ** rng.random()
    peclet = 0.01 * 3000 ** rng.random()
    u = [fourier(rng, 2) for _ in range(2)]
    mixed = rng.normal()
    levels = [fourier(rng, 1) for _ in range(2)]
    s = torch.linspace(0, 1, 401, dtype=torch.float64)

    def potential(x, y):
        return u[0][0](x) + u[1][0](y) + mixed * torch.cos(math.pi * x) * torch.cos(math.pi * y)

    values = potential(s[:, None].expand(-1, 401), s[None].expand(401, -1))
    size = barrier / float(values.max() - values.min())
    low = [float(value(s).min()) for value, _ in levels]

    def d(axis, x):
        return contrast ** (levels[axis][0](x) - low[axis] - 1)

    def grad_u(x, y):
        return (
            size
            * (u[0][1](x) - mixed * math.pi * torch.sin(math.pi * x) * torch.cos(math.pi * y)),
            size
            * (u[1][1](y) - mixed * math.pi * torch.cos(math.pi * x) * torch.sin(math.pi * y)),
        )

    def swirl(z, c):
        x, y = z[:, 0], z[:, 1]
        # ψ = sin(πx) sin(πy): no flow through the walls; (∂_y ψ − ψ U_y, −∂_x ψ + ψ U_x)
        psi = torch.sin(math.pi * x) * torch.sin(math.pi * y)
        ux, uy = grad_u(x, y)
        return c * torch.stack([
            math.pi * torch.sin(math.pi * x) * torch.cos(math.pi * y) - psi * uy,
            -math.pi * torch.cos(math.pi * x) * torch.sin(math.pi * y) + psi * ux,
        ], 1)  # fmt: skip

    def rest_drift(z):
        x, y = z[:, 0], z[:, 1]
        first, second = d(0, x), d(1, y)
        ux, uy = grad_u(x, y)
        log_contrast = math.log(contrast)
        return torch.stack([
            first * (log_contrast * levels[0][1](x) - ux),
            second * (log_contrast * levels[1][1](y) - uy),
        ], 1)  # fmt: skip

    def noise(z):
        return torch.stack([torch.sqrt(2 * d(0, z[:, 0])), torch.sqrt(2 * d(1, z[:, 1]))], 1)

    z = torch.stack(torch.meshgrid(s[::4], s[::4], indexing="ij"), -1).reshape(-1, 2)
    of_swirl = float((swirl(z, 1.0) / (0.5 * noise(z) ** 2)).abs().max()) / cells
    c = peclet / of_swirl
    sde = sg.ItoProcess(lambda z: rest_drift(z) + swirl(z, c), noise)
    grid = sg.Grid(0.0, 1.0, cells)

    def ask():
        p = sg.FokkerPlanck2D(sde, (grid, grid), truncation_is_physical=True).stationary()
        return of_plane(p)

    def truth():
        weights = np.polynomial.legendre.leggauss(8)
        n = 8 * 24
        edges = np.linspace(0, 1, n + 1)
        x = (edges[:-1, None] + (edges[1] - edges[0]) * 0.5 * (1 + weights[0])).ravel()
        w = np.tile(0.5 * weights[1] / n, n)
        t = torch.from_numpy(x)
        log_p = -size * potential(t[:, None].expand(-1, len(x)), t[None].expand(len(x), -1))
        top = float(log_p.max())
        p = (log_p - top).exp().numpy()
        nodes = grid.nodes
        at = -size * potential(
            nodes[:, None].expand(-1, len(nodes)), nodes[None].expand(len(nodes), -1)
        )
        mass = w @ p @ w
        return of_masses((at - top).exp().numpy() / mass, x, p * np.outer(w, w) / mass)

    return Problem(number, "rest", "plane", cells, peclet, barrier, contrast, ask, truth)


def of_masses(p, x, m):
    """Truth in the plane from masses at points."""
    mean = np.array([m.sum(1) @ x, m.sum(0) @ x])
    dx, dy = x - mean[0], x - mean[1]
    covariance = np.array([[m.sum(1) @ dx**2, dx @ m @ dy], [0, m.sum(0) @ dy**2]])
    covariance[1, 0] = covariance[0, 1]
    return plane_truth(p, mean, covariance)


def plane_truth(p, mean, covariance):
    """Values and scales."""
    spread = np.sqrt(np.diag(covariance).max())
    return (
        {"p": p, "mean": mean, "covariance": covariance},
        {"p": p.max(), "mean": max(abs(mean).max(), spread), "covariance": spread**2},
    )


def of_plane(p):
    """Values and estimates in the plane."""
    return (
        {"p": p.p.numpy(), "mean": p.mean.numpy(), "covariance": p.covariance.numpy()},
        {name: float(p.error.get(name, math.nan)) for name in ("p", "mean", "covariance")},
    )


def linear(rng, number, cells):
    """dX = −A (X − ½) dt + √(2D) dW from a Gaussian: a Gaussian at every time."""
    contrast, peclet = 100 ** rng.random(), 0.01 * 3000 ** rng.random()
    width = rng.uniform(0.02, 0.032)  # walls are six deviations away
    d = np.array([1.0, contrast ** -rng.random()])
    rates = d / width**2 * rng.uniform(0.3, 1.0, 2)
    turn = peclet * cells * d.min() / 0.35 * rng.choice([-1.0, 1.0])
    a = np.array([[rates[0], turn], [-turn, rates[1]]])
    grid = sg.Grid(0.0, 1.0, cells)
    std = float(np.clip(rng.uniform(1.5, 3.0) / cells, 0.03, 0.06))
    mean = 0.5 + rng.uniform(-0.1, 0.1, 2)
    end = rng.uniform(0.1, 1.0) * min(1 / rates.max(), 2 * math.pi / (abs(turn) + 1e-9))
    # d C/dt = −A C − C Aᵀ + 2 D
    rest = linalg.solve_continuous_lyapunov(a, 2 * np.diag(d))
    way = linalg.expm(-a * end)
    law_mean = 0.5 + way @ (mean - 0.5)
    law = rest + way @ (std**2 * np.eye(2) - rest) @ way.T
    sde = sg.ItoProcess(
        lambda z: -(z - 0.5) @ torch.from_numpy(a.T.copy()),
        lambda z: torch.from_numpy(np.sqrt(2 * d)).expand_as(z),
        noise="additive",
    )

    def ask():
        solver = sg.FokkerPlanck2D(sde, (grid, grid), truncation_is_physical=True)
        p0 = solver.gaussian(tuple(mean), torch.from_numpy(std**2 * np.eye(2)))
        return of_plane(solver.solve(p0, [0.0, float(end)])[-1])

    def truth():
        x = grid.nodes.numpy()
        z = np.stack(np.meshgrid(x, x, indexing="ij"), -1) - law_mean
        inverse = np.linalg.inv(law)
        p = np.exp(-0.5 * np.einsum("xyi,ij,xyj->xy", z, inverse, z))
        p /= 2 * math.pi * math.sqrt(np.linalg.det(law))
        return plane_truth(p, law_mean, law)

    return Problem(number, "time", "plane", cells, peclet, 0.0, contrast, ask, truth)


# ---- what is told ------------------------------------------------------------------------------


def judged(problem):
    """One row for each number: its estimate and its true error; or the refusal."""
    head = {
        "number": problem.seed,
        "question": problem.question,
        "where": problem.where,
        "cells": problem.cells,
        "peclet": problem.peclet,
        "barrier": problem.barrier,
        "contrast": problem.contrast,
    }
    start = time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            values, estimates = problem.ask()
        except (ValueError, sg.SdegenError) as error:
            return [head | {"refused": f"{type(error).__name__}: {error}"}]
    seconds = time.process_time() - start
    warned = any(issubclass(w.category, sg.AccuracyWarning) for w in told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truths, scales = problem.truth()
    return [
        head
        | {
            "of": name,
            "estimate": estimates[name],
            "true": float(np.abs(np.asarray(values[name]) - truths[name]).max() / scales[name]),
            "warned": warned,
            "seconds": seconds,
        }
        for name in values
    ]


def covered(row):
    """Whether an estimate is at least a third of the true error."""
    return row["true"] < ROUNDING or row["estimate"] >= row["true"] / 3


def told_of(rows, name, value):
    """What a stratum comes to."""
    answered = [row for row in rows if "of" in row]
    refused = [row for row in rows if "refused" in row]
    ratios = [row["estimate"] / row["true"] for row in answered if row["true"] >= ROUNDING]
    problems = {(row["where"] == "plane", row["number"]) for row in rows}
    wrong = [row for row in answered if row["true"] > 1e-2 and not row["warned"]]
    return {
        "stratum": name,
        "is": value,
        "problems": len(problems),
        "numbers": len(answered),
        "estimate ≥ true/3, %": round(100 * np.mean([covered(r) for r in answered] or [1.0]), 2),
        "median of estimate/true": float(f"{np.median(ratios or [math.nan]):.3g}"),
        "95th percentile": float(f"{np.quantile(ratios or [math.nan], 0.95):.3g}"),
        "refused": len(refused),
        "above 1 % without a word": len(wrong),
    }


def bins(name, edges):
    """A stratum: between which of the edges a number of a problem lies."""

    def of(row):
        k = int(np.searchsorted(edges, row[name], side="right"))
        if k == 0:
            return f"< {edges[0]:g}"
        return f"≥ {edges[-1]:g}" if k == len(edges) else f"{edges[k - 1]:g} to {edges[k]:g}"

    return of


STRATA = {
    "where": lambda row: row["where"],
    "question": lambda row: row["question"],
    "cell Péclet number": bins("peclet", (0.1, 1, 5)),
    "barrier, kT": bins("barrier", (1, 5)),
    "D varies by": bins("contrast", (3, 20)),
    "cells": bins("cells", (100, 300)),
    "of": lambda row: row.get("of", "refused"),
}


def problems(line=LINE, plane=PLANE, seed=SEED):
    """All of them."""
    yield from (on_a_line(k, seed) for k in range(line))
    yield from (in_the_plane(k, seed) for k in range(plane))


def main(quick=False, seed=SEED):
    """Tables by stratum, the worst, and the refusals."""
    torch.set_num_threads(1)
    rows = []
    for problem in problems(12, 4, seed) if quick else problems(seed=seed):
        rows += judged(problem)
        if problem.seed % 20 == 0:
            print(problem.where, problem.seed, len(rows), flush=True)
    summary = [told_of(rows, "all", "")]
    for name, of in STRATA.items():
        summary += [
            told_of([row for row in rows if of(row) == value], name, value)
            for value in sorted({of(row) for row in rows})
        ]
    worst = sorted((row for row in rows if "of" in row and not covered(row)),
                   key=lambda row: row["estimate"] / row["true"])  # fmt: skip
    tables = {
        "random problems: estimated beside true errors": summary,
        "random problems: not covered": worst,
        "random problems: refused": [row for row in rows if "refused" in row],
    }
    write("random_problems" if seed == SEED else f"random_problems_{seed}", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for title, rows in main(options.quick, options.seed).items():
        print(title)
        for row in rows:
            print(row)
