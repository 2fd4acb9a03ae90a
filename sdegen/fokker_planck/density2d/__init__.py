"""The plane: densities of two coordinates, at rest and in time."""
