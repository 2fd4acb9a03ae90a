"""Work, heat and entropy along a path: the first and second law of single trajectories.

**Work** is what changes the potential from outside, and what forces without a potential do:

    W = ∫ ∂U/∂t (X, t) dt + ∫ F ∘ dX

For a step from (x, t) to (y, s) the first integral is, of energies alone,

    ½ [U(x, s) − U(x, t)] + ½ [U(y, s) − U(y, t)]

half of the change of the protocol before the step and half after it. It changes sign where a path
is walked backwards, as Crooks' relation needs it, takes no derivative of the protocol, counts a
kink for what it is, and a jump but for O(dt), which is warned of. With `Heun` (overdamped) and
`BAOAB` (phase space) ⟨e^{−W/T}⟩ is right to O(dt²), with `EulerMaruyama` to O(dt).

**Heat** is what a particle takes up from its bath, Q = ΔE − W, with E = U + m v²/2 in a phase
space; it is negative where work is dissipated. Of energies again, for a step

    Q = ΔK + ½ [U(y, t) − U(x, t)] + ½ [U(y, s) − U(x, s)]

so that E_t − E_0 = W + Q to rounding. Of an overdamped process without a potential, a drift f at
mobility 1, it is −∫ f ∘ dX, which agrees with the former to O(dt).

**Entropy of the medium** is what heat adds to the bath,

    Δs = −Q/T,        or in general  ∫ D⁻¹ f ∘ dX,    D = G Gᵀ/2

for additive noise with D invertible. With ln p(X_0, 0)/p(X_t, t) added it is the entropy that a
trajectory produces, σ, with ⟨e^{−σ}⟩ = 1 at any time.

On a periodic coordinate all are those of the path on the line: a constant force does work around
a ring.

Reference:
    Sekimoto 2010, Stochastic Energetics, sections 4.1 and 5.1; Seifert 2012, Reports on Progress
    in Physics 75, 126001, eqs. (14) to (17) and (29).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.dissipation import diffusivity_of, inverse_times
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import check_function, value_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.core.signature import Signature
from sdegen.observables.base import Block
from sdegen.observables.functionals import Functional, Increments
from sdegen.observables.path_energies import PathEnergies, positions_of, potential_of
from sdegen.observables.path_integrals import StratonovichSum
from sdegen.sde.potentials import AnyPotential, DrivenPotential, as_any_potential
from sdegen.sde.processes import Langevin
from sdegen.sde.underdamped import UnderdampedLangevin

_SINGULAR = 1e-12  # of the largest eigenvalue of D


@dataclass(frozen=True)
class Work(Functional):
    """Work done on each trajectory: by a protocol that changes U(x, t), and by a force F.

        W = ∫ ∂U/∂t (X, t) dt + ∫ F ∘ dX

    Args:
        potential: U(x, t), a `DrivenPotential` or a function; None: that of the dynamics.
        force: F(x, t) without a potential, shape of the positions, which does ∫ F ∘ dX. It is
            part of the drift already, such as the tilt of a washboard.
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: T, where an ensemble averages e^{−W/T} too.

    Raises:
        TypeError: If potential is none, or force no function.

    Example:
        >>> wind = sg.ItoProcess(lambda x: 0 * x + 2.0, 0.0)
        >>> asked = [sg.Work(force=lambda x, t: 0 * x + 2.0)]
        >>> x0, times = torch.zeros(2, 1), [0.0, 1.0]
        >>> run = sg.run_ensemble(wind, x0, times, trajectories=2, observables=asked)
        >>> run.observables["work"].mean.tolist()  # force 2 over a distance of 2
        [0.0, 4.0]
    """

    potential: object = None
    force: Callable[..., Tensor] | None = None
    name: str = field(default="work", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.potential is not None:
            as_any_potential(self.potential)
        if self.force is not None:
            check_function("force", self.force, "a function F(x, t) or F(x)")
            Signature.of(self.force, "force")

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block.

        Raises:
            ValueError: If the dynamics jump or run backwards, or nothing does work.
        """
        sde = block.sde
        _check_dynamics(sde, "Work")
        given = potential_of(sde) if self.potential is None else self.potential
        potential = None if given is None else as_any_potential(given)
        if self.force is None and not isinstance(potential, DrivenPotential):
            has = "has no potential" if potential is None else "has one that does not change"
            raise ValueError(
                f"Work is done by a potential that changes with time, or by a force, but "
                f"{type(sde).__name__} {has}; pass potential=lambda x, t: …, or force=F for a "
                "force without a potential."
            )
        return _Work(self, potential, block)


