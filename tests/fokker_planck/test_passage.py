import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import sdegen as sg
from tests import exact
from tests.exact import slope

V, D, LENGTH = -0.5, 0.6, 2.0
DRIFTING = sg.ItoProcess(drift=lambda x: torch.full_like(x, V), diffusion=math.sqrt(2 * D))


def test_over_the_barrier_of_a_double_well():
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.2))
    grid = sg.Grid(-3.0, 1.0, 100)
    passage = sg.FokkerPlanck(sde, grid, ("no-flux", "absorbing")).first_passage()
    assert float(grid.nodes[50]) == -1.0
    assert abs(float(passage.mean[50]) / 66.26862636491786 - 1) < 1e-12
    assert float(passage.to_high.min()) == 1
    # a memoryless escape: the standard deviation is the mean, but for the time to get ready
    assert 0.9 < float(passage.std[50] / passage.mean[50]) < 1


def test_a_barrier_of_forty_kt_costs_no_digits():
    d = 0.25 / 40
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(2 * d))
    passage = sg.FokkerPlanck(
        sde, sg.Grid(-1.8, 1.0, 560), ("no-flux", "absorbing")
    ).first_passage()

    def inner(y):
        # ∫_{−∞}^{y} e^{−U/D}, shifted by the bottom of the well
        return integrate.quad(lambda s: math.exp(-(s**4 / 4 - s**2 / 2 + 0.25) / d), -1.8, y,
                              points=[-1.0], epsabs=0, epsrel=1e-12, limit=200)[0]  # fmt: skip

    outer = integrate.quad(lambda y: math.exp((y**4 / 4 - y**2 / 2) / d) * inner(y), -1.0, 1.0,
                           points=[0.0], epsabs=0, epsrel=1e-10, limit=200)[0]  # fmt: skip
    log_exact = math.log(outer / d) + 0.25 / d
    assert float(passage.x[160]) == pytest.approx(-1.0)
    assert abs(float(passage.mean[160].log()) - log_exact) < 1e-8


