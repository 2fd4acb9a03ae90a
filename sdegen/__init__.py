"""sdegen: stochastic dynamics that generate.

One update is the centre of everything, x ← x + dt f(x, t) + √|dt| g(x, t) z. Bring a drift;
simulate it, see its density by Fokker–Planck, learn its score, run it backwards, and learn how far
each of these can be trusted.

Public names are listed by room in `__init__.pyi` and loaded when first used (Scientific Python
SPEC 1): importing the package imports nothing heavy and changes nothing in torch.
"""

import lazy_loader

__version__ = "0.3.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
