"""Requests: what users have, turned into what is computed with, or refused by name."""

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.requests import as_number, as_numbers, as_parameter, as_state, as_time, kind_of

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)],
)
def test_one_number_whoever_made_it(value):
    assert as_number("rate", value) == as_parameter("rate", value) == 0.5
    assert type(as_number("rate", value)) is float


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (None, "None"),
        (True, "True"),
        ("0.5", "'0.5'"),
        ([0.5], "a list"),
        (np.ones(2), r"a NumPy array of shape \(2,\)"),
        (torch.ones(1), r"a tensor of shape \(1,\)"),
        (lambda x: x, "a function"),
        (sg.EDM, "the class EDM"),
        (sg.EDM(), "an EDM"),
        (1j, "a complex"),
    ],
)
def test_what_is_no_number_is_named(value, came, as_user):
    for convert in (as_number, as_parameter):
        with pytest.raises(TypeError, match=f"^rate must be a number, but is {came}.$"):
            convert("rate", value)


def test_a_parameter_keeps_its_gradient_and_a_number_refuses_to_lose_it():
    k = torch.tensor(0.5, requires_grad=True)
    assert as_parameter("rate", k) is k
    with pytest.raises(TypeError, match=r"rate is a tensor that requires grad, .* \.item\(\)"):
        as_number("rate", k)


def test_numbers_in_one_go():
    for value in ([0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2])):
        found = as_numbers("betas", value)
        assert found.dtype == F64
        assert found.tolist() == [0.1, 0.2]  # a list is not rounded to float32 on its way
    tensor = torch.ones(2, requires_grad=True)
    assert as_numbers("betas", tensor).requires_grad
    with pytest.raises(TypeError, match=r"betas is a list of tensors that require grad, .*stack"):
        as_numbers("betas", [torch.tensor(1.0, requires_grad=True)])
    for value in ("word", [[1.0], [1.0, 2.0]], {"a": 1}, ["a"], np.array(["a"]), None, len):
        with pytest.raises(TypeError, match="betas must be numbers, but is "):
            as_numbers("betas", value)


def test_states_and_times():
    x = np.zeros((3, 1))
    assert as_state("x0", x).dtype == F64
    assert as_state("x0", x.astype(np.float32)).dtype == torch.float32
    assert as_state("x0", [[0.0], [1.0]]).shape == (2, 1)
    with pytest.raises(TypeError, match=r"x0 must be a tensor .* or a NumPy array, but is 0.5"):
        as_state("x0", 0.5)
    t = torch.tensor(0.5)
    assert as_time(t) is t
    assert as_time(1).dtype == F64  # and not an integer, of which β would be one
    assert as_time(torch.tensor(1)).dtype == F64
    assert as_time([0.1, 0.2]).shape == (2,)
    with pytest.raises(TypeError, match=r"t must be a time, .* but is None"):
        as_time(None)
    assert kind_of(sg.MLP(dim=1)) == "an MLP"


LINEAR = {
    "VP": VP,
    "SubVP": sg.SubVP(sg.QuadraticBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 5.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(t_max=5.0),
    "cosine": sg.VP(sg.CosineBeta()),
    "constant": sg.VP(sg.ConstantBeta(2.0)),
    "table": sg.VP(sg.TabulatedBeta([0.9, 0.5, 0.1])),
}


@pytest.mark.parametrize("sde", LINEAR.values(), ids=LINEAR.keys())
def test_a_time_may_be_a_number(sde, as_user):
    """The same as a 0-d float64 tensor, for all that asks for a time."""
    t, x = torch.tensor(0.5, dtype=F64), torch.tensor([[0.3], [-0.7]])
    for name in ("alpha", "sigma", "drift_rate", "diffusion_rate"):
        field = getattr(sde, name)
        for time in (0.5, np.float64(0.5), np.array(0.5)):
            assert torch.equal(field(time), field(t))
        assert torch.equal(field(np.array([0.5, 0.25])), field(torch.tensor([0.5, 0.25]).double()))
        # an integer is a time as well, and no dtype for what is computed
        assert torch.equal(field(torch.tensor(0)), field(torch.tensor(0.0, dtype=F64)))
    model = sg.ScoreModel(sg.MLP(dim=1), sde)
    for field in (sde.drift, sde.diffusion, model.score, model.x0, model.eps, model.v):
        assert torch.equal(field(x, 0.5), field(x, t))
    assert torch.equal(model.score(x.numpy(), 0.5), model.score(x, t))
    assert all(map(torch.equal, sde.perturb(x, 0.5, rng=0), sde.perturb(x, t, rng=0)))
    law = sg.GaussianMixture([1.0], [0.5], stds=0.4).noised(sde)
    for field in (law.score, law.log_prob):
        assert torch.equal(field(x, 0.5), field(x, t))
    reverse = sg.ReverseSDE(sde, model.score)
    assert torch.equal(reverse.drift(x, 0.5), reverse.drift(x, t))
    chain = sg.DDPM.discretize(sde, 4)
    assert torch.equal(chain.drift(x, 3), chain.drift(x, torch.tensor(3.0)))
    back = chain.reverse(model.score)
    assert torch.equal(back.drift(x, 3), back.drift(x, torch.tensor(3.0)))


def test_arrays_of_numpy_enter_everywhere(as_user):
    grid = sg.Grid(-8.0, 8.0, 100)
    made = grid.gaussian(0.0, 0.5)
    fp = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), grid)
    times = np.array([0.0, 1.0])
    theirs = fp.solve(sg.Density(grid.nodes.numpy(), made.p.numpy()), times)
    assert torch.equal(theirs.p, fp.solve(made, times).p)
    x0 = np.zeros((3, 1), np.float32)
    sde = sg.OrnsteinUhlenbeck()
    assert torch.equal(
        sg.simulate(sde, x0, times, rng=0).states,
        sg.simulate(sde, torch.zeros(3, 1), times, rng=0).states,
    )
    run = sg.run_ensemble(
        sde, x0[:1], times, trajectories=3, observables=[sg.Moments()], rng=0, progress=False
    )
    assert run.trajectories == 3
    mixture = sg.GaussianMixture(np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), stds=np.ones(2))
    assert mixture.dim == 1
    weights = np.eye(2)
    assert torch.equal(
        sg.RateNetwork(weights, [0.1, 0.2]).drift(torch.zeros(1, 2), torch.tensor(0.0)),
        torch.tensor([[0.1, 0.2]]),
    )


