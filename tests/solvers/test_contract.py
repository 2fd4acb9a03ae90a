"""What every solver keeps to: one list, and a class that is not in it fails."""

import copy
import inspect
import math

import pytest
import torch
from sdes import turning

import sdegen as sg
from sdegen.core.noise import RememberedNoise
from sdegen.core.solver import Solver

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
LAW = sg.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], stds=[0.2, 0.4]).noised(VP)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
ODE = sg.ItoProcess(lambda x: x - x**3, 0.0)
JUMPS = sg.JumpDiffusion(
    WELL, sg.CompoundPoisson(3.0, torch.distributions.Normal(torch.zeros(2), 0.5))
)
GEOMETRIC = sg.ItoProcess(lambda x: -x, lambda x: 0.5 * x)
TURNING = sg.ItoProcess(lambda x: -x, turning, channels=3)
MIXED = sg.ItoProcess(lambda x: x - x**3, lambda x: 0.3 * x.flip(1) + 1.0)
CHANNELS = sg.ItoProcess(
    lambda x: x - x**3,
    lambda x: torch.stack([0.1 * x, 0.2 * x.flip(1), torch.ones_like(x)], -1),
    channels=3,
    linear_part=2.0,
)
SDE_, FLOW = (sg.ReverseSDE(VP, LAW.score, eta=eta) for eta in (1.0, 0.0))


PHASE_SPACE = sg.UnderdampedLangevin(sg.DoubleWell(), 0.8, 0.4, mass=1.5)
RUBBED = sg.UnderdampedLangevin(lambda x, t: x**4 / 4 - t * x, lambda x: 1 + x**2, 0.4)
SWINGING = sg.UnderdampedLangevin(sg.DoubleWell(), 0.0)


def table():
    """A method with coefficients of its own, those of an Adams method on a grid."""
    grid = VP.time_grid(6)
    made = sg.ExponentialAdams(2, "x0").coefficients(FLOW, grid)
    return sg.LinearMultistep(grid, made, VP.kernel)


# each solver with dynamics that it takes; times are those of the dynamics
SOLVERS = [
    (sg.EulerMaruyama(), WELL),
    (sg.EulerMaruyama(), ODE),
    (sg.EulerMaruyama(), SDE_),
    (sg.Heun(), WELL),
    (sg.Heun(), ODE),
    (sg.JumpAdapted(), JUMPS),
    (sg.JumpAdapted(sg.Heun()), JUMPS),
    (sg.Milstein(), GEOMETRIC),
    (sg.Milstein(), TURNING),
    (sg.Milstein(), ODE),
    (sg.SRA(), WELL),
    (sg.SRA(), ODE),
    (sg.SRA(), SDE_),
    (sg.Metropolis(), sg.Langevin(sg.DoubleWell(), 0.5)),
    (sg.DRI1(), WELL),
    (sg.DRI1(), ODE),
    (sg.DRI1(), MIXED),
    (sg.DRI1(), CHANNELS),
    (sg.SKROCK(stages=3), WELL),
    (sg.SKROCK(stages=1), ODE),
    (sg.SKROCK(), CHANNELS),
    (sg.ImplicitEuler(), sg.OrnsteinUhlenbeck()),
    (sg.ImplicitEuler(), CHANNELS),
    (sg.EulerMaruyama(), CHANNELS),
    (sg.DDIM(), SDE_),
    (sg.DDIM(), FLOW),
    (sg.PredictorCorrector(corrector_steps=2), SDE_),
    (sg.MetropolisCorrector(LAW.log_prob), SDE_),
    (sg.ExponentialAdams(2, "x0"), SDE_),
    (sg.ExponentialAdams(3, "v"), FLOW),
    (sg.ExponentialAdamsMoulton(3, "v"), FLOW),
    (sg.AngularAdams(3), FLOW),
    (table(), FLOW),
    (sg.KarrasHeun(), FLOW),
    (sg.KarrasHeun(churn=sg.Churn(5.0)), FLOW),
    (sg.DPM2(), SDE_),
    (sg.FinalDenoising(sg.DDIM()), SDE_),
    (sg.FinalDenoising(sg.SRA()), SDE_),
    (sg.AdaptiveHeun(), SDE_),
    (sg.BAOAB(), PHASE_SPACE),
    (sg.BAOAB(), RUBBED),
    (sg.BAOAB(), SWINGING),
    (sg.OBABO(), PHASE_SPACE),
    (sg.OBABO(), RUBBED),
    (sg.OBABO(), SWINGING),
    (sg.QUICSORT(), PHASE_SPACE),
    (sg.QUICSORT(), SWINGING),
    (sg.EulerMaruyama(), PHASE_SPACE),
    (sg.Heun(), PHASE_SPACE),
    (sg.TorchSDE("srk"), WELL),
    (sg.TorchSDE("milstein"), WELL),
    (sg.TorchDiffEq("dopri5"), ODE),
]
ids = [f"{type(s).__name__}-{i}" for i, (s, _) in enumerate(SOLVERS)]
every = pytest.mark.parametrize(("solver", "sde"), SOLVERS, ids=ids)
fixed = pytest.mark.parametrize(
    ("solver", "sde"),
    [row for row in SOLVERS if not row[0].chooses_steps],
    ids=[i for i, row in zip(ids, SOLVERS, strict=True) if not row[0].chooses_steps],
)


def times_of(sde):
    reverse = isinstance(sde, sg.ReverseSDE)
    return VP.time_grid(6) if reverse else torch.linspace(0, 0.6, 7, dtype=F64)


def start(sde, dtype=F64):
    x = torch.linspace(-1, 1, 10, dtype=dtype).reshape(5, 2)
    return x[..., None] if sde.phase_space else x


