"""Composition: scores made of scores.

A score is a function (x, t) → ∇ log p_t(x), so that what is done to densities is done to it:

    product     ∏ p_i^{w_i}        Σ w_i s_i                       experts that must all agree
    tempered    p^β                β s                             colder for β > 1
    mixture     Σ w_i p_i          Σ r_i s_i,  r_i = w_i p_i/Σ     experts of which one holds
    guided      p(x) p(c | x)^{1+w}   (1 + w) s_c − w s            a condition, overstated

Each is a `ScoreFn` again, for `ReverseSDE`, for a chain, or for further composition.

**What is exact.** A mixture is: noising is linear in the density, so that the mixture of noised
laws is the noised mixture. It needs the densities too, or at least their ratios at every t.
Products, powers and guidance are not: at t_min the sum of scores is (but for t_min) that of the
product, at larger t it is the score of the product of the *noised* laws,

    ∏ (p_i * N_t)   is not   (∏ p_i) * N_t

and the reverse SDE, which follows the second, drifts off. For two Gaussian experts N(−1, ½) and
N(1, 1) under VP(0.1, 20) it ends, with ever finer steps, at −0.23 ± 0.48 where the product is
−0.33 ± 0.58. Langevin steps at every t (`PredictorCorrector`), which need
the score of t alone, bring the state to the product of the noised laws and at the end to the
product.

**Where it starts.** At t_max every p_i is N(0, prior_std² I), and their product has the standard
deviation prior_std/√(Σ w_i): scale `sde.prior(…)` by `prior_factor(weights)`.

Reference:
    Du et al. 2023, sections 3 and 4, arXiv:2302.11552; Liu et al. 2022, arXiv:2206.01714; Ho and
    Salimans 2022, eq. (6), arXiv:2207.12598.

Example:
    >>> both = sg.composition.product([lambda x, t: -1 - x, lambda x, t: 1 - x])  # N(∓1, 1)
    >>> both(torch.tensor([[0.5]]), torch.tensor(0.1))  # of N(0, ½): −2 x
    tensor([[-1.]])
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import AccuracyWarning
from sdegen.core.requests import as_number, as_numbers, check_function, check_kind
from sdegen.core.scores import score_of_rows, trajectories_of
from sdegen.core.shapes import ScoreFn, State, Time, expand
from sdegen.core.signature import check_order
from sdegen.core.tolerances import IN_FLOAT32

__all__ = ["Product", "guided", "mixture", "prior_factor", "product", "tempered", "warn_collapse"]

LogDensity = Callable[[State, Time], Tensor]


@dataclass(frozen=True, eq=False)
class Product:
    """Return the score of a product of experts, as `product` does, at states (batch, *event).

        s(x, t) = Σ_i w_i s_i(x, t)

    Attributes:
        experts: s_i.
        weights: w_i.

    Example:
        >>> both = sg.composition.product([lambda x, t: -x, lambda x, t: 3 - x], [1.0, 0.5])
        >>> both.exponent, both(torch.tensor([[1.0]]), torch.tensor(0.5)).item()  # −1 + ½ · 2
        (1.5, 0.0)
    """

    experts: tuple[ScoreFn, ...]
    weights: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Return Σ w_i: at t_max this is the score of the prior to the power of it."""
        parts = zip(self.weights, self.experts, strict=True)
        return sum(w * (s.exponent if isinstance(s, Product) else 1.0) for w, s in parts)

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one sample, where the first expert knows it."""
        shape: tuple[int, ...] | None = getattr(self.experts[0], "event_shape", None)
        return shape

    @property
    def trajectories(self) -> int | None:
        """How many trajectories an expert holds labels or conditions for; None: any number."""
        held = (trajectories_of(s) for s in self.experts)
        return next((n for n in held if n is not None), None)

    def of_rows(self, rows: slice | Tensor) -> Product:
        """Return the product of some trajectories, with their labels alone."""
        return Product(tuple(score_of_rows(s, rows) for s in self.experts), self.weights)

    @property
    def x0(self) -> ScoreFn | None:
        """Σ_i w_i E_i[x0 | x_t], as a function; None unless all tell it and Σ w = 1."""
        told = [getattr(s, "x0", None) for s in self.experts]
        known = tuple(one for one in told if one is not None)
        if len(known) < len(told) or abs(self.exponent - 1) > IN_FLOAT32:
            return None
        return Product(known, self.weights).__call__

    def __call__(self, x: State, t: Time) -> State:
        """Return Σ_i w_i s_i(x, t), same shape as x."""
        weighed = (w * s(x, t) for w, s in zip(self.weights, self.experts, strict=True))
        return reduce(torch.add, weighed)


def product(scores: Sequence[ScoreFn], weights: Sequence[float] | None = None) -> ScoreFn:
    """Return the score of a product of experts, at states of shape (batch, *event).

        s(x, t) = Σ_i w_i s_i(x, t)

    It is that of the product of the *noised* experts, which is not the noised product: the
    probability flow of it (η = 0) does not end at the product, and collapses where Σ w_i > 1. Of
    N(−0.5, 0.5²) and N(1, 0.8²) the flow ends at a standard deviation of 0.003, the reverse SDE
    (η = 1) at 0.355, and Langevin steps, `PredictorCorrector` or `MetropolisCorrector`, at 0.428:
    0.424 is right. `simulate` and `log_likelihood` warn where such a flow is run.

    Args:
        scores: s_i, at least one.
        weights: w_i, the exponents; 1 each unless said. Negative ones take an expert away.

    Returns:
        The score, a `Product`; each call asks every expert once. Begin from
        `prior_factor(weights)` times the prior.

    Raises:
        TypeError: If a score is not callable.
        ValueError: If there is none, or the weights are not as many and finite.

    Example:
        >>> both = sg.composition.product([lambda x, t: -x, lambda x, t: 3 - x])
        >>> both(torch.tensor([[1.0]]), torch.tensor(0.5))
        tensor([[1.]])
    """
    experts = _scores(scores)
    w = _weights([1.0] * len(experts) if weights is None else weights, len(experts))
    return Product(tuple(experts), tuple(w))


def warn_collapse(score: object, stacklevel: int = 3) -> None:
    """Warn where the probability flow of a product of scores is run: a `Product` with Σ_i w_i ≠ 1.

    Args:
        score: Of the flow; nothing is said unless it is a `Product` with Σ w_i ≠ 1.
        stacklevel: As `warnings.warn` has it.

    Example:
        >>> import warnings
        >>> both = sg.composition.product([lambda x, t: -x, lambda x, t: 3 - x])
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     sg.composition.warn_collapse(both)
        >>> [word.category.__name__ for word in told]
        ['AccuracyWarning']
    """
    if isinstance(score, Product) and abs(score.exponent - 1) > IN_FLOAT32:
        warnings.warn(
            f"the probability flow (eta = 0) of a product of scores with Σ w = "
            f"{score.exponent:g} is not the flow of the product, and "
            f"{'collapses' if score.exponent > 1 else 'spreads'}: take Langevin steps, "
            "PredictorCorrector(corrector_steps=…), or eta=1.0 for less of the error.",
            AccuracyWarning,
            stacklevel=stacklevel,
        )


def prior_factor(weights: Sequence[float]) -> float:
    """Return by what the product of priors is narrower than the prior.

        factor = 1/√(Σ w_i)

    Args:
        weights: w_i, one for each expert, shape (experts,).

    Raises:
        ValueError: If Σ w_i ≤ 0: such a product has no prior.

    Example:
        >>> round(sg.composition.prior_factor([1.0, 1.0]), 4)
        0.7071
    """
    total = float(as_numbers("weights", weights, expected="a list of numbers").detach().sum())
    if not 0 < total < math.inf:
        raise ValueError(
            f"the weights must have a positive sum, but it is {total:g}: the product of the "
            "priors cannot be normalised."
        )
    return 1 / math.sqrt(total)


def tempered(score: ScoreFn, beta: float) -> ScoreFn:
    """Return the score of a power of a density, at states of shape (batch, *event).

        ∇ log p_t^β = β s(x, t)

    Args:
        score: s.
        beta: Inverse temperature, > 0; above 1 modes are narrowed and the highest one favoured.
            In `ReverseSDE` without a corrector it is only the slope that is raised.

    Raises:
        ValueError: If beta is not finite and > 0.

    Example:
        >>> sg.composition.tempered(lambda x, t: -x, 2.0)(torch.ones(1, 1), torch.tensor(0.5))
        tensor([[-2.]])
    """
    check_positive("beta", beta)
    return product([score], [beta])


def mixture(
    scores: Sequence[ScoreFn],
    log_densities: Sequence[LogDensity],
    weights: Sequence[float] | None = None,
) -> ScoreFn:
    """Return the score of a mixture Σ_i w_i p_i, exact at every t: Σ_i r_i s_i, shares r_i(x, t).

    r_i(x, t) = w_i p_i(x, t)/Σ_j w_j p_j(x, t)

    Args:
        scores: s_i = ∇ log p_{t,i}.
        log_densities: log p_{t,i}(x), functions of (x, t) that return shape (batch,). A constant
            that all share may be missing; one that differs changes the weights. A network's score
            alone does not tell it.
        weights: w_i > 0; equal unless said.

    Returns:
        The score.

    Raises:
        TypeError: If a score or a density is not callable.
        ValueError: If they are not as many, or the weights not positive.

    Example:
        >>> normal = lambda m: (lambda x, t: m - x, lambda x, t: -0.5 * (x - m).square().sum(1))
        >>> scores, logs = zip(normal(-2.0), normal(2.0))
        >>> sg.composition.mixture(scores, logs)(torch.zeros(1, 1), torch.tensor(0.5))
        tensor([[0.]])
    """
    experts = _scores(scores)
    check_kind(
        "log_densities", log_densities, (list, tuple), "a list of functions (x, t) -> log p_t(x)"
    )
    for i, log_density in enumerate(log_densities):
        check_function(f"log_densities[{i}]", log_density, "a function (x, t) -> log p_t(x)")
    if len(log_densities) != len(experts):
        raise ValueError(
            f"every score needs the log-density it is the gradient of, but there are "
            f"{len(experts)} scores and {len(log_densities)} log_densities."
        )
    w = _weights([1.0] * len(experts) if weights is None else weights, len(experts))
    if min(w) <= 0:
        raise ValueError(f"the weights of a mixture must be > 0, but are {w}.")

    def score(x: State, t: Time) -> State:
        logs = [math.log(v) + p(x, t) for v, p in zip(w, log_densities, strict=True)]
        shares = torch.softmax(torch.stack(logs), 0)
        weighed = (expand(share, x) * s(x, t) for share, s in zip(shares, experts, strict=True))
        return reduce(torch.add, weighed)

    return score


def guided(conditional: ScoreFn, unconditional: ScoreFn, guidance: float) -> ScoreFn:
    """Return the score of classifier-free guidance, at states of shape (batch, *event).

        s_w(x, t) = (1 + w) s(x, t | c) − w s(x, t)

    The score of p_t(x) p_t(c | x)^{1+w}: w = 0 is the condition as learned, w = −1 none, w > 0
    overstates it, which trades variety for typical samples. Two evaluations of a network a call,
    though `nfe` counts one.

    Args:
        conditional: s(x, t | c), such as `model.conditional(label).score`.
        unconditional: s(x, t), such as `model.score`.
        guidance: w ≥ −1.

    Raises:
        TypeError: If a score is not callable.
        ValueError: If guidance is not finite or < −1.

    Reference:
        Ho and Salimans 2022, eq. (6), arXiv:2207.12598.

    Example:
        >>> at_one, at_nought = lambda x, t: 1 - x, lambda x, t: -x
        >>> sg.composition.guided(at_one, at_nought, 2.0)(torch.zeros(1, 1), torch.tensor(0.5))
        tensor([[3.]])
    """
    guidance = as_number("guidance", guidance)
    if not -1 <= guidance < math.inf:
        raise ValueError(
            f"guidance must be finite and ≥ −1, but is {guidance:g}; 0 is the condition as "
            "learned."
        )
    return product([conditional, unconditional], [1 + guidance, -guidance])


def _scores(scores: Iterable[ScoreFn]) -> list[ScoreFn]:
    """At least one function."""
    if callable(scores) or not isinstance(scores, Iterable) or not (scores := list(scores)):
        raise ValueError("scores must be a list of at least one function (x, t) -> ∇ log p_t(x).")
    for i, score in enumerate(scores):
        check_function(f"scores[{i}]", score, "a function (x, t) -> ∇ log p_t(x)")
        check_order(score, f"scores[{i}]")
    return scores


def _weights(weights: Sequence[float], count: int) -> list[float]:
    """As many finite numbers as there are scores."""
    w = as_numbers("weights", weights, expected="a list of numbers, one for each score")
    if w.shape != (count,) or not bool(w.isfinite().all()):
        raise ValueError(
            f"weights must be {count} finite numbers, one for each score, not {w.tolist()}."
        )
    if w.requires_grad:
        raise TypeError(
            "weights is a tensor that requires grad, and numbers would lose its gradient; write "
            "lambda x, t: w[0] * s_0(x, t) + w[1] * s_1(x, t)."
        )
    numbers: list[float] = w.tolist()
    return numbers
