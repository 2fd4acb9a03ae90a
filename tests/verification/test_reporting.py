"""What a certificate tells: curves that are the errors that were made, JSON, and assertions."""

import json
import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
TIMES = torch.linspace(0, 8, 401, dtype=F64)  # dt = 0.02
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
PLANE = torch.zeros(100, 2, dtype=F64)


def states(sde, x0=PLANE, solver=None, rng=0, times=TIMES):
    solver = sg.EulerMaruyama() if solver is None else solver
    return sg.simulate(sde, x0, times, solver=solver, rng=rng).states


def deviation(curve, exact):
    """The largest deviation of a curve in standard errors; 24 parts exceed 5.5 once in 10⁶."""
    return float(((curve.error - exact(curve.x)).abs() / curve.standard_error).max())


@pytest.fixture(scope="module")
def right():
    return states(OU)


def test_the_drift_error_is_the_error_of_the_drift(right):
    wrong = sg.OrnsteinUhlenbeck(1.5, 0.2, 1.0)
    steps = sg.certify(wrong, path=right, dt=0.02).steps
    for coordinate in (0, 1):
        # −x is simulated, −1.5 (x − 0.2) believed
        assert deviation(steps.drift_error(coordinate), lambda x: 0.5 * x - 0.3) < 5.5
        assert deviation(steps.noise_error(coordinate), lambda x: 0 * x) < 5.5
        believed = steps.curves.believed(coordinate)
        torch.testing.assert_close(believed.error, -1.5 * (believed.x - 0.2), rtol=1e-6, atol=1e-6)
    assert float(steps.drift_error(0).error.abs().max()) > 0.5  # and it is seen
    # as a function of the other coordinate it is its mean
    assert deviation(steps.drift_error(0, along=1), lambda x: 0 * x - 0.3) < 5.5
    assert len(steps.drift_error(0).x) == 24


def test_the_noise_error_is_that_of_the_variance():
    simulated = sg.ItoProcess(lambda x: -x, lambda x: 0.5 + 0.25 * torch.tanh(x))
    steps = sg.certify(
        sg.ItoProcess(lambda x: -x, 0.5), path=states(simulated, torch.zeros(400, 1)), dt=0.02
    ).steps
    curve = steps.noise_error()
    assert deviation(curve, lambda x: (1 + 0.5 * torch.tanh(x)) ** 2 - 1) < 6
    assert float(curve.error.max() - curve.error.min()) > 0.3
    assert deviation(steps.drift_error(), lambda x: 0 * x) < 5.5


def test_the_units_of_the_drift_are_those_of_noise_that_depends_on_the_state():
    g = lambda x: 0.3 + 0.2 * torch.sin(x)  # noqa: E731
    path = states(sg.ItoProcess(lambda x: 1 - x, g), torch.zeros(400, 1), sg.Milstein())
    steps = sg.certify(
        sg.ItoProcess(lambda x: -x, g), path=path, dt=0.02, solver=sg.Milstein()
    ).steps
    assert deviation(steps.drift_error(), lambda x: 0 * x + 1) < 5.5


def test_in_a_phase_space_it_is_the_force_as_a_function_of_the_position():
    stiff, soft = (sg.UnderdampedLangevin(sg.Quadratic(k), temperature=0.5) for k in (2.0, 1.0))
    path = states(stiff, torch.zeros(100, 2, 2, dtype=F64), sg.BAOAB())
    for source in (path, sg.read_states(path, dt=0.02, phase_space=True)):
        steps = sg.certify(soft, path=source, dt=0.02 if source is path else None).steps
        # dt/2 of the step's own smoothing: e^{−γ dt/2} = 0.99
        assert deviation(steps.drift_error(1), lambda x: -0.99 * x) < 5.5
        assert steps.curves.own == [0, 1]
        assert steps.curves.most_deviating(4) == [(0, 0), (0, 2), (1, 1), (1, 3)]


def test_coordinates_without_noise_have_no_curve_and_mixed_noise_no_units():
    spiral = sg.LinearSDE(
        torch.tensor([[0.0, 1.0], [-1.0, -1.0]], dtype=F64),
        torch.tensor([[0.0], [1.0]], dtype=F64),
    )
    steps = sg.certify(spiral, path=states(spiral), dt=0.02).steps
    assert steps.curves.own == [1]
    assert deviation(steps.drift_error(), lambda x: 0 * x) < 5.5
    with pytest.raises(
        ValueError, match=r"one of the 1 that have noise, counted from 0, but is 1"
    ):
        steps.drift_error(1)
    with pytest.raises(ValueError, match=r"along must be one of the 2 coordinates of a state"):
        steps.noise_error(0, along=2)
    mixed = sg.LinearSDE(
        -torch.eye(2, dtype=F64), torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=F64)
    )
    steps = sg.certify(mixed, path=states(mixed), dt=0.02).steps
    with pytest.raises(ValueError, match="the noise mixes coordinates"):
        steps.drift_error()
    assert deviation(steps.noise_error(), lambda x: 0 * x) < 5.5


