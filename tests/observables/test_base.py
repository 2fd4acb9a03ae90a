"""Observables: one tree whatever the order, an own one in a few lines, and wrong ones by name."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sdegen as sg
from sdegen.observables.base import Accumulator, PairwiseReduction

OU = sg.OrnsteinUhlenbeck(rate=1.0, sigma=1.0)
TIMES = [0.0, 0.5, 1.0]
PATIENT = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine


def tree_of(leaves, order):
    tree = PairwiseReduction(len(leaves), lambda left, right: f"({left} {right})")
    for leaf in order:
        tree.add(0, leaf, leaves[leaf])
    return tree


@PATIENT
@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_tree_is_the_same_in_every_order(count, random):
    leaves = [str(i) for i in range(count)]
    order = list(range(count))
    straight = tree_of(leaves, order).total()
    random.shuffle(order)
    assert tree_of(leaves, order).total() == straight
    # and its leaves stand from left to right
    assert straight.replace("(", "").replace(")", "").split() == leaves


@PATIENT
@given(st.integers(1, 40), st.integers(1, 6))
def test_runs_of_leaves_merged_elsewhere_give_the_same_tree(count, ranks):
    leaves = [str(i) for i in range(count)]
    whole = PairwiseReduction(count, lambda left, right: f"({left} {right})")
    for rank in range(ranks):
        part = range(count * rank // ranks, count * (rank + 1) // ranks)
        nodes = tree_of(leaves, part).nodes
        assert len(nodes) <= 2 * max(1, len(part)).bit_length()
        for (level, index), node in nodes.items():
            whole.add(level, index, node)
    assert whole.total() == tree_of(leaves, range(count)).total()


def test_what_is_missing_is_left_out_in_order():
    assert tree_of("abcdefg", [6, 2, 3, 0]).total() == "((a (c d)) g)"


class Highest(sg.Observable):
    """A user's own: the highest value of all, and how many there were."""

    name = "highest"

    def measure(self, states, times):
        assert states.shape[0] == len(times)
        return {"highest": states.amax((0, 1)), "seen": torch.tensor(states.shape[1])}

    def merge(self, left, right):
        return {
            "highest": torch.maximum(left["highest"], right["highest"]),
            "seen": left["seen"] + right["seen"],
        }

    def result(self, total, times):
        return total["highest"], int(total["seen"])


@dataclass(frozen=True)
class Above(sg.Observable):
    """Another, with an argument, and sums that need no merge of their own."""

    level: float
    name: str = "above"

    def measure(self, states, times):
        return {"n": (states > self.level).sum((1, 2)), "of": torch.tensor(states.shape[1])}

    def result(self, total, times):
        return total["n"] / total["of"]


@pytest.mark.parametrize("solver", [sg.EulerMaruyama(substeps=2), sg.TorchSDE("srk", substeps=2)])
def test_ones_own(solver, small_blocks):
    wanted = [Highest(), Above(0.3), Above(0.0, name="positive")]
    x0 = torch.zeros(1, 2, dtype=torch.float64)
    run = sg.run_ensemble(
        OU, x0, TIMES, trajectories=3000, solver=solver, observables=wanted, rng=5, progress=False
    )
    path = sg.simulate(OU, x0.repeat(3000, 1), TIMES, solver=solver, rng=5)
    highest, seen = run.observables["highest"]
    assert seen == 3000
    assert torch.equal(highest, path.states.amax((0, 1)))
    assert torch.equal(run.observables["above"], (path.states > 0.3).sum((1, 2)) / 3000)
    assert torch.equal(run.observables["positive"], (path.states > 0).sum((1, 2)) / 3000)


def test_one_without_steps_of_the_solver_is_fed_from_the_path():
    ode = sg.ItoProcess(lambda x: -x, 0.0)
    x0 = torch.linspace(1, 2, 50, dtype=torch.float64)[:, None]
    run = sg.run_ensemble(
        ode, x0, TIMES, trajectories=50, solver=sg.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-8),
        observables=[sg.Moments()], progress=False,
    )  # fmt: skip
    expected = 1.5 * torch.exp(-torch.tensor(TIMES, dtype=torch.float64))
    torch.testing.assert_close(run.observables["moments"].mean[:, 0], expected, rtol=1e-7, atol=0)


