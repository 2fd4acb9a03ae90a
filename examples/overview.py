"""One update, as physics and as a generative model: the picture of the README
===========================================================================

Left, a double well: the Fokker–Planck density of dX = (X − X³) dt + 0.7 dW as colour, some of its
trajectories, and all of them at the end. Right, a diffusion model of a mixture with its exact
score: the density of the noising VP-SDE as colour, the reverse SDE as thin lines, the probability
flow in red, and what both have made beside the data. The right mode has the weight 0.7. It prints,
in 8 s of one core::

    weight of the mode at +1: reverse SDE 0.695, probability flow 0.702
"""

import torch
from matplotlib.colors import PowerNorm

import sdegen as sg
from sdegen.plots import style

RED = style.CYCLE[1]
well = sg.ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7)
times = torch.linspace(0, 10, 201)
grid = sg.Grid(-2.5, 2.5, cells=400)
density = sg.FokkerPlanck(well, grid).solve(grid.gaussian(mean=-1.0, std=0.2), times)
x0 = sg.GaussianMixture([1.0], [-1.0], stds=0.2).sample(5_000, rng=0)
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

well_end, data = (grid.nodes, density.p[-1]), (y, noised[-1])
figure, axes = style.panels([["W"] * 4 + ["w"] + ["G"] * 4 + ["g"]], 12.0, 3.7, gap=0.0)
for key, t, x, p in (("W", times, grid.nodes, density.p), ("G", back, y, noised)):
    t, x, p = map(style.numbers, (t, x, p))
    style.shaded(axes[key], t, x, p, PowerNorm(0.5, vmin=0, vmax=1.1))
    axes[key].set(xlabel="time t", ylabel="state x", xlim=(t[0], t[-1]), ylim=(x[0], x[-1]))
axes["W"].plot(times, path.states[:, :14, 0], color=style.INK, lw=0.5, alpha=0.6)
crossed = path.states[:, (path.final[:, 0] > 0.9).nonzero()[0, 0], 0]
axes["W"].plot(times, crossed, color=RED, lw=1.3)
axes["G"].plot(back, sample.states[:, :10, 0], color=style.INK, lw=0.5, alpha=0.6)
axes["G"].plot(back, flow.states[:, 16:30, 0], color=RED, lw=1.1)
style.title(axes["W"], "physics: dX = (X − X³) dt + 0.7 dW, density and trajectories")
style.title(axes["G"], "generation: noise becomes data; reverse SDE, flow (red)")
for key, x, p, made in (("w", *well_end, path), ("g", *data, sample), ("g", *data, flow)):
    x, p = style.numbers(x), style.numbers(p)
    bars = {"range": (x[0], x[-1]), "density": True, "orientation": "horizontal"}
    color = RED if made is flow else style.INK
    axes[key].hist(made.final[:, 0], 80, **bars, histtype="step", lw=0.8, color=color)
    axes[key].fill_betweenx(x, p, color=style.BLUE, alpha=0.2, lw=0)
    axes[key].set(ylim=(x[0], x[-1]), xticks=[], yticks=[])
    style.title(axes[key], "t = 10" if made is path else "t = 0")
figure.savefig("overview.png", dpi=130)
