"""Labelled tables hold the numbers of the results, bit for bit, with names for their axes."""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import xarray
from results import F64, OU, all_kinds, numbers, simulated

import sdegen as sg
from sdegen.core.shown import Labelled
from sdegen.plots.results.labelled import labels

# bases of several kinds, of which there is no result
BASES = {"Answer", "LowerBound"}
# the same kind under another name, since two classes have one name
ALIASES = {"sdegen.observables.spectrum.Spectrum": "PowerSpectrum"}


@pytest.fixture(scope="module")
def kinds():
    return all_kinds()


def _classes(base=Labelled):
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


def _name(kind):
    return ALIASES.get(f"{kind.__module__}.{kind.__qualname__}", kind.__name__)


def test_every_kind_of_result_has_labels_and_is_tested(kinds):
    for module in pkgutil.walk_packages(sg.__path__, "sdegen."):
        if not module.name.startswith(("sdegen.app", "sdegen.__main__")):
            importlib.import_module(module.name)
    ours = {kind for kind in _classes() if kind.__module__.startswith("sdegen.")}
    named = {_name(kind) for kind in ours} - BASES - {"Checked"}
    assert named - set(kinds) == set()
    unknown = labels.dispatch(object)
    for kind in ours:
        if kind.__name__ not in BASES:
            assert labels.dispatch(kind) is not unknown, kind


def test_both_tables_hold_the_same_numbers(kinds):
    for kind, result in kinds.items():
        dataset, frame = result.to_xarray(), result.to_dataframe()
        assert isinstance(dataset, xarray.Dataset)
        assert dataset.attrs["kind"] == type(result).__name__
        assert dataset.attrs["sdegen"] == sg.__version__
        assert frame.attrs["torch"] == dataset.attrs["torch"]
        assert set(frame.attrs["columns"]) == set(frame.columns), kind
        for array in dataset.data_vars.values():
            assert array.attrs["long_name"]
        if "quantity" in frame:
            continue  # long, of an ensemble: below
        for column in frame:
            if column not in dataset.data_vars:
                continue
            dims = [dim for dim in frame if dim in dataset.sizes]
            whole = dataset[column].broadcast_like(dataset[[c for c in frame if c in dataset]])
            array = whole.transpose(*dims).to_numpy()
            assert array.size == len(frame), kind
            np.testing.assert_array_equal(frame[column].to_numpy(), array.ravel(), str(kind))


def held(result, name):
    return torch.from_numpy(np.array(result.to_xarray()[name]))


ATTRIBUTES = {
    "Trajectory": {"states": "states", "nonfinite": "nonfinite"},
    "Samples": {"x": "x", "times": "times"},
    "Expectation": {"mean": "means", "variance": "variances", "samples": "samples"},
    "Extrapolation": {"value": "value", "value_error": "standard_error", "removed": "removed"},
    "Calibration": {"times": "times", "weights": "weights"},
    "MomentEstimate": {"mean": "mean", "mean_error": "mean_error", "covariance": "covariance"},
    "HistogramCounts": {
        "counts": "counts",
        "density": "density",
        "density_error": "density_error",
    },
    "Correlation": {"covariance": "covariance", "covariance_error": "error"},
    "Displacements": {"total": "total", "square_error": "square_error"},
    "Passages": {"survival": "survival", "waiting": "waiting"},
    "PowerSpectrum": {"density": "density", "density_error": "error"},
    "Current": {"current": "current", "current_error": "error", "x": "x"},
    "FunctionalEstimate": {"mean": "mean", "effective": "effective"},
    "Stays": {"ended": "ended", "density": "density", "density_error": "density_error"},
    "SystemMean": {"average": "average", "mean_error": "mean_error"},
    "Density": {"p": "p", "x": "x"},
    "DensityPath": {"p": "p", "mean": "mean", "variance": "variance", "time": "times"},
    "PlaneDensity": {"p": "p", "y": "y"},
    "Spectrum": {"rate": "rates", "observables": "observables"},
    "ComplexSpectrum": {"densities": "densities"},
    "PassageTimes": {"mean": "mean", "std": "std", "moments": "moments"},
    "Survival": {"probability": "probability", "density": "density"},
    "TimeAverage": {"mean": "mean", "mean_error": "standard_error"},
    "TimeCovariance": {"covariance": "covariance", "covariance_error": "standard_error"},
    "AutocorrelationTime": {"tau": "tau", "tau_error": "error"},
    "BlockAverage": {"errors": "errors", "errors_error": "scatter", "size": "sizes"},
    "EntropyEstimate": {"each": "each"},
    "CrooksEstimate": {"log_ratio": "log_ratio", "work": "work"},
    "Likelihood": {"log_prob": "log_prob", "log_prob_error": "standard_error"},
    "EvidenceBound": {"diffusion": "diffusion", "prior": "prior"},
    "TimedBound": {"log_prob": "log_prob", "reconstruction": "reconstruction"},
    "TrainResult": {"loss": "losses"},
    "LevelLosses": {"loss": "losses", "validation_error": "validation_errors"},
    "ScoreResiduals": {"residual": "error", "residual_error": "error_bars", "curl": "curl"},
    "SamplerErrors": {"samples": "samples"},
    "ReverseKernel": {"kurtosis": "kurtosis", "x": "x"},
}


