"""What the usual checks would have seen of the faults of the zoo.

python -m benchmarks.zoo_usual_checks

Three checks of states alone, each at a false alarm of 1e-3 for all coordinates together:

- mean and variance of each coordinate are those of a right run, by Welch's and Levene's tests;
- the law of each coordinate is that of a right run, by Kolmogorov and Smirnov's test;
- a kernel Stein test, with the score of the law that the states should have: the inverse
  multiquadric (1 + |x − y|²/ℓ²)^{−½}, ℓ the median distance, p-values by a wild bootstrap.

The right run is the clean twin, four times as large. States are compared that are nearly
independent: the last ones, and of a run at rest also others that are far enough apart in time. The
Stein test is for those whose score is known, and of 500 states at most.

Reference:
    Liu, Lee and Jordan 2016, arXiv:1602.03253, for the statistic; Gorham and Mackey 2017,
    arXiv:1703.01717, for the kernel.
"""

import argparse

import numpy as np
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from benchmarks.zoo_faults import ALL, FAULTS, SIZE

ALPHA, MOST, DRAWS = 1e-3, 500, 2_000
LARGER = 4  # the right run, as a multiple of the size
CHECKS = ("mean and variance", "Kolmogorov-Smirnov", "kernel Stein")


def nearly_independent(planted):
    """Return states that are nearly independent, shape (n, numbers)."""
    states = planted.states.numpy()
    states = states.reshape(*states.shape[:2], -1)
    if planted.gap is None or planted.gap >= len(states):
        return states[-1]
    return np.concatenate(list(states[planted.gap :: planted.gap]))


def of_all(p_values):
    """Return the p-value of the least of several, which are of one coordinate each."""
    p_values = np.nan_to_num(np.asarray(p_values), nan=1.0)
    return float(min(1.0, p_values.min() * p_values.size))


def moments(x, right):
    """Return the p-value of equal means and variances."""
    if np.array_equal(np.ptp(x, 0), np.zeros(x.shape[1])):
        return 0.0  # states that are all the same
    means = stats.ttest_ind(x, right, equal_var=False).pvalue
    spreads = [stats.levene(a, b).pvalue for a, b in zip(x.T, right.T, strict=True)]
    return of_all([*means, *spreads])


def laws(x, right):
    """Return the p-value of equal laws of each coordinate."""
    return of_all([stats.ks_2samp(a, b).pvalue for a, b in zip(x.T, right.T, strict=True)])


def stein(x, score, rng):
    """Return the p-value of states being from the law with this score; None if it has none."""
    if score is None:
        return None
    x = x[rng.permutation(len(x))[:MOST]]
    s, squares = score(x), squareform(pdist(x, "sqeuclidean"))
    n, d = x.shape
    length2 = float(np.median(squares[np.triu_indices(n, 1)]))
    if length2 == 0:
        return 0.0  # states that are all the same
    k = (1 + squares / length2) ** -0.5
    # s(x)·∇_y k + s(y)·∇_x k, with ∇_y k = (x − y) k³/ℓ²
    along = (s * x).sum(1)[:, None] - s @ x.T
    h = (s @ s.T) * k + (along + along.T) * k**3 / length2
    h += d * k**3 / length2 - 3 * squares * k**5 / length2**2
    signs = rng.choice([-1.0, 1.0], (DRAWS, n))
    drawn = ((signs @ h) * signs).sum(1)
    return float((1 + (drawn >= h.sum()).sum()) / (1 + DRAWS))


def usual(planted, right, rng):
    """Return the p-value of each of the `CHECKS` of a run, None where one cannot be made."""
    x, y = nearly_independent(planted), nearly_independent(right)
    with np.errstate(all="ignore"):
        p_values = (moments(x, y), laws(x, y), stein(x, planted.score, rng))
    return dict(zip(CHECKS, p_values, strict=True))


def seen(fault, dim, seed=0, size=SIZE, *, faulty=True):
    """Return the p-values of the usual checks of a planted fault, or of its clean twin."""
    rng = np.random.default_rng([seed, dim])
    planted = fault.plant(dim, rng, size, faulty=faulty)
    right = fault.plant(dim, rng, LARGER * size, faulty=False)
    return usual(planted, right, rng)


def main(quick=False):
    """Print the table; a quick run has the first dimension of each fault, and is small."""
    rows = []
    for fault in FAULTS:
        for dim in fault.dims[:1] if quick else fault.dims:
            p_values = seen(fault, dim, size=SIZE // 20 if quick else SIZE)
            rows.append({"fault": fault.name, "dimension": dim, **p_values})
            marks = (
                "–" if p is None else f"{p:.1e}{' *' * (p < ALPHA)}" for p in p_values.values()
            )
            print(f"{fault.name:28s} {dim:4d}  " + "  ".join(f"{mark:>10s}" for mark in marks))
    for dim in ALL:
        of_dim = [row for row in rows if row["dimension"] == dim]
        counts = (sum(row[c] is not None and row[c] < ALPHA for row in of_dim) for c in CHECKS)
        caught = ", ".join(f"{c} {n}" for c, n in zip(CHECKS, counts, strict=True))
        print(f"dimension {dim}: of {len(of_dim)} faults {caught}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
