"""A tilted washboard: drift and effective diffusion against force, three times
============================================================================

dX = (2 cos X + F) dt + √(2D) dW, D = 1/2, slides down a slope: X ≈ v t ± √(2 D_eff t). From the
density on one period the solver finds v and D_eff; two integrals give them exactly ("solver": its
error; Reimann et al. 2001); an ensemble on the line has them with standard errors. Near F = 2,
where the barriers vanish, D_eff is more than twice D. It prints, in 6 s of one core::

    F = 0.5: v 0.0098 ± 0.0010, exact 0.0106; D_eff 0.0314 ± 0.0015, exact 0.0332; solver 2e-14
    F = 1: v 0.0917 ± 0.0025, exact 0.0956; D_eff 0.2496 ± 0.0115, exact 0.2723; solver 9e-16
    F = 2: v 0.9908 ± 0.0054, exact 0.9996; D_eff 1.1984 ± 0.0553, exact 1.1770; solver 4e-15
    F = 4: v 3.4736 ± 0.0042, exact 3.4795; D_eff 0.7132 ± 0.0337, exact 0.7248; solver 8e-15
"""

import math

import numpy as np
import torch

import sdegen as sg

TRAJECTORIES, D, L = 2_000, 0.5, 2 * math.pi
y, weights = np.polynomial.legendre.leggauss(100)
y, weights, x = L * (1 + y) / 2, L * weights / 2, np.linspace(0, L, 100, endpoint=False)[:, None]
times = torch.tensor([0.0, 20.0, 60.0], dtype=torch.float64)
start = torch.full((TRAJECTORIES, 1), L / 4, dtype=torch.float64)


def ring(force):
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + force, diffusion=math.sqrt(2 * D))
    return sde, sg.FokkerPlanck(sde, sg.Grid(0.0, L, 256), "periodic").transport()


(figure, axes), F = sg.plots.style.panels("VD", 9.6, 3.8), torch.linspace(0.1, 5.0, 26).tolist()
line = [ring(force)[1] for force in F]
axes["V"].plot(F, [found.velocity for found in line])
axes["D"].plot(F, [found.diffusion for found in line])
for force in (0.5, 1.0, 2.0, 4.0):
    sde, found = ring(force)

    def energy(x, F=force):
        return -2 * np.sin(x) - F * x

    forth = np.exp((energy(x) - energy(x - y)) / D) @ weights
    back = np.exp((energy(x + y) - energy(x)) / D) @ weights
    v = -D * math.expm1(-force * L / D) / forth.mean()
    spread = D * (forth**2 * back).mean() / forth.mean() ** 3
    off = max(abs(found.velocity / v - 1), abs(found.diffusion / spread - 1))
    path = sg.simulate(sde, start, times, solver=sg.Heun(substeps=1000), rng=1).states[1:, :, 0]
    speed = path.diff(dim=0)[0] / 40
    grown = (path.var(1).diff() / 80).item()
    errors = speed.std() / TRAJECTORIES**0.5, path[1].var() / 80 * (2 / TRAJECTORIES) ** 0.5
    print(f"F = {force:g}: v {speed.mean():.4f} ± {errors[0]:.4f}, exact {v:.4f};", end=" ")
    print(f"D_eff {grown:.4f} ± {errors[1]:.4f}, exact {spread:.4f}; solver {off:.0e}")
    axes["V"].errorbar(force, speed.mean(), errors[0], fmt="ko", ms=4, capsize=3)
    axes["D"].errorbar(force, grown, errors[1], fmt="ko", ms=4, capsize=3)
axes["V"].set(xlabel="force F", ylabel="drift v, length/time")
axes["D"].set(xlabel="force F", ylabel="effective diffusion D_eff, length²/time")
axes["V"].set_title("line: Fokker–Planck; dots: ensemble, one standard error", fontsize=9.5)
figure.savefig("tilted_washboard.png")
