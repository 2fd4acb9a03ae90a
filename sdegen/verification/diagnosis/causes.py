"""The table of causes: every mistake that is refitted, and classes that have one law.

Mistakes with one and the same law cannot be told apart by states, and are one class:

    noise variance twice     twice the temperature; √2 g for g; 2 D for D; noise that is added
                             twice with draws of its own; a variance taken for half of it
    noise variance ×4        noise that is added twice with one draw; 2 g for g
    drift by a factor        a mobility, a force or a rate by that factor
    dt by a factor           drift by τ and noise by √τ: another step, or another unit of time

and of dynamics without drift, dt by a factor is the noise by its root. Where two mistakes of the
table have the same likelihood in some states they are named together.
"""

from __future__ import annotations

from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.coordinates import coordinate_alternatives
from sdegen.verification.diagnosis.copies import copy_alternatives
from sdegen.verification.diagnosis.correlations import correlation_alternatives
from sdegen.verification.diagnosis.dynamics import dynamics_alternatives
from sdegen.verification.diagnosis.factors import (
    DRIFT_FACTORS,
    NOISE_FACTORS,
    TIME_FACTORS,
    drift_and_noise,
    fitted_both,
    fitted_drift,
    fitted_noise,
    fitted_time,
    mean_of_noise,
)
from sdegen.verification.diagnosis.generic import generic_alternatives
from sdegen.verification.diagnosis.kinetic import kinetic_alternatives
from sdegen.verification.diagnosis.model import Alternative
from sdegen.verification.diagnosis.noise_laws import noise_law_alternatives
from sdegen.verification.diagnosis.rounded import rounding_alternatives
from sdegen.verification.diagnosis.schedules import schedule_alternatives
from sdegen.verification.diagnosis.steps.frozen import frozen_alternatives
from sdegen.verification.diagnosis.steps.images import image_alternatives
from sdegen.verification.diagnosis.steps.left_out import left_out_alternatives
from sdegen.verification.diagnosis.steps.products import product_alternatives
from sdegen.verification.diagnosis.steps.tables import table_alternatives
from sdegen.verification.diagnosis.steps.unasked import unasked_alternatives
from sdegen.verification.diagnosis.walls import wall_alternatives
from sdegen.verification.innovations.sample import Sample


def table_of_causes(belief: Belief, sample: Sample) -> list[Alternative]:
    """Return the mistakes that could be made of what is believed, the commonest first.

    Args:
        belief: What is believed.
        sample: The innovations that the tests have seen.
    """
    return [
        *_factors(),
        *dynamics_alternatives(belief),
        *kinetic_alternatives(belief),
        *schedule_alternatives(belief),
        *table_alternatives(belief),
        *wall_alternatives(belief),
        *product_alternatives(belief),
        *frozen_alternatives(belief),
        *image_alternatives(belief),
        *left_out_alternatives(belief),
        *unasked_alternatives(),
        *coordinate_alternatives(),
        *noise_law_alternatives(),
        *copy_alternatives(sample),
        *correlation_alternatives(),
        *rounding_alternatives(belief),
        *generic_alternatives(),
    ]


def _factors() -> list[Alternative]:
    """Return drift, noise and time by a factor."""
    drift, noise, time = "drift by a factor", "noise variance by a factor", "dt by a factor"
    table = [
        drift_and_noise(name, "drift", words, factor, 1.0, family=drift)
        for name, words, factor in DRIFT_FACTORS
    ]
    table += [
        drift_and_noise(name, "noise", words, 1.0, factor, family=noise)
        for name, words, factor in NOISE_FACTORS
    ]
    for name, words, factor in TIME_FACTORS:
        assert isinstance(factor, float)
        root = factor**0.5
        table.append(drift_and_noise(name, "time", words, factor, root, family=time))
    words = "the drift were {a} times what it should be"
    return [
        *table,
        fitted_drift(drift, "drift", words, family=drift),
        Alternative(noise, "noise", "", fitted_noise, noise),
        Alternative(time, "time", "", fitted_time, time),
        Alternative(
            "drift and noise by factors", "drift", "", fitted_both, holds=(drift, noise, time)
        ),
        Alternative("a constant added", "drift", "", mean_of_noise),
    ]
