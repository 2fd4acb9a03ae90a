"""Work, heat and entropy: the first law to rounding, chains against their exact law, Jarzynski."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64
V, END = 1.327, 2.0  # a trap of stiffness 1 that is dragged: ⟨W⟩ = 2 T = var W/2T
N = 20_000


def trap(x, t):
    return (x - V * t) ** 2 / 2


def rest(n=N, rng=0):
    return torch.randn(n, 1, dtype=F64, generator=torch.Generator().manual_seed(rng))


def driven(sde, x0, solver, wanted, times=(0.0, END), rng=0, **options):
    return sg.simulate(sde, x0, list(times), solver=solver, functionals=wanted, rng=rng, **options)


def chain_work(steps, heun, k=1.0):
    """Mean and variance of W of the chain in the dragged trap: (X, W) is Gaussian and linear.

    With u = x − v t: the step of W is −k v dt (u_i + u_{i+1})/2 + …, written out below.
    """
    dt = END / steps
    mean, cov = np.zeros(2), np.diag([1 / k, 0.0])
    for i in range(steps):
        t, s = i * dt, (i + 1) * dt
        a, b, noise = 1 - k * dt, k * dt * V * t, math.sqrt(2 * dt)
        if heun:
            a = 1 - k * dt / 2 - k * dt / 2 * (1 - k * dt)
            b = k * dt / 2 * V * (t + s) - k * dt / 2 * k * dt * V * t
            noise *= 1 - k * dt / 2
        # ½ Σ over x and y of [U(·, s) − U(·, t)] = −k v dt (x + y)/2 + k v² (s² − t²)/2
        c = -k * V * dt / 2
        A = np.array([[a, 0.0], [c * (1 + a), 1.0]])
        shift = np.array([b, c * b + k * V**2 * (s**2 - t**2) / 2])
        B = np.array([noise, c * noise])
        mean, cov = A @ mean + shift, A @ cov @ A.T + np.outer(B, B)
    return mean[1], cov[1, 1]


@pytest.mark.parametrize("heun", [False, True])
def test_work_has_the_law_of_the_chain(heun):
    """Mean and variance of W against those of the chain, and its order against ⟨W⟩ = 2 T."""
    exact = V**2 * (END - 1 + math.exp(-END))
    gaps = [chain_work(n, heun)[0] - exact for n in (20, 40)]
    assert gaps[0] / gaps[1] == pytest.approx(4 if heun else 2, rel=0.1)
    mean, variance = chain_work(20, heun)
    solver = (sg.Heun if heun else sg.EulerMaruyama)(20)
    work = driven(sg.Langevin(trap), rest(), solver, [sg.Work()]).functionals["work"][-1]
    assert abs(float(work.mean()) - mean) < 4.42 * math.sqrt(variance / N)
    assert abs(float(work.var()) / variance - 1) < 4.42 * math.sqrt(2 / N)


SYSTEMS = {
    "overdamped": sg.Langevin(trap),
    "a function of t": sg.Langevin(
        sg.DrivenPotential(lambda t: sg.Quadratic(1.0 + float(t), center=float(t)))
    ),
    "phase space": sg.UnderdampedLangevin(trap, friction=0.7, mass=2.0),
    "friction of x": sg.UnderdampedLangevin(trap, friction=lambda x: 1 + x**2),
    "at rest": sg.Langevin(sg.DoubleWell(), 0.3),
}


def states_of(sde, n=200):
    return sde.state(rest(n), sde.draw_velocities(rest(n), 1)) if sde.phase_space else rest(n)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_first_law_holds_path_by_path(name):
    sde = SYSTEMS[name]
    wanted = [sg.Heat(), sg.MediumEntropy()] + ([] if name == "at rest" else [sg.Work()])
    path = driven(sde, states_of(sde), None if sde.phase_space else sg.Heun(10), wanted,
                  torch.linspace(0, END, 41, dtype=F64))  # fmt: skip

    def energy(x, t):
        if sde.phase_space:
            return sde.energy(x, t)
        U = sde.potential
        return U.energy(x) if name == "at rest" else U.energy_at(x, t)

    energies = torch.stack([energy(x, t) for x, t in zip(path.states, path.times, strict=True)])
    heat, work = path.functionals["heat"], path.functionals.get("work", 0.0)
    torch.testing.assert_close(energies - energies[0], heat + work, rtol=0, atol=1e-11)
    torch.testing.assert_close(path.functionals["medium_entropy"], -heat / sde.temperature)
    assert float(heat[-1].abs().mean()) > 0.1


def test_heat_of_energies_and_of_forces_agree_to_the_step():
    """Q = ΔE − W and −∫ f ∘ dX of the same paths: the rms of their difference is O(dt)."""
    of_drift = sg.ItoProcess(lambda x, t: V * t - x**3, math.sqrt(2.0))
    of_energy = sg.Langevin(lambda x, t: x**4 / 4 - V * t * x)
    gaps = []
    for steps in (50, 100, 200):
        both = [
            driven(sde, rest(500), sg.EulerMaruyama(steps), [sg.Heat()]).functionals["heat"][-1]
            for sde in (of_energy, of_drift)
        ]
        gaps.append(float((both[0] - both[1]).square().mean().sqrt()))
    assert gaps[2] < 0.1
    assert gaps[0] / gaps[1] > 1.7
    assert gaps[1] / gaps[2] > 1.7


def test_jarzynski_holds_to_the_order_of_the_solver():
    """⟨e^{−W/T}⟩ = 1 in a dragged trap, and √(k0/k1) in one that stiffens; 20,000 each.

    Steps of Heun at dt = 0.05 are biased by 4·10⁻⁴ and 6·10⁻⁴ in ΔF (a transfer operator), a
    fiftieth of the errors; false alarm 1e-5.
    """
    stiff = sg.Langevin(lambda x, t: (1 + 3 * t / END) * x**2 / 2)
    soft = sg.UnderdampedLangevin(lambda x, t: (1 + 3 * t / END) * x**2 / 2, friction=2.0)
    for sde, free in ((stiff, math.log(4) / 2), (soft, math.log(4) / 2)):
        x0 = sde.state(rest(), sde.draw_velocities(rest(), 1)) if sde.phase_space else rest()
        solver = sg.BAOAB(80) if sde.phase_space else sg.Heun(80)
        work = driven(sde, x0, solver, [sg.Work()]).functionals["work"][-1]
        weight = torch.exp(-work)
        error = float(weight.std()) / math.sqrt(N)
        assert abs(float(weight.mean()) - math.exp(-free)) < 4.42 * error
        assert error < 0.005


def test_jumps_and_kinks_of_a_protocol_count():
    """U = k x²/2 with k from 1 to 4 at once: W = 3 x²/2 at the jump, wherever it is in a step."""

    def jump(x, t):
        return torch.where(t < 0.55, 1.0, 4.0) * x**2 / 2

    frozen = sg.Langevin(jump, 0.0)  # without noise: x = e^{−t} up to the jump
    one = torch.ones(2, 1, dtype=F64)
    with pytest.warns(sg.AccuracyWarning, match=r"jumps between t = 0\.549 and 0\.55: in"):
        path = driven(frozen, one, sg.Heun(1000), [sg.Work()], (0.0, 1.0))
    assert float(path.functionals["work"][-1, 0]) == pytest.approx(1.5 * math.exp(-1.1), rel=3e-3)


@pytest.mark.parametrize(
    "center",
    [
        lambda t: (t - 0.55).clamp(min=0.0),
        lambda t: torch.sin(200 * t),
        lambda t: torch.tanh(20 * (t - 0.55)),
        lambda t: 0 * t,
    ],
    ids=["a kink", "waves of 31 steps", "a front of 50 steps", "nothing moves"],
)
def test_protocols_that_are_continuous_are_not_told_to_jump(center):
    """Warnings are errors here."""
    sde = sg.Langevin(lambda x, t: (x - center(t)) ** 2 / 2)
    path = driven(sde, torch.ones(2, 1, dtype=F64), sg.Heun(1000), [sg.Work()], (0.0, 1.0))
    assert bool(path.functionals["work"].isfinite().all())


def test_heat_around_a_ring_is_the_work_of_the_tilt():
    """P01: on the line. At rest heat is given off at F v, with the exact drift v of the ring."""
    force, T, length = 1.9, 0.5, 2 * math.pi
    grid = sg.Grid(0.0, length, 200)
    ring = sg.ItoProcess(lambda x: force - torch.sin(x), math.sqrt(2 * T))
    stationary = sg.FokkerPlanck(ring, grid, "periodic").stationary()
    v = length * float(sg.FokkerPlanck(ring, grid, "periodic").current(stationary).mean())
    work = sg.Work(force=lambda x: force + 0 * x)
    inside, t = sg.Periodic(0.0, length), 10.0
    for sde in (ring, sg.Langevin(lambda x: -torch.cos(x) - force * x, T)):
        path = driven(
            sde, rest(400).remainder(length), sg.Heun(150),
            [sg.Heat(), sg.MediumEntropy(), work], (0.0, t / 2, t), boundary=inside,
        )  # fmt: skip
        found = {k: x[2] - x[1] for k, x in path.functionals.items()}
        moved = (path.unwrapped[2] - path.unwrapped[1])[:, 0]
        torch.testing.assert_close(found["work"], force * moved, rtol=1e-9, atol=1e-9)
        error = 4.42 * float(found["heat"].std()) / 20
        assert abs(-float(found["heat"].mean()) - force * v * t / 2) < error
        torch.testing.assert_close(found["medium_entropy"], -found["heat"] / T)


def test_the_entropy_of_a_rotating_process_satisfies_the_fluctuation_theorem():
    """⟨e^{−σ}⟩ = 1, ⟨σ⟩ = 2 ω² t/k at rest, and with channels the same as with diagonal noise."""
    k, w, t = 1.0, 1.0, 0.6
    A = torch.tensor([[k, -w], [w, k]], dtype=F64)
    x0 = torch.randn(N, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    c, s = math.cos(0.4), math.sin(0.4)
    turned = math.sqrt(2) * torch.tensor([[c, -s], [s, c]], dtype=F64)
    processes = (
        sg.ItoProcess(lambda x: -x @ A.T, math.sqrt(2)),
        sg.ItoProcess(lambda x: -x @ A.T, turned, channels=2),
    )
    for sde in processes:
        path = driven(sde, x0, sg.Heun(60), [sg.MediumEntropy()], (0.0, t))
        change = (path.final.square().sum(1) - x0.square().sum(1)) / 2  # ln p0(X_0)/p0(X_t)
        total = path.functionals["medium_entropy"][-1] + change
        weight = torch.exp(-total)
        assert abs(float(weight.mean()) - 1) < 4.42 * float(weight.std()) / math.sqrt(N)
        error = 4.42 * float(total.std()) / math.sqrt(N)
        assert abs(float(total.mean()) - 2 * w**2 * t / k) < error


def test_medium_entropy_takes_noise_that_changes_in_time():
    """D(t) = (1 + t)²/2 and f = 1: ∫ f/D dX on average ∫ 2/(1 + t)² dt = 1 at t = 1."""
    sde = sg.ItoProcess(lambda x: torch.ones_like(x), lambda t: 1 + t)
    path = driven(sde, rest(5000), sg.Heun(50), [sg.MediumEntropy()], (0.0, 1.0))
    values = path.functionals["medium_entropy"][-1]
    error = 4.42 * float(values.std()) / math.sqrt(5000)
    assert abs(float(values.mean()) - 1) < error + 1e-4


# --- refusals


class ForceAlone:
    def force(self, x):
        return -x


class Mismatched(sg.Potential):
    def energy(self, x):
        return x.square().flatten(1).sum(1)

    def force(self, x):
        return -x


class Columns(sg.Potential):
    def energy(self, x):
        return x.square() / 2

    def force(self, x):
        return -x


class Pushed(sg.Langevin):
    """A force without a potential, beside one."""

    def drift(self, x, t):
        return super().drift(x, t) + 1.0


@pytest.mark.parametrize(
    ("sde", "one", "kind", "told"),
    [
        (sg.Langevin(sg.DoubleWell()), sg.Work(), ValueError, "has one that does not change; pa"),
        (sg.BrownianMotion(), sg.Work(), ValueError, "BrownianMotion has no potential; pass pot"),
        (sg.Langevin(ForceAlone()), sg.Heat(), ValueError, r"has a force alone; give it energy"),
        (sg.Langevin(Mismatched()), sg.Heat(), ValueError, r"Let force\(x\) return −∇U"),
        (sg.Langevin(Columns()), sg.Heat(), ValueError, r"shape \(2, 1\); sum it over the coord"),
        (
            sg.Langevin(lambda x, t: torch.where(t > 0.7, torch.nan, 1.0) * x**2),
            sg.Work(),
            ValueError,
            "the potential is .nan, nan. at t = ",
        ),
        (
            sg.Langevin(lambda x, t: x**2 / 2 + t * x.detach() ** 2),  # hidden, and 0 at first
            sg.Work(),
            ValueError,
            "a part of it is hidden from autograd",
        ),
        (
            sg.Langevin(lambda x, t: (x - t) ** 2),
            sg.Work(force=lambda x: x[:, 0]),
            ValueError,
            r"force must return x's shape",
        ),
        (
            sg.ItoProcess(lambda x: -x, lambda x: 1 + x**2),
            sg.MediumEntropy(),
            ValueError,
            "ItoProcess has multiplicative noise; take Langevin",
        ),
        (sg.ItoProcess(lambda x: -x, 0.0), sg.Heat(), ValueError, "has no noise; take Langevin"),
        (sg.ItoProcess(lambda x: -x, 0.0), sg.MediumEntropy(), ValueError, "no temperature; Heat"),
        (
            sg.ItoProcess(lambda x: -x, lambda t: torch.tensor([0.0])),
            sg.MediumEntropy(),
            ValueError,
            "is singular at t = 0: .*, take UnderdampedLangevin",
        ),
    ],
)
def test_what_has_no_work_or_heat_is_refused(sde, one, kind, told):
    with pytest.raises(kind, match=told):
        driven(sde, rest(4), sg.EulerMaruyama(20), [one], (0.0, 1.0))


def test_words_are_refused_where_they_are_said():
    with pytest.raises(TypeError, match="potential must be a Potential"):
        sg.Work(3.0)
    with pytest.raises(TypeError, match="force must be a function"):
        sg.Work(force=3.0)
    with pytest.raises(TypeError, match=r"force takes \(t, x\), time before the state"):
        sg.Work(force=lambda t, x: x)


def test_a_force_beside_the_potential_is_in_the_heat():
    """Of a subclass with a drift of its own the heat is that of its drift: 1 of 1·Δx more."""
    path = driven(Pushed(sg.Quadratic(1.0)), rest(50), sg.EulerMaruyama(200),
                  [sg.Heat(), sg.Work(force=lambda x: torch.ones_like(x))])  # fmt: skip
    energy = path.states.square()[..., 0] / 2
    gap = path.functionals["heat"] + path.functionals["work"] - (energy - energy[0])
    assert float(gap.abs().max()) < 0.1
    assert float(path.functionals["work"].abs().max()) > 1


def test_reverse_dynamics_have_no_heat():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    score = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(vp).score
    with pytest.raises(ValueError, match="runs backwards in time; take TimeIntegral"):
        sg.simulate(sg.ReverseSDE(vp, score), rest(4), [0.9, 0.5], functionals=[sg.Heat()])


class Cold(sg.Langevin):
    """Noise of its own, at a quarter of the temperature that it says."""

    def __init__(self, potential):
        super().__init__(potential)
        self.constant_noise = None

    def diffusion(self, x, t):
        return 0.5 * super().diffusion(x, t)


class ColdParticle(sg.UnderdampedLangevin):
    """The same in a phase space."""

    def diffusion(self, x, t):
        return 0.5 * super().diffusion(x, t)


def test_noise_of_a_subclass_has_its_own_temperature_in_the_entropy():
    """Δs = −Q/T with the T of the noise, 0.25; of a trap both sums are the same to rounding."""
    wanted = [sg.Heat(), sg.MediumEntropy()]
    run = driven(Cold(sg.Quadratic(1.0)), rest(50), sg.EulerMaruyama(20), wanted)
    heat, entropy = (run.functionals[name][-1] for name in ("heat", "medium_entropy"))
    torch.testing.assert_close(entropy, -heat / 0.25)
    sde = ColdParticle(sg.Quadratic(1.0))
    with pytest.raises(ValueError, match="MediumEntropy needs noise on all coordinates"):
        driven(sde, torch.zeros(4, 2, 1, dtype=F64), sg.EulerMaruyama(20), wanted[1:])
