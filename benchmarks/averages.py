"""Averages to a tolerance: what they cost, how fast variances fall, how often intervals hold.

python -m benchmarks.averages

Cost is counted in evaluations of the drift, pilot and levels that were left out included. Euler
alone is given its bias for nothing: at n steps it is off by b(n), its trajectories have the
variance v, and n is the number for which z² v n/(tolerance − b(n))² is least; no pilot is counted.
Of geometric Brownian motion b(n) is known exactly, of the double well it is c/n with c from the
finest levels. Costs are means over seeds; the slope is that of log cost over log tolerance.
"""

import argparse
import math
import time

import numpy as np
import torch

import sdegen as sg
from benchmarks.record import write
from sdegen.averages.coupling import Coupling, coupling_for
from sdegen.averages.sampling import Level, Problem
from sdegen.engine.pool import torch_threads

F64 = torch.float64
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
GROWTH = sg.ItoProcess(
    lambda x: x, lambda x: 0.8 * x, diffusion_derivative=lambda x: torch.full_like(x, 0.8)
)


def area(x):
    """The matrix of dX₁ = dW₁, dX₂ = X₁ dW₂, whose columns do not commute."""
    one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([torch.stack([one, zero], -1), torch.stack([zero, x[:, 0]], -1)], 1)


AREA = sg.ItoProcess(torch.zeros_like, area, channels=2)


def first(x):
    return x[:, 0]


def cosine(x):
    return x[:, 1].cos()


# the double well's mean by 100 Chebyshev nodes on [−3.5, 3.5] and a matrix exponential;
# E cos X₂ = E exp(−½ ∫ W²) = cosh(1)^{−1/2} (Cameron and Martin)
PROBLEMS = {
    "double well from −1": (WELL, (-1.0,), first, -0.8431149213),
    "geometric Brownian motion": (GROWTH, (1.0,), first, math.e),
    "Lévy area": (AREA, (0.0, 0.0), cosine, math.cosh(1.0) ** -0.5),
}


def average(name, tolerance, rng, *, dtype=F64, confidence=0.95):
    """The average, and its distance from the exact one."""
    sde, start, f, exact = PROBLEMS[name]
    x0 = torch.tensor([start], dtype=dtype)
    how = {"tolerance": tolerance, "confidence": confidence, "rng": rng, "progress": False}
    result = sg.expectation(sde, x0, 1.0, f, **how)
    return result, abs(result.mean - exact)


def euler_alone(name, tolerance, z, result):
    """The least evaluations of Euler's method that give the tolerance, and its steps."""
    n = np.unique(np.round(np.geomspace(1, 2**22, 2000)))
    variance = float(result.variances[0])
    if name == "geometric Brownian motion":
        with np.errstate(over="ignore"):
            bias = np.abs(math.e - (1 + 1 / n) ** n)
        variance = math.exp(2) * (math.exp(0.64) - 1)
    else:  # differences of levels, at L: m_L = c/n_L
        bias = abs(float(result.means[-3] * result.steps[-3])) / n
    left = np.where(bias < tolerance, tolerance - bias, np.nan)
    cost = z**2 * variance * n / left**2
    best = int(np.nanargmin(cost))
    return float(cost[best]), int(n[best])


def costs(quick):
    """Cost over tolerance; of the growth at one standard error: the finest takes minutes.

    Its finest is in double precision: single precision does not resolve the steps it needs.
    """
    rows, slopes = [], []
    seeds_of = {1e-2: 2, 3e-3: 1} if quick else {1e-2: 32, 3e-3: 16, 1e-3: 3, 3e-4: 1, 1e-4: 1}
    for name, confidence in (("double well from −1", 0.95), ("geometric Brownian motion", 0.68)):
        mean = []
        for tolerance, seeds in seeds_of.items():
            begun = time.process_time()
            steep = name.startswith("geometric") and tolerance < 3e-4
            how = {"dtype": F64 if steep else torch.float32, "confidence": confidence}
            runs = [average(name, tolerance, seed, **how) for seed in range(seeds)]
            seconds = (time.process_time() - begun) / seeds
            result = runs[-1][0]
            cost = float(np.mean([r.evaluations for r, _ in runs]))
            z = (result.half_width - result.bias) / result.standard_error
            alone, steps = euler_alone(name, tolerance, z, result)
            mean.append(cost)
            rows.append(
                {
                    "problem": name,
                    "confidence": confidence,
                    "tolerance": tolerance,
                    "seeds": seeds,
                    "drift evaluations": cost,
                    "steps": f"{int(result.steps[0])} to {int(result.steps[-1])}",
                    "largest half width/tolerance": max(r.half_width for r, _ in runs) / tolerance,
                    "rms error/tolerance": math.sqrt(np.mean([e**2 for _, e in runs])) / tolerance,
                    "CPU seconds": seconds,
                    "Euler alone": alone,
                    "its steps": steps,
                    "times fewer": alone / cost,
                }
            )
            print(rows[-1], flush=True)
        slope = float(np.polyfit(np.log(list(seeds_of)), np.log(mean), 1)[0])
        slopes.append({"problem": name, "slope of cost over tolerance": slope})
        print(slopes[-1], flush=True)
    return rows, slopes


