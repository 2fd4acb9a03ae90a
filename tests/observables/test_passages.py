"""First passages against exact laws: of the chain where it is only looked at, else of the path."""

import math

import numpy as np
import pytest
import torch
from exact import box_survival
from scipy import integrate, special, stats

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64
N = 200_000


def passages(sde, x0, times, steps, *observables, n=N, **options):
    run = sg.run_ensemble(
        sde, torch.full((1, 1), x0, dtype=F64), times, trajectories=n,
        solver=sg.EulerMaruyama(substeps=steps), observables=observables, rng=4, progress=False,
        **options,
    )  # fmt: skip
    return [run.observables[o.name] for o in observables]


def drifted(t, x0=1.0, v=-1.0, d=0.5):
    """Survival of dX = v dt + √(2D) dW above 0."""
    s = math.sqrt(2 * d * t)
    high = special.ndtr((x0 + v * t) / s)
    return high - math.exp(-v * x0 / d) * special.ndtr((v * t - x0) / s)


def looked_at(dt, steps, x0=1.0, v=-1.0, d=0.5):
    """Survival of its chain, that is looked at after each step: Nyström's method, to 1e-9."""
    x, w = np.polynomial.legendre.leggauss(400)
    x, w = 4 * (x + 1), 4 * w  # (0, 8)
    s = math.sqrt(2 * d * dt)

    def kernel(y):
        return np.exp(-((x[:, None] - y - v * dt) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * np.pi))

    p = kernel(np.array([x0]))[:, 0]
    for _ in range(steps - 1):
        p = kernel(x) @ (w * p)
    return float(w @ p)


