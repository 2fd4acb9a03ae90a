"""What a calibration found, saved beside its model and read again for that model alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from sdegen.calibration.fitting import multistep
from sdegen.core.errors import CheckpointError
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.noise import stream
from sdegen.core.requests import check_kind
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver
from sdegen.core.tolerances import SAME_MODEL
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.timesteps import powers
from sdegen.storage import load_tensors, save_tensors

_PROBED_ROWS, _PROBED_TIMES = 4, 3
_TOLD = ("error", "error_before", "evaluations", "pilot")


@dataclass(frozen=True, eq=False)
class Calibration(Labelled):
    """A grid and a solver for one model and one number of steps.

        error = √(mean_i |x_N(x_i) − X(x_i)|²)

    Sample with `simulate(dynamics, x_T, calibration.times, solver=calibration.solver)`.

    Attributes:
        times: Nodes, shape (steps + 1,), float64.
        solver: The one that was given or, with free coefficients, a `LinearMultistep`.
        weights: Free coefficients w and u, shape (2, steps, K), or None.
        error: Root-mean-square distance to the accurate flow, over the held-out states. They also
            choose which round is kept, so that it is too kind where the batch is small for the
            dimension or the flow has heavy tails: for a mixture in the plane, 5 steps and 96
            states it was 0.0017, on unseen ones 0.033, and with 768 states 0.0118 on both.
        error_before: The same of what it began from: a solver, and a grid made for it.
        evaluations: Of the score, for each pilot state, all told; see the module.
        pilot: States in the pilot batch, the held-out ones included.
        identity: What the model is known by: its α, σ and score at a few points.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> data = sg.GaussianMixture([1.0], [0.5], stds=0.2)
        >>> flow = sg.ReverseSDE(path, data.noised(path).score, eta=0.0)
        >>> x_T = path.prior((30, 1), rng=0, dtype=torch.float64)
        >>> found = sg.calibrate(flow, sg.DDIM(), 3, x_T, free_coefficients=False, rounds=1)
        >>> found.error < found.error_before, len(found.times)
        (True, 4)
    """

    times: Tensor
    solver: Solver
    weights: Tensor | None
    error: float
    error_before: float
    evaluations: int
    pilot: int
    identity: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write it, whole or not at all, with a sha256; see `sdegen.storage`.

        Args:
            path: The file, usually *.safetensors beside the model's; its folder must exist.
        """
        free = {} if self.weights is None else {"weights": self.weights}
        told = {
            "kind": "Calibration",
            "solver": repr(self.solver) if self.weights is None else None,
            **{name: getattr(self, name) for name in _TOLD},
        }
        save_tensors(path, {"times": self.times, **free, **self.identity}, told)

    @classmethod
    def load(
        cls, path: str | Path, dynamics: ReverseSDE, *, solver: FixedStep | None = None
    ) -> Self:
        """Read what `save` wrote, and refuse it unless it was made for these dynamics.

        Args:
            path: The file.
            dynamics: The probability flow that it shall be used for.
            solver: The one whose nodes were calibrated; None where coefficients were free.

        Raises:
            TypeError: If dynamics are no ReverseSDE.
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is damaged, of another kind, or made for another model, SDE or
                solver; says what differs.
        """
        flow = "the probability flow, ReverseSDE(sde, score, eta=0.0)"
        check_kind("dynamics", dynamics, ReverseSDE, flow)
        tensors, told = load_tensors(path, "Calibration")
        times, weights = tensors.pop("times"), tensors.pop("weights", None)
        _check_identity(path, tensors, dynamics)
        kernel = dynamics.denoising.kernel
        found: Solver
        if weights is not None and kernel is not None:
            if solver is not None:
                raise CheckpointError(
                    f"{path} brings coefficients of its own: load it without solver={solver!r}."
                )
            found = multistep(kernel, times, weights)
        elif solver is None or repr(solver) != told["solver"]:
            raise CheckpointError(
                f"{path} has the nodes of {told['solver']}, but solver is {solver!r}; pass "
                f"solver={told['solver']}."
            )
        else:
            found = solver
        return cls(times, found, weights, identity=tensors, **{name: told[name] for name in _TOLD})


def identity_of(
    dynamics: ReverseSDE, event: torch.Size | tuple[int, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return α, σ and the score at a few times and states, the same in every process."""
    kernel = dynamics.denoising.kernel
    assert kernel is not None  # calibrate() and load() saw to it
    low, high = dynamics.time_range
    at = powers(high, low, _PROBED_TIMES - 1, 2.0)
    alpha, sigma = kernel.alpha(at), kernel.sigma(at)
    z = stream(0, "calibration").normal((_PROBED_ROWS, *event), dtype=torch.float64)
    spread = torch.sqrt(alpha**2 + sigma**2)
    with torch.no_grad():
        scores = [
            dynamics.score((c * z).to(dtype), t).double() for c, t in zip(spread, at, strict=True)
        ]
    return {"probe_t": at, "alpha": alpha, "sigma": sigma, "score": torch.stack(scores)}


def _check_identity(path: str | Path, there: dict[str, Tensor], dynamics: ReverseSDE) -> None:
    """Refuse dynamics that are not those of the file, naming the first difference."""
    if dynamics.denoising.kernel is None or dynamics.eta != 0:
        raise CheckpointError(
            f"{path} is for a probability flow with a kernel, ReverseSDE(sde, score, eta=0.0), "
            f"but dynamics has eta = {dynamics.eta:g}."
        )
    event = tuple(there["score"].shape[2:])
    try:
        here = identity_of(dynamics, event, torch.float64)
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} was made for a model of states of shape (batch, "
            f"{', '.join(map(str, event))}), which this score does not take: {error}"
        ) from error
    ours, theirs = ((float(x["probe_t"][0]), float(x["probe_t"][-1])) for x in (here, there))
    if ours != theirs:
        raise CheckpointError(
            f"{path} was made for another SDE: from t = {theirs[0]:g} to {theirs[1]:g}, but these "
            f"dynamics go from {ours[0]:g} to {ours[1]:g}."
        )
    for name, symbol in (("alpha", "α"), ("sigma", "σ")):
        for t, now, then in zip(there["probe_t"], here[name], there[name], strict=True):
            if not bool((now - then).abs() <= SAME_MODEL * then.abs()):
                raise CheckpointError(
                    f"{path} was made for another SDE: at t = {float(t):g} its {symbol} is "
                    f"{float(then):.6g}, but here it is {float(now):.6g}."
                )
    for t, now, then in zip(there["probe_t"], here["score"], there["score"], strict=True):
        # ≤, since the score of a fresh network may be 0 everywhere
        if not bool((now - then).norm() <= SAME_MODEL * then.norm()):
            off = float((now - then).norm() / then.norm())
            raise CheckpointError(
                f"{path} was made for another model: at t = {float(t):g} its score differs from "
                f"this one by {100 * off:.3g} %."
            )
