"""k-diffusion without what its package asks for at import: libraries for images and text.

A package of another name has its sampling, external and layers and no more, so that a whole
k-diffusion, where there is one, stays as it is.
"""

import functools
import importlib
import importlib.util
import sys
import types

NAME = "k_diffusion_bare"
HOLLOW = ("dctorch", "einops")  # what layers.py names, and never uses for a denoiser


@functools.cache
def k_diffusion():
    """The package, or None where k-diffusion is not installed."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or not found.submodule_search_locations:
        return None
    package, utils = types.ModuleType(NAME), types.ModuleType(f"{NAME}.utils")
    package.__path__ = list(found.submodule_search_locations)
    package.utils = utils
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules |= {NAME: package, f"{NAME}.utils": utils}
    before = {name: sys.modules.get(name) for name in HOLLOW}
    for name in HOLLOW:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].functional = sys.modules[name].rearrange = sys.modules[name].repeat = (
            None
        )
    try:
        for part in ("sampling", "external", "layers"):
            setattr(package, part, importlib.import_module(f"{NAME}.{part}"))
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
    return package
