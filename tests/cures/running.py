"""Advice on the command line, runs, stores, ensembles, pictures and metrics, followed."""

from collections.abc import Callable
from typing import Any

FOLLOWED: dict[str, tuple[str, Callable[[], Any], Callable[[], Any]]] = {}
