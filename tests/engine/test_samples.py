"""Samples by the short way: of exact scores, from the exact law, with what made them."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SCALE = 0.6


class Exact(torch.nn.Module):
    """ε of data N(0, s² I) under VP, as a network; of class k data are N(k, s² I)."""

    classes = 2

    def forward(self, x, t, labels=None):
        shape = (-1, *(1,) * (x.ndim - 1))
        alpha, sigma = VP.alpha(t).reshape(shape), VP.sigma(t).reshape(shape)
        mean = 0.0 if labels is None else torch.where(labels == 2, 0, labels).reshape(shape)
        return sigma * (x - alpha * mean) / (alpha**2 * SCALE**2 + sigma**2)


def model_of(shape):
    model = sg.ScoreModel(Exact(), VP).eval()
    model.event_shape = shape
    return model


def check(x, mean, std):
    """Mean and variance within 4.4 standard errors."""
    x = x.double().flatten()
    assert abs(float(x.mean()) - mean) < 4.4 * std / math.sqrt(len(x))
    assert abs(float(x.var()) / std**2 - 1) < 4.4 * math.sqrt(2 / len(x))


@pytest.mark.parametrize(
    ("shape", "words", "kind", "eta"),
    [
        ((2,), {}, sg.ExponentialAdams, 0.0),
        ((1, 2, 2), {}, sg.FinalDenoising, 0.0),
        ((2,), {"eta": 1.0, "solver": sg.DDIM(), "steps": 100}, sg.DDIM, 1.0),
    ],
)
def test_samples_have_the_law_of_the_data(shape, words, kind, eta):
    samples = sg.sample(model_of(shape), 2_000, rng=3, dtype=F64, **words)
    assert samples.x.shape == (2_000, *shape)
    check(samples.x, 0.0, SCALE)
    steps = words.get("steps", 50)
    assert isinstance(samples.solver, kind)
    assert (samples.eta, len(samples.times)) == (eta, steps + 1)
    assert samples.nfe == steps + (kind is sg.FinalDenoising)
    assert f"{steps} steps from t = 1 to 0.001, eta = {eta:g}" in str(samples)
    again = sg.simulate(
        sg.ReverseSDE(VP, model_of(shape).score, samples.eta),
        model_of(shape).draw_prior(2_000, rng=3, dtype=F64), samples.times,
        solver=samples.solver, rng=samples.seed,
    )  # fmt: skip
    assert torch.equal(again.final, samples.x)


def test_labels_ask_for_classes_and_guidance_overstates_them():
    model = model_of((1,))
    check(sg.sample(model, 1_000, labels=1, rng=0).x, 1.0, SCALE)
    labels = torch.arange(1_000) % 2
    each = sg.sample(model, 1_000, labels=labels, rng=0).x
    check(each[labels == 1], 1.0, SCALE)
    check(each[labels == 0], 0.0, SCALE)
    # (1 + w) s(x | 1) − w s(x) has the mean 1 + w, of classes of one variance
    check(sg.sample(model, 1_000, labels=1, guidance=0.5, rng=0).x, 1.5, SCALE)


def test_other_processes_are_walked_by_their_reverse_sde():
    """What the result states gives the same bits by hand."""
    model = sg.ScoreModel(
        sg.MLP(1, width=4, depth=1, rng=0), sg.OrnsteinUhlenbeck(), times=(0.05, 3.0)
    )
    samples = sg.sample(model, 20, rng=4)
    assert isinstance(samples.solver, sg.EulerMaruyama)
    assert (samples.eta, samples.nfe) == (1.0, 500)
    torch.testing.assert_close(samples.times, torch.linspace(3.0, 0.05, 501, dtype=F64))
    x_T = model.draw_prior(20, rng=samples.seed)
    reverse = sg.ReverseSDE(model.sde, model.score, samples.eta)
    again = sg.simulate(reverse, x_T, samples.times, solver=samples.solver, rng=samples.seed)
    assert torch.equal(again.final, samples.x)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ({"model": torch.nn.Linear(1, 1)}, TypeError, "model must be a ScoreModel"),
        ({"n": 0}, ValueError, "n must"),
        ({"n": 2.0}, TypeError, "n must"),
        ({"steps": 0}, ValueError, "steps must"),
        ({"guidance": 1.0}, ValueError, "labels is None: pass labels="),
        ({"labels": torch.tensor([0, 1, 1])}, ValueError, "one for all, or 4 of them, but are 3"),
        ({"labels": 7}, ValueError, "labels"),
        ({"solver": "heun"}, TypeError, "solver must be a Solver"),
        ({"eta": -1.0}, ValueError, "eta"),
    ],
)
def test_what_makes_no_sense_is_refused(words, kind, told, as_user):
    with pytest.raises(kind, match=told):
        sg.sample(**({"model": model_of((1,)), "n": 4} | words))


def test_a_model_that_knows_no_shape_is_refused():
    with pytest.raises(ValueError, match="shape of a sample is not known before training"):
        sg.sample(sg.ScoreModel(Exact(), VP), 3)


class ExactlyTold(torch.nn.Module):
    """ε of data N(m, s² I), of which the condition is m."""

    condition_shape = (2,)

    def forward(self, x, t, condition):
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return sigma * (x - alpha * condition) / (alpha**2 * SCALE**2 + sigma**2)


def test_conditions_are_those_of_rows_or_of_all():
    model = sg.ScoreModel(ExactlyTold(), VP).eval()
    model.event_shape = (2,)
    means = torch.stack([torch.linspace(-2, 2, 2_000), torch.linspace(3, -3, 2_000)], 1).double()
    rows = sg.sample(model, 2_000, condition=means, rng=3, dtype=F64)
    check(rows.x - means, 0.0, SCALE)
    one = sg.sample(model, 2_000, condition=torch.tensor([1.5, -0.5]), rng=3, dtype=F64)
    check(one.x - torch.tensor([1.5, -0.5]), 0.0, SCALE)
    # as simulate does it, with the same random numbers
    path = sg.simulate(
        sg.ReverseSDE(VP, model.conditional(means).score, 0.0),
        model.draw_prior(2_000, rng=3, dtype=F64), rows.times, solver=rows.solver, rng=3,
        keep_path=False,
    )  # fmt: skip
    torch.testing.assert_close(path.final, rows.x)
    with pytest.raises(ValueError, match="condition must be one for all, or 5 of them, but are 2"):
        sg.sample(model, 5, condition=means[:2])
