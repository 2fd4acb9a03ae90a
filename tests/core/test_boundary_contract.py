"""What every boundary keeps to in every room: one list, and a class that is not in it fails.

A Brownian motion from 0.3 on [0, 1], whose law at t = 0.2 is a series. A room takes a boundary and
gives that law, or refuses it by the name of its class.
"""

import inspect
import math
from dataclasses import dataclass, field, replace

import exact
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import sdegen as sg
from sdegen.core.boundary import Boundary, PositionBoundary
from sdegen.core.conditions import BoundaryCondition
from sdegen.core.enclosure import enclosure_of, interval_of
from sdegen.engine.containment import steps_alone

F64 = torch.float64
BM, START, T = sg.BrownianMotion(1.0), 0.3, 0.2
GRID = sg.Grid(0.0, 1.0, 200)
ALARM = 4.42  # standard errors, passed once in 1e5; of Kolmogorov's distance 2.47/√n
KAPPA = 2.0


# ---- boundaries of a user


@dataclass(frozen=True)
class PartiallyAbsorbing(Boundary):
    """D ∂p/∂n = −κ p: of what meets an end κ√(π dt/D) stays there, and the rest is sent back.

    Erban and Chapman 2007, Physical Biology 4, 16, eq. (14).
    """

    reactivity: float = field(default=KAPPA, kw_only=True)

    absorbs = True

    def apply(self, before, after, step):
        d = step.diffusion().square() / 2
        stays = step.uniform(after) < self.reactivity * (math.pi * step.dt / d).sqrt()
        wall = after.clamp(step.low, step.high)
        back = (2 * wall - after).clamp(step.low, step.high)
        return torch.where(wall == after, after, torch.where(stays, wall, back))


@dataclass(frozen=True)
class Damping(PositionBoundary):
    """What arrives comes back with a part of its way: no flux, and a law of steps of its own."""

    part: float = field(default=0.5, kw_only=True)

    condition = BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        wall = x.clamp(low, high)
        return (wall + self.part * (wall - x)).clamp(low, high)


class Mirror(PositionBoundary):
    """One that declares all there is."""

    condition = step_law = BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        length = high - low
        folded = torch.remainder(x - low, 2 * length)
        return (low + torch.minimum(folded, 2 * length - folded)).clamp(low, high)


# ---- the list


@dataclass(frozen=True)
class Row:
    """A boundary, and what is known of it.

    Attributes:
        boundary: On [0, 1].
        cdf: F(x) of what is not absorbed by T.
        bias: What steps of T/400 do to F at most.
        density: Whether a density is known; else the class that is refused.
        chain: Whether the law of steps is; else the class that is refused.
    """

    boundary: object
    cdf: object
    bias: float = 0.0
    density: bool = True
    chain: bool = True

    def __str__(self):
        pair = self.boundary if isinstance(self.boundary, tuple) else (self.boundary,)
        return "-".join(type(one).__name__ for one in pair)

    @property
    def absorbs(self):
        return interval_of(self.boundary).absorbs


NO_FLUX = exact.robin_cdf(1.0, 0.5, START, T, 0.0)
HALF = exact.robin_cdf(1.0, 0.5, START, T, math.inf)
BOX = exact.absorbed_box_cdf(1.0, 0.5, START, T)
RING = exact.box_cdf("periodic", 1.0, 0.5, START, T)
STEPS, DT = 400, T / 400
ROWS = [
    Row(sg.Reflecting(0.0, 1.0), NO_FLUX),
    Row(sg.Absorbing(0.0, 1.0), BOX, bias=1e-3),
    # a wall seen at steps alone is one 0.5826 √(2 D dt) behind it: Siegmund 1979
    Row(sg.Absorbing(0.0, 1.0, bridge=False), BOX, bias=2 * 0.5826 * math.sqrt(DT)),
    Row((sg.Reflecting(0.0), sg.Absorbing(high=1.0)), HALF, bias=1e-3),
    Row(sg.Periodic(0.0, 1.0), RING),
    Row(Mirror(0.0, 1.0), NO_FLUX),
    Row(Damping(0.0, 1.0), NO_FLUX, bias=math.sqrt(DT), chain=False),
    Row(
        (sg.Reflecting(0.0), PartiallyAbsorbing(high=1.0)),
        exact.robin_cdf(1.0, 0.5, START, T, KAPPA),
        bias=5e-3,
        density=False,
        chain=False,
    ),
]
every = pytest.mark.parametrize("row", ROWS, ids=str)


