"""Advice on the bias of a step, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import F64, FLOW, OU, VP, T, column, near, simulate, told

_ONE = column(1.0, 1)
_FIRST = {"x": lambda x: x[:, 0]}
_EULER = 0.9**10 - math.exp(-1)  # the bias of x' = −x at t = 1
_REST = simulate(OU, column(0.0, 50), torch.linspace(0.0, 10.0, 101, dtype=F64))
_CHAIN = sg.DDPM.discretize(VP, 20)
_PULL = sg.ItoProcess(lambda x: x.mean(0) - x, 0.0)
_PAIR = sg.ItoProcess(lambda x: x.mean(1, keepdim=True) - x, 0.0)
_DRIVEN = sg.ItoProcess(lambda x, t: torch.cos(t) - x, 0.3)
_GROWTH = sg.ItoProcess(lambda x: x, 0.0)
_CUBE = sg.ItoProcess(lambda x: -(x**3), 0.0)
_SLOW = sg.OrnsteinUhlenbeck(0.1, 0.0, 0.3)


class _Undeclared(sg.EulerMaruyama):
    orders = None


def _flow(observables=_FIRST, exact=_EULER, sde=FLOW, dt=0.1, t=1.0, x0=_ONE, **options):
    """The bias at a time, and that it is right."""
    found = sg.step_bias(sde, observables, dt=dt, x0=x0, t=t, rng=0, **options)
    name = next(iter(observables))
    assert bool(((found.value[name] - exact).abs() <= found.error[name]).all())
    return found


def _rest(sde=OU, path=_REST, observables=None, exact=1 / 1.9 - 0.5, **options):
    """The bias of ⟨x²⟩ at rest, and that it is within five standard errors."""
    square = {"x²": lambda x: x[:, 0].square()}
    given = {"dt": 0.1, "trajectories": 100, "rng": 0} | options
    found = sg.step_bias(sde, square if observables is None else observables, path=path, **given)
    expansion = found.expansions["x²"]
    off = abs(float(found.value["x²"]) - exact)
    assert off <= float(expansion.remainder(1.0) + 5 * expansion.standard_error(1.0))
    return found


def _asked(**options):
    return sg.step_bias(**{"sde": OU, "observables": _FIRST, "dt": 0.1, "rng": 0} | options)


def _not_at_rest(steps=64, starts=10.0):
    path = starts + torch.randn(3, 40, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    return sg.step_bias(_SLOW, _FIRST, dt=0.1, path=path, rng=0, steps=steps, trajectories=100)


def _quiet(call):
    assert told(call, only_text=True) == ""


FOLLOWED = {
    "the bias of a larger step": (
        r"nothing was seen of larger steps; call step_bias with that dt",
        lambda: _flow().at(0.2),
        lambda: _flow(dt=0.2, exact=0.8**5 - math.exp(-1)),
    ),
    "a limit of nothing for a bias": (
        r"limit must be > 0, but is \{\}; pass limit=0.01",
        lambda: _flow().checks(0.0),
        lambda: _flow().checks(limit=0.01),
    ),
    "the bias of no observable": (
        "observables has no entry; pass such as",
        lambda: _rest(observables={}),
        lambda: _rest(observables={"x²": lambda x: x[:, 0].square()}),
    ),
    "the bias of an observable of another shape": (
        "must return one number or k of them for each state",
        lambda: _flow({"x": lambda x: x[:, None]}),
        lambda: (_flow({"x": lambda x: x[:, 0]}), _flow({"x": lambda x: x.flatten(1)})),
    ),
    "the bias of an observable that writes": (
        r"\] changed x in place; write x = x \+ … instead",
        lambda: _flow({"x": lambda x: x.add_(1)[:, 0]}),
        lambda: _flow({"x": lambda x: (x + 1)[:, 0]}),
    ),
    "the bias of an observable of all rows": (
        r"\] of a state depends on the other states of its batch",
        lambda: _flow({"x": lambda x: x[:, 0] - x.mean()}, x0=column(1.0, 2)),
        lambda: _flow({"x": lambda x: x[:, 0] - 1}, x0=column(1.0, 2)),
    ),
    "the bias of an observable that is not finite": (
        r"its average is not finite; let it return a finite number there",
        lambda: _rest(observables={"x²": lambda x: x[:, 0].log()}),
        lambda: _rest(observables={"x²": lambda x: x[:, 0].square().clamp(max=1e6)}),
    ),
    "the bias of a step by few trajectories": (
        r"of whose spread the sampling error is told, but is \{\}; pass trajectories=1000",
        lambda: _rest(trajectories=5),
        lambda: _rest(trajectories=1000, steps=64),
    ),
    "steps of a bias at a time": (
        "but t says when the average is taken; leave one of them out",
        lambda: _flow(steps=100),
        lambda: (_flow(), _rest(steps=100)),
    ),
    "the bias of no step": (
        r"the step whose bias is asked for, but is \{\}; pass the step of the simulation",
        lambda: _flow(dt=0.0),
        lambda: _flow(dt=0.01, exact=0.99**100 - math.exp(-1)),
    ),
    "a bias after a part of a step": (
        r"in \{\}; pass dt=\{\}, or another t",
        lambda: _flow(dt=0.3),
        lambda: (_flow(dt=0.25, exact=0.75**4 - math.exp(-1)), _flow(t=1.0)),
    ),
    "a bias at rest and at a time": (
        "pass either path=, states of a run at rest, for averages at rest, or x0= and t=",
        lambda: _asked(path=_REST, x0=_ONE),
        lambda: (_rest(), _flow()),
    ),
    "the bias of a step of a chain": (
        "its averages have no bias by the step; leave step_bias out",
        lambda: _asked(sde=_CHAIN, x0=_ONE, t=1.0, dt=1.0),
        lambda: sg.simulate(_CHAIN, _ONE, torch.arange(21.0), rng=0),
    ),
    "the bias of steps that are chosen": (
        "so that there is no dt whose bias could be told; pass solver=EulerMaruyama",
        lambda: _flow(solver=sg.TorchDiffEq()),
        lambda: (
            _flow(solver=sg.EulerMaruyama()),
            near(
                *(
                    sg.simulate(FLOW, _ONE, T, solver=sg.TorchDiffEq(rtol=r, atol=r)).final
                    for r in (1e-6, 1e-8)
                ),
                1e-5,
            ),
        ),
    ),
    "the bias of substeps": (
        r"dt is the length of a step; pass \{\}\(\) and dt= of a substep",
        lambda: _flow(dt=0.2, solver=sg.EulerMaruyama(substeps=2)),
        lambda: _flow(dt=0.1, solver=sg.EulerMaruyama()),
    ),
    "the bias of a solver without an order": (
        r"by which its bias falls; pass solver=EulerMaruyama\(\)",
        lambda: _flow(solver=_Undeclared()),
        lambda: _flow(solver=sg.EulerMaruyama()),
    ),
    "the bias of a step at absorbing ends": (
        "by how they meet the end; compare certify",
        lambda: _asked(path=_REST, boundary=sg.Absorbing(-9.0, 9.0)),
        lambda: sg.certify(
            OU,
            sg.Grid(-3.0, 3.0, 120),
            0.0,
            T[:3],
            solver=sg.EulerMaruyama(),
            boundary=sg.Absorbing(-3.0, 3.0),
            trajectories=200,
            rng=0,
        ),
    ),
    "the bias of a step in a mean field": (
        "their spread no error: give all of them as one state",
        lambda: _flow(sde=_PULL, x0=column(0.0, 2)),
        lambda: _flow(
            {"x": lambda x: x[:, :, 0]},
            sde=_PAIR,
            x0=torch.tensor([[[0.0], [2.0]]], dtype=F64),
            exact=torch.tensor([-_EULER, _EULER], dtype=F64),
        ),
    ),
    "a bias at rest of what changes with time": (
        "and has no averages at rest: pass x0= and t= in place of path=",
        lambda: _asked(sde=_DRIVEN, path=_REST),
        lambda: _asked(sde=_DRIVEN, x0=_ONE, t=1.0),
    ),
    "the bias of chains that explode": (
        "no average whose bias could be told; take a smaller dt",
        lambda: _flow(sde=_CUBE, x0=3 * _ONE, dt=1.0, t=20.0),
        lambda: _asked(sde=_CUBE, x0=3 * _ONE, dt=0.01, t=1.0),
    ),
    "a bias not at rest": (
        "the interval of its bias may be too narrow. Pass a path at rest, or more steps=",
        lambda: told(_not_at_rest),
        lambda: (_quiet(lambda: _not_at_rest(steps=2000)), _quiet(_rest)),
    ),
    "a bias that falls slowly": (
        "the order is lower here, and the interval holds both. Pass half the step",
        lambda: told(lambda: _flow(sde=_GROWTH, dt=0.25, exact=1.25**4 - math.e)),
        lambda: _quiet(lambda: _flow(sde=_GROWTH, dt=0.125, exact=1.125**8 - math.e)),
    ),
    "a bias that is not known well enough": (
        r"\{\} ± \{\}: pass more trajectories, or steps",
        lambda: _raised(_rest(steps=64).checks(0.0526)[0].remark),
        lambda: _judged(_rest(steps=4000, trajectories=1000).checks(0.048)[0]),
    ),
}


def _raised(remark):
    raise ValueError(remark)


def _judged(check):
    assert check.verdict == "failed"


# their verb is "let"
UNSEEN = (
    "the bias of an observable of all rows",
    "the bias of an observable that is not finite",
)
