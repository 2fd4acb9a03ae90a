"""Running dynamics: from an SDE and a solver to trajectories."""
