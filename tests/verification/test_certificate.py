"""The certificate: planted faults are caught and named, clean runs pass, bad input is refused."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.verification import sampling
from sdegen.verification.certificate import certify
from sdegen.verification.check import Limits
from sdegen.verification.noising import certify_noising
from sdegen.verification.sampling import sampling_checks, smallest_seen

GRID = sg.Grid(-3.2, 3.2, cells=160)
START = GRID.gaussian(-1.0, 0.2)
TIMES = [0.0, 0.5, 1.0]
SOLVER = sg.EulerMaruyama(20)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)


def run(simulated=None, **changed):
    options = {"solver": SOLVER, "trajectories": 20_000, "rng": 0, **changed}
    return certify(WELL, GRID, START, TIMES, simulated=simulated, **options)


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_run_passes(seed):
    """With false_alarm = 1e-5 each."""
    certificate = run(rng=seed)
    assert certificate.passed
    assert "follow the law that is believed (bias of the step: 0.008)" in certificate.summary
    assert not [check for check in certificate.checks if check.verdict == "not judged"]
    rates = [check.false_alarm for check in certificate.checks]
    assert sum(rates) == pytest.approx(1e-5)


FAULTS = {
    "sign": (lambda x: x**3 - x, 0.7, "the drift has the wrong sign"),
    "twice": (lambda x: 2 * (x - x**3), 0.7, "the drift is twice what it should be"),
    "half": (lambda x: 0.5 * (x - x**3), 0.7, "the drift is half of what it should be"),
    "g² half": (lambda x: x - x**3, 0.7 / math.sqrt(2), "g² is half of what it should be"),
    "g² twice": (lambda x: x - x**3, 0.7 * math.sqrt(2), "g² is twice what it should be"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_wrong_factor_is_caught_and_named(fault):
    drift, diffusion, name = FAULTS[fault]
    certificate = run(sg.ItoProcess(drift, diffusion))
    assert not certificate.passed
    assert certificate.summary.endswith(f"They behave as if {name}.")
    # what draws nothing is not to blame
    assert all(check.verdict == "passed" for check in certificate.checks[:3])


def test_ito_for_stratonovich_is_caught_and_named():
    def g(x):
        return 0.3 + 0.2 * torch.sin(2 * x)

    assumed = sg.ItoProcess(lambda x: -x, g, interpretation="stratonovich")
    grid = sg.Grid(-2.5, 2.5, 150)
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 20_000, "rng": 0}
    assert certify(assumed, grid, 0.0, [0.0, 0.5], **options).passed
    wrong = certify(
        assumed, grid, 0.0, [0.0, 0.5], simulated=sg.ItoProcess(lambda x: -x, g), **options
    )
    assert not wrong.passed
    assert "the noise is read half a step too early (Itô for Stratonovich)" in wrong.summary


def test_a_step_ten_times_too_long_is_caught_without_and_within_the_path():
    long = sg.EulerMaruyama(2)
    bias = run(solver=long)
    assert [check.name for check in bias.failed] == [
        "total variation between the chain and the SDE"
    ]
    assert "The step is too long: with dt = 0.25" in bias.summary
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x0 = START.quantile(u[torch.randperm(20_000, generator=torch.Generator().manual_seed(0))])
    path = sg.simulate(WELL, x0[:, None], TIMES, solver=long, rng=1)
    certificate = run(path=path)
    assert certificate.summary.endswith("They behave as if the step is ten times too long.")


def test_a_grid_too_small_is_caught_and_nothing_else_is_judged():
    certificate = certify(WELL, sg.Grid(-1.5, 1.5, 160), -1.0, TIMES, solver=SOLVER, rng=0)
    assert certificate.summary == (
        "The grid [-1.5, 1.5] is too small: widen it towards low x, or pass boundary=… if its "
        "ends are walls."
    )
    assert [check.verdict for check in certificate.checks].count("not judged") == 2


def test_a_grid_too_coarse_is_caught():
    grid = sg.Grid(-3.2, 3.2, cells=16)
    coarse = certify(WELL, grid, grid.gaussian(-1.0, 0.5), TIMES, solver=SOLVER, rng=0)
    assert "The grid of 16 cells is too coarse" in coarse.summary


def test_half_the_noise_against_a_potential_is_caught_with_the_temperature_it_has():
    options = {"potential": sg.DoubleWell(), "temperature": 0.25, "trajectories": 2_000, "rng": 0}
    wide = GRID.gaussian(0.0, 0.5)

    def judge(drift, noise):
        sde = sg.ItoProcess(drift, noise)
        solver = sg.EulerMaruyama(250)
        return certify(sde, GRID, wide, [0.0, 4.0], solver=solver, **options)

    right = judge(lambda x: x - x**3, math.sqrt(0.5))
    assert right.passed
    wrong = judge(lambda x: x - x**3, math.sqrt(0.25))
    assert "in that of T = 0.125, where T = 0.25 is believed" in wrong.summary
    assert "g = √(2T) = 0.7071" in wrong.summary
    other = judge(lambda x: 0.5 - x, math.sqrt(0.5))
    assert "no temperature makes up for it" in other.summary
    away = judge(lambda x: 0.2 * x, 0.3)
    assert "The SDE does not settle: there is no stationary density" in away.summary


def test_a_density_is_believed_or_not():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    grid = sg.Grid(-6.0, 6.0, 200)
    var = 0.25 * math.exp(-2) + 0.5 * (1 - math.exp(-2))
    options = {"solver": sg.EulerMaruyama(50), "trajectories": 2_000, "rng": 0}

    def judge(std):
        assumed = grid.gaussian(math.exp(-1), std)
        return certify(ou, grid, grid.gaussian(1.0, 0.5), [0, 1], density=assumed, **options)

    assert judge(math.sqrt(var)).passed
    assert f"its standard deviation {math.sqrt(var):.4g} where 0.75 is" in judge(0.75).summary


def test_a_solver_without_a_chain_is_compared_with_the_sde():
    certificate = run(solver=sg.TorchSDE("srk", substeps=10), trajectories=2_000)
    assert certificate.passed
    assert "Not judged: total variation between the chain and the SDE" in certificate.summary
    assert "solver is TorchSDE" in certificate.summary


VP = sg.VP(sg.LinearBeta(0.1, 20.0))
CHAIN = sg.DDPM.discretize(VP, 1000)


def test_the_chain_of_a_linear_sde_is_certified_to_rounding():
    certificate = certify_noising(CHAIN, VP, CHAIN.times)
    assert certificate.passed
    assert max(check.value for check in certificate.checks) < 1e-14


@pytest.mark.parametrize(
    ("betas", "name"),
    [
        (torch.cat([CHAIN.betas[1:], CHAIN.betas[-1:]]), "Its β lead by one"),
        (torch.cat([CHAIN.betas[:1], CHAIN.betas[:-1]]), "Its β lag by one"),
        (VP.beta(CHAIN.times[1:]) / 1000, r"Its β are β\(t\) dt"),
    ],
    ids=["lead", "lag", "rectangle rule"],
)
def test_an_off_by_one_in_beta_is_caught(betas, name):
    certificate = certify_noising(sg.DDPM(betas), VP, CHAIN.times)
    assert not certificate.passed
    if name.endswith("one"):
        assert certificate.checks[0].value == pytest.approx(2.6e-3, abs=5e-5)
    with pytest.raises(AssertionError, match=name):
        raise AssertionError(certificate.summary)


def test_what_contradicts_itself_is_refused():
    path = sg.simulate(WELL, torch.zeros(200, 1), [0.0, 0.5], rng=0)
    with pytest.raises(ValueError, match=r"path has 2 times from 0 to 0.5, but 3"):
        run(path=path)
    with pytest.raises(ValueError, match="give simulated, or the path"):
        run(WELL, path=path)
    with pytest.raises(ValueError, match="trajectories must be ≥ 100, but is 10"):
        run(trajectories=10)
    with pytest.raises(ValueError, match=r"false_alarm must lie in \(0, 1\), but is 0"):
        run(false_alarm=0.0)
    with pytest.raises(ValueError, match=r"edge must lie in \(0, 1\), but is 2"):
        Limits(edge=2.0)
    with pytest.raises(ValueError, match="ItoProcess is not a chain on integer times"):
        certify_noising(WELL, VP, CHAIN.times)
    two = sg.simulate(WELL, torch.zeros(200, 2), TIMES, rng=0)
    with pytest.raises(ValueError, match=r"one-dimensional states, shape \(T, batch, 1\)"):
        run(path=two)
    flow = sg.ItoProcess(lambda x: x - x**3, 0.0)
    with pytest.raises(ValueError, match="there is no law to compare with: of the chain"):
        certify(flow, GRID, 0.0, TIMES)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("changed", "kind", "told"),
    [
        ({"sde": lambda x: -x}, TypeError, "sde must be an SDE, but is function"),
        ({"simulated": lambda x: -x}, TypeError, "sde must be an SDE, but is function"),
        ({"solver": "em"}, TypeError, "solver must be a Solver object, but is 'em'"),
        (
            {"grid": sg.Grid.sinh(-3.2, 3.2, 80, width=1.0)},
            ValueError,
            "the law of a chain needs uniform nodes, but spacings run from",
        ),
        ({"grid": (-5, 5)}, TypeError, r"grid must be a Grid, such as Grid\(-3.0"),
        ({"p0": "here"}, TypeError, "p0 must be a Density or a number, but is str"),
        ({"p0": 9.0}, ValueError, r"x0 = 9 lies outside of the grid \[-3.2, 3.2\]"),
        (
            {"p0": sg.Density(GRID.nodes, 2 * START.p)},
            ValueError,
            "p0 must have mass 1, but has 2; pass p0.normalized",
        ),
        ({"p0": sg.Density(GRID.nodes, -START.p)}, ValueError, "p0 must be ≥ 0, but is -"),
        ({"p0": sg.Density(GRID.nodes, 0 * START.p)}, ValueError, "p0 has no mass"),
        ({"p0": sg.Grid(-3.2, 3.2, 80).gaussian(0, 1)}, ValueError, "p0 lives on 81 nodes"),
        ({"times": [1.0, 0.0]}, ValueError, "times decrease, but ItoProcess is a noisy SDE"),
        ({"times": [0.0, math.nan]}, ValueError, r"times must be finite, but times\[1\] = nan"),
        ({"trajectories": 1e4}, TypeError, "trajectories must be an int, but is float"),
        ({"limits": {"edge": 1e-3}}, TypeError, r"limits must be Limits\(…\) or None, such as"),
        ({"path": torch.zeros(3, 100, 1)}, TypeError, "path must be a Trajectory, as simulate"),
        ({"temperature": 0.0}, ValueError, "temperature must be finite and > 0, but is 0"),
        ({"potential": 0.5}, TypeError, r"potential must have an energy U\(x\), but is float"),
        ({"density": START.p}, TypeError, "density must be a Density, such as"),
        (
            {"density": sg.Density(GRID.nodes, 2 * START.p)},
            ValueError,
            r"density must have mass 1, but has 2 on \[-3.2, 3.2\]",
        ),
    ],
)
def test_bad_arguments_are_refused(changed, kind, told):
    given = {"sde": WELL, "grid": GRID, "p0": START, "times": TIMES, **changed}
    positional = [given.pop(name) for name in ("sde", "grid", "p0", "times")]
    with pytest.raises(kind, match=told):
        certify(*positional, **given)


def test_twenty_clean_seeds_raise_no_alarm_and_have_uniform_p_values():
    """The benchmark has 800; here each test's p-values are uniform at a level of 1e-4."""
    p_values = {}
    for seed in range(20):
        certificate = run(rng=100 + seed, trajectories=1_000)
        assert certificate.passed
        for check in certificate.checks[-5:-2]:
            p_values.setdefault(check.name, []).append(check.p_value)
    assert len(p_values) == 3
    for values in p_values.values():
        assert stats.kstest(values, "uniform").pvalue > 1e-4


