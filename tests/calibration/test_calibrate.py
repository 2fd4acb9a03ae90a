"""Calibration: better on other starts, the gradient of the solver, files for one model alone."""

import dataclasses
import math

import pytest
import torch

import sdegen as sg
from sdegen.calibration.fitting import Unknowns, distance, multistep, on_circle
from sdegen.diffusion.pilot import walk

F = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LAW = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.6, -0.2]], stds=[0.5, 0.8]).noised(VP)
PAIR = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(VP)
FLOW = sg.ReverseSDE(VP, LAW.score, eta=0.0)
TIGHT = sg.TorchDiffEq("dopri8", rtol=1e-10, atol=1e-10)


def starts(n, seed):
    return LAW.sample(n, torch.tensor(1.0, dtype=F), rng=seed, dtype=F)


def exact(x):
    return sg.simulate(FLOW, x, VP.time_grid(1), solver=TIGHT, keep_path=False).final


@pytest.fixture(scope="module")
def calibrated():
    solver = sg.AngularAdams(3)
    return sg.calibrate(FLOW, solver, 5, starts(192, 1), reference=TIGHT, rounds=8)


@pytest.mark.slow
def test_five_evaluations_are_ten_times_better_on_other_starts(calibrated):
    x = starts(1000, 2)
    solver, goal = sg.AngularAdams(3), exact(x)
    rules = (sg.timesteps.uniform, sg.timesteps.power, sg.timesteps.log_snr)
    plain = min(
        float(distance(sg.simulate(FLOW, x, rule(VP, 5), solver=solver).final, goal))
        for rule in rules
    )
    out = sg.simulate(FLOW, x, calibrated.times, solver=calibrated.solver)
    assert out.nfe == 5
    error = float(distance(out.final, goal))
    assert error < 0.1 * plain
    # what it says of itself is what it is worth elsewhere: 64 held-out states, heavy tails
    assert 0.5 < error / calibrated.error < 2.0
    # it began from the best of a few solvers on a grid made for it, which is better than all rules
    assert calibrated.error < 0.5 * calibrated.error_before
    assert calibrated.error_before < 0.5 * plain


def test_nodes_alone_help_a_solver_of_two_evaluations():
    x = starts(500, 4)
    goal = exact(x)
    found = sg.calibrate(
        FLOW, sg.Heun(), 4, starts(96, 3), free_coefficients=False, reference=TIGHT, rounds=3
    )
    assert found.weights is None
    out = sg.simulate(FLOW, x, found.times, solver=found.solver)
    assert out.nfe == 8
    plain = [
        float(distance(sg.simulate(FLOW, x, rule(VP, 4), solver=sg.Heun()).final, goal))
        for rule in (sg.timesteps.uniform, sg.timesteps.power, sg.timesteps.log_snr)
    ]
    assert float(distance(out.final, goal)) < 0.5 * min(plain)


def test_what_is_descended_is_the_error_of_simulate(calibrated):
    x = starts(50, 5)
    unknowns = Unknowns.of(calibrated.times, calibrated.weights)
    nodes = unknowns.nodes(1.0, VP.t_min)
    ours = walk(multistep(VP.kernel, nodes, unknowns.weights), FLOW, nodes, x)
    theirs = sg.simulate(FLOW, x, calibrated.times, solver=calibrated.solver).final
    assert float((ours - theirs).abs().max()) < 1e-12
    assert float((nodes - calibrated.times).abs().max()) < 1e-14


