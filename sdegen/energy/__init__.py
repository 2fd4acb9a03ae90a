"""Energies: models p ∝ e^{−U} that Langevin dynamics sample and train, and Boltzmann machines.

Example:
    >>> machine = sg.RBM(6, 3, rng=0)  # log Z by annealing and by a sum over all states
    >>> found = sg.energy.annealed_log_partition(machine, chains=64, temperatures=50, rng=0)
    >>> bool(abs(found.value - machine.log_partition()) < 4 * found.error)
    True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annealing": ["LogPartition", "annealed_log_partition"],
        "boltzmann": ["RBM", "GibbsDivergence"],
        "contrastive": ["ContrastiveDivergence"],
        "gradients": ["PartitionGradient", "log_partition_gradient"],
        "model": ["EnergyModel", "NormalizedEnergy"],
    },
)
