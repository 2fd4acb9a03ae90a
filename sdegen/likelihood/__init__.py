"""Likelihoods of data under a score."""
