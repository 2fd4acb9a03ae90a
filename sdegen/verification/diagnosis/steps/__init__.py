"""Mistakes of whole steps: left out, begun elsewhere, of another table; noise that none asked for."""
