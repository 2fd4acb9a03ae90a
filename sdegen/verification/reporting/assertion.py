"""assert_follows: a certificate as a line of somebody's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sdegen.core.sde import SDE
from sdegen.verification.certificate import Certificate, certify


def assert_follows(
    sde: SDE,
    path: Any,  # noqa: ANN401, states as any simulator stores them
    *,
    dt: float | None = None,
    times: Tensor | Sequence[float] | None = None,
    solver: Any = None,  # noqa: ANN401, as `certify` takes it
    boundary: Any = None,  # noqa: ANN401, as `simulate` takes it
    false_alarm: float = 1e-6,
) -> Certificate:
    """Assert that stored states follow an SDE, in a test of any simulator.

    The states are judged by `certify(sde, path=…)`, from the noise of their steps:

        def test_the_integrator_follows_its_equation():
            x = my_integrator(steps=2000, dt=0.01, seed=0)        # shape (2001, batch, d)
            assert_follows(sg.Langevin(sg.DoubleWell(), 0.5), x, dt=0.01)

    A right simulation fails once in 1/false_alarm runs, one in a million unless said, whatever its
    random numbers are; with a fixed seed it passes always, or never. What a failing one would have
    to be off by to be seen is in the certificate that is returned, `.steps.smallest_drift` and
    `.steps.smallest_noise`: too short a run is no test of anything.

    Args:
        sde: What they should follow.
        path: Stored states, as `read_states` takes them: an array of shape (T, batch, *event), a
            Trajectory, the name of a file, a StoredStates.
        dt: Step of the solver; with substeps, states are so many steps apart.
        times: Times of the states, if dt is not the same for all.
        solver: How they moved, as `certify` takes it; EulerMaruyama() by default, BAOAB() in a
            phase space.
        boundary: What they were kept inside of, as `simulate` takes it.
        false_alarm: Chance that a right simulation fails.

    Returns:
        The certificate, in which no check failed.

    Raises:
        AssertionError: If a check failed; with the summary, the diagnosis if there is one, and the
            checks that failed.
        TypeError, ValueError: As `certify`, if states do not fit the SDE or are too few.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> times = [0.01 * k for k in range(101)]
        >>> states = sg.simulate(ou, torch.zeros(100, 3), times, rng=0).states
        >>> sg.assert_follows(ou, states, dt=0.01).passed
        True
    """
    __tracebackhide__ = True  # pytest shows the line that called, not these
    certificate = certify(
        sde,
        path=path,
        dt=dt,
        times=times,
        solver=solver,
        boundary=boundary,
        false_alarm=false_alarm,
    )
    if not certificate.passed:
        raise AssertionError("\n".join([certificate.summary, *map(str, certificate.failed)]))
    return certificate
