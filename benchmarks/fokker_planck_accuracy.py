"""Every number that the Fokker–Planck solver promises, asked and measured, against exact answers.

python -m benchmarks.fokker_planck_accuracy

The problems and their answers are those of tests/exact.py, or written here where they are one
line. An error of a density is its largest one at a node; "order" is the slope between the
last two of the grids.
"""

import argparse
import functools
import math

import numpy as np
import torch
from scipy import special, stats

import sdegen as sg
from benchmarks.record import write
from tests import exact

ROWS = []
SQRT_2 = math.sqrt(2)


def tell(what, nodes, asked, measured):
    """A row; `asked` is a largest value, or a pair (value, tolerance)."""
    pair = isinstance(asked, tuple)
    met = abs(measured - asked[0]) <= asked[1] if pair else measured <= asked
    text = f"{asked[0]:g} ± {asked[1]:g}" if pair else f"≤ {asked:g}"
    ROWS.append(
        {"what": what, "nodes": nodes, "asked": text, "measured": float(measured),
         "met": "yes" if met else "no"}
    )  # fmt: skip
    print(f"{what:75s} {nodes!s:>8s} {text:>12s} {measured:10.3g} {'' if met else 'NOT MET'}")


def process(drift, diffusion, **options):
    return sg.ItoProcess(drift=drift, diffusion=diffusion, **options)


def constant(v, d):
    return process(lambda x: torch.full_like(x, v), math.sqrt(2 * d))


def wright_fisher(theta=1.3, mu=0.4, nu=0.15):
    return process(lambda x: theta * (mu - x), lambda x: torch.sqrt(2 * theta * nu * x * (1 - x)))


def stationary():
    """Ratios p_i/p_j where both are numbers."""
    d, cells = 0.3, 800
    cases = [
        ("8, quartic", process(lambda x: -3.2 * x**3, math.sqrt(2 * d)), sg.Grid(-2.6, 2.6, cells),
         "no-flux", lambda x: -0.8 * x**4 / d),
        ("9, double well", process(lambda x: x - x**3, math.sqrt(0.2)), sg.Grid(-2.8, 2.8, cells),
         "no-flux", lambda x: -(x**4 / 4 - x**2 / 2) / 0.1),
        ("9, barrier of 40 kT", process(lambda x: x - x**3, math.sqrt(0.5 / 40)),
         sg.Grid(-1.8, 1.8, cells), "no-flux", lambda x: -(x**4 / 4 - x**2 / 2) * 160),
        ("15, Wright–Fisher", wright_fisher(), sg.Grid(0.0, 1.0, cells), "no-flux",
         lambda x: stats.beta(0.4 / 0.15, 0.6 / 0.15).logpdf(x)),
        ("16, Student t", process(lambda x: -0.8 * x, lambda x: torch.sqrt(0.64 * (1 + x * x))),
         sg.Grid.sinh(-1e4, 1e4, cells, width=1.0), "no-flux",
         lambda x: -(1 + 1 / 0.8) * np.log1p(x * x)),
        ("18, von Mises", process(lambda x: -3 * torch.sin(x - 0.4), 1.0),
         sg.Grid(0.0, 2 * math.pi, cells), "periodic", lambda x: 6 * np.cos(x - 0.4)),
    ]  # fmt: skip
    for name, sde, grid, boundary, log_p in cases:
        p = sg.FokkerPlanck(sde, grid, boundary).stationary().p.numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.log(p) - log_p(grid.nodes.numpy())
        gap = gap[np.isfinite(gap)]
        tell(f"stationary, ratios: problem {name}", cells + 1, 1e-11, gap.max() - gap.min())


def final_error(sde, grid, law, times, form, **options):
    x = grid.nodes.numpy()
    p0 = sg.Density(grid.nodes, torch.from_numpy(law(x, times[0])))
    # on these cells: a smaller rtol halves those of the lumped form inside, and hides their order
    path = sg.FokkerPlanck(sde, grid, form=form, **options).solve(p0, times, rtol=0.1)
    return float(np.abs(path.final.p.numpy() - law(x, times[1])).max())


def trap_law(x, t):
    return exact.normal_density(x, *exact.ou_moments(1.0, 0.0, SQRT_2, 2.0, 0.25, t))


