"""Rounded states: the filter beside a Cholesky factor, right dumps pass, faults of 5 % do not."""

import pytest
import torch

import sdegen as sg
from sdegen.readers.read import read_states
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.dither import dithered
from sdegen.verification.innovations.rounded_law import RoundedLaw, rounded_law

F64 = torch.float64
H = 0.01


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def well(noise=0.7):
    return sg.ItoProcess(lambda x: x - x**3, noise, autonomous=True)


def kicked(temperature=1.0):
    return sg.UnderdampedLangevin(
        lambda x: (x**4 / 4 - x**2 / 2).sum(1), 1.0, temperature=temperature
    )


def stored(path, decimals, **options):
    return read_states(
        (path * 10**decimals).round() / 10**decimals,
        dt=options.pop("dt", H), rounding=0.5 * 10.0**-decimals, **options,
    )  # fmt: skip


def test_the_filter_whitens_noise_that_is_correlated_over_two_steps():
    motion = sg.ItoProcess(lambda x: 0 * x, 2.0, autonomous=True)
    path = normals(30, 4, 2)
    states = read_states(path, dt=H, rounding=0.04)  # a fifth of the noise of a step
    law = rounded_law(law_of(motion, sg.EulerMaruyama(), states.times, (2,)), states)
    assert isinstance(law, RoundedLaw)
    r2 = 0.2**2 * 2 / 3
    band = torch.diag(torch.full((28,), -r2, dtype=F64), 1)
    covariance = torch.eye(29, dtype=F64) * (1 + 2 * r2) + band + band.T
    lower = torch.linalg.cholesky(covariance)
    z = path.diff(dim=0).reshape(29, -1) / 0.2
    expected = torch.linalg.solve_triangular(lower, z, upper=False)
    parts, memory = [], None
    for a, b in ((0, 10), (10, 29)):
        found, memory = law.along(path[a : b + 1], a, memory)
        parts.append(found)
    got = torch.cat([part.z.reshape(-1, 8) for part in parts])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    density = torch.distributions.MultivariateNormal(torch.zeros(29, dtype=F64), covariance)
    log_p = sum(part.log_density.sum() for part in parts)
    exact = density.log_prob(z.T).sum() - z.numel() * torch.tensor(0.2, dtype=F64).log()
    torch.testing.assert_close(log_p, exact, rtol=1e-12, atol=1e-9)


def test_dither_is_the_same_however_it_is_read():
    states = dithered(stored(normals(200, 3, 1), 2), 5)
    whole = states.block(0, 200)
    assert torch.equal(states.block(63, 66), whole[63:66])
    assert torch.equal(states.block(199, 200), whole[199:])
    off = whole - stored(normals(200, 3, 1), 2).block(0, 200)
    assert 0.0045 < float(off.abs().max()) <= 0.005


@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_right_dumps_pass_and_noise_that_is_off_by_5_percent_does_not(decimals):
    path = sg.simulate(well(), normals(60, 3), torch.arange(301, dtype=F64) * H, rng=1).states
    states = stored(path, decimals)
    right = sg.certify(well(), path=states)
    assert right.passed
    assert ("rounded" in right.steps.judged_as) == (decimals == 2)
    assert not sg.certify(well(0.735), path=states).passed


def test_half_precision_is_rounding_of_what_was_stored():
    path = sg.simulate(well(), normals(60, 3), torch.arange(301, dtype=F64) * H, rng=1).states
    for dtype in (torch.float16, torch.bfloat16):
        states = read_states(path.to(dtype), dt=H)
        assert sg.certify(well(), path=states).passed
        assert not sg.certify(well(0.735), path=states).passed


@pytest.mark.parametrize("decimals", [1, 3])
@pytest.mark.parametrize("solver", [sg.BAOAB(), sg.EulerMaruyama()])
def test_positions_and_velocities_of_a_dump(solver, decimals):
    x = kicked().state(normals(100, 2), normals(100, 2, seed=1))
    path = sg.simulate(kicked(), x, torch.arange(201, dtype=F64) * 0.02, rng=1, solver=solver)
    states = stored(path.states, decimals, phase_space=True, dt=0.02)
    assert sg.certify(kicked(), path=states, solver=solver).passed
    assert not sg.certify(kicked(1.15), path=states, solver=solver).passed
    moved = path.states.clone()
    moved[20, 3, 0, 0] += 5 * 10.0**-decimals  # ten times what rounding can be off
    broken = stored(moved, decimals, phase_space=True, dt=0.02)
    assert not sg.certify(kicked(), path=broken, solver=solver).passed


def test_too_few_digits_are_refused_and_as_many_as_are_asked_for_pass():
    path = sg.simulate(well(), normals(60, 3), torch.arange(301, dtype=F64) * H, rng=1).states
    with pytest.raises(
        ValueError, match=r"0\.\d+ of the noise of a step, .* store them to 2 decimals"
    ):
        sg.certify(well(), path=stored(path, 1))
    assert sg.certify(well(), path=stored(path, 2)).passed
    x = kicked().state(normals(100, 2), normals(100, 2, seed=1))
    swung = sg.simulate(
        kicked(), x, torch.arange(201, dtype=F64) * 0.02, rng=1, solver=sg.OBABO()
    ).states
    with pytest.raises(ValueError, match="not in that of OBABO; store them to 4 decimals"):
        sg.certify(kicked(), path=stored(swung, 3, phase_space=True, dt=0.02), solver=sg.OBABO())
    four = stored(swung, 4, phase_space=True, dt=0.02)
    assert sg.certify(kicked(), path=four, solver=sg.OBABO()).passed
