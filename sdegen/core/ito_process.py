"""An SDE from a drift and a diffusion of one's own, Itô or in another interpretation.

**Interpretations of multiplicative noise.** Where g depends on x, "g dW" needs a convention, α: 0
evaluates g before the step (Itô), ½ in the middle (Stratonovich), 1 after it (Klimontovich,
Hänggi). All are the Itô equation with drift f + α g ∂g/∂x, which is what `ItoProcess` hands to
every solver, so that they all solve the same equation. For a matrix G there are more of them, and
other formulas (`channels.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.channels import interpretation_drift
from sdegen.core.checks import check_count, check_not_negative, check_word
from sdegen.core.derivatives import MIXES, diffusivity, is_seen, noise_induced
from sdegen.core.linear_part import as_linear_part
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import as_numbers, check_function
from sdegen.core.sde import SDE, ChecksStart, NoiseKind, Rows
from sdegen.core.shapes import Numbers, State, Time
from sdegen.core.signature import Bound, Signature, at_times, bound
from sdegen.core.slope_checks import check_directional, check_slope, mixes_coordinates

Interpretation = Literal["ito", "stratonovich", "klimontovich", "post_point"]
Field = Callable[..., Tensor]

# of diagonal noise, for which ∇·D and the end of a step are one
_ALPHA: dict[str, float] = {
    "ito": 0.0,
    "stratonovich": 0.5,
    "klimontovich": 1.0,
    "post_point": 1.0,
}


class ItoProcess(SDE):
    """An SDE from a drift and a diffusion of your own.

        dX = f(X, t) dt + g(X, t) ∘_α dW  =  (f + α g ∂g/∂x) dt + g dW  (Itô)

    With `channels=m` the noise is G(X, t) dW, a matrix of which column k is what the k-th of m
    independent Wiener processes moves.

    Args:
        drift: f(x, t), f(x), or f(t): one argument that is called t. It returns a tensor of x's
            shape; f(t) one of shape () or *event. A second argument that has a default is a
            parameter of yours and keeps it, unless it is called t.
        diffusion: A number σ ≥ 0 (additive; 0 is an ODE), or g(x, t), g(x), or g(t), which is
            additive.
            Diagonal: where it depends on x, it is either one number for each trajectory, shape
            (batch, 1, …), or coordinate i of g depends on coordinate i of x alone, unless the
            interpretation is "ito".
            With channels: a matrix, shape (*event, channels), which is additive; or G(x, t), G(x),
            of shape (batch or 1, *event, channels), or G(t), also of shape (*event, channels).
        channels: Number of Wiener processes; None: noise is diagonal.
        interpretation: Of multiplicative noise: "ito", "stratonovich", "klimontovich", or
            "post_point", which is Klimontovich's where noise is diagonal.
        noise: What a callable diffusion is, "multiplicative" unless said. Say "additive" for a
            g(x, t) that depends on t alone: solvers are then cheaper and of higher order.
        autonomous: Whether drift and diffusion are the same at every t, whatever arguments they
            take. If None, those that take no t are; of others it is not known: runs over time
            read them at every step, and what is asked of them at rest (a stationary density, a
            spectrum, a first passage) assumes it where they answered alike at some times.
        diffusion_derivative: ∂g/∂x of (x, t) or (x), coordinate by coordinate, x's shape, which
            `Milstein` needs, and an interpretation other than "ito". If None, autograd finds it;
            where autograd does not see it (a table by NumPy, `.detach()`) or gives NaN (√x at 0),
            it is the finite difference of g²/2. `check_derivatives` compares either with g before
            a run.
        parameters: Tensors by name, with one row for each trajectory: shape (trajectories, …).
            Drift and diffusion get each of them by its name, as f(x, t, k) or f(x, k) for
            {"k": k}, cut to the rows of x: where trajectories run in blocks, those of the block.
            `simulate` and `run_ensemble` then take as many trajectories as there are rows.
        linear_part: L of a drift −L x + …, a number, (d,) or (d, d), which `ImplicitEuler` solves
            for. The drift is still all of f.

    Raises:
        TypeError: If the drift is not callable or takes (t, x), the diffusion is a matrix without
            channels, a parameter is no tensor, or autonomous is neither a bool nor None.
        ValueError: If a word is misspelt or does not go with the diffusion, or the number is
            negative or not finite.

    Reference:
        Gardiner 2009, Stochastic Methods, section 4.4, for α = ½; Hänggi and Thomas 1982 for α =
        1; of matrices see `sdegen.core.channels`.

    Example:
        >>> x, t = torch.tensor([[2.0]]), torch.tensor(0.0)
        >>> sg.ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7).drift(x, t).item()
        -6.0
        >>> read = sg.ItoProcess(lambda x: 0 * x, lambda x: x, interpretation="stratonovich")
        >>> read.drift(x, t).item()  # ½ g ∂g/∂x
        1.0
        >>> k = torch.tensor([[1.0], [2.0]])
        >>> decays = sg.ItoProcess(lambda x, k: -k * x, diffusion=0.0, parameters={"k": k})
        >>> decays.drift(torch.ones(2, 1), t).flatten().tolist()
        [-1.0, -2.0]
    """

    parameters: Mapping[str, Tensor] | None = None

    def __init__(
        self,
        drift: Field,
        diffusion: float | Field | Tensor,
        *,
        channels: int | None = None,
        interpretation: Interpretation = "ito",
        noise: NoiseKind | None = None,
        autonomous: bool | None = None,
        diffusion_derivative: Field | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        linear_part: Numbers | None = None,
    ) -> None:
        _check_kinds(drift, interpretation, noise, autonomous)
        if linear_part is not None:
            self.linear_part: Tensor | None = as_linear_part(linear_part)
        if channels is not None:
            check_count("channels", channels)
            self.channels: int | None = int(channels)
            self.noise_structure: NoiseStructure = "channels"
        tensors = None if parameters is None else _check_parameters(parameters)
        read = Signature.of(drift, "drift", tuple(tensors or ()))
        self._drift, timed, taken = bound(read, tensors), read.of_time, set(read.parameters)
        assumed: NoiseKind
        if callable(diffusion):
            read = Signature.of(diffusion, "diffusion", tuple(tensors or ()))
            if channels is not None and not read.of_state:
                read = replace(read, function=_Matrices(read.function, self.channels))
            self._diffusion, timed = bound(read, tensors), timed or read.of_time
            taken.update(read.parameters)
            assumed = "multiplicative" if read.of_state or read.parameters else "additive"
            if noise == "none":
                raise ValueError("noise='none' means g = 0: pass diffusion=0.0 with it.")
        else:
            if channels is not None:
                G = _matrix(diffusion, channels)
                self._diffusion, size = (lambda x, t: G.to(x)), float(G.detach().abs().max())
            else:
                self.constant_noise: float | None = (size := _number(diffusion))
                value = torch.tensor(size, dtype=torch.float64)
                self._diffusion = lambda x, t: value
            assumed = "none" if size == 0 else "additive"
            if noise not in (None, assumed):
                what = f"diffusion = {size:g}" if channels is None else "a constant diffusion"
                raise ValueError(f"noise must be {assumed!r} for {what}, but is {noise!r}.")
        if tensors is not None:
            self.parameters = tensors
            _refuse_unused(tensors, taken)
        self.noise: NoiseKind = noise or assumed
        if autonomous is None and not timed and self._moves_as(ItoProcess):
            autonomous = True
        self._given, self.autonomous, self.interpretation = drift, autonomous, interpretation
        self._alpha = _ALPHA[interpretation] if self.noise == "multiplicative" else 0.0
        self._diffusion_derivative: Callable[[State, Time], Tensor] | None = None
        if diffusion_derivative is not None:
            self._check_derivative_is_needed(diffusion_derivative)
            read = Signature.of(diffusion_derivative, "diffusion_derivative", tuple(tensors or ()))
            self._diffusion_derivative = bound(read, tensors)
            if read.of_time and autonomous is None:
                self.autonomous = None

    @property
    def trajectories(self) -> int | None:
        """How many trajectories it holds parameters for, one row each; None: any number."""
        if self.parameters is None:
            return None
        return len(next(iter(self.parameters.values())))

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some of the trajectories, with their parameters alone."""
        if self.parameters is None:
            return self
        clone = copy.copy(self)
        clone.parameters = {name: value[rows] for name, value in self.parameters.items()}
        for name in ("_drift", "_diffusion", "_diffusion_derivative"):
            field = getattr(self, name)
            if isinstance(field, Bound):
                cut = {k: clone.parameters[k] for k in field.parameters}
                setattr(clone, name, Bound(field.function, cut))
        return clone

    def drift(self, x: State, t: Time) -> State:
        """f + α g ∂g/∂x: the Itô drift, same shape as x."""
        if self._alpha == 0.0:
            return self._drift(x, t)
        if self.channels is not None:
            added = interpretation_drift(lambda y: self.diffusion(y, t), x, self.interpretation)
            return self._drift(x, t) + added
        return self._drift(x, t) + self._alpha * self._noise_induced(x, t)

    def check_start(self, x: State, periods: Tensor | None, t: Time) -> None:
        """Refuse what the drift refuses to start from, where it knows of any."""
        if isinstance(self._given, ChecksStart):
            self._given.check_start(x, periods)

    def written_drift(self, x: State, t: Time) -> State:
        """f as it was written, without what the interpretation adds; same shape as x."""
        return self._drift(x, t)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """g(x, t), broadcastable to x; or G, (batch or 1, *event, channels)."""
        return self._diffusion(x, t)

    def covariance_divergence(self, x: State, t: Time) -> State:
        """Return ∇·(g gᵀ), shape of x, by `diffusion_derivative` where it is given."""
        if self._diffusion_derivative is None:
            return super().covariance_divergence(x, t)
        return 2 * self._noise_induced(x, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the slope of g that the interpretation needs with finite differences of g²/2."""
        given = self._diffusion_derivative is not None
        if self._alpha == 0.0 and not given:
            return
        t = t.clone() if t.is_inference() else t
        if self.channels is not None:
            check_directional(lambda y: self.diffusion(y, t), x)
            return
        d = diffusivity(lambda y: self.diffusion(y, t))
        if mixes_coordinates(d, x):
            raise ValueError(MIXES)
        check_slope(
            d,
            lambda y: self._noise_induced(y, t),
            x,
            name="g²/2 (g times diffusion_derivative)" if given else "g²/2",
            cure="Let diffusion_derivative= return ∂g/∂x."
            if given
            else "If a part of g is hidden from autograd (.detach(), no_grad, NumPy), take it out "
            "or pass diffusion_derivative=; if g jumps, make it continuous, such as by "
            "interpolation.",
        )

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the slope of g that the interpretation needs is found at these states.

        Args:
            x: States, shape (batch, *event).
            t: Time, shape () or (batch,).

        Returns:
            "none" where no slope is needed, "given" for `diffusion_derivative`, "autograd", or
            "differences" where autograd does not see g or gives NaN at one of the states.
        """
        if self._diffusion_derivative is not None:
            return "given"
        if self._alpha == 0.0:
            return "none"
        return "autograd" if is_seen(lambda y: self.diffusion(y, t), x) else "differences"

    def _check_derivative_is_needed(self, derivative: object) -> None:
        """Refuse a ∂g/∂x that is no function, or that nothing asks for."""
        expected = "a function (x, t) or (x) that returns ∂g/∂x"
        check_function("diffusion_derivative", derivative, expected)
        if self.channels is not None:
            raise ValueError(
                "diffusion_derivative is ∂g/∂x of diagonal noise, but channels = "
                f"{self.channels}; leave it out: derivatives of G are found by autograd, or by "
                "differences where it sees none."
            )
        if self.noise != "multiplicative":
            raise ValueError(
                "diffusion_derivative goes with a g(x, t) that is multiplicative, but noise is "
                f"{self.noise!r}, which needs no ∂g/∂x; leave it out."
            )

    def _noise_induced(self, x: State, t: Time) -> State:
        """Return g ∂g/∂x, coordinate by coordinate."""
        slope = self._diffusion_derivative
        if slope is not None:
            return (self.diffusion(x, t) * slope(x, t)).expand_as(x)
        return noise_induced(lambda y: self.diffusion(y, t), x)


class _Matrices:
    """A function of time alone that returns G, shape (*event, m), or one for each trajectory."""

    def __init__(self, function: Field, channels: int | None) -> None:
        # what `Signature` made of it would take the value for a state
        self.function, self.channels = getattr(function, "function", function), channels

    def __call__(self, x: State, t: Time, **parameters: Tensor) -> Tensor:
        G = at_times(self.function, t, parameters)
        if t.ndim > 0 and G.ndim == x.ndim + 2:  # of each time one matrix with an axis more
            G = G.squeeze(1)
        return (G.unsqueeze(0) if G.ndim == x.ndim else G).to(x)


def _check_kinds(drift: object, interpretation: object, noise: object, autonomous: object) -> None:
    """Refuse a drift that is no function, and words that are none of ours."""
    check_function("drift", drift, "a function f(x, t) or f(x)")
    check_word("interpretation", interpretation, _ALPHA)
    if noise is not None:
        check_word("noise", noise, get_args(NoiseKind))
    if autonomous is not None and not isinstance(autonomous, bool):
        raise TypeError(
            "autonomous must be True where drift and diffusion do not depend on t, False "
            f"where they do, or None, but is {autonomous!r}."
        )


def _check_parameters(parameters: object) -> dict[str, Tensor]:
    """Return the parameters of trajectories as tensors with one number of rows.

    Raises:
        TypeError: If they are no mapping of names to tensors or arrays.
        ValueError: If there are none, a name is that of the state or the time, or they have
            different numbers of rows.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(
            "parameters must be a mapping of names to tensors, such as {'k': k}, but is "
            f"{type(parameters).__name__}."
        )
    tensors: dict[str, Tensor] = {}
    for name, value in parameters.items():
        if name in ("x", "t"):
            raise ValueError(
                f"parameters has {name!r}, which is the name of the state or the time."
            )
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"parameters[{name!r}] must be a tensor or an array: {error}."
            ) from None
        if tensor.ndim == 0:
            raise ValueError(
                f"parameters[{name!r}] must have one row for each trajectory, shape "
                "(trajectories, …), but is one number: write it into the function itself."
            )
        tensors[name] = tensor
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ValueError(
            "parameters must have one row for each trajectory, but have "
            f"{rows or 'no entry'} rows."
        )
    return tensors


def _refuse_unused(tensors: dict[str, Tensor], taken: set[str]) -> None:
    """Refuse a parameter that no function takes."""
    if unused := [name for name in tensors if name not in taken]:
        raise ValueError(
            f"parameters has {unused[0]!r}, but neither drift nor diffusion takes an "
            f"argument of that name: write f(x, t, {unused[0]})."
        )


def _matrix(diffusion: object, channels: int) -> Tensor:
    """Return a constant G with one axis more, of length 1, shape (1, *event, channels).

    Raises:
        TypeError, ValueError: If it is no array of finite numbers whose last axis is `channels`.
    """
    G = as_numbers("diffusion", diffusion, expected="a matrix of numbers, or a function G(x, t)")
    if G.ndim < 2 or G.shape[-1] != channels:
        raise ValueError(
            f"diffusion must have shape (*event, channels), here (…, {channels}), as channels = "
            f"{channels}, but has shape {tuple(G.shape)}."
        )
    if not bool(G.isfinite().all()):
        raise ValueError(f"diffusion must be finite, but is {G.tolist()}.")
    return G.unsqueeze(0)


def _number(diffusion: object) -> float:
    """Return a number; raises if it is negative or not finite."""
    if isinstance(diffusion, Tensor) and diffusion.ndim == 0:
        if diffusion.requires_grad:
            raise TypeError(
                "diffusion is a tensor that requires grad, and a number would lose its gradient; "
                "pass diffusion=lambda x, t: sigma with noise='additive'."
            )
        diffusion = float(diffusion)
    if isinstance(diffusion, bool) or not isinstance(diffusion, Real):
        raise TypeError(
            "diffusion must be a number or a function g(x, t), but is "
            f"{type(diffusion).__name__}; for a matrix G of shape (*event, m) pass channels=m "
            "too, and for one scale per coordinate diffusion=lambda x, t: "
            "torch.tensor([...]).to(x) with noise='additive'."
        )
    check_not_negative("diffusion", float(diffusion))
    return float(diffusion)
