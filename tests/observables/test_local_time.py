"""Local time: the exact law of Brownian motion at any step, Tanaka's formula, and refusals."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
N = 20_000
CHAIN = sg.DDPM(torch.full((10,), 0.1, dtype=F64))


def ks(sample, cdf):
    """Kolmogorov's √n D."""
    n = len(sample)
    u, steps = cdf(sample.sort().values), torch.arange(n + 1, dtype=F64) / n
    return math.sqrt(n) * float(torch.maximum((steps[1:] - u), (u - steps[:-1])).max())


@pytest.mark.parametrize("steps", [1, 7])
def test_of_brownian_motion_it_has_the_exact_law_at_any_step(steps):
    """From the level: σ L_t ~ |N(0, t)|, so that E L_t = √(2t/π)/σ, whatever the steps."""
    sigma, t = 1.3, 2.0
    path = sg.simulate(
        sg.BrownianMotion(sigma), torch.full((N, 1), 0.4, dtype=F64), [0.0, t],
        solver=sg.EulerMaruyama(steps), functionals=[sg.LocalTime(0.4)], rng=steps,
    )  # fmt: skip
    values = path.functionals["local_time"][-1]
    assert ks(values, lambda x: torch.special.erf(sigma * x / math.sqrt(2 * t))) < 2.470  # 1e-5
    mean, spread = math.sqrt(2 * t / math.pi) / sigma, math.sqrt(t * (1 - 2 / math.pi)) / sigma
    assert abs(float(values.mean()) - mean) < 4.42 * spread / math.sqrt(N)


def test_away_from_the_level_and_with_the_end_it_has_the_law():
    """From x at distance d: P(L = 0) = erf(d/σ√2t), and L − and |X_t − a| − d have one mean."""
    sigma, t, d = 0.8, 1.0, 0.5
    path = sg.simulate(
        sg.BrownianMotion(sigma), torch.zeros(N, 1, dtype=F64), [0.0, t],
        solver=sg.EulerMaruyama(5), functionals=[sg.LocalTime(d)], rng=0,
    )  # fmt: skip
    values = path.functionals["local_time"][-1]
    never = math.erf(d / (sigma * math.sqrt(2 * t)))
    share = float((values == 0).double().mean())
    assert abs(share - never) < 4.42 * math.sqrt(never * (1 - never) / N)
    tanaka = (path.final[:, 0] - d).abs() - d - sigma**2 * values  # a martingale, ∫ sgn dX
    assert abs(float(tanaka.mean())) < 4.42 * float(tanaka.std()) / math.sqrt(N)
    # ⟨(∫ sgn dX)²⟩ = σ² t
    square = tanaka.square()
    assert abs(float(square.mean()) - sigma**2 * t) < 4.42 * float(square.std()) / math.sqrt(N)


def test_tanakas_formula_holds_along_a_path():
    """|X_t − a| − |X_0 − a| − Σ sgn ΔX is σ² L_t to the step: their difference has no mean."""
    times = [0.0, 1.0]
    sgn = sg.StochasticIntegral(lambda x: torch.sign(x - 0.1), "ito", name="sgn")
    path = sg.simulate(
        sg.BrownianMotion(), torch.zeros(1000, 1, dtype=F64), times, rng=1,
        solver=sg.EulerMaruyama(600), functionals=[sgn, sg.LocalTime(0.1)],
    )  # fmt: skip
    ours = path.functionals["local_time"][-1]
    theirs = (path.final[:, 0] - 0.1).abs() - 0.1 - path.functionals["sgn"][-1]
    # both are the same but for O(dt^¼): a spread of 0.25 beside one of 0.6
    gap = ours - theirs
    assert float(gap.std()) < 0.35 < 0.5 < float(ours.std())
    assert abs(float(gap.mean())) < 4.42 * float(gap.std()) / math.sqrt(1000)