def test_between_two_steps():
    """Where f and g are constant the bridge is exact, for any dt; 4.4 standard errors, 1e-5."""
    assert drifted(1.0) == pytest.approx(0.332, abs=5e-4)
    assert looked_at(0.01, 100) == pytest.approx(0.358, abs=5e-4)
    sde = sg.ItoProcess(lambda x: torch.full_like(x, -1.0), 1.0)
    at = sg.FirstPassage(below=0.0, bridge=False, name="looked at")
    path, chain = passages(sde, 1.0, [0.0, 0.5, 1.0], 50, sg.FirstPassage(below=0.0), at)
    assert float(path.survival[0]) == 1.0
    for k, t in ((1, 0.5), (2, 1.0)):
        for found, exact in ((path, drifted(t)), (chain, looked_at(0.01, 100 * k // 2))):
            error = math.sqrt(exact * (1 - exact) / N)
            assert abs(float(found.survival[k]) - exact) < 4.42 * error
            assert float(found.survival_error[k]) == pytest.approx(error, rel=0.02)
    (coarse,) = passages(sde, 1.0, [0.0, 1.0], 5, sg.FirstPassage(below=0.0))
    assert abs(float(coarse.survival[1]) - drifted(1.0)) < 4.42 * math.sqrt(0.332 * 0.668 / N)


def test_the_histogram_of_passage_times_is_inverse_gaussian(small_blocks):
    """x₀(4πDt³)^−½ exp(−(x₀ + vt)²/4Dt), integrated over each interval; 4.9 errors, 1e-6 each."""
    x0, v, d, n = 1.0, -1.5, 0.5, 20_000
    times = torch.linspace(0, 2, 11, dtype=F64)
    sde = sg.ItoProcess(lambda x: torch.full_like(x, v), math.sqrt(2 * d))
    (found,) = passages(sde, x0, times, 2, sg.FirstPassage(below=0.0), n=n)
    law = stats.invgauss(mu=2 * d / (x0 * -v), scale=x0**2 / (2 * d))
    share = torch.tensor(np.diff(law.cdf(times.numpy())))
    error = (share * (1 - share) / n).sqrt() / 0.2
    assert float(((found.density - share / 0.2) / error).abs().max()) < 4.9
    torch.testing.assert_close(found.density_error[2:], error[2:], rtol=0.2, atol=0)
    assert int(found.histogram.sum()) == found.passed
    assert float(found.survival[-1]) == pytest.approx(1 - float(found.density.sum()) * 0.2)


def test_the_mean_time_out_of_an_interval():
    """From x in (0, L): x (L − x)/2D; in steps of dt the time is known to dt/2."""
    length, x, d, n = 1.0, 0.3, 0.5, 20_000
    out = sg.FirstPassage(below=0.0, above=length)
    (found,) = passages(sg.BrownianMotion(sigma=1.0), x, [0.0, 1.0, 6.0], 400, out, n=n)
    assert found.passed == n  # a chance of 4e-9 to be still inside at t = 6
    exact = x * (length - x) / (2 * d)
    assert abs(found.mean - exact) < 4.42 * found.mean_error + 1e-3
    # the second moment solves D T₂″ = −2 T₁
    second = 2 * integrate.quad(
        lambda y: (min(x, y) * (length - max(x, y)) / (length * d)) * y * (length - y) / (2 * d),
        0, length, points=[x],
    )[0]  # fmt: skip
    spread = math.sqrt(second - exact**2)
    assert found.mean_error == pytest.approx(spread / math.sqrt(n), rel=0.05)


def test_a_constant_rate():
    """Passages per time waited; Brownian motion comes to 1 by t with chance erfc(1/√2t)."""
    found = passages(
        sg.BrownianMotion(sigma=1.0), 0.0, [0.0, 0.5, 2.0], 40,
        sg.FirstPassage(above=1.0), n=20_000,
    )[0]  # fmt: skip
    survival = special.erf(1 / math.sqrt(2 * 2.0))
    assert abs(float(found.survival[2]) - survival) < 4.42 * math.sqrt(0.25 / 20_000)
    # exposure is ∫ survival dt
    waited = integrate.quad(lambda t: special.erf(1 / math.sqrt(2 * t)), 0, 2)[0]
    assert found.exposure / found.count == pytest.approx(waited, abs=4.42 * 0.7 / 141)
    assert found.rate == pytest.approx(found.passed / found.exposure, rel=1e-14)
    assert found.rate_error == pytest.approx(found.rate / math.sqrt(found.passed), rel=1e-14)
    with pytest.raises(
        ValueError, match=r"of 20000 trajectories had not passed by t = 2, so that"
    ):
        _ = found.mean


def test_regions_and_their_mirror_images():
    """Up and down, from the left and from the right: laws are equal, and so is the interval's."""
    sde, times = sg.BrownianMotion(sigma=1.0), [0.0, 1.0]
    exact = special.erf(1 / math.sqrt(2))
    error = 4.42 * math.sqrt(exact * (1 - exact) / 50_000)
    for x0, region in (
        (0.0, sg.FirstPassage(above=1.0)),
        (0.0, sg.FirstPassage(below=-1.0)),
        (0.0, sg.FirstPassage(between=(1.0, 1.01))),
        (2.01, sg.FirstPassage(between=(1.0, 1.01))),
    ):
        (found,) = passages(sde, x0, times, 4, region, n=50_000)
        assert abs(float(found.survival[1]) - exact) < error
    (found,) = passages(sde, 1.0, times, 4, sg.FirstPassage(between=(0.5, 1.0)), n=100)
    assert found.waiting.tolist() == [0, 0]
    assert (found.mean, found.exposure) == (0.0, 0.0)  # who starts in it has passed
    assert math.isnan(found.rate)
    assert math.isnan(found.rate_error)


def test_a_chain_that_jumps_over_an_interval_has_not_been_seen_in_it():
    flow = sg.ItoProcess(lambda x: torch.ones_like(x), 0.0)
    over = sg.FirstPassage(between=(0.15, 0.18), bridge=False, name="over")
    hit = sg.FirstPassage(between=(0.15, 0.25), bridge=False, name="hit")
    found = passages(flow, 0.0, [0.0, 0.5], 5, over, hit, n=3)
    assert [p.passed for p in found] == [0, 3]


def test_where_rows_are_not_sorted_out_the_law_is_the_same(monkeypatch):
    """As on a GPU, whose host would have to wait for them; 4.4 standard errors."""
    monkeypatch.setattr("sdegen.observables.passages._SORTED_OUT", set())
    monkeypatch.setattr(torch.Tensor, "nonzero", None)
    sde = sg.ItoProcess(lambda x: torch.full_like(x, -1.0), lambda x: torch.ones_like(x))
    (path,) = passages(sde, 1.0, [0.0, 1.0], 20, sg.FirstPassage(below=0.0), n=50_000)
    exact = drifted(1.0)
    assert abs(float(path.survival[1]) - exact) < 4.42 * math.sqrt(exact * (1 - exact) / 50_000)
    out = sg.FirstPassage(below=0.0, above=1.0)
    (found,) = passages(sg.BrownianMotion(sigma=1.0), 0.3, [0.0, 6.0], 400, out, n=5000)
    assert abs(found.mean - 0.21) < 4.42 * found.mean_error + 0.0075


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_not_waited_for():
    x0 = torch.zeros(1, 1, device="cuda")
    watched = sg.FirstPassage(above=0.5)
    at = watched.begin(
        sg.Block(sg.BrownianMotion(), torch.arange(2.0), torch.linspace(0, 1, 9).double(), None,
                 stream(0, "x"))
    )  # fmt: skip
    at.see(0, x0)
    at.step(0, x0, x0 + 0.1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(1, 8):
            at.step(i, x0, x0 + 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_multiplicative_noise_and_coordinates():
    """log X of geometric Brownian motion is Brownian with drift: dt small, bridge of order dt."""
    sde, n = sg.ItoProcess(lambda x: 0 * x, lambda x: 0.5 * x), 50_000
    x0 = torch.tensor([[3.0, 1.0]], dtype=F64)
    run = sg.run_ensemble(
        sde, x0, [0.0, 1.0], trajectories=n, solver=sg.EulerMaruyama(substeps=100), rng=2,
        observables=[sg.FirstPassage(below=0.7, coordinate=1)], progress=False,
    )  # fmt: skip
    exact = drifted(1.0, x0=math.log(1 / 0.7), v=-0.125, d=0.125)
    found = run.observables["first_passage"].survival[1]
    assert abs(float(found) - exact) < 4.42 * math.sqrt(exact * (1 - exact) / n) + 0.001


def test_without_noise_it_is_the_crossing_itself():
    flow = sg.ItoProcess(lambda x: torch.ones_like(x), 0.0)
    (found,) = passages(flow, 0.0, [0.0, 1.0, 2.0], 10, sg.FirstPassage(above=1.35), n=10)
    assert found.waiting.tolist() == [10, 10, 0]
    assert found.mean == pytest.approx(1.35, abs=1e-12)  # the middle of the step 1.3 … 1.4


def test_time_may_decrease():
    """A reverse process: times since the start are positive."""
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    gauss = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(vp)
    reverse = sg.ReverseSDE(vp, gauss.score)
    (found,) = passages(
        reverse, 0.0, vp.time_grid(20), 1, sg.FirstPassage(above=1.0), n=1000
    )  # fmt: skip
    assert float(found.times[-1]) == pytest.approx(1 - vp.t_min)
    assert 0 < found.passed < 1000


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: sg.FirstPassage(), "a first passage needs a region: above=…, below=…, both, or"),
        (lambda: sg.FirstPassage(above=1.0, between=(0.0, 1.0)), "needs a region"),
        (lambda: sg.FirstPassage(above=-1.0, below=1.0), r"below < above.*but are \[1.0, -1.0\]"),
        (lambda: sg.FirstPassage(between=(1.0, 1.0)), r"between\[0\] < between\[1\]"),
        (lambda: sg.FirstPassage(above=math.inf), "must be finite"),
    ],
)  # fmt: skip
def test_refusals(make, told):
    with pytest.raises(ValueError, match=told):
        make()


# --- edges that move, absorbing ends, and turns


def test_a_region_whose_edge_moves_along_a_line_is_met_with_its_exact_chance():
    """Siegmund 1985, eq. (3.14), at any step: the bridge to a line is exact."""
    n, t, a, c = 40_000, 1.0, 1.0, -0.4
    found = passages(
        sg.BrownianMotion(), 0.0, [0.0, 0.5, t], 2, sg.FirstPassage(above=lambda s: a + c * s), n=n
    )[0]
    normal = stats.norm.cdf
    right = normal((a + c * t) / t**0.5)
    right -= math.exp(-2 * a * c) * normal((c * t - a) / t**0.5)
    noise = 4.42 * math.sqrt(right * (1 - right) / n)  # false alarm 1e-5
    assert abs(float(found.survival[-1]) - right) < noise


def test_edges_that_meet_are_refused():
    region = sg.FirstPassage(above=lambda t: 1 - t, below=lambda t: t - 1)
    with pytest.raises(ValueError, match=r"below < above at all times, but at t = 1 .* end"):
        passages(sg.BrownianMotion(), 0.0, [0.0, 1.0], 1, region, n=2)


@pytest.mark.parametrize("steps", [4, 40])
def test_an_absorbing_end_and_a_passage_at_it_are_counted_once(steps):
    n, box = 40_000, sg.Absorbing(0.0, 1.0)
    x0, times = torch.full((1, 1), 0.3, dtype=torch.float64), [0.0, 0.1, 0.2]
    run = sg.run_ensemble(
        sg.BrownianMotion(), x0, times, trajectories=n, solver=sg.EulerMaruyama(steps), rng=1,
        boundary=box, observables=[sg.FirstPassage(above=1.0, below=0.0)], progress=False,
    ).observables["first_passage"]  # fmt: skip
    path = sg.simulate(
        sg.BrownianMotion(), x0.expand(n, 1).contiguous(), times, rng=1, boundary=box,
        solver=sg.EulerMaruyama(steps),
    )  # fmt: skip
    assert torch.equal(run.waiting, (~path.absorbed).sum(1))
    right = box_survival(1.0, 0.5, 0.3, 0.2)
    assert abs(float(run.survival[-1]) - right) < 4.42 * math.sqrt(right * (1 - right) / n)


def test_a_passage_before_an_absorbing_end_is_not_drawn_for_twice():
    """To 0.8 on the way to 1, with steps so long that both are touched in one."""
    n, t = 40_000, 0.2
    (found,) = passages(
        sg.BrownianMotion(), 0.3, [0.0, t], 2, sg.FirstPassage(above=0.8), n=n,
        boundary=sg.Absorbing(high=1.0),
    )  # fmt: skip
    right = math.erf(0.5 / math.sqrt(2 * t))  # reflection principle
    assert abs(float(found.survival[-1]) - right) < 4.42 * math.sqrt(right * (1 - right) / n)


def test_on_a_ring_the_region_lies_on_the_line():
    options = {"n": 2000}
    ring = {"boundary": sg.Periodic(-1.0, 1.0)}
    region = sg.FirstPassage(above=2.5)
    line, around = (
        passages(sg.BrownianMotion(), 0.0, [0.0, 2.0, 4.0], 50, region, **options, **o)[0]
        for o in ({}, ring)
    )
    assert torch.equal(line.waiting, around.waiting)
    assert line.passed > 100
