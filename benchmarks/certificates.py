"""Certificates: how often a clean simulation is refused, and whether planted faults are caught.

python -m benchmarks.certificates

Clean: SEEDS full certificates of each problem, at a false-alarm rate of 1e-5 each. The p-values of
the three tests that are exact, at the last time, must be uniform: the table has the p-value of
their Kolmogorov-Smirnov statistic. Faults: what is believed is right, what is simulated is not;
"named" counts the runs in which the summary says which mistake it is.
"""

import argparse
import math

import torch
from scipy import stats

import sdegen as sg
from benchmarks.record import write
from sdegen.verification.sampling import TESTS

SEEDS, FAULTY_SEEDS, TRAJECTORIES = 200, 5, 2_000
EXACT = ("Kolmogorov-Smirnov", "χ²", "Neyman's smooth test")
VP = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
WELL_GRID, OU_GRID = sg.Grid(-3.2, 3.2, 160), sg.Grid(-6.0, 6.0, 160)


def curved(x):
    return 0.3 + 0.2 * torch.sin(2 * x)


STRATONOVICH = sg.ItoProcess(lambda x: -x, curved, interpretation="stratonovich")
# SDE, grid, start, times, solver
CLEAN = {
    "double well": (
        WELL,
        WELL_GRID,
        WELL_GRID.gaussian(-1.0, 0.2),
        [0.0, 0.5, 1.0],
        sg.EulerMaruyama(20),
    ),
    "Ornstein-Uhlenbeck from a point, Heun": (
        sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0),
        OU_GRID,
        1.0,
        [0.0, 1.0],
        sg.Heun(10),
    ),
    "Stratonovich noise from a point": (
        STRATONOVICH,
        sg.Grid(-2.5, 2.5, 150),
        0.0,
        [0.0, 1.0],
        sg.EulerMaruyama(40),
    ),
}


def clean(name, seeds):
    """Certificates of one problem: the row of the table, and the certificates that failed."""
    sde, grid, start, times, solver = CLEAN[name]
    p_values, refused = {test: [] for test in EXACT}, 0
    for seed in range(seeds):
        certificate = sg.certify(
            sde, grid, start, times, solver=solver, trajectories=TRAJECTORIES, rng=seed
        )
        refused += not certificate.passed
        for check in certificate.checks[-TESTS:]:
            for test in EXACT:
                if check.name.startswith(test):
                    p_values[test].append(check.p_value)
    row = {"problem": name, "seeds": seeds, "false alarms": refused}
    return row | {
        f"{test}: p of uniform p-values": float(stats.kstest(values, "uniform").pvalue)
        for test, values in p_values.items()
    }


def well(simulated=None, **changed):
    """A certificate of the double well."""
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 20_000, **changed}
    start = WELL_GRID.gaussian(-1.0, 0.2)
    return sg.certify(WELL, WELL_GRID, start, [0, 0.5, 1], simulated=simulated, **options)


def faults():
    """A function of a seed for each, and what its certificate must say."""
    chain = sg.DDPM.discretize(VP, 1000)
    shifted = torch.cat([chain.betas[1:], chain.betas[-1:]])

    def stratonovich(seed):
        return sg.certify(
            STRATONOVICH,
            sg.Grid(-2.5, 2.5, 150),
            0.0,
            [0, 1],
            simulated=sg.ItoProcess(lambda x: -x, curved),
            solver=sg.EulerMaruyama(40),
            trajectories=20_000,
            rng=seed,
        )

    def long_step(seed):
        start = WELL_GRID.gaussian(-1.0, 0.2)
        source = torch.Generator().manual_seed(seed)
        x0 = start.quantile(torch.rand(20_000, generator=source, dtype=torch.float64))
        path = sg.simulate(WELL, x0[:, None], [0, 0.5, 1], solver=sg.EulerMaruyama(2), rng=seed)
        return well(path=path)

    return {
        "drift of the wrong sign": (
            lambda seed: well(sg.ItoProcess(lambda x: x**3 - x, 0.7), rng=seed),
            "the drift has the wrong sign",
        ),
        "twice the drift": (
            lambda seed: well(sg.ItoProcess(lambda x: 2 * (x - x**3), 0.7), rng=seed),
            "the drift is twice",
        ),
        "½g² for g²": (
            lambda seed: well(sg.ItoProcess(lambda x: x - x**3, 0.7 / math.sqrt(2)), rng=seed),
            "g² is half",
        ),
        "Itô for Stratonovich": (stratonovich, "Itô for Stratonovich"),
        "a step ten times too long, in the path": (long_step, "the step is ten times too long"),
        "a step ten times too long, believed": (
            lambda seed: well(solver=sg.EulerMaruyama(2), rng=seed),
            "The step is too long",
        ),
        "a grid too small": (
            lambda seed: sg.certify(
                WELL, sg.Grid(-1.5, 1.5, 160), -1.0, [0, 0.5, 1], trajectories=2_000, rng=seed
            ),
            "is too small: widen it towards low x",
        ),
        "an off-by-one in β of a chain of 1,000": (
            lambda seed: sg.certify_noising(sg.DDPM(shifted), VP, chain.times),
            "Its β lead by one",
        ),
    }


def main(quick=False):
    """Prints and records both tables."""
    rows = []
    for name in CLEAN:
        rows.append(clean(name, 10 if quick else SEEDS))
        print(rows[-1], flush=True)
    caught = []
    for fault, (certificate, expected) in faults().items():
        found = [certificate(seed) for seed in range(1 if quick else FAULTY_SEEDS)]
        caught.append(
            {
                "planted fault": fault,
                "runs": len(found),
                "caught": sum(not one.passed for one in found),
                "named": sum(expected in one.summary for one in found),
            }
        )
        print(caught[-1], flush=True)
    tables = {"certificates of clean simulations": rows, "certificates of planted faults": caught}
    write("certificates", tables, quick)
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
