import torch
import torchsde


class Well(torch.nn.Module):
    noise_type = "diagonal"
    sde_type = "ito"

    def f(self, t, x):
        return x - x**3

    def g(self, t, x):
        return torch.full_like(x, 0.7)


x0 = torch.zeros(10_000, 1)
times = torch.linspace(0, 4, 5)
brownian = torchsde.BrownianInterval(0.0, 4.0, size=x0.shape, entropy=0)
with torch.no_grad():
    states = torchsde.sdeint(Well(), x0, times, bm=brownian, dt=0.02, method="euler")
answer = states[-1].var()
