"""ScoreModel: one score however it is asked for, and the same one after a file."""

import re

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.scores import along
from sdegen.storage import load_tensors, save_tensors

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = [
    VP,
    sg.VP(sg.ConstantBeta(3.0, t_max=2.0), t_min=2e-3),
    sg.VP(sg.QuadraticBeta(0.1, 15.0)),
    sg.VP(sg.CosineBeta(0.01, t_max=0.99)),
    sg.SubVP(sg.LinearBeta(0.2, 10.0)),
    sg.VE(sg.GeometricSigma(0.02, 30.0)),
    sg.RectifiedFlow(t_min=2e-3, t_max=0.99),
    sg.EDM(t_min=0.01, t_max=20.0),
    sg.VP(sg.TabulatedBeta([0.97, 0.6, 0.2, 0.01]), t_min=0.25),
]
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
HOWS = [
    sg.EpsPrediction(),
    sg.X0Prediction(),
    sg.VPrediction(),
    sg.ScorePrediction(),
    sg.FlowPrediction(),
    sg.EDMPrediction(0.7),
    sg.DenoiserPrediction(),
]


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def awake(network):
    """The network with its zero layers drawn, so that it is not the zero function."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return network


def a_model(sde=VP, how=None, dtype=torch.float64):
    return sg.ScoreModel(awake(sg.MLP(2, width=16, depth=1, rng=0)).to(dtype), sde, how)


class Recorder(nn.Module):
    """A network that keeps what it was given."""

    def forward(self, x, t):
        self.x, self.t = x, t
        return torch.zeros_like(x)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_network_sees_unit_variance_at_every_time(sde):
    """Data N(0, 1): α² + σ² is the variance of x_t, to be seen exactly as 1."""
    network = Recorder()
    model = sg.ScoreModel(network, sde)
    for t in torch.linspace(sde.t_min, sde.t_max, 5, dtype=torch.float64):
        x_t = (sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt() * torch.tensor([[1.0], [-1.0]])
        model.score(x_t, t)
        assert torch.allclose(network.x, torch.tensor([[1.0], [-1.0]]), rtol=1e-6)
        assert torch.equal(network.t, t.to(network.t.dtype).expand(2))


def test_one_time_for_all_is_that_time_for_each(device, dtype):
    model = a_model(dtype=dtype).to(device)
    x = drawn(5, 2, dtype=dtype).to(device)
    solver_time = torch.tensor(0.37, dtype=torch.float64)  # 0-d, float64, on the CPU
    for name in ("score", "eps", "x0", "v"):
        one = getattr(model, name)(x, solver_time)
        each = getattr(model, name)(x, solver_time.to(x).expand(5).clone())
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        assert one.dtype == x.dtype
        assert one.device == x.device
        assert torch.allclose(one, each, rtol=tolerance, atol=tolerance)


def test_the_state_keeps_its_precision_with_a_coarser_network():
    """ε̂ comes from a float32 network, −ε̂/σ is exact in float64: 1e-15, not 1e-7."""
    model = a_model(dtype=torch.float32)
    x, t = drawn(6, 2), torch.tensor(0.01, dtype=torch.float64)
    score, eps = model.score(x, t), model.eps(x, t)
    assert score.dtype == torch.float64
    assert torch.equal(eps, eps.float().double())  # a float32 number
    assert torch.allclose(score * VP.sigma(t), -eps, rtol=1e-15, atol=0)
    assert torch.allclose(VP.alpha(t) * model.x0(x, t) + VP.sigma(t) * eps, x, rtol=1e-14)


def test_a_double_time_for_each_row_does_not_promote_a_single_state():
    model = a_model(dtype=torch.float32)
    score = model.score(
        drawn(3, 2, dtype=torch.float32), torch.full((3,), 0.5, dtype=torch.float64)
    )
    assert score.dtype == torch.float32


def test_the_score_is_differentiable_where_it_was_asked():
    """By central differences, in float64."""
    model = a_model(how=sg.VPrediction())
    x, t = drawn(1, 2), torch.tensor(0.3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: model.score(y, t), x)[0, :, 0]
    h = 1e-5
    for j in range(2):
        step = h * torch.eye(2, dtype=torch.float64)[j]
        slope = (model.score(x + step, t) - model.score(x - step, t))[0] / (2 * h)
        assert torch.allclose(jacobian[:, j], slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("how", HOWS, ids=lambda how: type(how).__name__)
def test_a_score_prepared_for_a_run_is_the_score_at_each_time(sde, how, dtype, device):
    """Tables of a whole grid round as single times do, but for the last bit of exp and sin."""
    model, nodes = a_model(sde, how, dtype).to(device), sg.timesteps.log_snr(sde, 12)
    x = drawn(5, 2, dtype=dtype).to(device)
    at = along(model.score, nodes)
    with torch.no_grad():
        for i, t in enumerate(nodes):
            expected = model.score(x, t)
            torch.testing.assert_close(at(x, i), expected, rtol=16 * EPS[dtype], atol=0)


def test_a_prepared_score_sees_the_weights_and_the_rates_of_its_run():
    """Nothing is kept from one run to the next: neither a schedule nor a dtype."""
    beta = sg.ConstantBeta(3.0)
    model = a_model(sg.VP(beta))
    x, times = drawn(4, 2), torch.linspace(1, 0.1, 5, dtype=torch.float64)

    def final():
        flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
        return sg.simulate(flow, x, times, solver=sg.DDIM()).final

    before = final()
    with torch.no_grad():
        model.network.leave.bias.add_(0.5)
    moved = final()
    beta.beta = 6.0
    assert (moved - before).abs().min() > 1e-3
    assert (final() - moved).abs().min() > 1e-3
    assert torch.equal(final(), final())
    assert final().dtype == model.float()(x, times[0]).dtype == torch.float64


def test_gradients_reach_a_learned_rate_through_a_prepared_score(as_user):
    """Its derivative by automatic differentiation is that of differences, (ΔL)/(2 δ) + O(δ²)."""
    rate = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    model = a_model(sg.VP(sg.LinearBeta(0.1, 3.0)), sg.VPrediction())
    x, times = drawn(4, 2), torch.linspace(1, 0.1, 6, dtype=torch.float64)

    def loss(value):
        model.sde.beta.beta_max = value
        flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
        run = sg.simulate(flow, x, times, solver=sg.ExponentialAdams(2), differentiable=True)
        return run.final.square().sum()

    (slope,) = torch.autograd.grad(loss(rate), rate)
    with torch.no_grad():
        ends = [loss(3.0 + sign * 1e-5) for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-7, atol=0)


def test_a_score_of_a_subclass_is_not_passed_by():
    class Halved(sg.ScoreModel):
        def score(self, x_t, t):
            return 0.5 * super().score(x_t, t)

    whole, x = a_model(), drawn(3, 2)
    halved, nodes = Halved(whole.network, VP), VP.time_grid(3)
    for i, t in enumerate(nodes):
        assert torch.equal(along(halved.score, nodes)(x, i), 0.5 * whole.score(x, t))


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.ExponentialAdams(3), sg.KarrasHeun()])
def test_a_network_that_writes_to_its_input_does_not_move_the_state(solver):
    class InPlace(nn.Module):
        def forward(self, x, t):
            return x.mul_(0.5)

    class Plain(nn.Module):
        def forward(self, x, t):
            return 0.5 * x

    x, times = drawn(4, 2), VP.time_grid(6)
    ends = [
        sg.simulate(
            sg.ReverseSDE(VP, sg.ScoreModel(network(), VP).score, eta=0.0), x, times, solver=solver
        ).final
        for network in (InPlace, Plain)
    ]
    assert torch.equal(*ends)


def test_a_prepared_score_refuses_time_zero_only_where_it_is_asked():
    model, x = a_model(), drawn(3, 2)
    at = along(model.score, torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert torch.equal(at(x, 0), model.score(x, torch.tensor(0.5, dtype=torch.float64)))
    with pytest.raises(ValueError, match="the score does not exist at t = 0; stop at"):
        at(x, 1)


@pytest.mark.parametrize("t", [0.0, -0.1, float("nan")])
def test_time_zero_is_refused(t):
    with pytest.raises(ValueError, match=r"does not exist at t = .*stop at sde.t_min = 0.001"):
        a_model().score(drawn(2, 2), torch.tensor(t, dtype=torch.float64))


def test_a_network_of_another_shape_is_refused_with_both_shapes():
    class First(nn.Module):
        def forward(self, x, t):
            return x[:, :1]

    model = sg.ScoreModel(First(), VP)
    with pytest.raises(ValueError, match=r"returned shape \(3, 1\) for a state of shape \(3, 2\)"):
        model.score(drawn(3, 2), torch.tensor(0.5))


class Labelless(nn.Module):
    classes = 3

    def forward(self, x, t):
        return x


@pytest.mark.parametrize(
    ("network", "sde", "message"),
    [
        (nn.Linear(2, 2), VP, r"called as network\(x, t\).*this Linear.*wrap it in a module"),
        (Labelless(), VP, r"classes = 3 and is called as network\(x, t, labels\).*Labelless"),
        (nn.Sequential(nn.Linear(2, 2)), VP, r"network\(x, t\), which .* Sequential"),
        (lambda x, t: x, VP, "must be a torch.nn.Module.*but is a function"),
        (None, sg.ReverseSDE(VP, lambda x, t: -x), r"but is a ReverseSDE.*give .* sde\.forward"),
        (None, sg.DDPM.discretize(VP, 10), "A chain has the score of the SDE that it discretises"),
        (None, sg.VP, "but is the class VP"),
    ],
)
def test_what_a_model_cannot_take_is_refused_when_it_is_made(network, sde, message, as_user):
    """`train` had ended in an AttributeError of α(t), at the first step."""
    with pytest.raises(TypeError, match=message):
        sg.ScoreModel(sg.MLP(2, width=8, rng=0) if network is None else network, sde)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("epsilom", r"did you mean EpsPrediction\(\)\?"),
        ("v-prediction", r"did you mean VPrediction\(\)\?"),
        ("edm", r"did you mean EDMPrediction\(sigma_data\)\?"),
        ("velocity", r"did you mean VPrediction\(\), or FlowPrediction\(\) for ε − x0\?"),
        ("noise", r"did you mean EpsPrediction\(\)\?"),
        ("qqq", r"pass EpsPrediction\(\), say"),
    ],
)
def test_a_word_for_a_parameterization_is_met_with_the_object(said, meant):
    with pytest.raises(TypeError, match=f"but is the word '{said}'; {meant}"):
        sg.ScoreModel(sg.MLP(2, width=8, rng=0), VP, said)


def test_a_class_or_anything_else_is_no_parameterization(as_user):
    with pytest.raises(TypeError, match=r"is the class: pass VPrediction\(\)\."):
        sg.ScoreModel(sg.MLP(2, width=8, rng=0), VP, sg.VPrediction)
    with pytest.raises(TypeError, match=r"one such as EpsPrediction\(\), but is 3\."):
        sg.ScoreModel(sg.MLP(2, width=8, rng=0), VP, 3)


@pytest.mark.parametrize("how", HOWS[:3], ids=lambda how: type(how).__name__)
def test_where_a_score_is_taken_the_model_is_one(how):
    model = a_model(how=how)
    x, t = drawn(5, 2), torch.tensor(0.4, dtype=torch.float64)
    assert torch.equal(model(x, t), model.score(x, t))

    def both(use):
        torch.testing.assert_close(use(model), use(model.score), rtol=1e-12, atol=1e-12)

    both(lambda s: sg.simulate(sg.ReverseSDE(VP, s), x, VP.time_grid(5), rng=0).final)
    both(lambda s: sg.simulate(sg.ReverseSDE(VP, s, 0.0), x, VP.time_grid(5)).final)
    both(lambda s: sg.log_likelihood(VP, s, x).log_prob)
    both(lambda s: sg.continuous_elbo(VP, s, x, strata=4, rng=0).log_prob)
    both(lambda s: sg.composition.product([s, s])(x, t))
    chain = sg.DDPM.discretize(VP, 5)
    times = torch.arange(5, 0, -1)
    both(lambda s: sg.simulate(chain.reverse(s), x, times, rng=0).final)


def test_none_is_eps_prediction():
    assert a_model().parameterization == sg.EpsPrediction()


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("how", HOWS, ids=lambda how: type(how).__name__)
def test_a_saved_model_comes_back_as_it_was(tmp_path, sde, how):
    model = a_model(sde, how)
    model.save(tmp_path / "m.safetensors")
    again = sg.ScoreModel.load(tmp_path / "m.safetensors")
    x, t = drawn(7, 2), torch.tensor(0.8 * sde.t_max, dtype=torch.float64)
    assert torch.equal(again.score(x, t), model.score(x, t))
    assert again.parameterization == how
    assert (again.sde.t_min, again.sde.t_max) == (sde.t_min, sde.t_max)
    assert not again.training


def test_a_saved_unet_comes_back_as_it_was(tmp_path):
    model = sg.ScoreModel(awake(sg.UNet(3, width=8, levels=3, rng=0)), VP, sg.VPrediction())
    model.save(tmp_path / "m")
    x, t = drawn(2, 3, 8, 8, dtype=torch.float32), torch.tensor(0.2)
    assert torch.equal(sg.ScoreModel.load(tmp_path / "m").score(x, t), model.score(x, t))


class Mine(nn.Module):
    """A network that the library does not know."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.utils.skip_init(nn.Linear, 2, width)
        nn.init.constant_(self.layer.weight, 0.25)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x, t):
        return self.layer(x)[:, :2]


