"""Entropy production from a learned score, beside exact numbers and a grid.

States come of a simulation to rest; a network learns their score by transition matching along
paths that begin there, and `entropy_production` reads it at the states.
"""

import math
import time

import torch
from scipy.linalg import solve_continuous_lyapunov

import sdegen as sg

F64 = torch.float64
STATES, STEPS, REST = 20_000, 1_000, 8.0
OMEGA = 2.0
OTHERS = (1, 2, 3)  # seeds of states, network and training


def linear(A, g):
    """Return dX = −A X dt + g dW, and its entropy production at rest."""
    A, g = torch.tensor(A, dtype=F64), torch.tensor(g, dtype=F64)
    D = g.square().diag() / 2
    C = torch.from_numpy(solve_continuous_lyapunov(A.numpy(), 2 * D.numpy()))
    drive = D @ torch.linalg.inv(C) - A
    exact = float(torch.trace(drive.T @ torch.linalg.inv(D) @ drive @ C))
    noise = lambda x: g.to(x).expand_as(x)  # noqa: E731
    sde = sg.ItoProcess(lambda x: -x @ A.to(x).T, noise, noise="additive", autonomous=True)
    return sde, exact


def wells():
    """Return two wells that turn, and their entropy production by a grid."""

    def drift(x):
        u, v = x[:, :1], x[:, 1:]
        return torch.cat([u - u**3 - v, u - v], 1)

    sde = sg.ItoProcess(drift, 0.8, noise="additive", autonomous=True)
    plane = sg.FokkerPlanck2D(sde, (sg.Grid(-3.5, 3.5, 112),) * 2)
    return sde, float(plane.entropy_production(plane.stationary()))


def learned(sde, states, steps, seed=0):
    """Return the entropy production by a learned score; states, network and training of a seed."""
    start = torch.randn(states, 2, generator=torch.Generator().manual_seed(seed))
    solver = sg.Heun(substeps=round(50 * REST))
    x = sg.simulate(
        sde, start, [0.0, REST], solver=solver, rng=1 + 100 * seed, keep_path=False
    ).final
    model = sg.ScoreModel(sg.MLP(2, 64, 2, rng=seed), sde, times=(0.5, 1.0), base=0)
    sg.train(model, x, sg.TrainConfig(steps=steps), loss=sg.TransitionMatching(), rng=seed)
    return sg.entropy_production(sde, x, model.score, time=1.0)


def rows(quick=False):
    """Return one line for each process."""
    problems = {
        "rotating trap, ω = 2": lambda: linear([[1.0, OMEGA], [-OMEGA, 1.0]], [1.0, 1.0]),
        "two temperatures, 1 and 3": lambda: linear(
            [[2.0, -1.0], [-1.0, 2.0]], [math.sqrt(2), math.sqrt(6)]
        ),
        "two wells that turn": wells,
    }
    out = []
    for name, made in list(problems.items())[: 1 if quick else 3]:
        sde, exact = made()
        began = time.process_time()
        size = (2000, 100) if quick else (STATES, STEPS)
        found = learned(sde, *size)
        took = time.process_time() - began
        others = [
            learned(sde, *size, seed).rate / exact - 1 for seed in OTHERS[: 0 if quick else 3]
        ]
        line = {
            "process": name,
            "σ": exact,
            "learned": found.rate,
            "standard error": found.error,
            "off": found.rate / exact - 1,
            "off, other seeds": others,
            "asked": 0.05,
            "CPU seconds": took,
        }
        print(line, flush=True)
        out.append(line)
    return out
