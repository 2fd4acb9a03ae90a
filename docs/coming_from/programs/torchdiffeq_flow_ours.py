import torch

import sdegen as sg


def van_der_pol(x, t):
    return torch.stack([x[:, 1], (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1)


x0 = torch.tensor([[1.0, 0.0], [0.1, 0.1]], dtype=torch.float64)
solver = sg.TorchDiffEq("dopri5", rtol=1e-9, atol=1e-9)
path = sg.simulate(sg.ItoProcess(van_der_pol, 0.0), x0, torch.linspace(0, 10, 11), solver=solver)
answer = path.final[0, 0]
