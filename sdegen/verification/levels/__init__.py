"""Levels: chains at dt, dt/2 and dt/4 on one Brownian path, and what they say of the step."""
