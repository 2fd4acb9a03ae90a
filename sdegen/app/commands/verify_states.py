"""sdegen verify-states: states that any program stored, against the SDE that is believed."""

import math
import sys
from pathlib import Path
from typing import Any

from sdegen.app.certificate_page import save_certificate
from sdegen.app.commands.objects import boundary_of, sde_of, solver_of
from sdegen.app.configs.verify_states import VerifyStatesConfig
from sdegen.core.errors import SdegenError
from sdegen.core.solver import Solver
from sdegen.readers.read import read_states
from sdegen.readers.stored_states import StoredStates
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.certificate import certify

_SPLITTINGS = {"baoab": BAOAB, "obabo": OBABO}


def resolved(config: VerifyStatesConfig) -> VerifyStatesConfig:
    """Return the config: nothing is left to settle."""
    return config


def run(config: VerifyStatesConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Judge, print the certificate, and write it as JSON, a page and a picture.

    Returns:
        The metrics: how many checks passed, and the p-value of all together.

    Raises:
        SdegenError: If a check failed; what is wrong is its message.
    """
    sde = sde_of(str(config.sde), config.diffusion, config.interpretation)
    states = _states(config)
    certificate = certify(
        sde,
        path=states,
        solver=_solver(config),
        boundary=_boundary(config, states),
        false_alarm=config.false_alarm,
    )
    sys.stdout.write(f"{certificate}\n")
    save_certificate(certificate, folder)
    if not certificate.passed:
        raise SdegenError(certificate.summary, certificate)
    steps = certificate.steps
    return {"checks": len(certificate.checks), "p_value": steps.p_value if steps else None}


def _states(config: VerifyStatesConfig) -> StoredStates:
    """Return the states of the file."""
    units = {"length": config.length_unit, "time": config.time_unit}
    periods = None
    if config.periods is not None:
        periods = config.periods[0] if len(config.periods) == 1 else list(config.periods)
    velocities: Any = config.velocities
    if velocities is not None and config.columns is None:
        velocities = velocities[0] if len(velocities) == 1 else list(velocities)
    return read_states(
        config.states,
        dt=None if config.dt is None else config.dt * config.substeps,
        times=config.times,
        layout=config.layout,
        key=config.key,
        columns=config.columns,
        velocities=velocities,
        phase_space=config.phase_space,
        periods=periods,
        units=None if set(units.values()) == {1.0} else units,
        format=config.format,
    )


def _boundary(config: VerifyStatesConfig, states: StoredStates) -> Any:  # noqa: ANN401
    """Return the boundary of each coordinate, or of the one that was named."""
    if config.boundary is None or config.low is None or config.high is None:
        return None
    boundary = boundary_of(config.boundary, config.low, config.high)
    if config.coordinate is not None:
        return {config.coordinate: boundary}
    return dict.fromkeys(range(math.prod(states.place)), boundary)


def _solver(config: VerifyStatesConfig) -> Any:  # noqa: ANN401, as certify takes it
    """Return the solver that a word names, the word where it is none, or None."""
    word = config.solver
    if word is None or word in ("exact", "unknown"):
        return word
    if word in _SPLITTINGS:
        return _SPLITTINGS[word](config.substeps)
    solver: Solver = solver_of(word, config.substeps, 0.0)  # type: ignore[arg-type]
    return solver
