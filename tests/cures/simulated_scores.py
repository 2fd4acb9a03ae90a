"""Advice on scores of simulated processes, followed."""

import tempfile
import warnings

import torch

import sdegen as sg
from tests.cures.common import told

DATA = torch.linspace(-1.0, 1.0, 32)[:, None]
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
WIDE = sg.ItoProcess(lambda x: x - x**3, lambda x: 0.5 + 0.1 * x.sin())
FEW = sg.TrainConfig(steps=3, batch_size=8, warmup=1)
PLANE = torch.linspace(-1.0, 1.0, 32).reshape(-1, 2)


def a_model(sde=WELL, *, times=(0.1, 0.5), dim=1, **options):
    network = sg.MLP(dim, width=8, depth=1, rng=0)
    return sg.ScoreModel(network, sde, times=times, **options)


def trained(model=None, kind=None, data=DATA, config=FEW, **options):
    """A short training of which every loss is a number."""
    model = a_model() if model is None else model
    if "loss" not in options:
        options["loss"] = sg.TransitionMatching(kind, paths=16, step=0.05)
    found = sg.train(model, data, config, rng=0, **options)
    assert bool(found.losses.isfinite().all())
    return model


def kept(base=None, again=None):
    """A model that was written, and read with a base."""
    with tempfile.TemporaryDirectory() as folder:
        model = trained(a_model(base=base))
        model.save(f"{folder}/model.safetensors")
        back = sg.ScoreModel.load(f"{folder}/model.safetensors", sde=WELL, base=again)
        assert torch.equal(back.score(DATA, 0.3), model.score(DATA, 0.3))


def turning(x):
    a, b = x.unbind(1)
    rows = [1 + 0 * a, 0.3 * b.sin(), 0.3 * a.cos(), 1 + 0 * b]
    return torch.stack(rows, 1).reshape(-1, 2, 2)


MIXED = sg.ItoProcess(lambda x: -x, turning, channels=2)

SPRING = sg.ItoProcess(lambda x: -x, 1.0)
BROWN = sg.ItoProcess(lambda x: 0 * x, 1.0)
FAR = 2 + 0.1 * torch.randn(400, 1, generator=torch.Generator().manual_seed(0))


def short(t_max):
    return a_model(SPRING, times=(0.01, t_max))


def unreached():
    """A model that was trained with times too short, the warning of which has been read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)
        return trained(short(0.1), data=FAR)


def at_one_time(times):
    """A model that has learned from samples of p_t at one time, which are no times of paths."""
    return trained(a_model(times=times), loss=sg.ImplicitLoss(at=0.5))


def fitted(model):
    loss = sg.TransitionMatching(paths=16, step=0.05)
    sg.fit(model, DATA, loss, sg.FitConfig(steps=2, batch_size=8, warmup=1), rng=0)


FOLLOWED = {
    "a prediction of no kernel": (
        "reads a network by α",
        lambda: a_model(parameterization=sg.VPrediction()),
        lambda: trained(a_model(parameterization=sg.ScorePrediction())),
    ),
    "a weighting of no kernel": (
        r"is one of α\(t\) and σ\(t\), which",
        lambda: trained(loss="simple"),
        lambda: trained(loss=sg.TransitionMatching(paths=16, step=0.05)),
    ),
    "a score before its training": (
        "this model has no score yet",
        lambda: a_model().score(DATA, 0.3),
        lambda: trained().score(DATA, 0.3),
    ),
    "paths that explode": (
        "its drift carries some to infinity",
        lambda: trained(a_model(sg.ItoProcess(lambda x: 30 * x**3, 0.7))),
        lambda: trained(a_model(sg.ItoProcess(lambda x: -30 * x**3, 0.7))),
    ),
    "a process without noise": (
        r"learns from noise, but this \{\} has none; give",
        lambda: a_model(sg.ItoProcess(lambda x: x - x**3, 0.0)),
        lambda: trained(a_model(sg.ItoProcess(lambda x: x - x**3, 0.7))),
    ),
    "a drift that autograd does not see": (
        r"TransitionMatching\(kind=\{\}\) takes derivatives of the drift",
        lambda: trained(a_model(sg.ItoProcess(lambda x: -x.detach(), 0.7)), "malliavin"),
        lambda: (
            trained(a_model(sg.ItoProcess(lambda x: -x, 0.7)), "malliavin"),
            trained(a_model(sg.ItoProcess(lambda x: -x.detach(), 0.7)), "one-step"),
        ),
    ),
    "a linearised kernel of multiplicative noise": (
        "has a Gaussian kernel, of additive noise",
        lambda: trained(a_model(WIDE), "linearised"),
        lambda: trained(a_model(WIDE)),
    ),
    "a reverse flow of a matrix": (
        r"TransitionMatching\(kind='reverse-flow'\) is for additive noise",
        lambda: trained(a_model(MIXED, dim=2), "reverse-flow", PLANE),
        lambda: trained(a_model(MIXED, dim=2), "one-step", PLANE),
    ),
    "a window of one step": (
        "is given, but kind='one-step' has the last step alone",
        lambda: sg.TransitionMatching("one-step", window=0.1),
        lambda: trained(kind="one-step"),
    ),
    "a base that no file keeps": (
        "the network was added to a base of your own",
        lambda: kept(lambda x, t: -x),
        lambda: kept(lambda x, t: -x, lambda x, t: -x),
    ),
    "a base that there was not": (
        "was made without a base; leave base out",
        lambda: kept(None, lambda x, t: -x),
        kept,
    ),
    "no times": (
        "says nothing of the times at which its score is learned",
        lambda: fitted(at_one_time(None)),
        lambda: fitted(at_one_time((0.01, 4.0))),
    ),
    "times that are not found": (
        "the times at which a score is learned were not said, and none are found",
        lambda: trained(a_model(BROWN, times=None)),
        lambda: trained(a_model(BROWN, times=(0.01, 4.0))),
    ),
    "a prior that is not reached": (
        "Noise for longer, or leave times out, and training finds them",
        lambda: told(lambda: trained(short(0.1), data=FAR)),
        lambda: (trained(short(6.0), data=FAR), trained(a_model(SPRING, times=None), data=FAR)),
    ),
    "samples of a prior that is not reached": (
        "the noising of the data had not reached the prior of this model",
        lambda: told(lambda: sg.sample(unreached(), 2, steps=2, rng=0)),
        lambda: (
            sg.sample(trained(short(6.0), data=FAR), 2, steps=2, rng=0),
            sg.simulate(sg.ReverseSDE(SPRING, unreached().score), FAR[:2], [0.09, 0.05], rng=0),
        ),
    ),
}