def test_occupation_of_a_well_at_rest_is_its_density():
    """⟨L_t⟩/t = p(a) at rest, for g that is not 1 and another coordinate."""
    well = sg.Langevin(sg.Quadratic(1.0), 0.5)
    x0 = math.sqrt(0.5) * torch.randn(2000, 2, dtype=F64, generator=torch.Generator())
    path = sg.simulate(
        well, x0, [0.0, 4.0], solver=sg.Heun(200), rng=0, functionals=[sg.LocalTime(0.5, 1)]
    )
    values = path.functionals["local_time"][-1] / 4
    density = math.exp(-0.25) / math.sqrt(math.pi)
    assert abs(float(values.mean()) - density) < 4.42 * float(values.std()) / math.sqrt(2000)


def test_on_a_ring_all_images_of_the_level_count():
    """A free particle on a ring is at each place 1/L of the time."""
    path = sg.simulate(
        sg.BrownianMotion(), torch.rand(2000, 1, dtype=F64, generator=torch.Generator()),
        [0.0, 5.0], solver=sg.EulerMaruyama(500), boundary=sg.Periodic(0.0, 1.0), rng=0,
        functionals=[sg.LocalTime(0.99)],
    )  # fmt: skip
    values = path.functionals["local_time"][-1] / 5
    assert abs(float(values.mean()) - 1) < 4.42 * float(values.std()) / math.sqrt(2000)


@pytest.mark.parametrize(
    ("sde", "told"),
    [
        (sg.ItoProcess(lambda x: -x, 0.0), "ItoProcess has no noise; take TimeIntegral"),
        (CHAIN, "is a chain on integer times; take TimeIntegral"),
    ],
)
def test_what_has_no_bridge_is_refused(sde, told):
    times = torch.arange(3.0) if sde is CHAIN else [0.0, 1.0]
    with pytest.raises(ValueError, match=told):
        sg.simulate(
            sde, torch.zeros(4, 1, dtype=F64), times, functionals=[sg.LocalTime(0.0)], rng=0
        )


@pytest.mark.parametrize("friction", [1.0, lambda x: 1 + x**2])
def test_of_positions_that_no_noise_moves_it_is_refused(friction):
    """At rest both coordinates of a trap are N(0, 1): ⟨L_t(0)⟩ = t/√(2π), of v by bridges."""
    sde = sg.UnderdampedLangevin(lambda x: x**2 / 2, friction)
    start = torch.randn(2000, 2, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0, 2, 101)
    with pytest.raises(ValueError, match="coordinate 0 of UnderdampedLangevin has none"):
        sg.simulate(sde, start, times, functionals=[sg.LocalTime(0.0)], rng=0)
    run = sg.simulate(sde, start, times, functionals=[sg.LocalTime(0.0, 1)], rng=0)
    found = run.functionals["local_time"][-1]
    gap = float(found.mean()) - 2 / math.sqrt(2 * math.pi)
    assert abs(gap) < 4.42 * float(found.std()) / math.sqrt(2000)  # 1e-5


def test_a_level_at_an_end_is_refused():
    x0 = torch.full((4, 1), 0.5, dtype=F64)
    run = {"boundary": sg.Reflecting(0.0, 1.0), "rng": 0, "solver": sg.EulerMaruyama(100)}
    with pytest.raises(ValueError, match=r"level = 0\.1 is 0\.1 from an end .* another level"):
        sg.simulate(sg.BrownianMotion(), x0, [0, 1], functionals=[sg.LocalTime(0.1)], **run)
    run["solver"] = sg.EulerMaruyama(400)
    sg.simulate(sg.BrownianMotion(), x0, [0, 1], functionals=[sg.LocalTime(0.5)], **run)
    with pytest.raises(ValueError, match="level must be finite"):
        sg.LocalTime(math.inf)
    with pytest.raises(ValueError, match="is of coordinate 1, but an event of shape"):
        sg.simulate(sg.BrownianMotion(), x0, [0, 1], functionals=[sg.LocalTime(0.1, 1)])
