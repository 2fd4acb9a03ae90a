"""Free energies: exact Gaussian works, errors against their spread, and warnings."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64
DF, SIGMA, T = 0.7, 1.5, 0.8


def works(n, rng, sigma=SIGMA):
    """Forward and backward works of Gaussian laws that Crooks' relation allows: one variance."""
    draw, dissipated = np.random.default_rng(rng), sigma**2 / (2 * T)
    return (
        torch.from_numpy(draw.normal(DF + dissipated, sigma, n)),
        torch.from_numpy(draw.normal(-DF + dissipated, sigma, n)),
    )


def test_jarzynski_and_crooks_find_the_free_energy_of_gaussian_works():
    """Both within 4.42 errors (1e-5), Bennett's error the smaller; the slope 1, the line right."""
    forward, backward = works(100_000, 0)
    one, both = sg.jarzynski(forward, T), sg.crooks(forward, backward, T)
    assert abs(one.difference - DF) < 4.42 * one.error
    assert abs(both.difference - DF) < 4.42 * both.error < 4.42 * one.error / 2
    assert one.dissipated == pytest.approx(SIGMA**2 / (2 * T), abs=4.42 * SIGMA / 300)
    assert (one.count, one.effective > 100) == (100_000, True)
    assert abs(both.slope - 1) < 4.42 * both.slope_error < 0.05
    z = (both.log_ratio - (both.work - DF) / T) / both.log_ratio_error
    assert len(z) > 20
    assert float(z.abs().max()) < 5.3  # 40 bins at 1e-7
    assert float(z.square().mean()) < 2.2  # of chi² of 25 and more, 1e-5
    # with W turned round, or another temperature, none of this holds
    wrong = sg.crooks(forward, backward, 1.25 * T)
    assert wrong.slope == pytest.approx(1.25, abs=5 * wrong.slope_error)


def test_unequal_numbers_of_works_are_weighed():
    forward, backward = works(20_000, 1)
    found = sg.crooks(forward, backward[:3000], T)
    assert abs(found.difference - DF) < 4.42 * found.error
    assert found.error > sg.crooks(forward, backward, T).error


def test_errors_are_those_of_repeats():
    """The spread of 400 estimates of 300 works each over their mean error, 1 ± 4.42/√800."""
    found = {"bennett": [], "jarzynski": [], "slope": []}
    for k in range(400):
        forward, backward = works(300, 100 + k, sigma=0.6)
        both, one = sg.crooks(forward, backward[:200], T), sg.jarzynski(forward, T)
        found["bennett"].append((both.difference, both.error))
        found["slope"].append((both.slope, both.slope_error))
        found["jarzynski"].append((one.difference, one.error))
    for values, errors in (map(np.array, zip(*rows, strict=True)) for rows in found.values()):
        ratio = values.std(ddof=1) / math.sqrt((errors**2).mean())
        assert ratio == pytest.approx(1, abs=0.16)


def test_the_result_of_an_ensemble_is_taken():
    trap = sg.Langevin(lambda x, t: (x - t) ** 2 / 2)

    def start(rows, rng):
        return torch.randn(rows, 1, generator=rng, dtype=F64)

    run = sg.run_ensemble(
        trap, start, [0.0, 1.0], trajectories=4000, solver=sg.Heun(20), rng=0, progress=False,
        observables=[sg.Work(temperature=1.0), sg.Work(name="bare")],
    ).observables  # fmt: skip
    found = sg.jarzynski(run["work"])
    assert abs(found.difference) < 4.42 * found.error < 0.1
    with pytest.raises(ValueError, match=r"at T = 1; pass Work\(temperature=2\) to run_ensemble"):
        sg.jarzynski(run["work"], 2.0)
    with pytest.raises(ValueError, match="no average of e"):
        sg.jarzynski(run["bare"], 2.0)


def test_an_average_that_few_works_carry_is_told():
    forward, backward = works(1000, 0, sigma=5.0)
    with pytest.warns(sg.AccuracyWarning, match="of 1000 works rests on .* take more traject"):
        sg.jarzynski(forward, T)
    far = works(1000, 0, sigma=9.0)
    with pytest.warns(sg.AccuracyWarning, match="hardly overlap: ΔF rests on"):
        apart = sg.crooks(*far, T)
    assert apart.overlap < 0.05
    # works that lie apart altogether have no slope
    with pytest.warns(sg.AccuracyWarning, match="hardly overlap"):
        apart = sg.crooks(far[0].abs() + 200, far[1].abs() + 200, T)
    assert math.isnan(apart.slope)
    assert len(apart.work) == 0
    assert backward.shape == forward.shape


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda W: sg.jarzynski(W), ValueError, "temperature is missing: pass"),
        (lambda W: sg.jarzynski(W, -1.0), ValueError, "temperature must be finite and > 0"),
        (lambda W: sg.jarzynski("W", 1.0), TypeError, "work must be the work of each"),
        (
            lambda W: sg.jarzynski(W[None], 1.0),
            ValueError,
            r"has shape \(1, 9\); pass func",
        ),
        (lambda W: sg.jarzynski(W / 0, 1.0), ValueError, r"work\[0\] = inf; leave out"),
        (lambda W: sg.crooks(W, W[:1], 1.0), ValueError, "backward must have the work of"),
        (lambda W: sg.crooks(W, W, 1.0, bins=0), ValueError, "bins must be ≥ 1"),
    ],
)
def test_what_is_no_work_is_refused(call, kind, told):
    with pytest.raises(kind, match=told):
        call(torch.ones(9, dtype=F64))
