"""Spectra: the exact mean of Welch's estimate for a sampled process, and its normalisation."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, signal

import sdegen as sg

F64 = torch.float64
DT, K, SIGMA = 0.1, 1.0, math.sqrt(2)


def expected(covariance, length, dt, window="hann", detrend=True):
    """⟨S(f)⟩ of segments whose states have this covariance by lag: exact, aliasing and all."""
    w = signal.get_window(window, length)
    C = linalg.toeplitz(covariance[:length])
    if detrend:
        P = np.eye(length) - 1 / length
        C = P @ C @ P
    waves = np.exp(
        -2j * math.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length
    )
    rows = waves * w
    S = np.einsum("fk,kl,fl->f", rows, C, rows.conj()).real * 2 * dt / (w**2).sum()
    S[0] /= 2
    if length % 2 == 0:
        S[-1] /= 2
    return S


def chain():
    """a and variance of the Euler chain of an Ornstein–Uhlenbeck process at rest."""
    a = 1 - K * DT
    return a, SIGMA**2 * DT / (1 - a * a)


@pytest.mark.parametrize(
    ("length", "window", "detrend"),
    [(40, "hann", True), (33, "boxcar", True), (40, "hann", False)],
)
def test_a_sampled_ornstein_uhlenbeck_process(small_blocks, length, window, detrend):
    """AR(1) with its aliases and the window's leaks: no bias; 5 errors, 6e-7 each."""
    a, variance = chain()
    wanted = sg.PowerSpectrum(length, window=window, detrend=detrend)
    run = sg.run_ensemble(
        sg.OrnsteinUhlenbeck(rate=K, sigma=SIGMA),
        lambda rows, rng: math.sqrt(variance) * torch.randn(rows, 1, generator=rng, dtype=F64),
        torch.arange(0, 121) * DT, trajectories=4000, solver=sg.EulerMaruyama(), rng=2,
        observables=[wanted], progress=False,
    )  # fmt: skip
    found = run.observables["spectrum"]
    exact = expected(variance * a ** np.arange(length), length, DT, window, detrend)
    assert found.frequencies[1] == pytest.approx(1 / (length * DT))
    off = (found.density[:, 0] - torch.tensor(exact)) / found.error[:, 0]
    assert float(off[int(window == "boxcar") :].abs().max()) < 5  # its S(0) without mean is 0
    assert float((found.error[:, 0] / torch.tensor(exact)).max()) < 0.03
    assert found.count == 4000


