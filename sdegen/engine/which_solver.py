"""Which solver: all of them in one table, made of what each class declares of itself.

A row is a solver with the arguments that are most in use. Orders are those of convergence in the
step: weak of averages, strong of paths. Nothing is written here that a class does not say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sdegen.core.accuracy import Orders, WeakStrong
from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver
from sdegen.diffusion.samplers.adaptive import AdaptiveHeun
from sdegen.diffusion.samplers.angular_adams import AngularAdams
from sdegen.diffusion.samplers.base import DiffusionSolver
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.diffusion.samplers.final_denoising import FinalDenoising
from sdegen.diffusion.samplers.karras import DPM2, KarrasHeun
from sdegen.diffusion.samplers.linear_multistep import LinearMultistep
from sdegen.diffusion.samplers.metropolis import MetropolisCorrector
from sdegen.diffusion.samplers.multistep import ExponentialAdams, ExponentialAdamsMoulton
from sdegen.diffusion.samplers.predictor_corrector import Corrector, PredictorCorrector
from sdegen.solvers.dri1 import DRI1
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.implicit_euler import ImplicitEuler
from sdegen.solvers.jump_adapted import JumpAdapted
from sdegen.solvers.metropolis import Metropolis
from sdegen.solvers.milstein import Milstein
from sdegen.solvers.quicsort import QUICSORT
from sdegen.solvers.sk_rock import SKROCK
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.solvers.sra import SRA
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.solvers.torch_sde import TorchSDE

# those that need arguments stand as classes
_SOLVERS: tuple[Solver | type[Solver], ...] = (
    EulerMaruyama(),
    Heun(),
    DRI1(),
    SKROCK(),
    ImplicitEuler(),
    Milstein(),
    SRA(),
    Metropolis(),
    JumpAdapted(),
    BAOAB(),
    OBABO(),
    QUICSORT(),
    TorchSDE("milstein"),
    TorchSDE("srk"),
    TorchDiffEq(),
    DDIM(),
    ExponentialAdams(),
    ExponentialAdamsMoulton(),
    AngularAdams(),
    KarrasHeun(),
    DPM2(),
    AdaptiveHeun(),
    PredictorCorrector(),
    MetropolisCorrector,
    FinalDenoising(),
    LinearMultistep,
)
_OF_PHASE_SPACE = (BAOAB, OBABO, QUICSORT)
_NONE = "–"


@dataclass(frozen=True)
class SolverRow:
    """What a solver declares of itself.

    Attributes:
        solver: Its class and arguments, as they are written.
        takes: Dynamics in words: the structures of noise, reverse dynamics, Langevin, or a phase
            space.
        orders: Orders of convergence; None where they are not declared.
        evaluations: Of the drift (of the score) in a step; None where they vary.
        noise_evaluations: Of g (of G) in a step, in words; "" where the noise is known beforehand.
        stability: The largest λh of a real decay rate λ; None where it is not declared.
        when: When to take it.
    """

    solver: str
    takes: str
    orders: Orders | None
    evaluations: int | None
    noise_evaluations: str
    stability: float | None
    when: str

    def cells(self) -> tuple[str, ...]:
        """Return the row in words, in the order of `HEADER`."""
        orders = self.orders or Orders(None, None, None)
        stable = self.stability
        return (
            self.solver,
            self.takes,
            _NONE if orders.flow is None else f"{orders.flow:g}",
            *map(_in_words, (orders.additive, orders.multiplicative, orders.channels)),
            _NONE if self.evaluations is None else str(self.evaluations),
            self.noise_evaluations or _NONE,
            _NONE if stable is None else "any" if math.isinf(stable) else f"{stable:.3g}",
            self.when,
        )


@dataclass(frozen=True, repr=False)
class SolverTable(Labelled):
    """The solvers, a row for each.

    Args:
        rows: What each declares of itself.

    Example:
        >>> row = sg.which_solver().rows[0]
        >>> row.solver, row.evaluations
        ('EulerMaruyama()', 1)
    """

    rows: tuple[SolverRow, ...]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [HEADER, ("---",) * len(HEADER), *(row.cells() for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def __str__(self) -> str:
        lines = [HEADER, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (zip(line, widths, strict=True) for line in lines)
        return "\n".join("  ".join(f"{c:<{w}}" for c, w in line).rstrip() for line in padded)

    __repr__ = __str__  # what a notebook and a prompt show


HEADER = (
    "solver",
    "takes",
    "order of a flow",
    "additive noise: weak, strong",
    "commuting",
    "any noise",
    "f a step",
    "g a step",
    "stable to λh",
    "when",
)


def which_solver(sde: SDE | None = None) -> SolverTable:
    """Return the solvers with their orders, costs and stability; of some dynamics, those it has.

    Args:
        sde: Dynamics that the solvers shall take; None: all solvers.

    Raises:
        TypeError: If sde is something else.

    Example:
        >>> [row.solver for row in sg.which_solver(sg.OrnsteinUhlenbeck()).rows][:3]
        ['EulerMaruyama()', 'Heun()', 'DRI1()']
    """
    if sde is not None:
        check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(f, g), or None")
    made = [solver for solver in _SOLVERS if sde is None or _takes(solver, sde)]
    if sde is not None and sde.phase_space:  # those that are made for it go first
        made.sort(key=lambda solver: not isinstance(solver, _OF_PHASE_SPACE))
    return SolverTable(tuple(_row(solver) for solver in made))


def _row(solver: Solver | type[Solver]) -> SolverRow:
    """Return what a solver declares; of a class, what does not depend on its arguments."""
    kind = solver if isinstance(solver, type) else type(solver)

    def declared(name: str) -> object:
        value = getattr(solver, name)
        return None if isinstance(value, property) else value

    reverse = issubclass(kind, DiffusionSolver | Corrector)
    return SolverRow(
        solver=_written(solver),
        takes="reverse dynamics" if reverse else _noise_taken(solver),
        orders=declared("orders"),  # type: ignore[arg-type]
        evaluations=declared("evaluations"),  # type: ignore[arg-type]
        noise_evaluations=kind.noise_evaluations,
        stability=declared("stability"),  # type: ignore[arg-type]
        when=kind.when,
    )


def _written(solver: Solver | type[Solver]) -> str:
    """Return a solver as it is written: with its method, stages or order, where it has them."""
    if isinstance(solver, type):
        return f"{solver.__name__}(…)"
    told = ("method", "stages", "order")
    arguments = [f"{name}={getattr(solver, name)!r}" for name in told if hasattr(solver, name)]
    return f"{type(solver).__name__}({', '.join(arguments)})"


def _noise_taken(solver: Solver | type[Solver]) -> str:
    """Return the structures of noise that a solver takes, in words."""
    orders = solver.orders
    if isinstance(solver, Metropolis):
        return "Langevin"
    if isinstance(solver, QUICSORT):
        return "phase space; additive"
    if isinstance(solver, _OF_PHASE_SPACE):
        return "phase space"
    if orders is None or isinstance(orders, property):
        return "no noise"
    words = ", ".join(solver.noise_structures)
    return words if orders.multiplicative is not None else f"{words}; additive"


def _in_words(orders: WeakStrong | None) -> str:
    """Return a weak and a strong order in words."""
    if orders is None:
        return _NONE
    weak, strong = orders
    return f"{weak:g}, {_NONE if strong is None else f'{strong:g}'}"


def _takes(solver: Solver | type[Solver], sde: SDE) -> bool:
    """Return whether a solver takes some dynamics, as far as its checks can say."""
    if isinstance(solver, type):
        return issubclass(solver, DiffusionSolver) and sde.denoising is not None
    low, high = sde.time_range
    low = 0.0 if math.isinf(low) else low
    nodes = torch.tensor([low, min(high, low + 1.0)], dtype=torch.float64)
    try:
        solver.check(sde, nodes if sde.direction == 1 else nodes.flip(0))
    except ValueError:
        return False
    return True
