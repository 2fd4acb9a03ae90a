import pytest
import torch
from exact import noised_gaussian, solved

import sdegen as sg
from sdegen.core.fixed_steps import refine
from sdegen.core.noise import stream
from sdegen.engine.record import RunOptions

F64 = torch.float64

SOLVERS = [
    (sg.EulerMaruyama(), 1),
    (sg.EulerMaruyama(substeps=3), 3),
    (sg.Heun(substeps=2), 4),
    (sg.DDIM(), 1),
    (sg.PredictorCorrector(), 2),
    (sg.PredictorCorrector(substeps=2, corrector_steps=3), 8),
    (sg.TorchSDE("euler"), 1),
    (sg.TorchSDE("milstein"), 1),
    (sg.TorchSDE("heun", substeps=2), 4),
    (sg.TorchSDE("midpoint"), 2),
    (sg.TorchSDE("srk"), 3),
]


def counting(function):
    """The function, and a list with the times of its calls."""
    seen = []

    def counted(x, t):
        seen.append(float(t))
        return function(x, t)

    return counted, seen


@pytest.mark.parametrize(("solver", "per_interval"), SOLVERS, ids=lambda v: str(v))
def test_nfe_is_what_really_happened_and_stays_above_t_min(solver, per_interval):
    sde, noised = noised_gaussian()
    score, seen = counting(noised.score)
    times = sde.time_grid(7)
    x = torch.zeros(3, 1, dtype=F64)
    out = sg.simulate(sg.ReverseSDE(sde, score), x, times, solver=solver, rng=0, interacting=True)
    probes = 1  # the door looks once
    assert out.nfe == len(seen) - probes == 7 * per_interval
    assert min(seen) >= sde.t_min
    assert max(seen) <= sde.t_max


@pytest.mark.parametrize("sign", [1, -1])
def test_substeps_walk_finer_and_return_the_times_asked_for(sign):
    ode = sg.ItoProcess(lambda x, t: sign * x * t, 0.0)
    times = torch.tensor([0.0, 0.5, 2.0], dtype=F64)
    x = torch.ones(1, 1, dtype=F64)
    coarse = sg.simulate(ode, x, times, solver=sg.Heun(substeps=4))
    fine = sg.simulate(ode, x, refine(times, 4), solver=sg.Heun())
    assert torch.equal(coarse.states, fine.states[[0, 4, 8]])
    assert torch.equal(coarse.times, times)
    last = sg.simulate(ode, x, times, solver=sg.Heun(substeps=4), keep_path=False)
    assert torch.equal(last.states, coarse.states[-1:])
    assert torch.equal(last.times, times[-1:])


def test_refine_meets_every_time_exactly():
    times = torch.tensor([1.0, 0.7, 0.1], dtype=F64)
    nodes = refine(times, 3)
    assert torch.equal(nodes[::3], times)
    torch.testing.assert_close(nodes.diff(), torch.tensor([-0.1] * 3 + [-0.2] * 3, dtype=F64))


