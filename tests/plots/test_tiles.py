"""Images stand on a panel row by row, pixel for pixel."""

import numpy as np
import pytest
import torch

from sdegen.plots import style
from sdegen.plots.tiles import tiles


def test_every_pixel_is_where_it_belongs_and_images_are_a_pixel_apart():
    x = torch.arange(5 * 2 * 3, dtype=torch.float64).reshape(5, 1, 2, 3)
    _, axes = style.panels("A", 3.0, 3.0)
    found = tiles(axes["A"], x, rows=2, columns=2, limits=(0.0, 30.0)).get_array().filled(-1.0)
    assert found.shape == (5, 7)
    for i, (row, column) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
        assert np.array_equal(found[row : row + 2, column : column + 3], x[i, 0])
    assert (found[2] == -1).all()
    assert (found[:, 3] == -1).all()
    short = tiles(axes["A"], x[:1, 0], rows=9, columns=2).get_array().filled(-1.0)
    assert short.shape == (2, 7)
    with pytest.raises(ValueError, match=r"^images must have shape \(n, height, width\)"):
        tiles(axes["A"], torch.zeros(4, 4))
