"""Scores: the learned term, ∇ log p_t."""
