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

import difflib
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdegen.core.accuracy import Orders
from sdegen.core.requests import is_word
from sdegen.core.sde import SDE
from sdegen.diffusion.samplers.adams_coefficients import Coefficients, Integrals, Prediction, Rule
from sdegen.diffusion.samplers.linear_multistep import Multistep, check_method_order

_HIGHEST_ORDER = 4
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


@dataclass(frozen=True)
class ExponentialAdams(Multistep):
    """Exponential Adams–Bashforth: x0, ε or v continued by a polynomial through the last nodes.

        x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score(x_{i−j}, t_{i−j})] + S_i z

    The linear part and the noise are solved exactly; the last nodes j are `order` of them. States
    and scores have shape (batch, *event).

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

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> for times in (path.time_grid(2), path.time_grid(8)):  # towards 10 √(2/10) = 4.472
        ...     end = sg.simulate(flow, x_T, times, solver=sg.ExponentialAdams()).final
        ...     print(f"{end.item():.3f}")
        4.391
        4.470
    """

    order: int = 2
    prediction: Prediction = "x0"
    rule: Rule = "exact"
    substeps: int = field(default=1, kw_only=True)

    takes_modes: ClassVar[bool] = True
    when: ClassVar[str] = "Samples of a score from 10 to 50 evaluations, with noise or without."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method_order(self.order, 1, _HIGHEST_ORDER)
        _check_word("prediction", self.prediction, get_args(Prediction))
        _check_word("rule", self.rule, get_args(Rule))
        if self.rule == "midpoint" and self.order > 2:
            raise ValueError(
                f"rule='midpoint' is of order 2 and goes with order 1 or 2, but order is "
                f"{self.order}; take rule='exact'."
            )

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """One in a step; order 4 takes one more in the second."""
        return 1 if self.order < _HIGHEST_ORDER else None

    @property
    def orders(self) -> Orders:  # type: ignore[override]
        """That of its nodes on a flow, and at most 2 with noise."""
        return Orders(self.order, additive=(min(self.order, 2), None), multiplicative=None)

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return one row for each step; see `Multistep.coefficients`."""
        return _table(self, sde, nodes, self.order, self.rule)


@dataclass(frozen=True)
class ExponentialAdamsMoulton(Multistep):
    """Exponential Adams–Moulton as corrector, Adams–Bashforth of one order less as predictor.

        x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score(x_{i−j}, t_{i−j})] + S_i z

    The step that begins at a node evaluates there anyway. Before it goes on it corrects the state
    with this evaluation as one more node of the polynomial: still one evaluation a
    step. States and scores have shape (batch, *event).

    Args:
        order: 2 … 4, the order on a flow; on noise the weak order is 2.
        prediction: What is continued, "eps", "x0" or "v"; of "eps" beware, as above.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If order is not an int.
        ValueError: If it is not 2 … 4, or prediction is misspelt.

    Reference:
        Zhao et al. 2023 (UniPC), section 3.2, arXiv:2302.04867, for the idea.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> solver = sg.ExponentialAdamsMoulton(order=3)
        >>> end = sg.simulate(flow, x_T, path.time_grid(8), solver=solver).final
        >>> f"{end.item():.2f}"  # 10 √(2/10)
        '4.47'
    """

    order: int = 3
    prediction: Prediction = "x0"
    substeps: int = field(default=1, kw_only=True)

    takes_modes: ClassVar[bool] = True
    when: ClassVar[str] = "Samples of a score from 5 to 20 evaluations, with noise or without."

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method_order(self.order, 2, _HIGHEST_ORDER)
        _check_word("prediction", self.prediction, get_args(Prediction))

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """One in a step; order 4 takes one more in the second."""
        return 1 if self.order < _HIGHEST_ORDER else None

    @property
    def orders(self) -> Orders:  # type: ignore[override]
        """As declared on a flow, and 2 with noise."""
        return Orders(self.order, additive=(2, None), multiplicative=None)

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return one row for each step; see `Multistep.coefficients`."""
        return _table(self, sde, nodes, self.order - 1, "exact")


def _table(
    method: ExponentialAdams | ExponentialAdamsMoulton,
    sde: SDE,
    nodes: Tensor,
    ahead: int,
    rule: Rule,
) -> Coefficients:
    """Return the coefficients of a predictor of `ahead` nodes, which makes a method of its order.

    Where order > ahead, every step from node order − 1 on begins with a correction. Before that,
    nodes 1 … order − 2 are corrected all the way from node 0, so that the start is as good as the
    order asks. A correction moves the state by multiples of what is evaluated at it, and the step
    carries it on with A: it is but a part of the step's own coefficients.
    """
    inner, kernel = method.reversal(sde)
    integrals = Integrals(kernel, inner.eta, nodes, method.prediction)
    n, order = integrals.steps, method.order
    i = torch.arange(n)
    seen = (i[:, None] - torch.arange(order)).clamp(min=0)
    predict = _by_nodes_seen(integrals, ahead, order, rule)
    correct = [torch.zeros_like(predict[:, 0]) for _ in range(n)]
    before = predict[:, 0, :0]  # X and E of the corrected state at node k − 1, from node 0
    for k in range(1, min(order - 1, n)):
        decay = integrals.decay(torch.tensor(k - 1), torch.tensor(k))
        stepped = predict[:, k - 1, :k] + decay * pad(before, (0, k - before.shape[1]))
        first, end = torch.tensor([[0], [k]])
        before = integrals.weights(first, end, torch.arange(k, -1, -1)[None])[:, 0]
        correct[k] = pad(before - pad(stepped, (1, 0)), (0, order - k - 1))
    if order > ahead and n >= order:
        late = torch.arange(order - 1, n)
        implicit = integrals.weights(late - 1, late, late[:, None] - torch.arange(order))
        explicit = pad(predict[:, late - 1, : order - 1], (1, 0))
        correct[order - 1 :] = (implicit - explicit).unbind(1)
    corrections, decay = torch.stack(correct, 1), integrals.decay(i, i + 1)
    states, scores = integrals.on_states_and_scores(predict + decay[:, None] * corrections, seen)
    again = None
    if order == _HIGHEST_ORDER and n > 1:
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


def _check_word(name: str, word: object, words: tuple[str, ...]) -> None:
    """Raise with the nearest of `words` if this is not one of them."""
    if is_word(word, words):
        return
    known = _ELSEWHERE | {one: one for one in words}
    near = difflib.get_close_matches(str(word).lower(), known, n=1, cutoff=0.3)
    hint = f"; did you mean {known[near[0]]!r}?" if near and known[near[0]] in words else "."
    listed = ", ".join(map(repr, words))
    raise ValueError(f"{name} must be one of {listed}, but is {word!r}{hint}")
