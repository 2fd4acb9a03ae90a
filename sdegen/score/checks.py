"""Checks: what is asked of a score before it is used."""

import torch

from sdegen.core.shapes import ScoreFn, State, Time

__all__ = ["check_derivative"]


def check_derivative(score: ScoreFn, value: State, x: State, t: Time, asked_by: str) -> None:
    """Refuses a score that depends on x, but not through autograd.

    Args:
        score: ∇ log p_t(x).
        value: What it returned at x, which asked for gradients.
        x: States, shape (batch, *event).
        t: Time, shape () or (batch,).
        asked_by: What needs the derivative.

    Raises:
        ValueError: Saying what to take out of the score.
    """
    if value.requires_grad:
        return
    with torch.no_grad():
        if bool((score(x + 0.1, t) != value).any()):
            raise ValueError(
                f"score has no derivative in x, which {asked_by} needs: it depends on x, but not "
                "through autograd. Take .detach() and no_grad out of it."
            )
