"""Scores: the learned term, ∇ log p_t."""

from sdegen.score import composition as composition  # for sg.composition, looked up here
