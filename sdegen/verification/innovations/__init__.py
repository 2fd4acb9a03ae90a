"""Innovations: the noise that a believed step makes of stored states."""
