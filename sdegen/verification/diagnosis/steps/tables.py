"""Steps of DDIM, and ancestral ones, by tables of α and σ that are shifted, rounded or mixed up.

With a table ᾱ_i of squared signals at the nodes a step of DDIM with η is

    x' = α_s (x − σ_t ε)/α_t + √(σ_s² − w²) ε + w z,     w = η σ_s √(1 − (α_t σ_s/α_s σ_t)²)

whose ε is what a network gives at the node itself. What stands at the end of a shifted table is
whatever it was padded with, so that such a step is not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.shapes import State
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import STANDS_STILL, TWICE, Alternative, of_law
from sdegen.verification.innovations.law import Innovations, StepLaw
from sdegen.verification.innovations.update_law import of_diagonal

_KIND = "schedule"
_HALVES = ((torch.float16, "half precision"), (torch.bfloat16, "bfloat16"))


@dataclass(frozen=True)
class Levels:
    """α and σ that a step starts with, and those that it ends with, each of shape (steps,).

    They are NaN where a table does not say.
    """

    a: Tensor
    s: Tensor
    b: Tensor
    r: Tensor

    @classmethod
    def of(cls, alpha: Tensor, sigma: Tensor) -> Levels:
        """Return those of a table at the nodes, shape (steps + 1,)."""
        return cls(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])


class TableLaw(StepLaw):
    """The law of DDIM by other tables.

    Args:
        belief: A `ReverseSDE`, by DDIM.
        levels: Of each step.
        score_too: Whether the score is one of noise with the table's σ, not an ε by the true one.
    """

    name = "DDIM of a table"
    alike = False

    def __init__(self, belief: Belief, levels: Levels, *, score_too: bool = False) -> None:
        sde = belief.sde
        assert isinstance(sde, ReverseSDE)
        self._sde, self._times, self._levels = sde, belief.states.times, levels
        self._score_too = score_too
        kernel = sde.forward.kernel
        assert kernel is not None
        self._sigma = kernel.sigma(self._times).double()

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        q = self._levels
        a, s, b, r = (float(v[i]) for v in (q.a, q.s, q.b, q.r))
        if not (a > 0 and s > 0 and b > 0 and r >= 0):
            left = torch.zeros(len(x), x[0].numel(), dtype=torch.float64)
            none = torch.zeros(len(x), dtype=torch.bool)
            return Innovations(left, left, none.double(), judged=none)
        true = s if self._score_too else float(self._sigma[i])
        eps = -true * self._sde.score(x, self._times[i]).double()
        ratio = (a * r) / (b * s)  # of the ratios of noise to signal
        width = self._sde.eta * r * max(0.0, 1 - ratio * ratio) ** 0.5
        mean = b * (x.double() - s * eps) / a + max(0.0, r * r - width * width) ** 0.5 * eps
        left = (after.double() - mean).flatten(1)
        moved = (mean - x.double()).flatten(1)
        return of_diagonal(torch.full_like(left, width), left, moved, x)


def table_alternatives(belief: Belief) -> list[Alternative]:
    """Return mistakes of the tables of DDIM; none of other solvers."""
    sde, solver = belief.sde, belief.solver
    if not isinstance(sde, ReverseSDE) or not isinstance(solver, DDIM) or solver.substeps != 1:
        return []
    kernel = sde.forward.kernel
    if kernel is None or sde.eta > 1:
        return []
    alpha = kernel.alpha(belief.states.times).double()
    sigma = kernel.sigma(belief.states.times).double()
    if alpha.ndim != 1 or bool((alpha <= 0).any()):
        return []
    preserving = bool(((alpha.square() + sigma.square() - 1).abs() < 1e-6).all())
    table = [*_shifted(alpha, sigma), *_rounded(alpha, sigma, preserving=preserving)]
    words = "α and σ of the tables ran the wrong way"
    table.append(("time reversed", words, Levels.of(alpha.flip(0), sigma.flip(0))))
    if preserving:
        words = "α and σ of a step were those of that step alone, α for ᾱ"
        one = shifted(alpha, -1)
        step = torch.minimum(one / alpha, alpha / one)
        table.append(("α for ᾱ", words, Levels.of(step, (1 - step.square()).sqrt())))
        words = "σ were √(1 − α), not √(1 − ᾱ)"
        table.append(("α for ᾱ", words, Levels.of(alpha, (1 - step.square()).sqrt())))
    return [
        of_law(
            name,
            _KIND,
            words + more,
            _law(belief, levels, score_too=too),
            excused=(STANDS_STILL, TWICE),
        )
        for name, words, levels in table
        for more, too in ((", beside the ε of the step itself", False), ("", True))
    ]


Row = tuple[str, str, Levels]


def shifted(values: Tensor, by: int) -> Tensor:
    """Return a table whose entry i is that of i + by, NaN where there is none."""
    result = torch.full_like(values, float("nan"))
    if by > 0:
        result[:-by] = values[by:]
    else:
        result[-by:] = values[:by]
    return result


def _shifted(alpha: Tensor, sigma: Tensor) -> list[Row]:
    """Return tables of the neighbouring step, whole or of one end of a step alone."""
    own = Levels.of(alpha, sigma)
    rows = []
    for by, which in ((1, "next"), (-1, "previous")):
        other = Levels.of(shifted(alpha, by), shifted(sigma, by))
        name = "time off by one"
        rows += [
            (name, f"α and σ of a step were those of the {which} one", other),
            (name, f"α and σ that a step starts with were those of the {which} node",
             Levels(other.a, other.s, own.b, own.r)),
            (name, f"α and σ that a step ends with were those of the {which} node",
             Levels(own.a, own.s, other.b, other.r)),
        ]  # fmt: skip
    # a table that is read one entry later ends with the data, or with whatever it was padded
    later = [torch.cat([v[1:], v.new_tensor([end])]) for v, end in ((alpha, 1.0), (sigma, 0.0))]
    other = Levels.of(*later)
    words = "α and σ {} were those of the next node, 1 and 0 at the end"
    rows += [
        (name, words.format("of a step"), other),
        (name, words.format("that a step ends with"), Levels(own.a, own.s, other.b, other.r)),
    ]
    return rows


def _rounded(alpha: Tensor, sigma: Tensor, *, preserving: bool) -> list[Row]:
    """Return tables that are rounded, of ᾱ, of α and σ, or of σ/α."""
    rows = []
    for dtype, word in _HALVES:
        a, s = alpha.to(dtype).double(), sigma.to(dtype).double()
        name = "schedule rounded"
        rows.append((name, f"α and σ were rounded to {word}", Levels.of(a, s)))
        if preserving:
            bar = alpha.square().to(dtype).double()
            of_bar = Levels.of(bar.sqrt(), (1 - bar).clamp(min=0).sqrt())
            rows.append((name, f"ᾱ were rounded to {word}", of_bar))
        else:
            ratio = (sigma / alpha).to(dtype).double()
            of_ratio = Levels.of(alpha, alpha * ratio)
            rows.append((name, f"σ/α were rounded to {word}", of_ratio))
    return rows


def _law(belief: Belief, levels: Levels, *, score_too: bool) -> Callable[[], StepLaw]:
    return lambda: TableLaw(belief, levels, score_too=score_too)
