"""Solvers: how it moves. Each arranges calls of `update`."""
