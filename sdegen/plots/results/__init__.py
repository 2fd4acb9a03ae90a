"""Results show themselves: pictures, pages of notebooks, and labelled tables, of every kind.

For each kind of result `labels` names its arrays and their axes, `summary` its numbers with their
errors, and `picture` draws it. From these follow what a result answers: `plot` is the picture,
`_repr_html_` the summary beside it (`page`), `to_xarray` and `to_dataframe` are the labels. A kind
without a picture of its own is drawn from its labels, and one without a summary is summed up by
them.

A result of your own joins with three lines,

    class Heights(Labelled): …

    @labels.register
    def _(result: Heights) -> Labels: …
"""

from sdegen.plots.results import (
    of_densities,
    of_learning,
    of_measurements,
    of_observables,
    of_simulation,
    of_verification,
    pictures,
)
from sdegen.plots.results.drawing import picture
from sdegen.plots.results.html import page
from sdegen.plots.results.labelled import Labels, Variable, labels
from sdegen.plots.results.summaries import Fact, Summary, summary
from sdegen.plots.results.tables import to_dataframe, to_xarray

__all__ = [
    "Fact",
    "Labels",
    "Summary",
    "Variable",
    "labels",
    "of_densities",
    "of_learning",
    "of_measurements",
    "of_observables",
    "of_simulation",
    "of_verification",
    "page",
    "picture",
    "pictures",
    "summary",
    "to_dataframe",
    "to_xarray",
]
