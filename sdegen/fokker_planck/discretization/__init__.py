"""Discretization: grids, coefficients, fluxes and operators, and the algebra that they need."""