def transient():
    d = 0.6
    box = functools.partial(exact.box_density, x0=0.6, d=d, length=1.5)
    smooth = {
        "1, trap": (sg.OrnsteinUhlenbeck(), (-10.0, 10.0), trap_law, (0.0, 0.5), {}),
        "5, absorbed": (
            constant(-0.5, d), (0.0, 14.0),
            functools.partial(exact.absorbed_drift_density, x0=2.0, v=-0.5, d=d), (0.3, 1.3),
            {"boundary": ("absorbing", "no-flux")},
        ),
        "6, sedimentation": (
            constant(-0.7, d), (0.0, 14.0),
            functools.partial(exact.sedimentation_density, x0=2.0, v=0.7, d=d), (0.3, 1.3),
            {"truncation_is_physical": True},
        ),
        "7, closed box": (constant(0.0, d), (0.0, 1.5), functools.partial(box, absorbing=False),
                          (0.03, 0.2), {"truncation_is_physical": True}),
        "7, open box": (constant(0.0, d), (0.0, 1.5), functools.partial(box, absorbing=True),
                        (0.03, 0.2), {"boundary": "absorbing"}),
    }  # fmt: skip
    cells = (200, 400)
    for name, (sde, ends, law, times, options) in smooth.items():
        for form, order, most in (("compact", 4, 1e-6), ("lumped", 2, 1e-3)):
            errors = [
                final_error(sde, sg.Grid(*ends, n), law, times, form, **options) for n in cells
            ]
            tell(f"transient, {form}: problem {name}", 401, most, errors[-1])
            slope = exact.slope([1 / n for n in cells], errors)
            tell(f"transient, {form}, order: problem {name}", "201, 401", (order, 0.2), slope)
    cir = functools.partial(
        exact.cox_ingersoll_ross_density, x0=1.2, kappa=1.0, theta=1.0, sigma=1.0
    )
    noise_ends = {
        "12, geometric": (process(lambda x: 0.1 * x, lambda x: 0.4 * x), 0.5,
                          functools.partial(exact.geometric_density, x0=1.0, mu=0.1, sigma=0.4)),
        "13, Cox–Ingersoll–Ross": (process(lambda x: 1 - x, lambda x: x.sqrt()), 0.2, cir),
    }  # fmt: skip
    for name, (sde, width, law) in noise_ends.items():
        even = final_error(sde, sg.Grid(0.0, 18.0, 800), law, (0.5, 1.5), "compact")
        tell(f"transient, compact, even nodes: problem {name}", 801, 1e-5, even)
        lumped = final_error(sde, sg.Grid(0.0, 18.0, 800), law, (0.5, 1.5), "lumped")
        tell(f"transient, lumped, even nodes: problem {name}", 801, 1e-3, lumped)
        for form, order in (("compact", 4), ("lumped", 2)):
            errors = [
                final_error(sde, sg.Grid.sinh(0.0, 18.0, n, width=width), law, (0.5, 1.5), form)
                for n in cells
            ]
            slope = exact.slope([1 / n for n in cells], errors)
            tell(
                f"transient, {form}, order, nodes that crowd at the wall: problem {name}",
                "201, 401", (order, 0.2), slope,
            )  # fmt: skip


def starts_and_balances():
    grid = sg.Grid(-10.0, 10.0, 400)
    trap = sg.OrnsteinUhlenbeck()
    law = exact.normal_density(
        grid.nodes.numpy(), *exact.ou_moments(1.0, 0.0, SQRT_2, 1.0, 0.0, 0.5)
    )
    lumped = sg.FokkerPlanck(trap, grid, form="lumped").solve(1.0, [0.0, 1e-6, 1e-3, 0.5])
    below = float((-lumped.p.amin(1) / lumped.p.amax(1)).max())
    tell("start at a point, lumped: −min p/max p at t = 1e-6, 1e-3, ½", 401, 1e-12, below)
    error = np.abs(lumped.final.p.numpy() - law).max()
    tell("start at a point, lumped: error at t = ½", 401, 1e-3, error)
    sharp = sg.FokkerPlanck(trap, grid).solve(1.0, [0.0, 0.5]).final.p.numpy()
    tell("start at a point, compact: error at t = ½", 401, 1e-6, np.abs(sharp - law).max())

    sde = process(lambda x: 1 - 0.5 * torch.sin(x), lambda x: 1 + 0.2 * torch.cos(x))
    grid = sg.Grid.sinh(-math.pi, math.pi, 300, width=1.0)
    for boundary in ("no-flux", "periodic"):
        solver = sg.FokkerPlanck(sde, grid, boundary, truncation_is_physical=True)
        path = solver.solve(
            grid.gaussian(0.3, 0.3), torch.linspace(0, 100, 101, dtype=torch.float64)
        )
        off = max(abs(float(path.at(k).mass) - 1) for k in range(len(path)))
        tell(f"mass over 100 outputs, {boundary}", 301, 1e-11, off)
    well = sg.FokkerPlanck(process(lambda x: x - x**3, 0.7), sg.Grid(-3.0, 3.0, 300))
    ring = sg.FokkerPlanck(
        process(lambda x: -torch.sin(x), lambda x: 1 + 0.3 * torch.cos(x)),
        sg.Grid(-math.pi, math.pi, 300),
        "periodic",
    )
    for name, solver in (("double well", well), ("ring, multiplicative noise", ring)):
        flowing = float(solver.current(solver.stationary()).abs().max())
        tell(f"current at equilibrium, {name}", 301, 1e-12, flowing)


