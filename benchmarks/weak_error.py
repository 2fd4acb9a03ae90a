"""Weak error of samplers from N = 10 to 1000 steps, with no sampling noise: the law of the chain.

python -m benchmarks.weak_error

Data are a mixture of two Gaussians on a line, its score under VP(β 0.1 … 20) is exact, and
sampling starts from the exact p_T, so that all that is left is the step. The error is that of
E x² and the total variation, from the law where the sampler aims: p at t_min = 1e-3, the data for
DDPM. The local order between N and the N before it is written beside each; at the end it is 1 for
Euler-Maruyama and for DDPM with variance β_k, and 0.95 for the posterior variance, whose first
step from the data has a logarithm in it.
"""

import argparse
import math

import torch

import sdegen as sg
from benchmarks.lookup import rows_of
from benchmarks.record import RESULTS, write
from sdegen.verification.chain import ChainDensity
from sdegen.verification.distances import total_variation

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LAW = sg.GaussianMixture([0.4, 0.6], [-1.0, 1.0], stds=[0.3, 0.4]).noised(VP)
SAMPLERS = ("Euler-Maruyama", "DDPM, variance β_k", "DDPM, posterior variance", "DDIM, η = 0")


def law_at(t, grid):
    x = grid.nodes
    return sg.Density(x, LAW.log_prob(x[:, None], torch.tensor(t, dtype=x.dtype)).exp())


def errors(name, steps, grid):
    """Error of E x², and total variation."""
    if name.startswith("DDPM"):
        variance = "beta" if "β" in name else "posterior"
        dynamics = sg.DDPM.discretize(VP, steps).reverse(LAW.score, variance)
        times, aim, solver = torch.arange(steps + 1.0).flip(0), 0.0, sg.EulerMaruyama()
    else:
        flow = name.startswith("DDIM")
        dynamics = sg.ReverseSDE(VP, LAW.score, eta=0.0 if flow else 1.0)
        times, aim = VP.time_grid(steps), VP.t_min
        solver = sg.DDIM() if flow else sg.EulerMaruyama()
    final = ChainDensity(dynamics, grid, solver).run(law_at(VP.t_max, grid), times).final
    exact = law_at(aim, grid)

    def square(density):
        return float(density.expect(lambda x: x * x))

    return abs(square(final) - square(exact)), total_variation(final, exact)


def main(quick=False):
    """Prints and records the table, and draws it."""
    grid = sg.Grid(-12.0, 12.0, cells=720)
    numbers = (10, 20) if quick else (10, 20, 50, 100, 200, 500, 1000)
    rows = []
    for name in SAMPLERS:
        before = None
        for n in numbers:
            square, tv = errors(name, n, grid)
            order = math.log(before[1] / square) / math.log(n / before[0]) if before else None
            rows.append(
                {
                    "sampler": name,
                    "N": n,
                    "error of E x²": square,
                    "local order": order,
                    "total variation": tv,
                }
            )
            before = (n, square)
            local = "" if order is None else f"{order:6.3f}"
            print(f"{name:26s} {n:5d} {square:10.3e} {local:>6s} {tv:10.3e}", flush=True)
    write("weak_error", {"weak error of samplers, exact law of the chain": rows}, quick)
    if not quick:
        redraw()
    return rows


def redraw():
    """Draw the picture from what is stored."""
    curves = {}
    for row in rows_of("weak_error", "weak error"):
        curves.setdefault(row["sampler"], []).append((row["N"], row["error of E x²"]))
    figure = sg.plots.convergence(curves, slope=-1, quantity="error of E x², no sampling noise")
    figure.savefig(RESULTS / "weak_error.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
