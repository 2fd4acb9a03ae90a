"""Identities of the generator, L = f·∇ + ½ Tr(G Gᵀ ∇∇), which a step breaks by its bias alone.

    at rest      ⟨L φ⟩ = 0
    on the way   d⟨φ⟩/dt = ⟨L φ⟩

for each φ that obeys the condition of the ends. Of stored states the second is read between two
frames, [φ(x_{k+1}) − φ(x_k)]/Δ − ½ [L φ(x_{k+1}) + L φ(x_k)], which for the process itself is 0
up to Δ². A simulation with a step is off by what its step does, O(dt): no mistake, but a number
worth knowing.

Reference:
    Dynkin 1965, Markov Processes I, section 5.1; Gorham and Mackey 2015, NeurIPS 28, for averages
    of L φ as a measure of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.verification.battery.finding import of_smallest
from sdegen.verification.identities.averages import Average, averages_of, spread_columns
from sdegen.verification.identities.bias import Bias, rows_of
from sdegen.verification.identities.ends import Ends, Functions, functions_of
from sdegen.verification.identities.excerpt import Excerpt, field_of

_APART = 1e-3  # the chance of states at rest to be taken for others
_EARLY = (4, 32)  # a quarter of the run, and the first of 32 parts
_FEWEST = 16  # frames by which rest is told
_MOST = 16  # coordinates by which it is told


def generator_rows(
    sde: SDE,
    excerpt: Excerpt,
    ends: Ends,
    labels: Sequence[str],
    *,
    at_rest: bool,
    autonomous: bool,
    without_squares: bool,
) -> list[Bias]:
    """Return the rows of ⟨L φ⟩ = 0, or of d⟨φ⟩/dt = ⟨L φ⟩.

    Args:
        sde: What moves.
        excerpt: Frames; one after the other unless at rest.
        ends: Of the coordinates.
        labels: What they are called.
        at_rest: Whether the law of the states does not change.
        autonomous: Whether f and g do not depend on t.
        without_squares: Whether x² of free coordinates is left out, as where the virial says it.
    """
    x, (f, squares) = excerpt.flat, field_of(sde, excerpt, autonomous)
    steps = excerpt.times.diff()[:, None, None]
    rows: list[Bias] = []
    for phi in functions_of(ends):
        if at_rest and without_squares and phi.power == 2 and bool(ends.free[phi.columns].all()):
            continue
        moved, spread = _parts(phi, x, f, squares)
        both = moved + spread
        scale = float((moved.abs() + spread.abs()).mean())
        if at_rest:
            name, series = f"the mean of L {phi.name}", both
        else:
            name = f"d/dt of the mean of {phi.name} less the mean of L {phi.name}"
            series = phi.value(x).diff(dim=0) / steps - 0.5 * (both[1:] + both[:-1])
        if scale == 0:
            continue
        named = [labels[int(c)] for c in phi.columns]
        rows += rows_of(name, series, 0.0, scale, named)
    return rows


def _parts(phi: Functions, x: Tensor, f: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Return f φ′ and ½ (G Gᵀ)_ii φ″, shape (F, batch, columns)."""
    slope, bend = phi.slopes(x)
    some = squares if squares.shape[-1] == 1 else squares[..., phi.columns]
    return f[..., phi.columns] * slope, 0.5 * some * bend


def seems_at_rest(sde: SDE, excerpt: Excerpt, ends: Ends) -> bool:
    """Return whether the beginning of a run, two parts of it, has the averages of its last half.

    They are those of φ, of f·x and of |f|², which see tails. States that rest are taken for others
    once in a thousand times. So are states of which that cannot be told, since they are few.

    Reference:
        Geweke 1992, in Bayesian Statistics 4 (Oxford), p. 169.
    """
    x = excerpt.flat
    frames = len(x)
    if frames < _FEWEST:
        return False
    f, _ = field_of(sde, excerpt, autonomous=True)
    series = [(f * x).mean(-1, keepdim=True), f.square().mean(-1, keepdim=True)]
    for phi in functions_of(ends):
        columns = spread_columns(len(phi.columns), _MOST)
        some = Functions(
            phi.name, phi.columns[columns], phi.power, phi.origin[columns], phi.wave[columns],
            phi.phase,
        )  # fmt: skip
        series.append(some.value(x))
    least, count = 1.0, 0
    for values in series:
        late = averages_of(values[frames // 2 :])
        for share in _EARLY:
            early = averages_of(values[: max(1, frames // share)])
            for a, b in zip(early, late, strict=True):
                if not _is_known(a) or not _is_known(b):
                    if share == min(_EARLY):
                        return False
                    continue  # so short a part of few trajectories tells nothing
                least, count = min(least, _apart(a, b)), count + 1
    return count > 0 and of_smallest(least, count) > _APART


def _apart(a: Average, b: Average) -> float:
    """Return the chance of averages of one law to differ by so much."""
    error = math.hypot(a.standard_error, b.standard_error)
    return Bias("", a.mean, b.mean, error, min(a.freedom, b.freedom), 1.0).p_value


def _is_known(average: Average) -> bool:
    """Return whether the error of an average is known."""
    return math.isfinite(average.standard_error) and not average.remark
