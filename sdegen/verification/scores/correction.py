"""A correction of a score, learned from some rows and judged on others: how large its error is.

With r = s + L⁻ᵀε, whose mean given x is δ = s − s*, any field c(x) that other rows gave has

    E[2 r·c − |c|²] = E|δ|² − E|δ − c|²  ≤  E|δ|²

so that a row average is, without bias and with a standard error, a lower bound of the squared
error of the score, and it is the error where c = δ. It is what the correction takes off the loss
of denoising score matching. c is sought in stages, each of what the stages before left over:

    named        α₁ s + α₂ (x − E x) + α₃ (s(x, t') − s(x, t))       factor, width, wrong time
    coordinates  c_i = a_i + b_i y_i + c_i s_i + d_i tanh y_i + …    each coordinate by itself
    linear       c = W y                                             rotations, wrong correlations
    smooth       c = W ψ(y),  ψ random waves of several lengths      any smooth error

The rows that learn are cut in two: the first fit the stage, the second say by what share of it the
error falls, 0 for a stage that has learned noise. It is then fitted to both and taken in that
share.

Reference:
    Vincent 2011, Neural Comput. 23, 1661, eq. (11), for the loss; Rahimi and Recht 2007 for random
    waves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.noise import Stream
from sdegen.verification.scores.noised import NoisedRows

_MOST_LINEAR = 256  # coordinates that a matrix is fitted for
_WAVES = 256  # of the smooth stage
_LENGTHS = (0.4, 1.0, 2.5)  # of frequencies, in units of one over the spread of x
_RIDGES = (1e-5, 1e-3, 1e-1)  # in units of the mean eigenvalue
_NUMBERS = 2**20  # of a function of coordinates at once
_FITTED = 0.7  # of the rows that learn, for fitting


class Correction:
    """A field c(x) for the error of a score, from some of the rows.

    Args:
        rows: At one level.
        learn: Indices of the rows that it may see.
        centre: Of the coordinates, shape (d,).
        scale: Their spread, shape (d,).
        source: Of the order of the rows, and of random waves.

    Attributes:
        field: c at all rows, shape (copies, n, d).
    """

    def __init__(
        self, rows: NoisedRows, learn: Tensor, centre: Tensor, scale: Tensor, source: Stream
    ) -> None:
        shuffled = learn[torch.randperm(len(learn), generator=source.generator())]
        cut = int(_FITTED * len(learn))
        self._learn, self._fit, self._weigh = shuffled, shuffled[:cut], shuffled[cut:]
        self._rows, self._off = rows, rows.x - centre
        self._scale, self._left = scale, rows.residual
        self.field: Tensor = torch.zeros_like(rows.x)
        self._named()
        self._coordinates()
        d, many = rows.x.shape[2], rows.whole.shape[2]
        if 1 < d <= _MOST_LINEAR:
            self._ridge(self._off / scale)
        spread = rows.whole[:, self._fit].flatten(0, 1)
        y = (rows.whole - spread.mean(0)) / spread.std(0).clamp(min=1e-300)
        self._ridge(self._waves(y, many, source))

    def _named(self) -> None:
        """Take the best combination of s, x − E x and the score beside."""
        basis = torch.stack([self._rows.s, self._off, self._rows.beside])

        def fitted(rows: Tensor) -> Tensor:
            chosen, left = basis[:, :, rows], self._left[:, rows]
            gram = torch.einsum("acnd,bcnd->ab", chosen, chosen)
            target = torch.einsum("acnd,cnd->a", chosen, left)
            size = gram.diagonal().clamp(min=1e-300).sqrt()
            gram = gram / size / size[:, None] + 1e-9 * torch.eye(3, dtype=torch.float64)
            weights = torch.linalg.solve(gram, target / size) / size
            return torch.einsum("a,acnd->cnd", weights, basis)

        share = self._share(fitted(self._fit), together=True)
        self._take(fitted(self._learn), share)

    def _coordinates(self) -> None:
        """Take a function of each coordinate for its own error."""
        together = max(1, _NUMBERS // self._off[..., 0].numel())
        parts = [slice(first, first + together) for first in range(0, len(self._scale), together)]
        first, both = (
            torch.cat([self._of_coordinates(some, rows) for some in parts], 2)
            for rows in (self._fit, self._learn)
        )
        self._take(both, self._share(first, together=False))

    def _of_coordinates(self, some: slice, rows: Tensor) -> Tensor:
        """Return functions of some coordinates, fitted to their errors at some rows."""
        scale = self._scale[some]
        y, t = self._off[..., some] / scale, self._rows.s[..., some] * scale
        psi = torch.stack([torch.ones_like(y), y, t, torch.tanh(y), torch.cos(1.5 * y), y * y])
        chosen, left = psi[:, :, rows], self._left[:, rows, some]
        gram = torch.einsum("acnd,bcnd->dab", chosen, chosen)
        target = torch.einsum("acnd,cnd->da", chosen, left)
        ridge = 1e-4 * gram.diagonal(dim1=1, dim2=2).mean(1)
        eye = torch.eye(len(psi), dtype=torch.float64)
        weights = torch.linalg.solve(gram + ridge[:, None, None] * eye, target[..., None])[..., 0]
        return torch.einsum("da,acnd->cnd", weights, psi)

    def _ridge(self, psi: Tensor) -> None:
        """Take c = W ψ with the ridge under which the error falls most; ψ (copies, n, m)."""
        grams, targets = [], []
        for rows in (self._fit, self._weigh):
            chosen, left = psi[:, rows].flatten(0, 1), self._left[:, rows].flatten(0, 1)
            grams.append(chosen.T @ chosen)
            targets.append(chosen.T @ left)
        values, vectors = torch.linalg.eigh(grams[0])
        target, weighed = vectors.T @ targets[0], psi[:, self._weigh]
        best, gain, ridge = None, 0.0, 0.0
        for each in _RIDGES:
            damped = values.clamp(min=0.0) + each * values.mean().clamp(min=1e-300)
            weights = vectors @ (target / damped[:, None])
            field = weighed @ weights
            fall = float((self._left[:, self._weigh] * field).mean())
            size = float(field.square().mean())
            if fall > 0 and size > 0 and fall * fall / size > gain:
                best, gain, ridge = field, fall * fall / size, each
        if best is not None:
            gram = sum(grams, torch.zeros_like(grams[0]))
            damped = ridge * gram.diagonal().mean().clamp(min=1e-300)
            gram = gram + damped * torch.eye(len(gram), dtype=torch.float64)
            weights = torch.linalg.solve(gram, sum(targets, torch.zeros_like(targets[0])))
            self._take(psi @ weights, self._share_of(best, together=True))

    def _waves(self, y: Tensor, many: int, source: Stream) -> Tensor:
        """Return random waves of y and a constant, shape (copies, n, m)."""
        count = min(_WAVES, len(self._fit) // 2)
        each = max(1, count // len(_LENGTHS))
        lengths = torch.tensor(_LENGTHS, dtype=torch.float64).repeat_interleave(each)
        omega = source.normal((len(lengths), many), dtype=torch.float64)
        omega = omega * (lengths[:, None] / math.sqrt(many))
        phases = source.normal((len(lengths),), dtype=torch.float64) * math.pi
        return torch.cat([torch.cos(y @ omega.T + phases), torch.ones_like(y[..., :1])], 2)

    def _share(self, field: Tensor, *, together: bool) -> Tensor:
        """Return `_share_of` a field that is given at all rows."""
        return self._share_of(field[:, self._weigh], together=together)

    def _share_of(self, some: Tensor, *, together: bool) -> Tensor:
        """Return the share of a field by which the error of the rows that weigh falls most.

        Args:
            some: The field at these rows.
            together: Whether one share serves all coordinates; else each has its own, and it is 0
                where the fall is no larger than the largest of as many by chance.
        """
        fall = (self._left[:, self._weigh] * some).mean(0)
        size = some.square().mean(0)
        if together:
            fall, size = fall.sum(1, keepdim=True), size.sum(1, keepdim=True)
        mean, error = fall.mean(0), fall.std(0) / math.sqrt(len(fall))
        least = max(1.0, math.sqrt(2 * math.log(fall.shape[1])))
        share = (mean / size.mean(0).clamp(min=1e-300)).clamp(0.0, 1.0)
        return torch.where(mean > least * error, share, 0.0)

    def _take(self, field: Tensor, share: Tensor) -> None:
        """Add a share of a field."""
        taken = share * field
        self.field = self.field + taken
        self._left = self._left - taken
