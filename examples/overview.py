"""The picture of the README: one update, as physics and as a generative model.

Left, a double well: the Fokker-Planck density of dX = (X - X³) dt + 0.7 dW as colour, and sixteen
of its trajectories. Right, a diffusion model of a mixture with its exact score: the density of
the noising VP-SDE as colour, the reverse SDE as thin lines, the probability flow as thick ones.
What is printed is the weight of the right mode, which is 0.7. The picture is overview.png. This
prints, in 4 s of one CPU core:

    weight of the mode at +1: reverse SDE 0.695, probability flow 0.702
"""

import torch
from matplotlib.figure import Figure

import sdegen as sg

well = sg.ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7)
times = torch.linspace(0, 10, 201)
grid = sg.Grid(-2.5, 2.5, cells=400)
density = sg.FokkerPlanck(well, grid).solve(grid.gaussian(mean=-1.0, std=0.2), times)
x0 = -1 + 0.2 * torch.randn(16, 1, generator=torch.Generator().manual_seed(0))
path = sg.simulate(well, x0, times, solver=sg.EulerMaruyama(substeps=5), rng=0)

sde = sg.VP(sg.LinearBeta(0.1, 20.0))
oracle = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.15).noised(sde)
back = sde.time_grid(400)
x_T = sde.prior((20_000, 1), rng=1)
sample = sg.simulate(sg.ReverseSDE(sde, oracle.score), x_T, back, rng=2)
flow = sg.simulate(sg.ReverseSDE(sde, oracle.score, eta=0.0), x_T, back, solver=sg.Heun())
weights = [float((run.final > 0).double().mean()) for run in (sample, flow)]
print("weight of the mode at +1: reverse SDE {:.3f}, probability flow {:.3f}".format(*weights))
y = torch.linspace(-3.2, 3.2, 401, dtype=torch.float64)
noised = torch.stack([oracle.log_prob(y[:, None], t).exp() for t in back])

figure = Figure(figsize=(11, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
left.pcolormesh(times, grid.nodes, density.p.T.sqrt(), cmap="Blues", rasterized=True)
left.plot(path.times, path.states[:, :, 0], color="k", lw=0.4, alpha=0.7)
left.set(xlabel="time t", ylabel="state x", title="dX = (X − X³) dt + 0.7 dW: density and paths")
right.pcolormesh(back, y, noised.T.sqrt(), cmap="Blues", vmax=1.1, rasterized=True)
right.plot(back, sample.states[:, :8, 0], color="k", lw=0.4, alpha=0.7)
right.plot(back, flow.states[:, 16:28, 0], color="tab:red", lw=1.2)
right.set(
    xlabel="time t, from noise to data", title="its relative: noise becomes data", xlim=(1, 0)
)
right.plot([], [], color="k", lw=0.8, label="reverse SDE")
right.plot([], [], color="tab:red", lw=1.2, label="probability flow")
right.legend(loc="lower left", framealpha=0.9)
figure.savefig("overview.png", dpi=130)