@pytest.mark.parametrize("kind", sorted(ATTRIBUTES))
def test_arrays_are_those_of_the_result(kinds, kind):
    for name, attribute in ATTRIBUTES[kind].items():
        expected = getattr(kinds[kind], attribute)
        found = held(kinds[kind], name)
        assert found.dtype == expected.dtype
        assert torch.equal(found.nan_to_num(), expected.nan_to_num()), name


def test_a_trajectory_has_named_axes_its_seed_and_its_dtype():
    path = simulated(2, dtype=torch.float32)
    dataset, frame = path.to_xarray(), path.to_dataframe()
    assert dataset["states"].dims == ("time", "trajectory", "coordinate")
    assert dataset["states"].dtype == frame["states"].dtype == np.float32
    assert (dataset.attrs["seed"], dataset.attrs["nfe"]) == (7, 5)
    np.testing.assert_array_equal(dataset["time"], path.times)
    assert list(frame) == ["time", "trajectory", "coordinate", "states", "nonfinite"]
    assert len(frame) == path.states.numel()
    means = frame.astype({"states": np.float64}).groupby(["time", "coordinate"])["states"].mean()
    expected = path.states.double().mean(1).flatten()
    np.testing.assert_allclose(means.to_numpy(), expected, rtol=1e-13)
    picked = dataset["states"].sel(time=0.4, method="nearest").isel(trajectory=3)
    np.testing.assert_array_equal(picked, path.states[2, 3])


def test_what_is_labelled_is_read_again():
    path = simulated(2)
    states = sg.read_states(path.to_xarray()["states"])
    assert torch.equal(states.block(0, 6), path.states)
    assert torch.equal(states.times, path.times)


def test_a_phase_space_has_positions_and_velocities():
    sde = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=1.0, temperature=1.0)
    path = sg.simulate(sde, torch.zeros(5, 2, 1, dtype=F64), [0.0, 0.1, 0.2], rng=0)
    dataset, frame = path.to_xarray(), path.to_dataframe()
    assert dataset["v"].dims == ("time", "trajectory", "coordinate")
    np.testing.assert_array_equal(dataset["v"], path.v)
    np.testing.assert_array_equal(frame["x"].to_numpy(), path.x.flatten())