def leaving():
    sde, d, v, length, x0 = process(lambda x: x - x**3, math.sqrt(0.2)), 0.6, -0.5, 2.0, 2.0
    passage = sg.FokkerPlanck(sde, sg.Grid(-3.0, 1.0, 100), ("no-flux", "absorbing"))
    mean = float(passage.first_passage().mean[50])
    tell("mean first passage of problem 9, −1 → 1, relative", 101, 1e-8,
         abs(mean / 66.26862636491786 - 1))  # fmt: skip
    grid = sg.Grid(0.0, length, 100)
    x = grid.nodes.numpy()[1:-1]
    both = sg.FokkerPlanck(constant(v, d), grid, "absorbing").first_passage()
    committor = np.expm1(-v * x / d) / np.expm1(-v * length / d)
    off = np.abs(both.to_high.numpy()[1:-1] / committor - 1).max()
    tell("committor of problem 5, relative", 101, 1e-8, off)
    exit_time = (length * committor - x) / v
    tell("exit time of problem 5, relative", 101, 1e-8,
         np.abs(both.mean.numpy()[1:-1] / exit_time - 1).max())  # fmt: skip
    still = sg.FokkerPlanck(constant(0.0, d), grid, "absorbing").first_passage()
    tell("exit time of problem 7, relative", 101, 1e-8,
         np.abs(still.mean.numpy()[1:-1] / (x * (length - x) / (2 * d)) - 1).max())  # fmt: skip
    times = np.array([1.0, 4.0])
    root = np.sqrt(4 * d * times)
    gone = 0.5 * special.erfc((x0 + v * times) / root)
    gone = gone + 0.5 * math.exp(-v * x0 / d) * special.erfc((x0 - v * times) / root)
    fine = sg.FokkerPlanck(constant(v, d), sg.Grid(0.0, 20.0, 3200), ("absorbing", "no-flux"))
    law = 1 - fine.survival(x0, [0.0, *times]).probability.numpy()[1:]
    tell("first-passage cdf of problem 5, t = 1 and 4, relative", 3201, 1e-8,
         np.abs(law / gone - 1).max())  # fmt: skip


def relaxing():
    n = torch.arange(4, dtype=torch.float64)
    trap = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-10.0, 10.0, 800)).spectrum(4)
    tell("first four eigenvalues of problem 1", 801, 1e-4, float((trap.rates - n).abs().max()))
    genes = sg.FokkerPlanck(wright_fisher(), sg.Grid(0.0, 1.0, 800)).spectrum(4)
    off = float((genes.rates - 1.3 * n * (1 + 0.15 * (n - 1))).abs().max())
    tell("first four eigenvalues of problem 15", 801, 1e-4, off)


def washboard():
    force, d, length = 0.7, 0.5, 2 * math.pi
    sde = process(lambda x: 2 * torch.cos(x) + force, math.sqrt(2 * d))
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, length, 256), "periodic")
    got, rest = solver.transport(), solver.stationary()
    velocity, diffusion = exact.washboard(force, d)
    tell("tilted washboard: velocity, relative", 256, 1e-6, abs(got.velocity / velocity - 1))
    tell("tilted washboard: D_eff, relative", 256, 1e-6, abs(got.diffusion / diffusion - 1))
    current = solver.current(rest)
    tell("tilted washboard: current constant in x, relative", 256, 1e-10,
         float((current / current.mean() - 1).abs().max()))  # fmt: skip


