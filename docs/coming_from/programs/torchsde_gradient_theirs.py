import torch
import torchsde


class Trap(torch.nn.Module):
    noise_type = "additive"
    sde_type = "stratonovich"

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(1.0))

    def f(self, t, x):
        return -self.k * x

    def g(self, t, x):
        return torch.full((len(x), 1, 1), 0.3)


trap = Trap()
x0 = torch.ones(500, 1)
brownian = torchsde.BrownianInterval(0.0, 1.0, size=x0.shape, entropy=0)
states = torchsde.sdeint_adjoint(trap, x0, torch.tensor([0.0, 1.0]), bm=brownian, dt=0.01)
states[-1].mean().backward()
answer = trap.k.grad
