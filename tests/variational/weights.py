"""Weights that a seed sets, without torch's global generator."""

import torch


def seeded(module, seed=0, scale=0.3):
    """Return a module whose weights are normals of a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return module
