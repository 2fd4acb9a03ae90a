"""Act 2: every route reaches the law that its score stands for; measured is what is said."""

import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

import sdegen as sg
from sdegen.app.demo import digits
from sdegen.app.demo.digits import FULL, QUICK, generate

SPREAD = 0.5


class GaussianNoise(nn.Module):
    """The ε̂ of data N(0, SPREAD² I) under the VP-SDE, exact: σ x/(α² SPREAD² + σ²)."""

    def __init__(self, sde):
        super().__init__()
        self.sde = sde
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return (sigma / (alpha**2 * SPREAD**2 + sigma**2))[:, None, None, None] * x


@pytest.fixture(scope="module")
def exact_model():
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    return sg.ScoreModel(GaussianNoise(sde), sde, sg.EpsPrediction())


@pytest.fixture(scope="module")
def found():
    return generate(QUICK, seed=0)


def test_every_route_reaches_the_law_of_its_score(exact_model):
    """Within a step's error of 20 % at the coarse setting, of 6 % at the fine one."""
    errors = {}
    for route in FULL.routes:
        x = route.draw(exact_model, 500, 0).final.double()
        assert x.shape == (500, 1, 8, 8)
        # 32,000 numbers: a standard error of 0.6 % of SPREAD for the mean, 0.4 % for the deviation
        assert float(x.mean()) == pytest.approx(0.0, abs=4.4 * SPREAD / 32_000**0.5)
        errors.setdefault(route.name, []).append(abs(float(x.std()) / SPREAD - 1))
    for name, (coarse, fine) in errors.items():
        assert coarse < 0.20, name
        assert fine < 0.06, name
        assert fine < max(coarse, 4.4 * 0.004), name


def test_all_the_routes_that_are_asked_for():
    names = {route.name for route in FULL.routes}
    assert names == {route.name for route in QUICK.routes}
    assert len(names) == 6
    for name in names:
        assert sum(route.name == name for route in FULL.routes) >= 2


def test_bits_of_a_gaussian_are_scipy_s():
    images = sg.data.digits(rng=0)
    known = images.train.flatten(1).double().numpy()
    law = multivariate_normal(known.mean(0), torch.from_numpy(known).T.cov().numpy())
    some = images.test[:50]
    nats = -law.logpdf(some.flatten(1).double().numpy())
    expected = torch.from_numpy(nats) / (64 * torch.log(torch.tensor(2.0).double()))
    expected = expected + torch.log2(torch.tensor(17 / 2).double())
    torch.testing.assert_close(digits._gaussian_bits(images, some), expected, rtol=1e-9, atol=0)


def test_nearest_training_image_of_a_training_image_is_itself():
    images = sg.data.digits(rng=0)
    torch.testing.assert_close(
        digits._nearest_of(images.train[5:9], images.train), images.train[5:9]
    )


def test_the_same_seed_gives_the_same_numbers(found):
    again = generate(QUICK, seed=0)
    assert torch.equal(found.samples, again.samples)
    assert found.energies == again.energies
    assert found.likelihoods.mean == again.likelihoods.mean
    # and each of its sets of samples another
    assert found.energies[0] != found.energies[1]


def test_what_is_measured(found):
    test = found.data.test[: QUICK.test_images]
    assert len(found.samples) == len(test)
    assert found.chosen == min(found.runs, key=lambda run: run.validation_energy)
    assert found.energies[0] == sg.metrics.energy_distance(found.samples, test)
    assert found.nearests[0] == sg.metrics.nearest_distance(found.samples, found.data.train)
    chosen = found.chosen
    spread = torch.tensor(found.energies, dtype=torch.float64).std() / len(found.energies) ** 0.5
    assert chosen.energy == pytest.approx(found.energy)
    assert chosen.energy_error == pytest.approx(float(spread))
    # halves of the real digits: the floor is one of them, within five of their deviations
    mean, scatter = found.halvings[:, 0].mean(), found.halvings[:, 0].std()
    assert abs(found.floor_energy - float(mean)) < 5 * float(scatter)
    # learned a little: nearer to the digits than the noise it came from
    noise = sg.VP(sg.LinearBeta(0.1, 20.0)).prior((len(test), 1, 8, 8), rng=0)
    assert found.energy < 0.2 * sg.metrics.energy_distance(noise, test)
    assert found.strip.states.shape == (201, 8, 1, 8, 8)
