"""Config: what a command is asked, the class that all questions of commands derive from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Hold what one command is asked; the module of a subclass is named as the command."""
