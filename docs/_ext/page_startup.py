"""What every page begins with: figures are shown as pictures, warnings are errors."""

import warnings

from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats


def _begin(info: object) -> None:
    # only while a cell runs: the kernel has warnings of its own
    warnings.simplefilter("error")
    # torch's arrays do not know numpy's copy= yet, and matplotlib asks for it
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="matplotlib.cbook")


def _end(result: object) -> None:
    warnings.resetwarnings()


# figures are made without pyplot, which is what would say so to IPython
select_figure_formats(get_ipython(), {"png"})
get_ipython().events.register("pre_run_cell", _begin)
get_ipython().events.register("post_run_cell", _end)
