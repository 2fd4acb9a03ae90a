"""Fingerprints: what behaves differently is told differently, and what does not, alike."""

import functools
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy
import torch
from scipy import interpolate

import sdegen as sg
from sdegen.core.fingerprint import difference, fingerprint_json, to_spec, versions

RATE = 0.5


def same(a, b):
    one, two = to_spec(a), to_spec(b)
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
    before, bound = to_spec(naming_a_global), to_spec(Helped(1.0).force)
    default = to_spec(with_default)
    monkeypatch.setitem(globals(), "RATE", 0.6)
    assert difference(before, to_spec(naming_a_global)) == ("RATE is 0.5 there and 0.6 here")
    monkeypatch.setitem(globals(), "helper", other_helper)
    assert difference(bound, to_spec(Helped(1.0).force)) is not None
    monkeypatch.setattr(with_default, "__defaults__", (0.6,))
    assert difference(default, to_spec(with_default)) == "defaults is [0.5] there and [0.6] here"


def test_classes_of_ones_own(monkeypatch):
    assert same(Mine(1.0), Mine(1.0))
    assert not same(Mine(1.0), Mine(2.0))
    before = to_spec(Mine(1.0))
    monkeypatch.setattr(Mine, "drift", lambda self, x, t: self.k * x)
    assert "drift" in difference(before, to_spec(Mine(1.0)))


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
    assert not same(sg.Reflecting(-1, 1), sg.Reflecting(-1, 2))
    assert not same(sg.EulerMaruyama(substeps=2), sg.EulerMaruyama(substeps=3))
    assert to_spec([math.inf, np.float64(0.5), {1, 2}, None, torch.float32]) == [
        "inf", 0.5, ["1", "2"], None, "torch.float32",
    ]  # fmt: skip
    circle = {}
    circle["self"] = circle
    assert to_spec(circle) == {"self": "…"}


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
        ({"a": {"_b": 1, "c": 1}}, {"a": {"_b": 2, "c": 2}}, "a.c is 1 there and 2 here"),
        ({"sde": {"constant_noise": 1}}, {"sde": {}}, "the diffusion is a number only there"),
        ({"x0": {"tensor": "0f" * 32}}, {"x0": {"tensor": [1]}}, "x0 holds other numbers"),
    ],
)
def test_the_difference_is_named(there, here, told):
    assert difference(there, here) == told


# --- what a class brings along


class Wide:
    """A drift whose numbers stand in its class, one way and another."""

    k = 1.0

    @property
    def double(self):
        return 2 * self.k

    @staticmethod
    def of(x):
        return -x

    @classmethod
    def named(cls, x):
        return cls.k * x

    def __call__(self, x, t):
        return self.double * self.of(x) + self.named(x)


class Narrow(Wide):
    def __call__(self, x, t):
        return super().__call__(x, t)


def naming_a_class(x, t):
    return Wide.k * x


def naming_an_object(x, t):
    return SETTINGS.k * x


SETTINGS = Helped(1.0)


@pytest.mark.parametrize("make", [Wide, Narrow, lambda: naming_a_class, lambda: [Wide]])
@pytest.mark.parametrize(
    ("name", "other", "told"),
    [
        ("k", 2.0, r"Wide\.k is 1\.0 there and 2\.0 here$"),
        ("double", property(lambda self: 5.0), r"Wide\.double\.get"),
        ("of", staticmethod(lambda x: -5 * x), r"Wide\.of"),
        ("named", classmethod(lambda cls, x: x), r"Wide\.named"),
        ("more", 1.0, r"Wide\.more is only here$"),
    ],
)
def test_what_stands_in_a_class(make, name, other, told, monkeypatch):
    before = to_spec(make())
    assert difference(before, to_spec(make())) is None
    monkeypatch.setattr(Wide, name, other, raising=False)
    found = difference(json.loads(json.dumps(before)), to_spec(make()))
    assert found is not None
    if make is Wide:
        assert re.search(told, found)


def test_an_object_that_a_drift_names(monkeypatch):
    before = to_spec(naming_an_object)
    monkeypatch.setattr(SETTINGS, "k", 2.0)
    assert difference(before, to_spec(naming_an_object)) == (
        "SETTINGS.k is 1.0 there and 2.0 here"
    )


