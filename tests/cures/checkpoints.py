"""Advice of differentiable="checkpointed", followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, FLOW, OU, column, simulate

HELD = torch.ones((), dtype=F64, requires_grad=True)
BM = sg.ItoProcess(lambda x: -HELD * x, 0.5)
PATH = sg.BrownianPath(0, torch.linspace(0, 1, 11, dtype=F64))


def slope(sde=BM, how="checkpointed", **options):
    """The gradient in what the drift, or the start, holds."""
    x0 = column(0.5).requires_grad_()
    final = simulate(sde, x0, differentiable=how, **options).final.sum()
    (found,) = torch.autograd.grad(final, x0)
    assert bool((found != 0).all())


def switched_off():
    with torch.no_grad():
        slope()


FOLLOWED = {
    "checkpoints under no_grad": (
        "differentiable='checkpointed', but gradients are switched off around the call",
        switched_off,
        slope,
    ),
    "steps that cannot be repeated": (
        r"differentiable='checkpointed' takes known steps twice",
        lambda: slope(FLOW, solver=sg.TorchDiffEq()),
        lambda: (
            slope(FLOW, solver=sg.Heun(substeps=2)),
            slope(OU, solver=sg.EulerMaruyama(substeps=2)),
            slope(OU, how=True, solver=sg.SRA()),
        ),
    ),
    "what sees each step, with runs": (
        "does not go with differentiable='checkpointed'",
        lambda: slope(brownian=PATH),
        lambda: (slope(), slope(how=True, brownian=PATH)),
    ),
}
