"""Pictures of reverse kernels: at what step they are Gaussian."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sdegen.core.requests import check_kind
from sdegen.plots import style
from sdegen.verification.reverse_kernel import ReverseKernel


def reverse_kernels(kernels: Mapping[str, Sequence[ReverseKernel]]) -> Figure:
    """Draw how far reverse kernels are from Gaussian against the step.

        KL(q ‖ N(mean, variance)) = ∫ q log(q/N) dx of q(x_{t−dt} | x_t)

    Args:
        kernels: For each name, such as that of an SDE, what `reverse_kernel` returned at several
            steps dt, kl of shape (n,).

    Returns:
        The figure, with logarithmic axes: KL(q ‖ N(mean, variance)) averaged over p_t on the
        left, the absolute excess kurtosis, averaged likewise, on the right.

    Raises:
        TypeError: If it is no mapping from names to lists of reverse kernels.
        ValueError: If there is none.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> law = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.3)
        >>> row = [sg.reverse_kernel(path, law, 0.5, dt) for dt in (0.03, 0.1)]
        >>> figure = sg.plots.reverse_kernels({"VP": row})
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['step dt, units of time', 'step dt, units of time']
    """
    expected = "a mapping from names to lists of what reverse_kernel returned"
    check_kind("kernels", kernels, Mapping, expected)
    for name, row in kernels.items():
        check_kind(f"kernels[{name!r}]", row, (list, tuple), "a list of reverse kernels")
        for one in row:
            check_kind(f"kernels[{name!r}]", one, ReverseKernel, "a list of reverse kernels")
    if not any(kernels.values()):
        raise ValueError("there are no reverse kernels to draw; pass some under each name.")
    figure, axes = style.panels("KC", 9.6, 3.8)
    for i, (name, row) in enumerate(kernels.items()):
        marker, colour = style.look(i)
        ordered = sorted(row, key=lambda one: one.dt)
        dt = np.array([one.dt for one in ordered])
        for letter, values in (
            ("K", [one.mean_kl for one in ordered]),
            ("C", [float(one.masses @ one.kurtosis.abs()) for one in ordered]),
        ):
            axes[letter].plot(
                dt, values, marker, ls="-", ms=4.5, lw=style.LINE, color=colour, label=name
            )
    labels = {"K": "KL to a Gaussian, nats", "C": "mean of abs(excess kurtosis)"}
    for letter, label in labels.items():
        axes[letter].set(xscale="log", yscale="log", xlabel="step dt, units of time", ylabel=label)
        style.log_axes(axes[letter])
    style.legend_below(figure, axes["K"])
    return figure
