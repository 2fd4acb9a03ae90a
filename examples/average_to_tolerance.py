"""An average to a tolerance, and what it costs
============================================

dX = (X − X³) dt + 0.7 dW from the well at −1: how far has it come by t = 1? Most trajectories take
16 steps; few take up to thousands, and only for the difference that these make. Euler's method
alone, with its bias known beforehand, would take ever longer. The exact mean is that of the
Fokker–Planck density. It prints, in 11 s of one core::

    to 0.01:   -0.8472 ± 0.0095, exact -0.8431; 2.8e+05 evaluations, Euler alone 5.5e+05
    to 0.003:  -0.8453 ± 0.0029, exact -0.8431; 2.7e+06 evaluations, Euler alone 2.4e+07
    to 0.001:  -0.8434 ± 0.0010, exact -0.8431; 2.4e+07 evaluations, Euler alone 5.5e+08
    to 0.0003: -0.8431 ± 0.0003, exact -0.8431; 2.7e+08 evaluations, Euler alone 2.3e+10
    cost ∝ tolerance^-1.97; variance of the differences ∝ dt^2.00
"""

import numpy as np
import torch

import sdegen as sg
from sdegen.plots import style

TOLERANCES = (1e-2, 3e-3, 1e-3, 3e-4)
sde, x0 = sg.ItoProcess(lambda x: x - x**3, 0.7), -torch.ones(1, 1, dtype=torch.float64)
density = sg.FokkerPlanck(sde, sg.Grid(-4.0, 4.0, 1600)).solve(-1.0, [0.0, 1.0]).at(1)
exact = float(density.expect(lambda x: x))

costs, alone, results = [], [], []
for tolerance in TOLERANCES:
    result = sg.expectation(sde, x0, 1.0, lambda x: x[:, 0], tolerance=tolerance, rng=0)
    costs.append(result.evaluations)
    results.append((result.mean, result.half_width))
    # Euler's n steps are off by c/n; the least cost is where that is a third of the tolerance
    c = float((result.means * result.steps)[-3:].abs().mean())
    samples = 1.96**2 * float(result.variances[0]) / (2 / 3 * tolerance) ** 2
    alone.append(samples * 3 * c / tolerance)
    print(
        f"{f'to {tolerance:g}:':10s} {result.mean:.4f} ± {result.half_width:.4f}, exact "
        f"{exact:.4f}; {costs[-1]:.1e} evaluations, Euler alone {alone[-1]:.1e}"
    )
slope = np.polyfit(np.log(TOLERANCES), np.log(costs), 1)[0]
said = f"cost ∝ tolerance^{slope:.2f}"
print(f"{said}; variance of the differences ∝ dt^{result.variance_order:.2f}")

figure, axes = style.panels("MCL", 12.5, 3.8)
axes["M"].errorbar(
    TOLERANCES, *zip(*results, strict=True), fmt="o", label="mean ± half width, 95 %"
)
axes["M"].axhline(exact, color=style.INK, lw=1, ls="--", label=f"exact, {exact:.4f}")
axes["M"].set(xscale="log", xlabel="tolerance ε", ylabel="mean of X(1)")
axes["C"].loglog(TOLERANCES, costs, "o-", label=f"levels: {said}")
axes["C"].loglog(TOLERANCES, alone, "s--", label="Euler alone: ∝ tolerance^-3")
axes["C"].set(xlabel="tolerance ε", ylabel="evaluations of the drift")
axes["L"].loglog(result.steps, result.variances, "o-", label="variance, units of x²")
axes["L"].loglog(result.steps, result.means.abs(), "s-", label="mean, absolute, units of x")
axes["L"].loglog(result.steps, result.costs / result.costs.sum(), "^-", label="share of the cost")
axes["L"].set(xlabel="steps of the level", ylabel="first level, then differences")
for key, at in (("M", "lower left"), ("C", "upper right"), ("L", "upper right")):
    axes[key].legend(frameon=False, fontsize=8.5, loc=at)
figure.savefig("average_to_tolerance.png")
