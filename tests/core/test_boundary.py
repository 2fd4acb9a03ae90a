"""Boundaries: what may be passed for which coordinate, and what is refused with its cure."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.boundary_words import of_words
from sdegen.core.bounds import values_of
from sdegen.core.enclosure import enclosure_of

F64 = torch.float64
BM = sg.BrownianMotion(1.0)


def of(boundary, event=(1,)):
    return enclosure_of(boundary, event)


@pytest.mark.parametrize("kind", [sg.Reflecting, sg.Absorbing])
def test_half_lines(kind):
    low, high = kind(0.0).ends
    assert (low.at, high) == (0.0, None)
    low, high = kind(high=1.0).ends
    assert (low, high.at) == (None, 1.0)


def test_ends_are_converted_where_they_enter():
    assert sg.Reflecting(np.float32(0.5), torch.tensor(2)) == sg.Reflecting(0.5, 2.0)


def test_a_mapping_a_sequence_and_a_pair_say_the_same():
    ring, wall = sg.Periodic(0.0, 1.0), sg.Reflecting(0.0)
    assert of({0: ring, 2: wall}, (3,)) == of([ring, None, wall], (3,))
    assert of({(1, 0): ring}, (2, 2)).parts == of({2: ring}, (4,)).parts
    pair = (sg.Reflecting(0.0), sg.Absorbing(high=1.0))
    assert of_words(("no-flux", "absorbing"), 0.0, 1.0) == pair
    assert of({0: pair}, (2,)).of(0).absorbs
    assert of({0: pair}, (2,)).of(1) is None
    assert of(None) is None


def test_periods_by_coordinate():
    enclosure = of({1: sg.Periodic(-1.0, 2.0)}, (2,))
    assert enclosure.periods().tolist() == [0.0, 3.0]


def test_bounds_that_move_are_asked_at_all_times():
    ts = torch.linspace(0, 2, 5, dtype=F64)
    for bound in (lambda t: 1 - 0.5 * t, lambda t: 1 - 0.5 * float(t)):
        assert values_of(bound, ts).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    with pytest.raises(ValueError, match="must be finite at all times, but at t = 0 it is inf"):
        values_of(lambda t: 1 / t, ts)


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.Reflecting(1.0, 0.0), ValueError, "Reflecting needs low < high"),
        (lambda: sg.Reflecting(), ValueError, r"has no end; pass Reflecting\(0.0\) or"),
        (lambda: sg.Reflecting(math.nan), ValueError, "needs low < high"),
        (lambda: sg.Periodic(0.0), ValueError, r"a period has two ends.* pass Periodic\(low, low"),
        (
            lambda: sg.Reflecting([0.0, 1.0], 2.0),
            TypeError,
            r"must be one number.* pass boundary=\{0: Reflecting",
        ),
        (lambda: sg.Reflecting(lambda t: t), TypeError, r"an end that moves absorbs: pass Absorb"),
        (lambda: sg.Periodic("a", 1.0), TypeError, "low of Periodic must be a number"),
        (lambda: sg.Absorbing(0.0, bridge=1), TypeError, "bridge must be True or False"),
        (
            lambda: sg.Reflecting(0.0, coordinates=0),
            ValueError,
            r"coordinates must be None or 'all', but is 0; .* boundary=\{0: Reflecting",
        ),
        (lambda: of("periodic"), TypeError, r"a word does not say where .* pass Reflecting"),
        (lambda: of(3), TypeError, "boundary must be Reflecting"),
        (lambda: of([sg.Reflecting(0.0)], (2,)), ValueError, r"needs 2 of them.* pass boundary="),
        (lambda: of({5: sg.Reflecting(0.0)}, (2,)), ValueError, r"has coordinates 0 … 1, or"),
        (lambda: of({}, (2,)), ValueError, "boundary is empty; pass boundary=None"),
        (
            lambda: of(sg.Reflecting(0.0), (2,)),
            ValueError,
            r"one box \[0, ∞\] for 2 coordinates.* pass boundary=\{0: Reflecting",
        ),
        (
            lambda: of((sg.Reflecting(0.0, 1.0), sg.Absorbing(high=2.0))),
            ValueError,
            r"a pair \(lower, upper\) has one end each.* pass such as",
        ),
        (
            lambda: sg.Walls(0.0, 1.0),
            TypeError,
            r"Walls is no more: write boundary=Reflecting\(0.0, 1.0\) in its place",
        ),
        (
            lambda: sg.Walls(0, 1, ("no-flux", "absorbing")),
            TypeError,
            r"write boundary=\(Reflecting\(0\), Absorbing\(high=1\)\) in",
        ),
        (
            lambda: sg.Walls(-1, 1, "periodic", coordinates="all"),
            TypeError,
            r"write boundary=Periodic\(-1, 1, coordinates='all'\)",
        ),
        (
            lambda: sg.simulate(BM, torch.zeros(2, 1), [0.0, 1.0], walls=(0, 1)),
            TypeError,
            r"walls= is no more, but is \(0, 1\): write boundary=Reflecting\(low, high\)",
        ),
    ],
)
def test_refusals(make, kind, told, as_user):
    with pytest.raises(kind, match=told):
        make()


def test_one_box_for_all_coordinates_is_said_by_name():
    x0 = torch.zeros(4, 2, dtype=F64)
    for box in (
        {"boundary": sg.Reflecting(-0.1, 0.1, coordinates="all")},
        {"boundary": [sg.Reflecting(-0.1, 0.1)] * 2},
    ):
        path = sg.simulate(BM, x0, torch.linspace(0, 1, 11), rng=0, **box)
        assert float(path.states.abs().max()) <= 0.1
    with pytest.raises(ValueError, match="one box"):
        sg.simulate(BM, x0, [0.0, 1.0], rng=0, boundary=sg.Reflecting(-0.1, 0.1))


@pytest.mark.parametrize("kind", ["no-flux", "periodic"])
def test_a_boundary_and_that_of_its_coordinate_have_the_same_bits(kind):
    x0, times = torch.full((50, 1), 0.5), torch.linspace(0, 1, 21)
    same = of_words(kind, 0.0, 1.0)
    a = sg.simulate(BM, x0, times, rng=0, boundary=same)
    b = sg.simulate(BM, x0, times, rng=0, boundary={0: same})
    assert torch.equal(a.states, b.states)


def test_densities_take_the_same_boundaries():
    grid = sg.Grid(0.0, 1.0, 100)
    start = grid.gaussian(0.4, 0.05)
    times = [0.0, 0.3]
    for boundary, words in (
        (sg.Reflecting(0.0, 1.0), "no-flux"),
        (sg.Periodic(0.0, 1.0), "periodic"),
        (sg.Absorbing(0.0, 1.0), "absorbing"),
        ((sg.Reflecting(0.0), sg.Absorbing(high=1.0)), ("no-flux", "absorbing")),
    ):
        p = sg.FokkerPlanck(BM, grid, boundary).solve(start, times).final.p
        q = (
            sg.FokkerPlanck(BM, grid, words, truncation_is_physical=True)
            .solve(start, times)
            .final.p
        )
        assert torch.equal(p, q)


def test_an_end_that_is_left_out_only_ends_the_grid():
    trap = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    half = sg.FokkerPlanck(trap, sg.Grid(0.0, 6.0, 300), sg.Reflecting(0.0)).stationary()
    assert float(half.mean) == pytest.approx(math.sqrt(1 / math.pi), rel=1e-6)
    with pytest.raises(ValueError, match="truncation_is_physical=True"):
        sg.FokkerPlanck(trap, sg.Grid(0.0, 1.0, 100), sg.Reflecting(0.0)).stationary()
    with pytest.raises(ValueError, match=r"low end at 0.5, but the grid at 0; pass Grid\(…\)"):
        sg.FokkerPlanck(trap, sg.Grid(0.0, 1.0, 100), sg.Reflecting(0.5))


# --- a period that is not the drift's own

SINE = sg.ItoProcess(lambda x: -torch.sin(x), 1.0)


def test_a_period_that_is_not_the_drifts_own_is_refused():
    x0 = torch.zeros(10, 1, dtype=F64)
    for high in (2 * math.pi, 4 * math.pi, 6.2832):
        sg.simulate(SINE, x0, [0.0, 0.1], boundary=sg.Periodic(0.0, high), rng=0)
        sg.FokkerPlanck(SINE, sg.Grid(0.0, high, 100), "periodic")
    told = r"\[0, 6\] is no period of the drift: it is .* Pass the ends of its own period"
    with pytest.raises(ValueError, match=told):
        sg.simulate(SINE, x0, [0.0, 0.1], boundary=sg.Periodic(0.0, 6.0), rng=0)
    with pytest.raises(ValueError, match=told):
        sg.FokkerPlanck(SINE, sg.Grid(0.0, 6.0, 100), "periodic")
    noise = sg.ItoProcess(lambda x: 0 * x, lambda x: 1 + x.square())
    with pytest.raises(ValueError, match="no period of the diffusion"):
        sg.simulate(noise, x0, [0.0, 0.1], boundary=sg.Periodic(-1.0, 1.0), rng=0)


def test_a_drift_known_within_one_period_takes_the_remainder():
    """The cure of the message, followed."""
    low, high = 0.0, 6.0

    def drift(x):
        return 3.0 - (torch.remainder(x - low, high - low) + low)

    x0 = torch.full((10, 1), 3.0, dtype=F64)
    sg.simulate(sg.ItoProcess(drift, 0.1), x0, [0.0, 0.1], boundary=sg.Periodic(low, high), rng=0)


def test_a_period_of_one_coordinate_of_several():
    active = sg.ItoProcess(lambda z: torch.stack([torch.cos(z[:, 1]), -z[:, 0]], 1), 0.1)
    x0 = torch.zeros(3, 2, dtype=F64)
    sg.simulate(active, x0, [0.0, 0.1], boundary={1: sg.Periodic(0.0, 2 * math.pi)}, rng=0)
    with pytest.raises(ValueError, match="no period of the drift"):
        sg.simulate(active, x0, [0.0, 0.1], boundary={0: sg.Periodic(0.0, 1.0)}, rng=0)


def small(x):
    return -0.05 * x.cos()


TURNING = 2 * math.pi
FAST = torch.tensor([[[0.3], [1e5]]], dtype=F64).repeat(5, 1, 1)


@pytest.mark.parametrize(
    ("sde", "x0", "box"),
    [
        # a force that is small beside friction, and one beside another coordinate
        (sg.UnderdampedLangevin(small), FAST, sg.Periodic(0.0, 6.0)),
        (
            sg.ItoProcess(lambda x: torch.stack([x[:, 0].sin(), -1e5 * x[:, 1]], 1), 1.0),
            FAST[:, :, 0],
            {0: sg.Periodic(0.0, 6.0)},
        ),
        # one that has the period at first alone
        (
            sg.UnderdampedLangevin(lambda x, t: -(x * (1 + t)).cos()),
            FAST * 0,
            sg.Periodic(0.0, TURNING),
        ),
        # a spring on a ring, which has it where both ends go around together
        (
            sg.Langevin(lambda x: (x[:, 0] - x[:, 1]).square()),
            FAST[:, :, 0] * 0,
            sg.Periodic(0.0, 1.0, coordinates="all"),
        ),
    ],
)
def test_a_period_that_is_hard_to_tell_is_refused(sde, x0, box):
    with pytest.raises(ValueError, match="is no period of the drift"):
        sg.simulate(sde, x0, [0.0, 1e-3, 1.0], boundary=box, rng=0)
    if sde.autonomous:
        with pytest.raises(ValueError, match="is no period of the drift"):
            sg.contain(box, sde, x0, [0.0, 1.0])


def test_particles_on_a_ring_do_not_meet_where_their_period_is_looked_at():
    """A repulsion 1/r² by the nearest image: one place for all would make it infinite."""

    def repulsion(x):
        apart = x[:, 0] - x[:, 1]
        return 1 / (apart - apart.round()).square()

    pair, x0 = sg.Langevin(repulsion, 0.1), torch.tensor([[0.1, 0.5]], dtype=F64)
    ring = sg.Periodic(0.0, 1.0, coordinates="all")
    assert sg.simulate(pair, x0, [0.0, 1e-4], boundary=ring, rng=0).windings is not None


@pytest.mark.parametrize(
    "made",
    [
        lambda end: sg.Reflecting(end),
        lambda end: sg.Absorbing(high=end),
        lambda end: sg.Periodic(0.0, end),
    ],
)
def test_an_end_that_requires_grad_would_lose_it(made):
    with pytest.raises(TypeError, match=r"(low|high) of \w+ is a tensor that requires grad"):
        made(torch.tensor(1.0, requires_grad=True))
