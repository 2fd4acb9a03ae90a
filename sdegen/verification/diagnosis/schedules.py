"""Mistakes of diffusion models: schedules, scores, variances, and their times.

A step of a reverse process is a part that the forward process makes, a part of the score, and
noise. Each part may have a wrong factor, which is a function of time. A step of a chain is

    x' = A x + B score + s z

with coefficients by number of the step, and mistakes are other coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.shapes import State, Time
from sdegen.diffusion.ddpm import DDPM, AncestralChain
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.chain_law import chain_alternatives
from sdegen.verification.diagnosis.factors import (
    Factor,
    drift_and_noise,
    fitted_drift,
    residual_of,
)
from sdegen.verification.diagnosis.model import (
    LEAST,
    LOG_TWO_PI,
    TWICE,
    Alternative,
    Fitted,
    of_law,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Transitions, evaluate
from sdegen.verification.innovations.law import StepLaw

_KIND = "schedule"


def schedule_alternatives(belief: Belief) -> list[Alternative]:
    """Return mistakes of schedules and scores; those of single steps of any dynamics in time."""
    table: list[Alternative] = []
    if not belief.law.alike:
        table += _single_steps()
    sde = belief.sde
    if isinstance(sde, DDPM | AncestralChain):
        table += chain_alternatives(belief)
    if isinstance(sde, ReverseSDE) or (
        isinstance(sde, AncestralChain) and sde.variance != "learned"
    ):
        table += [*_parts(belief), *_score_times(belief)]
    if isinstance(sde, ReverseSDE):
        table += _etas(belief)
    return table


def with_score(sde: ReverseSDE | AncestralChain, score: Callable[[State, Time], State]):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return reverse dynamics with another score."""
    clone = copy.copy(sde)
    clone.score = score
    return clone


def _parts(belief: Belief) -> list[Alternative]:
    """Return the score, or the drift of the forward process, by a factor."""
    sde = belief.sde
    assert isinstance(sde, ReverseSDE | AncestralChain)

    def forward(data: Transitions) -> Tensor | None:
        if "forward" not in data.kept:
            silent = with_score(sde, lambda x, _: torch.zeros_like(x))
            data.kept["forward"] = evaluate(belief.law_with(sde=silent), data).pull
        pull: Tensor = data.kept["forward"]
        return pull

    def of_score(data: Transitions) -> Tensor | None:
        rest = forward(data)
        return None if rest is None else data.base.pull - rest

    scores: list[tuple[str, str, Factor]] = [
        ("score of the wrong sign", "the score had the wrong sign", -1.0),
        ("score missing", "there were no score", 0.0),
        ("score twice", "the score counted twice", 2.0),
        ("score half", "the score counted half, as in the probability flow", 0.5),
        ("score √2 times", "the score counted √2 times", math.sqrt(2.0)),
    ]
    if isinstance(sde, ReverseSDE) and sde.forward.kernel is not None:
        sigma = _sigmas(belief)
        scores += [
            ("score times σ", "the score were multiplied by σ", lambda d: sigma[d.steps]),
            ("noise for score", "the noise ε were taken for the score",
             lambda d: -sigma[d.steps]),
            ("score divided by σ", "the score were divided by σ", lambda d: 1 / sigma[d.steps]),
            ("g for g² in the drift", "the score were multiplied by g, not by g²", _inverse_g),
        ]  # fmt: skip
    drifts: list[tuple[str, str, Factor]] = [
        ("forward drift of the wrong sign", "the drift of the forward process had the wrong sign",
         -1.0),
        ("forward drift missing", "the drift of the forward process were missing", 0.0),
        ("forward drift twice", "the drift of the forward process counted twice (β for β/2)", 2.0),
        ("forward drift half", "the drift of the forward process counted half", 0.5),
    ]  # fmt: skip
    table = []
    for family, pull, rows in (
        ("score by a factor", of_score, scores),
        ("forward drift by a factor", forward, drifts),
    ):
        table += [
            drift_and_noise(name, _KIND, words, factor, 1.0, family=family, pull=pull)
            for name, words, factor in rows
        ]
        words = "the {} counted {{a}} times".format(family.removesuffix(" by a factor"))
        table.append(fitted_drift(family, _KIND, words, family=family, pull=pull))
    return table


def _inverse_g(data: Transitions) -> Tensor:
    """Return 1/g of the forward process at each frame."""
    sde, times = data.belief.sde, data.belief.states.times
    assert isinstance(sde, ReverseSDE)
    point = data.x[0].double()
    values = [
        float(sde.forward.diffusion(point, times[i]).double().abs().mean())
        for i in data.steps.tolist()
    ]
    return 1 / torch.tensor(values, dtype=torch.float64)


def _sigmas(belief: Belief) -> Tensor:
    """Return σ at each of the times."""
    sde = belief.sde
    assert isinstance(sde, ReverseSDE)
    kernel = sde.forward.kernel
    assert kernel is not None
    return kernel.sigma(belief.states.times).double()


