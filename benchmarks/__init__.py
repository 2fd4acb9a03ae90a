"""Benchmarks: ratios and errors, measured in one run and written to benchmarks/results."""