def test_turns_absorption_and_functionals_stand_beside_the_states():
    times = torch.linspace(0, 1, 11, dtype=F64)
    x0 = torch.full((8, 1), 0.5, dtype=F64)
    ring = sg.simulate(sg.BrownianMotion(), x0, times, boundary=sg.Periodic(0.0, 1.0), rng=0)
    np.testing.assert_array_equal(ring.to_xarray()["windings"], ring.windings)
    ends = sg.simulate(sg.BrownianMotion(), x0, times, boundary=sg.Absorbing(0.0, 1.0), rng=0)
    frame = ends.to_dataframe()
    assert frame.groupby("time")["absorbed"].sum().tolist() == ends.absorbed.sum(1).tolist()
    integral = sg.TimeIntegral(lambda x: x[:, 0], name="area")
    path = sg.simulate(OU, x0, times, functionals=[integral], rng=0)
    np.testing.assert_array_equal(path.to_xarray()["area"], path.functionals["area"])


def test_an_ensemble_has_a_row_for_each_number(kinds):
    result = kinds["Ensemble"]
    moments, counts = result.observables["moments"], result.observables["histogram"]
    dataset, frame = result.to_xarray(), result.to_dataframe()
    assert dataset["moments_mean"].dims == ("time", "coordinate")
    assert dataset["histogram_counts"].dims == ("time", "histogram_x")
    np.testing.assert_array_equal(dataset["histogram_counts"], counts.counts)
    assert (dataset.attrs["seed"], dataset.attrs["trajectories"]) == (3, 50)
    rows = frame[frame["quantity"] == "moments_variance"]
    np.testing.assert_array_equal(rows["value"].to_numpy(), moments.variance.flatten())
    np.testing.assert_array_equal(rows["error"].to_numpy(), moments.variance_error.flatten())
    assert len(frame) == sum(array.size for name, array in dataset.data_vars.items()
                             if not name.endswith("_error"))  # fmt: skip
    last = frame[(frame["quantity"] == "moments_mean") & (frame["time"] == 1.0)]
    assert last["value"].tolist() == moments.mean[-1].tolist()


def test_observables_with_other_axes_keep_them_apart():
    times = torch.linspace(0, 1, 4, dtype=F64)
    narrow, wide = sg.Histogram(-1, 1, 4, name="narrow"), sg.Histogram(-2, 2, 8, name="wide")
    result = sg.run_ensemble(OU, torch.zeros(1, 1, dtype=F64), times, trajectories=9, rng=0,
                             observables=[narrow, wide])  # fmt: skip
    dataset = result.to_xarray()
    assert (dataset.sizes["narrow_x"], dataset.sizes["wide_x"]) == (4, 8)
    assert dataset["wide_density"].dims == ("time", "wide_x")


class Mine:
    """A result that nothing is known of."""


def test_an_observable_of_ones_own_is_refused_by_name(kinds):
    ours = kinds["Ensemble"]
    other = type(ours)(ours.times, {"mine": Mine()}, 50, 0, 5, 3, None)
    with pytest.raises(TypeError, match=r"the observable 'mine' has no labels: .* register"):
        other.to_xarray()
    plain = type(ours)(ours.times, {"highest": numbers(2)}, 50, 0, 5, 3, None)
    np.testing.assert_array_equal(plain.to_xarray()["highest"], numbers(2))
    assert plain.to_dataframe()["value"].tolist() == numbers(2).tolist()


def test_training_has_validations_at_their_steps(kinds):
    result = kinds["TrainResult"]
    frame = result.to_dataframe().set_index("step")
    assert frame["loss"].tolist() == result.losses.tolist()
    assert frame["kl"].tolist() == result.logs["kl"].tolist()
    validated = frame["validation_loss"].dropna()
    assert validated.index.tolist() == [2, 4, 6]
    assert validated.tolist() == result.validation_losses.tolist()


