"""The config of each command: the `Config` that a module of this package defines.

A command is two files: `configs/my_verb.py` with a subclass of `Config`, and `commands/my_verb.py`
with `resolved` and `run`. The verb is the name of the module.
"""

import importlib
import pkgutil

from sdegen.app import configs
from sdegen.app.configs.base import Config

# the order of `sdegen --help`; others follow
_FIRST = (
    *("simulate", "fokker-planck", "explore", "verify", "verify-states"),
    *("train", "sample", "likelihood", "demo"),
)


def _find_commands() -> dict[str, type[Config]]:
    """Return the config of each command by its verb."""
    classes: dict[str, type[Config]] = {}
    for entry in pkgutil.iter_modules(configs.__path__):
        if entry.name not in ("base", "commands"):
            module = importlib.import_module(f"{configs.__name__}.{entry.name}")
            classes |= {
                entry.name.replace("_", "-"): kind
                for kind in vars(module).values()
                if isinstance(kind, type)
                and issubclass(kind, Config)
                and kind.__module__ == module.__name__
            }
    names = sorted(classes, key=lambda name: (*_FIRST, name).index(name))
    return {name: classes[name] for name in names}


COMMANDS = _find_commands()
