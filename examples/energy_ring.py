"""An energy that is learned by the Langevin update that samples it
================================================================

Data are particles in U = (r - 1)²/2s² at T = 1. A network of one number, beside a Gaussian base,
learns their energy by persistent contrastive divergence, whose negative phase is Langevin dynamics
in the energy as it is by then. It prints, in 105 s of one core::

    total variation to the truth: 0.0280, after 2000 steps, 0 chains lost
    mean |x| by Langevin: 1.0235 ± 0.0011, exact 1.0248 in what is learned
"""

import math

import torch

import sdegen as sg
from sdegen.plots import style

STEPS, SAMPLES, WIDTH = 2000, 20_000, 64
grid = sg.Grid(-3.0, 3.0, 150)
nodes, area = torch.cartesian_prod(grid.nodes, grid.nodes), 0.04**2
draws = torch.Generator().manual_seed(0)


def ring(x):
    return (x.norm(dim=1) - 1).square() / (2 * 0.15**2)


def density(energy):
    return torch.softmax(-energy(nodes).detach(), 0) / area


def walk(energy, rng):  # long enough to forget the circle that it begins at
    angle = 2 * math.pi * torch.rand(SAMPLES, generator=draws)
    x0, solver = torch.stack([angle.cos(), angle.sin()], 1), sg.Metropolis(substeps=200)
    return sg.simulate(sg.Langevin(energy), x0, [0.0, 3.0], solver=solver, rng=rng).final


model = sg.EnergyModel(sg.variational.Perceptron(2, 1, width=WIDTH, rng=0), base_std=1.0)
loss = sg.ContrastiveDivergence(steps=10, chains=2048, step_size=0.02, metropolis=True)
config = sg.FitConfig(steps=STEPS, warmup=50, ema_decay=0.995)
data = walk(ring, rng=0)
lost = sg.fit(model, data, loss, config, rng=0).logs["lost chains"].sum() * config.batch_size
truth, p = density(ring), density(model.energy)
tv = 0.5 * area * float((p - truth).abs().sum())
print(f"total variation to the truth: {tv:.4f}, after {STEPS} steps, {lost:.0f} chains lost")
x, exact = walk(model, rng=1), float(area * (p * nodes.norm(dim=1)).sum())
r, error = x.norm(dim=1), float(x.norm(dim=1).std()) / SAMPLES**0.5
print(f"mean |x| by Langevin: {r.mean():.4f} ± {error:.4f}, exact {exact:.4f} in what is learned")

(figure, axes), line = style.panels("TLW", 12.0, 3.9), grid.nodes.numpy()
for key, one, name in (("T", truth, "truth"), ("L", p, f"learned: total variation {tv:.4f}")):
    image = axes[key].pcolormesh(line, line, one.reshape(151, 151).T.numpy(), cmap=style.DENSITY)
    style.title(axes[key], name)
axes["W"].plot(*x[:4000].T.numpy(), ".", markersize=1)
style.title(axes["W"], f"by Langevin\nmean |x| {r.mean():.4f} ± {error:.4f}, exact {exact:.4f}")
for panel in axes.values():
    panel.set(xlabel="x₁", ylabel="x₂", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal")
figure.colorbar(image, ax=axes["L"], label="density p(x)", pad=0.01, aspect=20)
figure.savefig("energy_ring.png")
