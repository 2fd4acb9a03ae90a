"""Coloured noise: white noise replaced by noise with a memory of its own.

    dX/dt = f(X, t) + G(X, t) ζ(t),        ⟨ζ_k(t) ζ_l(s)⟩ = δ_kl e^{−|t − s|/τ}/(2τ)

ζ = η/√(2τ) is an Ornstein–Uhlenbeck process, so that X and η together are Markovian,

    dX = (f + G η/√(2τ)) dt,        dη = −η/τ dt + √(2/τ) dW,        η ~ N(0, 1) at rest

∫⟨ζ(t) ζ(0)⟩ dt = 1 whatever τ is: for τ → 0 the noise is white, and the limit is the Stratonovich
reading of dX = f dt + G dW (Wong and Zakai). Where G does not depend on X all readings are one.
Where it does, the process must be written with interpretation="stratonovich": its f is taken as
it was written, and its own law is the limit.

Reference:
    Wong and Zakai 1965, Ann. Math. Stat. 36, 1560; Hänggi and Jung 1995, Adv. Chem. Phys. 89, 239.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.ito_process import ItoProcess
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Rng, normal_like, stream
from sdegen.core.noise_structure import check_not_general
from sdegen.core.requests import as_numbers, as_state, check_kind
from sdegen.core.sde import SDE, NoiseKind, Rows
from sdegen.core.shapes import Numbers, State, Time


class Coloured(SDE):
    """An SDE whose white noise is replaced by Ornstein–Uhlenbeck noise of correlation time τ.

        dX = (f + G η/√(2τ)) dt,   dη = −η/τ dt + √(2/τ) dW

    Its state is (batch, d + m): the d coordinates of the SDE, then η of each of its m noises (m =
    d if they are diagonal). `start` adds noise at rest to positions, `position` takes it away.
    Steps must be short beside τ.

    Args:
        sde: What moves, with a state (batch, d): additive noise, or an `ItoProcess` with
            interpretation="stratonovich", which is then the limit of τ → 0.
        correlation_time: τ > 0, a number, or one for each noise, shape (m,).

    Raises:
        TypeError: If sde is no SDE, or the time no number.
        ValueError: If noise depends on x in another reading, has no G, or there is none; if the
            SDE is a chain, reversed, or jumps; or if a time is not finite and > 0.

    Example:
        >>> sde = sg.Coloured(sg.ItoProcess(lambda x: -x, 1.0), 0.5)
        >>> variance = sg.LinearSDE.of(sde, 2).stationary_covariance()[0, 0]
        >>> f"{variance:.6f}"  # σ²/(2k (1 + kτ))
        '0.333333'
    """

    noise: NoiseKind = "additive"

    def __init__(self, sde: SDE, correlation_time: Numbers) -> None:
        check_kind("sde", sde, SDE, "an SDE, such as Langevin(DoubleWell(), 0.3)")
        _check_noise(sde)
        if sde.phase_space:
            raise ValueError(
                f"Coloured joins its noise to a state in a row, but {type(sde).__name__} has "
                "positions and velocities: take GeneralizedLangevin(potential, PronySeries(c, τ)) "
                "for a thermal noise with memory."
            )
        tau = as_numbers("correlation_time", correlation_time, expected="a number τ > 0")
        m = sde.channels
        if tau.ndim > 1 or (m is not None and tau.shape not in ((), (m,))):
            expected = "a number, or one for each noise" + (f", shape ({m},)" if m else "")
            raise ValueError(
                f"correlation_time must be {expected}, but has shape {tuple(tau.shape)}."
            )
        if not bool(((tau > 0) & tau.isfinite()).all()):
            raise ValueError(f"correlation_time must be finite and > 0, but is {tau.tolist()}.")
        self.sde: SDE = sde
        self.correlation_time: Tensor = tau
        self.autonomous: bool | None = sde.autonomous

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the SDE is defined."""
        return self.sde.time_range

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the SDE holds parameters for; None: any number."""
        return self.sde.trajectories

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some trajectories."""
        inner = self.sde.of_rows(rows)
        return self if inner is self.sde else type(self)(inner, self.correlation_time)

    def drift(self, x: State, t: Time) -> State:
        """(f + G η/√(2τ), −η/τ), shape (batch, d + m)."""
        place, eta = self._split(x)
        tau = self._times(eta)
        sde = self.sde
        # of multiplicative noise without what the interpretation adds
        if isinstance(sde, ItoProcess) and sde.noise == "multiplicative":
            f = sde.written_drift(place, t)
        else:
            f = sde.drift(place, t)
        pushed = sde.diffusion_times(place, t, eta / (2 * tau).sqrt())
        return torch.cat([f + pushed, -eta / tau], 1)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """0 of each position and √(2/τ) of each η, shape (d + m,)."""
        place, eta = self._split(x[:1])
        return torch.cat(
            [torch.zeros_like(place[0]), (2 / self._times(eta)).sqrt().expand(eta.shape[1])]
        )

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare derivatives that the SDE's own drift needs with finite differences."""
        if self.sde.noise == "additive":
            self.sde.check_derivatives(self.position(x), t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that the SDE's own drift needs is found."""
        return self.sde.slope_by(self.position(x), t) if self.sde.noise == "additive" else "none"

    def start(self, x0: Tensor, *, rng: Rng = None) -> Tensor:
        """Return positions with noise at rest, η ~ N(0, 1), shape (batch, d + m).

        Args:
            x0: Positions, shape (batch, d).
            rng: Seed, generator or None.

        Raises:
            ValueError: If x0 has another shape.
        """
        x0 = as_state("x0", x0)
        if x0.ndim != 2 or not x0.is_floating_point():
            raise ValueError(
                "x0 must be floats of shape (batch, d), but has shape "
                f"{tuple(x0.shape)} and dtype {x0.dtype}."
            )
        m = self.sde.channels or x0.shape[1]
        like = x0.new_empty(len(x0), m)
        return torch.cat([x0, normal_like(like, stream(rng, "coloured noise"))], 1)

    def position(self, states: Tensor) -> Tensor:
        """Return the coordinates of the SDE, shape (*, d), of states of shape (*, d + m)."""
        return states[..., : self._size(states.shape[-1])]

    def _size(self, numbers: int) -> int:
        """Return d, of the numbers of a state."""
        m = self.sde.channels
        d = numbers // 2 if m is None else numbers - m
        if d < 1 or (m is None and numbers % 2):
            noises = "one η for each coordinate" if m is None else f"m = {m} noises"
            raise ValueError(
                f"the state of Coloured has d coordinates and {noises}, but x has {numbers} "
                "numbers; pass start(x0, rng=0) of x0 with shape (batch, d)."
            )
        return d

    def _split(self, x: State) -> tuple[Tensor, Tensor]:
        """Return positions, shape (batch, d), and η, shape (batch, m)."""
        if x.ndim != 2:
            raise ValueError(
                f"x must have shape (batch, d + m), but has shape {tuple(x.shape)}; pass "
                "start(x0, rng=0) of x0 with shape (batch, d)."
            )
        d = self._size(x.shape[1])
        return x[:, :d], x[:, d:]

    def _times(self, eta: Tensor) -> Tensor:
        """Return τ like η, shape () or (m,)."""
        tau = self.correlation_time.to(eta)
        if tau.ndim and len(tau) != eta.shape[1]:
            raise ValueError(
                f"correlation_time must be a number, or one for each of {eta.shape[1]} noises, "
                f"but has shape {tuple(tau.shape)}."
            )
        return tau


def _check_noise(sde: SDE) -> None:
    """Refuse an SDE of which no white noise can be replaced."""
    name = type(sde).__name__
    check_not_general(sde, "Coloured")
    check_no_jumps(sde, "Coloured")
    if sde.is_discrete or sde.direction != 1:
        what = "a Markov chain on integer times" if sde.is_discrete else "a reverse SDE"
        raise ValueError(f"{name} is {what}, and Coloured is of an SDE that runs forwards.")
    if sde.noise == "none":
        raise ValueError(f"{name} has no noise that could be coloured: its diffusion is 0.")
    own = isinstance(sde, ItoProcess) and type(sde).drift is ItoProcess.drift
    read = isinstance(sde, ItoProcess) and sde.interpretation == "stratonovich"
    if sde.noise == "multiplicative" and not (own and read):
        raise ValueError(
            f"the noise of {name} depends on x, and coloured noise tends to the Stratonovich "
            "reading, which is another equation than this one. Pass ItoProcess(f, g, "
            "interpretation='stratonovich') with the f and g of dX/dt = f + g ζ, or say "
            "noise='additive' if g depends on t alone."
        )
