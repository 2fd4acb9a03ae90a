"""Calibration: time grids and settings of samplers, fitted to one model."""
