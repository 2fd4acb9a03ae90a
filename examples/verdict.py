"""A verdict on somebody's simulation, from its array alone
========================================================

A NumPy loop for a particle in the double well U = x⁴/4 − x²/2 at temperature T is judged by its
steps, and so is one whose author forgot the 2 in √(2T dt). Nothing of this library took part in
either. What is believed is dX = −U'(X) dt + √(2T) dW. The picture is of the wrong one: errors of
drift and noise along x, and the noise itself. It prints, in 8 s of one core::

    right: passed is True, variance of the noise / believed 1.002
      drift off by at most 2.2 standard errors, in 24 parts of the line
    a factor is missing: passed is False, variance of the noise / believed 0.501
      drift off by at most 2.1 standard errors, in 24 parts of the line
      named: noise variance half
"""

import numpy as np

import sdegen as sg

STEPS = 2_000
BATCH = 100
T, DT = 0.3, 0.01


def simulated(noise):
    """Somebody's loop; states of shape (STEPS + 1, BATCH)."""
    rng = np.random.default_rng(0)
    x = [np.full(BATCH, -1.0)]
    for _ in range(STEPS):
        force = x[-1] - x[-1] ** 3
        x.append(x[-1] + force * DT + noise * np.sqrt(DT) * rng.standard_normal(BATCH))
    return np.stack(x)


believed = sg.Langevin(sg.DoubleWell(), temperature=T)
for name, noise in (("right", np.sqrt(2 * T)), ("a factor is missing", np.sqrt(T))):
    states = sg.read_states(simulated(noise), dt=DT, layout="time, batch")
    certificate = sg.certify(believed, path=states)
    steps = certificate.steps
    ratio = 1 + steps.noise_error().error.mean()
    x, error, standard_error = steps.drift_error()
    worst = float((error / standard_error).abs().max())
    print(f"{name}: passed is {certificate.passed}, variance of the noise / believed {ratio:.3f}")
    print(f"  drift off by at most {worst:.1f} standard errors, in {len(x)} parts of the line")
    if certificate.diagnosis is not None:
        print(f"  named: {certificate.diagnosis.named}")
        sg.plots.innovations(certificate).savefig("verdict.png")
