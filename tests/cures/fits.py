"""Advice on losses and on fits of any module, followed."""

import tempfile

import torch

import sdegen as sg
from tests.cures.common import near
from tests.cures.models import FEW, LABELS, POINTS, a_model, trained

FIT = sg.FitConfig(steps=4, batch_size=8, warmup=1)
TARGETS = 2 * POINTS


class Square(sg.Loss):
    """What returns (module(x) − y)², as some function of both makes it."""

    def __init__(self, of=lambda error: error.square().sum(1)):
        self._of = of

    def __call__(self, module, batch, noise):
        return self._of(module(batch.rows) - batch.labels)


def fitted(loss=None, labels=TARGETS, config=FIT, **options):
    """A fit of a line in four steps, of which every loss is a number."""
    line = torch.nn.Linear(1, 1)
    loss = Square() if loss is None else loss
    found = sg.fit(line, POINTS, loss, config, rng=0, labels=labels, **options)
    assert bool(found.losses.isfinite().all())
    return found


class Elsewhere(sg.Loss):
    """A loss of another module than the one it is given."""

    def __init__(self):
        self._other = torch.nn.Linear(1, 1)

    def __call__(self, module, batch, noise):
        return self._other(batch.rows)[:, 0]


def with_validation(**options):
    return fitted(validation=POINTS[:8], **options)


def resumed(**options):
    """A fit that is resumed, with the loss that it was started with unless another is said."""
    with tempfile.TemporaryDirectory() as folder:
        fitted(folder=f"{folder}/run")
        fitted(
            folder=f"{folder}/{'other' if options.pop('elsewhere', False) else 'run'}",
            resume=True,
            **options,
        )


DOUBLED = Square(lambda error: 2 * error.square().sum(1))

FOLLOWED = {
    "a loss whose code was changed": (
        "the {}code is another; pass the loss that",
        lambda: resumed(loss=DOUBLED),
        lambda: (resumed(), resumed(loss=DOUBLED, elsewhere=True)),
    ),
    "a value without a gradient": (
        "returned a value without a gradient: call the module",
        lambda: fitted(Square(lambda error: error.detach().square().sum(1))),
        fitted,
    ),
    "a loss of another module": (
        "does not depend on the weights of the {}: call the module",
        lambda: fitted(Elsewhere()),
        fitted,
    ),
    "a loss of another shape": (
        "sum or average over the other axes",
        lambda: fitted(Square(lambda error: error.square())),
        lambda: (fitted(), fitted(Square(lambda error: error.square().mean()))),
    ),
    "more than a fit takes": (
        r"pass FitConfig\(…\), and the rest to the loss",
        lambda: fitted(config=FEW),
        fitted,
    ),
    "labels of no validation": (
        "validation_labels were given without validation",
        lambda: fitted(validation_labels=TARGETS[:8]),
        lambda: with_validation(validation_labels=TARGETS[:8]),
    ),
    "a validation without labels": (
        r"\{\} were given without \{\}; pass both or neither",
        with_validation,
        lambda: with_validation(validation_labels=TARGETS[:8]),
    ),
    "a loss that is said twice": (
        r"and config asks for weighting = \{\} too; say one",
        lambda: trained(
            config=sg.TrainConfig(steps=4, batch_size=8, weighting="simple"), loss="edm"
        ),
        lambda: near(
            trained(config=FEW, loss="simple").losses,
            trained(
                config=sg.TrainConfig(steps=4, batch_size=8, warmup=1, weighting="simple")
            ).losses,
        ),
    ),
    "labels left out by two": (
        r"say it to the loss, DenoisingLoss\(label_dropout",
        lambda: trained(
            a_model(3),
            config=sg.TrainConfig(steps=4, batch_size=8, label_dropout=0.5),
            loss=sg.DenoisingLoss(),
            labels=LABELS,
        ),
        lambda: trained(a_model(3), loss=sg.DenoisingLoss(label_dropout=0.5), labels=LABELS),
    ),
}
