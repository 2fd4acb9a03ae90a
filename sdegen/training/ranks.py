"""Group: the ranks that train one module together, of `torch.distributed`.

Each computes the gradient of the loss on its share of the rows of a batch, weighted by the share;
the sum over the ranks is the gradient of the whole, on all of them, and so is the step.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn

from sdegen.core.errors import RankError


@dataclass(frozen=True)
class Group:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: 0 … world − 1.
        world: How many; 1 is this process alone.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def joined(cls) -> Self:
        """Return the ranks of `torch.distributed`, or this process alone.

        Raises:
            ValueError: If torchrun has started several, and they have not been joined.
        """
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        world, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
        if world.isdigit() and int(world) > 1:
            raise ValueError(
                f"this is rank {rank} of {world} that torchrun has started, and each would train "
                "a model of its own: put the training within `with sg.distributed_context():`, "
                "where they train one together, or set WORLD_SIZE=1 for models of their own."
            )
        return cls()

    def partition(self, rows: int) -> slice:
        """Return this rank's rows of a batch."""
        return slice(rows * self.rank // self.world, rows * (self.rank + 1) // self.world)

    def sum(self, value: float) -> float:
        """Return the sum of a number over the ranks."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=_device())
        distributed.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        return flag if self.world == 1 else self.sum(float(flag)) > 0

    def broadcast_value(self, number: int) -> int:
        """Return the number of rank 0."""
        if self.world == 1:
            return number
        shared = torch.tensor(number, dtype=torch.int64, device=_device())
        distributed.broadcast(shared, 0)
        return int(shared)

    def check_same(self, spec: dict[str, Any]) -> None:
        """Refuse ranks whose runs differ.

        Args:
            spec: What makes a run this run; JSON.

        Raises:
            RankError: On all, naming what differs from rank 0.
        """
        if self.world == 1:
            return
        names = sorted(spec)
        digests = [hashlib.sha256(json.dumps(spec[n], sort_keys=True).encode()) for n in names]
        mine = torch.tensor([int.from_bytes(d.digest()[:7], "big") for d in digests])
        mine = mine.to(_device())
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(parts, mine)
        for rank, part in enumerate(parts):
            alike = (part == parts[0]).tolist()
            off = [name for name, same in zip(names, alike, strict=True) if not same]
            if off:
                raise RankError(
                    f"ranks that train together must be given the same, but {', '.join(off)} of "
                    f"rank {rank} differs from that of rank 0."
                )

    @torch.no_grad()
    def broadcast_weights(self, module: nn.Module) -> None:
        """Give all ranks the weights of rank 0."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients of all ranks, on each of them."""
        if self.world == 1:
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            distributed.all_reduce(p.grad)


def _device() -> str:
    """Return the kind of device from which NCCL or gloo sends numbers."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
