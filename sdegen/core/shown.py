"""Shown: results that draw themselves, show themselves in a notebook, and become tables.

What a result looks like is known by `sdegen.plots`, which imports the results of all rooms. The
import here is the only one of the library that goes upward: it is made when a result is asked to
show itself, so that no computation waits for a drawing library.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure


class Shown:
    """A result that has a picture."""

    def plot(self) -> Figure:
        """Draw the result.

        Returns:
            A figure that belongs to the caller: no window is opened, and nothing is kept.

        Raises:
            ValueError: If there is nothing in it that can be drawn.
        """
        figure: Figure = _drawing_room().picture(self)
        return figure

    def _repr_html_(self) -> str:
        """Return a piece of HTML for notebooks: the numbers with their errors, and a picture."""
        page: str = _drawing_room().page(self)
        return page


class Labelled(Shown):
    """A result whose arrays have names for their axes."""

    def to_xarray(self) -> xarray.Dataset:
        """Return the result as a labelled data set.

        Each array has named dimensions, such as time, trajectory and coordinate, and says in
        `attrs` what it is ("long_name") and its units; a standard error stands beside it, its name
        ending in "_error". Attributes of the data set are what made it, its seed, and the versions
        of sdegen and torch. Numbers are those of the result, in its dtype.

        Raises:
            ImportError: If xarray is not installed.
        """
        dataset: xarray.Dataset = _drawing_room().to_xarray(self)
        return dataset

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the result as a tidy table: a row for each place, a column for each quantity.

        Columns are the dimensions, then the quantities; `frame.attrs["columns"]` says what each
        is. Numbers are those of the result, in its dtype.

        Raises:
            ImportError: If pandas is not installed.
        """
        frame: pandas.DataFrame = _drawing_room().to_dataframe(self)
        return frame


def _drawing_room() -> ModuleType:
    """Import what knows how results look; the one import upward."""
    from sdegen.plots import results

    return results