def readings():
    mu, sigma, times = 0.1, 0.4, [0.5, 1.5]
    grid = sg.Grid.sinh(0.0, 60.0, 800, width=0.5)
    for reading, alpha in (("ito", 0.0), ("stratonovich", 0.5), ("klimontovich", 1.0)):
        sde = process(lambda x: mu * x, lambda x: sigma * x, interpretation=reading)
        law = exact.geometric_density(
            grid.nodes.numpy(), times[0], x0=1.0, mu=mu, sigma=sigma, alpha=alpha
        )
        p0 = sg.Density(grid.nodes, torch.from_numpy(law))
        density = sg.FokkerPlanck(sde, grid).solve(p0, times).final
        drift = mu + alpha * sigma**2
        first = abs(float(density.mean) / math.exp(drift * times[1]) - 1)
        square = float(density.expect(lambda y: y**2))
        second = abs(square / math.exp((2 * drift + sigma**2) * times[1]) - 1)
        tell(f"geometric noise, {reading}: two moments, relative", 801, 1e-5, max(first, second))


def driven():
    sde = process(lambda x, t: -x + torch.sin(3 * t), SQRT_2)
    grid, t = sg.Grid(-10.0, 10.0, 800), 2.0
    solver = sg.FokkerPlanck(sde, grid)
    p = solver.solve(grid.gaussian(1.0, 0.5), [0.0, t], integrator=sg.Exponential(20)).final.p
    mean = 1.3 * math.exp(-t) + (math.sin(3 * t) - 3 * math.cos(3 * t)) / 10
    law = exact.normal_density(grid.nodes.numpy(), mean, 1 - 0.75 * math.exp(-2 * t))
    tell("dX = (−X + sin 3t) dt + √2 dW, 20 steps", 801, 1e-7, np.abs(p.numpy() - law).max())


def gradients():
    """1 where torch's gradcheck fails."""
    grid = sg.Grid(-3.5, 3.5, 30)

    def well(theta):
        return process(
            lambda x: theta[0] * x - theta[1] * x**3,
            lambda x: theta[2] * (1 + 0.2 * torch.sin(x)),
        )

    def rest(theta):
        return sg.FokkerPlanck(well(theta), grid, truncation_is_physical=True).stationary(
            differentiable=True
        ).p  # fmt: skip

    def moved(theta):
        solver = sg.FokkerPlanck(well(theta), grid, truncation_is_physical=True)
        return solver.solve(grid.gaussian(-0.8, 0.5), [0.0, 0.4], differentiable=True).p[1, ::3]

    def family(theta):
        members = sg.FokkerPlanckBatch(
            [well(row) for row in theta], grid, truncation_is_physical=True
        )
        p0 = grid.gaussian(-0.8, 0.5)
        later = members.solve(p0, [0.0, 0.4], differentiable=True)[:, 1, ::3]
        return torch.cat([members.stationary(differentiable=True)[:, ::3], later], 1)

    theta = torch.tensor([1.0, 1.0, 0.9], dtype=torch.float64)
    both = torch.stack([theta, 0.8 * theta])
    for name, solve, at in (
        ("stationary", rest, theta),
        ("transient", moved, theta),
        ("both, a family of two", family, both),
    ):
        passed = torch.autograd.gradcheck(
            solve, (at.clone().requires_grad_(),), atol=1e-6, raise_exception=False
        )
        tell(f"gradcheck, {name}: failures", 31, 0, float(not passed))


def plane(quick):
    k, omega, d = 1.0, 2.0, 0.5
    turn = torch.tensor([[0.0, -omega], [omega, 0.0]], dtype=torch.float64)
    sde = process(lambda x: -k * x - x @ turn.T, math.sqrt(2 * d))
    cells = 100 if quick else 200
    grid = sg.Grid(-4.5, 4.5, cells)
    better = sg.FokkerPlanck2D(sde, (grid, grid)).refined()
    r2 = better.x[:, None] ** 2 + better.y[None, :] ** 2
    law = torch.exp(-r2 * k / (2 * d)) * k / (2 * math.pi * d)
    tell("2-D rotating trap, rtol = 1e-6", f"{cells + 1}²", 1e-6,
         float((better.p - law).abs().max()))  # fmt: skip


def main(quick=False):
    """Prints and records the table."""
    torch.set_num_threads(1)
    ROWS.clear()
    for part in (stationary, transient, starts_and_balances, leaving, relaxing, washboard,
                 readings, driven, gradients):  # fmt: skip
        part()
    if not quick:
        plane(quick)
    write("fokker_planck_accuracy", {"asked and measured": ROWS}, quick)
    return list(ROWS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the plane; writes nothing")
    main(parser.parse_args().quick)