def test_the_gradient_is_that_of_the_error():
    x, target = starts(8, 6), exact(starts(8, 6))
    solver, grid = sg.ExponentialAdamsMoulton(3, "v"), sg.timesteps.power(VP, 4)
    weights = on_circle(VP.kernel, grid, solver.coefficients(FLOW, grid), 4)
    begun = Unknowns.of(grid, weights).copied(requires_grad=True)

    def error(gaps, weights):
        nodes = Unknowns(gaps, weights).nodes(1.0, VP.t_min)
        return distance(walk(multistep(VP.kernel, nodes, weights), FLOW, nodes, x), target)

    assert torch.autograd.gradcheck(error, (begun.gaps, begun.weights))

    def of_a_grid(gaps):
        nodes = Unknowns(gaps, None).nodes(1.0, VP.t_min)
        return distance(walk(sg.ExponentialAdams(3, "x0"), FLOW, nodes, x), target)

    assert torch.autograd.gradcheck(of_a_grid, (begun.gaps,))


@pytest.mark.parametrize(
    "solver",
    [
        *(sg.EulerMaruyama(), sg.Heun(), sg.DDIM(), sg.KarrasHeun(), sg.DPM2()),
        *(sg.ExponentialAdams(4, "v"), sg.ExponentialAdams(2, "x0", "midpoint")),
        *(sg.ExponentialAdamsMoulton(3, "eps"), sg.AngularAdams(3)),
    ],
    ids=repr,
)
def test_the_gradient_of_the_nodes_is_that_of_the_error(solver):
    grid = sg.timesteps.power(VP, 4)
    begun, x = Unknowns.of(grid, None).copied(requires_grad=True), starts(8, 6)

    def end(gaps):
        return walk(solver, FLOW, Unknowns(gaps, None).nodes(1.0, VP.t_min), x)

    assert torch.autograd.gradcheck(end, (begun.gaps,), fast_mode=True)
    # and for numbers without gradients the steps are those of simulate
    theirs = sg.simulate(FLOW, x, grid, solver=solver, keep_path=False).final
    assert float((end(begun.gaps) - theirs).detach().abs().max()) < 1e-11


def test_nodes_of_dpm2_and_heun_are_worth_fitting():
    # of a wrong gradient they gained nothing
    flow = sg.ReverseSDE(VP, PAIR.score, eta=0.0)
    for solver in (sg.Heun(), sg.DPM2()):
        found = sg.calibrate(
            flow, solver, 5, VP.prior((200, 1), rng=0, dtype=F), free_coefficients=False, rounds=4,
            times=sg.timesteps.power(VP, 5),
        )  # fmt: skip
        assert found.error < 0.95 * found.error_before


@pytest.mark.parametrize(
    "solver",
    [
        sg.AngularAdams(4),
        sg.ExponentialAdams(1, "eps"),
        sg.ExponentialAdams(3, "x0"),
        sg.ExponentialAdamsMoulton(3, "eps"),
    ],
    ids=repr,
)
def test_on_the_circle_a_method_is_the_same_method(solver):
    nodes = sg.timesteps.power(VP, 7)
    weights = on_circle(VP.kernel, nodes, solver.coefficients(FLOW, nodes), 6)
    x = starts(20, 7)
    again = walk(multistep(VP.kernel, nodes, weights), FLOW, nodes, x)
    assert float((again - sg.simulate(FLOW, x, nodes, solver=solver).final).abs().max()) < 1e-11
    if solver == sg.AngularAdams(4):
        # Σ_j w_ij = 1, u = 0: it is Adams's for v
        assert float((weights[0].sum(1) - 1).abs().max()) < 1e-10
        assert float(weights[1].abs().max()) < 1e-10


def test_one_step_is_a_number_of_steps():
    x = starts(60, 8)
    found = sg.calibrate(FLOW, sg.AngularAdams(1), 1, x, reference=TIGHT, rounds=3)
    assert found.times.tolist() == [1.0, VP.t_min]
    assert found.error <= found.error_before
    assert sg.simulate(FLOW, x, found.times, solver=found.solver).nfe == 1


def test_its_cost_is_counted():
    calls = 0

    def score(x, t):
        nonlocal calls
        calls += 1
        return LAW.score(x, t)

    flow = sg.ReverseSDE(VP, score, eta=0.0)
    found = sg.calibrate(flow, sg.ExponentialAdams(2), 3, starts(12, 9), rounds=3)
    # beside what is counted: the probe at simulate's door, and three calls for the identity
    assert 0 <= calls - found.evaluations <= 5
    assert found.pilot == 12