# --- wrong ones


class _Odd(sg.Observable):
    name = "odd"

    def __init__(self, measure, merge=None):
        self.measure = measure
        if merge is not None:
            self.merge = merge

    def result(self, total, times):
        return total


def _grown(left, right):
    return {"x": torch.cat([left["x"], right["x"]])}


@pytest.mark.parametrize(
    ("observable", "kind", "told"),
    [
        (
            _Odd(lambda states, times: {"x": states[-1]}),
            ValueError,
            r"observable 'odd' gathers \{'x': 'float64\[3, 1\]'\} for 3 trajectories, but for 2 "
            r"\{'x': 'float64\[2, 1\]'\}: .* sum or average over the trajectories",
        ),
        (
            _Odd(lambda states, times: {"x": states.sum(1)}, _grown),
            ValueError,
            r"observable 'odd' gathers \{'x': 'float64\[6, 1\]'\} after a merge, but before it",
        ),
        (
            _Odd(lambda states, times: 3.0),
            TypeError,
            "observable 'odd' must gather a dict of tensors by name, but gathered 3.0",
        ),
        (
            _Odd(lambda states, times: {"x": 3.0}),
            TypeError,
            "observable 'odd' must gather a dict of tensors by name",
        ),
        (
            _Odd(lambda states, times: {"x": states[:, 0].sum((0, 1)) / 0 * torch.ones(
                3 if len(states[0]) < 10 else 4)}),
            ValueError,
            r"observable 'odd' gathers .*\[4\].* for block 0, but for 2 trajectories .*\[3\]",
        ),
        (sg.Moments, TypeError, r"Observable objects, such as Moments\(\), but one is"),
        ("mean", TypeError, "one is 'mean'; one of your own is a subclass of Observable"),
    ],
)  # fmt: skip
def test_wrong_ones_are_refused_by_name(observable, kind, told, as_user):
    with pytest.raises(kind, match=told):
        sg.run_ensemble(
            OU, torch.zeros(1, 1, dtype=torch.float64), TIMES, trajectories=20,
            observables=[observable], progress=False,
        )  # fmt: skip


def test_refusals_of_the_list(as_user):
    x0 = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="two observables are called 'moments'; give one"):
        sg.run_ensemble(
            OU, x0, TIMES, trajectories=2, observables=[sg.Moments(), sg.Moments(covariance=False)]
        )
    with pytest.raises(TypeError, match=r"a list of Observables, but is Moments; pass observ"):
        sg.run_ensemble(OU, x0, TIMES, trajectories=2, observables=sg.Moments())
    nameless = type("Nameless", (sg.Observable,), {"result": lambda self, total, times: total})
    with pytest.raises(TypeError, match='Nameless has no name; say name = "…" in its class'):
        sg.run_ensemble(OU, x0, TIMES, trajectories=2, observables=[nameless()])
    nameless.name = "n"
    with pytest.raises(NotImplementedError, match="Nameless has neither measure nor begin"):
        sg.run_ensemble(OU, x0, TIMES, trajectories=2, observables=[nameless()])
    flow = sg.ItoProcess(lambda x: -x, 0.0)
    with pytest.raises(ValueError, match="'first_passage' sees every step, and TorchDiffEq"):
        sg.run_ensemble(
            flow, x0, TIMES, trajectories=2, solver=sg.TorchDiffEq("dopri5"),
            observables=[sg.FirstPassage(above=1.0)],
        )  # fmt: skip
    with pytest.raises(ValueError, match="'histogram' is of coordinate 1, but an event of shape"):
        sg.run_ensemble(
            OU, x0, TIMES, trajectories=2, observables=[sg.Histogram(0, 1, coordinate=1)]
        )


