import torch

import sdegen as sg

kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
sde = sg.VP(sg.TabulatedBeta(kept))  # `from_diffusers(network, scheduler)` has it as model.sde
score = sg.GaussianMixture([1.0], [0.5], stds=0.3).noised(sde).score
flow = sg.ReverseSDE(sde, score, eta=0.0)
x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
solver = sg.FinalDenoising(sg.DDIM())  # the scheduler's last step leads to ᾱ = 1
answer = sg.simulate(flow, x, torch.arange(981, 0, -20) / 1000, solver=solver).final[0, 0]
