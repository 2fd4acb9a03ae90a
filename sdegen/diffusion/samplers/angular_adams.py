"""Adams in the angle: v continued by a polynomial in φ = arctan(σ/α), of high order.

Divided by √(α² + σ²), a state is a point on a circle of noise and data,

    y = x/√(α² + σ²) = cos φ x0 + sin φ ε,      dy/dφ = cos φ ε − sin φ x0 = v/√(α² + σ²)

and the probability flow has neither a linear part nor an exponential left: y moves with velocity
v, of order one at all noise levels for data of unit variance. Data of standard deviation s are
such data in units of s, for which α counts as s α: `data_std` says so. The methods are those of
Adams,
on nodes that are not equally spaced: a Bashforth polynomial through the last `order` nodes
predicts, and a Moulton polynomial, with the node reached as well, corrects with the evaluation
that the next step makes there anyway.

**Order.** The start is a ramp, the step from node i uses min(i + 1, order) nodes, and its first
steps bound the order by 3 as all steps shrink. From t_max, where the law is a Gaussian and v next
to zero, nothing of that is seen before the error is 10⁻⁹: what counts between 10 and 100
evaluations is the error of the rest of the way. `ExponentialAdams` has orders that hold to the
end.

**Stability.** The more nodes, the smaller the steps that an Adams method bears. On exact scores of
mixtures order 6 is the best from 10 evaluations on; on the trained scores of two moons and digits
order 5 is unstable at 10 evaluations, where order 2 is among the best (benchmarks/samplers.py). So
2 is the default.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.nn.functional import pad

from sdegen.core.checks import check_positive
from sdegen.core.kernel import Kernel
from sdegen.core.sde import SDE
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.linear_multistep import Multistep, check_method_order

_HIGHEST_ORDER = 6
_POINTS, _WEIGHTS = (torch.tensor(values) for values in leggauss(4))  # exact up to degree 7


class Circle:
    """The circle of noise and data at the nodes of a run, and v on it in a state and its score.

    Args:
        kernel: α and σ.
        nodes: Shape (steps + 1,), float64; gradients flow through them.
        data_std: s, standard deviation of the data, for which α is s α and x0 is x0/s below.

    Attributes:
        radius: √(α² + σ²).
        phi: φ.
        of_state: p in v/√(α² + σ²) = p x + q score.
        of_score: q; all of shape (steps + 1,).
    """

    def __init__(self, kernel: Kernel, nodes: Tensor, data_std: float = 1.0) -> None:
        alpha, sigma = kernel.alpha(nodes), kernel.sigma(nodes)
        if data_std != 1:
            alpha = data_std * alpha
        self.radius: Tensor = torch.sqrt(alpha**2 + sigma**2)
        self.phi: Tensor = torch.atan2(sigma, alpha)
        # ε = −σ score and x0 = (x + σ² score)/α in cos φ ε − sin φ x0
        tangent = torch.sin(self.phi) / alpha
        self.of_state: Tensor = -tangent
        self.of_score: Tensor = -(sigma * torch.cos(self.phi) + sigma**2 * tangent)


@dataclass(frozen=True)
class AngularAdams(Multistep):
    """Adams's predictor–corrector for v in the angle φ, for the flow. One evaluation a step.

        ŷ_{i+1} = y_i + ∫ P_i(φ) dφ,   y_{i+1} = y_i + ∫ C_i(φ) dφ,   from φ_i to φ_{i+1}

    with y = x/√(α² + σ²) of shape (batch, *event), φ = arctan(σ/α). P_i goes through v at nodes i,
    i − 1, …, C_i through v at i + 1 as well; v is that of the predicted states.

    Args:
        order: 1 … 6 nodes that predict; one more corrects. High orders for smooth scores alone.
        data_std: Standard deviation of the data, of all their numbers together: 1, unless they
            are of another scale, where it is worth a factor of 2 to 10 in the error.
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If order is not an int.
        ValueError: If it is not 1 … 6, or data_std not finite and > 0.

    Reference:
        Hairer, Nørsett and Wanner 1993, Solving Ordinary Differential Equations I, section III.1
        and III.5 for variable steps; v and φ: Salimans and Ho 2022, appendix D, arXiv:2202.00512.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> end = sg.simulate(flow, x_T, [3.0, 1.0], solver=sg.AngularAdams()).final
        >>> f"{end.item():.4f}"  # 10 √(2/10): data of unit variance have v = 0
        '4.4721'
    """

    order: int = 2
    data_std: float = field(default=1.0, kw_only=True)
    substeps: int = field(default=1, kw_only=True)

    largest_eta: ClassVar[float | None] = 0.0
    evaluations: ClassVar[int] = 1
    takes_modes: ClassVar[bool] = True
    when: ClassVar[str] = "Samples of a smooth score from 5 to 20 evaluations, without noise."
    eta_refusal: ClassVar[str] = (
        "is for the probability flow, but eta is {eta:g}: pass ReverseSDE(sde, score, eta=0.0), "
        "or take ExponentialAdams."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("data_std", self.data_std)
        check_method_order(self.order, 1, _HIGHEST_ORDER)

    def coefficients(self, sde: SDE, nodes: Tensor) -> Coefficients:
        """Return one row for each step; a correction is a part of the step that begins with it."""
        circle = Circle(self.reversal(sde)[1], nodes, self.data_std)
        steps = len(nodes) - 1
        predicted = _integrals(circle.phi, 0, self.order, steps)
        corrected = _integrals(circle.phi, 1, self.order + 1, steps)
        wide = pad(predicted, (0, 1))
        # ŷ_{i+1} − ŷ_i: the correction of ŷ_i, less what predicted it, and the next prediction
        before = pad(predicted[:-1], (1, 0, 1, 0))
        weights = wide + torch.where(torch.arange(steps)[:, None] > 0, corrected - before, 0.0)
        behind = (torch.arange(steps)[:, None] - torch.arange(self.order + 1)).clamp(min=0)
        scale = circle.radius[1:, None] * weights
        decay = circle.radius[1:] / circle.radius[:-1]
        return Coefficients(
            decay,
            scale * circle.of_state[behind],
            scale * circle.of_score[behind],
            torch.zeros_like(decay),
        )


def _integrals(phi: Tensor, ahead: int, most: int, steps: int) -> Tensor:
    """Integrate the Lagrange polynomials through at most `most` nodes i, i − 1, …; (steps, most).

    From φ_i to φ_{i+1} for ahead = 0; for ahead = 1 from φ_{i−1} to φ_i, zero where i = 0.
    """
    rows = []
    for i in range(ahead, steps):
        k = min(i + 1, most)
        last = max(i + 1 - k, 0)
        nodes = phi[last : i + 1].flip(0)
        low, high = phi[i - ahead], phi[i + 1 - ahead]
        half = 0.5 * (high - low)
        u = low + half * (1 + _POINTS)
        values = torch.ones(k, len(u), dtype=phi.dtype)
        for m in range(k):
            others = torch.arange(k) != m
            factor = (u - nodes[m]) / torch.where(others, nodes - nodes[m], 1.0)[:, None]
            values = torch.where(others[:, None], values * factor, values)
        rows.append(pad(half * (values @ _WEIGHTS), (0, most - k)))
    table = torch.stack(rows) if rows else phi.new_zeros(0, most)
    return pad(table, (0, 0, ahead, 0))
