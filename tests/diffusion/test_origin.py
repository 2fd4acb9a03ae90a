"""A score is that of the process it is used for: α and σ, or drift and noise, are compared."""

import pytest
import torch

import sdegen as sg

A = [[1.0, 0.4], [-0.4, 2.0]]
TIMES = (0.1, 2.0)


def untrained(sde, dim, **more):
    return sg.ScoreModel(sg.MLP(dim, 8, 1, rng=0), sde, **more)


@pytest.mark.parametrize(
    ("of", "used", "word"),
    [
        (sg.LinearSDE(A, 1.0), sg.LinearSDE([[1.0, 0.5], [-0.4, 2.0]], 1.0), "drift"),
        (sg.LinearSDE(A, 1.0), sg.LinearSDE(A, [1.0, 1.1]), "g gᵀ x"),
        (sg.LinearSDE(A, 1.0), sg.ItoProcess(lambda x: -x, 1.0), "drift"),
        (sg.StochasticHeat((2,)), sg.StochasticHeat((2,), diffusivity=2.0), "drift"),
    ],
    ids=["drift", "noise", "kind", "field"],
)
def test_the_score_of_other_dynamics_is_refused(of, used, word):
    model = untrained(of, 2)
    for score in (model.score, model):
        with pytest.raises(ValueError, match=rf"another SDE.*{word}") as caught:
            sg.ReverseSDE(used, score)
        assert "lambda x, t: model.score(x, t)" in str(caught.value)
    sg.ReverseSDE(used, lambda x, t: model.score(x, t))  # as the message says


def test_the_score_of_another_phase_space_is_refused():
    def damped(friction):
        return sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=friction)

    model = untrained(damped(2.0), 4)
    with pytest.raises(ValueError, match=r"another SDE.*drift"):
        sg.ReverseSDE(damped(1.0), model.score)
    with pytest.raises(ValueError, match=r"another SDE.*drift"):
        sg.ReverseSDE(damped(1.0), model)


def test_the_same_dynamics_made_twice_are_the_same():
    model = untrained(sg.LinearSDE(A, 1.0), 2)
    sg.ReverseSDE(sg.LinearSDE(A, 1.0), model.score)
    sg.ReverseSDE(sg.LinearSDE(torch.tensor(A).double(), [[1.0, 0.0], [0.0, 1.0]]), model.score)
    well = sg.ItoProcess(lambda x: x - x**3, 0.7)
    own = untrained(well, 1, times=TIMES)
    sg.ReverseSDE(sg.ItoProcess(lambda x: x - x**3, 0.7), own.score)
    with pytest.raises(ValueError, match=r"another SDE.*drift"):
        sg.ReverseSDE(sg.ItoProcess(lambda x: x - x**5, 0.7), own.score)


def test_langevin_steps_in_a_phase_space_are_refused():
    """A learned score has zeros for positions there, along which a corrector would not move."""
    sde = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=2.0)
    model = untrained(sde, 2)
    reverse = sg.ReverseSDE(sde, model.score)
    x = torch.zeros(4, 2, 1)
    with pytest.raises(ValueError, match=r"phase space.*EulerMaruyama\(\)"):
        sg.simulate(reverse, x, [2.0, 1.0], solver=sg.PredictorCorrector())
