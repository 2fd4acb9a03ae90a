"""The double well that is explored where no SDE is named."""

import sdegen as sg


def double_well(
    height: float = 1.0, width: float = 1.0, tilt: float = 0.0, temperature: float = 0.5
) -> sg.SDE:
    """Return dX = −U′ dt + √(2T) dW, U = h (x²/w² − 1)² + c x.

    Args:
        height: barrier h
        width: distance w of the wells from 0
        tilt: force c to the left
        temperature: temperature T
    """
    if not (width > 0 and temperature > 0):
        raise ValueError(f"width and temperature must be > 0, but are {width:g}, {temperature:g}.")
    return sg.ItoProcess(
        lambda x: 4 * height * x / width**2 * (1 - x**2 / width**2) - tilt,
        (2 * temperature) ** 0.5,
    )
