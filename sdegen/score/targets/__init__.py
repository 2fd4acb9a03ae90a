"""Targets: what a simulated path says of the score at its end, for SDEs without a kernel."""