def _score_times(belief: Belief) -> list[Alternative]:
    """Return scores that are asked at another time than that of the step."""
    sde = belief.sde
    assert isinstance(sde, ReverseSDE | AncestralChain)
    times = sde.chain.times if isinstance(sde, AncestralChain) else belief.states.times
    first, last = times[0], times[-1]
    ahead = -1 if isinstance(sde, AncestralChain) else 1

    def shifted(by: int) -> Callable[[Tensor], Tensor]:
        def change(t: Tensor) -> Tensor:
            i = int((times - t).abs().argmin())
            return times[min(max(i + by, 0), len(times) - 1)]

        return change

    changes: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
        ("time off by one", "the score were that of the next step's time (off by one)",
         shifted(ahead)),
        ("time off by one", "the score were that of the step before (off by one)",
         shifted(-ahead)),
        ("score at the reversed time", "the score were asked at times that run the wrong way",
         lambda t: first + last - t),
        ("score at one time", "the score were asked at the first time all along",
         lambda t: times[-1] if isinstance(sde, AncestralChain) else first),
        ("score at the last time", "the score were asked at the last time all along",
         lambda t: times[1] if isinstance(sde, AncestralChain) else last),
    ]  # fmt: skip
    table = []
    own = sde.score
    for name, words, change in changes:

        def law(change: Callable[[Tensor], Tensor] = change) -> StepLaw:
            def score(x: State, t: Time) -> State:
                return own(x, change(torch.as_tensor(t)))

            return belief.law_with(sde=with_score(sde, score))

        table.append(of_law(name, "time", words, law))
    return table


def _etas(belief: Belief) -> list[Alternative]:
    """Return other η of reverse dynamics, and the noise of a chain in the place of DDIM's."""
    sde = belief.sde
    assert isinstance(sde, ReverseSDE)
    table = []
    for eta in (0.0, 0.5, 1.0):
        if eta in (sde.eta, 0.0):
            continue

        def law(eta: float = eta) -> StepLaw:
            return belief.law_with(sde=ReverseSDE(sde.forward, sde.score, eta))

        words = f"η were {eta:g}, not {sde.eta:g}"
        table.append(of_law(f"η of {eta:g}", _KIND, words, law, family="another η"))
    words = "the drift were that of the probability flow, with the noise of the reverse SDE"
    if sde.forward.kernel is not None and sde.eta > 0:
        sigma = _sigmas(belief)
        words = "the noise had the variance of a forward step, not that of the posterior"
        table.append(
            drift_and_noise("β for the posterior variance", _KIND, words, 1.0,
                            lambda d: sigma[d.steps] / sigma[d.steps + 1])
        )  # fmt: skip
        words = "the noise had the variance of the posterior, not that of a forward step"
        table.append(
            drift_and_noise("posterior variance for β", _KIND, words, 1.0,
                            lambda d: sigma[d.steps + 1] / sigma[d.steps])
        )  # fmt: skip
    return table


def _single_steps() -> list[Alternative]:
    """Return noise of the first or the last step that has another strength."""
    return [
        Alternative("noise of the last step", _KIND, "", _of_step(-1), "noise of one step"),
        Alternative("noise of the first step", _KIND, "", _of_step(0), "noise of one step"),
    ]


def _silent_step(data: Transitions, which: int) -> Fitted:
    """Return one step without noise."""
    z = data.base.z
    ratio, new = torch.zeros_like(z), z.clone()
    ratio[which] = 0.5 * z[which].square() + 0.5 * LOG_TWO_PI - math.log(2 * data.resolution)
    new[which] = torch.randn(z[which].shape, generator=data.fresh, dtype=torch.float64)
    evaluation = with_noise(data, new, ratio)
    gain = float((evaluation.log_p - data.base.log_p).sum())
    words = f"the {'last' if which else 'first'} step had no noise"
    return Fitted(gain, lambda: evaluation, value=0.0, words=words, excused=(TWICE,))


def _of_step(which: int) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of the noise of one step."""

    def fit(data: Transitions) -> Fitted | None:
        z = data.base.z[which]
        if z.numel() < 8 or not bool(data.base.judged[which].all()):
            return None
        c = float(z.square().mean().sqrt())
        if c <= data.resolution:
            return _silent_step(data, which)
        c = max(LEAST, c)
        factors = torch.ones(len(data.x), dtype=torch.float64)
        factors[which] = c
        evaluation = residual_of(data, data.base.pull, 1.0, factors)
        gain = float((evaluation.log_p - data.base.log_p).sum())
        name = "last" if which else "first"
        words = f"the noise of the {name} step were {c:.3g} times what it should be"
        return Fitted(gain, lambda: evaluation, 1, 0.0, c, c / math.sqrt(2 * z.numel()), words)

    return fit
