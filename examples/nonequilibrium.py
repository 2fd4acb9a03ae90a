"""A drift that is no gradient: a current in a density that stands still
=====================================================================

dX = −k X dt + ω R X dt + √(2D) dW in the plane, R = [[0, −1], [1, 0]]. No potential has this
force, yet its stationary density is that of a harmonic trap, N(0, D/k), whatever ω: samples at one
time do not tell the two apart. Paths do. They go round, sweeping an area ω D/k per unit time, and
heat flows all the while, making entropy at a rate 2 ω²/k. Both are measured along the paths with
the midpoint product x ∘ dx. It prints, in 6 s of one core::

    ω = 0: variance            0.5016 ± 0.0035, exact 0.5000
    ω = 0: correlation         0.0066 ± 0.0035, exact 0.0000
    ω = 0: swept area         -0.0021 ± 0.0035, exact 0.0000
    ω = 0: entropy production  0.0003 ± 0.0093, exact 0.0000
    ω = 2: variance            0.5045 ± 0.0035, exact 0.5000
    ω = 2: correlation        -0.0032 ± 0.0035, exact 0.0000
    ω = 2: swept area          0.9928 ± 0.0064, exact 1.0000
    ω = 2: entropy production  7.9370 ± 0.0524, exact 8.0000
"""

import math

import torch

import sdegen as sg
from sdegen.plots import style

TRAJECTORIES = 20_000
k, D, dt = 1.0, 0.5, 0.01

times = torch.arange(101) * dt
start = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=math.sqrt(D / k))
x0 = start.sample(TRAJECTORIES, rng=0, dtype=torch.float64)
names = ("variance", "correlation", "swept area", "entropy production")
rows, (figure, axes) = {}, style.panels("ABE", 12.5, 4.2)
for omega, key in ((0.0, "A"), (2.0, "B")):
    A = torch.tensor([[-k, -omega], [omega, -k]], dtype=torch.float64)
    sde = sg.ItoProcess(drift=lambda x, A=A: x @ A.T, diffusion=math.sqrt(2 * D))
    path = sg.simulate(sde, x0, times, solver=sg.Heun(substeps=4), rng=1)
    x, y = path.final.unbind(1)
    middle = 0.5 * (path.states[1:] + path.states[:-1])
    step = path.states.diff(dim=0)
    swept = 0.5 * (middle[..., 0] * step[..., 1] - middle[..., 1] * step[..., 0]).sum(0)
    heat = ((middle @ A.T) * step).sum((0, 2))
    found = (0.5 * (x**2 + y**2), x * y, swept, heat / D)
    exact = (D / k, 0.0, omega * D / k, 2 * omega**2 / k)
    for name, value, answer in zip(names, found, exact, strict=True):
        error = value.std() / TRAJECTORIES**0.5
        print(f"ω = {omega:.0f}: {name:18s} {value.mean():7.4f} ± {error:.4f}, exact {answer:.4f}")
        rows[f"ω = {omega:.0f}: {name}"] = (value.mean(), error, answer)
    axes[key].plot(*path.final[:4000].T, ".", ms=1.5, mew=0, color=style.BLUE, alpha=0.5)
    axes[key].set(xlabel="x", ylabel="y", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
at = torch.cartesian_prod(*2 * [torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)])
axes["B"].quiver(*at.T, *(at @ (A + k * torch.eye(2)).T).T, color=style.INK, width=0.005)
style.title(axes["A"], "ω = 0: samples, mean velocity 0")
style.title(axes["B"], "ω = 2: samples, mean velocity (arrows)")
sg.plots.estimates(rows, panel=axes["E"])
figure.savefig("nonequilibrium.png")