def test_an_error_of_ones_own_says_where(small_blocks):
    def fails(states, times):
        if states.shape[1] > 5:
            raise RuntimeError("mine")
        return {"x": states.sum()}

    with pytest.raises(RuntimeError, match="mine") as caught:
        sg.run_ensemble(
            OU, torch.zeros(1, 1), TIMES, trajectories=5000, observables=[_Odd(fails)],
            progress=False,
        )  # fmt: skip
    assert "in observable 'odd'" in caught.value.__notes__


def test_steps_are_seen_in_order_between_the_times(small_blocks):
    seen = []

    class Steps(Accumulator):
        def see(self, k, x):
            seen.append((f"time {k}", x.clone()))

        def step(self, i, before, after):
            seen.append((f"step {i}", before.clone(), after.clone()))

        def partial(self):
            return {"none": torch.zeros(())}

    class Watching(sg.Observable):
        name, every_step = "watching", True

        def begin(self, block):
            return Steps()

        def result(self, total, times):
            return len(seen)

    euler, milstein = sg.EulerMaruyama, lambda substeps: sg.TorchSDE("milstein", substeps=substeps)
    for make in (euler, milstein):
        seen.clear()
        x0 = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
        sg.run_ensemble(
            OU,
            x0,
            TIMES,
            trajectories=7,
            solver=make(substeps=2),
            observables=[Watching()],
            rng=1,
            progress=False,
        )
        # the door showed it two and three trajectories at three times and in one step
        door, told = seen[:8], seen[8:]
        assert [name for name, *_ in door] == 2 * ["time 0", "step 0", "time 1", "time 2"]
        names = [name for name, *_ in told]
        assert names == ["time 0", "step 0", "step 1", "time 1", "step 2", "step 3", "time 2"]
        path = sg.simulate(OU, x0, torch.linspace(0, 1, 5), solver=make(substeps=1), rng=1).states
        states = dict(zip(names, (rest for _, *rest in told), strict=True))
        for k in range(3):
            torch.testing.assert_close(states[f"time {k}"][0], path[2 * k], rtol=1e-14, atol=0)
        for i in range(4):
            for found, expected in zip(states[f"step {i}"], path[i : i + 2], strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_what_is_gathered_in_steps_alone(small_blocks):
    """Heat Σ (Y − X)·(F(X) + F(Y))/2 of an OU process: what it gathers begins with a step."""

    class Heat(sg.Observable):
        name, every_step = "heat", True

        def begin(self, block: sg.Block):
            return Gathering()

        def result(self, total: sg.Partial, times):
            return total["q"] / total["n"]

    class Gathering(sg.Accumulator):
        def __init__(self):
            self.n, self.q = 0, None

        def see(self, k, x):
            self.n = len(x)

        def step(self, i, before, after):
            q = -((after - before) * (after + before) / 2).sum()
            self.q = q if self.q is None else self.q + q

        def partial(self):
            return {"q": self.q, "n": torch.tensor(self.n)}

    x0 = torch.linspace(0, 1, 3000, dtype=torch.float64)[:, None]
    run = sg.run_ensemble(
        OU, x0, TIMES, trajectories=3000, solver=sg.EulerMaruyama(substeps=3),
        observables=[Heat(), sg.Moments()], rng=1, progress=False,
    )  # fmt: skip
    moments = run.observables["moments"]
    square = moments.mean**2 + moments.variance * (2999 / 3000)
    expected = (square[0] - square[-1])[0] / 2  # the sum telescopes
    torch.testing.assert_close(run.observables["heat"], expected, rtol=1e-12, atol=1e-14)


def test_pairs_of_observables_do_not_disturb_each_other(small_blocks):
    one, two = sg.FirstPassage(above=0.5), sg.FirstPassage(above=0.5, name="again")
    alone, beside = (
        sg.run_ensemble(
            OU, torch.zeros(1, 1), TIMES, trajectories=4000, solver=sg.EulerMaruyama(substeps=20),
            observables=wanted, rng=3, progress=False,
        ).observables["first_passage"].waiting
        for wanted in ([one], [sg.Moments(), two, one])
    )  # fmt: skip
    assert torch.equal(alone, beside)
