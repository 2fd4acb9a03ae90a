"""Checks of single numbers: the edge itself, both sides of it, and what is no number."""

import math

import pytest

from sdegen.core.checks import check_count, check_finite, check_not_negative, check_positive

NOT_FINITE = (math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("value", [*NOT_FINITE, 0.0, -1e-300])
def test_positive(value):
    check_positive("rate", 1e-300)
    with pytest.raises(ValueError, match=rf"rate must be finite and > 0, but is {value:g}\."):
        check_positive("rate", value)


@pytest.mark.parametrize("value", [*NOT_FINITE, -1e-300])
def test_not_negative(value):
    check_not_negative("std", 0.0)
    with pytest.raises(ValueError, match=rf"std must be finite and ≥ 0, but is {value:g}\."):
        check_not_negative("std", value)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_finite(value):
    check_finite("mean", -1e300)
    with pytest.raises(ValueError, match=rf"mean must be finite, but is {value:g}\."):
        check_finite("mean", value)


def test_count(as_user):
    check_count("steps", 1)
    check_count("rows", 0, least=0)
    with pytest.raises(ValueError, match=r"steps must be ≥ 1, but is 0\."):
        check_count("steps", 0)
    with pytest.raises(ValueError, match=r"points must be ≥ 2, but is 1\."):
        check_count("points", 1, least=2)
    for value, name in ((1.0, "float"), (True, "bool"), ("1", "str")):
        with pytest.raises(TypeError, match=rf"steps must be an int, but is {name}\."):
            check_count("steps", value)
