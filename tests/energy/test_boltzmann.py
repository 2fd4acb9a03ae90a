"""Boltzmann machines against sums over all states of both layers, and on binarised digits."""

import functools
import itertools
import math

import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.energy import RBM, GibbsDivergence, annealed_log_partition

F64 = torch.float64


def states(units):
    """All states of some units, shape (2**units, units)."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=F64)


def machine(visible=5, hidden=3, scale=2.0, seed=0):
    """A machine of large weights, in float64."""
    made, draws = RBM(visible, hidden, rng=0).double(), torch.Generator().manual_seed(seed)
    for p in made.parameters():
        p.data = scale * torch.randn(p.shape, generator=draws, dtype=F64)
    return made


def joint(m):
    """−E(v, h) of all states, shape (2**visible, 2**hidden)."""
    v, h = states(m.visible), states(m.hidden)
    return (v @ m.visible_bias)[:, None] + h @ m.hidden_bias + v @ m.weight @ h.T


@pytest.mark.parametrize(("visible", "hidden"), [(5, 3), (3, 5), (4, 4)])
def test_log_z_and_free_energies_are_sums_over_all_states(visible, hidden):
    m = machine(visible, hidden)
    exact = joint(m)
    torch.testing.assert_close(m.log_partition(), torch.logsumexp(exact.flatten(), 0))
    torch.testing.assert_close(m.free_energy(states(visible)), -torch.logsumexp(exact, 1))
    assert float(m.log_likelihood(states(visible)).exp().sum().detach()) == pytest.approx(1)
    ours = torch.autograd.grad(m.log_partition(), m.weight)[0]
    theirs = torch.autograd.grad(torch.logsumexp(exact.flatten(), 0), m.weight)[0]
    torch.testing.assert_close(ours, theirs)
    given = m.hidden_probability(states(visible))
    torch.testing.assert_close(given, exact.softmax(1) @ states(hidden))
    torch.testing.assert_close(
        m.visible_probability(states(hidden)), exact.softmax(0).T @ states(visible)
    )


def test_sums_in_several_parts_are_the_sum():
    """2**15 states of the hidden layer, two calls; the weights of one unit are a factor apart."""
    m = machine(20, 15, scale=0.3)
    m.weight.data[:, 14] = 0
    less = machine(20, 14)
    less.weight.data = m.weight.data[:, :14]
    less.visible_bias.data, less.hidden_bias.data = m.visible_bias.data, m.hidden_bias.data[:14]
    factor = torch.nn.functional.softplus(m.hidden_bias[14])
    torch.testing.assert_close(m.log_partition(), less.log_partition() + factor)


def test_gibbs_sampling_ends_at_the_law():
    """χ² of 20,000 chains in 16 states: one false alarm in 10⁵ seeds."""
    m = machine(4, 3, scale=1.0)
    v = m.sample(20_000, 60, rng=1)
    code = (v @ (2.0 ** torch.arange(3, -1, -1, dtype=F64))).long()
    seen = torch.bincount(code, minlength=16)
    expected = 20_000 * m.log_likelihood(states(4)).detach().exp()
    chi = float(((seen - expected).square() / expected).sum())
    assert chi < stats.chi2.isf(1e-5, 15)
    assert torch.equal(m.sample(5, 3, start=v[:5], rng=2), m.sample(5, 3, start=v[:5], rng=2))


@pytest.mark.parametrize(
    "loss",
    [GibbsDivergence(steps=5), GibbsDivergence(steps=2, chains=1024)],
    ids=["anew", "carried"],
)
def test_a_machine_learns_the_law_of_another(loss):
    """2000 rows know their law to 7/4000 nats; the bound leaves room for the noise of training."""
    law, m = machine(3, 2, scale=1.5, seed=1), RBM(3, 4, rng=0).double()
    data = law.sample(2000, 100, rng=0)
    start = _kl(law, m)
    config = sg.FitConfig(steps=300, batch_size=500, learning_rate=0.05, warmup=10, ema_decay=0.97)
    sg.fit(m, data, loss, config, rng=0)
    assert start > 0.2
    assert _kl(law, m) < 0.02


def _kl(p, q):
    v = states(3)
    log_p, log_q = (m.log_likelihood(v).detach() for m in (p, q))
    return float((log_p.exp() * (log_p - log_q)).sum())


def test_a_training_that_was_stopped_ends_in_the_same_bits(tmp_path):
    data = machine(4, 3, scale=1.0).sample(64, 50, rng=0)
    config = sg.FitConfig(steps=10, batch_size=16, warmup=2, checkpoint_every=4)

    def run(stop=None, **words):
        m = RBM(4, 3, rng=0)

        def watch(report):
            if report.step == stop:
                raise RuntimeError("stopped")

        loss = GibbsDivergence(chains=32, restart=0.1)
        sg.fit(m, data, loss, config, rng=4, callbacks=[watch], **words)
        return m.weight.detach()

    with pytest.raises(RuntimeError, match="stopped"):
        run(stop=6, folder=tmp_path)
    assert torch.equal(run(folder=tmp_path, resume=True), run())


def test_annealing_finds_log_z_of_large_weights():
    """20 repeats within 5 standard errors each: one false alarm in 10⁵ seeds."""
    m = machine(12, 6, scale=2.0)
    assert float(m.weight.detach().abs().max()) > 2
    exact = float(m.log_partition().detach())
    for seed in range(20):
        found = annealed_log_partition(m, 100, 500, rng=seed)
        assert abs(found.value - exact) < 5 * found.error
        assert found.error < 0.2
        assert 10 <= found.effective <= 100
    # a machine without weights is the one that chains begin at
    flat = RBM(6, 3, rng=0).double()
    flat.weight.data.zero_()
    found = annealed_log_partition(flat, 10, 3, rng=0)
    assert found.value == pytest.approx(9 * math.log(2), abs=1e-12)
    assert found.error < 1e-12


def test_the_mean_weight_is_right_for_one_temperature_too():
    """Z = Z_0 E w whatever the number: 2**16 chains of one step, within 4.4 standard errors."""
    m = machine(4, 3, scale=0.5)
    data = m.sample(100, 20, rng=0)
    for given in (None, data):
        found = annealed_log_partition(m, 2**16, 1, data=given, rng=0)
        assert abs(found.value - float(m.log_partition().detach())) < 4.4 * found.error


def test_few_chains_that_count_are_told():
    m = machine(30, 25, scale=3.0)
    with pytest.warns(sg.AccuracyWarning, match=r"of 200 chains count for log Z"):
        annealed_log_partition(m, 200, 3, rng=0)


@functools.cache
def trained():
    """A machine of 20 hidden units, its training and its held-out digits."""
    digits = sg.data.digits()
    train = (torch.cat([digits.train, digits.validation]) > 0).float()
    m = RBM(64, 20, rng=0)
    config = sg.FitConfig(
        steps=2000, batch_size=128, learning_rate=0.02, warmup=20, ema_decay=0.99
    )
    sg.fit(m, train, GibbsDivergence(chains=500), config, rng=0)
    return m, train, (digits.test > 0).float()


@pytest.mark.slow
def test_digits_are_likelier_than_by_independent_pixels():
    """Held-out: −18.4 nats by the machine, −25.1 by pixels that know of no other."""
    m, train, held_out = trained()
    p = (train.flatten(1).sum(0) + 0.5) / (len(train) + 1)
    pixels = torch.distributions.Bernoulli(p).log_prob(held_out.flatten(1)).sum(1).mean()
    with torch.no_grad():
        ours = m.log_likelihood(held_out).mean()
    assert float(pixels) == pytest.approx(-25.07, abs=0.01)
    assert float(ours) > -19.0


@pytest.mark.slow
def test_annealing_covers_log_z_of_digits():
    """Three standard errors hold the sum over 2**20 states in 97 of 100 repeats, or more."""
    m, train, _ = trained()
    assert float(m.weight.detach().abs().max()) > 2
    exact = float(m.log_partition().detach())
    covered = 0
    for seed in range(100):
        found = annealed_log_partition(m, 100, 500, data=train, rng=seed)
        covered += abs(found.value - exact) < 3 * found.error
    assert covered >= 97


def test_a_saved_machine_is_the_machine(tmp_path):
    m = machine()
    m.save(tmp_path / "machine.safetensors")
    again = RBM.load(tmp_path / "machine.safetensors")
    assert torch.equal(again.free_energy(states(5)), m.free_energy(states(5)))
    assert (again.visible, again.hidden) == (5, 3)
    sg.EnergyModel(torch.nn.Linear(1, 1)).save(tmp_path / "energy.safetensors")
    with pytest.raises(sg.CheckpointError, match="holds a EnergyModel, not a RBM"):
        RBM.load(tmp_path / "energy.safetensors")


def test_data_that_are_neither_zero_nor_one_are_refused():
    m, grey = RBM(3, 2, rng=0), torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.3, 1.0]])
    message = r"must be 0 or 1.* but 1 of 2 rows are not, the first of them row 1 with 0\.3"
    for call in (m.free_energy, m.hidden_probability, m.log_likelihood):
        with pytest.raises(ValueError, match="v " + message):
            call(grey)
    with pytest.raises(ValueError, match="data " + message):
        sg.fit(m, grey, GibbsDivergence(), sg.FitConfig(steps=1), rng=0)
    with pytest.raises(ValueError, match="start " + message):
        m.sample(2, start=grey)
    with pytest.raises(ValueError, match="data " + message):
        annealed_log_partition(m, data=grey)
    with pytest.raises(ValueError, match=r"v must have shape \(batch, 3\)"):
        m.free_energy(torch.zeros(2, 4))


def test_what_else_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"a sum over 2\*\*21 states, and 20 units are the most"):
        RBM(30, 21, rng=0).log_partition()
    with pytest.raises(ValueError, match="visible must be ≥ 1"):
        RBM(0, 3)
    with pytest.raises(TypeError, match=r"module must be an RBM\(visible, hidden\)"):
        sg.fit(torch.nn.Linear(2, 1), torch.zeros(4, 2), GibbsDivergence(), rng=0)
    with pytest.raises(TypeError, match="machine must be an RBM"):
        annealed_log_partition(torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match="start must have 3 rows"):
        RBM(2, 2).sample(3, start=torch.zeros(2, 2))
    lost = machine()
    lost.weight.data[0, 0] = math.nan
    with pytest.raises(sg.NonFiniteError, match="the weights of the machine are not finite"):
        annealed_log_partition(lost)
