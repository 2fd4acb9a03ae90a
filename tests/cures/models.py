"""Advice on scores, networks and training, followed."""

import os
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import torch

import sdegen as sg
from tests.cures.common import F64, GAUSS, TWO, VP, column, near, simulate, told

POINTS = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 3
FEW = sg.TrainConfig(steps=4, batch_size=8, warmup=1)
DOWN = VP.time_grid(3)
EXPERTS = [
    sg.GaussianMixture([1.0], [m], stds=s).noised(VP) for m, s in ((-1.0, 0.5**0.5), (1.0, 1.0))
]
MEASURED = sg.LinearMeasurement(torch.ones(1, 1), torch.ones(1), 0.5)
ROWS = sg.LinearMeasurement(
    torch.ones(1, 1, dtype=F64), torch.tensor([[0.5], [1.0], [-1.0]], dtype=F64), 0.5
)
PRIOR = sg.GaussianMixture([1.0], [[0.0]], stds=0.5)


def network(classes=0, **sizes):
    return sg.MLP(**({"dim": 1, "width": 4, "depth": 1, "rng": 0} | sizes), classes=classes)


def a_model(classes=0, path=VP, **sizes):
    return sg.ScoreModel(network(classes, **sizes), path)


def trained(model=None, data=POINTS, config=FEW, **options):
    """A training of four steps, of which every loss is a number."""
    model = a_model() if model is None else model
    found = sg.train(model, data, config, rng=0, **options)
    assert bool(found.losses.isfinite().all())
    return found


def in_a_folder(program):
    with tempfile.TemporaryDirectory() as folder:
        return program(Path(folder))


def damaged(folder, *, good):
    """A folder of a training whose newest checkpoint is damaged, with a good one or without."""
    config = sg.TrainConfig(steps=4, batch_size=8, warmup=1, checkpoint_every=2)
    found = trained(config=config, folder=folder)
    older, newest = sorted(folder.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-8])
    if not good:
        older.unlink()
    return lambda: trained(config=config, folder=folder, resume=True), newest, found


def gone_on(folder, *, good):
    """Without the damaged file the run goes on, or anew, and ends with the same losses."""
    resume, newest, before = damaged(folder, good=good)
    newest.unlink()
    near(resume().losses, before.losses)


def other_data(folder):
    trained(folder=folder / "run")
    trained(folder=folder / "run", resume=True)
    trained(data=2 * POINTS, folder=folder / "other")


def other_settings(folder):
    trained(folder=folder / "run")
    near(trained(folder=folder / "run", resume=True).losses, trained().losses)
    trained(config=sg.TrainConfig(steps=4, batch_size=4, warmup=1), folder=folder / "other")


def resumed(folder):
    before = trained(folder=folder / "run")
    near(trained(folder=folder / "run", resume=True).losses, before.losses)
    trained(folder=folder / "other")


def saved(model, folder):
    model.save(folder / "model.safetensors")
    return sg.ScoreModel.load(folder / "model.safetensors")


def told_again(folder):
    """What is told again says what it said."""
    model = a_model(classes=3)
    again = saved(model, folder).conditional(2)
    with torch.no_grad():
        near(again.score(column(0.5), 0.5), model.conditional(2).score(column(0.5), 0.5))


class OwnPath(sg.VP):
    """A path that the library cannot rebuild from a file."""


class Wrapped(torch.nn.Module):
    """A layer that knows nothing of the time, as a network."""

    def __init__(self, layer, classes=0):
        super().__init__()
        self.layer, self.classes = layer, classes

    def forward(self, x, t):
        return self.layer(x)


class Labelled(Wrapped):
    """The same, called with labels too."""

    def forward(self, x, t, labels=None):
        return self.layer(x)


def loaded(folder):
    model = a_model(path=OwnPath(sg.LinearBeta(0.1, 20.0)))
    model.save(folder / "model.safetensors")
    again = sg.ScoreModel.load(folder / "model.safetensors", sde=model.sde)
    with torch.no_grad():
        near(again.score(column(0.5), 0.5), model.score(column(0.5), 0.5))


def product_of_experts():
    """Langevin steps end nearest to the product, N(−1/3, 1/3); η = 1 errs less than the flow."""
    product = sg.composition.product([law.score for law in EXPERTS])
    x_T = sg.composition.prior_factor([1.0, 1.0]) * VP.prior((2000, 1), rng=0, dtype=F64)

    def off(eta, solver):
        dynamics, times = sg.ReverseSDE(VP, product, eta), sg.timesteps.power(VP, 30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sg.AccuracyWarning)  # of the flow without steps
            path = sg.simulate(dynamics, x_T, times, solver=solver, rng=1, keep_path=False)
        return abs(float(path.final.std()) - 3**-0.5)

    langevin = off(0.0, sg.PredictorCorrector(corrector_steps=3))
    noisy, flow = off(1.0, sg.EulerMaruyama()), off(0.0, sg.DDIM())
    assert langevin < 0.02 < 0.04 < noisy < 0.5 < flow, (langevin, noisy, flow)


