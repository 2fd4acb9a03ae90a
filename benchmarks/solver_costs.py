"""Error over cost of the solvers of `which_solver` that take any SDE, at known answers.

python -m benchmarks.solver_costs [--quick]

Three equations whose solution is a formula of the Brownian path, from t = 0 to 1:

additive      dX = (2 V − X) dt + ½ e^{−t} dW_1,   dV = −V dt + ½ e^{−t} dW_2
              X = e^{−t} (X_0 + 2 V_0 t + ½ W_1 + ∫W_2 ds),   V = e^{−t} (V_0 + ½ W_2)
commuting     dX = (0.3 √(1 + X²) + X/8) dt + ½ √(1 + X²) dW
              X = sinh(arsinh X_0 + 0.3 t + ½ W)
any noise     dX = A_0 X dt + A_1 X dW_1 + A_2 X dW_2, three coordinates,
              X = exp(−t + A_1 W_1 + A_2 W_2 + [A_2, A_1] A_12) X_0, A_12 the Lévy area;
              [A_2, A_1] commutes with both, and A_0 = ½ (A_1² + A_2²) − I

Every solver walks the same paths (`BrownianPath`), and so does the formula. The strong error is
the root mean square of |X_N − X|; the weak error that of the mean of |X|², with the path's own
|X|² as control variate. Their standard errors are those of the trajectories. There are the more
trajectories the fewer the steps, so that each row costs about the same.

Orders are read off by least squares, weighted by standard errors, over the three finest steps
whose error is above four standard errors. A declared order is the least of all equations: where
one shows more, as SRA does of a linear drift, the table says "more"; "no" is less than declared.
Both are told from "yes" by 0.15 and by three standard errors.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import sdegen as sg
from benchmarks.lookup import load
from benchmarks.record import RESULTS, write
from sdegen.core.step_noise import StepNoise
from sdegen.plots import style

F64 = torch.float64
ADDITIVE, COMMUTING, ANY = "additive noise", "multiplicative noise that commutes", "any noise"
SOLVERS = {
    "EulerMaruyama": sg.EulerMaruyama(),
    "Heun": sg.Heun(),
    "DRI1": sg.DRI1(),
    "SKROCK, 10 stages": sg.SKROCK(),
    "ImplicitEuler": sg.ImplicitEuler(),
    "Milstein": sg.Milstein(),
    "SRA": sg.SRA(),
}
STEPS = (2, 4, 8, 16, 32, 64, 128)
PATHS = 12_000  # at the most steps; at half of these twice as many, up to MOST
MOST, BATCH = 600_000, 12_000
TOLD, ALLOWED = 4.0, 0.15
_COLUMNS = {"strong": "strong error", "weak": "weak error"}
_FIRST = torch.tensor([[0.3, 0.5, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.3]], dtype=F64)
_SECOND = torch.tensor([[-0.2, 0.0, 0.0], [0.0, -0.2, 0.5], [0.0, 0.0, -0.2]], dtype=F64)
_UPPER = torch.tensor([1.0, 0.0], dtype=F64)
_DRIFT = 0.5 * (_FIRST @ _FIRST + _SECOND @ _SECOND) - torch.eye(3, dtype=F64)


@dataclass(frozen=True)
class Problem:
    """An equation, its start, and its solution at t = 1 as a formula of the noise over [0, 1]."""

    name: str
    sde: sg.SDE
    start: tuple[float, ...]
    exact: Callable[[StepNoise], Tensor]

    @property
    def declared(self):
        """The attribute of `Orders` that is about it."""
        return {ADDITIVE: "additive", COMMUTING: "multiplicative", ANY: "channels"}[self.name]


def _linear(noise):
    """Return exp(−1 + A_1 W_1 + A_2 W_2 + [A_2, A_1] A_12) X_0, at t = 1."""
    w, areas = noise.increment(0), noise.areas(0)
    log = torch.einsum("bk,kij->bij", w, torch.stack([_FIRST, _SECOND]))
    log = log - torch.eye(3, dtype=F64)
    log = log + areas[:, 0, 1, None, None] * (_SECOND @ _FIRST - _FIRST @ _SECOND)
    return torch.linalg.matrix_exp(log) @ torch.ones(3, dtype=F64)


def _additive(noise):
    """Return e^{−1} (X_0 + 2 V_0 + ½ W_1 + ∫W_2 ds) and e^{−1} (V_0 + ½ W_2)."""
    w, integral = noise.increment(0), noise.space_time_area(0)
    return torch.stack([3 + 0.5 * w[:, 0] + integral[:, 1], 1 + 0.5 * w[:, 1]], 1) / math.e


def _matrix(x):
    return torch.stack([x @ _FIRST.T, x @ _SECOND.T], -1)


PROBLEMS = (
    Problem(
        ADDITIVE,
        sg.ItoProcess(
            lambda x: 2 * x[:, [1, 1]] * _UPPER - x,
            lambda x, t: 0.5 * (-t).exp() + 0 * x[:1],
            noise="additive",
            linear_part=1.0,
        ),
        (1.0, 1.0),
        _additive,
    ),
    Problem(
        COMMUTING,
        sg.ItoProcess(
            lambda x: 0.3 * (1 + x * x).sqrt() + x / 8,
            lambda x: 0.5 * (1 + x * x).sqrt(),
            linear_part=0.5,
        ),
        (0.5,),
        lambda noise: (math.asinh(0.5) + 0.3 + 0.5 * noise.increment(0)).sinh(),
    ),
    Problem(
        ANY,
        sg.ItoProcess(lambda x: x @ _DRIFT.T, _matrix, channels=2, linear_part=1.0),
        (1.0, 1.0, 1.0),
        _linear,
    ),
)


def solvers_of(problem):
    """Return the solvers that take a problem, by name."""
    return {
        name: solver
        for name, solver in SOLVERS.items()
        if getattr(solver.orders, problem.declared) is not None
    }


def batch(problem, steps, count, seed):
    """Return the squared strong errors and the weak differences of a batch, by solver."""
    x0 = torch.tensor(problem.start, dtype=F64).expand(count, -1)
    nodes = torch.linspace(0, 1, steps + 1, dtype=F64)
    path, channels = sg.BrownianPath(seed, nodes), problem.sde.channels
    whole = path.noise(x0, nodes[[0, -1]], channels=channels)
    exact = problem.exact(whole)
    found = {}
    for name, solver in solvers_of(problem).items():
        noise = path.noise(x0, nodes, channels=channels)
        *_, x = sg.integrate(problem.sde, solver, x0, nodes, noise)
        apart = (x - exact).square().sum(1)
        found[name] = apart, x.square().sum(1) - exact.square().sum(1)
    return found


def rows_of(problem, steps, paths):
    """Return a row for each solver at so many steps."""
    count = min(MOST, paths * STEPS[-1] // steps)
    batches = max(1, math.ceil(count / BATCH))
    sums = {}
    with torch.no_grad():
        for k in range(batches):
            for name, parts in batch(problem, steps, BATCH, 1000 * steps + k).items():
                each = [v for part in parts for v in (part.sum(), part.square().sum())]
                sums[name] = sums.get(name, 0) + torch.stack(each)
    n, rows = batches * BATCH, []
    for name, total in sums.items():
        square, fourth, difference, its_square = (total / n).tolist()
        strong = math.sqrt(square)
        # d√m = dm/(2√m)
        strong_error = math.sqrt(max(fourth - square**2, 0.0) / n) / (2 * strong)
        rows.append(
            {
                "problem": problem.name,
                "solver": name,
                "steps": steps,
                "evaluations of f": steps * SOLVERS[name].evaluations,
                "strong error": strong,
                "± strong": strong_error,
                "weak error": abs(difference),
                "± weak": math.sqrt(max(its_square - difference**2, 0.0) / n),
                "trajectories": n,
            }
        )
    return rows


def order_of(rows, kind):
    """Return the order that the finest told errors show, and its standard error; None if none.

    log error = a − p log N by least squares, each point weighted by (error/its standard error)².
    """
    column = _COLUMNS[kind]
    told = [r for r in rows if r[column] > TOLD * r[f"± {kind}"]][-3:]
    if len(told) < 2:
        return None, None
    n, y, error = (
        np.array([r[name] for r in told], float) for name in ("steps", column, f"± {kind}")
    )
    weights = (y / error) ** 2
    x = np.log(n) - np.average(np.log(n), weights=weights)
    spread = float(weights @ x**2)
    return -float(weights @ (x * np.log(y))) / spread, spread**-0.5


def _agrees(order, error, declared):
    """Return whether an order is the declared one, in a word."""
    if order is None:
        return "not told"
    if abs(order - declared) < max(ALLOWED, 3 * error):
        return "yes"
    return "more" if order > declared else "no"


def orders(rows):
    """Return a row for each problem and solver: orders as read off and as declared."""
    found = []
    for problem in PROBLEMS:
        for name, solver in solvers_of(problem).items():
            mine = [r for r in rows if r["problem"] == problem.name and r["solver"] == name]
            if not mine:
                continue
            row = {"problem": problem.name, "solver": name}
            weak, strong = getattr(solver.orders, problem.declared)
            for kind, declared in (("strong", strong), ("weak", weak)):
                order, error = order_of(mine, kind)
                row |= {
                    f"{kind} order": order,
                    f"± of {kind}": error,
                    f"declared {kind}": declared,
                    f"{kind} agrees": _agrees(order, error, declared),
                }
            found.append(row)
    return found


def draw(rows) -> Figure:
    """Draw errors over evaluations, strong above weak, a column for each problem."""
    letters = {(problem.name, kind): f"{kind}{k}" for k, problem in enumerate(PROBLEMS)
               for kind in _COLUMNS}  # fmt: skip
    mosaic = [[letters[p.name, kind] for p in PROBLEMS] for kind in _COLUMNS]
    figure, axes = style.panels(mosaic, 11.0, 7.0, gap=0.03)
    for (problem, kind), letter in letters.items():
        panel, column = axes[letter], _COLUMNS[kind]
        for i, name in enumerate(SOLVERS):
            mine = [r for r in rows if (r["problem"], r["solver"]) == (problem, name)]
            mine = [r for r in mine if r[column] > 2 * r[f"± {kind}"]]  # others are noise
            marker, colour = style.look(i)
            x, y, error = (
                [r[key] for r in mine] for key in ("evaluations of f", column, f"± {kind}")
            )
            panel.errorbar(x, y, error, fmt=f"{marker}-", ms=4, lw=style.LINE, color=colour,
                           elinewidth=style.THIN, label=name)  # fmt: skip
        _slopes(panel, kind)
        style.log_axes(panel)
        panel.set_xlabel("evaluations of f")
        panel.set_ylabel("strong error, rms of |X_N − X|" if kind == "strong" else
                         "weak error, of the mean of |X|²")  # fmt: skip
        if kind == "strong":
            style.title(panel, problem)
    style.legend_below(figure, axes["strong0"])
    return figure


def _slopes(panel, kind):
    """Draw short lines of the orders that there are, below all curves, each with its number."""
    panel.set(xscale="log", yscale="log")
    (low, high), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    shown = {"½": 0.5, "1": 1, "1½": 1.5} if kind == "strong" else {"1": 1, "2": 2}
    x = low * (high / low) ** np.array([0.06, 0.3])
    for name, order in shown.items():
        y = 0.6 * bottom * (x / x[0]) ** -order
        panel.plot(x, y, color=style.GREY, lw=style.THIN, ls=style.DASHED)
        panel.annotate(
            f"slope −{name}", (x[1], y[1]), xytext=(3, -3), textcoords="offset points",
            color=style.GREY, fontsize=style.NOTE,
        )  # fmt: skip
    panel.set_ylim(0.4 * y[1], top)


def redraw():
    """Draw the picture from what is stored."""
    rows = load("solver_costs")["tables"]["errors"]
    draw(rows).savefig(RESULTS / "solver_costs.png")


def main(quick=False):
    """Measures, prints the orders, and records and draws."""
    torch.set_num_threads(1)
    steps = (4, 8, 16) if quick else STEPS
    rows = [
        row
        for problem in PROBLEMS
        for n in steps
        for row in rows_of(problem, n, 375 if quick else PATHS)
    ]
    tables = {"orders, as read off and as declared": orders(rows), "errors": rows}
    for row in tables["orders, as read off and as declared"]:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    write("solver_costs", tables, quick)
    if not quick:
        redraw()
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
