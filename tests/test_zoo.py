"""The zoo: each fault is planted, and its clean twin is the scheme that is believed.

A twin takes the normals that sdegen's own solver is given, and must come to the same states. That
holds for all solvers of the zoo, so that no test here is statistical but those that say so.
"""

from collections import Counter

import numpy as np
import pytest
import torch

import sdegen as sg
from benchmarks import zoo
from benchmarks.zoo_faults import ALL, CLASSES, FAULTS, HISTORICAL, OUTSIDE
from benchmarks.zoo_usual_checks import seen
from sdegen.core.noise import stream
from sdegen.core.step_noise import Draws, StepNoise

SIZE = 4_000  # numbers of a run, about


class Replayed(Draws):
    """Normals that were drawn before, in order."""

    def __init__(self, drawn):
        self._drawn, self._rest = drawn, iter(drawn)
        self.normal = self._rest.__next__

    def z(self, i):
        return self._drawn[i]

    def integral(self, i):
        raise NotImplementedError

    def areas(self, i):
        raise NotImplementedError


def believed(planted, drawn):
    """States of sdegen's solver, with the normals of the twin, from the twin's first states."""
    x = planted.states[0]
    drawn = [torch.from_numpy(z) for z in drawn]
    if planted.sde.phase_space and drawn[0].ndim < x.ndim:  # BAOAB's are those of velocities
        drawn = [torch.stack([z, z], 1) for z in drawn]
    noise = None
    if drawn:
        noise = StepNoise.of(Replayed(drawn), planted.times, None, stream(0, "zoo"))
    walls = None
    if planted.boundary is not None:
        walls = sg.contain(planted.boundary, planted.sde, x, planted.times)
    with torch.no_grad():
        run = sg.integrate(planted.sde, planted.solver, x.clone(), planted.times, noise, walls)
        return torch.stack([x, *(y.clone() for y in run)])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_clean_twin_is_the_believed_scheme(fault):
    for dim in (fault.dims[0], 3):
        if dim not in fault.dims:
            continue
        rng, drawn = np.random.default_rng(1), []

        def normal(shape, rng=rng, drawn=drawn):
            drawn.append(rng.standard_normal(shape))
            return drawn[-1].copy()

        twin = fault.plant(dim, 2, SIZE, faulty=False, normal=normal)
        states = believed(twin, drawn)
        scale = float(twin.states.abs().max())
        torch.testing.assert_close(states, twin.states, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_changes_the_states_and_nothing_else(fault):
    dim = fault.dims[0]
    faulty, twin = (fault.plant(dim, 3, SIZE, faulty=it) for it in (True, False))
    assert bool(faulty.states.isfinite().all())
    assert faulty.states.shape == twin.states.shape == (len(twin.times), *twin.states.shape[1:])
    assert torch.equal(faulty.states[0], twin.states[0])
    assert not torch.equal(faulty.states, twin.states)
    assert torch.equal(faulty.times, twin.times)
    again = fault.plant(dim, 3, SIZE)
    assert torch.equal(again.states, faulty.states)


def test_the_zoo_is_as_large_as_it_says():
    assert len(HISTORICAL) >= 26
    assert len(OUTSIDE) == 8
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.klass for fault in FAULTS} == set(CLASSES)
    assert {fault.klass for fault in OUTSIDE} == {"outside"}
    places = {(fault.project, fault.issue) for fault in HISTORICAL}
    assert len(places) == len(HISTORICAL)
    assert all("/" in project and issue > 0 for project, issue in places)
    inside = Counter(dim for fault in HISTORICAL for dim in fault.dims)
    assert set(inside) == set(ALL)
    assert min(inside.values()) >= 40


def test_a_fault_is_not_planted_where_it_makes_no_sense():
    fault = next(one for one in FAULTS if 1 not in one.dims)
    with pytest.raises(ValueError, match=f"{fault.name} is planted in"):
        fault.plant(1, 0)


def test_a_certificate_catches_what_the_usual_checks_do_not():
    """Friction of twice its value has the same law at rest; false alarms are at 1e-3 each."""
    fault = next(one for one in FAULTS if one.klass == "friction doubled")
    row = zoo.row_of(fault, 1, size=60_000)
    assert row["caught"]
    assert not any(row[check] for check in zoo.CHECKS)
    (of_class,) = zoo.of_classes([row])
    assert (of_class["class"], of_class["runs"], of_class["caught"]) == (fault.klass, 1, 1)


def test_right_runs_are_few_alarms():
    """Six twins at a false alarm of 1e-3: two alarms once in 10⁵ runs."""
    tables = zoo.false_alarms(6, 20_000)
    *rows, total = tables["false alarms of right runs"]
    assert sum(row["runs"] for row in rows) + total["refused"] == 6
    assert total["false alarms"] <= 1


def test_usual_checks_see_a_moved_mean_and_leave_right_runs_alone():
    """The mean is off by 0.9 standard deviations; a right run is left alone in 997 of 1000."""
    fault = next(one for one in FAULTS if one.klass == "drift: constant part missing")
    assert all(p < 1e-3 for p in seen(fault, 2, size=40_000).values())
    assert all(p >= 1e-3 for p in seen(fault, 2, size=40_000, faulty=False).values())
