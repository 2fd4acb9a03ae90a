"""Power spectra of stored paths."""

from dataclasses import replace

from sdegen.core.shapes import Times
from sdegen.measurements.path import in_parts, measured_path
from sdegen.observables.spectrum import PowerSpectrum, Spectrum


def power_spectrum(
    path: object,
    times: Times | None = None,
    *,
    segment: int | None = None,
    overlap: float = 0.5,
    window: str | tuple[str | float, ...] = "hann",
    detrend: bool = True,
    unwrapped: bool = False,
    parts: int | None = None,
) -> Spectrum:
    """Return the one-sided power spectral density S(f) of each coordinate, in x² times time.

        S(f) = (2 dt/Σ w²) ⟨|Σ_k w_k x_k e^{−2πi f k dt}|²⟩

    Args:
        path: A `Trajectory`, or states of shape (T, batch, *event).
        times: Of the states of an array, shape (T,).
        segment: As `PowerSpectrum` takes it.
        overlap: Likewise.
        window: Likewise.
        detrend: Likewise.
        unwrapped: Whether periodic coordinates of a `Trajectory` are taken on the line.
        parts: Into how many parts of equal length each trajectory is cut, for the errors; None
            cuts a single one into 16 and leaves several whole. Segments lie within a part.

    Returns:
        A spectrum, whose errors are the spread between trajectories or parts.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one does not fit the path, or trajectories of it were absorbed.

    Example:
        >>> import math
        >>> x = torch.cos(2 * math.pi * 5 * torch.arange(4000) / 100)[:, None]  # 5 Hz
        >>> spectrum = sg.power_spectrum(x, torch.arange(4000) / 100, segment=100)
        >>> round(float(spectrum.frequencies[spectrum.density.argmax()]), 6)
        5.0
    """
    observable = PowerSpectrum(segment, overlap, window, detrend, unwrapped=unwrapped)
    measured = measured_path(path, times, unwrapped=unwrapped)
    if measured.absorbed is not None and bool(measured.absorbed[-1].any()):
        raise ValueError(
            f"{int(measured.absorbed[-1].sum())} of {measured.absorbed.shape[1]} trajectories "
            "were absorbed and stand still, but a spectrum is one of a stationary process; drop "
            "the absorbing boundary, or pass .states of the others with times=."
        )
    cut, states = in_parts(measured, parts)
    found = observable.result(observable.measure(states, cut), cut)
    return replace(found, lost=measured.lost)