BOX = sg.Grid(0.0, 1.0, cells=80)
INSIDE = sg.OrnsteinUhlenbeck(2.0, 0.4, 0.7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no-flux", "absorbing", ("no-flux", "absorbing"), "periodic"])
def test_between_walls_a_clean_run_passes_and_a_wrong_drift_does_not(kind):
    sde = sg.BrownianMotion(0.7) if kind == "periodic" else INSIDE
    options = {"solver": sg.EulerMaruyama(30), "boundary": kind, "rng": 0}
    loose = Limits(step=0.1)  # absorption between steps is missed, of order √dt
    clean = certify(sde, BOX, 0.3, [0.0, 0.3], limits=loose, **options)
    assert clean.passed, str(clean)
    assert sum(check.false_alarm for check in clean.checks) == pytest.approx(1e-5)
    counted = [check for check in clean.checks if "absorbed" in check.name]
    assert len(counted) == ("absorbing" in (kind if isinstance(kind, tuple) else (kind,)))
    wrong = sg.ItoProcess(lambda x, t: sde.drift(x, t) + 0.5, 0.7)
    caught = certify(sde, BOX, 0.3, [0.0, 0.3], limits=loose, simulated=wrong, **options)
    assert "do not follow the law" in caught.summary


def test_a_path_between_walls_is_judged_between_walls():
    x0 = torch.full((10_000, 1), 0.3, dtype=torch.float64)
    solver, box = sg.EulerMaruyama(30), sg.Reflecting(0.0, 1.0)
    path = sg.simulate(INSIDE, x0, [0.0, 0.3], solver=solver, boundary=box, rng=3)
    options = {"solver": solver, "path": path}
    good = certify(INSIDE, BOX, 0.3, [0.0, 0.3], boundary="no-flux", **options)
    assert good.passed, str(good)
    unsaid = certify(INSIDE, BOX, 0.3, [0.0, 0.3], **options)
    assert unsaid.summary.endswith("or pass boundary=… if its ends are walls.")
    # folded samples are told from those that stop at the walls
    other = certify(INSIDE, BOX, 0.3, [0.0, 0.3], boundary="absorbing", **options)
    assert "share that no wall has absorbed" in other.summary
    free = sg.simulate(INSIDE, x0, [0.0, 0.3], solver=solver, rng=3)
    with pytest.raises(
        ValueError, match=r"path reaches from -0.\d+ to 1.\d+, but boundary is for"
    ):
        certify(INSIDE, BOX, 0.3, [0.0, 0.3], boundary="no-flux", solver=solver, path=free)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "well"])
