"""Exponential multistep methods: the score at the last nodes, continued as a polynomial.

One evaluation a step. The linear part of the dynamics and their noise are solved exactly, what the
network says is continued from the nodes behind by a polynomial in λ = log(α/σ) (`exponential.py`
has the integrals). All coefficients are computed before the first step; a step is one update,

    x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score_{i−j}] + S_i z

| here, order of the method         | known as                                                   |
| --------------------------------- | ---------------------------------------------------------- |
| ExponentialAdams 1, any prediction| DDIM (η = 0), DPM-Solver-1                                 |
| 1, "x0", η = 1                    | DDPM's ancestral step, DDIM η = 1, SDE-DPM-Solver++ 1      |
| 2, "eps"                          | DEIS (tAB in log ρ), DPM-Solver 2M ("heun")                |
| 3, 4, "eps"                       | DEIS of these orders                                       |
| 2, "x0"                           | DPM-Solver++ 2M as diffusers has it with "heun"            |
| 2, "x0", rule="midpoint"          | DPM-Solver++ 2M of diffusers ("midpoint") and k-diffusion  |
| 3, "x0"                           | DPM-Solver++ 3M; diffusers and k-diffusion halve its second|
|                                   | difference once too often: measured, theirs are of order 2 |
| 2, "x0", η = 1                    | SDE-DPM-Solver++ 2M ("heun", or "midpoint" with that rule) |
| 3, "x0", η = 1                    | SDE-DPM-Solver++ 3M, but for the same difference           |
| any, η between                    | SEEDS and the η family; k-diffusion's eta is η²            |
| ExponentialAdamsMoulton 2 … 4     | UniPC's idea, with the coefficients of Adams               |
| AngularAdams (`angular_adams.py`) | IPNDM's idea, with uneven steps and a corrector            |
| KarrasHeun (`karras.py`)          | EDM's Heun, sample_heun, HeunDiscrete; with Churn(S_churn, |
|                                   | …) EDM's stochastic sampler                                |
| DPM2 (`karras.py`)                | DPM-Solver-2, sample_dpm_2, KDPM2; η = 1: its ancestral    |
| Heun (`solvers/heun.py`)          | the trapezoidal rule in t, not EDM's                       |
| DDIM (`ddim.py`)                  | as order 1 above; with any chain, such as DDPM's           |
| EulerMaruyama (`solvers/euler.py`)| Euler in t of the reverse SDE, Song et al.'s predictor     |
| `predictor_corrector.py`          | Song et al.'s PC sampler, Langevin steps as corrector      |
| MetropolisCorrector               | the same, made exact where a density is known              |
| AdaptiveHeun (`adaptive.py`)      | "Gotta Go Fast", with an error test for each trajectory    |
| FinalDenoising                    | the last step to σ = 0, which others append                |

**Order.** A method of k nodes has order k if it starts well enough. A first step of DDIM, wrong by
O(h²), is good enough for order 2. For order 3 the second step first corrects the state it begins
from, with the evaluation it makes there anyway. For order 4 it evaluates once more after the
correction, and the third step corrects once again: N ≥ 2 steps then cost N + 1 evaluations.
With noise the weak order is 1 for one node and 2 for more: the noise of a step is carried on, its
covariance with the score at the end of the step is not.

One step, two times, is DDIM for every one of them at η = 0. At η = 1 one step differs by
prediction: x0 is DDPM's, which ends at the mean of the data, "eps" ends far beyond them.

**"eps" with few steps is dangerous.** As t → t_max the state is nearly all ε, and what is not,
α x0, is small; x0 = (x − σ ε)/α divides an error of the continued ε by α. On paths whose α
goes (nearly) to 0, order 3 and 4 of "eps" leave everything behind on a grid of large first steps:
of the mixture in the plane of benchmarks/problems.py (states of size 1.4), on `timesteps.power`
in 10 steps, order 4 ends 2·10⁵ off under RectifiedFlow and 1.4·10⁵ under VP with a cosine β,
where order 4 of "v" ends within 0.01. With η = 1 order 2 is enough for it: under VP(0.1, 20) on
`timesteps.log_snr` states of size 300 after 1 step, 200 after 5. Take "v" or "x0"; "eps" with
equal steps in λ, from 10 steps on, is where it is at home.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdegen.core.kernel import Kernel
from sdegen.core.noise import Noise
from sdegen.core.requests import is_word
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import FixedStep
from sdegen.core.update import Number, diffuse, to_floats, update
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.exponential import Coefficients, Integrals, Prediction, Rule

__all__ = ["ExponentialAdams", "ExponentialAdamsMoulton", "LinearMultistep"]

_MOST = 4
# words that diffusers has for them
_ELSEWHERE = {
    "epsilon": "eps",
    "noise": "eps",
    "sample": "x0",
    "data_prediction": "x0",
    "v_prediction": "v",
    "velocity": "v",
    "heun": "exact",
}
_Term = tuple[int, int, Number]  # nodes back, 0 for a state or 1 for a score, coefficient
_SAME = 1e-6  # relative difference of α and σ that rounding explains


class Multistep(DiffusionSolver, FixedStep):
    """A linear multistep method on states and scores, whose coefficients are known beforehand."""

    takes_walls: ClassVar[bool] = False  # what was behind a wall is no history

    @abstractmethod
    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return the coefficients of a run.

        Args:
            sde: `ReverseSDE` of a Gaussian path.
            nodes: Shape (steps + 1,), float64; gradients flow through them.

        Returns:
            One row for each step.
        """

    def begin(self, sde: SDE, nodes: Tensor) -> _Memory:
        """Return the coefficients of all steps, and no states or scores yet."""
        score = self.reversal(sde).along(nodes)
        return _Memory(_Table.of(self.coefficients(sde, nodes)), score, ())

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Memory
    ) -> tuple[State, _Memory]:
        """Take one update from the last states and scores, which the memory has."""
        table, score, seen = memory
        seen = ((x, score(x, i)), *seen[: table.remembered - 1])
        if i == 1 and table.second is not None:
            better = _plus(x.clone(), table.second, seen)
            seen = ((better, score(better, i)), *seen[1:])
        known = _plus(table.decay[i] * x, table.rows[i], seen)
        after = update(known, seen[0][1], table.newest[i])
        z = None if noise is None else noise.normal()
        return diffuse(after, z, table.noise[i]), _Memory(table, score, seen)


