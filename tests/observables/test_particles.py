"""Energies, pressures, g(r) and S(k) against counts by hand, ideal gases and Boltzmann factors."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.engine import blocks
from sdegen.observables import particles

F64 = torch.float64
BOX = (6.0, 5.0)


def uniform(batch, n, box, seed=0):
    lengths = torch.tensor(box, dtype=F64)
    gen = torch.Generator().manual_seed(seed)
    # outside of the box too, which makes no difference
    return (3 * torch.rand(batch, n, len(box), dtype=F64, generator=gen) - 1) * lengths


def of_run(observable, pairs, x, **options):
    run = sg.run_ensemble(
        sg.Langevin(pairs, 0.7), x, torch.linspace(0, 0.2, 5), observables=[observable],
        trajectories=len(x), rng=0, progress=False, **options,
    )  # fmt: skip
    return run.observables[observable.name]


@pytest.mark.parametrize("few", [1, 10**6], ids=["tree", "all pairs"])
@pytest.mark.parametrize("box", [(7.0,), BOX, (4.0, 5.0, 6.0)], ids=len)
def test_g_counts_pairs_in_shells_of_exact_volume(monkeypatch, few, box):
    monkeypatch.setattr(particles, "_FEW", few)
    x = uniform(3, 20, box)
    r_max, bins, dim = 2.0, 8, len(box)
    g = sg.RadialDistribution(box, r_max, bins).each(x)
    lengths = torch.tensor(box, dtype=F64)
    for b in range(3):
        counts = torch.zeros(bins, dtype=F64)
        for i in range(20):
            for j in range(i):
                gap = x[b, i] - x[b, j]
                r = float((gap - lengths * (gap / lengths).round()).norm())
                if r < r_max:
                    counts[int(r / r_max * bins)] += 1
        edges = torch.linspace(0, r_max, bins + 1, dtype=F64)
        volume = {1: 2 * edges, 2: math.pi * edges**2, 3: 4 / 3 * math.pi * edges**3}[dim].diff()
        expected = counts / (20 * 19 / 2) / (volume / math.prod(box))
        torch.testing.assert_close(g[b], expected)


@pytest.mark.parametrize("box", [(7.0,), BOX, (4.0, 5.0, 6.0)], ids=len)
def test_s_is_the_power_of_the_density_at_the_vectors_of_the_box(box):
    x, k_max, bins = uniform(2, 9, box), 4.0, 7
    observable = sg.StructureFactor(box, k_max, bins)
    found, at = observable.each(x), observable._at()
    shells = {}
    ranges = [range(-8, 9)] * len(box)
    for n in torch.cartesian_prod(*[torch.tensor(list(r)) for r in ranges]).reshape(-1, len(box)):
        k = 2 * math.pi * n.double() / torch.tensor(box, dtype=F64)
        size = float(k.norm())
        if 0 < size <= k_max:
            s = torch.exp(-1j * (x @ k)).sum(1).abs().square() / 9
            shells.setdefault(int(size / k_max * bins), []).append((size, s))
    assert len(shells) == len(at)
    for column, shell in enumerate(sorted(shells)):
        sizes, powers = zip(*shells[shell], strict=True)
        assert float(at[column]) == pytest.approx(sum(sizes) / len(sizes), rel=1e-12)
        torch.testing.assert_close(found[:, column], torch.stack(powers).mean(0))


def test_an_ideal_gas_has_g_and_s_of_one():
    """2,000 systems; the largest of 24 + 9 numbers within 5.5 errors: 1.3e-6."""
    x = uniform(2000, 12, BOX)
    for observable in (sg.RadialDistribution(BOX, 2.5, 24), sg.StructureFactor(BOX, 6.0, 9)):
        each = observable.each(x)
        error = each.std(0) / 2000**0.5
        assert bool(((each.mean(0) - 1).abs() < 5.5 * error).all())
        assert float(error.max()) < 0.2
    pairs = sg.PairForces(lambda r: 0 * r, box=BOX, cutoff=1.0)
    torch.testing.assert_close(
        sg.Pressure(pairs, 0.7).each(x), torch.full((2000,), 12 * 0.7 / 30).double()
    )


def test_g_of_two_particles_is_their_boltzmann_factor():
    """Langevin dynamics of 1,500 pairs; 16 shells, 5 errors and 1 % for the step: 1e-5.

    g = e^{−U/T} V/Z₁ with Z₁ the integral of e^{−U/T} over the box, for two exactly.
    """
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0, 1.5), box=3.2)
    x = torch.tensor([[[0.0, 0.0], [1.6, 1.6]]], dtype=F64).expand(1500, -1, -1)
    run = sg.run_ensemble(
        sg.Langevin(pairs, 1.0), x, torch.linspace(0, 3, 16), trajectories=1500,
        observables=[sg.RadialDistribution(3.2, 1.6, 16, origin=6)], progress=False,
        solver=sg.EulerMaruyama(substeps=20), rng=1,
    )  # fmt: skip
    g = run.observables["radial_distribution"]
    r = (torch.arange(16000, dtype=F64) + 0.5) * 1e-4
    shell, boltzmann = 2 * math.pi * r * 1e-4, torch.exp(-2.0 * (1.5 - r).clamp(min=0) ** 2)
    z = float(((boltzmann - 1) * shell).sum()) + 3.2**2
    inside = (boltzmann * shell).reshape(16, -1).sum(1) / shell.reshape(16, -1).sum(1)
    exact = inside * 3.2**2 / z
    assert bool(((g.average - exact).abs() < 5 * g.average_error + 0.01).all())
    assert float(exact[0]) < 0.1 < 20 * float(g.average_error.max())
    torch.testing.assert_close(g.at, 0.1 * (torch.arange(16).double() + 0.5))


def test_means_and_errors_are_those_of_the_values_of_systems():
    pairs = sg.PairForces(sg.HarmonicRepulsion(5.0), box=5.0)
    x = torch.cartesian_prod(*[torch.arange(5.0)] * 2).double()[None].expand(6, -1, -1)
    path = sg.simulate(sg.Langevin(pairs, 0.7), x, torch.linspace(0, 0.2, 5), rng=0)
    for observable in (
        sg.PairEnergy(pairs, origin=2),
        sg.Pressure(pairs, 0.7, origin=2),
        sg.RadialDistribution(5.0, 2.5, 7, origin=2),
        sg.StructureFactor((5.0, 5.0), 5.0, 4, origin=2),
    ):
        found = of_run(observable, pairs, x)
        each = torch.stack([observable.each(state) for state in path.states[2:]])
        torch.testing.assert_close(found.mean, each.mean(1))
        torch.testing.assert_close(found.mean_error, each.std(1) / 6**0.5)
        torch.testing.assert_close(found.average, each.mean((0, 1)))
        torch.testing.assert_close(found.average_error, each.mean(0).std(0) / 6**0.5)
        assert found.count == 6
        assert torch.equal(found.times, path.times[2:])
    # recomputed by all pairs
    energy, virial = _by_all_pairs(path.states[-1], 5.0, 5.0)
    torch.testing.assert_close(sg.PairEnergy(pairs).each(path.states[-1]), energy)
    pressure = (25 * 0.7 + virial / 2) / 25
    torch.testing.assert_close(sg.Pressure(pairs, 0.7).each(path.states[-1]), pressure)


def _by_all_pairs(x, k, box):
    """Energy and virial of soft discs, from the matrix of all distances."""
    gap = x[:, :, None] - x[:, None]
    r = (gap - box * (gap / box).round()).norm(dim=-1)
    r = torch.where(torch.eye(x.shape[1], dtype=torch.bool), 9.0, r)
    overlap = (1 - r).clamp(min=0)
    return (overlap**2 * k / 4).sum((1, 2)), (r * k * overlap).sum((1, 2)) / 2


def test_threads_do_not_show_and_one_system_has_no_error(monkeypatch):
    monkeypatch.setattr(blocks, "_NUMBERS", {"cpu": 500})
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 10)
    pairs = sg.PairForces(sg.HarmonicRepulsion(5.0), box=5.0)
    x = torch.cartesian_prod(*[torch.arange(5.0)] * 2).double()[None].expand(30, -1, -1)
    for observable in (sg.Pressure(pairs, 0.7), sg.RadialDistribution(5.0, 2.5, 7)):
        one, two = (of_run(observable, pairs, x, threads=threads) for threads in (1, 2))
        assert torch.equal(one.mean, two.mean)
        assert torch.equal(one.average_error, two.average_error)
    alone = of_run(sg.PairEnergy(pairs), pairs, x[:1])
    assert bool(alone.average_error.isnan())
    assert bool(alone.average.isfinite())


def test_in_phase_space_positions_are_measured():
    pairs = sg.PairForces(sg.HarmonicRepulsion(5.0), box=5.0)
    sde = sg.UnderdampedLangevin(pairs, 1.0, 0.7)
    x = torch.cartesian_prod(*[torch.arange(5.0)] * 2).double()[None].expand(4, -1, -1)
    z, times = sde.state(x, sde.draw_velocities(x, rng=0)), torch.linspace(0, 0.2, 5)
    observable = sg.Pressure(pairs, 0.7)
    run = sg.run_ensemble(
        sde, z, times, observables=[observable], trajectories=4, rng=0, progress=False
    )
    path = sg.simulate(sde, z, times, rng=0)
    each = torch.stack([observable.each(state[:, 0]) for state in path.states])
    torch.testing.assert_close(run.observables["pressure"].mean, each.mean(1))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: sg.RadialDistribution(5.0, 2.6), ValueError, r"half of the box, 2\.5, .* 2\.6"),
        (lambda: sg.RadialDistribution(5.0, 2.0, 0), ValueError, "bins"),
        (lambda: sg.RadialDistribution(None, 2.0), TypeError, "box must be a length"),
        (lambda: sg.RadialDistribution(-5.0, 2.0), ValueError, "box"),
        (lambda: sg.StructureFactor(5.0, 4.0), ValueError, "length for each of 1 to 3"),
        (lambda: sg.StructureFactor((5.0, 9.0), 0.5), ValueError, r"at least 0\.698132"),
        (lambda: sg.StructureFactor((500.0,) * 3, 50.0), ValueError, "smaller k_max"),
        (lambda: sg.Pressure(sg.WCA(), 1.0), TypeError, "PairForces"),
        (lambda: sg.Pressure(sg.PairForces(sg.WCA(), box=5.0), -1.0), ValueError, "temperature"),
        (lambda: sg.PairEnergy(sg.Quadratic()), TypeError, "PairForces"),
        (lambda: sg.RadialDistribution(5.0, 2.0, origin=-1), ValueError, "origin must be ≥ 0"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_an_origin_beyond_the_times_is_refused():
    pairs = sg.PairForces(sg.HarmonicRepulsion(5.0), box=5.0)
    x = torch.cartesian_prod(*[torch.arange(5.0)] * 2).double()[None]
    with pytest.raises(ValueError, match="origin must be below 5"):
        of_run(sg.PairEnergy(pairs, origin=5), pairs, x)
    with pytest.raises(ValueError, match="box has 3 lengths"):
        of_run(sg.RadialDistribution((5.0,) * 3, 2.0), pairs, x)
