"""Positions alone: the filter beside exact Gaussian laws, its draws, and what it sees."""

import pytest
import torch
from torch.distributions import MultivariateNormal

import sdegen as sg
from sdegen.verification.innovations.choice import law_of

F64 = torch.float64
H = 0.1
MASS = torch.tensor([2.0, 0.5], dtype=F64)
TRAP = sg.UnderdampedLangevin(
    lambda x: 0.8 * (x[:, 0] - x[:, 1]) ** 2 + (x**2).sum(1), 1.5, temperature=0.7, mass=MASS
)
WELL = sg.UnderdampedLangevin(
    lambda x: (0.25 * x**4 - 0.5 * x**2 + 0.1 * x).sum(1), 1.5, temperature=0.7, mass=2.0
)
METHODS = [sg.BAOAB, sg.OBABO, sg.EulerMaruyama]


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def innovations(sde, solver, x, h, blocks=1):
    """z, judged and log densities of positions (T, B, *event), in blocks of frames."""
    nodes = torch.arange(len(x), dtype=F64) * h
    law = law_of(sde, solver, nodes, tuple(x.shape[2:]), positions=True)
    memory, parts, size = None, [], (len(x) - 1) // blocks
    for first in range(0, len(x) - 1, size):
        block = x[first : min(first + size, len(x) - 1) + 1]
        found, memory = law.along(block, first, memory)
        parts.append(found)
    z = torch.cat([p.z for p in parts]).reshape(len(x) - 1, x.shape[1], -1)
    log_p = torch.cat([p.log_density for p in parts]).reshape(len(x) - 1, -1)
    return z, log_p, parts[0].judged