def classes(kind):
    for sub in kind.__subclasses__():
        yield from classes(sub)
        if sub.__module__.startswith("sdegen.") and not inspect.isabstract(sub):
            yield sub


def test_every_class_is_in_the_list():
    listed = {type(one) for row in ROWS for one in interval_of(row.boundary).boundaries}
    assert set(classes(Boundary)) <= listed


# ---- particles


def walked(row, n=20_000, **options):
    x0 = torch.full((n, 1), START, dtype=F64)
    solver = sg.EulerMaruyama(STEPS)
    options = {"solver": solver, "rng": 1, "keep_path": False} | options
    return sg.simulate(BM, x0, [0.0, T], boundary=row.boundary, **options)


@every
def test_simulate_has_the_law(row):
    path = walked(row)
    n, x = path.final.shape[0], path.final[:, 0]
    assert bool(((x >= 0) & (x <= 1)).all())
    assert (path.absorbed is not None) == row.absorbs
    out = path.absorbed[-1] if row.absorbs else torch.zeros(n, dtype=torch.bool)
    left = float((~out).double().mean())
    survival = float(row.cdf(1.0))
    assert abs(left - survival) <= ALARM * math.sqrt(survival * (1 - survival) / n) + row.bias
    at = x[~out].sort().values.numpy()
    seen = np.arange(1, len(at) + 1) / n
    assert np.abs(seen - row.cdf(at)).max() < 2.47 / math.sqrt(n) + row.bias
    # who is absorbed sits on an end, and who is not does not
    assert torch.equal(out, interval_of(row.boundary).arrived(path.final, 0.0, 1.0))


@every
def test_wrapping_counts_turns(row):
    path = walked(row, 200)
    wraps = interval_of(row.boundary).wraps
    assert (path.windings is not None) == wraps
    if wraps:
        turns = path.unwrapped - path.states
        torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-12)


@every
def test_an_ensemble_walks_the_same_paths(row):
    path = walked(row, 500)
    run = sg.run_ensemble(
        BM, torch.full((1, 1), START, dtype=F64), [0.0, T], trajectories=500, rng=1,
        solver=sg.EulerMaruyama(STEPS), boundary=row.boundary, progress=False,
        observables=[sg.Moments(), sg.FirstPassage(below=0.0, above=1.0)],
    )  # fmt: skip
    mean = run.observables["moments"].mean[-1]
    torch.testing.assert_close(mean, path.final.mean(0), rtol=0, atol=1e-12)
    # who is absorbed has passed
    waiting = int(run.observables["first_passage"].waiting[-1])
    assert waiting <= (int((~path.absorbed[-1]).sum()) if row.absorbs else 500)


@every
def test_a_boundary_of_one_coordinate_of_two_leaves_the_other_alone(row):
    if any(isinstance(one, PartiallyAbsorbing) for one in interval_of(row.boundary).boundaries):
        row = replace(row, boundary=(sg.Reflecting(0.0), PartiallyAbsorbing(high=1.0)))
    x0 = torch.full((300, 2), START, dtype=F64)
    free = sg.simulate(BM, x0, [0.0, T], solver=sg.EulerMaruyama(20), rng=3)
    path = sg.simulate(
        BM, x0, [0.0, T], solver=sg.EulerMaruyama(20), rng=3, boundary={1: row.boundary}
    )
    going = ~path.absorbed[-1] if row.absorbs else torch.ones(300, dtype=torch.bool)
    assert torch.equal(path.final[going, 0], free.final[going, 0])
    assert bool(((path.final[:, 1] >= 0) & (path.final[:, 1] <= 1)).all())
    assert not torch.equal(path.final[:, 1], free.final[:, 1])


