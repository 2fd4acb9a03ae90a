"""Advice of results that have no picture to show, followed."""

import dataclasses

import torch

import sdegen as sg
from tests.cures.common import F64, OU, simulate
from tests.cures.pictures import _drawn
from tests.cures.simulated_scores import a_model, trained

_TABLE = sg.which_solver(OU)
_UNKNOWN = dataclasses.replace(_TABLE, rows=())


def _few():
    """Identities of three trajectories at two times, too few to judge any."""
    return sg.identities(OU, simulate(OU, torch.zeros(3, 1, dtype=F64)).states[:, :2], dt=0.1)


def _read():
    """What is printed says of each check why it was not judged."""
    few = _few()
    assert str(few).count("not judged") >= len(few.checks) > 0


def _named():
    assert all(row.solver in str(_TABLE) for row in _TABLE.rows)
    assert str(_UNKNOWN)


FOLLOWED = {
    "a table of solvers without order or cost": (
        "no solver of this table declares order and cost; print it",
        lambda: _UNKNOWN.plot(),
        _named,
    ),
    "a picture of checks that were not judged": (
        "no check of this result was judged; print it to read why",
        lambda: _few().plot(),
        _read,
    ),
    "a picture of a model before its training": (
        "the times of this model are not known before training; train it first",
        lambda: a_model(times=None).plot(),
        lambda: _drawn(trained(a_model(times=None)).plot()),
    ),
}
