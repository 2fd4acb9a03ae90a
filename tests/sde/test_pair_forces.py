"""Pair forces against sums over all pairs, exact partition functions, and their own bits."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, signal

import sdegen as sg
from sdegen.engine import blocks, callables
from sdegen.sde import neighbours

F64 = torch.float64
POTENTIALS = {
    "harmonic": (sg.HarmonicRepulsion(30.0, 1.2), None),
    "Lennard-Jones": (sg.LennardJones(0.7, 0.8), 1.5),
    "WCA": (sg.WCA(1.3, 0.9), None),
    "Gaussian core": (sg.GaussianCore(2.0, 0.6), 1.7),
    "Yukawa": (sg.Yukawa(-1.5, 0.8, 1.1), 1.6),
    "a function": (lambda r: (1.3 - r) ** 3 * torch.exp(-r), 1.3),
}
every_potential = pytest.mark.parametrize("name", POTENTIALS)


def lattice(n, dim, box, *, batch=1, spread=0.25, dtype=F64, seed=0):
    """Particles near the n^dim places of a lattice: no two of them coincide."""
    axes = [torch.arange(n, dtype=F64) for _ in range(dim)]
    places = torch.cartesian_prod(*axes).reshape(-1, dim) * (box / n)
    noise = torch.randn(
        batch, *places.shape, dtype=F64, generator=torch.Generator().manual_seed(seed)
    )
    return (places + spread * (box / n) * noise).to(dtype)


@torch.no_grad()
def of_all_pairs(potential, x, box, cutoff):
    """Energy, force and virial of one system by two loops, with the nearest of 3^d images."""
    reach = min(potential.range, cutoff or math.inf)
    top = 0.0 if reach == math.inf else float(potential.energy(torch.tensor([reach], dtype=F64)))
    energy, virial, force = 0.0, 0.0, torch.zeros_like(x)
    lengths = torch.as_tensor(box if box is not None else 0.0, dtype=F64).expand(x.shape[1])
    shifts = torch.cartesian_prod(*[torch.arange(-3.0, 4.0, dtype=F64)] * x.shape[1])
    shifts = shifts.reshape(-1, x.shape[1]) * lengths
    for i in range(len(x)):
        for j in range(i):
            images = x[i] - x[j] + shifts
            gap = images[images.norm(dim=1).argmin()]
            r = gap.norm()[None]
            if float(r) < reach:
                slope = potential.slope(r)[0]
                energy += float(potential.energy(r)[0]) - top
                virial -= float(slope * r)
                force[i] -= slope * gap / r
                force[j] += slope * gap / r
    return energy, force, virial


@every_potential
@pytest.mark.parametrize(("dim", "box"), [(1, 7.0), (2, (4.0, 5.5)), (3, 3.6), (2, None)], ids=str)
def test_forces_energies_and_virials_are_sums_over_all_pairs(name, dim, box):
    potential, cutoff = POTENTIALS[name]
    pairs = sg.PairForces(potential, box=box, cutoff=cutoff)
    n, side = {1: 7, 2: 4, 3: 3}[dim], 4.0 if dim == 2 else box
    # positions far outside of the box are those inside of it
    x = lattice(n, dim, side, batch=2) + torch.tensor([[[0.0]], [[7.3]]])
    x[0, 0] += 2 * torch.as_tensor(box if box is not None else 0.0, dtype=F64)
    energies, forces, virials = pairs.energy(x), pairs.force(x), pairs.virial(x)
    for b in range(2):
        energy, force, virial = of_all_pairs(pairs.potential, x[b], box, cutoff)
        scale = 1 + float(force.abs().max())
        assert float(energies[b]) == pytest.approx(energy, rel=1e-11, abs=1e-11)
        assert float(virials[b]) == pytest.approx(virial, rel=1e-11, abs=1e-11)
        assert float((forces[b] - force).abs().max()) < 1e-11 * scale
        assert float(forces[b].sum(0).abs().max()) < 1e-12 * scale * len(x[b])
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pairs.energy(y).sum(), y)
    torch.testing.assert_close(forces, -gradient, rtol=1e-10, atol=1e-10)


@every_potential
def test_the_slope_of_a_pair_potential_is_that_of_its_energy(name):
    potential, _ = POTENTIALS[name]
    if not isinstance(potential, sg.PairPotential):
        return
    r = torch.linspace(0.4, 2.0, 161, dtype=F64, requires_grad=True)
    energy = potential.energy(r)
    (slope,) = torch.autograd.grad(energy.sum(), r)
    torch.testing.assert_close(potential.slope(r), slope, rtol=1e-12, atol=1e-12)
    assert bool((energy[r > potential.range] == 0).all())


def test_named_potentials_have_their_textbook_values():
    r = torch.tensor([1.0, 2 ** (1 / 6), 2.0], dtype=F64)
    lj = torch.tensor([0.0, -2.0, 8 * (2.0**-12 - 2.0**-6)], dtype=F64)
    torch.testing.assert_close(sg.LennardJones(2.0).energy(r), lj)
    torch.testing.assert_close(sg.WCA(2.0).energy(r), torch.tensor([2.0, 0.0, 0.0], dtype=F64))
    harmonic = sg.HarmonicRepulsion(3.0, 1.5).energy(r)
    torch.testing.assert_close(
        harmonic, torch.tensor([0.375, 1.5 * (1.5 - 2 ** (1 / 6)) ** 2, 0.0], dtype=F64)
    )
    yukawa = sg.Yukawa(2.0, 0.5, 3.0).energy(r)[2]
    assert float(yukawa) == pytest.approx(2 * 0.25 * math.exp(-6))
    assert float(sg.GaussianCore(2.0, 2.0).energy(r)[2]) == pytest.approx(2 / math.e)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_bits_do_not_depend_on_the_history_of_a_list(monkeypatch, dtype):
    """A walk with jumps across the box and blocks that take turns, against lists of all pairs."""
    box = (16.0, 12.0)
    trees = []

    def counted(*arguments):
        trees.append(arguments)
        return tree_of(*arguments)

    tree_of = neighbours.tree_of
    monkeypatch.setattr(neighbours, "tree_of", counted)
    listed = sg.PairForces(sg.HarmonicRepulsion(50.0), box=box)
    gen = torch.Generator().manual_seed(1)
    states = [lattice(14, 2, 12.0, batch=2, dtype=dtype, seed=k) for k in (0, 1)]
    for step in range(16):
        for k, x in enumerate(states):
            move = 0.02 * torch.randn(x.shape, generator=gen, dtype=dtype)
            if step % 5 == 2 * k:  # a particle that crosses the box, one system alone
                move[k, step] += 5.0
            x = x + move
            if step % 3 == 0:
                x = torch.remainder(x, torch.tensor(box, dtype=dtype))
            states[k] = x
            force, energy = listed.force(x), listed.energy(x)
            with monkeypatch.context() as patch:
                patch.setattr(neighbours, "_FEW_PARTICLES", 10**6)
                alone = sg.PairForces(sg.HarmonicRepulsion(50.0), box=box)
                assert torch.equal(force, alone.force(x))
                assert torch.equal(energy, alone.energy(x))
            assert force.abs().max() > 1
    assert 4 < len(trees) < 0.7 * 16 * 4  # steps and systems


def test_no_pair_is_missed_by_particles_that_meet_head_on():
    """Two that approach each other in steps just below half of the skin, among many at rest."""
    pairs = sg.PairForces(lambda r: (1 - r) ** 2, box=60.0, cutoff=1.0)
    x = torch.arange(200, dtype=F64)[None, :, None] * 0.0 + torch.linspace(5, 55, 200)[:, None]
    x = torch.cat([x, torch.rand(1, 200, 1, dtype=F64)], -1)
    x[0, :, 1] = 30.0 + 25.0 * (torch.arange(200) % 2)
    y = torch.tensor([[2.0, 40.0], [5.0, 40.0]], dtype=F64)
    x = torch.cat([x, y[None]], 1)
    for k in range(60):
        x[0, -2, 0] += 0.0249
        x[0, -1, 0] -= 0.0249
        r = 3.0 - 2 * 0.0249 * (k + 1)
        expected = 2 * (1 - r) if r < 1 else 0.0
        assert float(pairs.force(x)[0, -1, 0]) == pytest.approx(expected, abs=1e-12)


def test_lists_follow_no_copy():
    pairs = sg.PairForces(sg.HarmonicRepulsion(9.0), box=20.0)
    x = lattice(15, 2, 20.0)
    force = pairs.force(x)
    for other in (copy.deepcopy(pairs), pickle.loads(pickle.dumps(pairs)), copy.copy(pairs)):
        assert torch.equal(other.force(x), force)


def _two(pairs, dim, length, temperature):
    """Z of two particles, and ⟨P⟩ of their states, by quadrature over their distance."""
    n = 4000
    r = (torch.arange(n, dtype=F64) + 0.5) / n * 1.2  # beyond it nothing acts
    x = torch.zeros(n, 2, dim, dtype=F64)
    x[:, 1, -1] = r
    shell = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[dim] * r ** (dim - 1) * 1.2 / n
    weights = shell * torch.exp(-pairs.energy(x) / temperature)
    free = length**dim - {1: 2.4, 2: math.pi * 1.44, 3: 4 / 3 * math.pi * 1.728}[dim]
    z = free + float(weights.sum())
    ideal = 2 * temperature / length**dim
    mean = (free * ideal + float((weights * pairs.pressure(x, temperature)).sum())) / z
    return z * length**dim, mean


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_pressure_of_two_particles_is_that_of_their_partition_function(dim):
    """P = T ∂ ln Z/∂V, Z by quadrature over all states, at a box of 2.6 σ."""
    temperature, box, h = 0.8, 2.6, 1e-3
    boxes = (box - h, box, box + h)
    pairs = [sg.PairForces(lambda r: 3 * (1.2 - r) ** 3, box=b, cutoff=1.2) for b in boxes]
    (z_less, _), (_, mean), (z_more, _) = (_two(p, dim, p.box, temperature) for p in pairs)
    slope = (math.log(z_more) - math.log(z_less)) / ((box + h) ** dim - (box - h) ** dim)
    assert mean == pytest.approx(temperature * slope, rel=2e-6)
    assert mean > 1.02 * 2 * temperature / box**dim  # the ideal part alone is not it


def test_the_second_virial_coefficient():
    """P/T = ρ + B₂ ρ² (N − 1)/N of two discs; B₂ = −½ ∫ (e^{−U/T} − 1) d²r in closed form."""
    temperature, box, k = 0.7, 40.0, 5.0
    exact = (
        -math.pi
        * integrate.quad(lambda r: r * math.expm1(-0.5 * k * (1 - r) ** 2 / temperature), 0, 1)[0]
    )
    pairs = sg.PairForces(sg.HarmonicRepulsion(k), box=box)
    r = (torch.arange(4000, dtype=F64) + 0.5) / 4000  # what is nearer than σ; beyond it W = 0
    x = torch.stack([torch.zeros(4000, 2, dtype=F64), torch.stack([r, 0 * r], 1)], 1)
    boltzmann = torch.exp(-pairs.energy(x) / temperature) * 2 * math.pi * r / 4000
    z = box**2 - math.pi + float(boltzmann.sum())
    virial = float((boltzmann * pairs.virial(x)).sum()) / z
    b2 = virial / (2 * temperature * box**2) / (2 * 1 / box**4)
    assert b2 == pytest.approx(exact * box**2 / z, rel=1e-5)


def test_a_ring_of_soft_rods_has_its_exact_pressure():
    """On a line neighbours alone interact, and Z(L) = (L/N) (e^{−U/T})^{*N}(L), by convolution.

    96 systems of 12 rods; the mean over time of each is one number, so that the error is that of
    96; 5 errors, and 1 % for the step: 6e-7.
    """
    temperature, k, rods, box = 1.0, 100.0, 12, 17.0
    pairs = sg.PairForces(sg.HarmonicRepulsion(k), box=box)
    start = (torch.arange(rods, dtype=F64) * box / rods)[None, :, None].expand(96, -1, -1)
    path = sg.simulate(
        sg.Langevin(pairs, temperature),
        start,
        torch.linspace(0, 6, 61),
        solver=sg.EulerMaruyama(substeps=50),
        rng=3,
    )
    each = torch.stack([pairs.pressure(x, temperature) for x in path.states[16:]]).mean(0)
    mean, error = float(each.mean()), float(each.std()) / 96**0.5

    h = 2e-3
    r = np.arange(round(box / h) + 2) * h
    weight = np.exp(-0.5 * k * np.maximum(0.0, 1 - r) ** 2 / temperature)
    chain = weight
    for _ in range(rods - 1):
        chain = signal.fftconvolve(chain, weight)[: len(r)] * h
    log_z = np.log(chain[[-3, -1]]) + np.log(r[[-3, -1]])
    exact = temperature * (log_z[1] - log_z[0]) / (2 * h)
    assert exact > 1.8 * rods / box * temperature  # far from ideal
    assert abs(mean - exact) < 5 * error + 0.01 * exact


def test_an_external_potential_acts_on_each_particle():
    x = lattice(3, 2, 6.0)
    alone = sg.PairForces(sg.HarmonicRepulsion(4.0, 2.0))
    trapped = sg.PairForces(sg.HarmonicRepulsion(4.0, 2.0), external=sg.Quadratic(1.5))
    torch.testing.assert_close(trapped.force(x), alone.force(x) - 1.5 * x)
    torch.testing.assert_close(trapped.energy(x), alone.energy(x) + 0.75 * x.square().sum((1, 2)))
    given = sg.PairForces(sg.HarmonicRepulsion(4.0, 2.0), external=lambda x: 0.75 * x**2)
    torch.testing.assert_close(given.force(x), trapped.force(x))


def test_it_is_a_drift_and_a_potential():
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0), box=5.0)
    x, times = lattice(5, 2, 5.0, batch=3), torch.linspace(0, 0.2, 11)
    one = sg.simulate(sg.Langevin(pairs, 0.5), x, times, rng=0)
    two = sg.simulate(sg.ItoProcess(pairs, 1.0), x, times, rng=0)
    assert torch.equal(one.states, two.states)
    assert not bool(one.nonfinite.any())


def test_threads_and_blocks_do_not_show(monkeypatch):
    """Blocks of lists, whose threads take them in another order each time: one set of bits."""
    monkeypatch.setattr(blocks, "_NUMBERS", {"cpu": 640})
    monkeypatch.setattr(blocks, "_FEWEST_ROWS", 20)

    def mean(threads, few):
        monkeypatch.setattr(neighbours, "_FEW_PARTICLES", few)
        pairs = sg.PairForces(sg.HarmonicRepulsion(20.0), box=12.0)
        run = sg.run_ensemble(
            sg.Langevin(pairs),
            lattice(4, 2, 12.0).expand(50, -1, -1),
            torch.linspace(0, 0.1, 11),
            observables=[sg.Moments()],
            trajectories=50,
            threads=threads,
            rng=0,
        )
        return run.observables["moments"].mean

    one = mean(1, 10)
    assert torch.equal(mean(2, 10), one)
    assert torch.equal(mean(2, 1000), one)


def test_gradients_are_those_of_differences():
    x = lattice(3, 2, 4.0).requires_grad_()
    stiffness = torch.tensor(7.0, dtype=F64, requires_grad=True)
    times = torch.linspace(0, 0.3, 7)

    def end(x, k):
        pairs = sg.PairForces(sg.HarmonicRepulsion(k, 1.9), box=4.0)
        path = sg.simulate(sg.Langevin(pairs, 0.3), x, times, rng=0, differentiable=True)
        return path.states[-1].square().sum()

    by_x, by_k = torch.autograd.grad(end(x, stiffness), (x, stiffness))
    h = 1e-5
    with torch.no_grad():
        along = torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
        ups = [float(end(x + s * h * along, stiffness)) for s in (1, -1)]
        assert (ups[0] - ups[1]) / (2 * h) == pytest.approx(float((by_x * along).sum()), rel=1e-6)
        ups = [float(end(x, stiffness + s * h)) for s in (1, -1)]
        assert (ups[0] - ups[1]) / (2 * h) == pytest.approx(float(by_k), rel=1e-6)


def test_wrapped_and_unwrapped_coordinates_make_one_motion():
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0), box=5.0)
    x, times = lattice(5, 2, 5.0, spread=0.1) % 5.0, torch.linspace(0, 1.0, 51)
    free = sg.simulate(sg.Langevin(pairs), x, times, rng=0)
    wrapped = sg.simulate(
        sg.Langevin(pairs), x, times, rng=0, boundary=sg.Periodic(0.0, 5.0, coordinates="all")
    )
    assert float(free.states.max()) > 5.1
    gap = (free.states - wrapped.states + 2.5) % 5.0 - 2.5
    assert float(gap.abs().max()) < 1e-10


def test_a_lost_system_is_lost_alone():
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0), box=5.0)
    x = lattice(5, 2, 5.0, batch=3)
    x[1, 3, 0] = math.nan
    for function in (pairs.energy, pairs.force, pairs.virial):
        value = function(x)
        assert bool(value[1].isnan().all())
        assert torch.equal(value[[0, 2]], function(x[[0, 2]]))


def test_particles_that_coincide_are_named():
    x = lattice(5, 2, 5.0, batch=300)
    x[290, 7] = x[290, 3]
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0), box=5.0)
    said = "between particles 3 and 7 of system 290 is not finite: they start 0 apart"
    for sde in (sg.Langevin(pairs), sg.ItoProcess(pairs, 1.0)):
        with pytest.raises(ValueError, match=said):
            sg.simulate(sde, x, torch.linspace(0, 0.1, 3), rng=0)
    lj = sg.PairForces(sg.LennardJones(), box=5.0, cutoff=2.0)
    x[290, 7, 0] += 1e-30
    with pytest.raises(ValueError, match=said):
        sg.simulate(sg.Langevin(lj), x, torch.linspace(0, 0.1, 3), rng=0)
    flat = sg.PairForces(sg.GaussianCore(), box=5.0, cutoff=2.0)  # which has no force at r = 0
    assert bool(flat.force(x).isfinite().all())
    flat.check_start(x)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"box": 1.9}, ValueError, r"two cutoffs long, 2 × 1, .* but is 1\.9; .* cutoff=0\.95"),
        ({"box": (9.0, 1.5)}, ValueError, r"two cutoffs long, 2 × 1, .* but is 1\.5"),
        ({"box": -3.0}, ValueError, "box"),
        ({"box": [[3.0]]}, ValueError, r"shape \(1, 1\)"),
        ({"box": "large"}, TypeError, "box"),
        ({"cutoff": -1.0}, ValueError, "cutoff"),
        ({"cutoff": 0.0}, ValueError, "cutoff"),
        ({"cutoff": math.nan}, ValueError, "cutoff"),
        ({"cutoff": "far"}, TypeError, "cutoff"),
        ({"potential": 3.0}, TypeError, "pair potential such as"),
        ({"potential": sg.WCA}, TypeError, r"pass WCA\(\)"),
        (
            {"potential": sg.Yukawa(), "box": 5.0},
            ValueError,
            r"no range; pass cutoff=, at most 2\.5",
        ),
        ({"potential": lambda r: r.sum(), "cutoff": 1.0}, ValueError, r"shape \(2,\), but ret"),
        ({"potential": lambda r: 1 / (r - 1), "cutoff": 1.0}, ValueError, "finite up to the"),
        ({"potential": lambda r: r**2 + 9 * r.detach(), "cutoff": 1.0}, ValueError, "hidden"),
        ({"external": 3.0}, TypeError, "potential must be"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        sg.PairForces(**{"potential": sg.HarmonicRepulsion()} | arguments)


def test_states_of_another_shape_are_refused():
    pairs = sg.PairForces(sg.HarmonicRepulsion(), box=(5.0, 6.0))
    with pytest.raises(
        ValueError, match=r"\(batch, particles, dim\), but .* pass x\[\.\.\., None"
    ):
        pairs.force(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"box has 2 lengths, .* but positions have dim = 3"):
        pairs.energy(torch.zeros(3, 4, 3))
    with pytest.raises(ValueError, match="box is None"):
        sg.PairForces(sg.WCA()).pressure(torch.zeros(1, 2, 2), 1.0)
    with pytest.raises(ValueError, match="external potential acts too, Quadratic"):
        sg.PairForces(sg.WCA(), box=5.0, external=sg.Quadratic()).pressure(
            torch.zeros(1, 2, 2), 1.0
        )


@pytest.mark.parametrize(("box", "period"), [(5.0, 2.5), (5.0, 7.0), (None, 5.0)])
def test_a_period_that_is_not_the_box_is_refused(box, period):
    """A lattice so dilute that no force tells the one from the other."""
    pairs = sg.PairForces(sg.HarmonicRepulsion(4.0, 0.3), box=box)
    x, boundary = lattice(2, 2, 2.4, spread=0.1) + 0.3, sg.Periodic(0.0, period, coordinates="all")
    with pytest.raises(ValueError, match=f"period {period:g} in dimension 0, but the particles"):
        sg.simulate(sg.Langevin(pairs), x, torch.linspace(0, 0.1, 3), rng=0, boundary=boundary)


def test_a_period_that_pairs_do_not_have_is_seen_of_any_drift():
    """A drift of differences is the same if all coordinates are shifted; not if some are."""

    def drift(x):
        return torch.sin(x - x.roll(1, 1))

    boundary = sg.Periodic(0.0, 5.0, coordinates="all")
    x = torch.tensor([[0.1, 1.3, 2.2, 3.9]], dtype=F64)
    with pytest.raises(ValueError, match="is no period of the drift"):
        sg.simulate(
            sg.ItoProcess(drift, 1.0), x, torch.linspace(0, 1, 9), boundary=boundary, rng=0
        )
    boundary = sg.Periodic(0.0, 2 * math.pi, coordinates="all")
    sg.simulate(sg.ItoProcess(drift, 1.0), x, torch.linspace(0, 1, 90), boundary=boundary, rng=0)


def test_compiled_runs_are_refused():
    pairs = sg.PairForces(sg.HarmonicRepulsion(), box=5.0)
    with pytest.raises(ValueError, match=r"Langevin could not be compiled"):
        sg.simulate(
            sg.Langevin(pairs),
            lattice(5, 2, 5.0),
            torch.linspace(0, 0.1, 3),
            solver=sg.EulerMaruyama(compile=True),
            rng=0,
        )


def test_systems_do_not_feel_each_other(monkeypatch):
    """The probe for interacting trajectories does not take particles for trajectories."""
    surveys = []
    monkeypatch.setattr(
        "sdegen.engine.simulate.survey",
        lambda *a, **k: surveys.append(callables.survey(*a, **k)) or surveys[-1],
    )
    pairs = sg.PairForces(sg.LennardJones(), box=7.0, cutoff=2.5)
    x = lattice(6, 2, 7.0, batch=5, spread=0.02)
    sg.simulate(sg.Langevin(pairs), x, torch.linspace(0, 2e-3, 21), rng=0)
    assert [found.together for found in surveys] == [False]


@pytest.mark.parametrize("dynamics", [sg.Langevin, sg.UnderdampedLangevin])
def test_a_driven_potential_is_looked_at_where_it_starts(dynamics):
    """As one that nothing drives: pairs that overlap, and a period that is not the box's."""
    driven = dynamics(sg.DrivenPotential(lambda t: sg.PairForces(sg.WCA(1.0 + float(t)), box=9.0)))
    x = torch.tensor([[[0.0, 0.0], [3.0, 3.0], [3.0, 3.0]]], dtype=torch.float64)
    apart = x + torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)[:, None]
    if dynamics is sg.UnderdampedLangevin:
        x, apart = driven.state(x, 0.0), driven.state(apart, 0.0)
    times = torch.tensor([0.0, 1e-3], dtype=torch.float64)
    with pytest.raises(ValueError, match="particles 1 and 2 of system 0 is not finite"):
        sg.simulate(driven, x, times, rng=0)
    other = sg.Periodic(0.0, 8.0, coordinates="all")
    with pytest.raises(ValueError, match=r"period 8 in dimension 0, .* a box of 9"):
        sg.simulate(driven, apart, times, rng=0, boundary=other)
    own = sg.Periodic(0.0, 9.0, coordinates="all")
    assert not bool(sg.simulate(driven, apart, times, rng=0, boundary=own).nonfinite.any())


def test_a_pair_potential_of_more_than_the_distance_is_refused():
    with pytest.raises(TypeError, match="of distances alone"):
        sg.PairForces(lambda r, t: r * t, cutoff=1.0)
