"""The table of solvers says what all the classes say, and what they say is measured."""

import inspect
import math

import pytest
import torch

import sdegen as sg
from sdegen.engine.which_solver import _SOLVERS

F64 = torch.float64
# those whose order depends on tolerances, on coefficients of the user's, or on what is within
_NO_ORDER = {
    "AdaptiveHeun",
    "AngularAdams",
    "FinalDenoising",
    "LinearMultistep",
    "Metropolis",
    "MetropolisCorrector",
    "PredictorCorrector",
    "TorchDiffEq",
}


MULTIPLICATIVE = sg.ItoProcess(
    lambda x: -x, lambda x: torch.stack([x, x.flip(1)], -1), channels=2, linear_part=1.0
)
GEOMETRIC = sg.ItoProcess(lambda x: -x, lambda x: 0.5 * x, linear_part=1.0)
WELL = sg.Quadratic()
# of each kind of noise: on all coordinates, and on velocities alone
GIVEN = {
    "additive": (sg.OrnsteinUhlenbeck(), sg.UnderdampedLangevin(WELL)),
    "multiplicative": (GEOMETRIC, sg.UnderdampedLangevin(WELL, lambda x: 1 + x**2)),
}


def takes(solver, sde):
    try:
        solver.check(sde, torch.tensor([0.0, 1.0], dtype=F64))
    except ValueError:
        return False
    return True


def row_of(solver):
    return sg.which_solver().rows[_SOLVERS.index(solver)]


def public_solvers():
    for name in sg.__all__:
        value = getattr(sg, name)
        is_solver = inspect.isclass(value) and issubclass(value, sg.Solver)
        if is_solver and not inspect.isabstract(value):
            yield value


def test_every_public_solver_is_in_the_table_with_its_declarations():
    kinds = {s if isinstance(s, type) else type(s) for s in _SOLVERS}
    assert kinds == set(public_solvers())
    for kind in kinds:
        assert kind.when.endswith("."), kind
        assert len(kind.when) > 20


def test_the_rows_are_what_the_solvers_declare():
    rows = sg.which_solver().rows
    assert len(rows) == len(_SOLVERS)
    for row, solver in zip(rows, _SOLVERS, strict=True):
        kind = solver if isinstance(solver, type) else type(solver)
        assert row.solver.startswith(kind.__name__)
        assert row.when == kind.when
        assert (row.orders is None) == (kind.__name__ in _NO_ORDER)
        if isinstance(solver, type):
            continue
        assert row.orders == solver.orders
        assert row.evaluations == solver.evaluations
        assert row.stability == solver.stability
        for structure in solver.noise_structures:
            named = (
                "reverse dynamics",
                "no noise",
                "Langevin",
                "phase space",
                "phase space; additive",
            )
            assert row.takes in named or structure in row.takes
        # an order for channels is declared exactly where multiplicative ones are taken
        if row.orders is not None:
            assert (row.orders.channels is not None) == takes(solver, MULTIPLICATIVE)
            at = int(row.takes.startswith("phase space"))
            for noise, given in GIVEN.items():
                declared = getattr(row.orders, noise) is not None
                if noise == "multiplicative" or row.takes != "reverse dynamics":
                    assert declared == takes(solver, given[at])
                assert not at or not takes(solver, given[0])


@pytest.mark.parametrize(
    "solver", [s for s in _SOLVERS if not isinstance(s, type) and s.stability], ids=repr
)
def test_the_stability_that_is_declared_is_that_of_the_steps(solver):
    """dx = −λx dt: bounded at the length, growing at 6 % more; at 10⁶ where any step is stable.

    In a phase space an oscillator of the frequency λ that is hardly damped.
    """
    length = solver.stability

    def factor(rate):
        if row_of(solver).takes.startswith("phase space"):
            well = sg.UnderdampedLangevin(sg.Quadratic(rate**2), 1e-3, temperature=0.0)
            step = sg.ChainMoments(well, 2, solver).transition(0.0, 1.0).matrix
            return float(torch.linalg.eigvals(step).abs().max())
        ode = sg.ItoProcess(lambda x: -rate * x, 0.0, linear_part=rate)
        (after,) = sg.integrate(ode, solver, torch.ones(1, 1, dtype=F64), [0.0, 1.0])
        return abs(float(after))

    if math.isinf(length):
        assert factor(1e6) < 1
        return
    assert factor(0.5 * length) < 1
    assert factor(length) <= 1 + 1e-9
    assert factor(1.06 * length) > 1


def test_of_some_dynamics_those_that_take_them_are_shown():
    def names(sde):
        return {row.solver.partition("(")[0] for row in sg.which_solver(sde).rows}

    channels = sg.ItoProcess(lambda x: -x, lambda x: torch.stack([x, x.flip(1)], -1), channels=2)
    assert {"EulerMaruyama", "DRI1", "SKROCK"} <= names(channels)
    assert not {"ImplicitEuler", "TorchSDE", "DDIM"} & names(channels)
    assert "ImplicitEuler" in names(sg.OrnsteinUhlenbeck())
    assert not {"BAOAB", "OBABO", "QUICSORT"} & names(sg.OrnsteinUhlenbeck())
    well = sg.UnderdampedLangevin(WELL)
    assert [row.solver for row in sg.which_solver(well).rows][:2] == ["BAOAB()", "OBABO()"]
    assert {"EulerMaruyama", "QUICSORT"} <= names(well)
    assert {"TorchDiffEq", "Heun"} <= names(sg.ItoProcess(lambda x: -x, 0.0))
    path = sg.VP(sg.LinearBeta(0.1, 20.0))
    law = sg.GaussianMixture([1.0], [[0.0]], stds=0.5).noised(path)
    assert {"DDIM", "DPM2", "EulerMaruyama"} <= names(sg.ReverseSDE(path, law.score, 1.0))
    assert "KarrasHeun" not in names(sg.ReverseSDE(path, law.score, 1.0))
    with pytest.raises(TypeError, match="sde must be an SDE"):
        sg.which_solver(sg.EulerMaruyama())


def test_the_table_is_read_in_a_terminal():
    lines = str(sg.which_solver()).splitlines()
    assert lines[0].startswith("solver")
    assert len(lines) == 1 + len(_SOLVERS)
    assert repr(sg.which_solver()) == str(sg.which_solver())
