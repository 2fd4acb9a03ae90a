"""A phase space in every room: each takes positions and velocities right, or refuses by name."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.fingerprint import to_spec
from sdegen.core.noise import stream

F64 = torch.float64
TIMES = torch.linspace(0.0, 1.0, 6, dtype=F64)
STIFFNESS, FRICTION, TEMPERATURE, MASS = 2.0, 0.7, 0.4, 1.5
TRAP = sg.UnderdampedLangevin(sg.Quadratic(STIFFNESS), FRICTION, TEMPERATURE, MASS)
LINEAR = sg.LinearSDE.of(TRAP, 2)
START = torch.tensor([[[1.0], [0.5]]], dtype=F64)
LINE = sg.Grid(-4.0, 4.0, cells=60)
RING = {0: sg.Periodic(-math.pi, math.pi)}
PENDULUM = sg.UnderdampedLangevin(lambda x: -x.cos() - 0.5 * x, 0.5)
QUIET = {"rng": 0, "progress": False}


def states(n, sde=TRAP):
    """The start, n times."""
    return START.expand(n, 2, 1).contiguous()


def gibbs(x, t):
    """∇ log of the density at rest, whatever t is."""
    rates = torch.tensor([STIFFNESS, MASS], dtype=F64)[:, None] / TEMPERATURE
    return -rates * x + 0 * t.reshape(-1, *(1,) * (x.ndim - 1))


def reversed_in_time(eta):
    return sg.ReverseSDE(TRAP, gibbs, eta)


REFUSED = {  # room: what it says, the name of what refuses first
    "a density on a line": (
        r"FokkerPlanck is for one coordinate.* take FokkerPlanck2D\(sde, \(grid of x, grid of v",
        lambda: sg.FokkerPlanck(TRAP, LINE),
    ),
    "a family of densities": (
        "FokkerPlanckBatch is for one coordinate",
        lambda: sg.FokkerPlanckBatch([TRAP], LINE),
    ),
    "a grid that covers": (
        "Grid.covering is for one coordinate",
        lambda: sg.Grid.covering(TRAP),
    ),
    "an end": (
        "classify_boundary is for one coordinate",
        lambda: sg.classify_boundary(TRAP, 0.0),
    ),
    "the density of a chain": (
        r"ChainDensity is for one coordinate.* take ChainDensity2D\(sde, \(grid of x",
        lambda: sg.ChainDensity(TRAP, LINE, sg.EulerMaruyama(5)),
    ),
    "a certificate": (
        "certify is for one coordinate",
        lambda: sg.certify(TRAP, LINE, 0.5, [0.0, 0.5], rng=0),
    ),
    "a likelihood of states": (
        "no t_min and t_max of its own",
        lambda: sg.log_likelihood(TRAP, gibbs, states(3)),
    ),
    "coloured noise": ("take GeneralizedLangevin", lambda: sg.Coloured(TRAP, 0.5)),
    "a solver fitted to a model": (
        "calibrate|GaussianPath|kernel",
        lambda: sg.calibrate(reversed_in_time(0.0), sg.AngularAdams(), 4, states(9)),
    ),
    "a sampler": (
        "DDIM needs",
        lambda: sg.simulate(reversed_in_time(1.0), states(3), TIMES.flip(0), solver=sg.DDIM()),
    ),
    "a splitting of the reversal": (
        "ReverseSDE is no UnderdampedLangevin",
        lambda: sg.simulate(reversed_in_time(1.0), states(3), TIMES.flip(0), solver=sg.BAOAB()),
    ),
    "a wall of the reversal": (
        "a Reflecting end of a phase space is for UnderdampedLangevin",
        lambda: sg.simulate(
            reversed_in_time(1.0), states(3), TIMES.flip(0), boundary={0: sg.Reflecting(-9.0)}
        ),
    ),
    "a linear part": (
        "ImplicitEuler takes the linear part",
        lambda: sg.simulate(TRAP, states(3), TIMES, solver=sg.ImplicitEuler()),
    ),
    "an adaptive flow with noise": (
        "TorchDiffEq solves noise-free dynamics",
        lambda: sg.simulate(TRAP, states(3), TIMES, solver=sg.TorchDiffEq()),
    ),
    "an odd number of numbers": (
        "as many velocities as positions, but 3 numbers",
        lambda: sg.LinearSDE.of(TRAP, 3),
    ),
    "a chain of an odd number": (
        "as many velocities as positions, but 3 numbers",
        lambda: sg.ChainMoments(TRAP, 3, sg.EulerMaruyama()).stationary(0.1),
    ),
    "a state in a row": (
        r"has shape \(batch, 2, \*event\), positions and velocities, but has shape \(3, 2\)",
        lambda: sg.simulate(TRAP, torch.zeros(3, 2, dtype=F64), TIMES, rng=0),
    ),
    "a state in a row, beside a wall": (
        r"has shape \(batch, 2, \*event\), positions and velocities, but has shape \(3, 2\)",
        lambda: sg.simulate(
            TRAP, torch.zeros(3, 2, dtype=F64), TIMES, rng=0, boundary={0: sg.Reflecting(-1.0)}
        ),
    ),
}


@pytest.mark.parametrize("room", REFUSED)
def test_rooms_that_refuse_say_so_by_name(room):
    message, run = REFUSED[room]
    with pytest.raises((TypeError, ValueError), match=message):
        run()


# Runs. The law at t = 1 of a start at one point is Gaussian: `LinearSDE.of`

LAW = LINEAR.transition(0.0, 1.0)
MEAN, COVARIANCE = LAW.mean(START[:, :, 0])[0], LAW.covariance


def agrees(x, n, slack=0.0):
    """Mean and covariance of states within 4.9 standard errors: false alarm 5e-6 together."""
    x = x.flatten(1).double()
    error = (COVARIANCE.diag() / n).sqrt()
    assert bool(((x.mean(0) - MEAN).abs() < 4.9 * error + slack).all())
    d = COVARIANCE.diag()
    spread = ((torch.outer(d, d) + COVARIANCE.square()) / n).sqrt()
    assert bool(((torch.cov(x.T) - COVARIANCE).abs() < 4.9 * spread + slack).all())


SOLVERS = {
    "the default": None,
    "EulerMaruyama": sg.EulerMaruyama(40),
    "Heun": sg.Heun(4),
    "SRA": sg.SRA(4),
    "DRI1": sg.DRI1(4),
    "Milstein": sg.Milstein(40),
    "SKROCK": sg.SKROCK(40),
    "TorchSDE": sg.TorchSDE("srk", 4),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_have_the_law_of_the_linear_process(name):
    """By their steps off by less than 1e-2 each; TorchSDE is slow, and takes a few."""
    n, solver = 500 if name == "TorchSDE" else 4000, SOLVERS[name]
    run = sg.simulate(TRAP, states(n), TIMES, solver=solver, rng=1)
    assert run.phase_space
    assert torch.equal(torch.stack([run.x, run.v], 2), run.states)
    agrees(run.final, n, slack=1e-2)


def test_a_flow_keeps_the_energy_with_an_adaptive_solver():
    still = sg.UnderdampedLangevin(sg.Quadratic(2.0), 0.0)
    run = sg.simulate(still, states(3), TIMES, solver=sg.TorchDiffEq(rtol=1e-9, atol=1e-9))
    torch.testing.assert_close(still.energy(run.final), still.energy(states(3)), rtol=1e-7, atol=0)


def test_ensembles_threads_and_stores_have_the_bits_of_a_run(tmp_path):
    """Two blocks, with a wall; resumed to the same bits; another friction is refused."""
    n, times = 60_000, [0.0, 0.2, 0.4]
    options = {"trajectories": n, "boundary": {0: sg.Reflecting(0.0)}, "rng": 0, "progress": False}
    options |= {"observables": [sg.Moments()], "solver": sg.BAOAB(2)}
    one = sg.run_ensemble(TRAP, START, times, threads=1, **options)
    two = sg.run_ensemble(TRAP, START, times, threads=2, store=tmp_path / "run", **options)
    again = sg.run_ensemble(TRAP, START, times, store=tmp_path / "run", resume=True, **options)
    run = sg.simulate(
        TRAP, states(n), times, rng=0, boundary={0: sg.Reflecting(0.0)}, solver=sg.BAOAB(2)
    )
    for other in (two, again):
        for key in ("mean", "variance"):
            first, second = (getattr(e.observables["moments"], key) for e in (one, other))
            assert torch.equal(first, second)
    torch.testing.assert_close(one.observables["moments"].mean, run.states.mean(1))
    stored = torch.as_tensor(two.open().states.values)
    assert torch.equal(stored, run.states)
    other = sg.UnderdampedLangevin(sg.Quadratic(STIFFNESS), 0.8, TEMPERATURE, MASS)
    with pytest.raises(ValueError, match=r"(?s)holds another run.*friction"):
        sg.run_ensemble(other, START, times, store=tmp_path / "run", resume=True, **options)


def test_a_spec_says_all_that_it_was_made_from():
    same = sg.UnderdampedLangevin(sg.Quadratic(STIFFNESS), FRICTION, TEMPERATURE, MASS)
    assert to_spec(same) == to_spec(TRAP)
    for changed in ({"friction": 0.8}, {"temperature": 0.5}, {"mass": 2.0}):
        given = {"friction": FRICTION, "temperature": TEMPERATURE, "mass": MASS} | changed
        assert to_spec(sg.UnderdampedLangevin(sg.Quadratic(STIFFNESS), **given)) != to_spec(TRAP)


def test_a_pilot_warns_of_large_steps():
    with pytest.warns(sg.AccuracyWarning, match="steps of 1.2 are large for UnderdampedLangevin"):
        sg.simulate(TRAP, states(400), [0.0, 1.2], rng=0)


def test_positions_that_depend_on_each_other_run_together():
    """A mean field of positions is seen, and blocks are not cut."""

    def mean_field(x):
        return (x - x.mean(0)).square()

    sde = sg.UnderdampedLangevin(mean_field, 0.0)
    x0 = stream(3, "x").normal((30, 2, 1), dtype=F64)
    run = sg.simulate(sde, x0, TIMES, solver=sg.BAOAB(4))
    middle = x0[:, 0].mean() + x0[:, 1].mean() * TIMES
    torch.testing.assert_close(run.x.mean((1, 2)), middle, rtol=1e-9, atol=1e-12)


def test_walls_of_compiled_runs_are_walked_step_by_step():
    """The same bits as without compile; `tests/solvers` have the law of what is compiled."""
    first, second = (
        sg.simulate(
            TRAP, states(50), TIMES, rng=3, boundary={0: sg.Reflecting(0.0)},
            solver=sg.BAOAB(10, compile=compiled),
        ).states
        for compiled in (True, False)
    )  # fmt: skip
    assert torch.equal(first, second)


# Observables


def test_observables_are_those_of_the_states():
    n = 3000
    named = [sg.Moments(), sg.Histogram(-2.0, 2.0, 8), sg.TimeCorrelation(origin=1)]
    named += [sg.Histogram(-2.0, 2.0, 8, coordinate=1, name="of v")]
    named += [sg.FirstPassage(above=1.3)]
    options = {"solver": sg.BAOAB(4), "rng": 0}
    found = sg.run_ensemble(
        TRAP, states(n), TIMES, trajectories=n, observables=named, progress=False, **options
    ).observables
    x = sg.simulate(TRAP, states(n), TIMES, **options).states
    torch.testing.assert_close(found["moments"].mean, x.mean(1))
    for name, k in (("histogram", 0), ("of v", 1)):
        counts = torch.stack([torch.histc(each[:, k, 0], 8, -2.0, 2.0) for each in x])
        torch.testing.assert_close(found[name].counts.double(), counts)
    gap = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(
        found["correlation"].covariance, (gap * gap[1]).sum(1)[1:] / (n - 1), rtol=1e-9, atol=1e-12
    )


def test_a_first_passage_of_a_position_has_no_bridge():
    """Free flight: x + v t > 1.2 at a step or before, to the time that a line finds between."""
    n = 400
    z = torch.cat([START.new_zeros(n, 1, 1), stream(0, "v").normal((n, 1, 1), dtype=F64)], 1)
    free = sg.UnderdampedLangevin(lambda x: 0 * x, 0.0)
    for bridge in (True, False):
        passage = sg.run_ensemble(
            free, z, TIMES, trajectories=n, rng=0, progress=False, solver=sg.BAOAB(10),
            observables=[sg.FirstPassage(above=0.5, bridge=bridge)],
        ).observables["first_passage"]  # fmt: skip
        below = (TIMES[:, None] * z[:, 1, 0] < 0.5).sum(1)
        assert torch.equal(passage.waiting, below)


def test_observables_on_a_ring_see_turns():
    n, options = 500, {"solver": sg.BAOAB(20), "rng": 0, "boundary": RING}
    z, times = torch.zeros(n, 2, 1, dtype=F64), torch.linspace(0, 20, 6, dtype=F64)
    found = sg.run_ensemble(
        PENDULUM, z, times, trajectories=n, progress=False, **options,
        observables=[sg.Moments(), sg.TimeCorrelation(unwrapped=True)],
    ).observables  # fmt: skip
    run = sg.simulate(PENDULUM, z, times, **options)
    torch.testing.assert_close(found["moments"].mean, run.states.mean(1))
    assert float(run.unwrapped[-1, :, 0].mean()) > 2 * math.pi
    free = sg.simulate(PENDULUM, z, times, solver=sg.BAOAB(20), rng=0)
    torch.testing.assert_close(run.unwrapped, free.states, rtol=0, atol=1e-6)


# Laws and averages


def test_laws_in_a_row_have_the_positions_first():
    stationary = LINEAR.stationary_covariance()
    expected = torch.tensor([TEMPERATURE / STIFFNESS, TEMPERATURE / MASS], dtype=F64).diag()
    torch.testing.assert_close(stationary, expected, rtol=1e-12, atol=1e-14)
    chain = sg.ChainMoments(TRAP, 2, sg.EulerMaruyama(2000)).run(
        START[0, :, 0], torch.zeros(2, 2, dtype=F64), [0.0, 1.0]
    )
    torch.testing.assert_close(chain.means[-1], MEAN, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(chain.covariances[-1], COVARIANCE, rtol=5e-3, atol=1e-3)


def test_the_density_of_a_plane_is_kinetic():
    """Gibbs's law of x and v on a grid, positions first."""
    rest = sg.FokkerPlanck2D(TRAP, (sg.Grid(-2.5, 2.5, cells=40), sg.Grid(-4, 4, cells=40)))
    cov = rest.stationary().covariance
    expected = torch.tensor([TEMPERATURE / STIFFNESS, TEMPERATURE / MASS], dtype=F64).diag()
    torch.testing.assert_close(torch.as_tensor(cov), expected, rtol=1e-3, atol=1e-4)


