"""Errors met on the way carry what was done before them."""

import pytest

import sdegen as sg


@pytest.mark.parametrize(
    "kind", [sg.NonFiniteError, sg.SolverError, sg.NotNormalizableError, sg.CheckpointError]
)
def test_each_carries_its_message_and_result(kind):
    error = kind("lost at t = 1", result=[1, 2])
    assert isinstance(error, sg.SdegenError)
    assert str(error) == "lost at t = 1"
    assert error.result == [1, 2]
    assert kind("nothing was done").result is None


def test_a_numerical_failure_is_no_bad_request():
    # the command line tells them apart: exit status 1 and 2
    assert not issubclass(sg.SdegenError, ValueError | TypeError)
