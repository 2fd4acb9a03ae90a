"""Parameterization: what the number that a network puts out means.

    x_t = α x0 + σ ε,     ∇ log p_t(x_t) = −E[ε | x_t] / σ,     v = α ε − σ x0

Given x_t and t, one of ε, x0, v and the score determines the other three, so a network may learn
any of them. They are not equally easy to learn. ε and x0 are of order one at all noise levels; ε
is trivial where there is much noise and hard where there is little, x0 the other way round. v is
hard nowhere: for VP it is the derivative of the state along its circle of (α, σ), and α ε − σ x0
has no correlation with x_t for data of unit variance. The score itself grows like 1/σ.

Off the circle, α² + σ² ≠ 1 (VE, SubVP), v is a rotation times a stretch s = √(α² + σ²).
`VPrediction` reads a network's output as v/s, which stays of order one; it is then the
preconditioning of Karras et al. for data of unit variance.

A parameterization is three formulas: the pair (x0, ε) from an output, the output from the pair,
and how far ε moves when the output does. All else (score, v, losses) is made from the pair. Two
more say what a network is given: by what x_t is divided, and how it is told the time; those here
share √(α² + σ²) and t itself, those of `sdegen.score.preconditioning` have their own.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.retired import refuse_old_methods
from sdegen.core.shapes import State, Time

Estimates = tuple[State, State]  # x0 and ε


def score_of(eps: State, sigma: Tensor | float) -> State:
    """∇ log p_t = −ε/σ, from ε = E[ε | x_t]; sigma broadcastable to eps, or a number."""
    return eps / -sigma


def v_of(x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
    """v = α ε − σ x0; alpha and sigma broadcastable to the states.

    Reference:
        Salimans and Ho 2022, section 4, arXiv:2202.00512.
    """
    return alpha * eps - sigma * x0


class Parameterization(ABC):
    """How the raw output of a network is read. α and σ are broadcastable to the states.

    Attributes:
        outputs: Numbers that a network puts out for each of the state; its methods are given the
            first.

    Raises:
        TypeError: If a class defines a method by its name of version 0.1.
    """

    outputs: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        refuse_old_methods(cls, {"read": "decode", "slope": "d_eps_d_output", "clock": "c_noise"})

    @abstractmethod
    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return the estimates (x0, ε) that an output stands for; α x0 + σ ε = x_t."""

    def eps(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return ε alone, which is all that a score is made of."""
        return self.decode(output, x_t, alpha, sigma)[1]

    @abstractmethod
    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return the output that stands for (x0, ε): what a network is taught."""

    @abstractmethod
    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ∂ε/∂output at fixed x_t: turns an error of the output into an error of ε."""

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the divisor of x_t as the network is given it: √(α² + σ²), the spread of x_t."""
        return torch.hypot(alpha, sigma)

    def c_noise(self, t: Time, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the number that stands for the time: t; all three have t's shape."""
        return t


@dataclass(frozen=True)
class EpsPrediction(Parameterization):
    """The network predicts the noise, ε: its output has the shape of x_t, (batch, *event).

        x0 = (x_t − σ ε)/α

    Reference:
        Ho et al. 2020, eqs. (11) and (12), arXiv:2006.11239.

    Example:
        >>> reads = sg.EpsPrediction()
        >>> alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
        >>> x_t = torch.tensor([[1.4]])  # 0.8 · 1 + 0.6 · 1
        >>> reads.decode(torch.tensor([[0.5]]), x_t, alpha, sigma)  # ((1.4 − 0.6 · 0.5)/0.8, 0.5)
        (tensor([[1.3750]]), tensor([[0.5000]]))
    """

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from ε."""
        return (x_t - sigma * output) / alpha, output

    def eps(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return the output itself."""
        return output

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return ε."""
        return eps

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return 1."""
        return alpha.new_ones(())


@dataclass(frozen=True)
class X0Prediction(Parameterization):
    """The network predicts the data, x0: its output has the shape of x_t, (batch, *event).

        ε = (x_t − α x0)/σ

    Towards t = 0 the division magnifies what the network gets wrong, and a density suffers: on a
    mixture in the plane it lost 0.10 nats where the same network lost 0.02 by predicting ε or v.

    Example:
        >>> alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
        >>> x_t = torch.tensor([[1.4]])
        >>> sg.X0Prediction().decode(torch.tensor([[1.0]]), x_t, alpha, sigma)  # (1.4 − 0.8)/0.6
        (tensor([[1.]]), tensor([[1.0000]]))
    """

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from x0."""
        return output, (x_t - alpha * output) / sigma

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return x0."""
        return x0

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return −α/σ."""
        return -alpha / sigma


@dataclass(frozen=True)
class VPrediction(Parameterization):
    """The network predicts v/s, s = √(α² + σ²), which is v itself for VP; shape of x_t.

        x0 = (α x_t − σ v)/s²,     ε = (σ x_t + α v)/s²,     v = α ε − σ x0

    Reference:
        Salimans and Ho 2022, section 4 and appendix D, arXiv:2202.00512.

    Example:
        >>> reads, x0, eps = sg.VPrediction(), torch.tensor([[1.0]]), torch.tensor([[2.0]])
        >>> alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
        >>> v = reads.target(x0, eps, alpha, sigma)
        >>> v  # 0.8 · 2 − 0.6 · 1
        tensor([[1.]])
        >>> reads.decode(v, alpha * x0 + sigma * eps, alpha, sigma)
        (tensor([[1.]]), tensor([[2.]]))
    """

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from v/s."""
        square = alpha**2 + sigma**2
        v = square.sqrt() * output
        return (alpha * x_t - sigma * v) / square, (sigma * x_t + alpha * v) / square

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return v/s."""
        return v_of(x0, eps, alpha, sigma) / (alpha**2 + sigma**2).sqrt()

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return α/s."""
        return alpha / (alpha**2 + sigma**2).sqrt()


@dataclass(frozen=True)
class ScorePrediction(Parameterization):
    """The network predicts the score, ∇ log p_t: its output has the shape of x_t, (batch, *event).

        ε = −σ score,     x0 = (x_t + σ² score)/α

    The score grows like 1/σ towards t = 0, and the network with it: this is for networks that are
    of that size by themselves, such as the gradient of an energy. A plain one manages the two
    decades of σ of a VP-SDE, and not the four of VE.

    Reference:
        Vincent 2011, eq. (9); Song et al. 2021, eq. (7), arXiv:2011.13456; x0 by Tweedie's
        formula.

    Example:
        >>> alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
        >>> x_t = torch.tensor([[2.0]])  # of data N(0, 1): score −x_t, E[x0 | x_t] = α x_t
        >>> sg.ScorePrediction().decode(-x_t, x_t, alpha, sigma)
        (tensor([[1.6000]]), tensor([[1.2000]]))
    """

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from the score."""
        return EpsPrediction().decode(-sigma * output, x_t, alpha, sigma)

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return −ε/σ."""
        return score_of(eps, sigma)

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return −σ."""
        return -sigma
