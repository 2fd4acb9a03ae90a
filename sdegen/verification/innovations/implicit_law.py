"""The law of a step that is nonlinear in its noise and still one-to-one: Heun's method.

x' = F(x, z) is solved for z by iteration from the update,

    z ← z + (√|dt| g)⁻¹ (x' − F(x, z)),

which contracts by ½ |dt| |∂f/∂x|. Where it does not come to rest, the step may have several
solutions, and is not judged. The density of x' needs the Jacobian of F in z, which must not change
its sign: its determinant is computed by autograd, one row of it at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import Given
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.verification.innovations.law import Innovations, StepLaw, flat, is_even

_ROUNDS = 60
_ENOUGH = {torch.float64: 1e-10, torch.float32: 2e-5}  # of z: where an iteration stops


class ImplicitLaw(StepLaw):
    """The law of Heun's steps, of additive diagonal noise in all coordinates.

    Args:
        sde: What moves, by belief.
        solver: How it moves: one draw a step, F(x, z) with ∂F/∂z near √|dt| g.
        nodes: Times of the states, shape (steps + 1,).
        determinant: Whether log_scale has the Jacobian of F, not that of its first guess.
    """

    by_coordinate = True

    def __init__(
        self, sde: SDE, solver: FixedStep, nodes: Tensor, *, determinant: bool = True
    ) -> None:
        self.name: str = type(solver).__name__
        self._sde = sde
        self._solver = solver
        self.alike: bool = bool(sde.autonomous) and is_even(nodes)
        nodes = nodes[:2] if self.alike else nodes
        self._memory, self._lengths = solver.begin(sde, nodes), nodes.diff()
        self.determinant: bool = determinant
        self._nodes = nodes

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        i = 0 if self.alike else i
        root = float(self._lengths[i].abs().sqrt())
        g = torch.as_tensor(self._sde.diffusion(x, self._nodes[i])).to(x)
        if bool((g == 0).any()):
            raise ValueError(
                f"the noise that {self.name} believes in is 0 in some coordinates, so that steps "
                "cannot be solved for it."
            )
        scale = root * flat(g, x)
        start = self._after(x, torch.zeros_like(x), i)
        z = (after.reshape(len(x), -1) - start) / scale
        judged = torch.zeros(len(x), dtype=torch.bool)
        for _ in range(_ROUNDS):
            change = (after.reshape(len(x), -1) - self._after(x, z.reshape(x.shape), i)) / scale
            z = z + change
            judged = change.abs().amax(1) <= _ENOUGH.get(x.dtype, 2e-5) * (1 + z.abs().amax(1))
            if bool(judged.all()):
                break
        pull = (start - x.reshape(len(x), -1)) / scale
        log_scale, good = self._log_determinant(x, z, scale, i)
        judged = judged & good
        return Innovations(z, pull, log_scale, judged=None if bool(judged.all()) else judged)

    def _after(self, x: State, z: Tensor, i: int) -> Tensor:
        """Return where draws lead, shape (n, d)."""
        return self._solver.step(self._sde, x, i, Given(z), self._memory)[0].reshape(len(x), -1)

    def _log_determinant(
        self, x: State, z: Tensor, scale: Tensor, i: int
    ) -> tuple[Tensor, Tensor]:
        """Return log |det ∂F/∂z|, shape (n,), and where it has the sign of a short step."""
        plain = scale.double().abs().log().sum(1)
        d = z.shape[1]
        if not self.determinant:
            return plain, torch.ones(len(x), dtype=torch.bool)
        with torch.enable_grad():
            draws = z.detach().clone().requires_grad_()
            y = self._after(x, draws.reshape(x.shape), i)
            rows = [
                torch.autograd.grad(y[:, k].sum(), draws, retain_graph=k < d - 1)[0]
                for k in range(d)
            ]
        ratio = torch.stack(rows, 1).double() / scale.double()[:, :, None]
        sign, log_det = torch.linalg.slogdet(ratio)
        return plain + log_det, sign > 0
