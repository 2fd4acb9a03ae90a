"""Ranks: one ensemble computed by several processes, on one machine or on many.

torchrun starts the processes and gives each a number, its rank. Each rank computes a run of the
blocks that are missing; a block does not depend on who computes it, so the ranks exchange nothing
until the end. Then rank 0 collects what observables gathered, merged within each rank along the
same tree as in one process, and hands the total to all: the bits are those of one process. All
write to one store, which must lie on a disk that all see.

    torchrun --nproc-per-node 4 -m sdegen simulate --sde well.py:well --store run.zarr …

    torchrun --nnodes 8 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint node0:29400
        -m sdegen simulate --sde well.py:well --store /shared/run.zarr …

on every node the same line (in one line); node0 is one of them. In a program, started likewise:

    with sg.distributed_context() as ranks:
        ensemble = sg.run_ensemble(sde, x0, times, trajectories=10**9, ranks=ranks, …)

Processes talk by gloo. Those of a run on GPUs, distributed_context("cuda"), talk by NCCL, and each
takes a device of its own: rank r of a node cuda:r. Unless `threads=` says otherwise, the processes
of a machine share its cores.

A rank that dies takes the others down: torchrun ends them, each ends its block's step, says so,
and leaves what is done in the store; the same line with --resume computes what is missing. What
an error says stands last in torchrun's report.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType

import torch
from torch import Tensor, distributed

from sdegen.core.errors import RankError
from sdegen.core.fingerprint import difference

# ranks meet at the end alone, and may be hours apart; a dead one is noticed by its connection
_PATIENCE = timedelta(days=7)
_MOMENT = 3.0  # seconds; torchrun looks ten times a second
ENDED = "another rank has died, or all of them were ended from outside (SIGTERM)"
_LOST = (
    "another rank has died, or cannot be reached ({error}); what is done is in the store, if "
    "there is one: the same run with resume=True computes what is missing."
)


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run, and which of them this is.

    Attributes:
        rank: 0 … world − 1.
        world: How many.
        local: Which of those on this machine.
        here: How many are on this machine.
        ended: Set by the SIGTERM with which torchrun ends the ranks when one has died.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    here: int = 1
    ended: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def partition(self, blocks: Sequence[int]) -> Sequence[int]:
        """Return this rank's blocks, consecutive: its part of the tree is merged here."""
        return blocks[
            len(blocks) * self.rank // self.world : len(blocks) * (self.rank + 1) // self.world
        ]

    def broadcast_value(self, prepare: Callable[[], int]) -> int:
        """Return a number that rank 0 computes for all; where it raises, all do.

        Args:
            prepare: What only rank 0 does.

        Raises:
            Exception: What prepare raised, on rank 0.
            RankError: On the others.
        """
        if self.world == 1:
            return prepare()
        failure: Exception | None = None
        number = 0
        if self.rank == 0:
            try:
                number = prepare()
            except Exception as error:
                failure = error
        refused, shared = self.broadcast(torch.tensor([int(failure is not None), number])).tolist()
        if failure is not None:
            raise failure
        if refused:
            raise RankError(f"rank {self.rank} of {self.world}: rank 0 has refused the run.")
        return int(shared)

    def check_same(self, about: dict[str, str]) -> None:
        """Refuse ranks that differ in what their bits depend on.

        Args:
            about: Versions, the kind of processor.

        Raises:
            RankError: On all, naming one that differs from rank 0, and how.
        """
        if self.world == 1:
            return
        text = json.dumps(about).encode()
        row = torch.zeros(1, 4096, dtype=torch.uint8)
        row[0, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        all_of_them = [json.loads(bytes(r[0].tolist()).rstrip(b"\0")) for r in self.gather(row)]
        for rank, other in enumerate(all_of_them):
            if (gap := difference(all_of_them[0], other)) is not None:
                gap = gap.replace(" there", " on rank 0").replace(" here", f" on rank {rank}")
                raise RankError(
                    f"the ranks would compute different bits: {gap}; start them with the same "
                    "versions and on the same kind of processor."
                )

    def gather(self, rows: Tensor) -> list[Tensor]:
        """Return everybody's rows, on all.

        Args:
            rows: Shape (n, bytes), uint8; n may differ from rank to rank.
        """
        if self.world == 1:
            return [rows]
        device = _device()
        counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.world)]
        with _watched():
            distributed.all_gather(counts, torch.tensor([len(rows)], device=device))
            most = max(int(count) for count in counts)
            padded = torch.zeros(most, rows.shape[1], dtype=torch.uint8, device=device)
            padded[: len(rows)] = rows.to(device)
            parts = [torch.empty_like(padded) for _ in range(self.world)]
            distributed.all_gather(parts, padded)
        return [part[: int(n)].cpu() for part, n in zip(parts, counts, strict=True)]

    def broadcast(self, row: Tensor) -> Tensor:
        """Return rank 0's tensor, on all."""
        if self.world == 1:
            return row
        sent = row.to(_device())
        with _watched():
            distributed.broadcast(sent, 0)
        return sent.cpu()