def test_a_network_of_your_own_is_given_its_weights_back(tmp_path):
    path = tmp_path / "mine"
    sg.ScoreModel(Mine(2), VP).save(path)
    x, t = drawn(3, 2, dtype=torch.float32), torch.tensor(0.5)
    fresh = Mine(2)
    nn.init.zeros_(fresh.layer.weight)
    model = sg.ScoreModel.load(path, fresh)
    assert torch.equal(model.score(x, t), sg.ScoreModel(Mine(2), VP).score(x, t))
    with pytest.raises(sg.CheckpointError, match=r"its network is a .*Mine, which sdegen cannot"):
        sg.ScoreModel.load(path)


class Slower(sg.VP):
    """An SDE that the library does not know, though it has a known parent."""


class Halved(sg.EpsPrediction):
    """A parameterization that the library does not know."""


def test_an_sde_and_a_reading_of_your_own_are_to_be_given(tmp_path):
    path, slower = tmp_path / "m", Slower(sg.LinearBeta(0.1, 5.0))
    a_model(slower, Halved()).save(path)
    with pytest.raises(sg.CheckpointError, match=r"its sde is a .*Slower"):
        sg.ScoreModel.load(path)
    with pytest.raises(sg.CheckpointError, match=r"its parameterization is a .*Halved"):
        sg.ScoreModel.load(path, sde=slower)
    again = sg.ScoreModel.load(path, sde=slower, parameterization=Halved())
    x, t = drawn(3, 2), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(again.score(x, t), a_model(slower).score(x, t))


