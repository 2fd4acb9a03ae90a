"""Pulses, switches and bursts: drifts and noise that change for a moment between two times.

    python -m benchmarks.pulses            # 200 of each, and 200 smooth driven problems

Each problem is an Ornstein–Uhlenbeck process that is pushed, or whose noise grows, in a window of
a thousandth to a fifth of the run, somewhere between the two times that are asked for. Its mean
and variance follow from two linear ordinary equations, solved window by window. Survival is
compared with the same problem in three pieces that do not depend on time, each carried on from the
density before. A smooth problem is driven by a sum of three sines. Seeds are fixed.

An answer is right within 1 % of its standard deviation (of itself, for variances and survival).
"""

import math
import time
import warnings

import numpy as np
import torch
from scipy.integrate import quad

import sdegen as sg
from benchmarks.record import write

PROBLEMS = 200
RUN = 10.0
KINDS = ("pulse", "switch", "burst", "noise")


def _signal(kind, rng):
    """A function of time that is 0 outside of a window, and where it begins and ends."""
    width = RUN * 10 ** rng.uniform(-3, math.log10(0.2))
    start = rng.uniform(0.2, RUN - width - 0.2)
    end = RUN if kind == "switch" else start + width
    height = rng.uniform(0.5, 3.0) / min(end - start, 1.0)
    if kind == "noise":
        height *= 0.1  # or the density would reach the ends of the grid

    def signal(t):
        inside = (t >= start) & (t < end)
        shape = torch.sin(math.pi * (t - start) / width) ** 2 if kind == "burst" else 1.0
        return height * inside * shape

    return signal, start, end


def _moments(signal, start, end, kind):
    """Mean and variance at the end of the run of dX = (u − X) dt + g dW, from N(0, ½)."""

    def integral(rate):
        def f(s):
            return float(signal(torch.tensor(s, dtype=torch.float64))) * math.exp(rate * (s - RUN))

        return quad(f, start, end - 1e-12, limit=200)[0]

    if kind == "noise":  # D = ½ + u
        return 0.0, 0.5 + 2 * integral(2.0)
    return integral(1.0), 0.5


def _process(signal, kind):
    if kind == "noise":
        return sg.ItoProcess(
            lambda x: -x, lambda x, t: torch.sqrt(1 + 2 * signal(t)) * torch.ones_like(x)
        )
    return sg.ItoProcess(lambda x, t: signal(t) - x, 1.0)