def weights_with_a_gradient():
    """The gradient of a weighted sum of scores by its weights is the scores."""
    w = torch.tensor([1.0, 0.5], dtype=F64, requires_grad=True)
    score = lambda x, t: w[0] * EXPERTS[0].score(x, t) + w[1] * EXPERTS[1].score(x, t)  # noqa: E731
    x, t = column(0.5, 1), torch.tensor(0.5, dtype=F64)
    (slope,) = torch.autograd.grad(score(x, t).sum(), w)
    near(slope, [float(law.score(x, t).sum()) for law in EXPERTS])


def hidden(x, t):
    """A score that autograd sees nothing of."""
    return GAUSS.score(x.detach(), t)


def posterior_of(measurement, n, **options):
    """The posterior of Gaussian data by its score, which "tweedie" has exactly."""
    flow = sg.ReverseSDE(VP, measurement.posterior_score(VP, GAUSS.score), eta=0.0)
    x_T = VP.prior((n, 1), rng=0, dtype=F64)
    times = sg.timesteps.power(VP, 20)
    return sg.simulate(flow, x_T, times, solver=sg.AngularAdams(2), rng=0, **options).final


def rows_together():
    """Each row ends where the flow of its own posterior, N(y/2, 1/8), carries it."""
    ends = torch.tensor([VP.t_max, sg.timesteps.power(VP, 20)[-1]], dtype=F64)
    (start, end), x_T = VP.alpha(ends), VP.prior((3, 1), rng=0, dtype=F64)
    shrink = ((end**2 / 8 + 1 - end**2) / (start**2 / 8 + 1 - start**2)).sqrt()
    mean = 0.5 * ROWS.value
    expected = end * mean + shrink * (x_T - start * mean)
    near(posterior_of(ROWS, 3, interacting=True), expected, 2e-2)
    one = sg.LinearMeasurement(ROWS.operator, ROWS.value[0], 0.5)
    near(posterior_of(one, 3)[0], expected[0], 5e-2)


def labels_together(model):
    """One label for each trajectory, or one label for all."""
    labels, x_T = torch.arange(5) % 3, VP.prior((5, 1), rng=0, dtype=F64)
    each = sg.ReverseSDE(VP, model.conditional(labels).score, eta=0.0)
    together = sg.simulate(each, x_T, DOWN, solver=sg.DDIM(), rng=0).final
    for label in range(3):
        one = sg.ReverseSDE(VP, model.conditional(label).score, eta=0.0)
        alone = sg.simulate(one, x_T, DOWN, solver=sg.DDIM(), rng=0).final
        near(together[labels == label], alone[labels == label], 1e-5)


def other_number_of_rows(score):
    """A score of five rows, asked for seven."""
    flow = sg.ReverseSDE(VP, score, eta=0.0)
    sg.simulate(flow, VP.prior((7, 1), rng=0, dtype=F64), DOWN, solver=sg.DDIM(), rng=0)


def ranks(world):
    """A training in a process that torchrun has started."""
    with mock.patch.dict(os.environ, {"WORLD_SIZE": world, "RANK": "0"}):
        return trained()


def rescaled():
    """Data of any size, scaled as the warning says: the numbers are those of the text."""
    data = 50 + 100 * POINTS
    text = told(lambda: trained(data=data), only_text=True)
    shift, scale = text.split("(data - ")[1].split(", and")[0].split(")/")
    trained(data=(data - float(shift)) / float(scale))


def more_noise():
    """Data beside which the last noise is small: scaled, or on a path with more noise."""
    data = 4.5 * POINTS
    trained(a_model(path=sg.VE(sg.GeometricSigma(0.01, 50.0))), data)
    trained(data=(data - data.mean()) / data.std())


SHORT = sg.VP(sg.ConstantBeta(0.5))

