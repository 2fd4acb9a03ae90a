import torch
from torchdiffeq import odeint


def van_der_pol(t, x):
    return torch.stack([x[:, 1], (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1)


x0 = torch.tensor([[1.0, 0.0], [0.1, 0.1]], dtype=torch.float64)
times = torch.linspace(0, 10, 11, dtype=torch.float64)
states = odeint(van_der_pol, x0, times, method="dopri5", rtol=1e-9, atol=1e-9)
answer = states[-1, 0, 0]
