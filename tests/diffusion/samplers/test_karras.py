import pytest
import torch
from exact import mixture_flow, slope

import sdegen as sg

F64 = torch.float64


@pytest.mark.parametrize("solver", [sg.KarrasHeun(), sg.DPM2()])
@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_order_two_on_a_flow_and_the_limit_is_the_exact_map(solver, grid, as_user):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=5e-2)
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    exact, steps, off = mixture_flow(noised, x, sde.t_max, sde.t_min), [80, 160, 320], []
    for n in steps:
        run = sg.simulate(flow, x, getattr(sg.timesteps, grid)(sde, n), solver=solver)
        assert run.nfe == 2 * n
        off.append(float((run.final - exact).abs().mean()))
    assert slope([1 / n for n in steps], off) == pytest.approx(2, abs=0.15)
    assert off[-1] < 2e-4


def test_refusals_of_another_kind(as_user):
    for solver in (sg.KarrasHeun, sg.DPM2):
        with pytest.raises(TypeError, match=r"one such as Churn\(amount=5\.0\), but is 5\.0"):
            solver(5.0)
    with pytest.raises(TypeError, match="amount must be a number, but is 'a'"):
        sg.Churn("a")
    ode = sg.ItoProcess(lambda x: -x, 0.0)
    for two_stage in (sg.KarrasHeun(), sg.DPM2()):
        name = type(two_stage).__name__
        with pytest.raises(ValueError, match=rf"{name} needs the α and σ of a kernel.*ItoProcess"):
            sg.simulate(ode, torch.ones(2, 1), [1.0, 0.5], solver=two_stage)
        with pytest.raises(ValueError, match=rf"{name} needs the α and σ of a kernel.*ItoProcess"):
            two_stage.check(ode, torch.tensor([1.0, 0.5], dtype=F64))
