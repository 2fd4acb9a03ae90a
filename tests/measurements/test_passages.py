"""First passages of stored paths: those of the observable without its bridge."""

import pytest
import torch

import sdegen as sg

F64 = torch.float64


@pytest.mark.parametrize(
    "region",
    [{"above": 0.8}, {"below": -0.5, "above": 0.9}, {"between": (0.4, 0.6)},
     {"above": lambda t: 1 - t / 4}],
)  # fmt: skip
def test_they_are_those_of_the_observable(region):
    times, x0 = torch.linspace(0, 2, 41), torch.zeros(200, 2, dtype=F64)
    sde, euler = sg.BrownianMotion(1.0), sg.EulerMaruyama()
    run = sg.run_ensemble(
        sde, x0, times, trajectories=200, solver=euler, rng=1, progress=False,
        observables=[sg.FirstPassage(bridge=False, coordinate=1, **region)],
    ).observables["first_passage"]  # fmt: skip
    path = sg.simulate(sde, x0, times, solver=euler, rng=1)
    found = sg.first_passages(path, coordinate=1, **region)
    for key, value in vars(run).items():
        assert torch.as_tensor(getattr(found, key)).tolist() == pytest.approx(
            torch.as_tensor(value).tolist(), rel=1e-12
        ), key
    assert 20 < found.passed < 200


def test_who_starts_there_has_passed_and_the_lost_are_left_out(as_user):
    x = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, torch.nan], [0.0, 3.0, 0.0]])
    found = sg.first_passages(x, [0.0, 1.0, 3.0], above=1.0)
    assert (found.count, found.waiting.tolist()) == (2, [1, 1, 0])
    assert (found.histogram.tolist(), found.density.tolist()) == ([0, 1], [0, 0.25])
    assert (found.mean, found.exposure) == (1.0, 2.0)
    with pytest.raises(ValueError, match="a first passage needs a region"):
        sg.first_passages(x, [0.0, 1.0, 3.0])
    with pytest.raises(
        ValueError, match="path has 3 states along its first axis, and times are 2"
    ):
        sg.first_passages(x, [0.0, 1.0], above=1.0)