def single_process() -> Ranks:
    """Return the one rank of a process that joined no others.

    Raises:
        ValueError: If torchrun started others, each of which would do the whole run.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise ValueError(
            f"torchrun started {world} processes, and each would run all trajectories: share them "
            "by `with distributed_context() as ranks: run_ensemble(…, ranks=ranks)`."
        )
    return Ranks()


@contextmanager
def distributed_context(device: torch.device | str = "cpu") -> Iterator[Ranks]:
    """Join the processes that torchrun started; without torchrun, one process alone.

    Within, SIGTERM, with which torchrun ends the others when one has died, is a Ctrl-C to a run:
    the step ends, what is done is saved, and a `RankError` says so.

    Args:
        device: Where the run is: "cpu", or "cuda", of which each process of a machine then takes
            one as its current device.

    Yields:
        The ranks, for `run_ensemble(ranks=…)`.

    Raises:
        ValueError: If a machine has fewer GPUs than processes.

    Example:
        >>> with sg.distributed_context() as ranks:  # one process, without torchrun
        ...     print(f"rank {ranks.rank} of {ranks.world}")
        rank 0 of 1
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        gpus = torch.cuda.device_count()
        if gpus == 0:
            raise ValueError(
                f"{here} processes on a machine without a CUDA device: distributed_context('cpu') "
                "shares its processors."
            )
        if here > gpus:
            raise ValueError(
                f"{here} processes on a machine of {gpus} CUDA devices: start as many processes "
                f"as devices, torchrun --nproc-per-node {gpus}."
            )
        torch.cuda.set_device(local)
    mine = not distributed.is_initialized()
    if mine:
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), local, here)

    def end(number: int, frame: FrameType | None) -> None:
        """Defer a Ctrl-C where a run holds it back until its step has ended; raise elsewhere."""
        ranks.ended.set()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise RankError(_LOST.format(error="SIGTERM"))
        signal.raise_signal(signal.SIGINT)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield ranks
    except RankError as error:
        # another's failure is the cause, which torchrun must hear of first: it tells of one alone
        if ranks.rank == 0:
            _record(error)
        else:  # until torchrun ends this rank because another has failed, or for a moment
            if main:
                signal.signal(signal.SIGTERM, lambda number, frame: ranks.ended.set())
            ranks.ended.wait(_MOMENT)
        raise
    except Exception as error:
        _record(error)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        if mine:
            distributed.destroy_process_group()


def _record(error: Exception) -> None:
    """Leave an error to torchrun, whose report ends with that of the first rank that failed."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)


def _device() -> torch.device:
    """Return the device of the group's messages."""
    gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


@contextmanager
def _watched() -> Iterator[None]:
    """Say what it means that a message did not arrive."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise RankError(_LOST.format(error=text[:120])) from error
