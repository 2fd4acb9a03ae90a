import torch

import sdegen as sg

well = sg.ItoProcess(lambda x: x - x**3, 0.7)
x0 = torch.zeros(10_000, 1)
times = torch.linspace(0, 4, 5)
path = sg.simulate(well, x0, times, solver=sg.EulerMaruyama(substeps=50), rng=0)
answer = path.final.var()