def test_a_certificate_has_a_row_for_each_check(kinds):
    for name in ("Certificate", "Certificate on a grid", "Identities"):
        result = kinds[name]
        frame = result.to_dataframe()
        assert frame["name"].tolist() == [c.name for c in result.checks]
        assert (frame["verdict"] == "failed").sum() == len(result.failed)
        p = [np.nan if c.p_value is None else c.p_value for c in result.checks]
        np.testing.assert_array_equal(frame["p_value"].to_numpy(), p)
    assert kinds["Certificate on a grid"].to_dataframe().attrs["seed"] == 11
    assert kinds["Certificate"].to_xarray().attrs["sentence"] == kinds["Certificate"].summary


def test_budgets_have_a_row_for_each_cause(kinds):
    one, several = kinds["ErrorBudget"], kinds["ErrorBudgets"]
    frame = one.to_dataframe().set_index("cause")
    assert frame.loc["whole", "wasserstein"] == one.whole.wasserstein
    assert frame["total_variation"].tolist()[:4] == [p.total_variation for p in one.parts]
    table = several.to_dataframe().pivot(index="steps", columns="cause", values="total_variation")
    assert table.loc[10, "score error"] == several[10].parts[2].total_variation
    assert one.to_xarray()["p"].dims == ("law", "x")


def test_a_bias_has_a_row_for_each_average(kinds):
    result = kinds["StepBias"]
    frame = result.to_dataframe().set_index("average")
    assert frame.loc["x[1]", "bias"] == float(result.value["x"][1])
    assert frame.loc["x[1]", "bias_error"] == float(result.error["x"][1])


def test_relative_errors_become_errors_in_units_of_the_quantity(kinds):
    spectrum, escape = kinds["Spectrum"], kinds["Escape"]
    expected = spectrum.rates * spectrum.error["rates"]
    assert torch.equal(held(spectrum, "rate_error"), expected)
    assert float(escape.to_xarray()["rate_error"]) == pytest.approx(0.02e-3, rel=1e-12)
    survival = kinds["Survival"]
    expected = survival.error["density"] * survival.density.max()
    torch.testing.assert_close(held(survival, "density_error"), expected, rtol=1e-14, atol=0)


def test_solvers_are_the_table_that_is_printed(kinds):
    frame = kinds["SolverTable"].to_dataframe()
    assert frame["solver"].tolist() == [row.solver for row in kinds["SolverTable"].rows]
    cost = frame.set_index("solver")["evaluations"]
    assert cost["Heun()"] == 2


@pytest.mark.parametrize(
    ("library", "method"), [("xarray", "to_xarray"), ("pandas", "to_dataframe")]
)
def test_a_library_that_is_missing_is_named_with_the_cure(monkeypatch, library, method):
    monkeypatch.setitem(sys.modules, library, None)
    said = rf"{method} needs {library}, which is not installed: pip install 'sdegen\[io\]'"
    with pytest.raises(ImportError, match=said):
        getattr(simulated(), method)()


def test_a_data_set_is_written_and_read(tmp_path):
    dataset = simulated(2).to_xarray()
    dataset.to_netcdf(tmp_path / "run.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "run.nc", engine="scipy") as back:
        np.testing.assert_array_equal(back["states"], dataset["states"])
        assert back.attrs["seed"] == 7


def test_methods_are_the_same_everywhere():
    for name in ("plot", "_repr_html_", "to_xarray", "to_dataframe"):
        for kind in _classes():
            assert inspect.getattr_static(kind, name) is inspect.getattr_static(Labelled, name)
    assert isinstance(simulated().to_dataframe(), pandas.DataFrame)


SAID_OTHERWISE = {"Ensemble", "TrainResult", "Trajectory", "SolverTable"}


def test_the_page_of_tables_lists_the_columns_of_every_kind(kinds):
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text()
    items = re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=^- |\Z)", page, re.MULTILINE | re.DOTALL)
    listed = {
        name: [column.strip() for column in " ".join(text.split()).split(",")]
        for names, text in items
        for name in names.split(", ")
    }
    for name, result in kinds.items():
        if name == "Certificate on a grid":
            continue
        assert name in listed, name
        if name not in SAID_OTHERWISE:
            assert listed[name] == list(result.to_dataframe()), name
