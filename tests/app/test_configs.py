"""Configs: what their own fields must be."""

import pytest

from sdegen.app.configs.likelihood import LikelihoodConfig
from sdegen.app.configs.sample import SampleConfig
from sdegen.app.configs.simulate import SimulateConfig
from sdegen.app.configs.verify import VerifyConfig


@pytest.mark.parametrize(
    ("kind", "needed", "name"),
    [
        (SimulateConfig, ["ou.py:ou"], "t0"),
        (SimulateConfig, ["ou.py:ou"], "points"),
        (SimulateConfig, ["ou.py:ou"], "trajectories"),
        (SimulateConfig, ["ou.py:ou"], "substeps"),
        (SampleConfig, ["run"], "samples"),
        (LikelihoodConfig, ["run", "moons"], "probes"),
        (LikelihoodConfig, ["run", "moons"], "tolerance"),
        (VerifyConfig, ["ou.py:ou"], "cells"),
    ],
)
def test_a_number_that_is_needed_is_not_none(kind, needed, name):
    kind(*needed)
    with pytest.raises(TypeError, match=rf"{name} must be (a number|an int), but is NoneType"):
        kind(*needed, **{name: None})


@pytest.mark.parametrize("shape", [(), 0])
def test_a_shape_has_a_number(shape):
    with pytest.raises(ValueError, match="shape must have at least one number"):
        SampleConfig("run", shape=shape)
