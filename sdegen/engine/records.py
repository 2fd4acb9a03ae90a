"""Records: what the observables of a run gathered, as tensors by name, and as bytes.

A record has the partial of each observable and a few counts. Its layout is known before the run:
observables are shown two sets of trajectories of different size, and every block must fill the
same shapes. So records can be merged, stored and sent without a word about what is in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdegen.engine.ranks import Ranks
from sdegen.observables.base import Observable, PairwiseReduction, Partial

BlockStatistics = dict[str, Partial]

COUNTS = ""  # no observable's name
_SAME = "an observable's partial must have the same tensors for every block"


def counted(*, trajectories: int, nonfinite: int, nfe: int) -> Partial:
    """Return the counts of a block."""
    counts = {"trajectories": trajectories, "nonfinite": nonfinite, "nfe": nfe}
    return {key: torch.tensor(value) for key, value in counts.items()}


@dataclass(frozen=True)
class _Entry:
    """Where a tensor stands in a record."""

    observable: str
    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


class RecordLayout:
    """The layout of the records of a run, and how two of them merge.

    Args:
        observables: What is accumulated.
        few: What they gather of a few trajectories.
        more: What they gather of one more.

    Raises:
        TypeError: If a partial is no dict of tensors.
        ValueError: If its shapes depend on the number of trajectories, or change in a merge; names
            the observable.
    """

    def __init__(
        self, observables: Sequence[Observable], few: BlockStatistics, more: BlockStatistics
    ) -> None:
        self._observables = {observable.name: observable for observable in observables}
        self._shapes = {name: _shapes(name, few[name]) for name in self._observables}
        self._compare(more, "for 3 trajectories, but for 2")
        merged = {name: o.merge(few[name], more[name]) for name, o in self._observables.items()}
        self._compare(merged, "after a merge, but before it")
        self._entries = [
            _Entry(name, key, value.dtype, tuple(value.shape))
            for name in few
            for key, value in sorted(few[name].items())
        ]
        self.size = sum(entry.size for entry in self._entries)

    def merged(self, left: BlockStatistics, right: BlockStatistics) -> BlockStatistics:
        """Return the record of both sets of trajectories; one that lost all adds nothing."""
        a, b = left[COUNTS], right[COUNTS]
        counts = {key: a[key] + b[key] for key in ("trajectories", "nonfinite")}
        found: BlockStatistics = {COUNTS: counts | {"nfe": torch.maximum(a["nfe"], b["nfe"])}}
        if a["trajectories"] == a["nonfinite"]:
            return right | found
        if b["trajectories"] == b["nonfinite"]:
            return left | found
        for name, observable in self._observables.items():
            found[name] = observable.merge(left[name], right[name])
        return found

    def check(self, gathered: BlockStatistics, b: int) -> None:
        """Refuse a block whose partials have other shapes than those of the probe.

        Raises:
            TypeError: If one is no dict of tensors.
            ValueError: Naming the observable and both shapes.
        """
        self._compare(gathered, f"for block {b}, but for 2 trajectories")

    def _compare(self, gathered: BlockStatistics, when: str) -> None:
        """Refuse partials that have other tensors than the first ones."""
        for name, expected in self._shapes.items():
            shapes = _shapes(name, gathered[name])
            if shapes != expected:
                raise ValueError(
                    f"observable {name!r} gathers {shapes} {when} {expected}: {_SAME}; sum or "
                    "average over the trajectories."
                )

    def pack(self, gathered: BlockStatistics) -> Tensor:
        """Return a record as bytes, shape (size,), uint8."""
        parts = [gathered[e.observable][e.key].contiguous().reshape(-1) for e in self._entries]
        return torch.cat([part.view(torch.uint8) for part in parts])

    def unpack(self, record: Tensor) -> BlockStatistics:
        """Return the record that the bytes are, shape (size,), uint8."""
        found: BlockStatistics = {entry.observable: {} for entry in self._entries}
        parts = torch.split(record, [entry.size for entry in self._entries])
        for e, part in zip(self._entries, parts, strict=True):
            # a copy begins where any kind of number may
            found[e.observable][e.key] = part.clone().view(e.dtype).reshape(e.shape)
        return found


def _shapes(name: str, partial: object) -> dict[str, str]:
    """Return the kinds and shapes of an observable's partial.

    Raises:
        TypeError: If it is no dict of tensors.
    """
    if (
        not isinstance(partial, dict)
        or not partial
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in partial.items())
    ):
        raise TypeError(
            f"observable {name!r} must gather a dict of tensors by name, but gathered {partial!r}."
        )
    return {
        key: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        for key, value in sorted(partial.items())
    }


def total_over_ranks(
    tree: PairwiseReduction[BlockStatistics], layout: RecordLayout, ranks: Ranks, blocks: int
) -> BlockStatistics:
    """Return the total of all ranks; `tree` holds the blocks of this one."""
    if ranks.world == 1:
        return tree.total()
    places = torch.tensor(list(tree.nodes), dtype=torch.int64).reshape(-1, 2)
    empty = torch.empty(0, layout.size, dtype=torch.uint8)
    records = torch.cat([empty, *(layout.pack(node)[None] for node in tree.nodes.values())])
    collected = ranks.gather(torch.cat([places.view(torch.uint8), records], 1))
    total = torch.zeros(layout.size, dtype=torch.uint8)
    if ranks.rank == 0:
        whole: PairwiseReduction[BlockStatistics] = PairwiseReduction(blocks, layout.merged)
        for row in torch.cat(collected):
            level, index = row[:16].clone().view(torch.int64).tolist()
            whole.add(level, index, layout.unpack(row[16:]))
        total = layout.pack(whole.total())
    return layout.unpack(ranks.broadcast(total))
