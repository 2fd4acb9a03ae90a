"""How fast fine and coarse runs of one noise come together: V ∝ dt^β, and in the mean ∝ dt."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.averages.coupling import Coupling, check_solver, coupling_for
from sdegen.averages.sampling import Level, Problem
from sdegen.averages.shared_noise import SharedNoise, without_areas
from sdegen.core.noise import Noise

F64 = torch.float64
GROWTH = sg.ItoProcess(
    lambda x: x, lambda x: 0.8 * x, diffusion_derivative=lambda x: torch.full_like(x, 0.8)
)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
TIME = torch.tensor(0.5, dtype=F64)


def column(*values):
    """One state of so many coordinates."""
    return torch.tensor([values], dtype=F64)


def heisenberg(x):
    """dX₁ = dW₁, dX₂ = X₁ dW₂: the smallest noise that does not commute."""
    one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([torch.stack([one, zero], -1), torch.stack([zero, x[:, 0]], -1)], 1)


AREA = sg.ItoProcess(torch.zeros_like, heisenberg, channels=2)
SAME_AREA = sg.ItoProcess(
    torch.zeros_like, lambda x: torch.stack([torch.ones_like(x[:, 0]), x[:, 0]], 1)
)
TURN = sg.ItoProcess(
    lambda x: 0.3 * x,
    lambda x: torch.stack([0.5 * x[:, 1], -0.5 * x[:, 0]], 1)[..., None],
    channels=1,
)
SCALED = sg.ItoProcess(
    lambda x: 0.3 * x,
    lambda x: x[..., None] * torch.tensor([[0.5, 0.2], [0.1, 0.4]], dtype=F64),
    channels=2,
)


def slopes(sde, start, f=lambda x: x[:, 0], coupling=None, rows=20_000, steps=(16, 32, 64, 128)):
    """β and the slope of the mean, of f(fine) − f(coarse)."""
    states = start + 0.1 * torch.randn(
        4, start.shape[1], generator=torch.Generator().manual_seed(1), dtype=F64
    )
    coupling = coupling or coupling_for(sde, None, states, [TIME])
    problem = Problem(sde, start, start, (0.0, 1.0), f, coupling, 0)
    with torch.no_grad():
        found = [problem.block(Level(n, paired=True), 0, rows, lambda: False).value for n in steps]
    level = np.arange(len(steps))
    beta = -np.polyfit(level, np.log2([y.variance for y in found]), 1)[0]
    alpha = -np.polyfit(level, np.log2([abs(y.mean) for y in found]), 1)[0]
    return float(beta), float(alpha), coupling


def euler(sde):
    return Coupling(sg.EulerMaruyama(), "Euler", 1.0)


# standard errors of the slopes are 0.02 to 0.05: the variance of a variance is (κ − 1)/n, and κ is
# 5 of the double well, up to 100 of the growth
@pytest.mark.parametrize(
    ("sde", "start", "name"),
    [
        (WELL, column(-1.0), "EulerMaruyama"),
        (GROWTH, column(1.0), "Milstein"),
        (TURN, column(1.0, 1.0), "Milstein"),
        (SCALED, column(1.0, 1.0), "Milstein"),
    ],
    ids=["additive", "diagonal", "scalar", "commuting"],
)
def test_variance_falls_as_dt_squared(sde, start, name):
    rows = 40_000 if sde is GROWTH else 4_000
    steps = (64, 128, 256) if sde is GROWTH else (32, 64, 128)
    beta, alpha, coupling = slopes(sde, start, rows=rows, steps=steps)
    assert coupling.name == name
    assert not coupling.antithetic
    assert beta >= 1.8
    assert alpha == pytest.approx(1, abs=0.2)


def test_euler_of_multiplicative_noise_falls_as_dt():
    beta, _, _ = slopes(
        GROWTH, column(1.0), coupling=euler(GROWTH), rows=50_000, steps=(64, 128, 256)
    )
    assert beta == pytest.approx(1, abs=0.15)


def square(x):
    return x[:, 1].square()


def test_a_slope_that_autograd_does_not_see_is_no_zero():
    hidden = sg.ItoProcess(lambda x: x, lambda x: 0.8 * x.detach())
    seen, unseen = (
        slopes(sde, column(1.0), rows=500, steps=(32, 64))[0] for sde in (GROWTH, hidden)
    )
    assert unseen == pytest.approx(seen, abs=1e-4)
    matrix = sg.ItoProcess(lambda x: x, lambda x: 0.8 * x.detach()[..., None], channels=1)
    assert slopes(matrix, column(1.0), rows=500, steps=(32, 64))[0] == pytest.approx(
        seen, abs=1e-4
    )


def test_antithetic_pairs_make_up_for_areas():
    # cosines are smooth and bounded, and κ is 20: standard errors are 0.06 with the twin
    few = {"rows": 5000, "steps": (16, 32, 64)}
    beta, _, coupling = slopes(AREA, column(0.0, 0.0), lambda x: x[:, 1].cos(), **few)
    assert coupling.antithetic
    assert beta >= 1.8
    alone = Coupling(sg.Milstein(), "without the twin", 1.0)
    beta, _, _ = slopes(AREA, column(0.0, 0.0), lambda x: x[:, 1].cos(), alone, **few)
    assert beta == pytest.approx(1, abs=0.15)


def test_noise_is_sorted_by_how_it_depends_on_the_state():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    one_of_both = sg.ItoProcess(torch.zeros_like, lambda x: x.norm(dim=1)[:, None])
    commuting = sg.ItoProcess(torch.zeros_like, lambda x: 0.5 * x), SCALED, TURN
    for sde in (*commuting, AREA, SAME_AREA, one_of_both):
        coupling = coupling_for(sde, None, x, [TIME])
        assert isinstance(coupling.solver, sg.Milstein)
        assert coupling.antithetic == (sde not in commuting)
        assert coupling_for(sde, sg.Milstein(), x, [TIME]) == coupling
        assert not coupling_for(sde, sg.EulerMaruyama(), x, [TIME]).antithetic


def test_a_step_without_areas_is_milsteins_with_them_put_to_0():
    # X₂ after one step of dX₁ = dW₁, dX₂ = X₁ dW₂ from 0 is I₁₂ = ½ ΔW₁ ΔW₂ + A₁₂
    x, nodes = torch.zeros(5, 2, dtype=F64), torch.tensor([0.0, 0.25], dtype=F64)
    w = 0.5 * Noise(x, rng=0, channels=2).normal()
    noise = without_areas(Noise(x, rng=0, channels=2), nodes)
    (after,) = sg.integrate(AREA, sg.Milstein(), x, nodes, noise)
    assert torch.allclose(after[:, 0], w[:, 0], rtol=1e-14)
    assert torch.allclose(after[:, 1], 0.5 * w[:, 0] * w[:, 1], rtol=1e-13)


def test_fine_and_coarse_steps_share_their_noise():
    x, nodes = torch.zeros(3, 1, dtype=F64), torch.linspace(0, 3, 7, dtype=F64)
    shared = SharedNoise(Noise(x, rng=0), nodes, integrals=True)
    again = sg.StepNoise(Noise(x, rng=0), nodes)
    for i in range(3):
        shared.draw()
        first = again.increment(2 * i)
        area = again.space_time_area(2 * i)
        second = again.increment(2 * i + 1)
        later = again.space_time_area(2 * i + 1)
        assert torch.allclose(shared.fine.increment(2 * i), first, rtol=1e-15)
        assert torch.allclose(shared.twin.increment(2 * i), second, rtol=1e-15)
        assert torch.allclose(shared.fine.increment(2 * i + 1), second, rtol=1e-15)
        assert torch.allclose(shared.twin.increment(2 * i + 1), first, rtol=1e-15)
        assert torch.allclose(shared.coarse.increment(i), first + second, rtol=1e-14)
        # ∫ W of both halves: the first increment stands through the second half
        whole = area + later + 0.5 * first
        assert torch.allclose(shared.coarse.space_time_area(i), whole, rtol=1e-13)
        assert torch.equal(shared.coarse.areas(i), torch.zeros(3, 1, 1, dtype=F64))


def test_normals_are_the_increments():
    x, nodes = torch.zeros(3, 2, dtype=F64), torch.linspace(0, 1, 5, dtype=F64)
    shared, again = SharedNoise(Noise(x, rng=0), nodes), Noise(x, rng=0)
    for _ in range(2):
        shared.draw()
        first, second = again.normal(), again.normal()
        assert torch.equal(shared.fine.normal(), first)
        assert torch.equal(shared.fine.normal(), second)
        assert torch.equal(shared.twin.normal(), second)
        assert torch.equal(shared.twin.normal(), first)
        assert torch.allclose(shared.coarse.normal(), (first + second) / math.sqrt(2), rtol=1e-15)


def test_cost_counts_all_runs():
    assert Coupling(sg.Heun(), "", 2.0).evaluations(8, paired=True) == 2 * 12
    assert Coupling(sg.Milstein(), "", 1.0, antithetic=True).evaluations(8, paired=True) == 20
    assert Coupling(sg.Milstein(), "", 1.0, antithetic=True).evaluations(8, paired=False) == 8


class WithAreas(sg.EulerMaruyama):
    """A solver that asks for more than increments."""

    needs = ("areas",)


@pytest.mark.parametrize(
    ("solver", "kind", "words"),
    [
        (sg.EulerMaruyama, TypeError, "the class EulerMaruyama"),
        (sg.TorchDiffEq(), TypeError, "solver of fixed steps"),
        (sg.EulerMaruyama(substeps=3), ValueError, "substeps must be 1, but is 3"),
        (sg.EulerMaruyama(compile=True), ValueError, "leave compile out"),
        (WithAreas(), ValueError, "WithAreas takes Lévy areas, which levels do not share"),
    ],
)
def test_a_solver_that_cannot_share_noise_is_refused(solver, kind, words):
    with pytest.raises(kind, match=words):
        check_solver(solver)
