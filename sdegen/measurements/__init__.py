"""Measurements: what is told, with its error, of stored states and trajectories."""