def test_exit_from_a_box_by_both_walls():
    grid = sg.Grid(0.0, LENGTH, 100)
    x = grid.nodes.numpy()
    passage = sg.FokkerPlanck(DRIFTING, grid, "absorbing").first_passage()
    committor = np.expm1(-V * x / D) / np.expm1(-V * LENGTH / D)
    np.testing.assert_allclose(passage.to_high.numpy(), committor, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(passage.mean.numpy(), (LENGTH * committor - x) / V, atol=1e-13)
    still = sg.FokkerPlanck(sg.BrownianMotion(math.sqrt(2 * D)), grid, "absorbing").first_passage()
    np.testing.assert_allclose(still.mean.numpy(), x * (LENGTH - x) / (2 * D), atol=1e-13)
    second = (x**4 - 2 * LENGTH * x**3 + LENGTH**3 * x) / (12 * D**2)
    np.testing.assert_allclose(still.moments[1].numpy(), second, atol=1e-12)
    np.testing.assert_allclose(
        still.std.numpy()[1:-1], np.sqrt(second - still.mean.numpy() ** 2)[1:-1], rtol=1e-9
    )


def test_exit_downwards_is_the_mirror_image():
    trap = sg.OrnsteinUhlenbeck(sigma=1.0)

    def passage(low, high, boundary):
        return sg.FokkerPlanck(trap, sg.Grid(low, high, 100), boundary).first_passage()

    up = passage(-4.0, 1.0, ("no-flux", "absorbing"))
    down = passage(-1.0, 4.0, ("absorbing", "no-flux"))
    torch.testing.assert_close(up.moments, down.moments.flip(1), rtol=1e-12, atol=1e-12)
    assert float(down.to_high.abs().max()) == 0


def test_from_a_wall_without_noise():
    # dX = (1 − X) dt + √X dW up to 3, from quadrature of s = x⁻² e^{2x}, m = 2x e^{−2x}
    sde = sg.ItoProcess(drift=lambda x: 1 - x, diffusion=lambda x: x.sqrt())

    def below(y):
        return 0.5 * (1 - math.exp(-2 * y) * (1 + 2 * y))

    def mean(x):
        return integrate.quad(lambda y: math.exp(2 * y) / y**2 * below(y), x, 3, epsrel=1e-12)[0]

    errors = []
    for n in (50, 100, 200):
        grid = sg.Grid(0.0, 3.0, n)
        passage = sg.FokkerPlanck(sde, grid, ("no-flux", "absorbing")).first_passage()
        errors.append(abs(float(passage.mean[n // 2]) / mean(1.5) - 1))
        assert abs(float(passage.mean[0]) / mean(1e-9) - 1) < 2e-4 * (50 / n) ** 3
        assert 3 * float(passage.error["mean"][n // 2]) > errors[-1]
    assert max(errors) < 1e-8  # coarse grids are refined inside


def test_survival_and_density_of_first_passages():
    x0 = 2.0
    times = [0.0, 0.5, 1.0, 4.0]
    t = np.asarray(times[1:])
    root = np.sqrt(4 * D * t)
    gone = 0.5 * special.erfc((x0 + V * t) / root)
    gone = gone + 0.5 * math.exp(-V * x0 / D) * special.erfc((x0 - V * t) / root)
    density = exact.first_passage_density(t, x0=x0, v=V, d=D)
    cells, errors = (400, 800, 1600), []
    for n in cells:
        solver = sg.FokkerPlanck(DRIFTING, sg.Grid(0.0, 20.0, n), ("absorbing", "no-flux"))
        law = solver.survival(x0, times)
        errors.append(np.abs(law.probability.numpy()[1:] - (1 - gone)).max())
        assert float(law.probability[0]) == 1
    assert abs(slope([1 / n for n in cells], errors) - 4) < 0.2
    np.testing.assert_allclose(1 - law.probability.numpy()[1:], gone, rtol=1e-7)
    np.testing.assert_allclose(law.density.numpy()[1:], density, rtol=1e-8)
    fine = sg.FokkerPlanck(DRIFTING, sg.Grid(0.0, 20.0, 3200), ("absorbing", "no-flux"))
    late = 1 - fine.survival(x0, times).probability.numpy()[2:]
    np.testing.assert_allclose(late, gone[1:], rtol=1e-8)


def test_survival_on_a_clock_that_runs_unevenly():
    # dX = √a(t) dW, a = 1 + ½ sin t: Brownian motion at the time A = t + ½ (1 − cos t)
    sde = sg.ItoProcess(
        drift=lambda x: 0 * x,
        diffusion=lambda x, t: (1 + 0.5 * torch.sin(t)).sqrt(),
        noise="additive",
    )
    x0, times = 2.0, torch.tensor([0.0, 0.5, 1.0, 4.0], dtype=torch.float64)
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 24.0, 800), ("absorbing", "no-flux"))
    law = solver.survival(x0, times)
    t = times[1:]
    elapsed = t + 0.5 * (1 - torch.cos(t))
    inside = torch.erf(x0 / torch.sqrt(2 * elapsed))
    density = (1 + 0.5 * torch.sin(t)) * torch.from_numpy(
        exact.first_passage_density(elapsed.numpy(), x0=x0, v=0.0, d=0.5)
    )
    assert float((law.probability[1:] - inside).abs().max()) < 1e-6
    assert float((law.density[1:] - density).abs().max()) < 1e-6


def test_a_passage_from_between_the_nodes():
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.2))
    walls = ("no-flux", "absorbing")
    fine = sg.FokkerPlanck(sde, sg.Grid(-3.0, 1.0, 1600), walls).first_passage()
    errors = []
    for cells in (100, 200, 400):
        passage = sg.FokkerPlanck(sde, sg.Grid(-3.0, 1.0, cells), walls).first_passage()
        torch.testing.assert_close(passage.at(passage.x).moments, passage.moments)
        between = passage.at(fine.x)
        # in the layer beside the steep wall the cubic has no order yet
        errors.append(float((between.mean - fine.mean).abs()[fine.x > -2.5].max()))
    assert abs(slope([1 / 100, 1 / 200, 1 / 400], errors) - 3) < 0.3
    # between two walls, x (L − x)/2D is a parabola, which a cubic is
    box = sg.FokkerPlanck(sg.BrownianMotion(), sg.Grid(0.0, 2.0, 20), "absorbing").first_passage()
    start = box.at(0.123)
    assert float(start.mean) == pytest.approx(0.123 * (2 - 0.123), rel=1e-12)
    assert float(start.to_high) == pytest.approx(0.123 / 2, rel=1e-12)
    assert start.std.shape == (1,)
    with pytest.raises(ValueError, match=r"x0 = 3 lies outside of the grid \[0, 2\]"):
        box.at(3.0)


def test_kramers_formula_and_its_error():
    heights, errors = (10.0, 20.0, 40.0), []
    for height in heights:
        d = 0.25 / height
        sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(2 * d))
        solver = sg.FokkerPlanck(sde, sg.Grid(-2.2, 1.0, 640), ("no-flux", "absorbing"))
        escape = solver.escape()
        assert escape.well == pytest.approx(-1.0, abs=1e-4)
        assert escape.barrier == pytest.approx(0.0, abs=1e-4)
        assert escape.height == pytest.approx(height, rel=1e-9)
        # √(|U″_b| U″_w)/2π e^{−ΔU/D} with U″ = −1 and 2
        assert escape.kramers == pytest.approx(
            math.sqrt(2) / (2 * math.pi) * math.exp(-height), rel=1e-3
        )
        assert escape.rate * float(solver.first_passage().mean[240]) == pytest.approx(1, rel=1e-6)
        errors.append(escape.kramers_error)
    # the first correction to Laplace's method is of relative order D/ΔU
    assert abs(slope([1 / h for h in heights], errors) - 1) < 0.1


WELL = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.2))
TILTED = sg.ItoProcess(drift=lambda x: x - x**3 + 0.3, diffusion=math.sqrt(0.1))


