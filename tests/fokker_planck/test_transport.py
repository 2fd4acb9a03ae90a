import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import sdegen as sg

LENGTH = 6.0


def washboard(periods, height, force):
    k = 2 * math.pi * periods / LENGTH
    return sg.ItoProcess(
        drift=lambda x: 0.5 * height * k * torch.sin(k * x) + force, diffusion=math.sqrt(2)
    )


def exact_law(periods, height, force):
    """v and D_eff by the integrals I± over one period (Reimann et al. 2001), in logs, D = 1."""
    period = LENGTH / periods
    k = 2 * math.pi / period
    x = np.arange(2000) * period / 2000
    z, w = np.polynomial.legendre.leggauss(400)
    y, w = 0.5 * period * (1 + z), 0.5 * period * w

    def energy(u):
        return 0.5 * height * np.cos(k * u) - force * u

    plus = logsumexp(energy(x)[:, None] - energy(x[:, None] - y), b=w, axis=1)
    minus = logsumexp(energy(x[:, None] + y) - energy(x)[:, None], b=w, axis=1)

    def log_mean(v):
        return logsumexp(v) - math.log(len(v))

    velocity = -math.expm1(-force * period) * math.exp(-log_mean(plus))
    return velocity, math.exp(log_mean(2 * plus + minus) - 3 * log_mean(plus))


@pytest.mark.parametrize("cells", [101, 200, 400])
@pytest.mark.parametrize(
    ("periods", "height", "force"),
    [
        (1, 2.0, 1.0),
        (3, 10.0, 1.0),
        (4, 20.0, 1.0),
        (4, 40.0, 1.0),
        (4, 40.0, -1.0),
        (4, 40.0, 1e-3),
        (6, 40.0, -1e-6),
        (4, 5.0, 20.0),
        (1, 10.0, -300.0),
    ],
)
def test_a_washboard_of_any_height_and_tilt(periods, height, force, cells):
    velocity, diffusion = exact_law(periods, height, abs(force))
    velocity = math.copysign(velocity, force)
    solver = sg.FokkerPlanck(
        washboard(periods, height, force), sg.Grid(-3.0, 3.0, cells), "periodic"
    )
    got = solver.transport()
    # a force of 1e-6 beside one of 126: ten digits of it are in the drift
    assert got.velocity == pytest.approx(velocity, rel=1e-7 if abs(force) < 1e-5 else 1e-8)
    assert got.diffusion == pytest.approx(diffusion, rel=1e-8)
    assert got.current == pytest.approx(velocity / LENGTH, rel=1e-7)
    assert float(got.error) < 1e-6


def test_without_a_tilt_nothing_drifts_and_the_spread_is_that_of_hops():
    solver = sg.FokkerPlanck(washboard(6, 40.0, 0.0), sg.Grid(-3.0, 3.0, 200), "periodic")
    got = solver.transport()
    assert abs(got.velocity) < 1e-13 * got.diffusion
    # λ_1 = 2k (1 − cos 2π/6) = k, D_eff = k l² with l = 1
    assert got.diffusion == pytest.approx(float(solver.spectrum(2).rates[1]), rel=1e-9)


def test_a_diffusion_that_varies_changes_the_clock_and_not_the_tilt():
    # D(x) > 0 and f = D (F − U′) + D′ at equilibrium for F = 0: v ∝ 1 − e^{−FL}
    def sde(force):
        def d(x):
            return 1 + 0.9 * torch.sin(2 * math.pi * x / LENGTH + 1)

        def drift(x):
            k = 2 * math.pi / LENGTH
            slope = 0.9 * k * torch.cos(k * x + 1)
            return d(x) * (5 * torch.sin(2 * k * x) + force) + slope

        return sg.ItoProcess(drift=drift, diffusion=lambda x: (2 * d(x)).sqrt())

    still = sg.FokkerPlanck(sde(0.0), sg.Grid(0.0, LENGTH, 200), "periodic").transport()
    assert abs(still.velocity) < 1e-9 * still.diffusion
    # linear response: v = D_eff F (Einstein), but for F²; rtol is relative to what goes one way
    there, back = (
        sg.FokkerPlanck(sde(f), sg.Grid(0.0, LENGTH, 200), "periodic").transport(rtol=1e-11)
        for f in (1e-4, -1e-4)
    )
    assert there.velocity - back.velocity == pytest.approx(2e-4 * still.diffusion, rel=1e-6)


def test_the_error_is_told_and_rtol_refines():
    jump = sg.ItoProcess(drift=lambda x: torch.where((x % 1.0) < 0.3, 4.0, -1.0), diffusion=1.0)
    coarse = sg.FokkerPlanck(jump, sg.Grid(0.0, 1.0, 33), "periodic")
    exact = sg.FokkerPlanck(jump, sg.Grid(0.0, 1.0, 40), "periodic").transport()  # nodes at 0.3
    got = coarse.transport()
    assert abs(got.velocity / exact.velocity - 1) <= 3 * float(got.error)
    fine = coarse.transport(rtol=1e-4)
    assert fine.velocity == pytest.approx(exact.velocity, rel=1e-4)
    with pytest.raises(sg.SolverError, match="the transport was not found to 1e-12"):
        coarse.transport(rtol=1e-12)
