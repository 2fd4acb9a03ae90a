"""Faults that really shipped, planted anew, and eight that nobody would list."""

from benchmarks.zoo_faults import (
    integrators,
    noises,
    outside,
    phase_space,
    precision,
    samplers,
    walls,
)
from benchmarks.zoo_faults.base import ALL, CLASSES, SIZE, Fault, Planted

HISTORICAL = tuple(
    fault
    for room in (integrators, noises, phase_space, walls, samplers, precision)
    for fault in room.FAULTS
)
OUTSIDE = tuple(outside.FAULTS)
FAULTS = HISTORICAL + OUTSIDE

__all__ = ["ALL", "CLASSES", "FAULTS", "HISTORICAL", "OUTSIDE", "SIZE", "Fault", "Planted"]
