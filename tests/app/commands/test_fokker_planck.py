"""sdegen fokker-planck: densities of known processes from the command line."""

import math

import pytest
import torch

OU = """
import sdegen as sg
ou = sg.OrnsteinUhlenbeck(rate=1.0, sigma=2**0.5)
free = sg.BrownianMotion()
"""


@pytest.fixture
def solve(here, call):
    (here / "ou.py").write_text(OU)
    return lambda sde, *flags: call("fokker-planck", "--sde", f"ou.py:{sde}", *flags)


def test_ornstein_uhlenbeck(solve):
    """N(2, ¼) becomes N(2e^{−t}, 1 − ¾e^{−2t}), and at last N(0, 1)."""
    found = solve("ou --low -10 --high 10 --mean 2 --std 0.5 --stationary --t1 0.5")
    assert (found.status, found.err) == (0, [])
    mean, variance = 2 * math.exp(-0.5), 1 - 0.75 * math.exp(-1)
    x = found.tensors["x"]
    exact = torch.exp(-0.5 * (x - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
    # 401 nodes: 1.1e-7 was measured for the compact form
    assert float((found.tensors["p"][-1] - exact).abs().max()) < 3e-7
    still = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    assert float((found.tensors["stationary"] - still).abs().max()) < 1e-10
    assert found.metrics["mean"] == pytest.approx(mean, abs=1e-6)
    assert found.metrics["stationary_std"] == pytest.approx(1, abs=1e-6)
    assert found.tensors["times"][-1] == 0.5
    assert found.files == {"config.toml", "metrics.json", "density.safetensors", "density.png"}


def test_absorbing_walls_from_a_point(solve):
    """Brownian motion in [0, π] from π/2: survival (4/π) Σ (−1)^m e^{−(2m+1)² t/2}/(2m+1)."""
    found = solve(
        f"free --low 0 --high {math.pi} --boundary absorbing --mean {math.pi / 2} --std 0"
    )
    terms = ((-1) ** m * math.exp(-((2 * m + 1) ** 2) / 2) / (2 * m + 1) for m in range(9))
    assert found.metrics["mass"] == pytest.approx(4 / math.pi * sum(terms), abs=1e-4)
    assert found.metrics["mean"] == pytest.approx(math.pi / 2, abs=1e-6)


def test_real_walls_are_said_to_be_real(solve):
    flags = "--low -1 --high 1 --stationary"
    refused = solve("free", flags)
    assert refused.status == 2
    assert ": the grid cuts it." in refused.err[0]
    found = solve("free", flags, "--truncation-is-physical")
    assert found.status == 0
    assert torch.allclose(found.tensors["stationary"], torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.filterwarnings("always")
def test_a_grid_that_is_a_little_small_is_noted_in_one_line(solve):
    """The stationary density at ±4.2 is e^{−8.82} = 1.5e-4 of its peak."""
    found = solve("ou --low -4.2 --high 4.2 --stationary --std 0.5 --t1 0.1")
    assert found.status == 0
    assert all(
        line.startswith("sdegen fokker-planck: note: the density at the") for line in found.err
    )
    assert "the grid cuts it" in found.err[0]


@pytest.mark.parametrize(
    ("sde", "flags", "told"),
    [
        ("ou", "--low 1 --high 1", "low must be below high = 1, but is 1."),
        ("ou", "--mean 9", "mean must lie in [low, high] = [-5, 5], but is 9."),
        ("ou", "--t1 0", "t1 must exceed t0 = 0, but is 0."),
        ("ou", "--std 0.001", "std must be at least half a cell"),
        ("ou", "--cells 3", "cells must be ≥ 4, but is 3."),
    ],
)
def test_refusals(solve, sde, flags, told):
    found = solve(sde, flags)
    assert (found.status, found.out, len(found.err)) == (2, [], 1)
    assert told in found.err[0]


def test_no_stationary_density(solve):
    found = solve("free --boundary absorbing --stationary --out r")
    assert found.status == 1
    assert (
        "there is no stationary density: all mass leaves through the absorbing wall"
        in found.err[0]
    )
    assert found.metrics["status"] == "failed"
