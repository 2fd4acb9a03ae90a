"""Scores: the learned term, ∇ log p_t."""

import lazy_loader

# sg.composition is looked up here; at import it would bring torch, which a configuration must not
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["composition"])
