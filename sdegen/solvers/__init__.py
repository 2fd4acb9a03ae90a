"""Solvers: how any SDE moves. Each arranges calls of `update`."""
