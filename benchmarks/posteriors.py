"""How far the samplers of inverse problems are from the exact posterior, on mixtures of Gaussians.

python -m benchmarks.posteriors

The score of the data is exact, so that all of the error is that of the method: `LinearMeasurement`
and `Measurement` with each of their covariances, run as reverse SDE (DDIM, η = 1, 200 steps equal
in log α/σ), and `inpaint` (RePaint, 200 steps, jumps of 10). The posterior of a mixture under a
linear measurement is a mixture, sampled exactly; under a nonlinear one it is sampled on a grid.
4,000 samples each. In units of the posterior's standard deviation σ_p (root of the mean variance):
sliced W2/σ_p, largest error of a mean/σ_p, and ‖Σ − Σ_p‖/‖Σ_p‖ of the covariance (Frobenius).
"exact" is a second set of exact samples, the floor.
"""

import argparse
import math
import time

import torch

import sdegen as sg
from benchmarks.record import write

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
COVARIANCES = ("none", "isotropic", "tweedie")
RESAMPLINGS = (1, 3, 10)


def mixture(parts, d, seed):
    """Parts of random places (std 1.5), shapes (std 0.2 to 0.7) and weights."""
    draw = torch.Generator().manual_seed(seed)
    means = 1.5 * torch.randn(parts, d, generator=draw, dtype=F64)
    q = torch.linalg.qr(torch.randn(parts, d, d, generator=draw, dtype=F64)).Q
    variances = (0.2 + 0.5 * torch.rand(parts, d, generator=draw, dtype=F64)) ** 2
    weights = 0.5 + torch.rand(parts, generator=draw, dtype=F64)
    covariances = q @ torch.diag_embed(variances) @ q.mT
    covariances = 0.5 * (covariances + covariances.mT)
    return sg.GaussianMixture(weights / weights.sum(), means, covariances=covariances)


def on_grid(prior, measurement, n, rng, points=401, reach=6.0):
    """Sample prior × likelihood from the cells of a grid, uniformly within a cell."""
    axis, d = torch.linspace(-reach, reach, points, dtype=F64), prior.dim
    nodes = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    log_p = prior.log_prob(nodes) + measurement.log_prob(nodes)
    draw = torch.Generator().manual_seed(rng)
    picked = torch.multinomial(torch.softmax(log_p, 0), n, replacement=True, generator=draw)
    jitter = torch.rand(n, d, generator=draw, dtype=F64) - 0.5
    return nodes[picked] + jitter * (axis[1] - axis[0])


def problems():
    """{name: (prior, measurement, known coordinates or None)}."""
    plane, space = mixture(5, 2, 1), mixture(8, 8, 2)
    draw = torch.Generator().manual_seed(3)
    three = torch.randn(3, 8, generator=draw, dtype=F64) / math.sqrt(8)
    y = three @ space.means[0] + 0.1
    first = torch.tensor([[1.0, 0.0]], dtype=F64)
    line = sg.GaussianMixture([0.6, 0.4], [[-1.0], [1.2]], stds=0.5)
    correlated = sg.GaussianMixture(
        [1.0], [[0.0, 0.0]], covariances=torch.tensor([[[1.0, 0.8], [0.8, 1.0]]], dtype=F64)
    )
    half = torch.tensor([0.5], dtype=F64)
    return {
        "one Gaussian, d = 2, m = 1": (correlated, sg.LinearMeasurement(first, half, 0.3), None),
        "5 parts, d = 2, m = 1, s = 0.3": (plane, sg.LinearMeasurement(first, half, 0.3), None),
        "8 parts, d = 8, m = 3, s = 0.1": (space, sg.LinearMeasurement(three, y, 0.1), None),
        "5 parts, x_1 known, s = 0.05": (plane, sg.LinearMeasurement(first, half, 0.05), [0]),
        "y = |x|², 5 parts, d = 2, s = 0.5": (
            plane,
            sg.Measurement(lambda x: x.square().sum(1, keepdim=True), 4 * half, 0.5),
            None,
        ),
        "y = tanh 2x, 2 parts, d = 1, s = 0.3": (
            line,
            sg.Measurement(lambda x: torch.tanh(2 * x), 0.4 * half, 0.3),
            None,
        ),
    }


def methods(prior, measurement, known, n, steps):
    """{name: function that returns samples and evaluations of the score}."""
    law = prior.noised(VP)

    def guided(covariance):
        score = measurement.posterior_score(VP, law.score, covariance)
        x = VP.prior((n, prior.dim), rng=7, dtype=F64)
        times = sg.timesteps.log_snr(VP, steps)
        with torch.no_grad():
            walk = sg.integrate(sg.ReverseSDE(VP, score), sg.DDIM(), x, times, sg.Noise(x, rng=7))
            *_, x = walk
        return x, steps

    def repaint(resamplings):
        values, mask = torch.zeros(1, prior.dim, dtype=F64), torch.zeros(prior.dim) > 0
        values[0, known], mask[known] = measurement.value, True
        done = sg.inpaint(
            VP, law.score, values, mask, n, steps=steps, resamplings=resamplings, rng=7
        )
        return done.x, done.nfe

    runs = {c: (lambda c=c: guided(c)) for c in COVARIANCES}
    if known is not None:
        runs |= {f"RePaint, r = {r}": (lambda r=r: repaint(r)) for r in RESAMPLINGS}
    return runs


def errors(x, exact):
    """Distances in units of the posterior's standard deviation; infinite where samples explode."""
    if not bool(x.isfinite().all()) or float(x.abs().max()) > 1e3:
        return dict.fromkeys(("sliced W2", "mean", "covariance"), math.inf)
    spread = float(exact.var(0).mean().sqrt())
    off, cov = x.T.cov().reshape(x.shape[1], -1), exact.T.cov().reshape(x.shape[1], -1)
    return {
        "sliced W2": sg.metrics.sliced_wasserstein(x, exact) / spread,
        "mean": float((x.mean(0) - exact.mean(0)).abs().max()) / spread,
        "covariance": float((off - cov).norm() / cov.norm()),
    }


def exact_samples(prior, measurement, n, rng):
    """Exact samples of the posterior."""
    if isinstance(measurement, sg.LinearMeasurement):
        return measurement.posterior(prior).sample(n, rng=rng)
    return on_grid(prior, measurement, n, rng)


def main(quick=False):
    """Measure all methods on all problems; returns the rows."""
    n, steps, rows = (100, 20, []) if quick else (4_000, 200, [])
    for name, (prior, measurement, known) in problems().items():
        exact, again = (exact_samples(prior, measurement, n, rng) for rng in (1, 2))
        rows.append({"problem": name, "method": "exact", "nfe": 0} | errors(again, exact))
        for method, run in methods(prior, measurement, known, n, steps).items():
            begun = time.process_time()
            row = {"problem": name, "method": method}
            x, nfe = run()
            row |= {"nfe": nfe} | errors(x, exact)
            rows.append(row | {"CPU seconds": round(time.process_time() - begun, 1)})
            if not quick:
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    write("posteriors", {"posteriors": main(quick)}, quick)
