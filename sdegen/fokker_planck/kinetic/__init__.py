"""The kinetic equation of an underdamped particle: densities of position and velocity."""
