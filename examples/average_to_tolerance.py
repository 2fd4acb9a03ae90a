"""An average to a tolerance, and what it costs: how far a bistable system has come by t = 1.

dX = (X - X³) dt + 0.7 dW from the well at -1. Most trajectories take 16 steps; few take up to
thousands, and only for the difference that these make. Euler's method alone, with its bias known
beforehand, would take ever longer. Beside the exact mean, by Fokker-Planck; in 8 CPU seconds:

    to 0.01:   -0.8472 ± 0.0095, exact -0.8431; 2.8e+05 evaluations, Euler alone 5.5e+05
    to 0.003:  -0.8453 ± 0.0029, exact -0.8431; 2.7e+06 evaluations, Euler alone 2.4e+07
    to 0.001:  -0.8434 ± 0.0010, exact -0.8431; 2.4e+07 evaluations, Euler alone 5.5e+08
    to 0.0003: -0.8431 ± 0.0003, exact -0.8431; 2.7e+08 evaluations, Euler alone 2.3e+10
    cost ∝ tolerance^-1.97; variance of the differences ∝ dt^2.00
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import sdegen as sg

TOLERANCES = (1e-2, 3e-3, 1e-3, 3e-4)
sde, x0 = sg.ItoProcess(lambda x: x - x**3, 0.7), -torch.ones(1, 1, dtype=torch.float64)
density = sg.FokkerPlanck(sde, sg.Grid(-4.0, 4.0, 1600)).solve(-1.0, [0.0, 1.0]).at(1)
exact = float(density.expect(lambda x: x))

costs, alone = [], []
for tolerance in TOLERANCES:
    result = sg.expectation(sde, x0, 1.0, lambda x: x[:, 0], tolerance=tolerance, rng=0)
    costs.append(result.evaluations)
    # Euler's n steps are off by c/n; the least cost is where that is a third of the tolerance
    c = float((result.means * result.steps)[-3:].abs().mean())
    alone.append(
        1.96**2 * float(result.variances[0]) * 3 * c / (2 / 3 * tolerance) ** 2 / tolerance
    )
    print(
        f"{f'to {tolerance:g}:':10s} {result.mean:.4f} ± {result.half_width:.4f}, exact "
        f"{exact:.4f}; {costs[-1]:.1e} evaluations, Euler alone {alone[-1]:.1e}"
    )
slope = np.polyfit(np.log(TOLERANCES), np.log(costs), 1)[0]
print(
    f"cost ∝ tolerance^{slope:.2f}; variance of the differences ∝ dt^{result.variance_order:.2f}"
)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.loglog(TOLERANCES, costs, "C0o-", label=r"levels, $\varepsilon^{-2}$")
left.loglog(TOLERANCES, alone, "C1s--", label=r"Euler alone, $\varepsilon^{-3}$")
left.set(xlabel=r"tolerance $\varepsilon$", ylabel="drift evaluations")
left.legend()
steps = result.steps
right.loglog(steps, result.variances, "C2o-", label="variance of a sample")
right.loglog(steps, result.means.abs(), "C3s-", label="|mean|")
right.loglog(steps, result.costs / result.costs.sum(), "C0^-", label="share of the cost")
right.set(xlabel="steps of the level", ylabel="first level, then differences")
right.legend()
figure.savefig("average_to_tolerance.png")
