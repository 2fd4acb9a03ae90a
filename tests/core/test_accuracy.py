"""Errors beside values: the mapping, its warning, and the table of trust."""

import copy
import warnings

import pytest
import torch

from sdegen.core.accuracy import ErrorEstimate, Estimated, EstimatedTensor, Trust, warn_inaccurate
from sdegen.core.errors import AccuracyWarning


def test_the_largest_of_numbers_and_tensors_is_its_float():
    error = ErrorEstimate({"mean": 1e-5, "rates": torch.tensor([1e-9, 4e-3])}, "two grids")
    assert float(error) == pytest.approx(4e-3)
    assert set(error) == {"mean", "rates"}
    assert "rates 4.0e-03" in repr(error)


def test_a_warning_names_what_how_much_and_the_cure():
    error = ErrorEstimate({"mean": 1e-5, "variance": 2e-2}, "two grids")
    with pytest.warns(AccuracyWarning, match=r"variance is 0\.02 \(two grids\).*rtol=1e-4"):
        warn_inaccurate(error, "the stationary density", "Pass rtol=1e-4.")


def test_nan_is_no_accurate_error():
    with pytest.warns(AccuracyWarning, match="nan"):
        warn_inaccurate(ErrorEstimate({"mean": float("nan")}, "residual"), "a rate", "Widen it.")


def test_a_small_error_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_inaccurate(ErrorEstimate({"mean": 9e-4}, "two grids"), "a density", "Refine.")


def test_the_table_has_a_row_for_each_cause():
    table = str(Trust("trajectories", (("step", "not estimated"), ("sampling", "1.2e-02"))))
    assert table.splitlines() == [
        "trajectories",
        "  step      not estimated",
        "  sampling  1.2e-02",
    ]


def test_an_estimated_number_is_a_float_with_an_error():
    error = ErrorEstimate({"value": 2e-4}, "two grids")
    number = Estimated(50.0, error)
    assert number == 50.0
    assert isinstance(number, float)
    assert copy.copy(number).error is error
    assert type(number + 1) is float


def test_what_follows_from_an_estimated_tensor_is_a_plain_one():
    values = torch.arange(3.0)
    told = EstimatedTensor.of(values, ErrorEstimate({"J": 1e-5}, "two grids"))
    assert float(told.error) == 1e-5
    assert type(told * 2) is torch.Tensor
    assert torch.equal(told, values)
