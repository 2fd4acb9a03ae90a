"""Tolerances: what counts as the same where what a user passes is compared, one number a meaning.

Tolerances of a method belong to the method, and stand in its file.
"""

SAME_MODEL = 1e-3  # relative: α, σ and scores of SDEs and models that are taken for one
IN_FLOAT32 = 1e-6  # relative: what float32, or a sum in another order, explains
ROUNDED_PERIOD = 1e-4  # of the largest value: what a period written as 6.2832 may differ by
