"""Mistakes of whole steps: left out, begun elsewhere, of another table; noise unasked for."""