def test_the_exact_mean_is_near_the_lorentzian():
    """Where neither the window nor aliases matter: 4 D/(k² + ω²), one-sided, in x²/Hz."""
    dt, length = 0.05, 400
    exact = expected(np.exp(-K * dt * np.arange(length)), length, dt)
    omega = 2 * math.pi * np.arange(length // 2 + 1) / (length * dt)
    ratio = exact * (K**2 + omega**2) / 4
    assert np.abs(ratio[2:20] - 1).max() < 0.05


def test_without_overlap_a_boxcar_keeps_the_variance():
    """Parseval: Σ S Δf is the mean square of the states, for any numbers."""
    x = torch.randn(60, 7, 2, generator=torch.Generator().manual_seed(0), dtype=F64) + 3
    for length in (20, 15):
        found = sg.power_spectrum(
            x, 0.5 * torch.arange(60), segment=length, overlap=0.0, window="boxcar", detrend=False
        )
        torch.testing.assert_close(found.power, x.square().mean((0, 1)), rtol=1e-12, atol=0)
        assert found.segments == 60 // length
        torch.testing.assert_close(
            found.angular_density.sum(0) * found.omega[1], found.power, rtol=1e-12, atol=0
        )


def test_white_noise_has_one_level():
    """2 s² dt at each frequency but the two ends, where it is half of that; 5 errors."""
    x = 0.7 * torch.randn(512, 400, generator=torch.Generator().manual_seed(1), dtype=F64)
    found = sg.power_spectrum(x, 0.2 * torch.arange(512), segment=64, window=("kaiser", 6.0))
    level = torch.full_like(found.density, 2 * 0.7**2 * 0.2)
    level[-1] /= 2
    assert float(((found.density - level) / found.error)[6:].abs().max()) < 5
    assert float(found.error[6:].max()) < 0.006


def test_the_error_is_that_of_trajectories_and_covers():
    """χ² of one segment each: the error is S/√n; parts of one path have the same mean."""
    x = torch.randn(64, 3000, generator=torch.Generator().manual_seed(2), dtype=F64)
    found = sg.power_spectrum(x, torch.arange(64), segment=64, window="boxcar", detrend=False)
    inside = slice(1, -1)
    torch.testing.assert_close(
        found.error[inside] * math.sqrt(3000) / found.density[inside],
        torch.ones(31, dtype=F64), rtol=0.15, atol=0,
    )  # fmt: skip
    one = torch.randn(16 * 64, 1, generator=torch.Generator().manual_seed(3), dtype=F64)
    alone = sg.power_spectrum(one, torch.arange(16 * 64), segment=64)
    beside = sg.power_spectrum(one.reshape(16, 64).T.contiguous(), torch.arange(64), segment=64)
    assert alone.count == 16
    torch.testing.assert_close(alone.density, beside.density)
    torch.testing.assert_close(alone.error, beside.error)


def test_the_function_is_the_observable_and_scipy():
    times = torch.linspace(0, 5, 51)
    x0 = torch.zeros(30, 2, dtype=torch.float32)
    sde = sg.BrownianMotion(1.0)
    run = sg.run_ensemble(
        sde, x0, times, trajectories=30, solver=sg.EulerMaruyama(), rng=2, progress=False,
        observables=[sg.PowerSpectrum()],
    )  # fmt: skip
    path = sg.simulate(sde, x0, times, solver=sg.EulerMaruyama(), rng=2)
    found, again = run.observables["spectrum"], sg.power_spectrum(path)
    torch.testing.assert_close(found.density, again.density, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.error, again.error, rtol=1e-10, atol=0)
    f, s = signal.welch(path.states.double().numpy(), fs=10, nperseg=11, noverlap=5, axis=0)
    np.testing.assert_allclose(found.frequencies, f, rtol=1e-6)
    np.testing.assert_allclose(found.density, s.mean(1), rtol=1e-5)
    assert (found.segments, found.density.dtype, found.lost) == (7, F64, 0)


def test_around_a_ring_turns_are_counted_where_they_are_asked_for():
    times, ring = torch.linspace(0, 4, 41), sg.Periodic(0.0, 1.0)
    flow = sg.ItoProcess(lambda x: torch.ones_like(x), 0.0)
    path = sg.simulate(flow, torch.full((2, 1), 0.5, dtype=F64), times, boundary=ring,
                       solver=sg.EulerMaruyama())  # fmt: skip
    line = sg.power_spectrum(path, unwrapped=True, segment=20)
    exact = sg.power_spectrum(times.double()[:, None, None].expand(-1, 2, -1) + 0.5, times,
                              segment=20)  # fmt: skip
    torch.testing.assert_close(line.density, exact.density, rtol=1e-6, atol=1e-12)
    saw = sg.power_spectrum(path, segment=20)
    assert float(saw.density[2]) > 5 * float(line.density[2])  # once around in a unit of time


def _run(observable, times=(0.0, 0.1, 0.2, 0.3), **options):
    return sg.run_ensemble(
        sg.BrownianMotion(), torch.full((1, 1), 0.5, dtype=F64), times, trajectories=3,
        observables=[observable], solver=sg.EulerMaruyama(), progress=False, **options,
    )  # fmt: skip


def _absorbed():
    return sg.simulate(
        sg.BrownianMotion(), torch.full((9, 1), 0.5, dtype=F64), torch.linspace(0, 2, 21),
        boundary=sg.Absorbing(0.0, 1.0), solver=sg.EulerMaruyama(), rng=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.PowerSpectrum(3), ValueError, "segment must be ≥ 4, but is 3"),
        (lambda: sg.PowerSpectrum(8.0), TypeError, "segment must be an int"),
        (lambda: sg.PowerSpectrum(overlap=1.0), ValueError, r"overlap must lie in \[0, 1\)"),
        (lambda: sg.PowerSpectrum(overlap="half"), TypeError, "overlap must be a number"),
        (lambda: sg.PowerSpectrum(window="hannn"), ValueError, "'hannn' is none of scipy"),
        (lambda: sg.PowerSpectrum(window="kaiser"), ValueError, "a name with its parameters"),
        (lambda: sg.PowerSpectrum(window=8), TypeError, "window must be a name such as 'hann'"),
        (lambda: sg.PowerSpectrum(detrend="linear"), TypeError, "detrend must be True or False"),
        (lambda: _run(sg.PowerSpectrum(8)), ValueError, "of 8 states is longer .* of 4;"),
        (
            lambda: _run(sg.PowerSpectrum(), times=[0.0, 0.1, 0.2, 0.4]),
            ValueError,
            "steps go from 0.1 to 0.2: a spectrum needs one sampling rate",
        ),
        (
            lambda: _run(sg.PowerSpectrum(), boundary=sg.Absorbing(0.0, 1.0)),
            ValueError,
            "'spectrum' is of a stationary process, and absorbed .*; drop the absorbing boundary",
        ),
        (
            lambda: sg.power_spectrum(_absorbed()),
            ValueError,
            r"\d of 9 trajectories were absorbed and stand still",
        ),
    ],
)  # fmt: skip
def test_refusals(make, kind, told, as_user):
    with pytest.raises(kind, match=told):
        make()