def test_a_file_brings_it_back_to_the_bit(calibrated, tmp_path):
    path = tmp_path / "five.safetensors"
    calibrated.save(path)
    again = sg.Calibration.load(path, FLOW)
    x = starts(50, 10)
    ours, theirs = (
        sg.simulate(FLOW, x, c.times, solver=c.solver).final for c in (calibrated, again)
    )
    assert torch.equal(ours, theirs)
    for name in ("error", "error_before", "evaluations", "pilot"):
        assert getattr(again, name) == getattr(calibrated, name)
    again.save(tmp_path / "twice.safetensors")
    assert (tmp_path / "twice.safetensors").read_bytes() == path.read_bytes()


def test_a_file_of_another_model_or_sde_is_refused(calibrated, tmp_path):
    path = tmp_path / "five.safetensors"
    calibrated.save(path)
    narrow = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [0.6, -0.2]], stds=[0.5, 0.9])
    other = sg.ReverseSDE(VP, narrow.noised(VP).score, eta=0.0)
    with pytest.raises(sg.CheckpointError, match=r"another model: at t = .* differs .* by .* %"):
        sg.Calibration.load(path, other)
    slow = sg.VP(sg.LinearBeta(0.1, 15.0))
    other = sg.ReverseSDE(slow, LAW.mixture.noised(slow).score, eta=0.0)
    with pytest.raises(sg.CheckpointError, match=r"another SDE: at t = 1 its α is 0\.0065"):
        sg.Calibration.load(path, other)
    early = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    other = sg.ReverseSDE(early, LAW.mixture.noised(early).score, eta=0.0)
    with pytest.raises(sg.CheckpointError, match=r"from t = 1 to 0\.001, but .* to 0\.01\."):
        sg.Calibration.load(path, other)
    with pytest.raises(sg.CheckpointError, match="eta = 1"):
        sg.Calibration.load(path, sg.ReverseSDE(VP, LAW.score))
    deep = sg.GaussianMixture([1.0], [[0.0, 0.0, 0.0]], stds=1.0).noised(VP)
    with pytest.raises(sg.CheckpointError, match=r"states of shape \(batch, 2\), which"):
        sg.Calibration.load(path, sg.ReverseSDE(VP, deep.score, eta=0.0))
    with pytest.raises(sg.CheckpointError, match=r"coefficients of its own: .* solver=Heun"):
        sg.Calibration.load(path, FLOW, solver=sg.Heun())
    with pytest.raises(TypeError, match=r"ReverseSDE\(sde, score, eta=0\.0\), but is a NoisedMix"):
        sg.Calibration.load(path, LAW)
    sg.ScoreModel(sg.MLP(2, rng=0), VP).save(path)
    with pytest.raises(sg.CheckpointError, match="holds a ScoreModel, not a Calibration"):
        sg.Calibration.load(path, FLOW)


def test_nodes_in_a_file_go_with_their_solver(tmp_path):
    path = tmp_path / "heun.safetensors"
    found = sg.calibrate(FLOW, sg.Heun(), 2, starts(12, 3), free_coefficients=False, rounds=1)
    found.save(path)
    again = sg.Calibration.load(path, FLOW, solver=sg.Heun())
    assert torch.equal(again.times, found.times)
    with pytest.raises(sg.CheckpointError, match=r"nodes of Heun.*but solver is DDIM"):
        sg.Calibration.load(path, FLOW, solver=sg.DDIM())
    with pytest.raises(sg.CheckpointError, match=r"nodes of Heun.*but solver is None"):
        sg.Calibration.load(path, FLOW)