@every
def test_compiled_runs_take_it_or_go_step_by_step(row):
    enclosure, x0 = enclosure_of(row.boundary, (1,)), torch.full((2, 1), START, dtype=F64)
    alone = steps_alone(enclosure, BM, x0, torch.tensor(0.0, dtype=F64))
    interval = interval_of(row.boundary)
    assert alone == (interval.bridged or not interval.by_position)
    if alone:
        plain = walked(row, 100)
        fast = walked(row, 100, solver=sg.EulerMaruyama(STEPS, compile=True))
        assert torch.equal(plain.final, fast.final)
        return
    # traced whole, as a compiled run has it
    x = torch.linspace(-3.3, 4.4, 200, dtype=F64)
    traced = torch.compile(
        lambda x: interval.contain(x, 0.0, 1.0), backend="eager", fullgraph=True
    )
    assert torch.equal(traced(x), interval.contain(x, 0.0, 1.0))


# ---- densities


def refusal(row):
    """The class that a room without its law names."""
    return next(
        type(one).__name__
        for one in interval_of(row.boundary).boundaries
        if not type(one).__module__.startswith("sdegen.")
    )


@every
def test_fokker_planck_has_the_law_or_names_the_class(row):
    if not row.density:
        told = f"{refusal(row)} declares no condition of a density.* set condition"
        for make in (
            lambda: sg.FokkerPlanck(BM, GRID, row.boundary),
            lambda: sg.FokkerPlanckBatch([BM, sg.BrownianMotion(2.0)], GRID, row.boundary),
            lambda: sg.FokkerPlanck2D(BM, (GRID, GRID), {0: row.boundary}),
        ):
            with pytest.raises(ValueError, match=told):
                make()
        return
    solver = sg.FokkerPlanck(BM, GRID, row.boundary)
    final = solver.solve(START, [0.0, T]).final
    h = float(GRID.nodes[1])
    p = final.p.numpy()
    summed = np.concatenate([[0.0], np.cumsum(0.5 * h * (p[1:] + p[:-1]))])
    assert np.abs(summed - row.cdf(GRID.nodes.numpy())).max() < 1e-4
    family = sg.FokkerPlanckBatch([BM, sg.BrownianMotion(2.0)], GRID, row.boundary)
    plane = sg.FokkerPlanck2D(BM, (sg.Grid(0.0, 1.0, 16),) * 2, {0: row.boundary})
    assert solver.conditions == family.conditions == plane.conditions[0]
    assert plane.conditions[1] == (BoundaryCondition.NO_FLUX,) * 2


@every
def test_equilibrium_is_even_where_mass_is_kept(row):
    if not row.density:
        return
    solver = sg.FokkerPlanck(BM, GRID, row.boundary)
    if row.absorbs:
        with pytest.raises(sg.NotNormalizableError, match="leaves through the absorbing wall"):
            solver.stationary()
        return
    torch.testing.assert_close(solver.stationary().p, torch.ones(201, dtype=F64))


