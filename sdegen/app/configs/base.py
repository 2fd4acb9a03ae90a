"""Config: what a command is asked, the class that all questions of commands derive from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdegen.app.configs.fields import check_seed
from sdegen.core.checks import check_count


@dataclass(frozen=True)
class Config:
    """Hold what one command is asked; the module of a subclass is named as the command."""

    def __post_init__(self) -> None:
        """Refuse a seed that is out of range, and fewer than one thread."""
        check_seed(vars(self).get("seed"))
        if vars(self).get("threads") is not None:
            self.check_counts({"threads": 1})

    def check_counts(self, least: Mapping[str, int]) -> None:
        """Raise if a field of these is less than it must be; a None that is the default passes."""
        for name, value in least.items():
            if not self._is_unsaid(name):
                check_count(name, vars(self)[name], value)

    def check_each(self, check: Callable[[str, Any], None], *names: str) -> None:
        """Check each of these fields; a None that is the default passes."""
        for name in names:
            if not self._is_unsaid(name):
                check(name, vars(self)[name])

    def _is_unsaid(self, name: str) -> bool:
        """Return whether a field is None, and may be."""
        default = type(self).__dataclass_fields__[name].default
        return vars(self)[name] is None and default is None
