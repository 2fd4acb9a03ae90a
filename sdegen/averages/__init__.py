"""Averages: ⟨f(X_t)⟩ to a tolerance, by multilevel Monte Carlo."""
