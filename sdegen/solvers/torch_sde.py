"""torchsde as a solver: its methods, behind the same door as our own.

torchsde integrates dy = f du + g dW forwards on its own clock. Here that clock counts steps: u
runs from 0 to N in float64 with dt = 1, and between u = i and i + 1

    f_u = h_i f(x, t),   g_u = √|h_i| g(x, t),   t = t_i + (u − i) h_i,   h_i = t_{i+1} − t_i

so that any grid, a decreasing one included, is met exactly and nothing is interpolated. Which step
is being taken is told by the loop, never by u: at a node u belongs to two steps. The noise is
ours, z ~ N(0, I) for each step from the block's own stream, so that `TorchSDE("euler")` walks the
path of `EulerMaruyama()`. "srk" also takes the time integral of the Brownian motion over a step,
from a second normal; along a `BrownianPath`, that of the path.

Noise with channels is torchsde's "additive", "scalar" (m = 1) or "general". The slope of a scalar
noise is found by its difference: the derivative that torchsde takes by default is Σ_j g_j ∂_i g_j
in place of Σ_j g_j ∂_j g_i, another thing in more than one dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from sdegen.core.accuracy import Orders
from sdegen.core.checks import check_count, check_word
from sdegen.core.fixed_steps import refine
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import is_word
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Asked, Solver

if TYPE_CHECKING:
    from sdegen.solvers.torch_sde_steps import TorchSteps

_ORDERS = {  # those without one for multiplicative noise solve the Stratonovich equation
    "euler": Orders(flow=None, additive=(1, 1), multiplicative=(1, 0.5), channels=(1, 0.5)),
    "milstein": Orders(flow=None, additive=(1, 1), multiplicative=(1, 1)),
    "srk": Orders(flow=None, additive=(2, 1.5), multiplicative=(1.5, 1.5)),
    "heun": Orders(flow=None, additive=(2, 1), multiplicative=None),
    "midpoint": Orders(flow=None, additive=(2, 1), multiplicative=None),
}


@dataclass(frozen=True)
class TorchSDE(Solver):
    """A method of torchsde with fixed steps.

        dX = f(X, t) dt + g(X, t) dW

    of states (batch, *event), by

        method       evaluations a step   strong order for additive, multiplicative noise
        "euler"      1                    1, ½
        "milstein"   1                    1, 1
        "srk"        3, 10                1½, 1½
        "heun"       2                    1, refused: it solves the Stratonovich equation
        "midpoint"   2                    1, refused

    Noise with channels: additive takes all of them, one that is multiplicative "euler", and with
    channels = 1 also "milstein" and "srk", of the same orders.

    Args:
        method: One of these.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If substeps is not an int.
        ValueError: If the method is not one of these, or substeps < 1.

    Reference:
        Li, Wong, Chen and Duvenaud 2020, arXiv:2001.01328 (torchsde); for "srk", Rößler 2010,
        SIAM J. Numer. Anal. 48, 922: SRA1 for additive noise, SRID2 else.

    Example:
        >>> decay, x = sg.ItoProcess(lambda x: -x, 1.0), torch.ones(100, 1).double()
        >>> ends = [
        ...     sg.simulate(decay, x, torch.linspace(0, 1, 101), solver=solver, rng=0).final
        ...     for solver in (sg.EulerMaruyama(), sg.TorchSDE("euler"))
        ... ]
        >>> torch.allclose(*ends)  # the same steps of the same noise
        True
    """

    method: str = "srk"
    substeps: int = 1

    when: ClassVar[str] = (
        "Paths of diagonal noise to strong order 1 (Milstein) or 1½ (srk), by torchsde's methods."
    )

    def __post_init__(self) -> None:
        diverges = is_word(self.method, ["reversible_heun"])
        check_word("method", self.method, _ORDERS, " (it diverges on reverse SDEs)" * diverges)
        check_count("substeps", self.substeps)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse noise-free dynamics, and multiplicative noise for Stratonovich methods."""
        super().check(sde, nodes)
        if sde.noise == "none":
            raise ValueError(
                f"TorchSDE solves noisy equations, but {type(sde).__name__} is noise-free here: "
                "use Heun() or TorchDiffEq('dopri5')."
            )
        several = sde.channels is not None and sde.channels > 1
        if sde.noise == "multiplicative" and several and self.method != "euler":
            raise ValueError(
                f"TorchSDE({self.method!r}) takes multiplicative noise of one Wiener process for "
                f"each coordinate, or of one for all, but {type(sde).__name__} has channels = "
                f"{sde.channels}: use EulerMaruyama() or TorchSDE('euler')."
            )
        if sde.noise == "multiplicative" and self.orders.multiplicative is None:
            raise ValueError(
                f"TorchSDE({self.method!r}) solves the Stratonovich equation, but with g(x, t) "
                "the dynamics are Itô here: use TorchSDE('milstein') or TorchSDE('srk'), or "
                "noise='additive' if g depends on t alone."
            )

    def check_asked(self, asked: Asked) -> None:
        """Refuse nothing: a given path has what "srk" takes beside the increments too."""

    @property
    def takes_integral(self) -> bool:
        """Whether a step takes ∫W du beside the increment: that of a path, where there is one."""
        return self.method == "srk"

    def nodes(self, times: Tensor) -> Tensor:
        """Return the times, with substeps − 1 nodes more between any two."""
        return refine(times, self.substeps)

    noise_structures: ClassVar[tuple[NoiseStructure, ...]] = ("diagonal", "channels")

    @property
    def orders(self) -> Orders:  # type: ignore[override]
        """As in the table; weak orders are those of torchsde's documentation."""
        return _ORDERS[self.method]

    def begin(self, sde: SDE, nodes: Tensor) -> TorchSteps:
        """Return the SDE on the clock of the steps, for torchsde's method to walk on."""
        # torchsde is loaded where a step of it is taken
        from sdegen.solvers.torch_sde_steps import TorchSteps

        return TorchSteps(sde, nodes, self.method, stratonovich=self.orders.multiplicative is None)

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: TorchSteps
    ) -> tuple[State, TorchSteps]:
        """Take one step of torchsde's method, with the increment that is drawn here."""
        assert noise is not None  # check() saw to it
        return memory.taken(i, x, noise), memory