FOLLOWED = {
    # --- networks and models
    "a chain in the place of its SDE": (
        "A chain has the score of the SDE that it discretises",
        lambda: sg.ScoreModel(network(), sg.DDPM.discretize(VP, 10)),
        lambda: near(sg.ScoreModel(network(), VP).sde.alpha(0.5), VP.alpha(0.5)),
    ),
    "a reverse SDE in the place of its forward one": (
        r"give the model that, sde\.forward",
        lambda: sg.ScoreModel(network(), sg.ReverseSDE(VP, GAUSS.score)),
        lambda: trained(a_model(path=sg.ReverseSDE(VP, GAUSS.score).forward)),
    ),
    "a network that takes no time": (
        r"wrap it in a module with forward\(x, t\)",
        lambda: sg.ScoreModel(torch.nn.Linear(1, 1), VP),
        lambda: trained(sg.ScoreModel(Wrapped(torch.nn.Linear(1, 1)), VP)),
    ),
    "a network of classes that takes no labels": (
        r"write forward\(x, t, labels\)",
        lambda: sg.ScoreModel(Wrapped(torch.nn.Linear(1, 1), classes=3), VP),
        lambda: trained(
            sg.ScoreModel(Labelled(torch.nn.Linear(1, 1), classes=3), VP), labels=LABELS
        ),
    ),
    "classes that are something else": (
        "call it otherwise where it means something else",
        lambda: sg.ScoreModel(Wrapped(torch.nn.Linear(1, 1), classes=["a", "b"]), VP),
        lambda: trained(sg.ScoreModel(Wrapped(torch.nn.Linear(1, 1)), VP)),
    ),
    "a parameterization that is a class": (
        r"parameterization must be an object, but is the class",
        lambda: sg.ScoreModel(network(), VP, sg.VPrediction),
        lambda: sg.ScoreModel(network(), VP, sg.VPrediction()),
    ),
    "a parameterization of version 0.1": (
        r"which is \{\} since version 0.2: call it",
        lambda: type("Mine", (sg.EpsPrediction,), {"clock": lambda self, t, alpha, sigma: t}),
        lambda: type("Mine", (sg.EpsPrediction,), {"c_noise": lambda self, t, alpha, sigma: t}),
    ),
    "a parameterization that is no word we know": (
        r"pass EpsPrediction\(\), say",
        lambda: sg.ScoreModel(network(), VP, "ddpm++"),
        lambda: sg.ScoreModel(network(), VP, sg.EpsPrediction()),
    ),
    "a score at the data": (
        "the score does not exist at t",
        lambda: a_model().score(column(0.5), 0.0),
        lambda: a_model().score(column(0.5), VP.t_min),
    ),
    "labels for a network without classes": (
        "knows no classes; make it with classes=…, such as",
        lambda: a_model().conditional(1),
        lambda: sg.ScoreModel(sg.MLP(1, classes=10), VP).conditional(1).score(column(0.5), 0.5),
    ),
    "labels in a call of a network without classes": (
        "this network knows no classes, but was given labels",
        lambda: network()(torch.zeros(2, 1), torch.ones(2), torch.zeros(2, dtype=torch.long)),
        lambda: network(3)(torch.zeros(2, 1), torch.ones(2), torch.zeros(2, dtype=torch.long)),
    ),
    "states of another size than the network's": (
        r"this MLP takes states of \{\} numbers",
        lambda: a_model().score(TWO, 0.5),
        lambda: a_model(dim=2).score(TWO, 0.5),
    ),
    "labels of other trajectories": (
        r"there are labels for \{\} trajectories",
        lambda: a_model(3).conditional(torch.arange(5) % 3).score(torch.zeros(7, 1), 0.5),
        lambda: labels_together(a_model(3)),
    ),
    "labels in a file": (
        "this model was told labels with conditional",
        lambda: in_a_folder(lambda folder: saved(a_model(3).conditional(2), folder)),
        lambda: in_a_folder(told_again),
    ),
    "a class that is not rebuilt": (
        "which sdegen cannot rebuild; make it yourself",
        lambda: in_a_folder(
            lambda folder: saved(a_model(path=OwnPath(sg.LinearBeta(0.1, 20.0))), folder)
        ),
        lambda: in_a_folder(loaded),
    ),
    # --- scores made of scores
    "the flow of a product": (
        r"is not the flow of the product, and|the probability flow \(eta = 0\) of a product",
        lambda: told(
            lambda: simulate(
                sg.ReverseSDE(VP, sg.composition.product([GAUSS.score] * 2), 0.0), times=DOWN
            )
        ),
        product_of_experts,
    ),
    "weights that want a gradient": (
        "weights is a tensor that requires grad",
        lambda: sg.composition.product(
            [law.score for law in EXPERTS], torch.tensor([1.0, 0.5], requires_grad=True)
        ),
        weights_with_a_gradient,
    ),
    "a score that hides its derivative": (
        r"score has no derivative in x, which \{\} needs",
        lambda: MEASURED.posterior_score(VP, hidden)(column(0.5), torch.tensor(0.5, dtype=F64)),
        lambda: MEASURED.posterior_score(VP, GAUSS.score)(
            column(0.5), torch.tensor(0.5, dtype=F64)
        ),
    ),
    "a posterior of a score": (
        r"for a learned score take posterior_score",
        lambda: MEASURED.posterior(GAUSS.score),
        lambda: MEASURED.posterior_score(VP, GAUSS.score)(
            column(0.5), torch.tensor(0.5, dtype=F64)
        ),
    ),
    "a posterior of several measurements": (
        "the posterior of a mixture is that of one y",
        lambda: ROWS.posterior(PRIOR),
        lambda: near(
            [
                float(sg.LinearMeasurement(ROWS.operator, y, 0.5).posterior(PRIOR).means)
                for y in ROWS.value
            ],
            0.5 * ROWS.value[:, 0],
        ),
    ),
    "measurements of other trajectories": (
        r"there are measurements of \{\} trajectories",
        lambda: other_number_of_rows(ROWS.posterior_score(VP, GAUSS.score)),
        rows_together,
    ),
    # --- training
    "data that are integers": (
        "must be floating point, but is {}; dequantise",
        lambda: trained(data=torch.arange(32)[:, None] % 16),
        lambda: trained(
            data=2 * sg.data.dequantise(torch.arange(32)[:, None] % 16, levels=17, rng=0) - 1
        ),
    ),
    "rows that are lost": (
        r"rows that are not finite, the first of them row \{\}; remove",
        lambda: trained(data=torch.cat([POINTS, torch.full((1, 1), torch.nan)])),
        lambda: trained(data=POINTS),
    ),
    "data of another size": (
        r"\{\} expects about 0 ± \{\}: \{\}, and undo it in samples|train on \(data - \{\}\)/\{\}",
        lambda: told(lambda: trained(data=50 + 100 * POINTS)),
        rescaled,
    ),
    "data beside which the noise is small": (
        "or take a path with more noise",
        lambda: told(lambda: trained(a_model(path=SHORT), data=4.5 * POINTS)),
        more_noise,
    ),
    "weights too coarse": (
        r"too coarse for the steps of an optimizer",
        lambda: trained(sg.ScoreModel(network().half(), VP)),
        lambda: [trained(sg.ScoreModel(network().to(kind), VP)) for kind in (torch.float32, F64)],
    ),
    "a loss that explodes": (
        r"Scale the data to order one \(their largest entry is",
        lambda: trained(config=sg.TrainConfig(steps=4, batch_size=8, learning_rate=1e30)),
        lambda: trained(config=sg.TrainConfig(steps=4, batch_size=8, learning_rate=1e-3)),
    ),
    "the best of no validation": (
        "keep='best' asks for the best weights on the validation data",
        lambda: trained(config=sg.TrainConfig(steps=4, batch_size=8, keep="best")),
        lambda: trained(
            config=sg.TrainConfig(steps=4, batch_size=8, keep="best"), validation=POINTS[:8]
        ),
    ),
    "classes without labels": (
        r"the network has \{\}, but no \{\} were given",
        lambda: trained(a_model(3)),
        lambda: (trained(a_model(3), labels=LABELS), trained(a_model())),
    ),
    "a rank that is not joined": (
        r"that torchrun has started, and each would train",
        lambda: ranks("2"),
        # and test_training.py::test_ranks_train_one_model_together follows distributed_context
        lambda: ranks("1"),
    ),
    # --- checkpoints
    "resuming from nowhere": (
        "resume=True needs the folder to go on from",
        lambda: trained(resume=True),
        lambda: in_a_folder(lambda folder: trained(resume=True, folder=folder)),
    ),
    "a folder that holds a run": (
        r"already holds a training run \(step \{\}\)",
        lambda: in_a_folder(lambda folder: [trained(folder=folder), trained(folder=folder)]),
        lambda: in_a_folder(resumed),
    ),
    "a checkpoint of other data": (
        r"its \{\} were others; pass the same",
        lambda: in_a_folder(
            lambda folder: [
                trained(folder=folder),
                trained(data=2 * POINTS, folder=folder, resume=True),
            ]
        ),
        lambda: in_a_folder(other_data),
    ),
    "a checkpoint of other settings": (
        "pass what that run was started with",
        lambda: in_a_folder(
            lambda folder: [
                trained(folder=folder),
                trained(
                    config=sg.TrainConfig(steps=4, batch_size=4, warmup=1),
                    folder=folder,
                    resume=True,
                ),
            ]
        ),
        lambda: in_a_folder(other_settings),
    ),
    "a damaged checkpoint beside a good one": (
        "remove the damaged file to go on from",
        lambda: in_a_folder(lambda folder: damaged(folder, good=True)[0]()),
        lambda: in_a_folder(lambda folder: gone_on(folder, good=True)),
    ),
    "a damaged checkpoint alone": (
        "There is no good one beside it",
        lambda: in_a_folder(lambda folder: damaged(folder, good=False)[0]()),
        lambda: in_a_folder(lambda folder: gone_on(folder, good=False)),
    ),
}

# its message is that of rates by their names of 0.1
UNSEEN = {"a parameterization of version 0.1"}
