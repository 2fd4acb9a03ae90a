"""Verification: what a simulation or a sampler is worth."""
