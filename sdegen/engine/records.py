"""Records: what the observables of a run gathered, as tensors by name, and as bytes.

A record has the partial of each observable and a few counts. Its layout is known before the run:
observables are shown two sets of trajectories of different size, and every block must fill the
same shapes. So records can be merged, stored and sent without a word about what is in them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.engine.ranks import Ranks
from sdegen.observables.base import Observable, PairwiseReduction, Partial

BlockStatistics = dict[str, Partial]
Tree = PairwiseReduction[BlockStatistics]

COUNTS = ""  # no observable's name


def counted(*, trajectories: int, nonfinite: int, nfe: int) -> Partial:
    """Return the counts of a block."""
    counts = {"trajectories": trajectories, "nonfinite": nonfinite, "nfe": nfe}
    return {key: torch.tensor(value) for key, value in counts.items()}


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
        self._compare(self._merged(few, more), "after a merge, but before it")
        self._examples = {
            (name, key): few[name][key].to("meta") for name in few for key in sorted(few[name])
        }
        self._sizes = [example.nbytes for example in self._examples.values()]
        self.size: int = sum(self._sizes)

    def tree(self, blocks: int) -> Tree:
        """Return a tree that merges the records of so many blocks."""
        return PairwiseReduction(blocks, self.merged)

    def merged(self, left: BlockStatistics, right: BlockStatistics) -> BlockStatistics:
        """Return the record of both sets of trajectories; one that lost all adds nothing."""
        a, b = left[COUNTS], right[COUNTS]
        counts = {key: a[key] + b[key] for key in ("trajectories", "nonfinite")}
        total: BlockStatistics = {COUNTS: counts | {"nfe": torch.maximum(a["nfe"], b["nfe"])}}
        if a["trajectories"] == a["nonfinite"]:
            return right | total
        if b["trajectories"] == b["nonfinite"]:
            return left | total
        return total | self._merged(left, right)

    def _merged(self, left: BlockStatistics, right: BlockStatistics) -> BlockStatistics:
        """Return the partials of the observables, merged."""
        return {name: o.merge(left[name], right[name]) for name, o in self._observables.items()}

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
                    f"observable {name!r} gathers {shapes} {when} {expected}: an observable's "
                    "partial must have the same tensors for every block; sum or average over the "
                    "trajectories."
                )

    def pack(self, gathered: BlockStatistics) -> Tensor:
        """Return a record as bytes, shape (size,), uint8."""
        parts = [gathered[name][key].contiguous().reshape(-1) for name, key in self._examples]
        return torch.cat([part.view(torch.uint8) for part in parts])

    def unpack(self, record: Tensor) -> BlockStatistics:
        """Return the record that the bytes are, shape (size,), uint8."""
        statistics: BlockStatistics = {}
        parts = torch.split(record, self._sizes)
        for ((name, key), like), part in zip(self._examples.items(), parts, strict=True):
            # a copy begins where any kind of number may
            value = part.clone().view(like.dtype).reshape(like.shape)
            statistics.setdefault(name, {})[key] = value
        return statistics


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
    tree: Tree, layout: RecordLayout, ranks: Ranks, blocks: int
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
        whole = layout.tree(blocks)
        for row in torch.cat(collected):
            level, index = row[:16].clone().view(torch.int64).tolist()
            whole.add(level, index, layout.unpack(row[16:]))
        total = layout.pack(whole.total())
    return layout.unpack(ranks.broadcast(total))
