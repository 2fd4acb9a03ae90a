"""Whether a score is right, by noise level, in the data's own dimension, without a density.

Held-out data are noised to some levels, and three things are asked of s there:

- *Moments.* E[s·h + ∇·h] = 0 of s = ∇ log p_t, for fields h of several kinds; and the error
  itself, E|s − s*|², by how much a correction that some of the data taught lowers the loss of
  denoising on the rest: a lower bound, without bias and with a standard error
  (`scores/correction.py`).
- *Curl.* A score is a gradient, and its Jacobian symmetric.
- *Equation.* Scores of different levels hang together by the score Fokker–Planck equation.

The first two tests have a chance in them, and one false-alarm rate for all (Bonferroni). A check
fails if it is beyond chance *and* beyond a limit: a network whose error is half a per cent is
shown with its error, and passes.

What the error costs a sampler is Girsanov's bound,

    KL(p_ε ‖ q) ≤ ½ ∫ E[(s − s*)·C (s − s*)] dt,     C = G Gᵀ

with q the law of the reverse SDE from the exact p_T; of α and σ it is ½ ∫ σ² E|s − s*|² dλ,
λ = log σ²/α², summed by the trapezoidal rule over the levels.

Reference:
    Song et al. 2021, Maximum likelihood training, theorem 1, arXiv:2101.09258, for the bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, Stream, seed_of, stream
from sdegen.core.requests import check_function, check_kind, check_state
from sdegen.core.scores import score_of_rows
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Times
from sdegen.core.signature import check_order
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.model import ModelScore, ScoreModel
from sdegen.verification.check import Check, Checked
from sdegen.verification.scores.level_checks import (
    FIELDS,
    RootRatio,
    ScoreLimits,
    field_checks,
    skipped_slope,
    slope_check,
)
from sdegen.verification.scores.level_findings import LevelFinding, find
from sdegen.verification.scores.noised import NoisedRows, Noising, noised_rows
from sdegen.verification.scores.slopes import antisymmetry, equation_gap
from sdegen.verification.scores.summary import JudgedLevel, shown, summary_of

_LEAST = 100  # rows
_PAIRS, _NUMBERS = 4, 2**20  # pairs ±ε of each row, as long as they are no more numbers
_STATES, _SLOPES = (16, 256), 2**14  # at which slopes are asked, and numbers of them
_EQUATION = "score, Fokker–Planck equation"
_CURL = "score, curl"


@dataclass(frozen=True)
class ScoreResiduals(Checked):
    """How far a score is from the true one at each noise level.

        error = √(E|s − s*|²/E|s*|²),     kl = ½ ∫ E[(s − s*)·C (s − s*)] dt

    Arrays have one entry for each level. Errors are lower bounds without bias: what no correction
    that was looked for has found is not in them.

    Attributes:
        times: t of each level, increasing; of a DDPM chain its step k. Float64, shape (levels,).
        log_snr: log α²/σ² there; None where the process has no α and σ.
        error: |s − s*|/|s*|, root mean squares.
        error_bars: Standard errors of it, and no less than that of the factor.
        squared_error: E|s − s*|², which may be negative by chance.
        squared_error_bars: Standard errors of it.
        squared_score: E|s*|².
        by_coordinate: Error of each coordinate over its own score, shape (levels, *judged), with
            the shape of a state; in phase space of velocities.
        factor: c of s ≈ c s*.
        factor_bars: Standard errors of it.
        curl: ‖½ (J − Jᵀ)‖/‖J‖ of the Jacobian; NaN where it was not judged.
        curl_bars: Standard errors of it.
        equation: What is left of the score Fokker–Planck equation over the size of its terms; NaN
            where it was not judged.
        equation_bars: Standard errors of it.
        kl: ½ ∫ E[(s − s*)·C (s − s*)] dt in nats, Girsanov's bound of what the error costs.
        kl_bar: Its standard error.
        checks: All checks, level by level.
        summary: What is wrong, or that nothing is.
        seed: What to pass as rng to get the same numbers again.

    Example:
        >>> vp, z = sg.VP(sg.LinearBeta(0.1, 20.0)), (torch.arange(500.0) + 0.5) / 500
        >>> x = torch.special.ndtri(z)[:, None]  # N(0, 1)
        >>> found = sg.score_residuals(vp, lambda x, t: -1.3 * x, x, levels=2, rng=0)
        >>> [f"{c:.1f}" for c in found.factor.tolist()]  # too large at both
        ['1.3', '1.3']
    """

    times: Tensor
    log_snr: Tensor | None
    error: Tensor
    error_bars: Tensor
    squared_error: Tensor
    squared_error_bars: Tensor
    squared_score: Tensor
    by_coordinate: Tensor
    factor: Tensor
    factor_bars: Tensor
    curl: Tensor
    curl_bars: Tensor
    equation: Tensor
    equation_bars: Tensor
    kl: float
    kl_bar: float
    checks: tuple[Check, ...]
    summary: str
    seed: int

    def __str__(self) -> str:
        pairs = [(self.error, self.error_bars), (self.factor, self.factor_bars)]
        pairs += [(self.curl, self.curl_bars), (self.equation, self.equation_bars)]
        heads = "".join(f"{name:>19s}" for name in ("|s − s*|/|s*|", "factor", "curl", "equation"))
        rows = [self.summary, f"{'t':>9s}{heads}"]
        for i, t in enumerate(self.times.tolist()):
            cells = "".join(f"{float(v[i]):10.4f} ± {float(e[i]):6.4f}" for v, e in pairs)
            rows.append(f"{t:9.4g}{cells}")
        cost = f"what the error costs a sampler: {max(self.kl, 0.0):.3g} ± {self.kl_bar:.2g} nats"
        return "\n".join([*rows, cost, *map(str, shown(self.checks))])


def score_residuals(
    sde: SDE,
    score: ScoreFn | ScoreModel,
    data: State,
    *,
    times: Times | None = None,
    levels: int = 10,
    limits: ScoreLimits | None = None,
    false_alarm: float = 1e-3,
    rng: Rng = None,
) -> ScoreResiduals:
    """Judge a score on held-out data at several noise levels, without a density.

        E|s − s*|² by E[s·h + ∇·h] = E[(s − s*)·h]

    Args:
        sde: Forward process with a Gaussian kernel: a GaussianPath, `LinearSDE`, phase space, or a
            `DDPM` chain, whose times are its steps k.
        score: s(x, t), or a `ScoreModel`, which is judged in evaluation mode. Of a chain it is
            asked at chain.times[k].
        data: Rows that the score has not seen, independent, shape (n, *event), n ≥ 100; in phase
            space positions.
        times: Levels, two or more; None: `levels` of them, of equal steps in log SNR from t_min to
            t_max.
        levels: How many, ≥ 2, where times are not given.
        limits: What is allowed however sure it is; `ScoreLimits()`.
        false_alarm: Chance that an exact score fails, of all levels and fields together.
        rng: Seed, generator or None.

    Returns:
        Errors with error bars by noise level, and the checks.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the process has no Gaussian kernel or no times, rows are fewer than 100 or
            all the same, a time is outside those of the score, or the score has another shape than
            x or is not finite.

    Reference:
        Stein 1981; Vincent 2011; Lai et al. 2023, arXiv:2210.04296.

    Example:
        >>> vp, z = sg.VP(sg.LinearBeta(0.1, 20.0)), (torch.arange(500.0) + 0.5) / 500
        >>> x = torch.special.ndtri(z)[:, None]  # N(0, 1)
        >>> sg.score_residuals(vp, lambda x, t: -x, x, levels=2, rng=0).passed
        True
        >>> sg.score_residuals(vp, lambda x, t: -1.3 * x, x, levels=2, rng=0).passed
        False
    """
    check_kind("sde", sde, SDE, "an SDE, such as VP(LinearBeta(0.1, 20.0))")
    rows = check_state(data, name="data").detach()
    if len(rows) < _LEAST:
        raise ValueError(
            f"data must hold {_LEAST} rows or more, of which errors are known, but hold "
            f"{len(rows)}."
        )
    if bool((rows == rows[:1]).all()):
        raise ValueError("data must be a sample, but all its rows are the same.")
    check_count("levels", levels, least=2)
    if limits is not None:
        check_kind("limits", limits, ScoreLimits, "ScoreLimits(error=0.02), or None")
    check_kind("false_alarm", false_alarm, float, "a number in (0, 1), such as 1e-3")
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must lie in (0, 1), but is {false_alarm:g}.")
    seed = seed_of(rng)
    with _judged(score) as asked:
        if times is None:
            noising = Noising.of(sde, asked)
            ts = noising.levels(levels)
        else:
            noising, ts = Noising.at(sde, asked, times)
        judge = _Judge(noising, asked, rows, limits or ScoreLimits(), false_alarm / len(ts))
        found = [judge.level(t, stream(seed, f"score at level {k}")) for k, t in enumerate(ts)]
    return _result(noising, ts, found, seed)


@contextmanager
def _judged(score: object) -> Iterator[ScoreFn]:
    """Yield a score, of a model in evaluation mode."""
    model = score if isinstance(score, ScoreModel) else None
    model = score.model if isinstance(score, ModelScore) else model
    if model is None:
        check_function("score", score, "a function (x, t) -> ∇ log p_t(x), or a ScoreModel")
        assert callable(score)
        check_order(score, "score")
        yield score
        return
    was = model.training
    model.eval()
    try:
        yield model.score
    finally:
        model.train(was)


@dataclass(frozen=True)
class _Judge:
    """Judges one level after the other; `false_alarm` is that of a level."""

    noising: Noising
    score: ScoreFn
    data: State
    limits: ScoreLimits
    false_alarm: float

    def level(self, t: Tensor, source: Stream) -> JudgedLevel:
        """Judge one level."""
        pairs = max(1, min(_PAIRS, _NUMBERS // self.data.numel()))
        rows = noised_rows(self.noising, self.score, self.data, t, pairs, source.child("noise"))
        finding = find(rows, lambda v: self._weighted(rows, v), source.child("folds"))
        share = finding.squared_error / finding.squared_score
        # an error along s itself is seen from this size on, whatever a correction has found
        bar = max(finding.squared_error_bar / finding.squared_score, finding.factor_bar**2)
        error = RootRatio.of(share, bar)
        checks = field_checks(finding, float(t), self.limits, self.false_alarm / FIELDS)
        curl, of_curl = self._slopes(rows, t, source.child("curl"), _CURL)
        equation, of_equation = self._slopes(rows, t, source.child("equation"), _EQUATION)
        beside = float(self.noising.beside(t) - self.noising.asked(t))
        checks += [of_curl, of_equation]
        return JudgedLevel(finding, error, curl, equation, checks, beside, rows.event)

    def _weighted(self, rows: NoisedRows, field: Tensor) -> Tensor:
        """Return C v, flat; of a pair α and σ v itself, for which σ² stands later."""
        if isinstance(self.noising.sde, GaussianPath | DDPM):
            return field
        numbers = rows.whole.shape[2]
        whole = torch.zeros_like(rows.whole)
        whole[..., numbers - field.shape[2] :] = field
        parts = [
            self.noising.sde.covariance_times(
                x.reshape(-1, *rows.event), rows.t, v.reshape(-1, *rows.event)
            ).flatten(1)
            for x, v in zip(rows.whole, whole, strict=True)
        ]
        return torch.stack(parts)[..., numbers - field.shape[2] :]

    def _slopes(
        self, rows: NoisedRows, t: Tensor, source: Stream, name: str
    ) -> tuple[RootRatio, Check]:
        """Return curl or what is left of the equation, and its check."""
        is_curl = name == _CURL
        limit = self.limits.curl if is_curl else self.limits.equation
        d, numbers = rows.x.shape[2], rows.whole.shape[2]
        many = min(len(self.data), max(_STATES[0], min(_STATES[1], _SLOPES // numbers)))
        x = rows.whole[0, :many].reshape(-1, *rows.event).to(self.data)
        score, asked = score_of_rows(self.score, slice(many)), self.noising.asked(t)
        why = ""
        if is_curl and d == 1:
            why = "One coordinate has no curl."
        elif not is_curl and isinstance(self.noising.sde, DDPM):
            why = "A chain has no differential equation."
        elif (
            not is_curl
            and bool((score(x, asked).flatten(1)[:, : numbers - d] == 0).all())
            and (numbers > d)
        ):
            why = "The score has no part along positions."
        if not why:
            try:
                if is_curl:
                    pair = antisymmetry(score, x, asked, numbers - d, source)
                else:
                    pair = equation_gap(score, self.noising.sde, x, asked, source)
                found = RootRatio.of_rows(*pair)
                remark = (
                    "The score is no gradient: it is that of no density."
                    if is_curl
                    else "Scores of neighbouring times do not belong to one process."
                )
                return found, slope_check(name, found, limit, float(t), remark)
            except ValueError as error:  # autograd does not see what is asked for
                why = str(error)
        return RootRatio.unknown(), skipped_slope(name, limit, float(t), why)


def _result(noising: Noising, ts: Tensor, found: list[JudgedLevel], seed: int) -> ScoreResiduals:
    """Put the levels side by side."""
    findings = [level.finding for level in found]
    event = found[0].event
    event = event[1:] if noising.sde.phase_space else event

    def column(values: Iterator[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64)

    shares = torch.stack(
        [f.by_coordinate / f.score_by_coordinate.clamp(min=1e-300) for f in findings]
    )
    kl, kl_bar = _cost(noising, ts, findings)
    checks = tuple(check for level in found for check in level.checks)
    return ScoreResiduals(
        times=ts,
        log_snr=noising.log_snr(ts),
        error=column(level.error.value for level in found),
        error_bars=column(level.error.error for level in found),
        squared_error=column(f.squared_error for f in findings),
        squared_error_bars=column(f.squared_error_bar for f in findings),
        squared_score=column(f.squared_score for f in findings),
        by_coordinate=shares.clamp(min=0.0).sqrt().reshape(len(ts), *event),
        factor=column(f.factor for f in findings),
        factor_bars=column(f.factor_bar for f in findings),
        curl=column(level.curl.value for level in found),
        curl_bars=column(level.curl.error for level in found),
        equation=column(level.equation.value for level in found),
        equation_bars=column(level.equation.error for level in found),
        kl=kl,
        kl_bar=kl_bar,
        checks=checks,
        summary=summary_of(checks, found, ts),
        seed=seed,
    )


def _cost(noising: Noising, ts: Tensor, findings: list[LevelFinding]) -> tuple[float, float]:
    """Return ½ ∫ E[δ·C δ] dt by the trapezoidal rule, and its standard error."""
    values = torch.tensor([f.weighted for f in findings], dtype=torch.float64)
    bars = torch.tensor([f.weighted_bar for f in findings], dtype=torch.float64)
    along, log_snr = ts, noising.log_snr(ts)
    if isinstance(noising.sde, GaussianPath | DDPM) and log_snr is not None:
        square = noising.squared_sigma(ts)
        values, bars, along = values * square, bars * square, -log_snr
    steps = along.diff()
    weights = 0.5 * torch.cat([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
    kl = 0.5 * float((weights * values).sum())
    return kl, 0.5 * math.sqrt(float((weights * bars).square().sum()))