def test_a_global_of_the_name_of_a_method_is_another_thing(monkeypatch):
    def drift(x, t):
        return x.square()

    before = to_spec(drift)
    monkeypatch.setitem(globals(), "square", torch.ones(3))
    assert difference(before, to_spec(drift)) is None


def test_a_network_is_more_than_its_weights():
    class Scaled(torch.nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, x):
            return self.k * x

    assert same(Scaled(1.0), Scaled(1.0))
    assert not same(Scaled(1.0), Scaled(2.0))
    inner = [torch.nn.Sequential(Scaled(k)) for k in (1.0, 2.0)]
    assert same(inner[0], torch.nn.Sequential(Scaled(1.0)))
    assert not same(*inner)


FROZEN = """
from sdegen.core.fingerprint import to_spec
def drift(x, t):
    lists = "k", frozenset({"l", "m", "n", "op", "q", "rs"})
    return -x if "a" in {"a", "bc", "def", "ghij", "klmno", "p"} else x, lists
print(to_spec([drift, {"a", "bc", "def", "ghij", "klmno", "p"}]))
"""


def test_a_set_in_the_code_is_the_same_in_every_process():
    """Six words have 720 orders: a wrong description of any of three sets passes as rarely."""
    found = {
        subprocess.run(
            [sys.executable, "-c", FROZEN], env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in (1, 2)
    }  # fmt: skip
    assert len(found) == 1


def test_many_that_name_each_other_are_described_once():
    """Twelve functions that all call each other: 12! ways through them."""
    names = [f"f{i}" for i in range(12)]
    source = "".join(
        f"def {n}(x):\n    return {' + '.join(f'{m}(x)' for m in names)}\n" for n in names
    )
    held = {"__name__": "theirs"}
    exec(source, held)
    text = json.dumps(to_spec(held["f0"]))
    assert len(text) < 100_000
    changed = dict(held)
    exec("def f7(x):\n    return 0\n", changed)
    exec(source.partition("def f7")[0], changed)
    assert json.dumps(to_spec(changed["f0"])) != text


def test_installed_packages_are_named_by_their_version(monkeypatch):
    spline = interpolate.CubicSpline(np.arange(5.0), np.arange(5.0) ** 2)

    def drift(x, t):
        return spline(x)

    before = to_spec(drift)
    assert len(json.dumps(before)) < 1000
    monkeypatch.setattr(scipy, "__version__", "9.9")
    assert re.search(r"scipy is .* there and 9\.9 here", difference(before, to_spec(drift)))
    monkeypatch.undo()
    spline.c[0, 0] += 1.0
    assert re.search(
        r"spline\.(\w+\.)?_?c holds other numbers", difference(before, to_spec(drift))
    )


def test_an_object_of_the_library_is_told_by_its_arguments():
    assert to_spec(sg.Langevin(sg.DoubleWell(0.5, 0.4), 0.25)) == {
        "class": "Langevin",
        "constant_noise": math.sqrt(0.5),
        "noise": "additive",
        "potential": {"class": "DoubleWell", "quadratic": 0.4, "quartic": 0.5},
        "temperature": 0.25,
    }
    # what follows from them is left out, and only there
    assert to_spec(sg.QuadraticBeta(0.2, 8.0)).keys() == {"class", "beta_min", "beta_max"}
    spec = to_spec(sg.ItoProcess(np.negative, lambda x: 1 + x * x, noise="multiplicative"))
    assert {"drift", "diffusion", "diffusion_derivative"} < spec.keys()
    assert not any(name.startswith("_") for name in spec)

    class Wider(sg.QuadraticBeta):
        pass

    assert "_growth" in to_spec(Wider(0.2, 8.0))


def test_versions_and_the_processor_are_told():
    assert versions().keys() == {"python", "machine", "cpu", "sdegen", "torch", "numpy"}
    assert versions("scipy")["scipy"] == scipy.__version__
    assert fingerprint_json({"b": 1, "a": 2}) == fingerprint_json({"a": 2, "b": 1})
