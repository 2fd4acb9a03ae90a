"""Ensembles on a GPU: trajectory-steps a second, ours and an eager torch loop on the same card.

python -m benchmarks.gpu [--device cuda]

Does everything in one run of under 8 minutes, and writes results/gpu.json:

(a) first, whether the results are right: the second moment of an Ornstein-Uhlenbeck chain against
    its exact value, the same bits twice, and compiled against eager, which on a GPU are passed
    the same normals (on a CPU the compiled run makes its own and walks other paths of one law);
(b) the double well in float32, 10⁵ to 10⁸ trajectories: eager, compiled, and the plain loop; the
    limit is the normals that the card draws;
(c) that a run waits for nothing between its first step and its last, eager and compiled, with
    first passages watched too: torch's synchronisation check raises where it does.

Without a GPU, `--device cpu --quick` rehearses it, says what it cannot check there, and writes
nothing.
"""

import argparse
import time

import torch

import sdegen as sg
from benchmarks.record import write
from benchmarks.timing import walls
from sdegen.core.noise import Streams
from sdegen.engine.blocks import solve
from sdegen.engine.record import RunOptions

DT, SIGMA = 1e-3, 0.7
BUDGET = 8 * 60  # seconds


def drift(x, t):
    return x - x**3


def waited(device):
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run, device, repeats=3):
    """Seconds of the fastest of a few runs, after one that warms up."""
    return min(walls(run, repeats, lambda: waited(device)))


# made once: what is compiled is compiled for this object
WELL = sg.ItoProcess(drift, SIGMA)


def ours(n, steps, device, compiled=False, sde=WELL):
    """Final states, of the double well unless said."""
    solver = sg.EulerMaruyama(substeps=steps, compile=compiled)
    x0 = torch.zeros(n, 1, device=device)
    return sg.simulate(sde, x0, [0.0, steps * DT], solver=solver, rng=0, keep_path=False).final


def plain_loop(n, steps, device):
    """What anybody would write."""
    x, generator = torch.zeros(n, 1, device=device), torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for _ in range(steps):
            z = torch.randn(x.shape, generator=generator, device=device)
            x = x + DT * drift(x, None) + SIGMA * DT**0.5 * z
    return x


def normals(n, steps, device):
    """The limit: as many normals, in draws of 2²⁴."""
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(max(1, n * steps // 2**24)):
        torch.randn(min(2**24, n * steps), generator=generator, device=device)


def correctness(device, quick):
    """(a) and (c)."""
    n, steps = (2**12, 32) if quick else (2**22, 200)
    sde = sg.OrnsteinUhlenbeck(rate=2.0, sigma=1.0)
    rows = []
    for compiled in (False, True):
        x = ours(n, steps, device, compiled, sde)
        a = 1 - 2.0 * DT
        exact = DT * (1 - a ** (2 * steps)) / (1 - a * a)
        off = (float(x.double().square().mean()) / exact - 1) * (n / 2) ** 0.5
        same = torch.equal(x, ours(n, steps, device, compiled, sde))
        gap = "none to tell: on a CPU a compiled run makes its own normals, and walks other paths"
        if device.type == "cuda" or not compiled:
            gap = float((x - ours(n, steps, device, False, sde)).abs().max())
        rows.append(
            {
                "compiled": str(compiled),
                "variance off by, in standard errors": off,
                "same bits twice": str(same),
                "largest distance to eager": gap,
            }
        )
        print(rows[-1], flush=True)
    for compiled in (False, True):
        rows.append(waiting(n, device, compiled))
        print(rows[-1], flush=True)
    return rows


def waiting(n, device, compiled):
    """(c), from the first normals to the last step but one."""
    steps, x0 = 40, torch.zeros(n, 1, device=device)
    times = DT * torch.arange(2.0, dtype=torch.float64) * steps
    solver, noise = sg.EulerMaruyama(substeps=steps, compile=compiled), Streams(0, "dynamics")
    block = sg.Block(WELL, times, solver.nodes(times), None, noise.block(1))
    accumulator = sg.FirstPassage(above=0.5).begin(block)
    accumulator.see(0, x0)
    seen = []

    def watch(i, before, after):
        accumulator.step(i, before, after)
        if i in (0, steps - 2):  # the first step makes what is made once, the last is looked at
            check = "error" if i == 0 else "default"
            seen.append((i, check))
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode(check)

    with torch.no_grad():
        # compiled on the way, which may wait
        solve(WELL, solver, x0, solver.nodes(times), noise=noise.block(0), keep_path=False,
                     options=RunOptions(on_step=lambda *step: None))  # fmt: skip
        try:
            solve(WELL, solver, x0, solver.nodes(times), noise=noise.block(0), keep_path=False,
                         options=RunOptions(on_step=watch))  # fmt: skip
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    assert seen == [(0, "error"), (steps - 2, "default")]
    found = steps - 2 if device.type == "cuda" else "not checked: (c) needs a GPU"
    return {"compiled": str(compiled), "steps without waiting": found}


def rates(device, quick, until):
    """(b)"""
    rows = []
    for n in (10**3,) if quick else (10**5, 10**6, 10**7, 10**8):
        steps = 16 if quick else 1024 if n < 10**8 else 256
        bound = None
        for name, run in (
            ("the limit: normals alone", lambda n=n, s=steps: normals(n, s, device)),
            ("sdegen", lambda n=n, s=steps: ours(n, s, device)),
            ("sdegen, compiled", lambda n=n, s=steps: ours(n, s, device, compiled=True)),
            ("torch loop", lambda n=n, s=steps: plain_loop(n, s, device)),
        ):
            if time.perf_counter() > until:
                print("out of time; what is missing is missing")
                return rows
            taken = seconds(run, device, 1 if quick or n == 10**8 else 3)
            rate = n * steps / taken
            bound = bound or rate
            rows.append(
                {
                    "trajectories": n,
                    "steps": steps,
                    "method": name,
                    "trajectory-steps/s": rate,
                    "over the limit": rate / bound,
                }
            )
            print(rows[-1], flush=True)
        loop = rows[-1]["trajectory-steps/s"]
        for row in rows[-3:-1]:
            row["over the torch loop"] = row["trajectory-steps/s"] / loop
    return rows


def main(quick=False, device="cuda"):
    until = time.perf_counter() + 0.8 * BUDGET
    if device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --device cpu --quick rehearses on the processor")
    device = torch.device(device)
    tables = {
        "is it right?": correctness(device, quick),
        "double well, float32": rates(device, quick, until),
    }
    write("gpu", tables, quick or device.type == "cpu")
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a rehearsal")
    chosen = parser.parse_args()
    main(chosen.quick, chosen.device)