@every
def test_the_law_of_a_chain_is_that_of_its_steps_or_the_class_is_named(row):
    grid, times, solver = sg.Grid(0.0, 1.0, 100), [0.0, T], sg.EulerMaruyama(10)
    if not row.chain:
        told = f"{refusal(row)} declares no (law of its steps|condition)"
        with pytest.raises(ValueError, match=told):
            sg.ChainDensity(BM, grid, solver, boundary=row.boundary)
        return
    law = sg.ChainDensity(BM, grid, solver, boundary=row.boundary).run(START, times).final
    path = walked(row, solver=solver)
    n, mass = len(path.final), float(law.mass)
    left = n if path.absorbed is None else int((~path.absorbed[-1]).sum())
    assert abs(left / n - mass) <= ALARM * math.sqrt(abs(mass * (1 - mass)) / n) + 1e-6
    out = torch.zeros(n, dtype=torch.bool) if path.absorbed is None else path.absorbed[-1]
    at = path.final[~out, 0].sort().values
    p = law.p.numpy()
    summed = np.concatenate([[0.0], np.cumsum(0.005 * (p[1:] + p[:-1]))])
    here = np.interp(at.numpy(), grid.nodes.numpy(), summed)
    assert np.abs(np.arange(1, left + 1) / n - here).max() < 2.47 / math.sqrt(n) + 2e-4


@every
def test_certify_judges_it_or_names_the_class(row):
    ask = {"boundary": row.boundary, "rng": 0, "solver": sg.EulerMaruyama(100)}
    grid = sg.Grid(0.0, 1.0, 100)
    if not row.density:
        told = f"there is no law .* {refusal(row)} declares no .* {refusal(row)} declares no cond"
        with pytest.raises(ValueError, match=told):
            sg.certify(BM, grid, START, [0.0, T], **ask)
        return
    certificate = sg.certify(BM, grid, START, [0.0, T], **ask)
    if not row.chain:  # judged against the density, and said so
        assert f"{refusal(row)} declares no law of its steps" in str(certificate)
        return
    unbridged = row.absorbs and not interval_of(row.boundary).bridged
    assert certificate.passed != unbridged, str(certificate)
    if unbridged:
        assert "the bias falls with √dt" in certificate.summary


@every
def test_pictures_take_what_comes_of_it(row):
    x0 = torch.full((50, 1), START)
    path = sg.simulate(BM, x0, torch.linspace(0, T, 6), rng=0, boundary=row.boundary)
    assert isinstance(sg.plots.paths(path), Figure)
    if row.density:
        density = sg.FokkerPlanck(BM, GRID, row.boundary).solve(START, path.times)
        assert isinstance(sg.plots.density_and_particles(density, path), Figure)


# ---- classes that contradict themselves


def test_who_overrides_a_boundary_derives_from_the_base():
    with pytest.raises(TypeError, match=r"Elastic overrides contain of another.* from Boundary"):

        class Elastic(sg.Reflecting):
            def contain(self, x, low, high):
                return x


def test_declarations_agree_with_what_happens():
    with pytest.raises(TypeError, match="Sink declares 'absorbing', but absorbs = False"):

        class Sink(Boundary):
            condition = BoundaryCondition.ABSORBING

            def apply(self, before, after, step):
                return after


def test_a_class_that_leaves_states_outside_is_named():
    class Open(Boundary):
        def apply(self, before, after, step):
            return after

    class Flat(Boundary):
        def apply(self, before, after, step):
            return after.flatten()

    x0 = torch.full((50, 1), 0.5)
    with pytest.raises(ValueError, match=r"Open.apply left x = .* outside \[0, 1\]; bring back"):
        sg.simulate(BM, x0, [0.0, 1.0], rng=0, boundary=Open(0.0, 1.0))
    with pytest.raises(TypeError, match=r"Flat.apply returned \(50,\) .* return a tensor like"):
        sg.simulate(BM, x0, [0.0, 1.0], rng=0, boundary=Flat(0.0, 1.0))
    with pytest.raises(TypeError, match="abstract"):
        Boundary(0.0, 1.0)


def test_no_gradient_through_what_a_boundary_draws():
    x0 = torch.full((50, 1), 0.5, dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match=r"differentiable=True: .* leave out"):
        sg.simulate(
            BM, x0, [0.0, 1.0], rng=0, differentiable=True, boundary=PartiallyAbsorbing(0.0, 1.0)
        )
