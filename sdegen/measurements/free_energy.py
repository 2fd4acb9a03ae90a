"""Free energy from work: Jarzynski's equality, and Crooks' relation with Bennett's estimate.

Trajectories start at rest in U(x, 0), and work W is done on each by a protocol. Whatever its
speed,

    ⟨e^{−W/T}⟩ = e^{−ΔF/T}                                    (Jarzynski)
    P_F(W)/P_B(−W) = e^{(W − ΔF)/T}                           (Crooks)

P_B is the law of the work of the protocol run backwards, from rest at its other end. ⟨W⟩ ≥ ΔF,
and what is more is dissipated.

**From one side.** −T log of the mean of e^{−W/T}. Works far below the mean carry it, and with
few of them it is wrong by more than its error says: where (Σ w)²/Σ w² of the weights w =
e^{−W/T} is below 100, a warning says so.

**From both sides.** Given a work W of either kind, the chance that it is of the forward one is
a logistic function of it, by Crooks' relation:

    P(F | W) = 1/(1 + (n_B/n_F) e^{−(W − ΔF)/T})

so that ΔF of the largest likelihood, which is Bennett's, and with a free slope of W/T the slope
too, come from all works without bins. With information I = Σ P(1 − P) the variance of ΔF/T is
1/I − 1/n_F − 1/n_B; n_F and n_B are given, not drawn.

Reference:
    Jarzynski 1997, Physical Review Letters 78, 2690, eq. (2); Crooks 1999, Physical Review E 60,
    2721, eq. (2); Shirts, Bair, Hooker and Pande 2003, Physical Review Letters 91, 140601,
    eqs. (7) to (10).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.errors import AccuracyWarning
from sdegen.core.requests import as_numbers, first_true
from sdegen.core.shown import Labelled
from sdegen.observables.functional_estimate import FunctionalEstimate

_ENOUGH = 100.0  # works of equal weight, for an average and its error to be trusted
_PAIRS = 25.0  # information, where the works of both sides overlap
_COUNTS = 10  # of each kind in a bin, for the ratio of two counts to be near a normal one
_ITERATIONS = 50


@dataclass(frozen=True)
class FreeEnergy(Labelled):
    """A difference of free energy from the work of one protocol.

    Args:
        difference: ΔF, in units of the work.
        error: Its standard error.
        dissipated: ⟨W⟩ − ΔF.
        effective: As many works of equal weight would tell as much.
        count: Works.
    """

    difference: float
    error: float
    dissipated: float
    effective: float
    count: int


@dataclass(frozen=True, eq=False)
class CrooksEstimate(Labelled):
    """A difference of free energy from the work of a protocol in both directions.

    Args:
        difference: ΔF by Bennett's acceptance ratio, in units of the work.
        error: Its standard error.
        slope: Of log P_F(W)/P_B(−W) against W/T, from all works; 1 by Crooks' relation. NaN where
            the works of both sides lie apart.
        slope_error: Its standard error.
        overlap: 1 where both laws are one, near 0 where they lie apart.
        work: W of each bin with 10 works of each kind or more: the mean of both means, shape (K,).
        log_ratio: log P_F(W)/P_B(−W) there, shape (K,).
        log_ratio_error: Its standard error, shape (K,).
    """

    difference: float
    error: float
    slope: float
    slope_error: float
    overlap: float
    work: Float[Tensor, " K"]
    log_ratio: Float[Tensor, " K"]
    log_ratio_error: Float[Tensor, " K"]


def jarzynski(work: object, temperature: float | None = None) -> FreeEnergy:
    """Return ΔF = −T log ⟨e^{−W/T}⟩ with its error.

    Warns (AccuracyWarning) if few works carry the average: if (Σ w)²/Σ w² < 100.

    Args:
        work: W of each trajectory, shape (n,); or the result of Work(temperature=T) of an
            ensemble, whose last time is taken.
        temperature: T > 0, in units of the work; that of the result, unless said.

    Raises:
        TypeError: If work is neither.
        ValueError: If a number is not finite, there are fewer than two, or temperatures differ.

    Example:
        >>> round(sg.jarzynski([1.0] * 200, temperature=0.5).difference, 12)
        1.0
    """
    if isinstance(work, FunctionalEstimate):
        T, count, mean = _temperature_of(work, temperature), work.count, float(work.mean[-1])
        assert work.log_exponential is not None
        assert work.log_exponential_error is not None
        assert work.effective is not None
        log, error = float(work.log_exponential[-1]), float(work.log_exponential_error[-1])
        effective = float(work.effective[-1])
    else:
        W, T = _works("work", work), _checked(temperature)
        count, mean = len(W), float(W.mean())
        exponent = -W / T
        log = float(exponent.logsumexp(0)) - math.log(count)
        effective = math.exp(2 * float(exponent.logsumexp(0)) - float((2 * exponent).logsumexp(0)))
        error = math.sqrt(max(count / effective - 1, 0.0) / (count - 1))
    difference = -T * log
    if effective < _ENOUGH:
        warnings.warn(
            f"⟨e^{{−W/T}}⟩ of {count} works rests on {effective:.3g} of them, as "
            f"{mean - difference:.3g} is dissipated: take more trajectories, a slower protocol, "
            "or crooks(forward, backward, temperature).",
            AccuracyWarning,
            stacklevel=2,
        )
    return FreeEnergy(difference, T * error, mean - difference, effective, count)


def crooks(
    forward: object, backward: object, temperature: float, *, bins: int = 40
) -> CrooksEstimate:
    """Return ΔF by Bennett's acceptance ratio, and the ratio of both laws of work.

        P_F(W)/P_B(−W) = e^{(W − ΔF)/T}

    Warns (AccuracyWarning) if the works of both sides hardly overlap.

    Args:
        forward: W of trajectories of the protocol, shape (n,).
        backward: W of those of the protocol run backwards, from rest at its end, shape (m,).
        temperature: T > 0, in units of the work.
        bins: Between the least and the largest work that both sides have.

    Raises:
        TypeError: If works are no numbers.
        ValueError: If a number is not finite, or there are fewer than two.

    Example:
        >>> z = torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)  # N(0, 1)
        >>> both = sg.crooks(1.5 + z, -0.5 + z, temperature=1.0)  # ΔF + ½, −ΔF + ½ of ΔF = 1
        >>> f"{both.difference:.3f}, slope {both.slope:.2f}"
        '1.000, slope 1.00'
    """
    W, R, T = _works("forward", forward), -_works("backward", backward), _checked(temperature)
    check_count("bins", bins)
    n, m = len(W), len(R)
    middle = float(W.mean() + R.mean()) / 2
    u = torch.cat([W - middle, R - middle]) / T
    prior = math.log(n / m)

    def chance(offset: float, slope: float = 1.0) -> Tensor:
        """Return P(F | W) of all works, with log odds offset + slope u."""
        return torch.sigmoid(offset + slope * u + prior)

    reach = float(u.abs().max()) + abs(prior) + 50.0
    offset = float(brentq(lambda a: float(chance(a).sum()) - n, -reach, reach, xtol=1e-13))
    p = chance(offset)
    information = float((p * (1 - p)).sum())
    overlap = min(information * (1 / n + 1 / m), 1.0)
    error = T * math.sqrt((1 - overlap) / information) if information > 0 else math.inf
    if information < _PAIRS:
        warnings.warn(
            f"the works of both sides hardly overlap: ΔF rests on {information:.2g} of "
            f"{n} + {m}; take a slower protocol, or more trajectories.",
            AccuracyWarning,
            stacklevel=2,
        )
    slope, slope_error = _slope(u, torch.arange(n + m) < n, offset + prior)
    ratio = _ratios(W, R, bins)
    return CrooksEstimate(middle - T * offset, error, slope, slope_error, overlap, *ratio)


def _slope(u: Tensor, is_forward: Tensor, start: float) -> tuple[float, float]:
    """Return the slope of the log odds of a logistic regression, and its error, by Newton."""
    beta = torch.tensor([start, 1.0], dtype=torch.float64)
    design = torch.stack([torch.ones_like(u), u], 1)
    y = is_forward.double()
    for _ in range(_ITERATIONS):
        p = torch.sigmoid(design @ beta)
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        gradient = design.T @ (y - p)
        if not float(torch.linalg.cond(hessian)) < 1e14:
            break  # the two sides lie apart
        step = torch.linalg.solve(hessian, gradient)
        beta = beta + step
        if float(step.abs().max()) < 1e-10:
            return float(beta[1]), math.sqrt(float(torch.linalg.inv(hessian)[1, 1]))
    return math.nan, math.inf


def _ratios(W: Tensor, R: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return W, log P_F(W)/P_B(−W) and its error in bins that both sides have fallen into.

    At the mean of both means, not in the middle of a bin, the ratio of the counts is that of the
    densities up to the fourth power of the width.
    """
    low, high = max(float(W.min()), float(R.min())), min(float(W.max()), float(R.max()))
    if not low < high:
        none = torch.empty(0, dtype=torch.float64)
        return none, none, none
    counts, means = [], []
    for values in (W, R):
        inside = values[(values >= low) & (values <= high)]
        place = ((inside - low) * (bins / (high - low))).long().clamp(max=bins - 1)
        counts.append(torch.bincount(place, minlength=bins).double())
        means.append(torch.bincount(place, inside, minlength=bins) / counts[-1])
    kept = (counts[0] >= _COUNTS) & (counts[1] >= _COUNTS)
    a, b = (count[kept] for count in counts)
    log_ratio = (a / len(W)).log() - (b / len(R)).log()
    error = (1 / a - 1 / len(W) + 1 / b - 1 / len(R)).sqrt()
    return (means[0] + means[1])[kept] / 2, log_ratio, error