class _Table(NamedTuple):
    """Coefficients as the steps take them: numbers, one row for each step.

    Attributes:
        decay: Factor of x_i, with that of the newest state where it is x_i itself.
        rows: The other terms of each step.
        newest: Factor of the newest score.
        noise: Width of the noise.
        second: Terms of the correction where node 1 is evaluated twice.
        remembered: How many states and scores a step looks at.
    """

    decay: list[Any]
    rows: list[list[_Term]]
    newest: list[Any]
    noise: list[Any]
    second: list[_Term] | None
    remembered: int

    @classmethod
    def of(cls, table: Coefficients) -> _Table:
        """Return the coefficients in numbers."""
        own, newest = table.states[:, 0], to_floats(table.scores[:, 0])
        # one product for x_i, unless what was evaluated at node i is another, corrected state
        corrected = torch.arange(len(own)) == (-1 if table.again is None else 1)
        decay = to_floats(table.decay + torch.where(corrected, 0.0, own))
        apart = torch.where(corrected, own, 0.0)[:, None]
        rows = _terms(
            torch.cat([apart, table.states[:, 1:]], 1),
            torch.cat([torch.zeros_like(apart), table.scores[:, 1:]], 1),
        )
        second = None if table.again is None else _terms(*table.again[:, None])[0]
        remembered = table.states.shape[1]
        return cls(decay, rows, newest, to_floats(table.noise), second, remembered)


class _Memory(NamedTuple):
    """What a multistep method hands on: coefficients, the score at nodes, and what was seen.

    Attributes:
        table: Coefficients of all steps.
        score: score(x, i) at node i.
        seen: States and their scores at the last nodes, the newest first.
    """

    table: _Table
    score: ScoreAt
    seen: tuple[tuple[State, State], ...]


