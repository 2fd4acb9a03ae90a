"""Pictures of innovations hold the numbers that the certificate tells."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import sdegen as sg
from sdegen.verification.reporting import noise_statistics

F64 = torch.float64
TIMES = torch.linspace(0, 4, 201, dtype=F64)  # dt = 0.02
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)


def certificate(sde=OU, *, believed=OU, event=(1,), trajectories=20, times=TIMES):
    x0 = torch.zeros(trajectories, *event, dtype=F64)
    solver = sg.BAOAB() if sde.phase_space else sg.EulerMaruyama()
    path = sg.simulate(sde, x0, times, solver=solver, rng=0)
    return sg.certify(believed, path=path, solver=solver)


def drawn(result):
    figure = sg.plots.certificate(result)
    return figure, {panel.get_title(): panel for panel in figure.axes}


def points(panel, n=0):
    """Where the points of a panel with error bars are."""
    return panel.containers[n].lines[0].get_data()


def test_a_wrong_simulation_in_two_dimensions_is_drawn_as_it_is():
    result = certificate(sg.OrnsteinUhlenbeck(1.0, 1.0, 1.5), event=(2,))
    figure, panels = drawn(result)
    FigureCanvasAgg(figure).draw()
    assert list(panels) == [
        "drift of x₀: simulated − believed",
        "drift of x₁: simulated − believed",
        "noise of x₀: simulated/believed",
        "noise of x₁: simulated/believed",
        "8,000 innovations",
        "memory",
        "along the run",
        "correlations of trajectories",
        "",  # its scale
    ]
    steps = result.steps
    for k, name in enumerate("₀₁"):
        x, y = points(panels[f"drift of x{name}: simulated − believed"])
        error = steps.drift_error(k)
        np.testing.assert_array_equal(x, error.x)
        np.testing.assert_array_equal(y, error.error)
        _, variance = points(panels[f"noise of x{name}: simulated/believed"])
        np.testing.assert_array_equal(variance, 1 + steps.noise_error(k).error)
        assert panels[f"noise of x{name}: simulated/believed"].get_xlabel() == f"x{name}"
    x, density = points(panels["8,000 innovations"])
    width = x[1] - x[0]
    assert width * density.sum() == pytest.approx(1.0)
    assert width * (x**2 * density).sum() == pytest.approx(2.25, abs=0.15)  # 4 standard errors
    t, variance = points(panels["along the run"])
    assert (t[0], t[-1]) == (pytest.approx(0.03), pytest.approx(3.95))  # means of four steps
    assert variance.mean() == pytest.approx(float(steps.sample.z.square().mean()))
    assert "do not follow the SDE" in figure.get_supxlabel()
    assert all(panel.get_xlabel() and panel.get_ylabel() for panel in figure.axes[:-1])


def test_memory_and_dependence_are_drawn_where_they_are():
    z = torch.randn(400, 12, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    z[1:] += 0.5 * z[:-1]
    z[:, 7] = z[:, 4]
    path = torch.cat([torch.zeros(1, 12, 1, dtype=F64), 0.1 * z.cumsum(0)])
    _, panels = drawn(sg.certify(sg.BrownianMotion(), path=path, dt=0.01))
    noise, size = panels["memory"].get_lines()[1:]
    # r₁ = 0.5/(1 + 0.25); 5 standard errors
    assert noise.get_ydata()[0] == pytest.approx(0.4, abs=0.1)
    assert np.abs(noise.get_ydata()[1:]).max() < 0.12
    assert size.get_ydata()[0] > 0.05
    matrix = panels["correlations of trajectories"].collections[0].get_array()
    assert np.unravel_index(np.nanargmax(matrix), (12, 12)) == (4, 7)
    assert np.isnan(np.asarray(matrix).diagonal()).all()


def test_what_a_run_loses_of_its_strength_is_drawn_along_it():
    fading = sg.ItoProcess(lambda x: -x, lambda x, t: torch.where(t < 2, 1.0, 0.5) + 0 * x[:1])
    _, panels = drawn(certificate(fading))
    t, variance = points(panels["along the run"])
    assert variance[t < 1.9].mean() == pytest.approx(1.0, abs=0.15)
    assert variance[t > 2.1].mean() == pytest.approx(0.25, abs=0.05)


def test_a_hundred_coordinates_are_drawn_by_those_that_deviate():
    hot = sg.ItoProcess(lambda x: -x, lambda x: 1.0 + 0.5 * (torch.arange(100) == 42).double())
    figure, panels = drawn(certificate(hot, event=(100,), trajectories=4))
    assert len(figure.axes) == 4 + 4 + 4 + 1
    assert "noise of x₄₂: simulated/believed" in panels
    assert panels["correlations of coordinates"].get_xlabel() == "coordinate"


def test_a_phase_space_is_drawn_along_positions_and_velocities():
    trap = sg.UnderdampedLangevin(sg.Quadratic(1.0))
    figure, _ = drawn(certificate(trap, believed=trap, event=(2, 1)))
    assert [panel.get_xlabel() for panel in figure.axes[:4]] == ["x", "v", "x", "v"]
    assert figure.axes[0].get_title() == "drift of v: simulated − believed"


def test_names_of_columns_and_of_atoms_are_on_the_axes():
    path = 0.1 * torch.randn(100, 5, 2, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
    figure, _ = drawn(sg.certify(sg.BrownianMotion(), path=path.double(), dt=0.01))
    assert all(panel.get_xlabel().startswith("x[") for panel in figure.axes[:4])
    states = sg.read_states(path[..., 0], dt=0.01)
    named = sg.StoredStates(states.times, states.states, columns=("left", "right"))
    figure, _ = drawn(sg.certify(sg.BrownianMotion(), path=named))
    assert [panel.get_xlabel() for panel in figure.axes[:2]] == ["left", "right"]


def test_noise_that_mixes_coordinates_has_its_mean_in_units_of_a_step():
    mixed = sg.LinearSDE(
        -torch.eye(2, dtype=F64), torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=F64)
    )
    figure, _ = drawn(certificate(mixed, believed=mixed, event=(2,)))
    assert figure.axes[0].get_ylabel() == "mean of z, in σ of a step"


def test_few_numbers_are_drawn_as_few():
    few = certificate(trajectories=1, times=TIMES[:41])
    figure, panels = drawn(few)
    assert "correlations of trajectories" not in panels
    assert len(figure.axes) == 5
    one = certificate(trajectories=40, times=TIMES[:2])
    assert "memory" not in drawn(one)[1]
    assert noise_statistics.memory(one.steps.sample) is None


def test_what_has_no_innovations_is_refused():
    grid = sg.Grid(-5.0, 5.0, 60)
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 200, "rng": 0}
    with pytest.raises(ValueError, match="no innovations in a certificate on a grid; draw it by"):
        sg.plots.innovations(sg.certify(OU, grid, 0.0, [0.0, 1.0], **options))
    still = sg.ItoProcess(lambda x: -x, 0.0)
    with pytest.raises(ValueError, match="there is no noise in these steps to draw; print the"):
        sg.plots.innovations(certificate(still, believed=still))
    with pytest.raises(TypeError, match="result must be a Certificate"):
        sg.plots.innovations(still)
