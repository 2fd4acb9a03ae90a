"""A record of a benchmark: rows, the machine and the versions they were measured with, as JSON."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchsde", "torchdiffeq", "numpy", "scipy")
PEERS = ("diffusers", "k-diffusion", "azula")


def processor():
    """The processor's name, as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(name):
    """Whether there is such a package."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def machine(peers=()):
    """What the numbers depend on beside the code."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **{name: version(name) for name in (*PEERS, *peers) if installed(name)},
    }


def write(name, tables, quick, peers=()):
    """Writes {title: rows} beside the machine; a quick run is a rehearsal and writes nothing."""
    if quick:
        return
    RESULTS.mkdir(exist_ok=True)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(peers),
        "tables": tables,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {path.relative_to(RESULTS.parent.parent)}")