@dataclass(frozen=True)
class ExponentialAdams(Multistep):
    """Exponential Adams–Bashforth: x0, ε or v continued by a polynomial through the last nodes.

    Args:
        order: 1 … 4 nodes, and the order on a flow; on noise the weak order is min(order, 2).
        prediction: What is continued, "eps", "x0" or "v"; the score may come from any network.
            "eps" of order 3 and 4, and with noise, ends far off in few steps: see the module.
        rule: "exact" integrates the polynomial; "midpoint" takes its value in the middle of the
            step, in λ: DPM-Solver++ 2M as others have it, for orders 1 and 2.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If order is not an int.
        ValueError: If it is not 1 … 4, or a word is misspelt or does not go with the order.

    Reference:
        Zhang and Chen 2023, eq. (15), arXiv:2204.13902; Lu et al. 2022, algorithm 2,
        arXiv:2211.01095. The table above says which member is whose.
    """

    order: int = 2
    prediction: Prediction = "x0"
    rule: Rule = "exact"
    substeps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.order, 1)
        _check_word("prediction", self.prediction, get_args(Prediction))
        _check_word("rule", self.rule, get_args(Rule))
        if self.rule == "midpoint" and self.order > 2:
            raise ValueError(
                f"rule='midpoint' is of order 2 and goes with order 1 or 2, but order is "
                f"{self.order}; take rule='exact'."
            )

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return one row for each step; see `Multistep.coefficients`."""
        inner = self.reversal(sde)
        integrals = Integrals(inner.kernel, inner.eta, nodes, self.prediction)
        return _table(integrals, self.order, self.order, self.rule)


@dataclass(frozen=True)
class ExponentialAdamsMoulton(Multistep):
    """Exponential Adams–Moulton as corrector, Adams–Bashforth of one order less as predictor.

    The step that begins at a node evaluates there anyway. Before it goes on it corrects the state
    with this evaluation as one more node of the polynomial: still one evaluation a step.

    Args:
        order: 2 … 4, the order on a flow; on noise the weak order is 2.
        prediction: What is continued, "eps", "x0" or "v"; of "eps" beware, as above.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If order is not an int.
        ValueError: If it is not 2 … 4, or prediction is misspelt.

    Reference:
        Zhao et al. 2023 (UniPC), section 3.2, arXiv:2302.04867, for the idea.
    """

    order: int = 3
    prediction: Prediction = "x0"
    substeps: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.order, 2)
        _check_word("prediction", self.prediction, get_args(Prediction))

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return one row for each step; see `Multistep.coefficients`."""
        inner = self.reversal(sde)
        integrals = Integrals(inner.kernel, inner.eta, nodes, self.prediction)
        return _table(integrals, self.order - 1, self.order, "exact")


@dataclass(frozen=True, eq=False)
class LinearMultistep(Multistep):
    """A method with coefficients of your own, for one grid: from a calibration, say.

    Args:
        grid: Times that they belong to, shape (steps + 1,), float64.
        table: One row for each step.
        kernel: The α and σ that they were made for: `sde.kernel` of the forward SDE.
        eta: The η that they were made for.

    Raises:
        ValueError: If there is not one row for each step.
    """

    grid: Tensor
    table: Coefficients
    kernel: Kernel
    eta: float = 0.0
    substeps: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.table.decay) != len(self.grid) - 1:
            raise ValueError(
                f"the table has {len(self.table.decay)} rows, but the grid {len(self.grid) - 1} "
                "steps: give one row for each step."
            )

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse another grid, another α or σ on it, and another η.

        Raises:
            ValueError: Naming the first time that differs.
        """
        super().check(sde, nodes)
        own = self.grid.detach().to(nodes)
        if nodes.shape != own.shape:
            raise ValueError(
                f"this method was made for {len(own) - 1} steps, but times have {len(nodes) - 1}; "
                "pass times=solver.grid."
            )
        off = (nodes - own).abs() > 1e-12 * own.abs().max()
        if bool(off.any()):
            i = int(off.nonzero()[0])
            raise ValueError(
                f"this method was made for another grid: times[{i}] = {float(nodes[i]):g}, but "
                f"its own is {float(own[i]):g}; pass times=solver.grid."
            )
        inner = self.reversal(sde)
        kernel, eta = inner.kernel, inner.eta
        if eta != self.eta:
            raise ValueError(
                f"this method was made for eta = {self.eta:g}, but the dynamics have {eta:g}; "
                f"pass ReverseSDE(sde, score, eta={self.eta!r})."
            )
        for symbol, here, there in (
            ("α", kernel.alpha(own), self.kernel.alpha(own)),
            ("σ", kernel.sigma(own), self.kernel.sigma(own)),
        ):
            other = ~((here - there).abs() <= _SAME * there.abs())
            if bool(other.any()):
                i = int(other.nonzero()[0])
                raise ValueError(
                    f"this method was made for another SDE: at times[{i}] = {float(own[i]):g} its "
                    f"{symbol} is {float(there[i]):.6g}, but here it is {float(here[i]):.6g}."
                )

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return the table."""
        return self.table


