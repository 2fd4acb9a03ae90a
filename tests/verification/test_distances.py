"""Distances of densities: normal laws have them in closed form, uniform ones exactly."""

import math

import pytest
import torch
from scipy.special import erf

import sdegen as sg
from sdegen.verification.distances import kullback_leibler, total_variation, wasserstein

GRID = sg.Grid(-9.0, 11.0, cells=2000)


def test_two_normal_laws():
    """A shift δ: TV = erf(δ/√8), W1 = δ, KL = δ²/2. A spread s: W1 = |1 − s| √(2/π), to h²."""
    p, q = GRID.gaussian(0.0, 1.0), GRID.gaussian(0.7, 1.0)
    assert total_variation(p, q) == pytest.approx(erf(0.7 / math.sqrt(8)), abs=1e-5)
    assert wasserstein(p, q) == pytest.approx(0.7, abs=1e-8)
    assert kullback_leibler(p, q) == pytest.approx(0.245, abs=1e-8)
    narrow = GRID.gaussian(0.0, 0.8)
    assert wasserstein(p, narrow) == pytest.approx(0.2 * math.sqrt(2 / math.pi), abs=1e-4)
    assert kullback_leibler(narrow, p) == pytest.approx(-math.log(0.8) - 0.18, abs=1e-8)
    assert kullback_leibler(p, narrow) == pytest.approx(math.log(0.8) + 0.5 / 0.64 - 0.5, abs=1e-8)


def test_where_one_vanishes_the_divergence_is_large_one_way():
    """Half of the mass lies where q is cut off, at 1e-18 of its peak."""
    x = GRID.nodes
    left = sg.Density(x, torch.where(x < 0, GRID.gaussian(0.0, 1.0).p, 0.0)).normalized()
    both = GRID.gaussian(0.0, 1.0)
    # E log p is ½ below its peak, and the peak of q is twice that of p
    assert kullback_leibler(both, left) == pytest.approx(
        0.5 * (-math.log(2e-18) - 0.5) - 0.5 * math.log(2), abs=0.1
    )
    assert kullback_leibler(left, both) == pytest.approx(math.log(2), abs=0.01)
    # a rounding below zero in a tail costs what is there, and no more
    q = both.p.clone()
    q[both.p < 1e-10] = -1e-18
    assert kullback_leibler(both, sg.Density(x, q)) == pytest.approx(0.0, abs=1e-8)


def test_other_nodes_are_refused():
    with pytest.raises(ValueError, match="one has 2001 from -9 to 11, the other 11 from 0 to 1"):
        total_variation(GRID.gaussian(0.0, 1.0), sg.Grid(0.0, 1.0, 10).gaussian(0.5, 0.2))


def test_densities_that_are_infinite_at_a_wall_have_finite_distances():
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 20.0, 200))
    rest = solver.stationary()
    later = solver.solve(solver.grid.gaussian(1.0, 0.3), [0.0, 8.0]).final
    assert 0 < total_variation(rest, later) < 1e-2
    assert 0 < wasserstein(rest, later) < 1e-2
    assert abs(kullback_leibler(rest, later)) < 1e-2
