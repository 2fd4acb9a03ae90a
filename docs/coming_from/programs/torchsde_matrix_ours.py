import torch

import sdegen as sg

G = torch.tensor([[0.6, 0.0, 0.2], [0.5, 0.3, 0.0]])
trap = sg.ItoProcess(lambda x: -x, G, channels=3)
x0 = torch.zeros(10_000, 2)
path = sg.simulate(trap, x0, [0.0, 4.0], solver=sg.EulerMaruyama(substeps=200), rng=0)
answer = torch.cov(path.final.T)[0, 1]
