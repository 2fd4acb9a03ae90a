"""Samplers: solvers that need a score and a Gaussian kernel."""
