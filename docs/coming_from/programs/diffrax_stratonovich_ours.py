import torch

import sdegen as sg

sde = sg.ItoProcess(lambda x: -0.5 * x, lambda x: 0.8 * x, interpretation="stratonovich")
x0 = torch.ones(10_000, 1)
path = sg.simulate(sde, x0, [0.0, 1.0], solver=sg.Milstein(substeps=100), rng=0)
answer = path.final.mean()
