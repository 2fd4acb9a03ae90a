"""Advice on processes, scores, training, samplers, likelihoods and adaptors, followed."""

from collections.abc import Callable
from typing import Any

FOLLOWED: dict[str, tuple[str, Callable[[], Any], Callable[[], Any]]] = {}
