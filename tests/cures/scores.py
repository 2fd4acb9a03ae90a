"""Advice on losses, kernels, conditions and foreign networks of scores, followed."""

import torch
from diffusers import UNet2DModel

import sdegen as sg
from sdegen.adaptors.diffusers import diffusers_network

from .common import VP

FEW = sg.TrainConfig(steps=3, batch_size=8, warmup=1)
DATA = torch.linspace(-1.0, 1.0, 32)[:, None]
PLANE = torch.linspace(-1.0, 1.0, 32).reshape(-1, 2)
MIXED = sg.LinearSDE([[1.0, 0.4], [-0.4, 2.0]], 1.0)  # a kernel of matrices
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
CHAIN = sg.DDPM.discretize(VP, steps=10)
CONDITION = torch.ones(32, 3)


def a_model(sde=VP, dim=1, **options):
    network = sg.MLP(dim, width=8, depth=1, rng=0, **options.pop("network", {}))
    return sg.ScoreModel(network, sde, **options)


def telling(sde=VP, variance=True, **options):
    """A model whose network tells a variance."""
    how = sg.LearnedVariance()
    return a_model(sde, network={"variance": variance}, parameterization=how, **options)


def trained(loss=None, model=None, data=DATA, config=FEW, **options):
    """A short training of which every loss is a number."""
    model = a_model() if model is None else model
    found = sg.train(model, data, config, rng=0, loss=loss, **options)
    assert bool(found.losses.isfinite().all())
    return model


def fitted(loss, labels=None, sde=VP, data=DATA):
    """The same by `fit`, which takes times of rows for labels."""
    few = sg.FitConfig(steps=3, batch_size=8, warmup=1)
    found = sg.fit(a_model(sde, data.shape[1]), data, loss, few, rng=0, labels=labels)
    assert bool(found.losses.isfinite().all())


def mixed(loss, **options):
    return trained(loss, a_model(MIXED, 2), PLANE, **options)


def told():
    return a_model(network={"conditions": 3})


class TakesTwo(torch.nn.Module):
    """A network that says what a condition is, and takes none."""

    condition_shape = (3,)

    def forward(self, x, t):
        return x


class TakesThree(TakesTwo):
    """The same, which takes it."""

    def forward(self, x, t, condition):
        return x


def unet(**options):
    given = {"in_channels": 1, "out_channels": 1} | options
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    network = diffusers_network(UNet2DModel(sample_size=8, **blocks, **sizes, **given))
    output = network(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5))
    assert output.shape == (2, 1, 8, 8)


def zero(t):
    return 0 * t


