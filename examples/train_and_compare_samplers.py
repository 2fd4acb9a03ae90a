"""Train a score on two moons, then sample it by five routes
=========================================================

Every route solves the same learned dynamics: the reverse SDE, or the probability flow, which has
the same marginals and no noise. Printed are evaluations of the network and the sliced Wasserstein
distance to data that training has not seen; the floor is that of as much fresh data.

It prints, in 48 s of one core::

    reverse SDE, Euler-Maruyama  nfe = 200, SW2 = 0.038
    reverse SDE, torchsde        nfe = 150, SW2 = 0.041
    probability flow, DDIM       nfe =  25, SW2 = 0.082
    probability flow, Heun       nfe =  50, SW2 = 0.059
    probability flow, dopri5     nfe =  80, SW2 = 0.058
    floor: fresh data            nfe =   0, SW2 = 0.036
    log-likelihood of unseen data: -1.03 ± 0.05 nats
"""

import sdegen as sg

STEPS = 5_000

data = sg.data.two_moons(10_000, rng=0)
unseen, fresh = sg.data.two_moons(4_096, rng=1), sg.data.two_moons(4_096, rng=2)
sde = sg.VP(sg.LinearBeta(0.1, 20.0))
model = sg.ScoreModel(sg.MLP(dim=2, rng=0), sde, sg.EpsPrediction())
sg.train(model, data, sg.TrainConfig(steps=STEPS), rng=0)

x_T = sde.prior((4_096, 2), rng=1)
reverse = sg.ReverseSDE(sde, model.score)
flow = sg.ReverseSDE(sde, model.score, eta=0.0)
runs = {
    "reverse SDE, Euler-Maruyama": (reverse, sg.EulerMaruyama(), 200),
    "reverse SDE, torchsde": (reverse, sg.TorchSDE("srk"), 50),
    "probability flow, DDIM": (flow, sg.DDIM(), 25),
    "probability flow, Heun": (flow, sg.Heun(), 25),
    "probability flow, dopri5": (flow, sg.TorchDiffEq("dopri5", rtol=1e-4, atol=1e-4), 1),
}
samples = {}
for name, (dynamics, solver, steps) in runs.items():
    times = sde.time_grid(steps)
    out = sg.simulate(dynamics, x_T, times, solver=solver, rng=2, keep_path=False)
    distance = sg.metrics.sliced_wasserstein(out.final, unseen)
    print(f"{name:28s} nfe = {out.nfe:3d}, SW2 = {distance:.3f}")
    samples[f"{name}: {out.nfe} evaluations, SW2 {distance:.3f}"] = out.final
floor = sg.metrics.sliced_wasserstein(fresh, unseen)
print(f"{'floor: fresh data':28s} nfe =   0, SW2 = {floor:.3f}")
samples[f"fresh data: SW2 {floor:.3f}"] = fresh
log_prob = sg.log_likelihood(sde, model.score, unseen[:256]).log_prob
error = log_prob.std() / 256**0.5
print(f"log-likelihood of unseen data: {log_prob.mean():.2f} ± {error:.2f} nats")
sg.plots.samples_2d(samples, unseen).savefig("train_and_compare_samplers.png")
