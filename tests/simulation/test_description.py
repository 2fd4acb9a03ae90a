"""Descriptions: what behaves differently is described differently, and what does not, alike."""

import functools
import json
import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.simulation.description import described, difference

RATE = 0.5


def same(a, b):
    one, two = described(a), described(b)
    assert json.loads(json.dumps(one)) == one  # it goes through a store unchanged
    return difference(one, two) is None


def closing_over(value):
    return lambda x, t: value * x


def naming_a_global(x, t):
    return RATE * x


def with_default(x, t, k=0.5):
    return k * x


class Mine(sg.SDE):
    noise = "additive"

    def __init__(self, k):
        self.k = k

    def drift(self, x, t):
        return -self.k * x

    def diffusion(self, x, t):
        return torch.ones(())


class Helped:
    def __init__(self, k):
        self.k = k

    def force(self, x, t):
        return helper(x) * self.k


def helper(x):
    return 2 * x


def other_helper(x):
    return 3 * x


def test_functions():
    assert same(lambda x, t: x - x**3, lambda x, t: x - x**3)  # on another column of the line
    assert not same(lambda x, t: x - x**3, lambda x, t: x - x**5)
    assert not same(lambda x, t: x.sin(), lambda x, t: x.cos())
    assert not same(torch.sin, torch.cos)
    assert same(closing_over(0.5), closing_over(0.5))
    assert not same(closing_over(0.5), closing_over(0.7))
    assert not same(closing_over(torch.tensor([1.0])), closing_over(torch.tensor([2.0])))
    assert not same(functools.partial(with_default, k=1), functools.partial(with_default, k=2))
    assert not same(Helped(1.0).force, Helped(2.0).force)


def test_globals_defaults_and_helpers(monkeypatch):
    before, bound = described(naming_a_global), described(Helped(1.0).force)
    default = described(with_default)
    monkeypatch.setitem(globals(), "RATE", 0.6)
    assert difference(before, described(naming_a_global)) == (
        "globals.RATE is 0.5 there and 0.6 here"
    )
    monkeypatch.setitem(globals(), "helper", other_helper)
    assert difference(bound, described(Helped(1.0).force)) is not None
    monkeypatch.setattr(with_default, "__defaults__", (0.6,))
    assert difference(default, described(with_default)) == "defaults is [0.5] there and [0.6] here"


def test_classes_of_ones_own(monkeypatch):
    assert same(Mine(1.0), Mine(1.0))
    assert not same(Mine(1.0), Mine(2.0))
    before = described(Mine(1.0))
    monkeypatch.setattr(Mine, "drift", lambda self, x, t: self.k * x)
    assert "drift" in difference(before, described(Mine(1.0)))


def test_arrays_networks_and_the_rest():
    ramp = torch.arange(100.0)
    assert same(ramp, ramp.clone())
    assert not same(ramp, ramp.double())
    assert not same(ramp, ramp + torch.eye(100)[7] * 1e-5)
    assert not same(np.arange(5), np.arange(5.0))
    one, two = (torch.nn.Linear(2, 2) for _ in range(2))
    two.load_state_dict(one.state_dict())
    assert same(one, two)
    with torch.no_grad():
        two.bias[0] += 1e-6
    assert not same(one, two)
    assert not same(sg.Walls(-1, 1), sg.Walls(-1, 2))
    assert not same(sg.EulerMaruyama(substeps=2), sg.EulerMaruyama(substeps=3))
    assert described([math.inf, np.float64(0.5), {1, 2}, None, torch.float32]) == [
        "inf", 0.5, ["1", "2"], None, "torch.float32",
    ]  # fmt: skip
    circle = {}
    circle["self"] = circle
    assert described(circle) == {"self": "…"}


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 1 there and 2 here"),
        ({"a": 1}, {}, "a is only there"),
        ({}, {"a": 1}, "a is only here"),
        ({"s": {"class": "A", "x": 1}}, {"s": {"class": "B"}}, "s is A there and B here"),
        ({"f": {"code": "1a"}}, {"f": {"code": "2b"}}, "the code of f is another"),
        ({"x": "y" * 100}, {"x": 1}, f"x is {'y' * 57}… there and 1 here"),
        ({"a": [1]}, {"a": [1]}, None),
    ],
)
def test_the_difference_is_named(there, here, told):
    assert difference(there, here) == told
