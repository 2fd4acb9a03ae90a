"""Times of a process without a kernel, where its user says none: found by a simulation.

    t_max   when KL(p_t ‖ π) ≤ 0.01 nats, π the law at rest (`sdegen.diffusion.relaxation`)
    t_min   a hundredth of 1/|∇f|, and at most when the noise is a twentieth of the data's width,
            √(t_min tr(G Gᵀ)/d) = 0.05 √(tr Cov/d)

Euler's chain is run from the data, over times that are doubled until its second half is at rest:
the slowest rate has been seen for three of its relaxation times, and no mean has moved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.noise import Noise, Stream, stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import integrate
from sdegen.diffusion.mismatch import prior_mismatch
from sdegen.diffusion.priors import SamplePrior
from sdegen.diffusion.relaxation import noising_time_of, rest_of
from sdegen.score.targets.choice import rate_of
from sdegen.solvers.euler import EulerMaruyama

_TOLERANCE = 0.01  # nats
_PATHS = 2048  # whose law is followed, and as many that it is compared with
_NODES = 32  # at which it is looked at
_FIRST, _DOUBLINGS = 6.0, 9  # 1/|∇f|, and how often it is doubled
_STEP = 0.02  # of 1/|∇f|
_SURE = 4.5  # standard errors of a divergence that is told
_MOST = 64  # numbers of a state, of whose covariance a rate is read
_EARLY, _NOISE = 0.01, 0.05  # t_min in 1/|∇f|, and its noise in widths of the data


def noising_times(sde: SDE, data: State) -> tuple[float, float]:
    """Return t_min and t_max of a process, found from data.

    Args:
        sde: Forward dynamics without a kernel.
        data: Examples, shape (n, *event), in the dtype in which they are simulated.

    Raises:
        ValueError: If the process changes in time or does not come to rest, or a state has more
            than 64 numbers.
    """
    name = type(sde).__name__
    if sde.autonomous is False:
        raise _unknown(f"{name} changes in time, and may have no law at rest")
    if data[0].numel() > _MOST:
        raise _unknown(
            f"states of {data[0].numel()} numbers are more than the {_MOST} that are followed"
        )
    source, zero = stream(0, "times of a score"), torch.zeros((), dtype=torch.float64)
    some = torch.randint(len(data), (2 * _PATHS,), generator=source.generator())
    x0 = data[some.to(data.device)]
    rate = rate_of(sde, x0, zero)
    if not rate > 0:
        raise _unknown(f"{name} has no drift that brings it to rest")
    with torch.no_grad():
        high = _until_rest(sde, x0, rate, Noise(x0, source.child("steps"), channels=sde.channels))
        spread = covariance_matrix(sde, x0[:_PATHS], zero).double()
    noise = float(spread.diagonal(dim1=-2, dim2=-1).mean())
    width = float(data.double().var(0).mean())
    low = _EARLY * min(1 / rate, high)
    if noise > 0 and width > 0:
        low = min(low, _NOISE**2 * width / noise)
    return (low, high)


def forgotten(sde: SDE, ends: State, high: float, step: float, source: Stream) -> float:
    """Return KL(p_T ‖ p_2T) as paths show it, in nats; 0 where it is no more than their error.

    Args:
        sde: Forward dynamics that do not change in time.
        ends: States at T, shape (paths, *event), of which half go on, and half are compared.
        high: T.
        step: The longest step.
        source: Where random numbers come from.
    """
    if ends[0].numel() > _MOST:
        return 0.0
    own, x = ends[:_PATHS], ends[_PATHS : 2 * _PATHS]
    nodes = torch.linspace(0.0, high, math.ceil(high / step) + 1, dtype=torch.float64)
    with torch.no_grad():
        for after in integrate(
            sde, EulerMaruyama(), x, nodes, Noise(x, source, channels=sde.channels)
        ):
            x = after
    if not bool(x.isfinite().all()):
        return math.inf
    found = prior_mismatch(_looked_at(own), SamplePrior(_looked_at(x)))
    return found.kl if found.kl > _SURE * found.standard_error else 0.0


def diverged(sde: SDE, step: float) -> ValueError:
    """Return the error of simulated paths that left all bounds, at steps of such a length."""
    return ValueError(
        f"paths of this {type(sde).__name__} are not finite at steps of {step:.3g}: its drift "
        "carries some to infinity, or data lie far outside; scale them, or change the drift."
    )


def _until_rest(sde: SDE, x: State, rate: float, noise: Noise) -> float:
    """Return the time after which paths from x have forgotten where they began."""
    span = _FIRST / rate
    steps = math.ceil(_FIRST / _STEP / _NODES)
    states, times = [_looked_at(x)], [0.0]
    for _ in range(_DOUBLINGS + 1):
        gap = span / _NODES
        while len(times) <= _NODES:
            nodes = torch.linspace(0.0, gap, steps + 1, dtype=torch.float64)
            for after in integrate(sde, EulerMaruyama(), x, nodes, noise):
                x = after
            if not bool(x.isfinite().all()):
                raise diverged(sde, gap / steps)
            states.append(_looked_at(x))
            times.append(times[-1] + gap)
        own, ts = torch.stack([each[:_PATHS] for each in states]), torch.tensor(times).double()
        rest = rest_of(own, ts)
        if rest.reached:
            found = noising_time_of(own, states[-1][_PATHS:], ts, rest, _TOLERANCE)
            return max(1 / rest.rate, 0.0 if found is None else found.time)
        states, times, steps, span = states[::2], times[::2], 2 * steps, 2 * span
    raise _unknown(
        f"{type(sde).__name__} was not at rest by t = {span / 4:.3g}, and may have no law at rest"
    )


def _looked_at(x: State) -> Tensor:
    """Return states in float64 on the CPU, where their neighbours are looked for.

    Numbers of a short format come several times; each is moved within its own rounding.
    """
    wide = x.detach().double().cpu()
    u = stream(0, "rounding").child(str(tuple(wide.shape))).normal(wide.shape, dtype=wide.dtype)
    return wide + 0.5 * torch.finfo(x.dtype).eps * wide.abs() * u


def _unknown(why: str) -> ValueError:
    """Return the error of times that cannot be found."""
    return ValueError(
        f"the times at which a score is learned were not said, and none are found: {why}. Pass "
        "t_min and t_max, ScoreModel(network, sde, times=(0.01, T)), T = noising_time(sde, "
        "data).time, say."
    )