@dataclass(frozen=True)
class Heat(Functional):
    """Heat that each trajectory takes up from its bath; negative if it heats the bath.

        Q = ΔE − W,     shape (T, batch) of a path

    Of `Langevin` and `UnderdampedLangevin` by their energies; of other processes with additive
    noise on all coordinates it is −∫ f ∘ dX, at mobility 1.

    Args:
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: T, where an ensemble averages e^{−Q/T} too.

    Example:
        >>> trap = sg.Langevin(sg.Quadratic(1.0), temperature=0.5)  # U = x²/2
        >>> x0, times = torch.ones(4, 1), [0.0, 0.1, 0.2]
        >>> path = sg.simulate(trap, x0, times, functionals=[sg.Heat()], rng=0)
        >>> energy = path.states[..., 0].square() / 2
        >>> torch.allclose(path.functionals["heat"], (energy - energy[0]).double(), atol=1e-6)
        True
    """

    name: str = field(default="heat", kw_only=True)

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block.

        Raises:
            ValueError: If the dynamics jump or run backwards, or their noise is not additive or
                does not move all coordinates.
        """
        sde = block.sde
        _check_dynamics(sde, "Heat")
        potential = potential_of(sde)
        if potential is not None:
            return _Heat(potential, block)
        return _Dissipated(_Diffusivity(sde, "Heat"), block)


@dataclass(frozen=True)
class MediumEntropy(Functional):
    """Entropy that each trajectory adds to the medium, in k_B, shape (T, batch) of a path.

        Δs = ∫ D⁻¹ f ∘ dX,     Δs = −Q/T of a potential

    Args:
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: Of ⟨e^{−A/T}⟩, where an ensemble averages that too: 1.0 for ⟨e^{−Δs}⟩. It is
            not the temperature of the bath.

    Example:
        >>> trap = sg.Langevin(sg.Quadratic(1.0), temperature=0.5)
        >>> asked = [sg.Heat(), sg.MediumEntropy()]
        >>> x0, times = torch.ones(4, 1), [0.0, 0.1, 0.2]
        >>> path = sg.simulate(trap, x0, times, functionals=asked, rng=0)
        >>> heat, entropy = (path.functionals[name] for name in ("heat", "medium_entropy"))
        >>> torch.allclose(entropy, -heat / 0.5)
        True
    """

    name: str = field(default="medium_entropy", kw_only=True)

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block.

        Raises:
            ValueError: If the dynamics jump, run backwards or have no noise, or their noise is
                not additive or does not move all coordinates.
        """
        sde = block.sde
        _check_dynamics(sde, "MediumEntropy")
        if sde.noise == "none":
            raise ValueError(
                f"MediumEntropy is that of a bath, but this {type(sde).__name__} has no noise, "
                "and so no temperature; Heat() is the energy."
            )
        potential, own = potential_of(sde), type(sde).diffusion
        # noise of a subclass's own has another temperature
        if potential is not None and own in (Langevin.diffusion, UnderdampedLangevin.diffusion):
            assert isinstance(sde, Langevin | UnderdampedLangevin)
            return _Scaled(-1.0 / value_of(sde.temperature), _Heat(potential, block))
        inverse = _Diffusivity(sde, "MediumEntropy")
        name = "D⁻¹ f"
        return StratonovichSum(lambda x, t: inverse.solved(x, t, sde.drift(x, t)), block, name)


class _Work(Increments):
    """½ [U(x, s) − U(x, t) + U(y, s) − U(y, t)] + ½ (F_i + F_{i+1}) · Δx."""

    def __init__(self, about: Work, potential: AnyPotential | None, block: Block) -> None:
        driven = isinstance(potential, DrivenPotential)
        self._energies = (
            PathEnergies(potential, block) if potential is not None and driven else None
        )
        self._forces: StratonovichSum | None = None
        self._place = positions_of(block.sde)
        if about.force is not None:
            read = Signature.of(about.force, "force").function
            self._forces = StratonovichSum(read, block, "force")

    def start(self, x: State) -> Tensor:
        if self._energies is not None:
            self._energies.check(x)
            self._now = self._energies.at(x, 0)
        if self._forces is not None:
            self._forces.start(self._place(x))
        return super().start(x)

    def step(self, i: int, before: State, after: State) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=before.device)
        if self._energies is not None:
            at, then = self._energies.at, self._energies.at(after, i + 1)
            total = (at(before, i + 1) - self._now + then - at(after, i)) / 2
            self._now = then
        if self._forces is not None:
            total = total + self._forces.step(i, self._place(before), self._place(after))
        return total


