"""The jump term of the Fokker–Planck equation against exact densities, and what refuses it."""

import math

import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal, Uniform

import sdegen as sg
from sdegen.fokker_planck.discretization.jump_lengths import Tabulated, uniform_rule
from sdegen.fokker_planck.discretization.jump_matrix import landings

F64 = torch.float64


def number(value):
    return torch.tensor(value, dtype=F64)


NORMAL = Normal(number(-0.1), number(0.3))
LAPLACE, EXPONENTIAL = Laplace(number(0.0), number(0.6)), Exponential(number(1 / 0.6))
DRIFT, SIGMA, RATE = 0.05, 0.3, 2.0
MERTON = sg.JumpDiffusion(
    sg.ItoProcess(lambda x: torch.full_like(x, DRIFT), SIGMA), sg.CompoundPoisson(RATE, NORMAL)
)
GRID = sg.Grid(-6.0, 6.0, 200)


def merton(x, t):
    """The density of log S from 0: Gaussians of n jumps, with Poisson weights."""
    total = torch.zeros_like(x)
    for n in range(40):
        mean, var = DRIFT * t - 0.1 * n, SIGMA**2 * t + 0.09 * n
        weight = math.exp(-RATE * t) * (RATE * t) ** n / math.factorial(n)
        total += weight * torch.exp(-((x - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)
    return total


A, CLOCK, NOISE, X0 = 1.2, 3.0, 0.5, 0.53


def levy_ou(x, t, law):
    """The density of dX = −aX dt + σ dW + dJ from x0 by Fourier inversion."""
    k = torch.linspace(0, 60, 12001, dtype=F64)
    q, left = (0.6 * k).to(torch.complex128), math.exp(-A * t)
    if law is LAPLACE:
        jumps = -(CLOCK / (2 * A)) * ((1 + q**2) / (1 + q**2 * left**2)).log()
    else:
        jumps = (CLOCK / A) * ((1 - 1j * q * left) / (1 - 1j * q)).log()
    phi = (1j * k * X0 * left + jumps - NOISE**2 * k**2 * (1 - left**2) / (4 * A)).exp()
    phi[0] *= 0.5
    waves = torch.exp(-1j * x[:, None] * k)
    return (waves @ phi).real * float(k[1]) / math.pi


def gap(density, exact):
    return float((density.p - exact).abs().max() / exact.max())


def test_merton_density_and_its_order():
    """Asked: 1e-4 of the peak. Fourth order in the cell, and the estimated error is the error."""
    errors = []
    for cells in (100, 200):
        grid = sg.Grid(-6.0, 6.0, cells)
        path = sg.FokkerPlanck(MERTON, grid).solve(0.0, [0.0, 0.4, 1.0], rtol=1.0)
        exact = merton(grid.nodes, 1.0)
        errors.append(gap(path.final, exact))
        assert 0.5 * errors[-1] < path.final.error["p"] < 2 * errors[-1]
        assert float((path.mass - 1).abs().max()) < 1e-9
        assert path.form == "compact"
    assert errors[-1] < 1e-4
    assert 3.7 < math.log2(errors[0] / errors[1]) < 4.5
    assert gap(path.at(1), merton(grid.nodes, 0.4)) < 5e-4
    # told: what jumps carry beyond ±6, some 1e-9
    assert 0 < float(path.jumped[-1]) < 1e-8
    assert "jumped beyond" in str(path.trust())
    assert float(path.error["p"][0]) == 0  # the start, a point, is given
    assert float(path.error["p"][2]) == path.final.error["p"]


@pytest.mark.parametrize("law", [LAPLACE, EXPONENTIAL], ids=["Laplace", "exponential"])
def test_levy_ornstein_uhlenbeck_density_in_time_and_at_rest(law):
    """Asked: 1e-4 of the peak, from a point between nodes, and at rest."""
    sde = sg.JumpDiffusion(sg.OrnsteinUhlenbeck(A, 0.0, NOISE), sg.CompoundPoisson(CLOCK, law))
    grid = sg.Grid(-10.0 if law is LAPLACE else -4.0, 14.0, 300)
    solver = sg.FokkerPlanck(sde, grid)
    if law is EXPONENTIAL:
        path = solver.solve(X0, [0.0, 0.7])
        assert gap(path.final, levy_ou(grid.nodes, 0.7, law)) < 1e-4
    rest = solver.stationary()
    assert gap(rest, levy_ou(grid.nodes, 50.0, law)) < 1e-4
    mean, variance = (CLOCK * 0.6 / A, CLOCK * 0.36 / A) if law is EXPONENTIAL else (0, 0.36 * 2.5)
    assert float(rest.mean) == pytest.approx(mean, abs=1e-4)
    assert float(rest.variance) == pytest.approx(variance + NOISE**2 / (2 * A), rel=1e-4)
    assert 0 <= rest.jumped < 1e-6
    assert float(rest.mass) == pytest.approx(1.0, abs=1e-12)


def test_sizes_may_be_functions_of_the_state_and_of_a_quantile():
    """The same law by its cdf, by its quantiles, and by quantiles at each state: one density."""
    found = []
    for sizes in (NORMAL, NORMAL.icdf, lambda x, u: NORMAL.icdf(u) + 0 * x):
        sde = sg.JumpDiffusion(MERTON.sde, sg.CompoundPoisson(RATE, sizes))
        found.append(sg.FokkerPlanck(sde, GRID).solve(0.0, [0.0, 1.0]).final.p)
    for other in found[1:]:  # by two ways, of fourth order each
        assert float((other - found[0]).abs().max()) < 2e-5 * float(found[0].max())


def test_resetting_has_its_density_at_rest():
    """Back to 0 at rate λ: p = (α/2) e^{−α|x|}, α = √(2λ)/σ; and by killing= and injection=."""
    rate, sigma = 3.0, 0.7
    back = sg.JumpDiffusion(sg.BrownianMotion(sigma), sg.CompoundPoisson(rate, lambda x, u: -x))
    rest = sg.FokkerPlanck(back, GRID).stationary()
    alpha = math.sqrt(2 * rate) / sigma
    off = gap(rest, 0.5 * alpha * torch.exp(-alpha * GRID.nodes.abs()))  # second order at a point
    assert 0.5 * off < rest.error["p"] < 2 * off < 2e-3
    killed = sg.FokkerPlanck(sg.BrownianMotion(sigma), GRID, killing=rate, injection=0.0)
    assert gap(rest, killed.stationary().p) < 1e-3


def test_jumps_that_draw_from_the_density_at_rest_keep_it():
    """s(x, u) = Q(u) − x with the quantiles Q of OU's stationary law: at rest nothing changes."""
    ou, law = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), Normal(number(0.0), number(math.sqrt(0.5)))
    sde = sg.JumpDiffusion(ou, sg.CompoundPoisson(2.0, lambda x, u: law.icdf(u) - x))
    rest = sg.FokkerPlanck(sde, sg.Grid(-5.0, 5.0, 200)).stationary()
    assert gap(rest, law.log_prob(rest.x).exp()) < 1e-5


def test_moments_with_a_rate_that_depends_on_the_state():
    """λ = 1 + x/2, sizes ½: m′ = −m + ½ (1 + m/2) and V′ = −2V + σ² + ¼ (1 + m/2) + V/2."""
    jumps = sg.CompoundPoisson(lambda x: (1 + x[:, 0] / 2).clamp(0, 4), 0.5, bound=4.0)
    sde = sg.JumpDiffusion(sg.OrnsteinUhlenbeck(1.0, 0.0, 0.4), jumps)
    t, rest = 1.3, 0.5 / 0.75
    path = sg.FokkerPlanck(sde, sg.Grid(-2.5, 8.0, 210)).solve(0.5, [0.0, t])
    mean = rest + (0.5 - rest) * math.exp(-0.75 * t)
    # V = ∫ e^{−1.5 (t − s)} (0.16 + 0.25 + m(s)/8) ds
    gone, slow = math.exp(-1.5 * t), math.exp(-0.75 * t)
    var = (0.41 + rest / 8) * (1 - gone) / 1.5 + (0.5 - rest) / 8 * (slow - gone) / 0.75
    assert float(path.final.mean) == pytest.approx(mean, abs=2e-6)
    assert float(path.final.variance) == pytest.approx(var, rel=2e-5)
    assert path.final.error["variance"] < 2e-5


def test_jumps_beyond_absorbing_ends_are_a_death_rate():
    """Jumps of ±100 leave for certain: the density is that with killing= at their rate."""
    bm, grid, p0 = sg.BrownianMotion(0.8), sg.Grid(-1.0, 1.0, 100), 0.1
    leave = sg.CompoundPoisson(1.5, lambda u: 200.0 * (u > 0.5) - 100.0)
    jumping = sg.FokkerPlanck(sg.JumpDiffusion(bm, leave), grid, "absorbing")
    killed = sg.FokkerPlanck(bm, grid, "absorbing", killing=1.5)
    ours, theirs = (each.solve(p0, [0.0, 0.6]).final for each in (jumping, killed))
    assert gap(ours, theirs.p) < 1e-5
    assert float(ours.mass) == pytest.approx(float(theirs.mass), rel=1e-5)


@pytest.mark.parametrize(
    "law", [NORMAL, LAPLACE, EXPONENTIAL, Uniform(number(-0.33), number(0.71))], ids=str
)
def test_the_law_of_lengths_is_that_of_its_quantiles(law):
    """F and its integral by a table against points of the quantile function; E s by both."""
    z = torch.linspace(-2, 2, 41, dtype=F64)
    table, (u, weights) = Tabulated(law, 4.0), uniform_rule()
    places = law.icdf(u)
    over = ((z[:, None] - places).clamp(min=0) @ weights) - (-4.0 - places).clamp(min=0) @ weights
    assert float((table.integral(z) - over).abs().max()) < 2e-6
    assert float((table.cdf(z) - (places <= z[:, None]).to(F64) @ weights).abs().max()) < 2e-3
    assert float(weights @ places) == pytest.approx(float(law.mean), abs=1e-9)


def test_shares_are_positive_and_sum_to_the_chance_to_land():
    for jumps in (
        sg.CompoundPoisson(2.0, EXPONENTIAL),
        sg.CompoundPoisson(2.0, 0.37),
        sg.CompoundPoisson(2.0, lambda x, u: -x * u),
    ):
        x = sg.Grid(-1.0, 1.5, 50).nodes
        found = landings(jumps, x)
        assert float(found.shares.min()) >= 0
        for shares in (found.shares, found.sharp):
            if shares is not None:
                total = shares.sum(0) + found.low + found.high
                torch.testing.assert_close(total, torch.ones_like(x), rtol=1e-12, atol=1e-12)
    # hats keep the mean, and cubics three moments: of a number, where all nodes are on the grid
    found, to = landings(sg.CompoundPoisson(1.0, 0.37), x), float(x[10]) + 0.37
    assert float(found.shares[:, 10] @ x) == pytest.approx(to, abs=1e-12)
    for k in (1, 2, 3):
        assert float(found.sharp[:, 10] @ x**k) == pytest.approx(to**k, abs=1e-12)


def test_a_grid_that_cuts_jumps_is_told_and_refused():
    narrow = sg.Grid(-2.2, 2.2, 80)
    wide = sg.JumpDiffusion(sg.OrnsteinUhlenbeck(4.0, 0.0, 0.5), sg.CompoundPoisson(1.0, LAPLACE))
    with pytest.raises(ValueError, match=r"jump beyond the grid \[-2.2, 2.2\].*widen it"):
        sg.FokkerPlanck(wide, narrow).stationary()
    with (
        pytest.warns(sg.AccuracyWarning, match="by t = 0.05, of the mass .* jump beyond the grid"),
        pytest.warns(UserWarning, match="of its peak at t = 0.05: the grid cuts it"),
    ):
        path = sg.FokkerPlanck(wide, narrow).solve(0.0, [0.0, 0.05], rtol=1e-2)
    # at rate 1, P(|s| > 2.2) = e^{−2.2/0.6}, for a time of 0.05
    assert float(path.jumped[-1]) == pytest.approx(0.05 * math.exp(-2.2 / 0.6), rel=0.1)


def test_what_is_not_built_for_jumps_is_refused_by_name():
    ou = sg.OrnsteinUhlenbeck()
    jumps = sg.CompoundPoisson(1.0, LAPLACE)
    sde, grid = sg.JumpDiffusion(ou, jumps), sg.Grid(-8.0, 8.0, 80)
    solver = sg.FokkerPlanck(sde, grid)
    leaves = sg.FokkerPlanck(sde, grid, ("no-flux", "absorbing"))
    start = grid.gaussian(0.0, 0.5)
    for ask, said in (
        (lambda: solver.current(start), "a current is not found for dynamics that jump"),
        (lambda: solver.entropy_production(start), "an entropy production is not found"),
        (lambda: solver.free_energy(start), "a free energy is not found"),
        (lambda: solver.correlation(lambda x: x, [0.0, 1.0]), "a correlation function is not"),
        (solver.spectrum, "a spectrum is not found for dynamics that jump"),
        (leaves.first_passage, "a first passage is not found for dynamics that jump"),
        (leaves.escape, "a first passage is not found for dynamics that jump"),
        (lambda: leaves.survival(0.0, [0.0, 1.0]), "a survival probability is not found"),
        (solver.feller, "classify_boundary reads drift and diffusion alone"),
        (lambda: solver.solve(start, [0.0, 1.0], differentiable=True), "has no gradients"),
        (lambda: solver.stationary(differentiable=True), "has no gradients"),
        (
            lambda: solver.solve(start, [0.0, 1.0], integrator=sg.BackwardEuler(4)),
            r"carried by Exponential\(\)",
        ),
        (lambda: sg.FokkerPlanck(sde, grid, killing=1.0), "killing= and injection= are not"),
        (
            lambda: sg.FokkerPlanck(sde, grid, sg.Absorbing(-8.0, lambda t: 8.0 + t)),
            "a density between ends that move is not found",
        ),
        (
            lambda: sg.FokkerPlanck(
                sg.JumpDiffusion(sg.BrownianMotion(1.0), jumps), grid, "periodic"
            ),
            "'periodic' is not built for jumps",
        ),
        (
            lambda: sg.FokkerPlanck(sg.JumpDiffusion(ou, sg.AlphaStable(1.5)), grid),
            "are α-stable",
        ),
        (
            lambda: sg.FokkerPlanck(
                sg.JumpDiffusion(ou, sg.CompoundPoisson(lambda t: 1 + t, 1.0, bound=5.0)), grid
            ),
            "do not depend on time",
        ),
        (
            lambda: sg.FokkerPlanck(sde, grid, truncation_is_physical=True).stationary(),
            "jumps go beyond the reflecting wall at x = -8",
        ),
        (
            lambda: sg.FokkerPlanck(
                sg.JumpDiffusion(ou, sg.CompoundPoisson(lambda x: x[:, 0] ** 2, 1.0, bound=9.0)),
                grid,
            ).stationary(),
            "rate is 64 .* above its bound 9",
        ),
        (
            lambda: sg.FokkerPlanck(
                sg.JumpDiffusion(ou, sg.CompoundPoisson(1.0, lambda x, u: x.mean() - x)), grid
            ).stationary(),
            "mean field",
        ),
        (
            lambda: sg.FokkerPlanck(
                sg.JumpDiffusion(
                    sg.ItoProcess(lambda x: 1 - x, torch.sqrt), sg.CompoundPoisson(1.0, 0.5)
                ),
                sg.Grid(0.0, 6.0, 60),
            ),
            "beside a wall without noise",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
