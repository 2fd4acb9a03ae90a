"""Plug in your own drift: a function of (x, t), or of x; the noise a number, or a function too.

First a driven, damped particle, dX = (-X + sin 3t) dt + 0.5 dW: its mean does not feel the noise.
Then noise that grows with the state, dX = -0.5 X dt + 0.8 X dW, which is no equation yet: taking
"X dW" before the step (Itô), in its middle (Stratonovich) or after it (Klimontovich) gives three
processes, with means e^(-0.5 t + 0.64 α t), α = 0, ½, 1. This prints,
with standard errors, in 3 s of one CPU core:

    driven, t = 1: mean 0.4219 ± 0.0010, exact 0.4215
    driven, t = 2: mean -0.2735 ± 0.0011, exact -0.2754
    ito         : mean 0.6041 ± 0.0018, exact 0.6065
    stratonovich: mean 0.8329 ± 0.0025, exact 0.8353
    klimontovich: mean 1.1471 ± 0.0034, exact 1.1503
"""

import math

import torch

import sdegen as sg

TRAJECTORIES = 100_000


def driven(x, t):
    return -x + torch.sin(3 * t)


sde = sg.ItoProcess(driven, diffusion=0.5)
x0 = torch.zeros(TRAJECTORIES, 1)
path = sg.simulate(sde, x0, [0.0, 1.0, 2.0], solver=sg.Heun(substeps=100), rng=0)
for t, x in zip(path.times[1:], path.states[1:], strict=True):
    exact = (math.sin(3 * t) - 3 * math.cos(3 * t) + 3 * math.exp(-t)) / 10
    error = x.std() / TRAJECTORIES**0.5
    print(f"driven, t = {t:.0f}: mean {x.mean():.4f} ± {error:.4f}, exact {exact:.4f}")

for reading, alpha in (("ito", 0.0), ("stratonovich", 0.5), ("klimontovich", 1.0)):
    sde = sg.ItoProcess(lambda x: -0.5 * x, lambda x: 0.8 * x, interpretation=reading)
    solver = sg.TorchSDE("milstein", substeps=100)
    x = sg.simulate(sde, torch.ones(TRAJECTORIES, 1), [0.0, 1.0], solver=solver, rng=1).final
    exact, error = math.exp(-0.5 + 0.64 * alpha), x.std() / TRAJECTORIES**0.5
    print(f"{reading:12s}: mean {x.mean():.4f} ± {error:.4f}, exact {exact:.4f}")
