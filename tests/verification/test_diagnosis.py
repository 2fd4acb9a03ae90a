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


WALLS = {
    "clipped at the walls": lambda y: y.clamp(-1, 1),
    "walls ignored": lambda y: y,
    "reflected at one end only": lambda y: torch.where(y < -1, -2 - y, y),
    "periodic for reflecting": lambda y: (y + 1) % 2 - 1,
    "walls shifted": lambda y: 0.9 - (0.9 - torch.where(y < -1, -2 - y, y)).abs(),
}


@pytest.mark.parametrize(("name", "d"), list(zip(WALLS, itertools.cycle([1, 2]), strict=False)))
def test_wrong_walls_are_named(name, d):
    walls = sg.Reflecting(-1.0, 1.0, coordinates="all")
    path = steps(d, h=0.02, keep=WALLS[name])
    diagnosis = diagnosed(path, dt=0.02, boundary=walls)
    assert diagnosis.named == name, diagnosis
    assert diagnosis.odds > 100


sine = sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.5 * torch.sin(x))


@pytest.mark.parametrize(
    ("name", "share", "power"),
    [
        ("Stratonovich for Itô", 0.5, 1),
        ("Itô for Stratonovich", -0.5, 1),
        ("Klimontovich for Itô", 1.0, 1),
        ("g² for g", 0.0, 2),
    ],
)
def test_other_readings_of_the_noise_are_named(name, share, power):
    def g(x):
        return 1 + 0.5 * torch.sin(x)

    def f(x):
        return -x + share * g(x) * 0.5 * torch.cos(x)

    path = steps(2, f=f, g=lambda x: g(x) ** power, h=0.02, count=80_000)
    diagnosis = diagnosed(path, sine, dt=0.02)
    assert diagnosis.named == name, diagnosis
    assert diagnosis.odds > 100


def kicked(kind, d, *, h=0.1, count=20_000):
    """A step of BAOAB, γ = 0.7, T = 0.8, m = 3, with one mistake in it."""
    source = torch.Generator().manual_seed(3)
    mass, batch = 3.0, 10
    c = math.exp(-0.7 * h)
    s = math.sqrt((1 - c * c) * 0.8 / mass)
    x = torch.zeros(batch, d, dtype=torch.float64)
    v = torch.randn(batch, d, generator=source, dtype=torch.float64)
    states, before = [torch.stack([x, v], 1)], force(x)
    for _ in range(count // (batch * d)):
        z = torch.randn(batch, d, generator=source, dtype=torch.float64)
        first = {"stale force": before, "mass missing in the force": mass * force(x)}
        whole = 2.0 if kind == "whole kicks for half kicks" else 1.0
        last_mass = 1.0 if kind == "mass missing in the force" else mass
        before, v = force(x), v + whole * 0.5 * h * first.get(kind, force(x)) / mass
        x = x + 0.5 * h * v
        if kind == "thermostat on positions":
            x = c * x + s * z
        elif kind == "friction missing":
            v = v + s * z
        elif kind != "thermostat missing":
            v = c * v + s * z * (math.sqrt(2) if kind == "noise variance twice" else 1)
        x = x + 0.5 * h * v
        v = v + whole * 0.5 * h * force(x) / last_mass
        states.append(torch.stack([x, v], 1))
    return torch.stack(states)


KINETIC = (
    "stale force", "mass missing in the force", "whole kicks for half kicks",
    "thermostat on positions", "friction missing", "thermostat missing", "noise variance twice",
)  # fmt: skip


@pytest.mark.parametrize(("name", "d"), list(zip(KINETIC, itertools.cycle([1, 3]), strict=False)))
def test_mistakes_in_phase_space_are_named(name, d):
    def energy(x):
        return (torch.cos(2 * x) + 0.25 * x**2).flatten(1).sum(1)

    sde = sg.UnderdampedLangevin(energy, friction=0.7, temperature=0.8, mass=3.0)
    diagnosis = diagnosed(kicked(name, d), sde, dt=0.1)
    assert diagnosis.named == name or name in diagnosis.causes[0].same_as, diagnosis
    assert diagnosis.odds > 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_of_few_digits_are_named(dtype):
    path = steps(
        2, f=lambda x: 5 * (1 - x), g=lambda x: 0.1 * ones(x), h=1e-3, start=1.0,
        keep=lambda y: y.to(dtype).double(),
    )  # fmt: skip
    diagnosis = diagnosed(path, sg.ItoProcess(lambda x: 5 * (1 - x), 0.1), dt=1e-3)
    assert diagnosis.named == f"states in {str(dtype).removeprefix('torch.')}"
    assert diagnosis.odds > 100


def ancestral(chain, score, change, *, batch=200, d=2):
    """Ancestral sampling with other coefficients: change(k, A, B, s) -> A, B, s."""
    source = torch.Generator().manual_seed(7)
    a, b, levels = chain.a.double(), chain.b.double(), chain.sigmas.double()
    x = torch.randn(batch, d, generator=source, dtype=torch.float64)
    states = [x]
    for k in range(chain.steps, 0, -1):
        i = k - 1
        usual = 1 / a[i], b[i] ** 2 / a[i], b[i] * levels[i] / levels[k]
        A, B, s = change(chain, k, *usual)
        z = torch.randn(batch, d, generator=source, dtype=torch.float64)
        x = A * x + B * score(x, chain.times[k]) + s * z
        states.append(x)
    return torch.stack(states)


SAMPLERS = {
    "β for the posterior variance": lambda c, k, A, B, s: (A, B, c.b[k - 1] if k > 1 else 0.0),
    "variance for standard deviation": lambda c, k, A, B, s: (A, B, s * s),
    "score half": lambda c, k, A, B, s: (A, B / 2, s),
    "α for ᾱ": lambda c, k, A, B, s: (A, B * c.sigmas[k] / c.b[k - 1], s),
    "noise in the last step": lambda c, k, A, B, s: (A, B, s if k > 1 else c.b[0]),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_mistakes_of_samplers_are_named(name):
    path = sg.VP(sg.LinearBeta(0.1, 20.0))
    chain = sg.DDPM.discretize(path, 100)

    def score(x, t):
        return -(x - path.alpha(t)) / (0.25 * path.alpha(t) ** 2 + path.sigma(t) ** 2)

    states = ancestral(chain, score, SAMPLERS[name])
    times = [float(k) for k in range(100, -1, -1)]
    certificate = sg.certify(chain.reverse(score), path=states, times=times)
    assert certificate.diagnosis.named == name, certificate.diagnosis
    assert certificate.diagnosis.odds > 100
    right = ancestral(chain, score, lambda c, k, *usual: usual)
    assert sg.certify(chain.reverse(score), path=right, times=times).passed
