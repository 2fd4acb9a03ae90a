"""Targets of simulated paths: their expectation is the score of Euler's chain, exactly.

By integration by parts E[∂_i φ(X_t)] = −E[φ(X_t) H_i] for every φ, where E[H | X_t] = ∇ log p_t.
Steps are long, so that a term that is right to O(h) alone is seen. A false alarm of one number has
a chance of 1e-5 (4.4 standard errors).
"""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Noise, stream
from sdegen.score.paths import path_nodes, read_times, simulate_paths
from sdegen.score.targets.base import Node, take_step
from sdegen.score.targets.choice import kind_for, target_of
from sdegen.score.targets.frames import frame_of
from sdegen.score.targets.slopes import Slopes

F64 = torch.float64
ZERO = torch.zeros((), dtype=F64)


def coupled(x):
    a, b = x.unbind(1)
    return torch.stack([a - a**3 + 0.5 * b * a, -b + 0.4 * a * a - 1.5 * a], 1)


def matrix(x):
    """G of two noises that do not commute."""
    a, b = x.unbind(1)
    first = torch.stack([1 + 0.3 * a.sin() * b.cos(), 0.3 * b.sin()], -1)
    return torch.stack([first, torch.stack([0.4 * (a * b).cos(), 1 + 0.3 * a.cos()], -1)], 1)


def wave(x):
    return 0.5 + 0.3 * torch.sin(2 * x)


THREE = torch.tensor([[0.7, 0.1, 0.2], [-0.5, 0.5, 0.1]], dtype=F64)
PROBLEMS = {
    "well": (sg.ItoProcess(lambda x: x - x**3, 0.8), 1),
    "in a plane": (sg.ItoProcess(coupled, 0.7), 2),
    "three channels": (sg.ItoProcess(coupled, THREE, channels=3), 2),
    "g of x": (sg.ItoProcess(lambda x: -x - x**3, wave), 1),
    "Stratonovich": (sg.ItoProcess(lambda x: -x, wave, interpretation="stratonovich"), 1),
    "g of each x": (sg.ItoProcess(coupled, lambda x: 0.6 + 0.3 * torch.sin(x)), 2),
    "g of t": (sg.ItoProcess(lambda x, t: -(x**3) * (1 + t), lambda t: 0.5 + t), 1),
    "G of t": (
        sg.ItoProcess(coupled, lambda t: THREE[:, :2] * (1 + t) + THREE[:, 1:] * t, channels=2),
        2,
    ),
    "g of x and t": (
        sg.ItoProcess(lambda x, t: -x * (1 + t), lambda x, t: (0.5 + t) * (1 + 0.3 * x.sin())),
        1,
    ),
    "matrix of x": (sg.ItoProcess(coupled, matrix, channels=2), 2),
}
CASES = [
    *[(name, "one-step", math.inf) for name in ("well", "g of each x", "matrix of x")],
    *[(name, "reverse-flow", math.inf) for name in PROBLEMS if name != "matrix of x"],
    ("in a plane", "reverse-flow", 0.2),
    *[(n, "malliavin", 0.2) for n in ("well", "g of x", "g of each x", "matrix of x")],
]


def readings(sde, dim, kind, window, n=12_000, steps=5, h=0.06):
    """States and targets of Euler's chain from one point."""
    x = torch.full((n, dim), 0.3, dtype=F64)
    nodes = 0.1 + h * torch.arange(steps + 1, dtype=F64)
    target = target_of(sde, kind, window, x, nodes[0])
    seen = simulate_paths(sde, target, x, nodes, nodes[-1:], stream(0, "test"))
    return seen.x[0], seen.target[0]


PHIS = (
    (lambda x: torch.ones_like(x), lambda x: torch.zeros_like(x)),
    (lambda x: x, lambda x: torch.ones_like(x)),
    (lambda x: (2 * x).sin(), lambda x: 2 * (2 * x).cos()),
    (lambda x: torch.tanh(x) ** 2, lambda x: 2 * torch.tanh(x) / torch.cosh(x) ** 2),
)


@pytest.mark.parametrize(("name", "kind", "window"), CASES)
def test_a_target_is_the_score_of_the_chain_in_expectation(name, kind, window):
    x, H = readings(*PROBLEMS[name], kind, window)
    pairs = [slope(x) + phi(x) * H for phi, slope in PHIS]
    if x.shape[1] == 2:  # φ of the other coordinate, whose slope in this one is 0
        pairs.append(x.sin().flip(1) * H)
    for rest in pairs:
        error = rest.mean(0) / (rest.std(0) / math.sqrt(len(x)))
        assert error.abs().max() < 4.4


def test_the_reverse_flow_knows_more_than_others():
    """Variances at one place: the least of the unbiased ones is that of the reverse flow."""
    sde, dim = PROBLEMS["well"]
    squares = {
        kind: float(readings(sde, dim, kind, window, n=4_000, h=0.01, steps=40)[1].square().mean())
        for kind, window in (("one-step", math.inf), ("malliavin", 0.2), ("reverse-flow", 0.4))
    }
    assert squares["one-step"] > 5 * squares["malliavin"] > 10 * squares["reverse-flow"]


