"""Advice on densities on grids and of certificates, followed."""

from collections.abc import Callable
from typing import Any

FOLLOWED: dict[str, tuple[str, Callable[[], Any], Callable[[], Any]]] = {}