@pytest.mark.parametrize(
    ("sde", "low", "high", "error", "message"),
    [
        # the rate would be 31 % too high
        (
            WELL,
            -1.1,
            1.0,
            ValueError,
            "low end of the grid, x = -1.1, is 0.896 of its peak: the grid cuts",
        ),
        # infinite, and 60 if the end of the grid were a wall
        (
            sg.BrownianMotion(),
            -5.0,
            3.0,
            sg.NotNormalizableError,
            "no first passage of finite mean.* towards low x",
        ),
        # behind the barrier there is a deeper well, by 12 kT, which does not count
        (TILTED, -1.1, 1.1, ValueError, "low end of the grid, x = -1.1, is 0.253 of its peak"),
    ],
)
def test_a_well_that_the_grid_cuts_is_refused_from_both_sides(sde, low, high, error, message):
    cut = sg.FokkerPlanck(sde, sg.Grid(low, high, 200), ("no-flux", "absorbing"))
    with pytest.raises(error, match=message):
        cut.first_passage()
    mirrored = sg.ItoProcess(
        drift=lambda x, t: -sde.drift(-x, t), diffusion=sde.constant_noise, noise="additive"
    )
    cut = sg.FokkerPlanck(mirrored, sg.Grid(-high, -low, 200), ("absorbing", "no-flux"))
    with pytest.raises(error, match=message.replace("low", "high").replace("= -", "= ")):
        cut.first_passage()


def test_an_escape_from_a_cut_well_is_refused_and_a_real_wall_is_not():
    grid, walls = sg.Grid(-1.1, 1.0, 200), ("no-flux", "absorbing")
    with pytest.raises(ValueError, match="the grid cuts it"):
        sg.FokkerPlanck(WELL, grid, walls).escape()
    between = sg.FokkerPlanck(WELL, grid, walls, truncation_is_physical=True)
    # ∫ e^{U/D} ∫_{−1.1}^{y} e^{−U/D} dz dy/D from the bottom of the well, by scipy's quad
    assert 1 / between.escape().rate == pytest.approx(mean_time(-1.1), rel=1e-4)
    wide = sg.FokkerPlanck(WELL, sg.Grid(-3.0, 1.0, 400), walls)
    assert 1 / wide.escape().rate == pytest.approx(mean_time(-3.0), rel=1e-4)


def mean_time(low, d=0.1):
    def inner(y):
        return integrate.quad(lambda z: math.exp((z**2 / 2 - z**4 / 4) / d), low, y)[0]

    return integrate.quad(lambda y: math.exp((y**4 / 4 - y**2 / 2) / d) * inner(y), -1, 1)[0] / d