def test_what_n_samples_show_is_said_beforehand(law):
    """A shift and a spread of the size that is said are seen nine times in ten."""
    grid = sg.Grid(-4.0, 4.0, 400)
    well = sg.FokkerPlanck(WELL, grid).stationary()
    law = grid.gaussian(0.3, 0.5) if law == "normal" else well
    n, alarm, runs = 4000, 1e-4, 400
    shift, spread = smallest_seen(law, n, false_alarm=alarm)
    generator = torch.Generator().manual_seed(0)
    most = float(stats.chi2.isf(alarm, sampling._SMOOTH))
    ranks = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for move in (lambda x: x + shift, lambda x: law.mean + (1 + spread) * (x - law.mean)):
        # where in the law a state of rank u comes to lie, for all runs at once
        moved = law.cdf(move(law.quantile(ranks))).numpy()
        seen = 0
        for k in range(runs):
            u = torch.rand(n, generator=generator, dtype=torch.float64)
            come = torch.from_numpy(np.interp(u.numpy(), ranks.numpy(), moved))
            # Neyman's test alone, which the others are not asked beside: it decides
            failed = sampling._neyman(come) > most
            if k < 5:
                x = move(law.quantile(u))
                torch.testing.assert_close(law.cdf(x), come, rtol=0, atol=1e-5)
                whole = sampling_checks(x[:, None], law, false_alarm=alarm)[2].verdict
                assert failed == (whole == "failed")
            seen += failed
        # binomial, 4 standard deviations, and 0.03 for what is of second order in the move
        assert abs(seen / runs - 0.9) < 0.03 + 4 * math.sqrt(0.09 / runs)


def test_the_sentence_says_what_would_not_have_been_seen():
    few, many = run(trajectories=1000).summary, run(trajectories=16_000).summary
    found = [
        [float(number) for number in re.search(r"by ([\d.]+), or .* by ([\d.]+) %", s).groups()]
        for s in (few, many)
    ]
    for i in (0, 1):
        assert found[0][i] / found[1][i] == pytest.approx(4, rel=0.1)
    assert "At t = 1 1000 of them show a mean" in few


def test_progress_is_told_line_by_line(capsys):
    run(trajectories=1000, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" s  ")[1] for line in lines] == [
        "the law of the chain",
        "the Fokker–Planck density",
        "1000 trajectories",
    ]
