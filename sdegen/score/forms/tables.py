"""Tables: mean and standard deviation of p_t, by which a network is given states of order one.

They come of a simulation, of as many paths as a table needs (their errors of a few percent
change what is easy to learn, not what is learned), and are kept with the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdegen.core.shapes import State, Time

_GROUPS, _FEW = 64, 200  # of samples that are taken for one time, and samples in each
_LEAST = 1e-6  # of the largest deviation, below which a coordinate is not divided by its own


class MomentTables(nn.Module):
    """Mean and standard deviation of each coordinate of p_t, and states at its end.

    Args:
        times: Increasing, shape (n,).
        means: Shape (n, *event).
        stds: Same shape, > 0.
        ends: States at t_max, shape (paths, *event).
    """

    times: Tensor
    means: Tensor
    stds: Tensor
    ends: Tensor

    def __init__(self, times: Tensor, means: Tensor, stds: Tensor, ends: Tensor) -> None:
        super().__init__()
        for name, table in (("times", times), ("means", means), ("stds", stds), ("ends", ends)):
            self.register_buffer(name, table)

    @classmethod
    def of(cls, times: Tensor, states: Tensor) -> MomentTables:
        """Return the tables of simulated states.

        Args:
            times: Shape (n,).
            states: Shape (n, paths, *event); the last are kept.
        """
        wide = states.double()
        stds = wide.std(1)
        stds = stds.clamp_min(float(stds.max()) * _LEAST)
        return cls(times.to(states), wide.mean(1).to(states), stds.to(states), states[-1].clone())

    @classmethod
    def of_samples(cls, t: Tensor, x: State) -> MomentTables:
        """Return the tables of samples at times of their own; groups of near times are one time.

        Args:
            t: Shape (n,).
            x: Shape (n, *event).

        Raises:
            ValueError: If there are fewer than two samples.
        """
        if len(x) < 2:
            raise ValueError("samples of p_t must be two or more, for a mean and a width.")
        order = t.argsort(stable=True)
        groups = max(1, min(_GROUPS, len(x) // _FEW))
        parts = order.tensor_split(groups)
        times = torch.stack([t[one].double().mean() for one in parts])
        # equal times in several groups are one
        first = torch.cat([times.new_ones(1, dtype=torch.bool), times[1:] > times[:-1]])
        where = first.cumsum(0) - 1
        joined = [
            torch.cat([one for one, k in zip(parts, where.tolist(), strict=True) if k == j])
            for j in range(int(first.sum()))
        ]
        wide = [x[one.to(x.device)].double() for one in joined]
        stds = torch.stack([one.std(0) for one in wide])
        stds = stds.clamp_min(float(stds.max()) * _LEAST)
        means = torch.stack([one.mean(0) for one in wide])
        return cls(times[first].to(x), means.to(x), stds.to(x), x[joined[-1].to(x.device)].clone())

    def at(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation at t, of x's dtype, broadcastable to it."""
        when = t.to(self.times).reshape(-1)
        if len(self.times) == 1:  # samples of one time
            return self.means.to(x), self.stds.to(x)
        right = torch.searchsorted(self.times, when).clamp(1, len(self.times) - 1)
        low, high = self.times[right - 1], self.times[right]
        share = ((when - low) / (high - low)).clamp(0, 1)
        share = share.reshape(-1, *(1,) * (self.means.ndim - 1))
        mean, std = (
            torch.lerp(table[right - 1], table[right], share).to(x)
            for table in (self.means, self.stds)
        )
        return mean, std
