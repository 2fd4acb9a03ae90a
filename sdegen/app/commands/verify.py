"""sdegen verify: a simulation against what is believed of it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.app.certificate_page import save_certificate
from sdegen.app.commands.fokker_planck import gaussian_or_point
from sdegen.app.commands.objects import sde_of, solver_of
from sdegen.app.configs.verify import VerifyConfig
from sdegen.app.user_code import load_object
from sdegen.core.errors import SdegenError
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.sde.potentials import Potential
from sdegen.storage import save_tensors
from sdegen.verification.certificate import Certificate, certify
from sdegen.verification.reference import Energy


def resolved(config: VerifyConfig) -> VerifyConfig:
    """Return the config: nothing is left to settle."""
    return config


def run(config: VerifyConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Certify, print the certificate, and write it as JSON, tensors, a page and a picture.

    Returns:
        The metrics: how many checks passed.

    Raises:
        SdegenError: If a check failed; what is wrong is its message.
    """
    sde = sde_of(config.sde, config.diffusion, config.interpretation)
    grid = _grid(config, sde)
    certificate = certify(
        sde,
        grid,
        config.mean if config.std == 0 else gaussian_or_point(grid, config.mean, config.std),
        torch.linspace(config.t0, config.t1, config.points, dtype=torch.float64),
        solver=solver_of(config.solver, config.substeps, 0.0),
        potential=None if config.potential is None else _energy(config.potential),
        temperature=config.temperature,
        density=None if config.density is None else _density(config.density, grid),
        trajectories=config.trajectories,
        false_alarm=config.false_alarm,
        rng=config.seed,
        progress=progress,
    )
    sys.stdout.write(f"{certificate}\n")
    _save(folder, certificate)
    if not certificate.passed:
        raise SdegenError(certificate.summary, certificate)
    return {"checks": len(certificate.checks), "seed": config.seed}


def _grid(config: VerifyConfig, sde: SDE) -> Grid:
    """Return the grid of the config, or one that holds the stationary density."""
    if config.low is not None and config.high is not None:
        return Grid(config.low, config.high, config.cells)
    try:
        wide = Grid.covering(sde, config.cells, near=config.mean)
    except SdegenError as error:
        raise ValueError(f"{error} Give the ends of the grid: pass --low and --high.") from None
    return Grid(wide.low, wide.high, config.cells)  # a chain's law needs even nodes


def _save(folder: Path, certificate: Certificate) -> None:
    """Write certificate.json, .html, .png and .safetensors."""
    save_certificate(certificate, folder)
    law, density, path = certificate.law, certificate.density, certificate.path
    assert law is not None  # certify() compares with one
    assert path is not None
    tensors = {"x": law.x, "times": law.times, "law": law.p, "states": path.states}
    if density is not None:
        tensors["density"] = density.p
    save_tensors(folder / "certificate.safetensors", tensors, {"kind": "Certificate"})


@dataclass(frozen=True)
class _Function:
    """A function U(x) of the user's as an energy."""

    reference: str
    function: Callable[[Tensor], object]

    def energy(self, x: State) -> Tensor:
        """Return U(x), shape (batch,)."""
        return _values(self.function, x[:, 0], "potential", self.reference)


def _energy(reference: str) -> Energy:
    """Return the potential that a reference names."""
    energy = _loaded(reference, "potential", Potential, "U(x)")
    return energy if isinstance(energy, Potential) else _Function(reference, energy)


def _density(reference: str, grid: Grid) -> Density:
    """Return the density that a reference names."""
    density = _loaded(reference, "density", Density, "p(x)")
    if isinstance(density, Density):
        return density
    return Density(grid.nodes, _values(density, grid.nodes, "density", reference))


def _loaded(reference: str, argument: str, kind: type, formula: str) -> Any:  # noqa: ANN401
    """Load an object of a class, or a function of x, that a reference names."""
    named: Any = load_object(reference, argument)
    if not isinstance(named, kind) and (not callable(named) or isinstance(named, type)):
        raise TypeError(
            f"{argument} = {reference!r} is a {type(named).__name__}; expected a "
            f"{kind.__name__}, or a function {formula}."
        )
    return named


def _values(
    function: Callable[[Tensor], object], x: Tensor, argument: str, reference: str
) -> Tensor:
    """Evaluate a user's function, of torch or numpy, at positions x, shape (n,)."""
    answer = function(x.clone())
    try:
        values = torch.as_tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{argument} = {reference!r} must return one number for each x, but returned a "
            f"{type(answer).__name__}."
        ) from None
    if values.shape != x.shape:
        raise ValueError(
            f"{argument} = {reference!r} must return one number for each x, but returned shape "
            f"{tuple(values.shape)} for x of shape {tuple(x.shape)}."
        )
    return values.detach()
