"""Faults of thermostats: mass, friction, noise and force of particles with velocities."""

import math

import numpy as np

from benchmarks.zoo_faults.base import planted
from benchmarks.zoo_faults.problems import Trap


@planted(
    "noise missing",
    "A Langevin step computed the velocity with thermal noise, and went on with the one without.",
    project="appautomaton/mlx-atomistic",
    issue=20,
    checked=True,
)
def discarded(run):
    return Trap().baoab(run, spread=0.0)


@planted(
    "mass missing in the force",
    "The Langevin integrator accelerated by F, not F/m.",
    project="jax-md/jax-md",
    issue=145,
    checked=True,
)
def unit_masses(run):
    return Trap(mass=2.0).baoab(run, inverse_mass=1.0)


@planted(
    "mass: 1/m for 1/√m in the noise",
    "Of two kinds of atoms the noise of each was scaled by 1/μ as the torque was, not by 1/√μ.",
    project="lammps/lammps",
    issue=5097,
    checked=True,
    dims=(2, 3, 10, 100),
)
def two_kinds_of_atoms(run):
    mass = np.where(np.arange(run.dim) % 2, 4.0, 1.0)
    trap = Trap(mass=mass)
    damping = 1 - math.exp(-2 * trap.friction * trap.dt)
    return trap.baoab(run, spread=np.sqrt(damping * trap.temperature) / mass)


@planted(
    "noise: variance halved",
    "A change of friction left the noise as it was; here the friction was doubled.",
    project="MolarVerse/PQ",
    issue=273,
    checked=True,
)
def friction_was_set(run):
    return Trap(friction=1.0, dt=0.05).euler(run, noise=math.sqrt(0.5))


@planted(
    "friction doubled",
    "A multiple-time-step integrator applied friction and noise of a whole step in each substep.",
    project="openmm/openmm",
    issue=3790,
    checked=True,
)
def each_substep(run):
    return Trap(friction=1.0).baoab(run, friction=2.0)


@planted(
    "friction halved",
    "Rotational friction took the place of the translational one in shared memory of the GPU.",
    project="glotzerlab/hoomd-blue",
    issue=452,
    checked=True,
)
def rotational_friction(run):
    return Trap(friction=1.0).baoab(run, friction=0.5)


@planted(
    "stale force",
    "A flag that asks for forces anew was dropped, and a run began with those of the last one.",
    project="espressomd/espresso",
    issue=5350,
    checked=True,
)
def flag_was_dropped(run):
    return Trap().baoab(run, stale=True)