def test_a_steady_drift_to_the_wall_is_cut_by_no_grid():
    # e^Φ rises or falls all the way, the mean time is |x − wall|/|v| but for the layer at the end
    for v, low, high, walls in (
        (0.5, -40.0, 0.0, ("no-flux", "absorbing")),
        (-0.5, 0.0, 40.0, ("absorbing", "no-flux")),
    ):
        sde = sg.ItoProcess(drift=lambda x, v=v: torch.full_like(x, v), diffusion=1.0)
        passage = sg.FokkerPlanck(sde, sg.Grid(low, high, 400), walls).first_passage()
        assert float(passage.mean[200]) == pytest.approx(40, rel=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s("no-flux").first_passage(), "a first passage needs an absorbing wall"),
        (
            lambda s: s("absorbing").first_passage(moments=0),
            "moments must be ≥ 1, but is 0",
        ),
        (lambda s: s("absorbing").first_passage(moments=1).std, "needs two moments"),
        (lambda s: s("absorbing").survival(0.5, [1.0, 2.0]), r"times\[0\] must be 0, but is 1"),
        (lambda s: s("absorbing").first_passage(rtol=0.0), "rtol must be .* but is 0"),
        (lambda s: s("absorbing").survival(0.5, [0.0, 1.0], rtol=-1.0), "rtol must be"),
        (lambda s: s("absorbing").spectrum(2, rtol=-1.0), "rtol must be"),
        (lambda s: s("absorbing").escape(), "one absorbing wall and one without flux"),
        (lambda s: s(("no-flux", "absorbing")).escape(), "no barrier between the well"),
    ],
)
def test_refusals(call, message):
    grid = sg.Grid(-6.0, 1.0, 140)
    trap = sg.OrnsteinUhlenbeck()
    with pytest.raises(ValueError, match=message):
        call(lambda boundary: sg.FokkerPlanck(trap, grid, boundary))


def test_a_passage_under_a_changing_drift_is_refused():
    sde = sg.ItoProcess(drift=lambda x, t: -x + t, diffusion=1.0)
    with pytest.raises(
        ValueError, match="a first passage was asked for, but drift or diffusion depend on time"
    ):
        sg.FokkerPlanck(sde, sg.Grid(-1.0, 1.0, 50), "absorbing").first_passage()


def test_passage_of_a_process_that_touches_a_wall_without_noise():
    # dX = (θ − X) dt + σ√X dW with 2θ < σ²: T(x) = ∫_x^b s(y) ∫_0^y m, m ∝ x^{−5/9} e^{−x/1.125}
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    grid = sg.Grid(0.0, 3.0, 300)
    mean = sg.FokkerPlanck(sde, grid, ("no-flux", "absorbing")).first_passage(moments=1).mean
    law = stats.gamma(4 / 9, scale=1.125)
    total = special.gamma(4 / 9) * 1.125 ** (4 / 9) / (1.5**2 / 2)
    for i in (0, 1, 2, 50, 200):
        exact = (
            total
            * integrate.quad(
                lambda y: y ** (-4 / 9) * math.exp(y / 1.125) * law.cdf(y),
                float(grid.nodes[i]),
                3.0,
            )[0]
        )
        assert abs(float(mean[i]) / exact - 1) < 1e-4


def test_errors_of_passages_stand_beside_them():
    # Fourier sums and D that varies: the truth is the same on 8 times as many cells
    rng = np.random.default_rng(11)
    checked = 0
    for _ in range(12):
        k, a, phase = rng.integers(1, 4, 3), rng.uniform(-2, 2, 3), rng.uniform(0, 6, 3)
        span = rng.uniform(0, 1.5)

        def drift(x, k=k, a=a, phase=phase):
            waves = sum(float(c) * torch.sin(float(n) * x + float(s)) for n, c, s in
                        zip(k, a, phase, strict=True))  # fmt: skip
            return waves - 0.3 * x**3

        sde = sg.ItoProcess(
            drift=drift, diffusion=lambda x, span=span: torch.exp(span * torch.sin(2 * x))
        )
        cells = int(rng.integers(12, 60))
        walls = [("no-flux", "absorbing"), ("absorbing", "absorbing")][int(rng.integers(2))]
        low = -5.0 if walls[0] == "no-flux" else -1.5
        rough = sg.FokkerPlanck(sde, sg.Grid(low, 1.5, cells), walls).first_passage()
        fine = sg.FokkerPlanck(sde, sg.Grid(low, 1.5, 8 * cells), walls).first_passage(rtol=1e-9)
        for name in ("moments", "to_high"):
            got, right = getattr(rough, name), getattr(fine, name)[..., ::8]
            off = (got - right).abs() / right.clamp(min=1e-300)
            off = torch.where(right > 0, off, 0.0)
            assert float((off - 3 * rough.error[name]).max()) <= 1e-10
            checked += off.numel()
        assert float(rough.error["mean"].max()) < 1e-5
    assert checked > 500


def test_a_jump_within_a_cell_is_told_and_refined():
    sde = sg.ItoProcess(drift=lambda x: torch.where(x < 0.123, 3.0, -3.0), diffusion=1.0)
    walls = ("no-flux", "absorbing")
    nodes = np.concatenate([np.linspace(-5, 0.123, 801), np.linspace(0.123, 1, 401)[1:]])
    exact = sg.FokkerPlanck(sde, sg.Grid.of(torch.from_numpy(nodes)), walls).first_passage()
    solver = sg.FokkerPlanck(sde, sg.Grid(-5.0, 1.0, 60), walls)
    got = solver.first_passage()
    truth = float(exact.at(0.0).mean)
    assert abs(float(got.mean[50]) / truth - 1) <= 3 * float(got.error["mean"][50])
    with pytest.raises(sg.SolverError, match="the first passage was not found to 1e-10"):
        solver.first_passage(rtol=1e-10)


