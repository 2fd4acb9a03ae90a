"""Jumps: uniform numbers by place, compound Poisson processes, and what refuses them by name."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Exponential, Gamma, Laplace, Normal

import sdegen as sg
from sdegen.core.counters import Counters, as_normal
from sdegen.core.fingerprint import to_spec
from sdegen.core.noise import Stream

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
BM = sg.BrownianMotion(0.5)
LAPLACE = Laplace(0.0, 1.0)
MERTON = sg.JumpDiffusion(BM, sg.CompoundPoisson(2.0, Normal(0.0, 0.5)))
LEVY = sg.JumpDiffusion(BM, sg.AlphaStable(1.5, scale=0.3))
GRID = sg.Grid(-8.0, 8.0, 40)
X = torch.zeros(8, 1, dtype=F64)
TIMES = torch.linspace(0, 1, 5, dtype=F64)


def test_numbers_by_place_are_those_of_splitmix():
    """The same hash in unsigned words of NumPy, the second key included; all of them in (0, 1)."""
    counters = Counters(Stream(11), "jumps")
    n = torch.arange(100_000)
    u = counters.uniform(n)
    with np.errstate(over="ignore"):
        z = n.numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(counters._first % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = z ^ np.uint64(counters._second % 2**64)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    assert np.array_equal(u.numpy(), ((z >> np.uint64(12)).astype(float) + 0.5) / 2.0**52)
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-5
    assert stats.kstest(as_normal(u).numpy(), "norm").pvalue > 1e-5


def test_numbers_do_not_depend_on_the_order_and_purposes_are_independent():
    one, two = Counters(Stream(3), "jumps"), Counters(Stream(3), "stable")
    n = torch.arange(50_000)
    u, v = one.uniform(n), two.uniform(n)
    assert torch.equal(one.uniform(n.flip(0)), u.flip(0))
    for a, b in ((u, v), (u[1:], u[:-1]), (u, Counters(Stream(4), "jumps").uniform(n))):
        # 5 standard errors of a correlation: one run in two millions by chance
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / math.sqrt(len(b))


def test_sizes_are_quantiles_numbers_or_functions():
    u, x = torch.tensor([[0.1], [0.9]], dtype=F64), torch.tensor([[1.0], [2.0]], dtype=F64)
    for sizes, expected in (
        (0.5, torch.full((2, 1), 0.5, dtype=F64)),
        (Exponential(2.0), -torch.log1p(-u) / 2),
        (lambda u: u**2, u**2),
        (lambda x, u: -x * u, -x * u),
        (lambda x, t, u: t[:, None] + x + u, 3 + x + u),
    ):
        jumps = sg.CompoundPoisson(1.0, sizes)
        found = jumps.size(x, torch.tensor(3.0), u)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # a rate in float32
        assert jumps.size(x.float(), torch.tensor(3.0), u).dtype == torch.float32


def test_rates_are_numbers_or_functions():
    x, t = torch.tensor([[1.0], [2.0]], dtype=F64), torch.tensor([0.5, 1.0], dtype=F64)
    for rate, expected in (
        (lambda x: x[:, 0], x[:, 0]),
        (lambda x, t: x[:, 0] * t, x[:, 0] * t),
        (lambda x: 0 * x + 1, torch.ones(2, dtype=F64)),
        (lambda t: 1 + t, 1 + t),
    ):
        assert torch.equal(sg.CompoundPoisson(rate, 1.0, bound=3.0).rates(x, t), expected)
    assert sg.CompoundPoisson(2.0, 1.0).rates(x, t).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: sg.CompoundPoisson(-1.0, 1.0), ValueError, "rate must be finite and ≥ 0"),
        (lambda: sg.CompoundPoisson(math.inf, 1.0), ValueError, "rate must be finite and ≥ 0"),
        (lambda: sg.CompoundPoisson("2", 1.0), TypeError, "rate must be a number"),
        (lambda: sg.CompoundPoisson(lambda x: x, 1.0), ValueError, "needs a bound"),
        (lambda: sg.CompoundPoisson(lambda x: x, 1.0, bound=0.0), ValueError, "bound must be"),
        (lambda: sg.CompoundPoisson(1.0, 1.0, bound=2.0), ValueError, "leave it out"),
        (lambda: sg.CompoundPoisson(1.0, Gamma(2.0, 1.0)), TypeError, "no quantile function"),
        (lambda: sg.CompoundPoisson(1.0, math.nan), ValueError, "sizes must be finite"),
        (lambda: sg.CompoundPoisson(1.0, "big"), TypeError, "sizes must be a number"),
        (lambda: sg.CompoundPoisson(1.0, lambda u, x: u), TypeError, r"takes \(u, x\)"),
        (lambda: sg.CompoundPoisson(1.0, lambda a, b, c, d: a), TypeError, "takes"),
        (lambda: sg.AlphaStable(0.0), ValueError, r"alpha must lie in \(0, 2\], but is 0"),
        (lambda: sg.AlphaStable(2.1), ValueError, r"alpha must lie in \(0, 2\], but is 2.1"),
        (lambda: sg.AlphaStable(1.5, scale=0.0), ValueError, "scale must be"),
        (lambda: sg.AlphaStable(1.5, beta=1.5), ValueError, r"beta must lie in \[-1, 1\]"),
        (lambda: sg.JumpDiffusion(BM, []), ValueError, "jumps is empty"),
        (lambda: sg.JumpDiffusion(BM, 2.0), TypeError, "jumps must be CompoundPoisson"),
        (lambda: sg.JumpDiffusion(2.0, 2.0), TypeError, "sde must be an SDE"),
        (lambda: sg.JumpDiffusion(MERTON, MERTON.jumps), ValueError, "in one sequence"),
        (
            lambda: sg.JumpDiffusion(
                sg.ReverseSDE(BM, lambda x, t: -x, eta=1.0), sg.AlphaStable(1.5)
            ),
            ValueError,
            "is a reverse process",
        ),
    ],
)
def test_what_is_no_jump_is_refused(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


@pytest.mark.parametrize(
    ("jumps", "kind", "said"),
    [
        (
            sg.CompoundPoisson(lambda x: 5 + 0 * x[:, 0], 1.0, bound=4.0),
            ValueError,
            "rate is 5 at t = 0 and x = .*, above its bound 4",
        ),
        (
            sg.CompoundPoisson(lambda x: -1 + 0 * x[:, 0], 1.0, bound=4.0),
            ValueError,
            "rate must be finite and ≥ 0, but is -1 at t = 0",
        ),
        (
            sg.CompoundPoisson(lambda x: 0 * x[:, 0] / 0, 1.0, bound=4.0),
            ValueError,
            "rate must be finite and ≥ 0, but is nan",
        ),
        (
            sg.CompoundPoisson(lambda x, t: x * t, 1.0, bound=4.0),
            ValueError,
            "rate must return one number for each trajectory",
        ),
        (sg.CompoundPoisson(1.0, lambda u: u[:, 0]), ValueError, r"sizes returned shape \(8,\)"),
        (sg.CompoundPoisson(1.0, lambda u: u / 0), ValueError, "sizes must be finite"),
        (sg.CompoundPoisson(1.0, lambda u: 1.0), TypeError, "sizes must return a tensor"),
        (
            sg.CompoundPoisson(lambda x: x[:, 0].square().mean() + 0 * x[:, 0], 1.0, bound=9.0),
            ValueError,
            "run together",
        ),
        (sg.CompoundPoisson(1.0, lambda x, u: x - x.mean() + u), ValueError, "run together"),
    ],
)
def test_what_does_not_fit_a_run_is_said_before_it(jumps, kind, said):
    calls = []

    def drift(x):
        calls.append(len(x))
        return -x

    x = torch.linspace(-1, 1, 8, dtype=F64)[:, None]
    with pytest.raises(kind, match=said) as error:
        sg.simulate(sg.JumpDiffusion(sg.ItoProcess(drift, 0.5), jumps), x, TIMES, rng=0)
    assert "in step" not in str(getattr(error.value, "__notes__", ""))


def test_one_law_for_several_coordinates_is_refused():
    for sizes in (0.5, LAPLACE):
        sde = sg.JumpDiffusion(BM, sg.CompoundPoisson(1.0, sizes))
        with pytest.raises(ValueError, match=r"one law for a state of shape \(2,\)"):
            sg.simulate(sde, torch.zeros(5, 2), TIMES, rng=0)


def test_a_bound_that_does_not_hold_on_the_way_is_said_with_numbers():
    jumps = sg.CompoundPoisson(lambda x: x[:, 0].square(), 1.0, bound=2.0)
    sde = sg.JumpDiffusion(BM, jumps)
    with pytest.raises(ValueError, match=r"rate is .* above its bound 2: .*larger bound="):
        sg.simulate(sde, torch.zeros(500, 1), torch.linspace(0, 10, 41), rng=0)


# what reads drift and diffusion alone, and what it says
READS = {
    "ReverseSDE": lambda sde: sg.ReverseSDE(sde, lambda x, t: -x),
    "FokkerPlanck2D": lambda sde: sg.FokkerPlanck2D(sde, (GRID, GRID)),
    "FokkerPlanckBatch": lambda sde: sg.FokkerPlanckBatch([sde, sde], GRID),
    "classify_boundary": lambda sde: sg.classify_boundary(sde, math.inf),
    "Grid.covering": lambda sde: sg.Grid.covering(sde),
    "ChainDensity": lambda sde: sg.ChainDensity(sde, GRID),
    "certify": lambda sde: sg.certify(sde, GRID, GRID.gaussian(0.0, 1.0), TIMES, rng=0),
    "fp_residual": lambda sde: sg.fp_residual(lambda x, t: -x, sde, X, ZERO),
    "ChainMoments": lambda sde: sg.ChainMoments(sde, 1, sg.EulerMaruyama()),
    "LinearSDE": lambda sde: sg.LinearSDE.of(sde, 1),
    "Coloured": lambda sde: sg.Coloured(sde, 0.1),
    "expectation": lambda sde: sg.expectation(sde, X[:1], 1.0, lambda x: x[:, 0], tolerance=0.1),
    "extrapolate": lambda sde: sg.extrapolate(
        sde, X[:1], TIMES, lambda x: x[:, 0], trajectories=100
    ),
    "Milstein": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.Milstein()),
    "DRI1": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.DRI1()),
    "SRA": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.SRA()),
    "SKROCK": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.SKROCK()),
    "ImplicitEuler": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.ImplicitEuler()),
    "EulerMaruyama": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.EulerMaruyama()),
    "Heun": lambda sde: [*sg.integrate(sde, sg.Heun(), X, TIMES, sg.Noise(X, rng=0))],
    "TorchSDE": lambda sde: sg.simulate(sde, X, TIMES, solver=sg.TorchSDE("srk")),
    "boundary=": lambda sde: sg.simulate(sde, X, TIMES, boundary=sg.Reflecting(-1.0, 1.0)),
    "boundary= by hand": lambda sde: sg.contain(sg.Reflecting(-1.0, 1.0), sde, X, TIMES, 0),
    "FirstPassage": lambda sde: sg.run_ensemble(
        sde, X, TIMES, trajectories=8, observables=[sg.FirstPassage(above=1.0)], progress=False
    ),
}


@pytest.mark.parametrize("sde", [MERTON, LEVY], ids=["Poisson", "stable"])
@pytest.mark.parametrize("name", READS)
def test_what_reads_drift_and_diffusion_alone_refuses_jumps_by_name(sde, name):
    jumps = type(sde.jumps[0]).__name__
    with pytest.raises(ValueError, match=rf"{name.split(' ')[0]}.* JumpDiffusion jumps \({jumps}"):
        READS[name](sde)


def test_other_ways_to_run_jumps_are_refused_by_name():
    path = sg.BrownianPath(0, TIMES)
    for ask, said in (
        (lambda: sg.simulate(MERTON, X, TIMES, brownian=path), "given Brownian path"),
        (lambda: sg.simulate(MERTON, X, TIMES, interacting=True), "run together"),
        (lambda: sg.simulate(MERTON, X, TIMES.flip(0)), "meant for increasing time"),
        (lambda: sg.JumpAdapted(sg.EulerMaruyama(compile=True)), "many steps in one call"),
        (
            lambda: [
                *sg.integrate(
                    MERTON,
                    sg.JumpAdapted(),
                    X,
                    TIMES,
                    memory=sg.JumpAdapted().begin(MERTON, TIMES),
                )
            ],
            "JumpAdapted draws jumps, but noise is None",
        ),
        (lambda: sg.JumpAdapted(sg.DDIM()), "divides a step at jumps, but DDIM"),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
    flow = sg.JumpDiffusion(sg.ItoProcess(lambda x: -x, 0.0), sg.CompoundPoisson(1.0, 1.0))
    with pytest.raises(ValueError, match="times decrease, but JumpDiffusion jumps"):
        sg.simulate(flow, X, TIMES.flip(0))


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.0), (1.5, 0.3), (1.0, 0.7), (0.7, -1.0)])
def test_stable_increments_have_their_characteristic_function(alpha, beta):
    """Three wave numbers, both parts: within 4.4 standard errors each, 1e-5 by chance."""
    n, dt = 300_000, 0.3
    motion, counters = sg.AlphaStable(alpha, scale=0.8, beta=beta), Counters(Stream(5), "stable")
    u, w = counters.uniform(torch.arange(2 * n)).reshape(2, n)
    step = motion.increment(dt, u, w)
    for k in (0.5, 1.0, 3.0):
        exact = torch.exp(-dt * motion.exponent(torch.tensor(k, dtype=F64)))
        z = torch.exp(1j * k * step)
        for found, told in ((z.real, exact.real), (z.imag, exact.imag)):
            assert abs(float(found.mean() - told)) < 4.4 * float(found.std()) / math.sqrt(n)


def test_symmetric_stable_motions_are_cauchy_and_gauss():
    """α = 1 is Cauchy of width σt, α = 2 normal of variance 2σ²t, by their quantiles."""
    u, w = Counters(Stream(8), "stable").uniform(torch.arange(200_000)).reshape(2, -1)
    cauchy = sg.AlphaStable(1.0, scale=2.0).increment(0.5, u, w)
    gauss = sg.AlphaStable(2.0, scale=2.0).increment(0.5, u, w)
    assert stats.kstest(cauchy.numpy(), "cauchy", args=(0, 1.0)).pvalue > 1e-5
    assert stats.kstest(gauss.numpy() / 2, "norm").pvalue > 1e-5
    assert isinstance(Laplace(0.0, 1.0).icdf(u), torch.Tensor)


def test_a_run_knows_its_jumps_from_others():
    """What a store holds: rates, bounds, functions by their code. Asking changes nothing."""
    cut = sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=2.0), LAPLACE, bound=2.0)
    before = to_spec(sg.JumpDiffusion(BM, cut))
    cut.check(X, ZERO)
    others = [
        cut,
        sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=1.0), LAPLACE, bound=2.0),
        sg.CompoundPoisson(lambda x: x[:, 0].abs().clamp(max=2.0), LAPLACE, bound=3.0),
        sg.CompoundPoisson(2.0, LAPLACE),
        sg.CompoundPoisson(2.0, Laplace(0.0, 2.0)),
        sg.CompoundPoisson(2.0, lambda u: u),
        sg.CompoundPoisson(2.0, lambda x, u: u),
        sg.AlphaStable(1.5),
        sg.AlphaStable(1.5, beta=0.5),
    ]
    specs = [to_spec(sg.JumpDiffusion(BM, one)) for one in others]
    assert specs[0] == before
    assert all(one != two for k, one in enumerate(specs) for two in specs[:k])