def test_a_file_of_a_model_whose_score_is_zero_is_its_own(tmp_path):
    class Nothing(torch.nn.Module):
        def forward(self, x, t):
            return torch.zeros_like(x)

    flow = sg.ReverseSDE(VP, sg.ScoreModel(Nothing(), VP).score, eta=0.0)
    found = sg.calibrate(flow, sg.AngularAdams(), 2, VP.prior((12, 2), rng=0, dtype=F), rounds=1)
    found.save(tmp_path / "nothing.safetensors")
    again = sg.Calibration.load(tmp_path / "nothing.safetensors", flow)
    assert torch.equal(again.times, found.times)
    with pytest.raises(sg.CheckpointError, match=r"another model: at t = 1 .* by inf %"):
        sg.Calibration.load(tmp_path / "nothing.safetensors", FLOW)


def test_a_flipped_bit_is_seen(calibrated, tmp_path):
    path = tmp_path / "five.safetensors"
    calibrated.save(path)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(sg.CheckpointError, match="sha256"):
        sg.Calibration.load(path, FLOW)


@pytest.mark.slow
def test_a_float32_model_is_calibrated_in_float32_too():
    found = sg.calibrate(FLOW, sg.ExponentialAdams(2, "x0"), 4, starts(60, 11).float(), rounds=6)
    assert found.error < 0.4 * found.error_before


def test_a_network_is_calibrated_and_left_as_it_was():
    model = sg.ScoreModel(sg.MLP(2, width=16, rng=0), VP)
    before = [p.detach().clone() for p in model.parameters()]
    flow = sg.ReverseSDE(VP, model.score, eta=0.0)
    pilot = VP.prior((48, 2), rng=1, dtype=F)
    found = sg.calibrate(flow, sg.AngularAdams(), 4, pilot, rounds=3)
    assert found.error < 0.8 * found.error_before
    for p, was in zip(model.parameters(), before, strict=True):
        assert p.grad is None
        assert torch.equal(p.detach(), was)


