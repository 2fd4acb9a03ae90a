"""One law in the plane by three routes, each with its bound beside the exact log p
================================================================================

A mixture of three Gaussians is learned by a variational autoencoder, by one of two levels, and by
a diffusion model. Their bounds are of one quantity, log p of points that none has seen, so that
what they lack is comparable. It prints, in 49 s of one core::

    exact log p -1.136 nats, SW2 of fresh data 0.062
    autoencoder  log p ≥ -1.561, 0.424 below, SW2 0.123, 15 s
    hierarchy    log p ≥ -1.286, 0.149 below, SW2 0.072, 17 s
    diffusion    log p ≥ -1.157, 0.021 below, SW2 0.043, 12 s
"""

from time import process_time

import sdegen as sg

STEPS = 2500
POINTS = 2000
law = sg.GaussianMixture([0.4, 0.4, 0.2], [[-1.0, -0.6], [1.0, -0.6], [0.0, 1.1]], stds=0.25)
x, unseen, fresh = (law.sample(n, rng=n) for n in (20_000, POINTS, POINTS + 1))
config = sg.FitConfig(STEPS, batch_size=256, learning_rate=4e-3, warmup=50, ema_decay=0.995)
network = sg.variational.Perceptron
clouds, start = {}, process_time()


def report(name, bound, samples, seconds):
    mean = float(bound.log_prob.mean())
    off = sg.metrics.sliced_wasserstein(samples.float(), unseen)
    below = f"log p ≥ {mean:.3f}, {exact - mean:.3f} below"
    print(f"{name:11}  {below}, SW2 {off:.3f}, {seconds:.0f} s")
    clouds[f"{name}: log p ≥ {mean:.3f} SW2 {off:.3f}"] = samples


exact = float(law.log_prob(unseen).mean())
floor = sg.metrics.sliced_wasserstein(fresh, unseen)
print(f"exact log p {exact:.3f} nats, SW2 of fresh data {floor:.3f}")
vae = sg.VAE(network(2, 4, 64, rng=0), network(2, 2, 64, rng=1), 2, std=0.5)
sg.fit(vae, x, sg.VAELoss(), config, rng=0)
report("autoencoder", vae.bound(unseen, rng=1), vae.sample(POINTS, rng=2), process_time() - start)

start = process_time()
up, down = ([network(2, 4, 64, rng=seed + i) for i in range(2)] for seed in (0, 2))
model = sg.HierarchicalVAE(up, down, (2, 2, 2))
sg.fit(model, x, sg.HierarchicalLoss("consistency"), config, rng=0)
bound = sg.hierarchical_bound(model, unseen, form="consistency", rng=1)
report("hierarchy", bound, model.sample(POINTS, rng=2), process_time() - start)

start, sde = process_time(), sg.VP(sg.LinearBeta(0.1, 20.0))
model = sg.ScoreModel(sg.MLP(2, width=64, rng=0), sde)
sg.train(model, x, sg.TrainConfig(STEPS, batch_size=256, warmup=50, ema_decay=0.995), rng=0)
back, x_T = sg.ReverseSDE(sde, model.score), sde.prior((POINTS, 2), rng=2)
path = sg.simulate(back, x_T, sde.time_grid(200), rng=3, keep_path=False)
bound = sg.continuous_elbo(sde, model.score, unseen, rng=1)
report("diffusion", bound, path.final, process_time() - start)
figure = sg.plots.samples_2d(clouds, unseen)
sg.plots.style.title(figure.axes[0], f"unseen data: log p = {exact:.3f}\nSW2 {floor:.3f}")
figure.savefig("three_routes.png")
