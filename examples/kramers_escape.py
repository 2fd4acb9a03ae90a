"""Escape over a barrier: the exact rate, Kramers' formula, and an ensemble
========================================================================

dX = (X − X³) dt + √(2D) dW has wells at ±1 and a barrier ΔU = 1/4 between them, 1/(4D) in units of
kT. The rate of escape is 1/⟨τ⟩, of the mean first passage time from −1 to 1. Half the spectral gap
tends to it as the barrier grows, and so does Kramers' formula, √2/2π e^(−ΔU/D), with an error of
order D/ΔU. The ensemble counts passages between two steps too. It prints, in 11 s of one core::

    ΔU =  1 kT: rate 7.0039e-02, half the gap 9.3585e-02, Kramers 8.2801e-02, off by 18.22 %
    ΔU =  2 kT: rate 2.4370e-02, half the gap 2.8409e-02, Kramers 3.0461e-02, off by 24.99 %
    ΔU =  4 kT: rate 3.6094e-03, half the gap 3.7224e-03, Kramers 4.1224e-03, off by 14.21 %
    ΔU =  8 kT: rate 7.1428e-05, half the gap 7.1484e-05, Kramers 7.5505e-05, off by  5.71 %
    ΔU = 16 kT: rate 2.4700e-08, half the gap 2.4700e-08, Kramers 2.5329e-08, off by  2.54 %
    ensemble at 2 kT: ⟨τ⟩ = 41.18 ± 0.84, exact 41.03
"""

import torch

import sdegen as sg

TRAJECTORIES = 2_000
WAIT = 500.0
HEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0)


def well(height):
    return sg.ItoProcess(drift=lambda x: x - x**3, diffusion=(0.5 / height) ** 0.5)


(figure, axes), rates = sg.plots.style.panels("OS", 9.6, 3.8), []
for height in HEIGHTS:
    to_the_right = sg.Grid(-3.0, 1.0, 400), ("no-flux", "absorbing")
    escape = sg.FokkerPlanck(well(height), *to_the_right).escape()
    gap = float(sg.FokkerPlanck(well(height), sg.Grid(-3.0, 3.0, 600)).spectrum(2).rates[1])
    print(f"ΔU = {height:2.0f} kT: rate {escape.rate:.4e}, half the gap {gap / 2:.4e},", end=" ")
    print(f"Kramers {escape.kramers:.4e}, off by {100 * escape.kramers_error:5.2f} %")
    rates.append((escape.rate, gap / 2, escape.kramers))
exact = sg.FokkerPlanck(well(2.0), sg.Grid(-2.0, 1.0, 300), ("no-flux", "absorbing"))
times = torch.linspace(0.0, WAIT, 51, dtype=torch.float64)
ensemble = sg.run_ensemble(
    well(2.0), torch.tensor([[-1.0]]), times, trajectories=TRAJECTORIES,
    solver=sg.EulerMaruyama(substeps=round(WAIT / 50 / 0.01)),
    observables=[sg.FirstPassage(above=1.0)], rng=0, progress=False,
)  # fmt: skip
found, mean = ensemble.observables["first_passage"], exact.first_passage().at(-1.0).mean
said = f"⟨τ⟩ = {found.mean:.2f} ± {found.mean_error:.2f}, exact {float(mean):.2f}"
print(f"ensemble at 2 kT: {said}")
rates = torch.tensor(rates)
for k, name in enumerate(("exact", "half the gap", "Kramers")):
    axes["O"].plot(HEIGHTS, rates[:, k] / rates[:, 0], ["-", "s--", "o:"][k], label=name)
axes["S"].semilogy(times, exact.survival(-1.0, times).probability, "k--", label="exact")
axes["S"].errorbar(times, found.survival, found.survival_error, fmt=".", label=said)
axes["O"].set(xlabel="barrier ΔU, kT", ylabel="rate of escape/exact rate")
axes["S"].set(xlabel="time t", ylabel="share not yet at +1, barrier 2 kT", xlim=(0, 250))
axes["S"].set_ylim(5e-4, 1.5)
for panel in axes.values():
    panel.legend(loc="upper right", frameon=False, fontsize=8.5)
figure.savefig("kramers_escape.png")