def test_one_step_is_the_gradient_of_the_density_of_a_step():
    sde, dim = PROBLEMS["matrix of x"]
    x = torch.randn(5, dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    node = Node(x, ZERO, frame_of(sde, x, ZERO))
    h = torch.tensor(0.01, dtype=F64)
    step = take_step(sde, node, h, Noise(x, 0, channels=2), Noise(x, 1), slopes=False)
    G = sde.diffusion(x, ZERO)
    law = torch.distributions.MultivariateNormal(x + h * sde.drift(x, ZERO), h * G @ G.mT)
    end = step.after.x.clone().requires_grad_()
    (score,) = torch.autograd.grad(law.log_prob(end).sum(), end)
    target = target_of(sde, "one-step", math.inf, x, ZERO)
    H = target.value(target.advance(target.begin(node), step), step.after)
    torch.testing.assert_close(H, score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("window", [0.3, 1.0])
def test_the_linearised_kernel_of_a_linear_drift_is_exact(window):
    A = torch.tensor([[1.0, 2.0], [-2.0, 1.5]], dtype=F64)
    sde, n, h = sg.ItoProcess(lambda x: -x @ A.T, THREE, channels=3), 20, 0.01
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    nodes = h * torch.arange(n + 1, dtype=F64)
    target = target_of(sde, "linearised", window, x, ZERO)
    seen = simulate_paths(sde, target, x, nodes, nodes[-1:], stream(0, "test"))
    # windows of 0.3 begin at 0, 0.15: at 0.2 the older is read, which began at 0
    F, mean, cov = torch.eye(2, dtype=F64) - h * A, x, torch.zeros(2, 2, dtype=F64)
    for _ in range(n):
        mean, cov = mean @ F.T, F @ cov @ F.T + h * THREE @ THREE.T
    exact = -torch.linalg.solve(cov, (seen.x[0] - mean).T).T
    torch.testing.assert_close(seen.target[0], exact, rtol=1e-9, atol=1e-9)


def test_the_linearised_mean_is_that_of_two_steps_of_a_quadratic_drift():
    """E[X_2 | x] = x + 2hf + h²(f f′ + ½ g² f″) of f = a x²/2, but for ½ h³ f² f″; Σ by f′."""
    a, g, h = 1.4, 0.8, 0.05
    sde = sg.ItoProcess(lambda x: a * x * x / 2, g, noise="additive", autonomous=True)
    x = torch.tensor([[0.3], [-1.2]], dtype=F64)
    nodes = h * torch.arange(3, dtype=F64)
    target = target_of(sde, "linearised", 1.0, x, ZERO)
    seen = simulate_paths(sde, target, x, nodes, nodes[-1:], stream(0, "test"))
    f, slope = a * x * x / 2, a * x
    mean = x + 2 * h * f + h * h * (slope * f + 0.5 * g * g * a)
    variance = g * g * h * (1 + (1 + h * slope).square())
    exact = -(seen.x[0] - mean) / variance
    torch.testing.assert_close(seen.target[0], exact, rtol=1e-9, atol=1e-9)


def test_slopes_are_those_of_autograd():
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    v = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    slopes = Slopes(coupled, x)
    J = torch.stack([torch.autograd.functional.jacobian(coupled, r[None])[0, :, 0] for r in x])
    torch.testing.assert_close(slopes.push(v), (J @ v[..., None])[..., 0])
    torch.testing.assert_close(slopes.pull(v), (J.mT @ v[..., None])[..., 0])
    h = 1e-4
    bend = (coupled(x + h * v) - 2 * coupled(x) + coupled(x - h * v)) / h**2
    torch.testing.assert_close(slopes.curve(v), bend, rtol=1e-5, atol=1e-5)
    straight = Slopes(lambda y: -2 * y, x)
    assert bool((straight.curve(v) == 0).all() and (straight.push(v) == -2 * v).all())
    still = Slopes(torch.zeros_like, x)
    assert bool((still.curve(v) == 0).all() and (still.pull(v) == 0).all())


def test_what_is_chosen_is_what_the_noise_is():
    x = torch.rand(8, 2, dtype=F64)
    assert kind_for(PROBLEMS["three channels"][0], x, ZERO) == "reverse-flow"
    assert kind_for(PROBLEMS["g of each x"][0], x, ZERO) == "reverse-flow"
    assert kind_for(PROBLEMS["matrix of x"][0], x, ZERO) == "malliavin"
    mixed = sg.ItoProcess(coupled, lambda y: 1 + 0.1 * y.square().sum(1, keepdim=True))
    assert kind_for(mixed, x, ZERO) == "malliavin"
    hidden = sg.ItoProcess(lambda y: -(y.detach() ** 3), 1.0)
    assert kind_for(hidden, x, ZERO) == "one-step"


@pytest.mark.parametrize(
    ("sde", "kind", "message"),
    [
        (sg.ItoProcess(lambda x: -x.detach(), 1.0), "malliavin", "autograd, which does not see"),
        (sg.ItoProcess(lambda x: -x - x.detach(), 1.0), "reverse-flow", "or not all of it"),
        (PROBLEMS["matrix of x"][0], "reverse-flow", "is a matrix, or mixes coordinates"),
        (PROBLEMS["g of each x"][0], "linearised", "is multiplicative"),
        (sg.UnderdampedLangevin(sg.DoubleWell(), 1.0), "one-step", "is singular"),
        (sg.ItoProcess(coupled, THREE[:, :1], channels=1), "one-step", "is singular"),
    ],
)
def test_what_a_process_has_not_is_refused(sde, kind, message):
    x = torch.rand(8, 2, 1, dtype=F64) if sde.phase_space else torch.rand(8, 2, dtype=F64)
    with pytest.raises(ValueError, match=message):
        target_of(sde, kind, 0.5, x, ZERO)


def test_blocks_read_all_times_and_end_at_the_last():
    nodes = path_nodes(0.01, 2.0, 0.05, 0.7)
    assert nodes[0] == 0
    assert nodes[-1] == 2.0
    assert bool((nodes.diff() > 0).all())
    assert nodes.diff().max() <= 0.05
    assert int((nodes < 0.01).sum()) >= 8
    ends = read_times(0.01, 2.0, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([0.01, 2.0], dtype=F64))
