"""A noising chain against its linear SDE: what has no chance in it needs no samples.

A chain x_k = a_k x_{k−1} + b_k z on k = 0 … N is X at times t_0 … t_N of the SDE if and only if

    Π a_k = α(t_k)/α(t_0),     V_k = a_k² V_{k−1} + b_k² = σ(t_k)² − (α(t_k)/α(t_0))² σ(t_0)²

for every k. a and b are read off the steps themselves. An off-by-one in β, which no test on 10⁵
samples sees at N = 1000, is 2.6e-3 in ᾱ, where the exact chain has 1e-14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.noise import Given
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.sde import SDE
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.engine.validation import check_dynamics
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.certificate import Certificate
from sdegen.verification.check import Check

_LIMIT = 1e-10
_NEAR = 1e-3  # relative: how near the steps must come to those of a mistake for it to be named


def certify_noising(chain: SDE, sde: GaussianPath, times: Tensor) -> Certificate:
    """Certify that a noising chain is a Gaussian path on a grid, without sampling.

        x_k = √ᾱ_k x_0 + √(1 − ᾱ_k) ε of a DDPM chain

    Args:
        chain: Dynamics on integer times 0 … N: a DDPM chain, or one of your own.
        sde: What it should be the exact chain of.
        times: Continuous times of k = 0 … N, increasing, shape (N + 1,); `chain.times` of a DDPM.

    Returns:
        The certificate: the squared factor of the data, ᾱ, and the variance of the noise.

    Raises:
        ValueError: If chain is not on integer times, is not linear, or times are refused.

    Reference:
        Ho, Jain and Abbeel 2020, eq. (4), arXiv:2006.11239.

    Example:
        >>> vp = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> chain = sg.DDPM.discretize(vp, steps=10)
        >>> sg.certify_noising(chain, vp, chain.times).passed
        True
        >>> sg.certify_noising(chain, sg.VP(sg.LinearBeta(0.1, 19.0)), chain.times).passed
        False
    """
    check_kind(
        "chain", chain, SDE, "dynamics on integer times, such as DDPM.discretize(sde, 1000)"
    )
    check_gaussian_path(sde)
    ts = as_time_grid(times)
    steps = torch.arange(len(ts), dtype=torch.float64)
    if not chain.is_discrete:
        raise ValueError(
            f"{type(chain).__name__} is not a chain on integer times; certify(…) takes "
            "differential equations."
        )
    check_dynamics(chain, EulerMaruyama(), steps, None)
    a, b = _steps(chain, steps)
    alpha, sigma = sde.alpha(ts), sde.sigma(ts)
    factor, variance = alpha / alpha[0], sigma**2 - (alpha / alpha[0] * sigma[0]) ** 2
    decays, noise = [torch.ones((), dtype=torch.float64)], [torch.zeros((), dtype=torch.float64)]
    for one, other in zip(a, b, strict=True):
        decays.append(one * decays[-1])
        noise.append(one**2 * noise[-1] + other**2)
    bars, noises = torch.stack(decays).square(), torch.stack(noise)
    remark = _remark(b, sde, ts)
    checks = (
        _largest("factor ᾱ of the data, distance to α(t)²", bars - factor**2, remark),
        _largest("variance of the noise, distance to σ(t)²", noises - variance, remark),
    )
    failed = [check for check in checks if check.verdict == "failed"]
    summary = failed[0].remark if failed else "The chain is the SDE on its grid, exactly."
    return Certificate(checks, None, None, None, summary)


def _steps(chain: SDE, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return a_k and b_k of every step, shapes (N,)."""
    x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    solver = EulerMaruyama()
    memory = solver.begin(chain, steps)
    a, b = [], []
    with torch.no_grad():
        for i in range(len(steps) - 1):
            silent, loud = (
                solver.step(chain, x, i, Given(torch.full_like(x, z)), memory)[0][:, 0]
                for z in (0.0, 1.0)
            )
            bent = float((silent[2] - 2 * silent[1]).abs() + silent[0].abs())
            if bent > 1e-12 or float((loud - silent).diff().abs().max()) > 1e-12:
                raise ValueError(
                    f"{type(chain).__name__} is not a linear noising chain: step {i} is not "
                    "a x + b z with numbers a and b."
                )
            a.append(silent[1])
            b.append(loud[0] - silent[0])
    return torch.stack(a), torch.stack(b)


def _largest(name: str, gap: Tensor, remark: str) -> Check:
    """Check the largest distance over k."""
    k = int(gap.abs().argmax())
    return Check.of_value(
        name,
        float(gap[k].abs()),
        _LIMIT,
        f"The chain is not the SDE on its grid: {name} is {float(gap[k].abs()):.2g} at k = {k}. "
        + remark,
    )


def _remark(b: Tensor, sde: GaussianPath, times: Tensor) -> str:
    """Return a remark if the steps are those of a known mistake."""
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    square = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    inner = b[1:-1] ** 2

    def near(other: Tensor) -> bool:
        return bool((inner / other - 1).abs().max() < _NEAR)

    if len(inner) == 0:
        return "Check its β."
    if near(square[:-2]):
        return "Its β lag by one: step k uses β_{k−1}; betas[0] is β_1, for the step from 0 to 1."
    if near(square[2:]):
        return "Its β lead by one: step k uses β_{k+1}; betas[0] is β_1, for the step from 0 to 1."
    pace = times.diff()[1:-1]
    if near(sde.diffusion_rate(times[1:-2]) ** 2 * pace) or near(
        sde.diffusion_rate(times[2:-1]) ** 2 * pace
    ):
        return (
            "Its β are β(t) dt at one time of the step; the exact ones are 1 − (α_k/α_{k−1})², "
            "as DDPM.discretize has them."
        )
    return "Check its β."