def variances(quick):
    """β of V ∝ dt^β over the levels of 64 to 512 steps, by least squares."""
    euler = Coupling(sg.EulerMaruyama(), "EulerMaruyama", 1.0)
    bare = Coupling(sg.Milstein(), "Milstein, areas put to 0, no twin", 1.0)
    plan = [
        ("double well from −1", None),
        ("geometric Brownian motion", None),
        ("geometric Brownian motion", euler),
        ("Lévy area", None),
        ("Lévy area", bare),
        ("Lévy area", euler),
    ]
    rows = []
    numbers = (16, 32, 64) if quick else (64, 128, 256, 512)
    for name, coupling in plan:
        sde, start, f, _ = PROBLEMS[name]
        x0 = torch.tensor([start], dtype=F64)
        apart = x0 + torch.linspace(-0.1, 0.1, 4, dtype=F64)[:, None]
        coupling = coupling or coupling_for(sde, None, apart, [torch.tensor(0.5)])
        problem = Problem(sde, x0, x0, (0.0, 1.0), f, coupling, 0)
        blocks = 1 if quick else 2 if sde is AREA else 8
        found = []
        with torch.no_grad(), torch_threads(1):
            for n in numbers:
                level, shown = Level(n, paired=True), None
                for b in range(blocks):
                    samples = problem.block(level, b, 12_500, lambda: False)
                    shown = samples if shown is None else shown.merge(samples)
                found.append(shown.value)
        line = np.arange(len(numbers)) - (len(numbers) - 1) / 2
        weights = line / (line**2).sum()
        slope = -float(weights @ np.log2([y.variance for y in found]))
        error = np.array([y.variance_error for y in found]) / math.log(2)
        rows.append(
            {
                "problem": name,
                "coupling": coupling.name,
                "slope of the variance": slope,
                "its standard error": float(np.sqrt(((weights * error) ** 2).sum())),
                "slope of the mean": -float(weights @ np.log2([abs(y.mean) for y in found])),
                "kurtosis": max(y.kurtosis for y in found),
            }
        )
        print(rows[-1], flush=True)
    return rows


def repeats(quick):
    """How often the interval of 0.95 holds the exact average."""
    rows = []
    for name, (_, _, _, exact) in PROBLEMS.items():
        tolerance = 5e-2 if quick else 1e-2
        seeds = range(10 if quick else 100 if name == "Lévy area" else 500)
        runs = [average(name, tolerance, seed, dtype=torch.float32) for seed in seeds]
        off = np.array([r.mean - exact for r, _ in runs]) / tolerance
        rows.append(
            {
                "problem": name,
                "tolerance": tolerance,
                "repeats": len(runs),
                "inside": float(np.mean([error <= r.half_width for r, error in runs])),
                "largest half width/tolerance": max(r.half_width for r, _ in runs) / tolerance,
                "mean half width/tolerance": float(np.mean([r.half_width for r, _ in runs]))
                / tolerance,
                "mean error/tolerance": float(off.mean()),
                "std of the error/tolerance": float(off.std()),
                "drift evaluations": float(np.mean([r.evaluations for r, _ in runs])),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(quick=False):
    """Print and record the tables."""
    falls, held = variances(quick), repeats(quick)
    spent, slopes = costs(quick)
    tables = {
        "cost over tolerance, float32; of the growth at 1e-4 float64": spent,
        "slope of the cost": slopes,
        "variance of f(fine) − f(coarse) over the steps": falls,
        "intervals of confidence 0.95, float32": held,
    }
    write("averages", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
