"""Positive steps: where the noise vanishes at a reflecting end, wherever a run begins."""

import math

import torch

import sdegen as sg

F64 = torch.float64


def test_a_start_at_the_end_itself_is_one_where_the_noise_vanishes():
    """dX = (0.2 − X) dt + √X dW from 0: mean 0.2 (1 − e^{−t}), within 4.4 standard errors.

    Steps that are mirrored at 0 give 0.18 for 0.126.
    """
    root = sg.ItoProcess(lambda x: 0.2 - x, lambda x: x.clamp(min=0).sqrt())
    x0, solver = torch.zeros(20_000, 1, dtype=F64), sg.EulerMaruyama(substeps=20)
    for boundary in (sg.Reflecting(0.0), sg.Reflecting(0.0, 30.0)):
        x = sg.simulate(root, x0, [0.0, 1.0], solver=solver, rng=0, boundary=boundary).final
        error = float(x.std()) / math.sqrt(len(x))
        assert abs(float(x.mean()) - 0.2 * (1 - math.exp(-1))) < 4.4 * error
