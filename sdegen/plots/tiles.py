"""Images side by side on a panel of a larger picture; `image_sheet` makes a picture of its own."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.requests import as_numbers
from sdegen.plots import style


def tiles(
    panel: Axes,
    images: Tensor,
    title: str = "",
    *,
    rows: int = 8,
    columns: int = 8,
    limits: tuple[float, float] = (-1.0, 1.0),
    cmap: str = "gray_r",
) -> AxesImage:
    """Draw images on a panel, row by row, one pixel apart and each pixel a square.

    Args:
        panel: Where they are drawn.
        images: The first rows · columns of these, shape (n, height, width) or (n, 1, height,
            width).
        title: What stands above them.
        rows: Rows of images, at most.
        columns: Columns of images.
        limits: Values that have the first and the last colour.
        cmap: Colours by their name in matplotlib.

    Returns:
        The image, for a scale of colours.

    Raises:
        ValueError: If images have another shape.
    """
    check_count("rows", rows)
    check_count("columns", columns)
    values = as_numbers("images", images)
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3 or len(values) == 0:
        raise ValueError(
            f"images must have shape (n, height, width), but have {tuple(images.shape)}; "
            "reshape them."
        )
    array = style.numbers(values[: rows * columns])
    rows = min(rows, -(-len(array) // columns))
    height, width = array.shape[1:]
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(array):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    style.title(panel, title)
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    low, high = limits
    return panel.imshow(sheet, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
