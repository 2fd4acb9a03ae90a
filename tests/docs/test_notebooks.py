"""Notebooks are short and stored without output; `make docs` runs them, as pages of the site.

A cell that raises, or that warns, fails that build; `make notebooks` runs them alone.
"""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
_CELLS, _WIDTH = 12, 110


def test_there_is_one_for_each_reader():
    assert {book.stem for book in BOOKS} == {
        "a_drift_of_mine",
        "compare_samplers",
        "ddpm_is_discretised_vp",
    }


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_it_is_stored_without_output(book):
    held = json.loads(book.read_text())
    assert len(held["cells"]) <= _CELLS
    for cell in held["cells"]:
        assert all(len(line.rstrip("\n")) <= _WIDTH for line in cell["source"])
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    # what machine, and which Python, it was last run on is nobody's business
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert held["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_it_begins_with_a_title_and_shows_results_by_themselves(book):
    cells = json.loads(book.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    shown = [lines[-1] for lines in code if lines[-1].isidentifier()]
    assert len(shown) >= 3  # a result alone on the last line