def _judged(solve, right):
    """Whether an answer is right, and whether it warned."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = solve()
        except (ValueError, sg.SdegenError) as error:
            return False, True, f"{type(error).__name__}: {error}"
    warned = any(issubclass(w.category, sg.AccuracyWarning) for w in told)
    worst = max(abs(a - b) / scale for a, (b, scale) in zip(found, right, strict=True))
    return worst <= 0.01, warned, worst


def _line(signal, start, end, kind):
    grid = sg.Grid(-8.0, 8.0, 200)
    mean, variance = _moments(signal, start, end, kind)
    fp = sg.FokkerPlanck(_process(signal, kind), grid)

    def solve():
        p = fp.solve(grid.gaussian(0.0, 0.5**0.5), [0.0, RUN]).final
        return float(p.mean), float(p.variance)

    return _judged(solve, ((mean, variance**0.5), (variance, variance)))


def _plane(signal, start, end, kind):
    grid = sg.Grid(-7.0, 7.0, 40)
    mean, variance = _moments(signal, start, end, kind)

    def drift(x, t):
        push = 0.0 if kind == "noise" else signal(t)
        return torch.stack([push - x[:, 0], -x[:, 1]], -1)

    def noise(x, t):
        own = torch.sqrt(1 + 2 * signal(t)) if kind == "noise" else torch.ones(())
        return torch.stack([own.to(x), torch.ones(()).to(x)]).expand_as(x)

    fp = sg.FokkerPlanck2D(sg.ItoProcess(drift, noise), (grid, grid))

    def solve():
        start_density = fp.gaussian((0.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
        p = fp.solve(start_density, [0.0, RUN])[-1]
        return float(p.mean[0]), float(p.covariance[0, 0])

    return _judged(solve, ((mean, variance**0.5), (variance, variance)))


def _chain(signal, start, end, kind):
    """The law of an Euler chain: moments by its own linear recursion, read at its own nodes."""
    steps, grid = 1000, sg.Grid(-8.0, 8.0, 200)
    dt, mean, variance = RUN / steps, 0.0, 0.5
    for i in range(steps):
        u = float(signal(torch.tensor(i * dt, dtype=torch.float64)))
        mean = mean + dt * ((0.0 if kind == "noise" else u) - mean)
        variance = (1 - dt) ** 2 * variance + dt * (1 + (2 * u if kind == "noise" else 0.0))
    law = sg.ChainDensity(_process(signal, kind), grid, sg.EulerMaruyama(steps))

    def solve():
        p = law.run(grid.gaussian(0.0, 0.5**0.5), [0.0, RUN]).at(-1)
        return float(p.mean), float(p.variance)

    return _judged(solve, ((mean, variance**0.5), (variance, variance)))


def _survival(signal, start, end, kind):
    """Survival below 2, whose truth is in three pieces that know no time (no bursts)."""
    if kind == "burst":
        return None
    grid = sg.Grid(-8.0, 2.0, 250)
    boundary = ("no-flux", "absorbing")
    u = float(signal(torch.tensor(0.5 * (start + end), dtype=torch.float64)))
    density = grid.gaussian(0.0, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for force, length in ((0.0, start), (u, end - start), (0.0, RUN - end)):
            if length <= 0:
                continue
            if kind == "noise":
                piece = sg.ItoProcess(lambda x: -x, (1 + 2 * force) ** 0.5)
            else:
                piece = sg.ItoProcess(lambda x, force=force: force - x, 1.0)
            density = sg.FokkerPlanck(piece, grid, boundary).solve(density, [0.0, length]).final
            density = sg.Density(grid.nodes, density.p)
    right = float(density.mass)
    fp = sg.FokkerPlanck(_process(signal, kind), grid, boundary)

    def solve():
        return (float(fp.solve(grid.gaussian(0.0, 0.5), [0.0, RUN]).final.mass),)

    return _judged(solve, ((right, max(right, 1e-3)),))


def _smooth(rng):
    """A trap driven by three sines: right, and no warning."""
    a, w, c = (rng.uniform(low, high, 3) for low, high in ((0.1, 1.0), (0.3, 12.0), (0, 6.28)))
    sde = sg.ItoProcess(
        lambda x, t: (
            sum(
                float(ai) * torch.sin(float(wi) * t + float(ci))
                for ai, wi, ci in zip(a, w, c, strict=True)
            )
            - x
        ),
        1.0,
    )
    mean = sum(
        ai * np.imag(np.exp(1j * ci) * (np.exp(1j * wi * RUN) - math.exp(-RUN)) / (1 + 1j * wi))
        for ai, wi, ci in zip(a, w, c, strict=True)
    )
    grid = sg.Grid(-8.0, 8.0, 200)

    def solve():
        p = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(0.0, 0.5**0.5), [0.0, RUN]).final
        return float(p.mean), float(p.variance)

    return _judged(solve, ((float(mean), 0.5**0.5), (0.5, 0.5)))


ROOMS = {"density": _line, "density in the plane": _plane, "chain": _chain, "survival": _survival}


def main(quick=False):
    """Counts what is right, what is warned of, and what is wrong without a word."""
    count = 8 if quick else PROBLEMS
    rows = []
    for room, solve in ROOMS.items():
        rng = np.random.default_rng(2026)
        start, found = time.process_time(), []
        for k in range(count):
            kind = KINDS[k % len(KINDS)]
            judged = solve(*_signal(kind, rng), kind)
            if judged is not None:
                found.append(judged)
                if not judged[0]:
                    print(f"{room} {k} {kind}: {judged[2]}, warned: {judged[1]}", flush=True)
        rows.append(_row(room, found, time.process_time() - start))
    rng = np.random.default_rng(7)
    start = time.process_time()
    found = [_smooth(rng) for _ in range(count)]
    rows.append(_row("smooth drive", found, time.process_time() - start))
    for row in rows:
        print(row, flush=True)
    write("pulses", {"pulses, switches and bursts": rows}, quick)


def _row(room, found, seconds):
    return {
        "problem": room,
        "problems": len(found),
        "right to 1 %": sum(ok for ok, _, _ in found),
        "warned": sum(warned for _, warned, _ in found),
        "wrong without a word": sum(not ok and not warned for ok, warned, _ in found),
        "CPU seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
