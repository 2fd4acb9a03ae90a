"""Diffusion: Gaussian paths, their reversal, and the samplers that follow it back."""

import lazy_loader

# sg.timesteps is looked up here; at import it would bring torch, which a configuration must not
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["timesteps"])
