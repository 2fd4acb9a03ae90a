"""The demonstration: three acts on one update, and their report."""