@pytest.mark.usefixtures("as_user")
class TestBadRequests:
    def test_steps(self):
        for steps in (0, -3):
            with pytest.raises(ValueError, match=f"steps must be ≥ 1, but is {steps}"):
                sg.calibrate(FLOW, sg.AngularAdams(), steps, starts(12, 0))
        with pytest.raises(TypeError, match="steps must be an int, but is float"):
            sg.calibrate(FLOW, sg.AngularAdams(), 2.5, starts(12, 0))
        with pytest.raises(ValueError, match="rounds must be ≥ 1, but is 0"):
            sg.calibrate(FLOW, sg.AngularAdams(), 2, starts(12, 0), rounds=0)

    def test_dynamics(self):
        with pytest.raises(ValueError, match="dynamics has eta = 1"):
            sg.calibrate(sg.ReverseSDE(VP, LAW.score), sg.DDIM(), 2, starts(12, 0))
        with pytest.raises(TypeError, match=r"probability flow, .* but is a VP"):
            sg.calibrate(VP, sg.DDIM(), 2, starts(12, 0))
        forward = sg.OrnsteinUhlenbeck(1.0, 1.0)
        flow = sg.ReverseSDE(forward, lambda x, t: -x, eta=0.0)
        with pytest.raises(ValueError, match=r"kernel: .* not of OrnsteinUhlenbeck"):
            sg.calibrate(flow, sg.Heun(), 2, starts(12, 0))

    def test_solver(self):
        with pytest.raises(TypeError, match=r"fixed steps, .* but is TorchDiffEq"):
            sg.calibrate(FLOW, TIGHT, 2, starts(12, 0))
        with pytest.raises(TypeError, match=r"one evaluation a step, but solver is Heun"):
            sg.calibrate(FLOW, sg.Heun(), 2, starts(12, 0))
        with pytest.raises(TypeError, match=r"solver must be a solver.* class: pass DDIM\(\)"):
            sg.calibrate(FLOW, sg.DDIM, 2, starts(12, 0))
        with pytest.raises(ValueError, match=r"solver must end .* FinalDenoising replaces"):
            sg.calibrate(FLOW, sg.FinalDenoising(), 2, starts(12, 0), free_coefficients=False)
        for free in (True, False):
            with pytest.raises(ValueError, match=r"every node itself, but solver\.substeps is 2"):
                sg.calibrate(
                    FLOW, sg.AngularAdams(2, substeps=2), 2, starts(12, 0), free_coefficients=free
                )
        for noisy in (sg.KarrasHeun(sg.Churn(5.0)), sg.MetropolisCorrector(LAW.log_prob)):
            with pytest.raises(ValueError, match=rf"{type(noisy).__name__}.* draws noise: pass"):
                sg.calibrate(FLOW, noisy, 2, starts(12, 0), free_coefficients=False)
        with pytest.raises(ValueError, match=r"order=4.* evaluates twice in its second"):
            sg.calibrate(FLOW, sg.ExponentialAdams(4), 3, starts(12, 0), rounds=1)

    def test_a_score_without_a_derivative(self):
        for score in (torch.no_grad()(LAW.score), lambda x, t: LAW.score(x, t).detach()):
            flow = sg.ReverseSDE(VP, score, eta=0.0)
            with pytest.raises(ValueError, match=r"no derivative in x, which calibrate needs: .*"):
                sg.calibrate(flow, sg.AngularAdams(), 2, starts(12, 0))

    def test_pilot_batch(self):
        with pytest.raises(ValueError, match="x_T has 4 states, of which every third is held out"):
            sg.calibrate(FLOW, sg.AngularAdams(), 2, starts(4, 0))
        bad = starts(12, 0)
        bad[3] = math.nan
        with pytest.raises(ValueError, match="x_T is not finite in 1 of 12 rows"):
            sg.calibrate(FLOW, sg.AngularAdams(), 2, bad)

    def test_grid_to_begin_from(self):
        with pytest.raises(ValueError, match=r"times must be 3 times from 1 to 0.001, but are 4"):
            sg.calibrate(FLOW, sg.AngularAdams(), 2, starts(12, 0), times=VP.time_grid(3))
        with pytest.raises(ValueError, match=r"but are 3 from 1 to 0.5"):
            sg.calibrate(
                FLOW, sg.AngularAdams(), 2, starts(12, 0), times=torch.tensor([1.0, 0.7, 0.5])
            )

    def test_a_result_is_frozen(self, calibrated):
        with pytest.raises(dataclasses.FrozenInstanceError):
            calibrated.error = 0.0


@pytest.mark.slow
def test_what_it_ends_with_is_never_worse_than_a_solver_on_a_grid_made_for_it():
    """On EDM's path from 80 to 0.002, where the four rules in t had ended at 0.18."""
    sde = sg.EDM()
    ring = [[0.7 * math.cos(k * math.pi / 4), 0.7 * math.sin(k * math.pi / 4)] for k in range(8)]
    law = sg.GaussianMixture([1.0] * 8, ring, stds=0.1).noised(sde)
    flow = sg.ReverseSDE(sde, law.score, eta=0.0)
    x = sde.prior((120, 2), rng=1, dtype=F)
    found = sg.calibrate(flow, sg.AngularAdams(5), 5, x, rounds=3)
    made = sg.timesteps.made_for(flow, 5, x[torch.arange(120) % 3 > 0][:48])
    grid = sg.timesteps.log_snr(sde, 8)
    end = sg.simulate(flow, x, grid, solver=TIGHT, keep_path=False).final[::3]
    runs = [(made.solver, made.times), (found.solver, found.times)]
    plain, calibrated = (
        float(distance(sg.simulate(flow, x[::3], t, solver=s).final, end)) for s, t in runs
    )
    assert calibrated <= plain * 1.0001
    assert calibrated < 0.05
    assert found.evaluations > made.evaluations