def test_another_coordinate_is_found_where_the_error_is_a_function_of_it(right):
    wind = sg.ItoProcess(lambda x: -x + torch.stack([2 * x[:, 1], 0 * x[:, 1]], 1), 1.0)
    steps = sg.certify(OU, path=states(wind), dt=0.02).steps
    assert (0, 1) in steps.curves.most_deviating(2) + steps.curves.most_deviating(3)
    assert deviation(steps.drift_error(0, along=1), lambda x: 2 * x) < 5.5
    steps = sg.certify(OU, path=right, dt=0.02).steps
    assert steps.curves.most_deviating(4) == [(0, 0), (1, 1)]


def test_too_few_transitions_make_no_curve():
    steps = sg.certify(OU, path=states(OU, torch.zeros(1, 40), times=TIMES[:3]), dt=0.02).steps
    with pytest.raises(ValueError, match="path has 2 transitions, too few for a curve: 20 are"):
        steps.drift_error()
    assert steps.curves.most_deviating(4) == []


def test_json_holds_what_was_judged(right):
    certificate = sg.certify(OU, path=right, dt=0.02)
    record = certificate.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["passed"] is True
    assert record["sentence"] == certificate.summary
    assert record["p_value"] == certificate.steps.p_value
    assert [check["name"] for check in record["checks"]] == [c.name for c in certificate.checks]
    assert record["checks"][0]["threshold"] is None  # NaN
    judged = record["judged"]
    assert (judged["frames"], judged["trajectories"], judged["event"]) == (401, 100, [2])
    assert (judged["solver"], judged["times"]) == ("EulerMaruyama", [0.0, pytest.approx(8.0)])
    assert judged["shortest_step"] == pytest.approx(0.02)
    assert record["smallest_errors"]["noise"] == certificate.steps.smallest_noise
    free = sg.certify(sg.BrownianMotion(), path=right, dt=0.02).to_dict()
    assert free["smallest_errors"]["drift"] is None  # no drift, no error of it
    assert record["versions"]["sdegen"] == sg.__version__


def test_a_certificate_on_a_grid_has_json_too():
    grid = sg.Grid(-5.0, 5.0, 100)
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 200, "rng": 0}
    certificate = sg.certify(OU, grid, grid.gaussian(0.0, 0.5), [0.0, 1.0], **options)
    record = certificate.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["judged"]["trajectories"] == 200
    assert "p_value" not in record


def test_a_notebook_shows_it_escaped(right):
    certificate = sg.certify(OU, path=right, dt=0.02)
    passed = certificate._repr_html_()
    assert "follow the SDE that is believed" in passed
    assert passed.count("✓ passed</td>") == len(certificate.checks)
    failed = sg.certify(sg.OrnsteinUhlenbeck(1.0, 0.0, 2.0), path=right, dt=0.02)
    assert "✗ failed" in failed._repr_html_()
    named = type(failed)(failed.checks, None, None, None, "<b>&", failed.steps)
    assert "&lt;b&gt;&amp;" in named._repr_html_()


def test_an_assertion_says_what_does_not_follow(right):
    certificate = sg.assert_follows(OU, right, dt=0.02)
    assert certificate.passed
    assert certificate.steps.false_alarm == 1e-6
    sg.assert_follows(OU, right.numpy(), times=TIMES)
    with pytest.raises(AssertionError) as told:
        sg.assert_follows(sg.OrnsteinUhlenbeck(1.0, 0.0, math.sqrt(2)), right, dt=0.02)
    lines = str(told.value).splitlines()
    assert "do not follow the SDE that is believed" in lines[0]
    assert any(line.startswith("failed      variance of the noise: -") for line in lines)
    assert not any(line.startswith("passed") for line in lines)


def test_an_assertion_is_one_line_of_a_test(programs, tmp_path):
    file = tmp_path / "test_theirs.py"
    file.write_text(
        "import numpy as np\nimport sdegen as sg\n\n\ndef walk(scale):\n"
        "    steps = scale * np.random.default_rng(0).standard_normal((300, 50, 1))\n"
        "    return np.concatenate([np.zeros((1, 50, 1)), steps.cumsum(0)])\n\n\n"
        "def test_right():\n    sg.assert_follows(sg.BrownianMotion(), walk(0.1), dt=0.01)\n\n\n"
        "def test_wrong():\n    sg.assert_follows(sg.BrownianMotion(), walk(0.12), dt=0.01)\n"
    )
    options = ["-q", "-p", "no:cacheprovider", str(file)]
    program = programs.start(code=f"import pytest; pytest.main({options})", folder=tmp_path)
    out, _ = program.communicate()
    assert "1 failed, 1 passed" in out
    assert "E       AssertionError: 300 steps of 50 trajectories do not follow" in out
    assert "assertion.py" not in out.split("short test summary")[0]  # theirs is what is shown
