"""Four readings of a matrix noise: one equation on paper, four laws at rest.

dX = −k X dt + a X dW₁ + b R X dW₂ + e (dW₃, dW₄) in the plane, R a quarter turn: X is pulled to 0,
stretched, turned and kicked. G is a matrix with two rows of four, a column for each Wiener
process; where in its step the noise reads X is part of the model. In Itô's equation a reading adds

stratonovich: ½ (a² − b²) X,   klimontovich: ½ (3a² − b²) X,   post_point: (a² − b²) X,   ito: 0.

At rest p ∝ (1 + a²r²/e²)^−ν, with a ν for each reading: ⟨r²⟩ = (e/a)²/(ν − 2) and P(r > s) =
(1 + a²s²/e²)^(1 − ν). Stratonovich has ν = k/a² + 1, as turns change no distance, Klimontovich
k/a², e^−U with D∇U = kx. This draws matrix_noise_readings.png and prints, in 7 s of one core:

    ito          : ⟨r²⟩ = 0.2787 ± 0.0036, exact 0.2857; P(r > ½) = 0.3616 ± 0.0048, exact 0.3664
    stratonovich : ⟨r²⟩ = 0.1952 ± 0.0023, exact 0.2000; P(r > ½) = 0.2590 ± 0.0044, exact 0.2621
    klimontovich : ⟨r²⟩ = 0.2440 ± 0.0031, exact 0.2500; P(r > ½) = 0.3224 ± 0.0047, exact 0.3277
    post_point   : ⟨r²⟩ = 0.1500 ± 0.0017, exact 0.1538; P(r > ½) = 0.1830 ± 0.0039, exact 0.1876
"""

import matplotlib.pyplot as plt
import torch

import sdegen as sg

TRAJECTORIES, STEPS = 10_000, 40
k, a, b, e = 1.5, 0.5, 1.0, 0.5


def G(x):
    u, v = x.unbind(1)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    rows = [a * u, -b * v, e * one, zero], [a * v, b * u, zero, e * one]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


added = {"ito": (3 - b**2 / a**2) / 2, "stratonovich": 1, "klimontovich": 0}
added |= {"post_point": (1 + b**2 / a**2) / 2}
r, share = torch.linspace(0, 2, 201), torch.logspace(-3, 0, 25)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (reading, more), color in zip(added.items(), ("k", "C0", "C1", "C2"), strict=True):
    sde = sg.ItoProcess(lambda x: -k * x, G, channels=4, interpretation=reading)
    x0, nu = torch.zeros(TRAJECTORIES, 2), k / a**2 + more
    distance = sg.simulate(sde, x0, [0, 4], solver=sg.DRI1(STEPS), rng=0).final.norm(dim=1)
    p = 2 * (nu - 1) * (a / e) ** 2 * r * (1 + (a * r / e) ** 2) ** -nu
    tail = (1 + (a * r / e) ** 2) ** (1 - nu)
    for name, value, exact in (
        (f"{reading:13s}: ⟨r²⟩", distance**2, (e / a) ** 2 / (nu - 2)),
        ("; P(r > ½)", (distance > 0.5).double(), float(tail[50])),
    ):
        error = value.std() / TRAJECTORIES**0.5
        print(f"{name} = {value.mean():.4f} ± {error:.4f}, exact {exact:.4f}", end="")
    print()
    left.hist(distance, 60, range=(0, 2), density=True, histtype="step", color=color)
    left.plot(r, p, color=color, lw=1, label=f"{reading}, ν = {nu:g}")
    right.plot(distance.quantile(1 - share), share, ".", color=color)
    right.plot(r, tail, lw=1, color=color)
left.set(xlabel="distance r from 0, in units of e/a", ylabel="density of r at rest")
left.legend(frameon=False, title="lines: exact; steps and dots: trajectories")
right.set(xlabel="distance r from 0, in units of e/a", ylabel="P(R > r)", yscale="log")
right.set_ylim(1e-3, 1)
figure.savefig("matrix_noise_readings.png")
