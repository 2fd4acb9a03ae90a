"""What a simulation returns."""

import dataclasses

import pytest
import torch

import sdegen as sg


def _lossy():
    # dx/dt = x², lost where it starts above ½: it reaches infinity at t = 1/x0
    ode = sg.ItoProcess(drift=lambda x: x * x, diffusion=0.0)
    x0 = torch.tensor([[0.1], [1e100], [0.2]], dtype=torch.float64)
    return sg.simulate(ode, x0, [0.0, 0.5, 1.0], on_nonfinite="freeze")


def test_final_is_the_last_state_and_finite_leaves_out_the_lost():
    path = _lossy()
    assert path.nonfinite.tolist() == [False, True, False]
    assert torch.equal(path.final, path.states[-1])
    assert torch.equal(path.finite, path.states[:, [0, 2]])
    assert bool(path.states.isfinite().all())


def test_a_result_is_not_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _lossy().seed = 1