def test_averages_to_a_tolerance():
    """⟨x²⟩ at t = 1 by levels, and by two steps: exact within what they promise, seeded."""
    exact = float(MEAN[0] ** 2 + COVARIANCE[0, 0])
    found = sg.expectation(TRAP, START, 1.0, lambda z: z[:, 0, 0] ** 2, tolerance=0.03, rng=0)
    assert abs(float(found.mean) - exact) < 2 * 0.03
    two = sg.extrapolate(
        TRAP, START, [0.0, 1.0], lambda z: z[:, 0, 0] ** 2, trajectories=4000,
        solver=sg.EulerMaruyama(20), rng=0, progress=False,
    )  # fmt: skip
    assert abs(float(two.value) - exact) < 4.9 * float(two.standard_error) + 1e-3


def test_the_residual_of_gibbs_law_is_zero():
    """Also of a friction of x; that of another temperature is none."""
    x, t = stream(5, "x").normal((6, 2, 1), dtype=F64), torch.tensor(0.7, dtype=F64)
    rough = sg.UnderdampedLangevin(
        sg.Quadratic(STIFFNESS), lambda x: 0.5 + x**2, TEMPERATURE, MASS
    )
    for sde in (TRAP, rough):
        assert float(sg.fp_residual(gibbs, sde, x, t).abs().max()) < 1e-9
        wrong = sg.fp_residual(lambda x, t: 1.2 * gibbs(x, t), sde, x, t)
        assert float(wrong.abs().max()) > 0.1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_reversal_and_its_flow_keep_the_law_at_rest(eta):
    """By Gibbs's score; states are positions and velocities, within 4.9 errors."""
    n, reverse = 4000, reversed_in_time(eta)
    x = math.sqrt(TEMPERATURE / STIFFNESS) * stream(7, "x").normal((n, 1), dtype=F64)
    z = TRAP.state(x, TRAP.draw_velocities(x, rng=8))
    solver = sg.Heun(8) if eta == 0 else sg.EulerMaruyama(60)
    run = sg.simulate(reverse, z, TIMES.flip(0), rng=1, solver=solver)
    assert run.phase_space
    for half, variance in ((run.x, TEMPERATURE / STIFFNESS), (run.v, TEMPERATURE / MASS)):
        found = float(half[-1].var())
        assert abs(found / variance - 1) < 4.9 * math.sqrt(2 / n) + 0.01
    correlation = torch.corrcoef(run.final[..., 0].T)[0, 1]
    assert abs(float(correlation)) < 4.9 / math.sqrt(n) + 0.01
    assert reverse.event_of(6) == (2, 3)


def test_jumps_of_velocities():
    """A kick of one velocity: the mean of v grows by the rate times the size."""
    kicked = sg.JumpDiffusion(
        sg.UnderdampedLangevin(lambda x: 0 * x, 0.0),
        sg.CompoundPoisson(2.0, lambda x, u: torch.stack([0 * x[:, 0], 0.3 + 0 * x[:, 1]], 1)),
    )
    n = 4000
    run = sg.simulate(kicked, torch.zeros(n, 2, 1, dtype=F64), TIMES, rng=0)
    assert run.phase_space
    assert abs(float(run.v[-1].mean()) - 0.6) < 4.9 * 0.3 * math.sqrt(2 / n)
