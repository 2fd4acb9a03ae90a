"""Stored states of any program: arrays and files, read as one object for a verdict."""
