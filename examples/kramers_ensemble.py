"""A million trajectories over a barrier, interrupted and resumed
==============================================================

dX = (X − X³) dt + √0.2 dW from the well at −1 over 2.5 kT to that at +1. First passages, those
between steps too, and stored states beside the exact law and Kramers' formula. It prints, in 14 s
of one core::

    interrupted: 0 of 20 blocks are done. They are in kramers.zarr: resume=True goes on.
    not yet at +1 by t = 20:       0.7661 ± 0.0004, exact 0.7665
    in the left half at t = 20:    0.7641 ± 0.0004, exact 0.7645
    escapes per time after t = 10: 0.01591 ± 0.00004, exact 0.01585, Kramers' formula: 0.01858
"""

import itertools
import signal

import torch

import sdegen as sg

TRAJECTORIES = 1_000_000
sde, line = sg.ItoProcess(lambda x, t: x - x**3, 0.2**0.5), sg.Grid(-2.5, 2.5, 400)
times = torch.linspace(0, 20, 21, dtype=torch.float64)
begun = itertools.count()


def start(rows, rng):
    if next(begun) == 4:
        signal.raise_signal(signal.SIGINT)  # Ctrl-C
    return torch.full((rows, 1), -1.0)


how = {"trajectories": TRAJECTORIES, "solver": sg.Heun(substeps=25), "store": "kramers.zarr"}
how |= {"observables": [sg.FirstPassage(above=1.0)], "rng": 0}
try:
    sg.run_ensemble(sde, start, times, **how)
except sg.Interrupted as stop:
    print(stop)
ensemble = sg.run_ensemble(sde, start, times, **how, resume=True)
passage, states = ensemble.observables["first_passage"], ensemble.open().states
absorbed = sg.FokkerPlanck(sde, sg.Grid(-2.5, 1.0, 400), ("no-flux", "absorbing"))
exact, kramers = absorbed.survival(-1.0, times).probability, absorbed.escape().kramers
density = sg.FokkerPlanck(sde, line).solve(line.gaussian(-1.0, 0.02), times)
left = torch.stack([density.at(k).cdf(torch.tensor(0.0)) for k in range(21)])
stayed = torch.tensor((states < 0).mean(("trajectory", "coordinate")).values)
s, e = passage.survival, passage.survival_error
rate, known = (torch.log(p[10] / p[-1]) / 10 for p in (s, exact))
error = rate / (passage.waiting[10] - passage.waiting[-1]).sqrt()
print(f"not yet at +1 by t = 20:       {s[-1]:.4f} ± {e[-1]:.4f}, exact {exact[-1]:.4f}")
print(f"in the left half at t = 20:    {stayed[-1]:.4f} ± {e[-1]:.4f}, exact {left[-1]:.4f}")
said = f"{rate:.5f} ± {error:.5f}, exact {known:.5f}"
print(f"escapes per time after t = 10: {said}, Kramers' formula: {kramers:.5f}")
panel = sg.plots.style.panels("S", 7.2, 4.4)[1]["S"]
panel.plot(times, exact, color="#0072B2", label="not yet at x = 1: Fokker–Planck")
panel.errorbar(times, s, e, fmt="o", ms=4, color="#0072B2", label=f"passages, rate {said}")
panel.plot(times, left, color="#D55E00", label="at x < 0: Fokker–Planck")
panel.plot(times, stayed, "s", ms=4, color="#D55E00", label="stored states")
panel.plot(times, torch.exp(-kramers * times), "k--", label=f"Kramers, rate {kramers:.5f}")
panel.set(xlabel="time t", ylabel="share of trajectories", ylim=(0.45, 1.01))
panel.legend(loc="lower left", frameon=False, fontsize=8.5).figure.savefig("kramers_ensemble.png")
