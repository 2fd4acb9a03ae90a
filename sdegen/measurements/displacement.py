"""Mean-squared displacements of stored paths, and the diffusion coefficient.

Where MSD(τ) has become straight,

    MSD(τ) = 2 d D τ + c

and D is fitted by least squares with fixed weights 1/τ², since the errors of the points grow as τ.
The fit is a combination of the points, a·MSD, the same for every trajectory: its error √(aᵀC a),
with C the covariance of the points between lags, is that of the mean over trajectories of the
coefficient that each would give, and holds however lags are correlated. No weights are taken from
C, which a few trajectories do not tell well enough. A MSD that bends in the window is warned of:
the slopes of its two halves, whose difference is one more such combination, are compared.

The offset c is what a ballistic start or an error of localisation leaves; for Brownian motion it
is 0, and D without it has a smaller error.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from sdegen.core.checks import check_flag, check_not_negative, check_positive
from sdegen.core.errors import AccuracyWarning
from sdegen.core.requests import as_number, check_kind
from sdegen.core.shapes import Times
from sdegen.core.shown import Labelled
from sdegen.measurements.path import in_parts, measured_path
from sdegen.observables.displacement import Displacements, MeanSquaredDisplacement

_BENT = 1e-5  # chance that a straight line is warned of
_ROUNDING = 1e-9


def mean_squared_displacement(
    path: object,
    times: Times | None = None,
    *,
    lags: Sequence[float] | None = None,
    origins: str = "all",
    coordinates: Sequence[int] | None = None,
    particles: bool = False,
    parts: int | None = None,
) -> Displacements:
    """Return how far trajectories have gone after each lag.

        MSD(τ) = ⟨Σ_i (x_i(s + τ) − x_i(s))²⟩

    Args:
        path: A `Trajectory`, taken on the line where it is periodic and at its positions in a
            phase space, or states of shape (T, batch, *event).
        times: Of the states of an array, shape (T,).
        lags: As `MeanSquaredDisplacement` takes them.
        origins: Likewise.
        coordinates: Likewise.
        particles: Likewise.
        parts: Into how many parts of equal length each trajectory is cut, for the errors; None
            cuts a single one into 16 and leaves several whole. Lags are then shorter than a part.

    Returns:
        Displacements, whose errors are the spread between trajectories or parts.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one does not fit the path.

    Example:
        >>> walk = torch.tensor([0.0, 1.0, 3.0, 6.0])[:, None]
        >>> sg.mean_squared_displacement(walk, [0, 1, 2, 3], lags=[1.0, 2.0]).total
        tensor([ 4.6667, 17.0000], dtype=torch.float64)
    """
    observable = MeanSquaredDisplacement(
        lags,  # type: ignore[arg-type]  # it takes a list
        origins,
        coordinates,  # type: ignore[arg-type]
        particles,
    )
    measured = measured_path(path, times, unwrapped=True, positions=True)
    cut, states = in_parts(measured, parts)
    total = observable.measure(states, cut)
    return replace(observable.result(total, cut), lost=measured.lost)


@dataclass(frozen=True)
class DiffusionEstimate(Labelled):
    """A diffusion coefficient.

    Attributes:
        coefficient: D, in units of x²/time, the mean over coordinates.
        error: Its standard error.
        offset: c of MSD = 2 d D τ + c, 0 where none was fitted.
        low: First lag of the fit.
        high: Last.
        count: Trajectories, or parts, that the error comes from.
    """

    coefficient: float
    error: float
    offset: float
    low: float
    high: float
    count: int


def diffusion_coefficient(
    msd: Displacements,
    *,
    low: float = 0.0,
    high: float = math.inf,
    drift: bool = False,
    offset: bool = True,
) -> DiffusionEstimate:
    """Return the diffusion coefficient, from the slope of the mean-squared displacement.

        MSD(τ) = 2 d D τ + c,     at lags of shape (K,)

    Args:
        msd: What `MeanSquaredDisplacement` or `mean_squared_displacement` returned.
        low: From which lag on the line is fitted.
        high: Up to which.
        drift: Whether the mean displacement is taken off first; else a drift counts as diffusion.
        offset: Whether MSD(0) = c is fitted, or 0.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are too few lags in the window, or no errors.

    Warns:
        AccuracyWarning: If the MSD bends within the window.

    Example:
        >>> walk, x0 = sg.BrownianMotion(2.0), torch.zeros(500, 1)
        >>> walk = sg.simulate(walk, x0, torch.arange(33.0), rng=0)
        >>> found = sg.diffusion_coefficient(sg.mean_squared_displacement(walk))
        >>> f"{found.coefficient:.1f}"  # g²/2
        '2.0'
    """
    check_kind("msd", msd, Displacements, "what mean_squared_displacement(…) returns")
    check_not_negative("low", low)
    if as_number("high", high) != math.inf:
        check_positive("high", high)
    check_flag("drift", drift)
    check_flag("offset", offset)
    values, covariance = msd.total, msd.covariance
    if drift:
        values, covariance = msd.spread, msd.spread_covariance
    if covariance is None:
        raise ValueError(
            f"the covariance of {len(msd.lags)} lags was not kept, as they and {msd.dimensions} "
            "coordinates are more than 512 numbers; give fewer lags, or fewer coordinates."
        )
    if msd.count < 2:
        raise ValueError(
            f"there are no errors, as the displacements are those of {msd.count} trajectory; run "
            "more, or pass parts=16 to mean_squared_displacement."
        )
    inside = (msd.lags >= low) & (msd.lags <= high)
    fewest = 4 if offset else 2  # two halves with a slope each
    if int(inside.sum()) < fewest:
        raise ValueError(
            f"{int(inside.sum())} of {len(msd.lags)} lags are in [{low:g}, {high:g}], and a fit "
            f"needs {fewest}; give other lags, of {float(msd.lags[0]):g} … "
            f"{float(msd.lags[-1]):g}, or a wider window."
        )
    tau, values = msd.lags[inside], values[inside]
    covariance = covariance[inside][:, inside]
    weights = _weights(tau, offset) / (2 * msd.dimensions)
    _check_straight(tau, values, covariance, offset, msd)
    return DiffusionEstimate(
        coefficient=float(weights[0] @ values),
        error=float((weights[0] @ covariance @ weights[0]).sqrt()),
        offset=float(weights[1] @ values) * 2 * msd.dimensions if offset else 0.0,
        low=float(tau[0]),
        high=float(tau[-1]),
        count=msd.count,
    )


def _weights(tau: Tensor, offset: bool) -> Tensor:
    """Return a, shape (1 or 2, K): slope, and offset, of a least-squares line are a @ MSD."""
    columns = torch.stack([tau, torch.ones_like(tau)] if offset else [tau], 1)
    inverse: Tensor = torch.linalg.pinv(columns / tau[:, None])
    return inverse / tau


def _check_straight(
    tau: Tensor, values: Tensor, covariance: Tensor, offset: bool, msd: Displacements
) -> None:
    """Warn of a MSD whose slopes in the two halves of the window differ."""
    half = len(tau) // 2
    slopes = torch.zeros(2, len(tau), dtype=tau.dtype)
    slopes[0, :half] = _weights(tau[:half], offset)[0]
    slopes[1, half:] = _weights(tau[half:], offset)[0]
    first, second = ((slopes @ values) / (2 * msd.dimensions)).tolist()
    difference = slopes[1] - slopes[0]
    gap = float(difference @ values)
    error = float((difference @ covariance @ difference).clamp(min=0).sqrt())
    chance = -float(stats.t.ppf(_BENT / 2, msd.count - 1)) * error
    if abs(gap) <= chance + _ROUNDING * float((slopes.abs() @ values).sum()):
        return
    warnings.warn(
        f"the MSD is no straight line from τ = {float(tau[0]):g} to {float(tau[-1]):g}: its slope "
        f"is that of D = {first:.4g} up to {float(tau[half - 1]):g} and of {second:.4g} beyond; "
        "give low= and high= where it is straight, and drift=True where there is one.",
        AccuracyWarning,
        stacklevel=3,
    )