@pytest.mark.parametrize("kind", [sg.EulerMaruyama, sg.Heun, sg.DDIM, sg.TorchSDE])
def test_substeps_must_be_a_count(kind):
    with pytest.raises(ValueError, match="substeps must be ≥ 1, but is 0"):
        kind(substeps=0)
    with pytest.raises(TypeError, match="substeps must be an int, but is float"):
        kind(substeps=2.0)
    with pytest.raises(TypeError, match="substeps must be an int, but is bool"):
        kind(substeps=True)


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(), sg.TorchSDE("euler"), sg.TorchSDE("srk")])
def test_an_explosion_is_found_and_what_came_before_is_kept(solver):
    # rows above 0 explode in finite time, the one below decays
    sde = sg.ItoProcess(lambda x: x * x.abs(), 1e-3)
    x = torch.tensor([[3.0], [-1e-3], [2.0]], dtype=F64)
    times = torch.arange(0, 101, dtype=F64) / 10
    with pytest.raises(sg.NonFiniteError, match="2 of 3 trajectories non-finite by t = ") as info:
        sg.simulate(sde, x, times, solver=solver, rng=0)
    kept = info.value.result
    assert 2 <= len(kept.times) < 101
    assert kept.states.isfinite().all()
    assert torch.equal(kept.times, times[: len(kept.times)])


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(), sg.TorchSDE("euler"), sg.TorchSDE("srk")])
def test_freeze_goes_on_without_what_is_lost(solver):
    sde = sg.ItoProcess(lambda x: x * x.abs(), 1e-3)
    x = torch.tensor([[3.0], [-1e-3], [2.0]], dtype=F64)
    times = torch.arange(0, 101, dtype=F64) / 10
    out = sg.simulate(sde, x, times, solver=solver, rng=0, on_nonfinite="freeze")
    assert out.nonfinite.tolist() == [True, False, True]
    assert out.states.isfinite().all()
    lost = out.states[:, 0, 0]
    stopped = int((lost.diff() != 0).nonzero()[-1]) + 1
    assert stopped < 100
    assert float(lost[stopped]) > 1e50  # the last finite value, held
    # the survivor walks as if it were never accompanied by the lost
    drift = lambda x: torch.where(x > 1, 0.0, x * x.abs())  # noqa: E731
    calm = sg.simulate(sg.ItoProcess(drift, 1e-3), x, times, solver=solver, rng=0)
    torch.testing.assert_close(out.states[:, 1], calm.states[:, 1], rtol=1e-12, atol=0)
    last = sg.simulate(sde, x, times, solver=solver, rng=0, on_nonfinite="freeze", keep_path=False)
    assert torch.equal(last.final, out.final)


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(), sg.TorchSDE("heun")])
def test_an_error_in_a_drift_passes_through_with_the_step_in_a_note(solver):
    def drift(x, t):
        if t > 0.5:
            raise KeyError("mine")
        return -x

    sde = sg.ItoProcess(drift, 1.0)
    with pytest.raises(KeyError, match="mine") as info:
        sg.simulate(sde, torch.zeros(2, 1), torch.linspace(0, 1, 5), solver=solver, rng=0)
    expected = {"EulerMaruyama": "in step 3 of 4, at t = 0.75", "TorchSDE": "in step 2 of 4"}
    assert expected[type(solver).__name__] in info.value.__notes__[0]


@pytest.mark.parametrize(
    "solver", [sg.Heun(), sg.DDIM(), sg.PredictorCorrector(), sg.TorchSDE("srk"), sg.TorchDiffEq()]
)
def test_markov_chains_are_for_euler_maruyama_alone(solver):
    chain = sg.DDPM([0.1, 0.2])
    with pytest.raises(
        ValueError, match=r"DDPM is a Markov chain on integer times.*EulerMaruyama"
    ):
        sg.simulate(chain, torch.zeros(2, 1), [0.0, 1.0, 2.0], solver=solver)


@pytest.mark.parametrize("solver", [sg.TorchSDE("srk"), sg.TorchDiffEq()])
def test_external_solvers_take_no_walls(solver):
    sde = sg.ItoProcess(lambda x: -x, 1.0 if isinstance(solver, sg.TorchSDE) else 0.0)
    with pytest.raises(ValueError, match="cannot keep a state inside a boundary"):
        sg.simulate(
            sde, torch.zeros(2, 1), [0.0, 1.0], solver=solver, boundary=sg.Reflecting(-1.0, 1.0)
        )


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(substeps=3), sg.TorchSDE("srk", substeps=3)])
def test_ticks_count_the_times_reached(solver):
    ticks = []
    sde, times = sg.BrownianMotion(), torch.linspace(0, 1, 6, dtype=F64)
    solved(solver,
        sde, torch.zeros(2, 1), times, noise=stream(0, "x"), keep_path=False,
        options=RunOptions(on_progress=lambda: ticks.append(1)),
    )  # fmt: skip
    assert len(ticks) == 5


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.EulerMaruyama(), sg.Heun()])
@pytest.mark.parametrize(("steps", "keep_path"), [(7, True), (100, False)])
def test_a_score_that_is_nan_at_small_t_is_told_with_the_t(solver, steps, keep_path, as_user):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))

    def score(x, t):
        return -x if t >= 0.2 else torch.full_like(x, torch.nan)

    x, times = sde.prior((5, 1), rng=0), sde.time_grid(steps)
    first = float(times[times < 0.2][0])
    told = (
        rf"5 of 5 trajectories non-finite by.*The score is not finite at t = {first:g}, where the "
        r"states are, for 5 of 5 of them: look at what it returns there"
    )
    flow = sg.ReverseSDE(sde, score, eta=0.0)
    with pytest.raises(sg.NonFiniteError, match=told):
        sg.simulate(flow, x, times, solver=solver, keep_path=keep_path)


def test_trajectories_that_run_away_are_no_fault_of_a_time(as_user):
    sde = sg.ItoProcess(lambda x, t: x**3, 0.0)
    x, times = torch.full((3, 1), 2.0), torch.linspace(0, 5, 51)
    with pytest.raises(sg.NonFiniteError, match=r"3 of 3.*Take smaller steps \(substeps"):
        sg.simulate(sde, x, times, keep_path=False)
