"""Observables: what is measured along trajectories, block by block."""
