"""The structure of noise: how the Wiener processes enter the coordinates. Declared, never guessed.

    "diagonal"   one independent component for each coordinate, of strength g(x, t)
    "channels"   m independent Wiener processes, by a matrix G(x, t) (`channels.py`)
    "general"    what `add_noise` adds, where no G can be written down

An SDE says which: a class with `channels = m` is "channels", and `noise_structure` says the rest.
A general one has no G; it defines `add_noise` and `covariance_times`, which must be of one noise:
C v = G Gᵀ v is compared before a run with what `add_noise` adds. `EulerMaruyama` takes every
structure; what takes fewer refuses the others by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

import torch
from torch import Tensor

from sdegen.core.channels import check_matrix, times
from sdegen.core.noise import Given
from sdegen.core.shapes import State, Time

if TYPE_CHECKING:
    from sdegen.core.sde import SDE


NoiseStructure = Literal["diagonal", "channels", "general"]

NOISE_METHODS = ("diffusion_column", "diffusion_times", "covariance_times")  # of g, in other words
_TWO_WAYS = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative: rounding of two ways to g gᵀ v


def check_diagonal(sde: object, name: str) -> None:
    """Refuse noise that is not diagonal, where g(x, t) is read coordinate by coordinate.

    Args:
        sde: Dynamics; what declares no structure is diagonal.
        name: What takes diagonal noise alone.

    Raises:
        ValueError: Naming both.
    """
    structure = getattr(sde, "noise_structure", "diagonal")
    if structure != "diagonal":
        noise = f"noise of {type(sde).__name__} "
        noise += "has channels" if structure == "channels" else f"is {structure}"
        options = "" if structure == "channels" else ", without boundary= and compile="
        raise ValueError(
            f"{name} needs diagonal noise, an independent component for each coordinate, but the "
            f"{noise}; its trajectories are those of "
            f"simulate(sde, …, solver=EulerMaruyama()){options}."
        )


def refuse_structure(sde: SDE) -> NoReturn:
    """Refuse channels of an object whose structure is another, as where it sets one of the two."""
    raise ValueError(
        f"{type(sde).__name__} has channels = {sde.channels} and noise_structure = "
        f"{sde.noise_structure!r}; set channels = m with noise_structure = 'channels', or "
        "channels = None with another."
    )


def check_not_general(sde: object, name: str) -> None:
    """Refuse noise of which no G(x, t) is known.

    Args:
        sde: Dynamics; what declares no structure is diagonal.
        name: What takes diagonal noise and channels.

    Raises:
        ValueError: Naming both.
    """
    if getattr(sde, "noise_structure", "diagonal") == "general":
        raise ValueError(
            f"{name} needs diagonal noise or channels, G(x, t), but the noise of "
            f"{type(sde).__name__} is general: write it as ItoProcess(f, G, channels=m), or "
            "declare channels = m and define diffusion(x, t)."
        )


def _no_diffusion(sde: SDE, x: State, t: Time) -> Tensor:
    """Refuse to read a g for each coordinate: the `diffusion` of general noise."""
    check_diagonal(sde, "diffusion(x, t)")
    raise AssertionError("noise_structure of a class without diffusion is diagonal")


def declare(kind: type[SDE], base: type) -> None:
    """Refuse a class that adds noise of its own without a declaration, or declares it by half.

    A class of general noise has no g: its `diffusion` refuses to be read.

    Args:
        kind: A class that is being made.
        base: The class SDE.

    Raises:
        TypeError: Naming what is missing.
    """
    line = kind.__mro__[: kind.__mro__.index(base)]
    if "channels" in kind.__dict__ and "noise_structure" not in kind.__dict__:
        kind.noise_structure = "diagonal" if kind.channels is None else "channels"
    structure = kind.noise_structure
    own = [name for name in ("add_noise", "covariance_times") if _is_own(kind, base, name)]
    if "add_noise" in own and not any("noise_structure" in each.__dict__ for each in line):
        raise TypeError(
            f"{kind.__name__} defines add_noise, but does not declare its structure; write "
            "noise_structure = 'general' for correlated coordinates, and 'diagonal' for "
            "√|dt| g(x, t) z."
        )
    if not isinstance(structure, str):  # a property: it is for each object to say
        return
    if structure not in get_args(NoiseStructure):
        *words, last = map(repr, get_args(NoiseStructure))
        raise TypeError(
            f"noise_structure must be {', '.join(words)} or {last}, but {kind.__name__} has "
            f"{structure!r}."
        )
    if structure == "general" and len(own) < 2:
        raise TypeError(
            f"{kind.__name__} declares noise_structure = 'general', which has no g(x, t): define "
            "add_noise(after, x, t, root_dt, noise) and covariance_times(x, t, v)."
        )
    if structure == "general" and not _is_own(kind, base, "diffusion"):
        kind.diffusion = _no_diffusion  # type: ignore[method-assign,assignment]


def noise_field(sde: SDE) -> tuple[str, Callable[[State, Time], Tensor]]:
    """Return a name, and what tells of the noise at a state, broadcastable to it.

    That is g; of channels G z with z = (1, 2, …), and of general noise G Gᵀ v with such a v.

    Args:
        sde: Dynamics.
    """
    if sde.noise_structure == "diagonal":
        return "diffusion", sde.diffusion
    if sde.channels is not None:
        return "diffusion", lambda x, t: _of_numbers(check_matrix(sde, sde.diffusion(x, t), x))
    return "covariance_times", lambda x, t: sde.covariance_times(x, t, _vector(x))


def fields_of(sde: SDE) -> list[tuple[str, Callable[[State, Time], Tensor]]]:
    """Return drift and noise by name, each with one value for every trajectory of a batch.

    That is g of diagonal noise, G of channels, and G Gᵀ v with v = (1, 2, …) of general noise.

    Args:
        sde: Dynamics.
    """

    def diffusion(x: State, t: Time) -> Tensor:
        if sde.channels is None:
            return sde.diffusion(x, t).expand_as(x)
        G = check_matrix(sde, sde.diffusion(x, t), x)
        return G.expand(len(x), *G.shape[1:])

    name, noise = noise_field(sde)
    return [("drift", sde.drift), (name, noise if name != "diffusion" else diffusion)]


def _of_numbers(G: Tensor) -> Tensor:
    """Return G z with z = (1, 2, …), shape (batch or 1, *event)."""
    z = torch.arange(1, G.shape[-1] + 1, dtype=G.dtype, device=G.device)
    return times(G, z.expand(len(G), -1))


def check_covariance(sde: SDE, x: State, t: Tensor) -> None:
    """Refuse a `covariance_times`, or a diagonal g, that is not that of an `add_noise` of its own.

    The noise is linear in its normals, g z; autograd gives gᵀ v, and g (gᵀ v) must be g gᵀ v.

    Args:
        sde: Dynamics that define add_noise.
        x: A few states, shape (batch, *event).
        t: Time, 0-d.

    Raises:
        ValueError: With both numbers, or if it holds a constant_noise.
    """
    name, diagonal = type(sde).__name__, sde.noise_structure == "diagonal"
    if sde.constant_noise is not None and not diagonal:
        raise ValueError(f"the noise of {name} is general, and its constant_noise must be None.")

    def noise_of(z: Tensor) -> State:
        return sde.add_noise(torch.zeros_like(x), x, t, 1.0, Given(z))

    v = _vector(x)
    draw = x if sde.channels is None else x.new_zeros(len(x), sde.channels)
    with torch.inference_mode(False), torch.enable_grad():
        z = torch.zeros_like(draw, requires_grad=True)
        added = noise_of(z)
        if added.shape != x.shape or not added.requires_grad:
            raise ValueError(
                f"add_noise of {name} must return after + √|dt| g z with z = noise.normal(), of "
                f"shape {tuple(x.shape)}, but returned shape {tuple(added.shape)}"
                f"{'' if added.requires_grad else ' and nothing of the z that it was given'}."
            )
        (pulled,) = torch.autograd.grad((added * v).sum(), z)
    with torch.no_grad():
        expected = noise_of(pulled)
        answers = {"covariance_times": sde.covariance_times(x, t, v)}
        if diagonal:
            answers["g² v of diffusion"] = sde.diffusion(x, t).square() * v
    for what, said in answers.items():
        gap = (expected - said).abs().nan_to_num(torch.inf)
        if float(gap.max()) > _TWO_WAYS.get(x.dtype, 1e-4) * float(expected.abs().max()):
            i = int(gap.argmax())
            raise ValueError(
                f"{what} of {name} is not that of its add_noise: of v = (1, 2, …) it is "
                f"{float(said.expand_as(x).flatten()[i]):.6g} where g gᵀ v of the noise that is "
                f"added is {float(expected.flatten()[i]):.6g}."
            )


def check_methods(sde: SDE, base: type[SDE], names: Sequence[str], x: State, t: Tensor) -> None:
    """Refuse methods of one's own that tell of another noise than the diffusion.

    One of them may have been inherited, and the diffusion not.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        base: The class SDE.
        names: Those of `NOISE_METHODS` that its class defines.
        x: A few states, shape (batch, *event).
        t: Time, 0-d.

    Raises:
        ValueError: Naming the method.
    """
    kind, m = type(sde), sde.channels
    z = _vector(x) if m is None else torch.arange(1, m + 1).to(x).expand(len(x), m)

    def answer(of: type[SDE], name: str) -> Tensor:
        if name == "diffusion_times":
            return of.diffusion_times(sde, x, t, z)
        if name == "covariance_times":
            return of.covariance_times(sde, x, t, _vector(x))
        columns = [(k + 1) * of.diffusion_column(sde, x, t, k) for k in range(m or 0)]
        return torch.stack([column.expand_as(x) for column in columns]).sum(0)

    for name in names:
        if m is None and name == "diffusion_column":
            continue
        said, expected = answer(kind, name), answer(base, name)
        gap = (said - expected).abs().nan_to_num(torch.inf)
        if float(gap.max()) > _TWO_WAYS.get(x.dtype, 1e-4) * float(expected.abs().max()):
            i = int(gap.argmax())
            raise ValueError(
                f"{name} of {kind.__name__} is not that of its diffusion: it gives "
                f"{float(said.flatten()[i]):.6g} where the diffusion gives "
                f"{float(expected.flatten()[i]):.6g} (of the vector 1, 2, …); define both, or "
                "the diffusion alone."
            )


def _vector(x: State) -> State:
    """Return the vector (1, 2, …) at each state, shape of x."""
    numbers = torch.arange(1, x[0].numel() + 1, dtype=x.dtype, device=x.device)
    return numbers.reshape(x.shape[1:]).expand_as(x)


def _is_own(kind: type, base: type, name: str) -> bool:
    """Return whether a class has another method of this name than the base."""
    return getattr(kind, name) is not getattr(base, name)
