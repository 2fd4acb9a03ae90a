"""Memory: what a run needs beside what is free, asked before its first step."""

import os
from pathlib import Path

import torch
from torch import Tensor

_LITTLE = 2**16  # bytes that nobody asks for
_SHARE = 0.8
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def check_path(x0: Tensor, kept_times: int) -> None:
    """Refuse a path that would not fit, above 80 % of what is free.

    Args:
        x0: States at one time.
        kept_times: How many times are kept.

    Raises:
        MemoryError: With the sizes and what to do.
    """
    # the states one by one, and the whole that they are joined to
    check_bytes(
        kept_times * x0.nbytes * 2,
        x0.device,
        f"{kept_times} times × {len(x0)} trajectories",
        "keep_path=False, fewer times, or fewer trajectories"
        if kept_times > 1
        else "fewer trajectories",
    )


def check_bytes(need: int, device: torch.device, what: str, instead: str) -> None:
    """Refuse what takes more than 80 % of the memory that is free.

    Args:
        need: Bytes.
        device: Where.
        what: What needs them.
        instead: What to pass to need less.

    Raises:
        MemoryError: With the sizes and what to do.
    """
    if need <= _LITTLE:
        return
    free = _free_bytes(device)
    if free is not None and need > _SHARE * free:
        raise MemoryError(
            f"{what} need about {need / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are free on "
            f"{device}; pass {instead}."
        )


def _free_bytes(device: torch.device) -> int | None:
    """Return the memory that a run may take, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_free_in_system(), _free_in_container()) if free is not None]
    return min(known, default=None)


def _free_in_system() -> int | None:
    """Return what the machine has free for a new allocation."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _free_in_container() -> int | None:
    """Return what is left of a container's limit, which the machine's numbers do not show."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return limit - int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return None
