"""Drift and noise errors as functions of the state and of time.

An error δf of the drift moves z by √dt g⁻¹ δf(x, t), one of the noise changes the size of z: the
sums of z, and of |z| turned into a normal, with functions of x and t that were known before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.verification.battery.features import FEATURES, features_of, standardised
from sdegen.verification.battery.finding import Finding, of_normals, of_variance
from sdegen.verification.battery.martingale import normal_sums, prefix_of
from sdegen.verification.innovations.normal import normal_of
from sdegen.verification.innovations.sample import Sample, Totals, bits_of

_PAIRS = 2**14  # of an innovation and a coordinate: all pairs are looked at up to here
_WAVES = 6  # of time
_AT_ONCE = 2**24  # numbers of features in memory


def size_normals(z: Tensor) -> Tensor:
    """Return Φ⁻¹(P(|Z| ≤ |z|)): a standard normal that tells how large z is."""
    half = z.abs() / math.sqrt(2)
    return normal_of(torch.special.erf(half), torch.special.erfc(half))


class Regressions:
    """The regressions of a sample.

    Args:
        sample: Innovations.
        totals: Sums over all of them.
    """

    def __init__(self, sample: Sample, totals: Totals) -> None:
        self._sample, self._totals = sample, totals
        self._fresh = torch.Generator().manual_seed(bits_of(sample.x[-1]))
        self._size = size_normals(sample.z)
        # centre and width of features are those of states that were before the noise
        first = prefix_of(len(sample.z))
        self._late = slice(first - 1, None)
        self._u = standardised(sample.x, first)[self._late]

    def findings(self) -> list[Finding]:
        """Return all of them."""
        return [
            *self._of_drift_factor(),
            *self._of_state("drift as a function of the state", self._sample.z),
            *self._of_state("noise as a function of the state", self._size),
            *self._of_time("drift as a function of time", self._sample.z),
            *self._of_time("noise as a function of time", self._size),
            *self._of_steps(),
            *self._of_trajectories(),
        ]

    def _of_drift_factor(self) -> list[Finding]:
        """Return whether the drift is as strong as is believed."""
        family, totals, sample = "strength of the drift", self._totals, self._sample
        if totals.pull_square == 0:
            return []
        pull, z = sample.pull, sample.z
        phi = pull.flatten(1)[..., None]
        if sample.whole:
            value = normal_sums(phi, z.flatten(1), self._fresh)
        else:
            value = torch.tensor([totals.pull / math.sqrt(totals.pull_square)])
        findings = [of_normals(family, "the drift by a factor", value)]
        k = z.shape[2]
        if 1 < k <= 512:
            each = torch.cat(
                [normal_sums(pull[..., i, None], z[..., i], self._fresh) for i in range(k)]
            )
            live = pull.square().sum((0, 1)) > 0
            if bool(live.any()):
                findings.append(
                    of_normals(family, "the drift of one coordinate", each[live], "coordinate")
                )
        return findings

    def _of_state(self, family: str, w: Tensor) -> list[Finding]:
        """Return sums with features of the state."""
        w = w[self._late]
        k, d = w.shape[2], self._u.shape[2]
        features = features_of(self._u)  # (F, B, D, 3)
        findings = []
        for of, same in self._same(k, d):
            for j, verb in enumerate(FEATURES):
                # of all coordinates together, each with the feature of its own
                phi = features[..., same, j]
                pooled = normal_sums(phi.flatten(1)[..., None], w.flatten(1), self._fresh)
                findings.append(of_normals(family, f"what {verb} {of}", pooled))
        findings += self._of_radius(family, w)
        if 1 < k * d <= _PAIRS:
            for j, verb in enumerate(FEATURES):
                sums = torch.stack([self._with_all(features[..., j], w[..., i]) for i in range(k)])
                label = "innovation, coordinate" if k * d > 1 else ""
                findings.append(of_normals(family, f"what {verb} a coordinate", sums, label))
        return findings

    def _with_all(self, phi: Tensor, w: Tensor) -> Tensor:
        """Return the sums of one innovation with all features, shape (D,)."""
        width = max(1, _AT_ONCE // max(1, phi[..., 0].numel()))
        return torch.cat(
            [normal_sums(part, w, self._fresh) for part in torch.split(phi, width, -1)]
        )

    def _same(self, k: int, d: int) -> list[tuple[str, Tensor]]:
        """Return which coordinate belongs to each innovation, where that is known."""
        if self._sample.phase_space and d % 2 == 0:
            half = torch.arange(d // 2)
            if k == d // 2:
                return [("the position", half), ("the velocity", half + d // 2)]
            return [("the position", torch.cat([half, half]))] if k == d else []
        return [("the coordinate itself", torch.arange(d))] if k == d else []

    def _of_radius(self, family: str, w: Tensor) -> list[Finding]:
        """Return sums with the distance from the centre, of all coordinates together."""
        if self._u.shape[2] < 2:
            return []
        r = self._u.square().mean(2)
        ratio = (r - 1) / (r + 1)
        whole = w.sum(2) / math.sqrt(w.shape[2])
        value = normal_sums(ratio[..., None], whole, self._fresh)
        return [of_normals(family, "what changes with the distance from the centre", value)]

    def _of_time(self, family: str, w: Tensor) -> list[Finding]:
        """Return sums with waves along the run; of the drift, also of its strength."""
        frames = len(w)
        if frames < 3:
            return []
        tau = self._sample.progress
        waves = torch.stack([torch.cos(math.pi * (j + 1) * (tau + 1) / 2) for j in range(_WAVES)])
        each = w.flatten(1)
        whole = each.sum(1) / math.sqrt(each.shape[1])  # (F,), a normal each
        sums = (waves * whole).sum(1) / waves.square().sum(1).sqrt()
        return [of_normals(family, "what changes along the run", sums, "wave")]

    def _of_steps(self) -> list[Finding]:
        """Return what single steps show: their mean, their noise, their drift."""
        z, pull = self._sample.z, self._sample.pull
        family, label = "noise of single steps", "step"
        findings = _of_slices(family, label, z.flatten(1), z.sum(1), z.shape[1])
        if len(z) > 1:  # given the states before, a normal of each step, however few they are
            findings += _of_slope(family, label, (pull * z).flatten(1), pull.flatten(1))
        return findings

    def _of_trajectories(self) -> list[Finding]:
        """Return what single trajectories show: their mean and their noise."""
        z = self._sample.z.transpose(0, 1)
        if len(z) < 2:
            return []
        family, label = "noise of single trajectories", "trajectory"
        return _of_slices(family, label, z.flatten(1), z.sum(1), z.shape[1])


def _of_slices(family: str, label: str, rows: Tensor, sums: Tensor, count: int) -> list[Finding]:
    """Return the findings of noise and mean of single steps, or of single trajectories.

    Args:
        family: The question.
        label: What a slice is, "step" or "trajectory".
        rows: All numbers of each slice, shape (slices, numbers).
        sums: Sums of each coordinate in a slice, shape (slices, K).
        count: How many numbers are in one such sum.
    """
    squares = rows.square().sum(1)
    findings = [of_variance(family, f"noise of one {label}", squares, rows.shape[1], label)]
    if count > 1:
        means = sums.square().sum(1) / count
        findings.append(of_variance(family, f"mean of one {label}", means, sums.shape[1], label))
    return findings


def _of_slope(family: str, label: str, products: Tensor, pull: Tensor) -> list[Finding]:
    """Return the finding of the strength of the drift in single steps."""
    top, bottom = products.sum(1), pull.square().sum(1)
    live = bottom > 0
    if not bool(live.any()):
        return []
    values = top[live] / bottom[live].sqrt()
    return [of_normals(family, f"drift of one {label}", values, label)]