def noise_of(solver, sde, x, seed=4):
    """What a run by hand draws from; None where it draws nothing."""
    return sg.Noise(x, rng=seed, channels=sde.channels) if solver.is_stochastic(sde) else None


def by_hand(solver, sde, x, noise):
    with torch.no_grad():
        return [*sg.integrate(sde, solver, x, times_of(sde), noise)]


def test_no_solver_is_left_out():
    public = {v for v in vars(sg).values() if inspect.isclass(v) and issubclass(v, Solver)}
    for name in dir(sg):  # names are loaded on first use
        value = getattr(sg, name)
        if inspect.isclass(value) and issubclass(value, Solver):
            public.add(value)
    abstract = {kind for kind in public if inspect.isabstract(kind)}
    assert public - abstract == {type(solver) for solver, _ in SOLVERS}


@every
def test_the_loop_by_hand_is_the_run(solver, sde):
    """To the bit, for all that `simulate` does around it."""
    x = start(sde)
    noise = noise_of(solver, sde, x)
    path = sg.simulate(sde, x, times_of(sde), solver=solver, rng=4)
    assert torch.equal(torch.stack(by_hand(solver, sde, x, noise)), path.states[1:])


@every
def test_a_state_is_not_written_to_and_keeps_its_kind(solver, sde):
    for dtype in (torch.float32, F64):
        x = start(sde, dtype)
        noise = noise_of(solver, sde, x)
        states = by_hand(solver, sde, x, noise)
        assert torch.equal(x, start(sde, dtype))
        assert {state.dtype for state in states} == {dtype}
        assert all(state.shape == x.shape for state in states)


@fixed
def test_what_a_method_remembers_goes_in_and_out(solver, sde):
    """A step from one memory is the same however often it is taken, and whatever came between."""
    x, nodes = start(sde), times_of(sde)
    memory = solver.begin(sde, nodes)
    with torch.no_grad():
        for i in range(3):
            drawn, again = (noise_of(solver, sde, x, 9 + i) for _ in range(2))
            if solver.needs and drawn is not None:
                drawn, again = (sg.StepNoise(one, nodes) for one in (drawn, again))
            after, following = solver.step(sde, x, i, drawn, memory)
            twice, _ = solver.step(sde, x, i, again, memory)
            assert torch.equal(after, twice)
            x, memory = after, following


@every
def test_evaluations_are_those_declared(solver, sde):
    """Declared for a step, and counted in a run; the last of `FinalDenoising` is one more."""
    path = sg.simulate(sde, start(sde), times_of(sde), solver=solver, rng=4)
    if solver.evaluations is not None:
        # splittings ask the first force beside one a step
        more = isinstance(solver, sg.FinalDenoising | sg.BAOAB | sg.OBABO)
        assert path.nfe == solver.evaluations * (len(times_of(sde)) - 1) + more
    calls = []
    inner = sde.denoising

    def counting(x, t):
        calls.append(1)
        return LAW.score(x, t)

    if inner is not None:
        watched = sg.ReverseSDE(VP, counting, eta=inner.eta)
        noise = noise_of(solver, sde, start(sde))
        by_hand(solver, watched, start(sde), noise)
        assert len(calls) == path.nfe


@every
def test_a_draw_is_asked_for_only_where_the_solver_says_that_it_draws(solver, sde):
    x, asked = start(sde), []
    if not solver.is_stochastic(sde):
        by_hand(solver, sde, x, None)  # and nothing is missed
        return
    noise = RememberedNoise(noise_of(solver, sde, x))
    by_hand(solver, sde, x, noise)
    asked.append(noise.last)
    # the adaptive one draws in an order of its own
    assert isinstance(solver, sg.AdaptiveHeun) or asked[-1] is not None


@pytest.mark.parametrize(
    ("solver", "order"),
    [(s, s.orders.flow) for s in (sg.EulerMaruyama(), sg.Heun(), sg.DRI1(), sg.SKROCK(stages=2))],
)
def test_a_flow_runs_forth_and_back_to_its_declared_order(solver, order):
    x0, gaps = torch.tensor([[0.3], [1.7]], dtype=F64), []
    for n in (320, 640):
        there = torch.linspace(0, 1, n + 1, dtype=F64)
        x = [*sg.integrate(ODE, solver, x0, there)][-1]
        back = [*sg.integrate(ODE, solver, x, there.flip(0))][-1]
        gaps.append(float((back - x0).abs().max()))
    # what the two ways leave is of the order of the method, or of one more where it is odd
    assert order - 0.1 < math.log2(gaps[0] / gaps[1]) < order + 1.1
    assert gaps[1] < 0.02


def test_a_memory_may_be_kept_and_gone_on_with():
    """A run that is stopped in the middle and gone on with is the run."""
    solver, nodes, x = sg.ExponentialAdams(3, "v"), times_of(FLOW), start(FLOW)
    with torch.no_grad():
        whole = [*sg.integrate(FLOW, solver, x, nodes)]
        memory = solver.begin(FLOW, nodes)
        for i in range(3):
            x, memory = solver.step(FLOW, x, i, None, memory)
        kept = copy.copy(memory)
        for i in range(3, len(nodes) - 1):
            x, kept = solver.step(FLOW, x, i, None, kept)
    assert torch.equal(x, whole[-1])


@pytest.mark.parametrize("name", ["check_brownian", "check_freeze", "check_gradients"])
def test_checks_by_their_old_names_are_refused(name):
    """Nobody would call them."""
    with pytest.raises(TypeError, match=f"Mine defines {name}, which is check_asked since"):
        type("Mine", (sg.EulerMaruyama,), {name: lambda self: None})