class _Heat(Increments):
    """ΔK + ½ [U(y, t) − U(x, t) + U(y, s) − U(x, s)]."""

    def __init__(self, potential: AnyPotential, block: Block) -> None:
        self._energies = PathEnergies(potential, block)
        self._driven = isinstance(potential, DrivenPotential)

    def start(self, x: State) -> Tensor:
        self._energies.check(x)
        self._now, self._kinetic = self._energies.at(x, 0), self._energies.kinetic(x)
        return super().start(x)

    def step(self, i: int, before: State, after: State) -> Tensor:
        at, kinetic = self._energies.at, self._energies.kinetic(after)
        then = at(after, i + 1)
        heat = then - self._now
        if self._driven:
            heat = (heat + at(after, i) - at(before, i + 1)) / 2
        heat = heat + kinetic - self._kinetic
        self._now, self._kinetic = then, kinetic
        return heat


class _Dissipated(StratonovichSum):
    """−½ (f_i + f_{i+1}) · ΔX of dynamics at mobility 1."""

    def __init__(self, diffusivity: _Diffusivity, block: Block) -> None:
        super().__init__(block.sde.drift, block, "the drift")
        self._diffusivity = diffusivity

    def start(self, x: State) -> Tensor:
        self._diffusivity(x, self._ts[0])  # refuses noise on some coordinates alone
        return super().start(x)

    def step(self, i: int, before: State, after: State) -> Tensor:
        return -super().step(i, before, after)


class _Scaled(Increments):
    """Another functional, times a number."""

    def __init__(self, factor: float, of: Increments) -> None:
        self._factor, self._of = factor, of

    def start(self, x: State) -> Tensor:
        return self._of.start(x)

    def step(self, i: int, before: State, after: State) -> Tensor:
        return self._factor * self._of.step(i, before, after)


class _Diffusivity:
    """D of additive noise that moves all coordinates."""

    def __init__(self, sde: SDE, name: str) -> None:
        kind = type(sde).__name__
        if sde.noise != "additive":
            what = "no noise" if sde.noise == "none" else f"{sde.noise} noise"
            raise ValueError(
                f"{name} of dynamics without a potential needs additive noise, whose D does not "
                f"depend on x, but {kind} has {what}; take Langevin(potential, temperature) or "
                "UnderdampedLangevin, whose heat follows from their energies."
            )
        self._sde, self._name = sde, name
        self._known: Tensor | None = None

    def __call__(self, x: State, t: Time) -> Tensor:
        """Return D at a time, shape (d, d); refuse one that does not move all coordinates."""
        if self._known is not None:
            return self._known
        D = covariance_matrix(self._sde, x[:1], t)[0] / 2
        eigenvalues = torch.linalg.eigvalsh(D.detach().double())
        if not float(eigenvalues[0]) > _SINGULAR * float(eigenvalues[-1]):
            raise ValueError(
                f"{self._name} needs noise on all coordinates, but D = G Gᵀ/2 of "
                f"{type(self._sde).__name__} is singular at t = {float(t):g}: its eigenvalues go "
                f"from {float(eigenvalues[0]):.3g} to {float(eigenvalues[-1]):.3g}. With noise on "
                "velocities alone, take UnderdampedLangevin, whose heat is known."
            )
        if self._sde.autonomous is True:
            self._known = D
        return D

    def solved(self, x: State, t: Time, f: State) -> State:
        """Return D⁻¹ f, shape of x."""
        self(x, t)  # refuses
        return inverse_times(diffusivity_of(self._sde, x, t), f.flatten(1)).reshape(x.shape)


def _check_dynamics(sde: SDE, name: str) -> None:
    """Refuse jumps, reverse dynamics and chains, of which heat and work have no meaning here."""
    check_no_jumps(sde, name, ", and what a jump takes from a bath is not said; leave it out.")
    if sde.direction == -1 or sde.is_discrete:
        what = "is a chain on integer times" if sde.is_discrete else "runs backwards in time"
        raise ValueError(
            f"{name} is that of an SDE that runs forwards, but {type(sde).__name__} {what}; take "
            "TimeIntegral or StochasticIntegral of a function of your own."
        )
