"""Records: what the observables of a run gathered, as tensors by name, and as bytes.

A record has the partial of each observable and a few counts. Its layout is found once, before the
run, by showing the observables two sets of trajectories of different size: every block must fill
the same shapes. So records can be merged, stored and sent without a word about what is in them.
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
        for name, observable in self._observables.items():
            first = _checked(name, few[name])
            _compare(name, first, _checked(name, more[name]), "for 3 trajectories, but for 2")
            merged = _checked(name, observable.merge(few[name], more[name]))
            _compare(name, first, merged, "after a merge, but before it")
        self._entries = [
            _Entry(name, key, few[name][key].dtype, tuple(few[name][key].shape))
            for name in few
            for key in sorted(few[name])
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
        for name in self._observables:
            expected = {
                e.key: torch.empty(e.shape, dtype=e.dtype, device="meta")
                for e in self._entries
                if e.observable == name
            }
            _compare(
                name, expected, _checked(name, gathered[name]), f"for block {b}, but at the door"
            )

    def row(self, gathered: BlockStatistics) -> Tensor:
        """Return a record as bytes, shape (size,), uint8."""
        parts = [gathered[e.observable][e.key].contiguous().reshape(-1) for e in self._entries]
        return torch.cat([part.view(torch.uint8) for part in parts])

    def pack(self, gathered: BlockStatistics) -> bytes:
        """Return a record as bytes."""
        return self.row(gathered).numpy().tobytes()

    def unpack(self, record: bytes) -> BlockStatistics:
        """Return the record that the bytes are."""
        found: BlockStatistics = {entry.observable: {} for entry in self._entries}
        place = 0
        for e in self._entries:
            raw = bytearray(record[place : place + e.size])
            tensor = torch.frombuffer(raw, dtype=e.dtype) if raw else torch.empty(0, dtype=e.dtype)
            found[e.observable][e.key] = tensor.reshape(e.shape)
            place += e.size
        return found


def _checked(name: str, partial: object) -> Partial:
    """Return a dict of tensors."""
    if (
        not isinstance(partial, dict)
        or not partial
        or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in partial.items()
        )
    ):
        raise TypeError(
            f"observable {name!r} must gather a dict of tensors by name, but gathered {partial!r}."
        )
    return partial


def _compare(name: str, expected: Partial, found: Partial, when: str) -> None:
    """Refuse other tensors than expected."""
    a, b = _shapes(expected), _shapes(found)
    if a != b:
        raise ValueError(
            f"observable {name!r} gathers {b} {when} {a}: {_SAME}; sum or average over the "
            "trajectories."
        )


def _shapes(partial: Partial) -> dict[str, str]:
    return {
        key: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        for key, value in sorted(partial.items())
    }


def total_over_ranks(
    tree: PairwiseReduction[BlockStatistics], template: RecordLayout, ranks: Ranks, blocks: int
) -> BlockStatistics:
    """Return the total of all ranks; `tree` holds the blocks of this one."""
    if ranks.world == 1:
        return tree.total()
    nodes = [
        torch.cat([torch.tensor(place, dtype=torch.int64).view(torch.uint8), template.row(node)])
        for place, node in tree.nodes.items()
    ]
    empty = torch.empty(0, 16 + template.size, dtype=torch.uint8)
    collected = ranks.gather(torch.stack(nodes) if nodes else empty)
    total = torch.zeros(template.size, dtype=torch.uint8)
    if ranks.rank == 0:
        whole: PairwiseReduction[BlockStatistics] = PairwiseReduction(blocks, template.merged)
        for row in torch.cat(collected):
            level, index = row[:16].clone().view(torch.int64).tolist()
            whole.add(level, index, template.unpack(row[16:].numpy().tobytes()))
        total = template.row(whole.total())
    return template.unpack(ranks.broadcast(total).numpy().tobytes())
