"""RePaint: exact where the parts are independent, near the conditional law where they are not."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
N = 2_000
MASK = torch.tensor([True, False])
KNOWN = torch.tensor([[0.9, math.nan]], dtype=F64)


class Gaussian:
    """The score of data N((0, 0.5), Σ), of standard deviations 1 and 0.6 and correlation ρ."""

    def __init__(self, rho):
        self.mean = torch.tensor([0.0, 0.5], dtype=F64)
        self.cov = torch.tensor([[1.0, 0.6 * rho], [0.6 * rho, 0.36]], dtype=F64)

    def __call__(self, x, t):
        alpha, sigma = VP.alpha(t), VP.sigma(t)
        precision = torch.linalg.inv(alpha**2 * self.cov + sigma**2 * torch.eye(2, dtype=F64))
        return -(x - alpha * self.mean) @ precision


def inpainted(rho, n=N, **words):
    options = {"steps": 100, "resamplings": 1, "rng": 1} | words
    return sg.inpaint(VP, Gaussian(rho), KNOWN, MASK, n, **options)


@pytest.mark.parametrize(("resamplings", "jump"), [(1, 10), (3, 7)])
def test_independent_parts_keep_their_law(resamplings, jump):
    """The rest is what as many steps without anything known give, N(0.5, 0.36) but for them."""
    found = inpainted(0.0, resamplings=resamplings, jump=jump)
    times = sg.timesteps.log_snr(VP, 100)
    x_T = VP.prior((N, 2), rng=5, dtype=F64)
    free = sg.ReverseSDE(VP, Gaussian(0.0))
    with torch.no_grad():
        *_, plain = sg.integrate(free, sg.DDIM(), x_T, times, sg.Noise(x_T, rng=5))
    std = float(plain[:, 1].std())
    assert std == pytest.approx(0.6, rel=0.1)
    x = found.x[:, 1]
    assert abs(float(x.mean() - plain[:, 1].mean())) < 4.4 * std * math.sqrt(2 / N)
    assert abs(float(x.var()) / std**2 - 1) < 4.4 * math.sqrt(4 / N)
    alpha, sigma = (float(f(torch.tensor(VP.t_min))) for f in (VP.alpha, VP.sigma))
    x = found.x[:, 0]  # the known part, with the noise of t_min
    assert abs(float(x.mean()) - alpha * 0.9) < 4.4 * sigma / math.sqrt(N)
    assert abs(float(x.var()) / sigma**2 - 1) < 4.4 * math.sqrt(2 / N)
    assert found.nfe == 100 * resamplings
    assert torch.equal(found.times, times)
    again = inpainted(0.0, resamplings=resamplings, jump=jump, rng=found.seed)
    assert torch.equal(again.x, found.x)


def test_resampling_brings_the_conditional_mean_of_a_gaussian():
    """E[x_2 | x_1 = 0.9] = 0.5 + 0.8 · 0.6 · 0.9 = 0.932: replacement alone is below."""
    means = {r: float(inpainted(0.8, resamplings=r).x[:, 1].mean()) for r in (1, 10)}
    assert abs(means[10] - 0.932) < 0.04
    assert means[1] < means[10] - 0.02


def test_known_events_of_each_row():
    known = torch.stack([torch.linspace(-1, 1, 6, dtype=F64), torch.zeros(6, dtype=F64)], 1)
    mask = MASK.expand(6, 2).clone()
    mask[0] = torch.tensor([False, True])
    x = sg.inpaint(VP, Gaussian(0.0), known, mask, 6, steps=5, resamplings=1, rng=0).x
    off = x - known
    assert float(off[1:, 0].abs().max()) < 5 * float(VP.sigma(torch.tensor(VP.t_min)))
    assert abs(float(off[0, 1])) < 5 * float(VP.sigma(torch.tensor(VP.t_min)))


RIGHT = {"sde": VP, "score": Gaussian(0.0), "known": KNOWN, "mask": MASK, "n": 3}


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ({"sde": sg.OrnsteinUhlenbeck()}, TypeError, "GaussianPath"),
        ({"score": 1.0}, TypeError, "score must be a function"),
        ({"known": KNOWN[0]}, ValueError, r"one event is known\[None\]"),
        ({"known": KNOWN.expand(2, 2)}, ValueError, r"\(1, \*event\), for all samples, or \(3,"),
        ({"known": [[0.9, 0.0]]}, TypeError, "known must be"),
        ({"mask": MASK.double()}, TypeError, "mask must be a tensor of bool"),
        ({"mask": MASK[:1]}, ValueError, "mask must have the shape of an event"),
        ({"mask": ~MASK}, ValueError, "known must be finite where the mask is True"),
        ({"mask": MASK | True}, ValueError, "is so in all of it"),
        ({"mask": MASK & False}, ValueError, "is so in none of it"),
        ({"solver": sg.ExponentialAdams(2)}, ValueError, "pass solver=DDIM"),
        ({"jump": 0}, ValueError, "jump must"),
        ({"solver": sg.FinalDenoising()}, ValueError, "must end with a state at t"),
        ({"score": lambda x, t: x * math.inf}, sg.NonFiniteError, "of 3 samples are not finite"),
    ],
)
def test_what_makes_no_sense_is_refused(words, kind, told, as_user):
    with pytest.raises(kind, match=told):
        sg.inpaint(**(RIGHT | words))
