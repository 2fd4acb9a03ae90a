import torch
import torchsde

G = torch.tensor([[0.6, 0.0, 0.2], [0.5, 0.3, 0.0]])


class Trap(torch.nn.Module):
    noise_type = "general"
    sde_type = "ito"

    def f(self, t, x):
        return -x

    def g(self, t, x):
        return G.expand(len(x), 2, 3)


x0 = torch.zeros(10_000, 2)
brownian = torchsde.BrownianInterval(0.0, 4.0, size=(len(x0), 3), entropy=0)
times = torch.tensor([0.0, 4.0])
with torch.no_grad():
    states = torchsde.sdeint(Trap(), x0, times, bm=brownian, dt=0.02, method="euler")
answer = torch.cov(states[-1].T)[0, 1]
