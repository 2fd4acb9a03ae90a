import math

import pytest
import torch
from exact import mixture_flow, noised_gaussian, slope

import sdegen as sg

F64 = torch.float64


def test_error_follows_the_tolerance_and_each_trajectory_goes_its_own_way(as_user):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    exact = mixture_flow(noised, x, sde.t_max, sde.t_min)
    off, calls = [], []
    for tol in (1e-2, 1e-3):
        solver = sg.AdaptiveHeun(rtol=tol, atol=tol)
        run = sg.simulate(flow, x, sde.time_grid(1), solver=solver)
        off.append(float((run.final - exact).abs().max()))
        calls.append(run.nfe)
        # what a trajectory does does not depend on its batch mates, to the last bit
        some = sg.simulate(flow, x[3:5], sde.time_grid(1), solver=solver)
        assert torch.equal(some.final, run.final[3:5])
        assert some.nfe <= run.nfe
    # error per step E ~ h², and Heun's own is h³: the error of the run goes with the tolerance
    assert slope([1e-2, 1e-3], off) == pytest.approx(1.0, abs=0.3)
    # and the evaluations with its root
    assert slope([1e-2, 1e-3], calls) == pytest.approx(-0.5, abs=0.2)
    path = sg.simulate(flow, x, sde.time_grid(5), solver=sg.AdaptiveHeun(1e-4, 1e-4))
    assert path.states.shape == (6, 9, 1)
    assert float((path.final - exact).abs().max()) < 1e-3


def test_rejected_noise_is_kept(as_user):
    sde, gaussian = noised_gaussian(1.0, 0.25, t_min=1e-2)
    noised = sg.GaussianMixture([1.0], [[1.0]], stds=0.25).noised(sde)  # takes a t for each row
    n, (m, v) = 2000, gaussian.moments(sde.t_min)
    x = sde.prior((n, 1), rng=0, dtype=F64)
    solver = sg.AdaptiveHeun(rtol=3e-2, atol=3e-2)
    run = sg.simulate(sg.ReverseSDE(sde, noised.score), x, sde.time_grid(1), solver=solver, rng=1)
    # 4.4 standard errors: false alarm 1e-5 each
    assert abs(float(run.final.mean() - m)) < 4.4 * math.sqrt(float(v) / n)
    assert abs(float(run.final.var() / v) - 1) < 4.4 * math.sqrt(2 / n)


def test_refusals():
    with pytest.raises(ValueError, match="rtol must be finite and > 0, but is 0"):
        sg.AdaptiveHeun(rtol=0.0)
    with pytest.raises(ValueError, match=r"one time for each trajectory.*not ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 1.0), torch.zeros(2, 1), [0.0, 1.0],
            solver=sg.AdaptiveHeun(),
        )  # fmt: skip
