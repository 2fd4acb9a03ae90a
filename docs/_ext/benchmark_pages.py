"""The benchmarks' pages on the site: copied from `benchmarks/`, where they are made from results.

`docs/benchmarks/` is `benchmarks/README.md` with its archive and pictures, and git ignores it.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "benchmarks"
ARCHIVE = """
```{toctree}
:hidden:
:glob:

archive/*
```
"""


def copy(app: Sphinx, config: Config) -> None:
    """Copy the pages, their front page with a list of them."""
    source = ROOT / "benchmarks"
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(source / "archive", FOLDER / "archive")
    (FOLDER / "results").mkdir()
    for picture in (source / "results").glob("*.png"):
        shutil.copy(picture, FOLDER / "results")
    front = (
        (source / "README.md")
        .read_text(encoding="utf-8")
        .replace("[`archive/`](archive)", "`archive/`")
    )
    (FOLDER / "index.md").write_text(front + ARCHIVE, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Copy before pages are looked for."""
    app.connect("config-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
