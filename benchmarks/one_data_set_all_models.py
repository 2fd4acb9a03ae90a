"""One data set, all models: what each costs, what it knows of log p, how near its samples are.

python -m benchmarks.one_data_set_all_models

Two moons, a mixture of 24 Gaussians in the plane whose density is known, and digits of 8 x 8
pixels, grey or of black and white. log p is of points that no model has seen, in nats, in the
units of the data: exact, a bound from below, an estimate without bias, or none. Grey digits are
standardised pixel by pixel for all models alike, with new noise in their bins in every step. Last,
the update with one of its parts taken out (`update_parts.py`).
"""

import argparse
import itertools
import math
import time

import torch

import sdegen as sg
from benchmarks import update_parts
from benchmarks.held_out import moons
from benchmarks.record import write
from sdegen.energy import GibbsDivergence

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
STRAIGHT = sg.RectifiedFlow()
EXACT, BOUND, UNBIASED, NONE = "exact", "bound", "unbiased estimate", "none"
NO_DENSITY = "no likelihood"


class Problem:
    """Data that every model is trained on and judged by.

    Args:
        name: What it is called in the tables.
        train: Examples, shape (n, d).
        unseen: Those that judge.
        share: The share of the steps of a training that is taken; 1 but in a rehearsal.
        validation: Examples that choose the weights to keep, or None.
        augment: What makes new examples of those in a step, or None.
        spread: What a standardised number is multiplied by, shape (d,).
        width: Units of a hidden layer of all networks.
    """

    def __init__(
        self, name, train, unseen, share, validation=None, augment=None, spread=1.0, width=64
    ):
        self.name, self.train, self.unseen, self.share = name, train, unseen, share
        self.validation, self.augment, self.width = validation, augment, width
        self.spread = torch.as_tensor(spread).expand(train.shape[1])
        self.volume = float(self.spread.double().log().sum())
        self.dim, self.seconds = train.shape[1], 0.0

    def fit(self, module, loss, steps, rate=2e-3, batch=256, train=sg.fit, **options):
        """Train, and remember the CPU seconds."""
        start, steps = time.process_time(), max(4, int(steps * self.share))
        config = (sg.TrainConfig if train is sg.train else sg.FitConfig)(
            steps, batch_size=batch, learning_rate=rate, warmup=min(50, steps // 2),
            ema_decay=0.995 if steps > 500 else 0.95,
            keep="last" if self.validation is None else "best",
        )  # fmt: skip
        others = {"validation": self.validation, "augment": self.augment}
        train(module, self.train, config=config, loss=loss, rng=0, **others, **options)
        self.seconds = time.process_time() - start
        return module

    def network(self, inputs, outputs, seed):
        return sg.variational.Perceptron(inputs, outputs, width=self.width, rng=seed)

    def row(self, model, samples, evaluations, log_prob=None, error=0.0, kind=NONE, cannot=""):
        """One row of the table."""
        few = slice(0, 2000)
        real, made = self.unseen[few] * self.spread, samples[few].float() * self.spread
        fresh = self.train[few] * self.spread
        log_prob = None if log_prob is None else log_prob.double() - self.volume
        line = {
            "data": self.name,
            "model": model,
            "CPU seconds of training": self.seconds,
            "evaluations for a sample": evaluations,
            "log p of unseen data, nats": None if log_prob is None else float(log_prob.mean()),
            "median, where far from it": _far_median(log_prob),
            "± over noise": error or None,
            "it is": kind,
            "sliced W2": sg.metrics.sliced_wasserstein(made, real),
            "of training data": sg.metrics.sliced_wasserstein(fresh, real),
            "energy distance": sg.metrics.energy_distance(made, real),
            "of the training data": sg.metrics.energy_distance(fresh, real),
            "cannot": cannot,
        }
        print({key: value for key, value in line.items() if value is not None}, flush=True)
        self.seconds = 0.0
        return line


def _far_median(log_prob):
    """The median of log p, where a few points take the mean more than 5 nats away from it."""
    if log_prob is None or abs(float(log_prob.median() - log_prob.mean())) < 5:
        return None
    return float(log_prob.median())


def of_bound(bound):
    """A bound of each point, the standard error of its mean over the noise, and that it is one."""
    scatter = bound.standard_error
    error = float(scatter.square().mean().sqrt()) / len(scatter) ** 0.5
    return bound.log_prob, error, BOUND


def gaussian(p):
    start = time.process_time()
    x = p.train.double()
    ridge = 0.0 if p.dim == 2 else 1e-3 * (p.spread.double() ** -2)  # as in examples/vae_digits.py
    law = sg.Gaussian(x.mean(0), x.T.cov() + torch.diag(torch.as_tensor(ridge).expand(p.dim)))
    p.seconds = time.process_time() - start
    log_p = law.log_prob(p.unseen)
    return p.row("Gaussian", law.sample(2000, rng=0), 1, log_p, kind=EXACT, cannot="any shape")


def vae(p, flows=False):
    k = 2 if p.dim == 2 else 8
    options = {}
    if flows:
        prior = sg.Flow("spline", k, transforms=4, width=32, rng=2)
        posterior = sg.Flow("real nvp", k, transforms=2, width=32, context=2 * k, rng=3)
        options = {"prior": prior, "flow": posterior}
    model = sg.VAE(
        p.network(p.dim, 2 * k, 0), p.network(k, p.dim, 1), k,
        std=torch.full((p.dim,), 0.5), **options,
    )  # fmt: skip
    p.fit(model, sg.VAELoss(), 1500 if p.dim > 2 and flows else 3000 if p.dim > 2 else 2000)
    bound = model.bound(p.unseen, samples=2, importance=64, rng=1)
    name = "VAE, flows as prior and in its posterior" if flows else "VAE"
    return p.row(name, model.sample(2000, rng=0), 1, *of_bound(bound), "exact log p")


def wae(p):
    k = 2 if p.dim == 2 else 8
    model = sg.Autoencoder(
        p.network(p.dim, k, 0), p.network(k, p.dim, 1), k, std=0.1 if p.dim == 2 else 0.5
    )
    p.fit(model, sg.MMDLoss(100.0 * p.dim), 1500)
    return p.row("autoencoder, MMD", model.sample(2000, rng=0), 1, cannot=NO_DENSITY)


def adversarial(p):
    """Models that learn from a critic, or by codes, and know no density; in the plane."""
    auto = sg.Autoencoder(p.network(2, 2, 0), p.network(2, 2, 1), 2, std=0.1)
    model = sg.AdversarialAutoencoder(auto, p.network(2, 1, 2))
    p.fit(model, sg.AdversarialLoss(), 2000)
    made = model.sample(2000, rng=0)
    rows = [p.row("autoencoder, a critic of latents", made, 1, cannot=NO_DENSITY)]
    model = p.fit(sg.GAN(p.network(2, 2, 0), p.network(2, 1, 1), 2), sg.GANLoss(), 3000)
    rows.append(p.row("GAN", model.sample(2000, rng=0), 1, cannot=NO_DENSITY))
    model = sg.VQVAE(p.network(2, 2, 0), p.network(2, 2, 1), 64, 2, std=0.1, rng=0)
    model.spread(p.train[:2000])
    p.fit(model, sg.VQLoss(), 2000)
    shares = torch.bincount(model.indices(p.train), minlength=64).double()
    drawn = torch.multinomial(shares, 2000, True, generator=torch.Generator().manual_seed(0))
    cannot = "no likelihood, nor more than 64 different samples"
    return [*rows, p.row("VQ-VAE, 64 codes", model.decode(drawn), 1, cannot=cannot)]


def hierarchy(p):
    sizes = (2, 2, 2) if p.dim == 2 else (64, 16, 8)
    pairs = list(itertools.pairwise(sizes))
    up = [p.network(a, 2 * b, i) for i, (a, b) in enumerate(pairs)]
    down = [p.network(b, 2 * a, 5 + i) for i, (a, b) in enumerate(pairs)]
    model = sg.HierarchicalVAE(up, down, sizes)
    p.fit(model, sg.HierarchicalLoss("consistency"), 3000 if p.dim > 2 else 2000)
    bound = sg.hierarchical_bound(model, p.unseen, form="consistency", samples=16, rng=1)
    return p.row(
        "hierarchical VAE, 2 levels", model.sample(2000, rng=0), 2, *of_bound(bound), "exact log p"
    )


def likelihood(p, model):
    """Log-likelihoods by the flow, the error of their mean, and what they are."""
    if p.dim == 2:
        found = sg.log_likelihood(model.sde, model.score, p.unseen[:1000])
        return found.log_prob, 0.0, EXACT
    solver = sg.TorchDiffEq(rtol=1e-4, atol=1e-4)
    asked = {"divergence": sg.Hutchinson(4), "solver": solver, "rng": 0}
    log_p, error, _ = of_bound(sg.log_likelihood(model.sde, model.score, p.unseen, **asked))
    return log_p, error, UNBIASED


def drawn(p, model, eta, steps=100):
    """Samples of a model, and the evaluations of each."""
    dynamics = sg.ReverseSDE(model.sde, model.score, eta=eta)
    solver = sg.TorchDiffEq(rtol=1e-4, atol=1e-4) if eta == 0 else sg.EulerMaruyama()
    times = model.sde.time_grid(1 if eta == 0 else steps)
    x_T = model.sde.prior((2000, p.dim), rng=1)
    path = sg.simulate(dynamics, x_T, times, solver=solver, rng=0, keep_path=False)
    return path.final, path.nfe


def width(p):
    return 64 if p.dim == 2 else 256


def diffusion(p):
    model = sg.ScoreModel(sg.MLP(p.dim, width=width(p), rng=0), VP)
    p.fit(model, "likelihood", 3000 if p.dim == 2 else 4000, train=sg.train)
    bound = sg.continuous_elbo(VP, model.score, p.unseen, strata=32, samples=2, rng=0)
    first = p.row(
        "diffusion, bound of its SDE", *drawn(p, model, 1.0), *of_bound(bound),
        "a sample in one evaluation",
    )  # fmt: skip
    second = p.row(
        "the same, by its flow", *drawn(p, model, 0.0), *likelihood(p, model),
        "a sample in one evaluation",
    )  # fmt: skip
    return [first, second | {"CPU seconds of training": first["CPU seconds of training"]}]


def spline(p):
    options = {"transforms": 6, "width": p.width} if p.dim == 2 else {"transforms": 4, "width": 64}
    flow = sg.Flow("spline", p.dim, rng=0, **options)
    p.fit(flow, sg.FlowLikelihood(), 1000 if p.dim == 2 else 600)
    with torch.no_grad():
        log_p = flow.log_prob(p.unseen)
    made = flow.sample(2000, rng=0)
    return p.row("flow, spline", made, 1, log_p, kind=EXACT, cannot="change topology")


def matched(p):
    model = sg.ScoreModel(sg.MLP(p.dim, width=width(p), rng=0), STRAIGHT, sg.FlowPrediction())
    p.fit(model, "flow-matching", 3000, train=sg.train)
    return p.row(
        "continuous flow, matched", *drawn(p, model, 0.0), *likelihood(p, model),
        "a sample in one evaluation",
    )  # fmt: skip


def by_likelihood(p):
    model = sg.ScoreModel(sg.MLP(2, width=32, depth=2, rng=0), STRAIGHT, sg.FlowPrediction())
    p.fit(model, sg.ContinuousFlowLikelihood(), 250, rate=1e-2)
    return p.row(
        "continuous flow, by likelihood", *drawn(p, model, 0.0), *likelihood(p, model),
        "training without a solve",
    )  # fmt: skip


def energy(p):
    model = sg.EnergyModel(p.network(2, 1, 0), base_std=1.0)
    loss = sg.ContrastiveDivergence(steps=10, chains=1024, step_size=0.01, metropolis=True)
    p.fit(model, loss, 1500, rate=3e-3)
    grid = sg.Grid(-5.0, 5.0, 250)
    with torch.no_grad():
        log_p = model.normalized((grid, grid)).log_prob(p.unseen)
    x0 = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    solver = sg.Metropolis(substeps=400)
    x = sg.simulate(sg.Langevin(model), x0, [0.0, 4.0], solver=solver, rng=1).final
    return p.row("energy", x.detach(), 400, log_p, kind=EXACT, cannot="log Z beyond the plane")


def on_moons(share):
    law = moons()
    unseen = law.sample(4000, rng=2)
    p = Problem("moons", law.sample(20_000, rng=1), unseen, share)
    log_p = law.log_prob(unseen)
    truth = p.row("the law itself", law.sample(2000, rng=3), 1, log_p, kind=EXACT)
    rows = [truth, gaussian(p), vae(p), vae(p, flows=True), wae(p), *adversarial(p)]
    rows += [hierarchy(p), *diffusion(p), spline(p), matched(p), by_likelihood(p), energy(p)]
    return rows


def on_digits(share):
    digits = sg.data.digits(rng=0)
    train, others, unseen = (x.flatten(1) for x in (digits.train, digits.validation, digits.test))
    mean, spread = train.mean(0), train.std(0).clamp_min(0.03)

    def fresh(rows, source):
        return (sg.data.redequantise(rows * spread + mean, source) - mean) / spread

    parts = [(x - mean) / spread for x in (train, others, unseen)]
    p = Problem("digits", parts[0], parts[2], share, parts[1], fresh, spread)
    rows = [gaussian(p), vae(p), vae(p, flows=True), wae(p), hierarchy(p), *diffusion(p)]
    return [*rows, spline(p), matched(p)]


def on_binary_digits(share):
    digits = sg.data.digits(rng=0)
    train, others, unseen = (
        (x > 0).float().flatten(1) for x in (digits.train, digits.validation, digits.test)
    )
    p = Problem("binary digits", torch.cat([train, others]), unseen, share)
    chance = (p.train.sum(0) + 0.5) / (len(p.train) + 1)
    alone = torch.distributions.Bernoulli(chance).log_prob(unseen).sum(1)
    generator = torch.Generator().manual_seed(0)
    coins = (torch.rand(2000, 64, generator=generator) < chance).float()
    rows = [p.row("Bernoulli pixels", coins, 1, alone, kind=EXACT, cannot="pairs of pixels")]
    hidden = 20 if share == 1 else 8
    machine = p.fit(sg.RBM(64, hidden, rng=0), GibbsDivergence(chains=500), 2000, 0.02, 128)
    with torch.no_grad():
        log_p = machine.log_likelihood(unseen)
    made = machine.sample(2000, 1000, rng=0)
    cannot = "log Z beyond 20 units of a layer, but estimated"
    rows.append(p.row("RBM, 20 hidden units", made, 1000, log_p, kind=EXACT, cannot=cannot))
    p.validation, p.train = others, train
    model = sg.VAE(p.network(64, 16, 0), p.network(8, 64, 1), 8, likelihood="bernoulli")
    p.fit(model, sg.VAELoss(), 2000)
    bound = model.bound(unseen, samples=2, importance=64, rng=1)
    rows.append(p.row("VAE", model.sample(2000, rng=0), 1, *of_bound(bound), "exact log p"))
    return rows


def main(quick=False):
    torch.set_num_threads(1)
    share = 0.002 if quick else 1
    makers = {"digits": on_digits, "binary digits": on_binary_digits, "moons": on_moons}
    tables = {}
    for title, make in makers.items():
        tables[title] = make(share)
        write("one_data_set_all_models", tables, quick)
    tables["the update with a part taken out, moons"] = update_parts.rows(quick)
    write("one_data_set_all_models", tables, quick)
    assert math.isfinite(tables["moons"][0]["log p of unseen data, nats"])
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
