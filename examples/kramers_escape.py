"""Escape over a barrier: the exact rate, Kramers' formula with its error, and an ensemble.

dX = (X - X³) dt + √(2D) dW has wells at ±1 and between them a barrier ΔU = 1/4, which is 1/(4D) in
units of kT. The rate of escape from the left well is 1/⟨τ⟩ with the mean first passage time from
-1 to 1. Half the spectral gap, the rate of exchange between two equal wells, tends to it as the
barrier grows, and so does Kramers' formula, √2/2π e^(-ΔU/D), with an error of order D/ΔU. The
ensemble counts how long trajectories take, passages between two steps included. The picture,
kramers_escape.png, has ⟨τ⟩ of every start. This prints, in 8 s of one CPU core:

    ΔU =  1 kT: rate 7.0039e-02, half the gap 9.3585e-02, Kramers 8.2801e-02, off by 18.22 %
    ΔU =  2 kT: rate 2.4370e-02, half the gap 2.8409e-02, Kramers 3.0461e-02, off by 24.99 %
    ΔU =  4 kT: rate 3.6094e-03, half the gap 3.7224e-03, Kramers 4.1224e-03, off by 14.21 %
    ΔU =  8 kT: rate 7.1428e-05, half the gap 7.1471e-05, Kramers 7.5505e-05, off by  5.71 %
    ΔU = 16 kT: rate 2.4700e-08, half the gap 2.4708e-08, Kramers 2.5329e-08, off by  2.54 %
    ensemble at 2 kT: ⟨τ⟩ = 41.18 ± 0.84, exact 41.03
"""

import math

import torch

import sdegen as sg

TRAJECTORIES = 2_000
WAIT = 500.0


def well(height):
    return sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.5 / height))


for height in (1.0, 2.0, 4.0, 8.0, 16.0):
    to_the_right = sg.Grid(-3.0, 1.0, 400), ("no-flux", "absorbing")
    escape = sg.FokkerPlanck(well(height), *to_the_right).escape()
    gap = float(sg.FokkerPlanck(well(height), sg.Grid(-3.0, 3.0, 600)).spectrum(2).rates[1])
    print(f"ΔU = {height:2.0f} kT: rate {escape.rate:.4e}, half the gap {gap / 2:.4e},", end=" ")
    print(f"Kramers {escape.kramers:.4e}, off by {100 * escape.kramers_error:5.2f} %")

exact = sg.FokkerPlanck(well(2.0), sg.Grid(-2.0, 1.0, 300), ("no-flux", "absorbing"))
ensemble = sg.run_ensemble(
    well(2.0), torch.tensor([[-1.0]]), [0.0, WAIT], trajectories=TRAJECTORIES,
    solver=sg.EulerMaruyama(substeps=round(WAIT / 0.01)),
    observables=[sg.FirstPassage(above=1.0)], rng=0, progress=False,
)  # fmt: skip
passages = ensemble.observables["first_passage"]
mean = float(exact.first_passage().at(-1.0).mean)
print(f"ensemble at 2 kT: ⟨τ⟩ = {passages.mean:.2f} ± {passages.mean_error:.2f}, exact {mean:.2f}")
x = exact.grid.nodes
energy = x**4 / 4 - x**2 / 2
sg.plots.first_passage(exact.first_passage(), energy=energy).savefig("kramers_escape.png")
