"""TorchSDE on noise with channels: the methods that take it, with what order, and the others."""

import math

import pytest
import torch
from exact import Replay, coarsen, slope, solved
from sdes import turning

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64
MATRIX = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)
B = torch.tensor([[0.3, 0.6], [-0.2, 0.4]], dtype=F64)  # its slope is not symmetric


@pytest.mark.parametrize("G", [MATRIX, turning], ids=["matrix", "of x"])
def test_euler_walks_the_path_of_euler_maruyama(G):
    sde = sg.ItoProcess(lambda x: -x, G, channels=3)
    x0 = stream(0, "x").normal((5, 2), dtype=F64)
    ours, theirs = (
        sg.simulate(sde, x0, [0.0, 0.3, 1.0], solver=solver, rng=4)
        for solver in (sg.EulerMaruyama(5), sg.TorchSDE("euler", 5))
    )
    torch.testing.assert_close(ours.states, theirs.states, rtol=1e-12, atol=1e-13)
    assert ours.nfe == theirs.nfe


@pytest.mark.parametrize("method", ["euler", "milstein", "srk", "heun", "midpoint"])
def test_a_constant_matrix_goes_with_all_methods(method):
    """Covariance of dX = −X dt + G dW from 0, (1 − e^{−2t}) G Gᵀ/2, within 4.4 standard errors."""
    sde, n = sg.ItoProcess(lambda x: -x, MATRIX, channels=3), 20_000
    solver = sg.TorchSDE(method, 60 if method in ("euler", "milstein") else 10)
    x = sg.simulate(sde, torch.zeros(n, 2, dtype=F64), [0.0, 0.5], solver=solver, rng=5).final
    expected = MATRIX @ MATRIX.T * (1 - math.exp(-1.0)) / 2
    spread = torch.outer(expected.diag(), expected.diag()) + expected.square()
    assert bool(((torch.cov(x.T) - expected).abs() < 4.4 * (spread / n).sqrt()).all())


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("milstein", 1.0), ("srk", 1.5)])
def test_strong_order_for_one_noise_of_two_coordinates(method, order):
    """dX = 0.1 X dt + B X dW, one W: X = exp((0.1 − B²/2) t + B W) x0, on shared paths."""
    fine, paths = 256, 2000
    source = stream(0, "test paths")
    z, u = (source.normal((fine, paths), dtype=F64) for _ in range(2))
    sde = sg.ItoProcess(lambda x: 0.1 * x, lambda x: (x @ B.T)[..., None], channels=1)
    w = z.sum(0) / math.sqrt(fine)
    flow = torch.matrix_exp(0.1 * torch.eye(2, dtype=F64) - 0.5 * B @ B + w[:, None, None] * B)
    x0 = torch.tensor([1.0, -0.5], dtype=F64)
    errors, steps = [], [4, 8, 16, 32]
    for m in steps:
        nodes = torch.linspace(0, 1, fine // m + 1, dtype=F64)
        pairs = zip(*coarsen(z, u, m), strict=True)
        draws = [d[:, None] for pair in pairs for d in (pair if method == "srk" else pair[:1])]
        with torch.no_grad():
            start = x0.expand(paths, 2).contiguous()
            x = solved(
                sg.TorchSDE(method), sde, start, nodes, noise=Replay(draws), keep_path=False
            ).states[-1]
        errors.append(float((x - flow @ x0).square().sum(1).mean().sqrt()))
    assert slope(torch.tensor(steps, dtype=F64), torch.tensor(errors)) == pytest.approx(
        order, abs=0.1
    )
    assert errors[0] < {"euler": 0.1, "milstein": 0.01, "srk": 0.001}[method]


@pytest.mark.parametrize("method", ["milstein", "srk", "heun", "midpoint"])
def test_several_multiplicative_noises_go_with_euler_alone(method):
    sde, x0 = sg.ItoProcess(lambda x: -x, turning, channels=3), torch.zeros(3, 2, dtype=F64)
    with pytest.raises(
        ValueError, match=rf"TorchSDE\('{method}'\) takes .* channels = 3: use Eul"
    ):
        sg.simulate(sde, x0, [0.0, 0.1], rng=0, solver=sg.TorchSDE(method))
    one = sg.ItoProcess(lambda x: -x, lambda x: x[..., None], channels=1)
    if method in ("heun", "midpoint"):
        with pytest.raises(ValueError, match="solves the Stratonovich equation"):
            sg.simulate(one, x0, [0.0, 0.1], rng=0, solver=sg.TorchSDE(method))