def test_weights_that_do_not_fit_are_refused_by_key(tmp_path):
    path = tmp_path / "mine"
    sg.ScoreModel(Mine(2), VP).save(path)
    expected = (
        r"key 'layer.bias' is of shape \(2,\) in the file and of shape \(4,\) in the network"
    )
    with pytest.raises(
        sg.CheckpointError, match=rf"{re.escape(str(path))} does not fit.*{expected}"
    ):
        sg.ScoreModel.load(path, Mine(4))
    with pytest.raises(
        sg.CheckpointError, match=r"'enter.bias' is missing in the file and of shape"
    ):
        sg.ScoreModel.load(path, sg.MLP(2, rng=0))


def test_a_file_of_another_kind_is_refused(tmp_path):
    save_tensors(tmp_path / "f", {"w": torch.zeros(1)}, {"kind": "Trajectory"})
    with pytest.raises(sg.CheckpointError, match="holds a Trajectory, not a ScoreModel"):
        sg.ScoreModel.load(tmp_path / "f")


def test_nothing_but_a_known_class_is_made_from_a_file(tmp_path):
    """A file that is whole, and asks for more than it should get."""
    path = tmp_path / "f"
    a_model().save(path)
    tensors, metadata = load_tensors(path)
    for described, message in [
        ({"class": "os.system", "command": "true"}, "is a os.system, which sdegen cannot rebuild"),
        (
            {"class": "VP", "beta": 1.0},
            r"VP takes \['beta', 't_min'\], but the file gives \['beta'\]",
        ),
        ({"class": "VP", "beta": {"class": "MLP2"}, "t_min": 0.1}, "its sde.beta is a MLP2"),
        ({"class": "VP", "beta": 3.0, "t_min": 0.1}, "its sde is not a VP"),
        (7, "its sde is not described"),
    ]:
        save_tensors(path, tensors, metadata | {"sde": described})
        with pytest.raises(sg.CheckpointError, match=message):
            sg.ScoreModel.load(path)