def _works(name: str, works: object) -> Tensor:
    """Return works, shape (n,), on the CPU; refuse other numbers."""
    W = as_numbers(name, works, expected="the work of each trajectory, shape (n,)").detach().cpu()
    if W.ndim != 1 or len(W) < 2:
        raise ValueError(
            f"{name} must have the work of each of two trajectories or more, shape (n,), but has "
            f"shape {tuple(W.shape)}; pass functionals['work'][-1] of a Trajectory."
        )
    bad = first_true(~W.isfinite())
    if bad is not None:
        raise ValueError(
            f"{name} must be finite, but {name}[{bad}] = {float(W[bad])}; leave out trajectories "
            "that were lost, work[~path.nonfinite]."
        )
    return W


def _checked(temperature: float | None) -> float:
    """Return T, or refuse it."""
    if temperature is None:
        raise ValueError("temperature is missing: pass that of the bath, in units of the work.")
    check_positive("temperature", temperature)
    return float(temperature)


def _temperature_of(work: FunctionalEstimate, temperature: float | None) -> float:
    """Return the temperature of an ensemble's average; refuse another one."""
    T = work.temperature
    if T is None or temperature not in (None, T):
        has = "no average of e^{−W/T}" if T is None else f"that at T = {T:g}"
        raise ValueError(
            f"the result of the ensemble has {has}; pass Work(temperature="
            f"{'T' if temperature is None else f'{temperature:g}'}) to run_ensemble."
        )
    return T
