"""Diagnosis: planted mistakes are named, right states have none, strange ones are unknown.

Each run is seeded. A class is named wrongly where its likelihood loses by chance, and left unnamed
where the battery finds something at 1e-4, so that about one run in 10⁴ would fail if it were
seeded anew.
"""

import itertools
import math

import pytest
import torch

import sdegen as sg

H = 0.05


def force(x):
    return 2 * torch.sin(2 * x) - 0.5 * x


well = sg.ItoProcess(force, 1.0)


def ones(x):
    return torch.ones_like(x)


def steps(d, *, f=force, g=ones, draw=None, h=H, count=20_000, start=0.3, seed=1, keep=None):
    """States of x + h f + √h g z, with draws of one's own: () -> (z, k, generator) -> z."""
    draw = None if draw is None else draw()
    source = torch.Generator().manual_seed(seed)
    batch = 10
    x = torch.full((batch, d), start, dtype=torch.float64)
    states = [x]
    for k in range(count // (batch * d)):
        z = torch.randn(batch, d, generator=source, dtype=torch.float64)
        z = z if draw is None else draw(z, k, source)
        x = x + h * f(x) + math.sqrt(h) * g(x) * z
        x = x if keep is None else keep(x)
        states.append(x)
    return torch.stack(states)


def diagnosed(path, sde=well, dt=H, **more):
    certificate = sg.certify(sde, path=path, dt=dt, **more)
    assert not certificate.passed
    diagnosis = certificate.diagnosis
    assert diagnosis.sentence in certificate.summary
    assert diagnosis.causes
    return diagnosis


def held(every):
    """Draws that are used so many times in a row."""
    memory = []

    def draw(z, k, _):
        if k % every == 0:
            memory[:] = [z]
        return memory[0]

    return draw


def coloured(rho):
    memory = []

    def draw(z, _, __):
        memory[:] = [rho * memory[0] + math.sqrt(1 - rho**2) * z if memory else z]
        return memory[0]

    return draw


def replayed(period):
    memory = []

    def draw(z, k, _):
        if k < period:
            memory.append(z)
        return memory[k % period]

    return draw


def uniform(low, high):
    def draw(z, _, source):
        return low + (high - low) * torch.rand(z.shape, generator=source, dtype=z.dtype)

    return draw


FAULTS = {
    "drift of the wrong sign": {"f": lambda x: -force(x)},
    "drift twice": {"f": lambda x: 2 * force(x)},
    "drift half": {"f": lambda x: 0.5 * force(x)},
    "drift missing": {"f": lambda x: 0 * x},
    "drift with √dt for dt": {"f": lambda x: force(x) / math.sqrt(H)},
    "noise variance twice": {"g": lambda x: math.sqrt(2) * ones(x)},
    "noise variance half": {"g": lambda x: math.sqrt(0.5) * ones(x)},
    "noise with dt for √dt": {"g": lambda x: math.sqrt(H) * ones(x)},
    "noise missing": {"g": lambda x: 0 * x},
    "dt ten times too short": {"f": lambda x: 0.1 * force(x), "g": lambda x: 0.1**0.5 * ones(x)},
    "uniform noise of unit variance": {"draw": lambda: uniform(-math.sqrt(3), math.sqrt(3))},
    "uniform noise on [0, 1]": {"draw": lambda: uniform(0, 1)},
    "noise of two values": {"draw": lambda: lambda z, k, source: z.sign()},
    "noise used again in time": {"draw": lambda: held(3)},
    "noise correlated in time": {"draw": lambda: coloured(0.3)},
    "the same noise in several trajectories": {
        "draw": lambda: lambda z, k, s: z[:1].expand(z.shape)
    },
}


@pytest.mark.parametrize(
    ("name", "d"), list(zip(FAULTS, itertools.cycle([1, 2, 10]), strict=False))
)
def test_a_mistake_is_named(name, d):
    check_named(name, d)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 10])
@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_is_named_in_all_dimensions(name, d):
    check_named(name, d)


def check_named(name, d):
    diagnosis = diagnosed(steps(d, **FAULTS[name]))
    assert diagnosis.named == name or name in diagnosis.causes[0].same_as, diagnosis
    assert diagnosis.odds > 100


@pytest.mark.parametrize("d", [1, 2, 10])
def test_right_states_have_no_diagnosis(d):
    certificate = sg.certify(well, path=steps(d), dt=H)
    assert certificate.passed
    assert certificate.diagnosis is None


def test_noise_that_is_replayed_is_named_with_its_period():
    diagnosis = diagnosed(steps(2, draw=lambda: replayed(300)))
    assert diagnosis.named == "noise used again in time"
    assert diagnosis.causes[0].value == 300


def test_a_factor_is_fitted_within_its_error():
    diagnosis = diagnosed(steps(2, g=lambda x: 1.3 * ones(x)))
    best = diagnosis.causes[0]
    assert diagnosis.named == "noise variance by a factor"
    assert diagnosis.odds > 100
    assert abs(best.value - 1.3) < 4.5 * best.error < 0.05


@pytest.mark.parametrize("d", [2, 10])
def test_mistakes_between_coordinates_are_named(d):
    same = diagnosed(steps(d, draw=lambda: lambda z, k, s: z[:, :1].expand(z.shape)))
    assert same.named == "the same noise in all coordinates"

    def silent(z, k, source):
        return z.index_fill(1, torch.tensor([1]), 0.0)

    missing = diagnosed(steps(d, draw=lambda: silent))
    assert missing.named == "noise missing in a coordinate"
    assert "coordinate 1" in missing.sentence
    assert min(same.odds, missing.odds) > 100


STRANGE = {
    "noise that changes with the state": {"g": lambda x: 1 + 0.3 * torch.sin(3 * x)},
    "noise that changes in time": {
        "draw": lambda: lambda z, k, s: z * (1 + 0.3 * math.sin(k / 50))
    },
    "a drift that bends": {"f": lambda x: force(x) + torch.sin(5 * x)},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_mistake_is_unknown(name):
    diagnosis = diagnosed(steps(2, **STRANGE[name], count=60_000))
    assert diagnosis.named is None
    assert diagnosis.odds <= 10
    assert "unknown" in diagnosis.sentence


def test_it_may_be_left_out():
    certificate = sg.certify(well, path=steps(1, g=lambda x: 2 * ones(x)), dt=H, diagnose=False)
    assert not certificate.passed
    assert certificate.diagnosis is None