def _table(integrals: Integrals, ahead: int, order: int, rule: Rule) -> Coefficients:
    """Return the coefficients of a predictor of `ahead` nodes, which makes a method of `order`.

    Where order > ahead, every step from node order − 1 on begins with a correction. Before that,
    nodes 1 … order − 2 are corrected all the way from node 0, so that the start is as good as the
    order asks. A correction moves the state by multiples of what is evaluated at it, and the step
    carries it on with A: it is but a part of the step's own coefficients.
    """
    n = integrals.steps
    i = torch.arange(n)
    seen = (i[:, None] - torch.arange(order)).clamp(min=0)
    predict = _by_nodes_seen(integrals, ahead, order, rule)
    correct = [torch.zeros_like(predict[:, 0]) for _ in range(n)]
    before = predict[:, 0, :0]  # X and E of the corrected state at node k − 1, from node 0
    for k in range(1, min(order - 1, n)):
        decay = integrals.decay(torch.tensor(k - 1), torch.tensor(k))
        stepped = predict[:, k - 1, :k] + decay * pad(before, (0, k - before.shape[1]))
        first, here = torch.tensor([[0], [k]])
        before = integrals.weights(first, here, torch.arange(k, -1, -1)[None])[:, 0]
        correct[k] = pad(before - pad(stepped, (1, 0)), (0, order - k - 1))
    if order > ahead and n >= order:
        late = torch.arange(order - 1, n)
        implicit = integrals.weights(late - 1, late, late[:, None] - torch.arange(order))
        explicit = pad(predict[:, late - 1, : order - 1], (1, 0))
        correct[order - 1 :] = (implicit - explicit).unbind(1)
    corrections, decay = torch.stack(correct, 1), integrals.decay(i, i + 1)
    states, scores = integrals.on_states_and_scores(predict + decay[:, None] * corrections, seen)
    again = None
    if order == _MOST and n > 1:
        again = torch.stack(integrals.on_states_and_scores(corrections[:, 1], seen[1]))
    return Coefficients(decay, states, scores, integrals.noise(), again)


def _by_nodes_seen(integrals: Integrals, most: int, width: int, rule: Rule) -> Tensor:
    """Return X and E of explicit steps, each through as many nodes as there are behind it."""
    i, parts = torch.arange(integrals.steps), []
    for k in range(1, most + 1):
        rows = i[k - 1 :] if k == most else i[k - 1 : k]
        part = integrals.weights(rows, rows + 1, rows[:, None] - torch.arange(k), rule)
        parts.append(pad(part, (0, width - k)))
    return torch.cat(parts, 1)


def _terms(states: Tensor, scores: Tensor) -> list[list[_Term]]:
    """Return (nodes back, 0 for state or 1 for score, coefficient) of each step without zeros."""
    both = torch.stack([states, scores], 2)
    # a coefficient that is zero but free has a gradient
    used = torch.stack([(part != 0) | part.requires_grad for part in (states, scores)], 2).tolist()
    return [
        [
            (j, kind, row[j][kind])
            for j, needed in enumerate(which)
            for kind in (0, 1)
            if needed[kind]
        ]
        for row, which in zip(to_floats(both), used, strict=True)
    ]


def _plus(total: State, terms: list[_Term], seen: Sequence[tuple[State, State]]) -> State:
    """Add multiples of the past states and scores that exist to `total`, in place."""
    for j, kind, coefficient in terms:
        if j < len(seen):
            part = seen[j][kind]
            if isinstance(coefficient, float):
                total.add_(part, alpha=coefficient)
            else:
                total = torch.addcmul(total, part, coefficient)
    return total


def _check_order(order: object, least: int) -> None:
    """Raise if there is no method of this order."""
    if isinstance(order, bool) or not isinstance(order, int):
        raise TypeError(f"order must be an int, but is {type(order).__name__}.")
    if not least <= order <= _MOST:
        raise ValueError(f"order must be {least} … {_MOST}, but is {order}.")


def _check_word(name: str, word: object, words: tuple[str, ...]) -> None:
    """Raise with the nearest of `words` if this is not one of them."""
    if is_word(word, words):
        return
    known = _ELSEWHERE | {one: one for one in words}
    near = difflib.get_close_matches(str(word).lower(), known, n=1, cutoff=0.3)
    hint = f"; did you mean {known[near[0]]!r}?" if near and known[near[0]] in words else "."
    listed = ", ".join(map(repr, words))
    raise ValueError(f"{name} must be one of {listed}, but is {word!r}{hint}")