SLIPS = {
    "a number for a schedule": (
        lambda: sg.VP(0.1),
        r"beta .* LinearBeta\(0\.1, 20\.0\).* is 0\.1",
    ),
    "a chain of a process": (
        lambda: sg.DDPM.discretize(sg.OrnsteinUhlenbeck(), 10),
        "sde must be a GaussianPath, .* such as VP.* is an OrnsteinUhlenbeck",
    ),
    "a score of a process": (
        lambda: sg.ScoreModel(sg.MLP(dim=2), "a process"),
        "sde must be a GaussianPath, .* is 'a process'",
    ),
    "a score of a chain": (
        lambda: sg.ScoreModel(sg.MLP(dim=2), sg.DDPM([0.1, 0.2])),
        "sde must be a GaussianPath, .* is a DDPM. .* give the model that SDE",
    ),
    "a network for a model": (
        lambda: sg.train(sg.MLP(dim=2), torch.zeros(4, 2)),
        r"model must be a ScoreModel, but is an MLP; .* ScoreModel\(network, VP",
    ),
    "a law under a process": (
        lambda: sg.GaussianMixture([1.0], [0.0], stds=1.0).noised(sg.ItoProcess(torch.sin, 1.0)),
        ".*, .* is an ItoProcess",
    ),
    "a posterior under a process": (
        lambda: sg.LinearMeasurement(torch.ones(1, 2), torch.ones(1), 0.1).posterior_score(
            sg.OrnsteinUhlenbeck(), lambda x, t: -x
        ),
        "sde must be a GaussianPath, .* is an OrnsteinUhlenbeck",
    ),
    "a chain from an SDE": (
        lambda: sg.DDPM(VP),
        r"betas must be a list .* is a VP; .* DDPM\.discretize\(sde, steps=1000\)",
    ),
    "a moving bound": (
        lambda: sg.Reflecting(high=lambda t: 1 - t),
        "high of Reflecting must be a number, but is a function; .* pass Absorbing",
    ),
    "a word for a potential": (
        lambda: sg.Langevin("x**4"),
        r"potential must be a Potential .* or a function U\(x\) .* is 'x\*\*4'",
    ),
    "a class for a potential": (
        lambda: sg.Langevin(sg.DoubleWell),
        r"potential must be an object, .* pass DoubleWell\(\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), SLIPS.values(), ids=SLIPS.keys())
def test_common_slips_end_in_our_own_words(make, message, as_user):
    with pytest.raises(TypeError, match=message):
        make()


def test_the_programs_of_the_readme_run_with_a_thousand_digits():
    """Data of shape (1000, 1, 8, 8): trained, sampled, judged, noised by a chain and walked back.

    If its score is −x the chain keeps N(0, I) up to its last step, which adds no noise: variance
    a_1² of 64,000 numbers, to 5 standard errors.
    """
    data = 2 * torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    model = sg.ScoreModel(sg.MLP(dim=64, width=8, depth=1), VP, sg.EpsPrediction())
    sg.train(model, data, sg.TrainConfig(steps=2, batch_size=16), rng=0)
    x_T = VP.prior((1000, 1, 8, 8), rng=1)
    reverse = sg.ReverseSDE(VP, model.score)
    out = sg.simulate(reverse, x_T, VP.time_grid(5), rng=2, keep_path=False)
    assert out.final.shape == data.shape
    assert sg.metrics.sliced_wasserstein(out.final, data) > 0
    assert sg.log_likelihood(VP, model.score, data[:2], solver=sg.Heun(2)).log_prob.shape == (2,)
    chain, k = sg.DDPM.discretize(VP, steps=20), torch.arange(21.0)
    forward = sg.simulate(chain, data, k, rng=0)
    back = chain.reverse(lambda x, t: -x, "beta")
    walked = sg.simulate(back, x_T, k.flip(0), rng=1, keep_path=False).final
    assert float(walked.double().var()) == pytest.approx(
        float(chain.a[0]) ** 2, abs=5 * (2 / data.numel()) ** 0.5
    )
    assert sg.simulate(chain.reverse(model.score), forward.final, k.flip(0), rng=1).nfe == 20
