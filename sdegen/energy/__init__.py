"""Energies: models p ∝ e^{−U} that Langevin dynamics sample and train, and Boltzmann machines."""

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