def test_passages_beyond_the_largest_number_are_refused():
    def over(height):
        sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.5 / height))
        return sg.FokkerPlanck(sde, sg.Grid(-1.5, 1.0, 4000), ("no-flux", "absorbing"))

    with pytest.raises(sg.SolverError, match=r"moment 2 .* above 1e308.* moments=1"):
        over(500.0).first_passage()
    mean = over(500.0).first_passage(moments=1).mean
    assert 490 < float(mean.max().log()) < 510
    for ask in (lambda s: s.first_passage(moments=1), lambda s: s.escape()):
        with pytest.raises(sg.SolverError, match=r"moment 1 .* the barrier is above 700 kT"):
            ask(over(800.0))


def test_a_passage_without_spread_says_that_its_width_is_lost():
    sde = sg.ItoProcess(drift=lambda x: torch.full_like(x, 1.0), diffusion=1e-5)
    passage = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 100), "absorbing").first_passage()
    assert float(passage.mean[50]) == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(sg.SolverError, match=r"standard deviation .* lost in the rounding"):
        _ = passage.std


@pytest.mark.parametrize("height", [10.0, 25.0, 40.0])
def test_survival_behind_high_barriers_has_the_digits_of_its_slow_rate(height):
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.5 / height))
    solver = sg.FokkerPlanck(sde, sg.Grid(-2.2, 1.0, 400), ("no-flux", "absorbing"))
    mean = float(solver.first_passage(moments=1).at(-1.0).mean)
    times = [0.0, 30.0, mean / 2, mean, 3 * mean, 30 * mean]
    law = solver.survival(-1.0, times)
    rate = float(solver.spectrum(2).rates[0])
    assert bool((law.density >= 0).all())
    assert bool((law.probability > 0).all())
    # from the bottom of the well S = c e^{−λt}, and ∫ S dt = ⟨τ⟩ makes c = λ⟨τ⟩ but at the start
    c = rate * mean
    exact = c * torch.exp(-rate * torch.tensor(times, dtype=torch.float64))
    assert float((law.probability / exact - 1)[2:].abs().max()) < (1e-3 if height < 20 else 1e-6)
    assert float((law.density / (rate * exact) - 1)[2:].abs().max()) < (
        1e-3 if height < 20 else 1e-6
    )
    if height > 20:  # a passage flow 10⁻¹² of what moves in the well, and less
        assert float(law.density[1] * mean) == pytest.approx(1, rel=1e-5)
    assert float(law.error) < 1e-3


def test_a_survival_that_rounding_has_eaten_is_refused():
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(0.5 / 40))
    solver = sg.FokkerPlanck(sde, sg.Grid(-2.2, 1.0, 400), ("no-flux", "absorbing"))
    with pytest.raises(sg.SolverError, match=r"density of first passages at t = 0.05 is lost"):
        solver.survival(-1.0, [0.0, 0.05, 100.0])
    law = solver.survival(-1.0, [0.0, 100.0])
    assert float(law.density[1]) > 0


def test_the_error_of_a_survival_is_that_of_its_grid():
    x0, times = 2.0, [0.0, 0.5, 1.0, 4.0]
    t = np.asarray(times[1:])
    root = np.sqrt(4 * D * t)
    gone = 0.5 * special.erfc((x0 + V * t) / root)
    gone = gone + 0.5 * math.exp(-V * x0 / D) * special.erfc((x0 - V * t) / root)
    for cells in (60, 120, 240, 481):
        solver = sg.FokkerPlanck(DRIFTING, sg.Grid(0.0, 20.0, cells), ("absorbing", "no-flux"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the coarse ones warn
            law = solver.survival(x0, times)
        off = np.abs(law.probability.numpy()[1:] / (1 - gone) - 1)
        assert (off <= 3 * law.error["probability"].numpy()[1:]).all()
    coarse = sg.FokkerPlanck(DRIFTING, sg.Grid(0.0, 20.0, 120), ("absorbing", "no-flux"))
    fine = coarse.survival(x0, times, rtol=1e-5)
    np.testing.assert_allclose(fine.probability.numpy()[1:], 1 - gone, rtol=1e-5)
