"""Fokker–Planck: the same drift and diffusion, seen as a density."""