FOLLOWED = {
    "an embedding of one class": (
        r"network has num_class_embeds = \{\}, of which the last is the label for none",
        lambda: unet(num_class_embeds=1),
        lambda: unet(num_class_embeds=2),
    ),
    "another number of channels out": (
        "network must put out what it is given",
        lambda: unet(out_channels=2),
        lambda: unet(out_channels=1),
    ),
    "Langevin steps in a phase space": (
        "PredictorCorrector moves along the score of every coordinate",
        lambda: backwards(sg.PredictorCorrector()),
        lambda: backwards(sg.EulerMaruyama()),
    ),
    "a base where there is a kernel": (
        "base is a score that a network is added to where the noise is simulated",
        lambda: a_model(base=lambda x, t: -x),
        lambda: (a_model(), a_model(WELL, times=(0.1, 1.0), base=lambda x, t: -x)),
    ),
    "a divergence of many numbers": (
        "ImplicitLoss takes one derivative for each number of a state",
        lambda: trained(sg.ImplicitLoss(), a_model(dim=65), torch.ones(32, 65) * DATA),
        lambda: trained(sg.SlicedLoss(), a_model(dim=65), torch.ones(32, 65) * DATA),
    ),
    "times of rows that are not given": (
        "at = 'labels' reads the time of each row from labels",
        lambda: fitted(sg.ImplicitLoss(at="labels")),
        lambda: fitted(sg.ImplicitLoss(at="labels"), torch.full((32,), 0.5)),
    ),
    "times that are given twice": (
        "times are given by at, and none are drawn",
        lambda: sg.ImplicitLoss(at=0.5, times="uniform"),
        lambda: fitted(sg.ImplicitLoss(at=0.5)),
    ),
    "errors of an output in an implicit loss": (
        r"weighting = \{\} counts errors of an output",
        lambda: sg.ImplicitLoss("edm"),
        lambda: [
            trained(sg.ImplicitLoss(word))
            for word in ("simple", "likelihood", "variational", "min-snr", torch.ones_like)
        ],
    ),
    "an implicit loss in words of α and σ": (
        r"weighting = \{\} needs numbers α and σ, which \{\} has not; take a function w",
        lambda: mixed(sg.ImplicitLoss("min-snr")),
        lambda: mixed(sg.ImplicitLoss(torch.ones_like)),
    ),
    "a weighting of times that are given": (
        r"weighting = \{\} weighs times that are drawn",
        lambda: sg.ImplicitLoss("likelihood", at=0.5),
        lambda: (
            fitted(sg.ImplicitLoss(torch.ones_like, at=0.5)),
            fitted(sg.ImplicitLoss(at=0.5)),
        ),
    ),
    "steps of a kernel of matrices": (
        "steps need numbers α and σ",
        lambda: mixed(sg.DenoisingLoss(steps=CHAIN)),
        lambda: mixed(sg.DenoisingLoss()),
    ),
    "levels of a kernel of matrices": (
        "times = 'log-snr' needs numbers α and σ",
        lambda: mixed(sg.DenoisingLoss(times="log-snr")),
        lambda: [mixed(sg.DenoisingLoss(times=q)) for q in ("importance", "uniform", ones)],
    ),
    "words of α and σ of a kernel of matrices": (
        r"weighting = \{\} needs numbers α and σ, which \{\} has not; take 'simple'",
        lambda: mixed(sg.DenoisingLoss("min-snr")),
        lambda: [mixed(sg.DenoisingLoss(w)) for w in ("simple", "likelihood", ones)],
    ),
    "a kernel that is not there": (
        r"\{\} noises data by a Gaussian kernel, which \{\} has not",
        lambda: fitted(sg.DenoisingLoss(), sde=WELL),
        lambda: (
            trained(None, a_model(WELL, times=(0.1, 0.5))),
            fitted(sg.ImplicitLoss(at=0.5)),
        ),
    ),
    "a variance that nobody teaches": (
        r"\{\} would leave the variance of LearnedVariance as it is",
        lambda: trained(sg.DenoisingLoss("simple", steps=CHAIN), telling()),
        lambda: trained(sg.HybridLoss(steps=CHAIN), telling()),
    ),
    "a variance without steps": (
        "HybridLoss teaches the variance of the steps of a chain",
        lambda: trained(sg.HybridLoss(), telling()),
        lambda: trained(sg.HybridLoss(steps=sg.DDPM.discretize(VP, 20)), telling()),
    ),
    "a variance that no output tells": (
        r"HybridLoss teaches a variance, but \{\} reads none",
        lambda: trained(sg.HybridLoss(steps=CHAIN)),
        lambda: (trained(sg.HybridLoss(steps=CHAIN), telling()), trained(sg.DenoisingLoss())),
    ),
    "a network without a second half": (
        r"but LearnedVariance reads \{\}: the prediction",
        lambda: telling(variance=False).score(DATA, 0.5),
        lambda: telling().score(DATA, 0.5),
    ),
    "a variance within a variance": (
        "mean must read one number for each",
        lambda: sg.LearnedVariance(sg.LearnedVariance()),
        lambda: sg.LearnedVariance(sg.EpsPrediction()),
    ),
    "a variance of no chain": (
        "learns the variance of a DDPM chain, which",
        lambda: telling(sde=sg.OrnsteinUhlenbeck(), times=(0.1, 1.0)),
        lambda: (
            a_model(sg.OrnsteinUhlenbeck(), times=(0.1, 1.0), parameterization=sg.EpsPrediction()),
            telling(),
        ),
    ),
    "a learned variance of a score that tells none": (
        "variance = 'learned' needs a score that tells it",
        lambda: CHAIN.reverse(a_model().score, "learned"),
        lambda: (
            CHAIN.reverse(telling().score, "learned"),
            CHAIN.reverse(a_model().score, "posterior"),
            CHAIN.reverse(a_model().score, "beta"),
        ),
    ),
    "the fraction of a model that tells none": (
        "this model tells no variance",
        lambda: a_model().score.with_fraction(DATA, 0.5),
        lambda: trained(sg.HybridLoss(steps=CHAIN), telling()).score.with_fraction(DATA, 0.5),
    ),
    "deviations of a learned variance": (
        r"\{\} is none of a chain with a learned variance",
        lambda: CHAIN.reverse(telling().score, "learned").stds,
        lambda: (
            CHAIN.reverse(telling().score, "learned").step_std(DATA, 3),
            CHAIN.reverse(telling().score, "posterior").stds,
        ),
    ),
    "a condition of floats among examples": (
        "looks for other examples of the same label",
        lambda: trained(sg.StableTargetLoss(), told(), labels=CONDITION),
        lambda: trained(sg.DenoisingLoss(), told(), labels=CONDITION),
    ),
    "steps of another process": (
        "steps are those of another process",
        lambda: trained(sg.DenoisingLoss("simple", steps=sg.DDPM([0.1, 0.2]))),
        lambda: trained(sg.DenoisingLoss("simple", steps=CHAIN)),
    ),
    "no step that counts": (
        r"weighting\(t\) is 0 at all steps of the chain",
        lambda: trained(sg.DenoisingLoss(zero, steps=CHAIN)),
        lambda: trained(sg.DenoisingLoss(ones, steps=CHAIN)),
    ),
    "no time that counts": (
        r"weighting\(t\) is 0 from t_min",
        lambda: trained(sg.DenoisingLoss(zero)),
        lambda: trained(sg.DenoisingLoss(lambda t: (t > 0.5).double())),
    ),
    "a continuous loss on steps": (
        r"weighting = \{\} is a loss in continuous time",
        lambda: trained(sg.DenoisingLoss("edm", steps=CHAIN)),
        lambda: [
            trained(sg.DenoisingLoss("edm"), a_model(sg.EDM(), 1, parameterization=EDM)),
            *(
                trained(sg.DenoisingLoss(word, steps=CHAIN))
                for word in ("simple", "variational", "likelihood", "min-snr")
            ),
        ],
    ),
    "the shape of a sample before training": (
        "the shape of a sample is not known before training",
        lambda: sg.ScoreModel(sg.UNet(8, rng=0), VP).draw_prior(2, rng=0),
        lambda: shaped().draw_prior(2, rng=0),
    ),
    "times of a process that has its own": (
        "times are those of the SDE",
        lambda: a_model(times=(0.1, 0.9)),
        lambda: (a_model(), a_model(sg.VP(sg.LinearBeta(0.1, 20.0), t_min=0.1))),
    ),
    "a network that takes no condition": (
        r"network has a condition_shape and is called as network\(x, t, condition\)",
        lambda: sg.ScoreModel(TakesTwo(), VP),
        lambda: sg.ScoreModel(TakesThree(), VP),
    ),
    "a score without its condition": (
        "this network is told a condition of shape {} for each row",
        lambda: told().score(DATA, torch.tensor(0.5, dtype=torch.float64)),
        lambda: told().conditional(CONDITION).score(DATA, torch.tensor(0.5)),
    ),
    "a network without its condition": (
        "this network is told a condition of {} numbers or channels",
        lambda: told().network(DATA, torch.full((32,), 0.5)),
        lambda: told().conditional(CONDITION[0]).score(DATA, torch.tensor(0.5)),
    ),
    "a class and a condition": (
        "a network has classes or a condition",
        lambda: sg.MLP(1, classes=2, conditions=3),
        lambda: trained(None, told(), labels=torch.eye(3)[torch.arange(32) % 3]),
    ),
}


def ones(t):
    return torch.ones_like(t)


EDM = sg.EDMPrediction(0.5)


def shaped():
    model = sg.ScoreModel(sg.UNet(8, rng=0), VP)
    model.event_shape = (1, 28, 28)
    return model


def backwards(solver):
    sde = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=2.0)
    reverse = sg.ReverseSDE(sde, a_model(sde, 2).score)
    sg.simulate(reverse, torch.zeros(4, 2, 1), [2.0, 1.9, 1.8], solver=solver, rng=0)