@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_density_is_that_of_all_positions_together_given_the_first_two(method, substeps):
    """Of a velocity at the start that has a variance of 10⁶, which says nothing of it."""
    solver, steps, n = method(substeps=substeps), 5, 2
    transition = sg.ChainMoments(TRAP, 4, solver).transition(0.0, H * substeps)
    spread = torch.block_diag(torch.zeros(n, n), 1e6 * torch.eye(n)).to(F64)
    mean, means, rows = torch.zeros(4, dtype=F64), [], [spread]
    covariance = torch.zeros(n * steps, n * steps, dtype=F64)
    for k in range(steps):
        mean = transition.mean(mean[None])[0]
        means.append(mean[:n])
        rows = [row @ transition.matrix.T for row in rows]
        spread = transition.matrix @ spread @ transition.matrix.T + transition.covariance
        rows = [*rows[1:], spread] if k == 0 else [*rows, spread]
        for j, row in enumerate(rows):
            block = row[:n, :n]
            covariance[n * j : n * j + n, n * k : n * k + n] = block
            covariance[n * k : n * k + n, n * j : n * j + n] = block.T
    times = torch.arange(steps + 1, dtype=F64) * H * substeps
    start = torch.tensor([[[0.0, 0.0], [0.3, -0.5]]], dtype=F64)
    x = sg.simulate(TRAP, start, times, solver=solver, rng=0).states[:, :, 0]
    whole = MultivariateNormal(torch.cat(means), covariance).log_prob(x[1:].flatten())
    first = MultivariateNormal(means[0], covariance[:n, :n]).log_prob(x[1].flatten())
    _, log_p, judged = innovations(TRAP, solver, x, H * substeps)
    assert judged.tolist() == [False, True, True, True, True]
    torch.testing.assert_close(log_p[1:].sum(), whole - first, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_innovations_of_a_well_are_standard_and_do_not_remember(method):
    x = WELL.state(normals(500, 3), 0.5 * normals(500, 3, seed=1))
    path = sg.simulate(WELL, x, torch.arange(101, dtype=F64) * H, solver=method(), rng=2).states
    z, _, _ = innovations(WELL, method(), path[:, :, 0], H)
    z, n = z[1:], z[1:].numel()
    # each is a normal: beyond 5 once in two million
    assert abs(float(z.mean())) * n**0.5 < 5
    assert abs(float(z.square().mean()) - 1) * (n / 2) ** 0.5 < 5
    for lag in (1, 2, 3):
        assert abs(float((z[lag:] * z[:-lag]).mean())) * n**0.5 < 5


@pytest.mark.parametrize("method", [sg.OBABO, sg.EulerMaruyama])
def test_draws_are_recovered_where_two_positions_tell_a_velocity(method):
    x = WELL.state(normals(50, 2), normals(50, 2, seed=1))
    nodes = torch.arange(12, dtype=F64) * H
    path = sg.simulate(WELL, x, nodes, solver=method(), rng=3).states
    z, _, _ = innovations(WELL, method(), path[:, :, 0], H)
    whole = law_of(WELL, method(), nodes, (2, 2))
    drawn = torch.stack(
        [whole.innovations(path[i], path[i + 1], 0).z for i in range(11)]
    )  # of positions and velocities
    if method is sg.EulerMaruyama:
        expected = drawn[:-1]
    else:  # two halves of friction and noise beside each other
        half = torch.exp(torch.tensor(-1.5 * H / 2, dtype=F64))
        first, second = drawn[1:, :, :2], drawn[:-1, :, 2:]
        expected = (half * second + first) / (1 + half**2).sqrt()
    torch.testing.assert_close(z[1:], expected, rtol=1e-9, atol=1e-9)


def test_blocks_are_as_one():
    x = WELL.state(normals(4, 2), normals(4, 2, seed=1))
    path = sg.simulate(WELL, x, torch.arange(61, dtype=F64) * H, rng=3).states[:, :, 0]
    for solver, one in ((sg.BAOAB(), WELL), (sg.BAOAB(substeps=2), TRAP)):
        z, log_p, _ = innovations(one, solver, path, H)
        parts, log_parts, _ = innovations(one, solver, path, H, blocks=12)
        torch.testing.assert_close(parts, z, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_parts, log_p, rtol=1e-12, atol=1e-12)


def test_certify_takes_positions_and_sees_another_temperature_and_mass():
    x = WELL.state(normals(100, 2), 0.5 * normals(100, 2, seed=1))
    path = sg.simulate(WELL, x, torch.arange(201, dtype=F64) * H, rng=3).states[:, :, 0]
    right = sg.certify(WELL, path=path, dt=H)
    assert right.passed
    assert "velocities were not stored" in right.summary
    for wrong in ({"temperature": 0.77}, {"mass": 2.4}, {"friction": 3.0}):
        numbers = {"friction": 1.5, "temperature": 0.7, "mass": 2.0} | wrong
        other = sg.UnderdampedLangevin(WELL.potential, **numbers)
        assert not sg.certify(other, path=path, dt=H).passed, wrong


def test_a_ring_is_unwound():
    ring = sg.UnderdampedLangevin(lambda x: x.cos().sum(1), 0.5)
    x = ring.state(normals(100, 1).tanh(), normals(100, 1, seed=1))
    box = sg.Periodic(-torch.pi, torch.pi)
    path = sg.simulate(ring, x, torch.arange(101, dtype=F64) * H, boundary=box, rng=3).states
    assert float(path[:, :, 0].diff(dim=0).abs().max()) > 6
    assert sg.certify(ring, path=path[:, :, 0], dt=H, boundary=box).passed


def test_what_cannot_be_told_from_positions_is_refused():
    nodes = torch.arange(5, dtype=F64) * H
    rough = sg.UnderdampedLangevin(WELL.potential, lambda x: 1 + x**2)
    for sde, solver, times, match in (
        (rough, sg.BAOAB(), nodes, "friction depends on the position"),
        (WELL, sg.BAOAB(substeps=3), nodes, "3 steps of a force that is not linear"),
        (WELL, sg.Heun(), nodes, "solver is Heun"),
        (WELL, "unknown", nodes, "solver is 'unknown'"),
        (WELL, sg.BAOAB(), nodes**2, "evenly spaced"),
    ):
        with pytest.raises(ValueError, match=match):
            law_of(sde, solver, times, (2,), positions=True)
