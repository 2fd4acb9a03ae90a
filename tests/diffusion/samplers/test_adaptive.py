import math

import pytest
import torch
from exact import mixture_flow, noised_gaussian, slope, solved

import sdegen as sg
from sdegen.core.noise import stream

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


def test_moments_of_a_reverse_sde(as_user):
    sde, gaussian = noised_gaussian(1.0, 0.25, t_min=1e-2)
    noised = sg.GaussianMixture([1.0], [[1.0]], stds=0.25).noised(sde)  # takes a t for each row
    n, (m, v) = 2000, gaussian.moments(sde.t_min)
    x = sde.prior((n, 1), rng=0, dtype=F64)
    solver = sg.AdaptiveHeun(rtol=3e-2, atol=3e-2)
    run = sg.simulate(sg.ReverseSDE(sde, noised.score), x, sde.time_grid(1), solver=solver, rng=1)
    # 4.4 standard errors: false alarm 1e-5 each
    assert abs(float(run.final.mean() - m)) < 4.4 * math.sqrt(float(v) / n)
    assert abs(float(run.final.var() / v) - 1) < 4.4 * math.sqrt(2 / n)


class Kicked:
    """A drift that is nothing, but has every step refused whose end is further off than this."""

    def __init__(self, most):
        self.most, self.start, self.refused = most, None, 0

    def __call__(self, x, t):
        start, self.start = self.start, x if self.start is None else None
        if start is None:
            return torch.zeros_like(x)
        far = (x - start).abs() > self.most
        self.refused += int(far.sum())
        return 1e20 * far.to(x)


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.3, 0.31, 1.0]])
def test_rejected_noise_is_kept(times):
    # what is taken has no drift: a Brownian motion, whatever is refused on it. With fresh draws
    # after a refusal large increments are missing: the variance is then off by 90 standard errors
    n, kicked = 20_000, Kicked(0.2)
    run = solved(sg.AdaptiveHeun(),
        sg.ItoProcess(kicked, 1.0), torch.zeros(n, 1, dtype=F64),
        torch.tensor(times, dtype=F64), noise=stream(0, "kicked"), keep_path=False,
    )  # fmt: skip
    assert kicked.refused > 10 * n
    assert not run.nonfinite.any()
    final = run.states[-1]
    assert abs(float(final.mean())) < 4.4 / math.sqrt(n)
    assert abs(float(final.var()) - 1) < 4.4 * math.sqrt(2 / n)


def test_a_long_step_is_not_forgotten_where_a_time_has_cut_it():
    sde = sg.ItoProcess(lambda x, t: torch.zeros_like(x), 0.0)
    ts = torch.tensor([0.0, 5.0, 5.0 + 1e-6, 10.0], dtype=F64)
    x = torch.zeros(1, 1, dtype=F64)
    run = solved(sg.AdaptiveHeun(), sde, x, ts, noise=None, keep_path=False)
    # 0.1, 0.5, 2.5, 1.9; then 10⁻⁶; then 4.999999 at once
    assert run.nfe == 2 * 6


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_score_that_is_nan_from_some_time_on(eta, dtype, as_user):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    noised = sg.GaussianMixture([1.0], [[1.0]], stds=0.25).noised(sde)

    def score(x, t):
        return torch.where((t < 0.3).expand(len(x))[:, None], torch.nan, noised.score(x, t))

    flow, x = sg.ReverseSDE(sde, score, eta), sde.prior((20, 1), rng=0, dtype=dtype)
    solver, times = sg.AdaptiveHeun(), sde.time_grid(2)
    told = (
        r"20 of 20 trajectories could not go on between t = 0.5005 and 0.001: the score or the "
        r"state is not finite next to t = 0.3, where"
    )
    with pytest.raises(sg.SolverError, match=told) as error:
        sg.simulate(flow, x, times, solver=solver, rng=1)
    assert error.value.result.times.tolist() == times[:2].tolist()
    frozen = sg.simulate(flow, x, times, solver=solver, rng=1, on_nonfinite="freeze")
    assert frozen.nonfinite.all()
    assert frozen.final.isfinite().all()
    assert frozen.nfe < 500


def test_steps_that_never_do_end_at_the_precision_of_t():
    run = solved(sg.AdaptiveHeun(),
        sg.ItoProcess(Kicked(-1.0), 1.0), torch.zeros(2, 1, dtype=F64),
        torch.tensor([1.0, 2.0], dtype=F64), noise=stream(0, "kicked"), keep_path=False,
    )  # fmt: skip
    assert run.why is not None
    assert run.why.startswith(
        "2 of 2 trajectories found no step between t = 1 and 2 that would do at rtol = 0.01 and "
        "atol = 0.01: the first of them stopped at t = 1, where a step would be too short"
    )
    # from 0.01 to 4 roundings
    assert run.nfe == pytest.approx(2 * math.log2(0.01 / (4 * 2.0**-52)), abs=2)


def test_refusals():
    with pytest.raises(ValueError, match="rtol must be finite and > 0, but is 0"):
        sg.AdaptiveHeun(rtol=0.0)
    with pytest.raises(ValueError, match=r"one time for each trajectory.*not ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 1.0), torch.zeros(2, 1), [0.0, 1.0],
            solver=sg.AdaptiveHeun(),
        )  # fmt: skip
