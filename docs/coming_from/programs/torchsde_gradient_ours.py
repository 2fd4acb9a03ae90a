import torch

import sdegen as sg

k = torch.tensor(1.0, requires_grad=True)
trap = sg.ItoProcess(lambda x: -k * x, 0.3)
x0 = torch.ones(500, 1)
solver = sg.Heun(substeps=100)
path = sg.simulate(trap, x0, [0.0, 1.0], solver=solver, rng=0, differentiable=True)
path.final.mean().backward()
answer = k.grad
