"""The site's own machinery: equations, names, links, and what the built pages hold.

`make docs` builds the site, runs every program on it and checks its links; tests of the built
pages are skipped where there are none.
"""

import re
import sys
from pathlib import Path

import pytest

import sdegen as sg

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = DOCS / "_build" / "html"
sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]

import check_links  # noqa: E402
import public_names  # noqa: E402
import rst  # noqa: E402

SOURCES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if not {"_build", "benchmarks"} & set(path.relative_to(DOCS).parts)
]
built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="make docs first")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_program_is_run_when_the_site_is_built(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"^```+\s*(?:python|py|ipython)\b", text, flags=re.MULTILINE)
    if "{code-cell}" in text:  # which is shown as it is, and not run, without these lines
        assert re.match(r"---\n(?:.*\n)*?file_format: mystnb\n(?:.*\n)*?---\n", text)


def test_every_public_name_has_a_page_of_its_own():
    pages = public_names.pages()
    assert {f"sdegen.{name}" for name in sg.__all__} <= set(pages)
    listed = [name for room in public_names.rooms() for name in room.names]
    assert sorted(listed) == sorted(sg.__all__)
    # files whose names differ in capitals alone are one file on some systems
    lower = {}
    for page in set(pages.values()):
        assert lower.setdefault(page.lower(), page) == page


def test_what_a_public_module_offers_has_a_page():
    pages = public_names.pages()
    assert pages["sdegen.metrics.total_variation"] == "metrics.total_variation"
    assert pages["sdegen.score.composition.guided"] == "composition.guided"
    assert pages["sdegen.training.fit"] == pages["sdegen.fit"] == "fit"
    assert pages["sdegen.expectation"] != pages["sdegen.Expectation"]


def test_rooms_are_the_headings_of_the_list_of_names():
    rooms = public_names.rooms()
    assert [room.title for room in rooms][:3] == [
        "the update and what it is made of", "what moves", "how it moves",
    ]  # fmt: skip
    assert rooms[1].names["VP"] == "sdegen.diffusion.gaussian_path"
    assert rooms[1].slug == "what-moves"


DOCSTRING = """
A process with |x|² and x_ and 2 * 3 of *stiff* parts, see `x * y`.

    dX = f dt + g dW
    D  = g²/2

Args:
    x: State, shape (batch, *event).

    y = simulate(sde, x0, times)

>>> 2 * 3
6
"""


def test_equations_of_a_docstring_stay_line_by_line():
    lines = rst.as_rst(DOCSTRING.strip().splitlines())
    assert lines[0] == r"A process with \|x\|² and x\_ and 2 \* 3 of *stiff* parts, see `x * y`."
    start = lines.index(".. code-block:: text")
    assert lines[start + 3 : start + 5] == ["   dX = f dt + g dW", "   D  = g²/2"]
    assert r"    x: State, shape (batch, \*event)." in lines
    assert lines[-2:] == [">>> 2 * 3", "6"]


def test_programs_are_told_from_equations():
    assert rst.is_program(["y = simulate(sde, x0, times)"])
    assert rst.is_program(["for x in integrate(sde):", "    print(x)"])
    assert not rst.is_program(["x  ←  x + dt · f(x, t)"])
    assert not rst.is_program(["increment(i)    ΔW"])


def page(folder, name, body):
    (folder / name).write_text(f"<html><body>{body}</body></html>", encoding="utf-8")


def test_dead_links_are_found(tmp_path):
    page(tmp_path, "a.html", '<a href="b.html#here">b</a> <a href="https://x.org/#no">x</a>')
    page(tmp_path, "b.html", '<h1 id="here">b</h1><a href="#here">up</a>')
    assert check_links.faults(tmp_path) == []
    page(tmp_path, "c.html", '<a href="b.html#there">b</a><a href="d.html">d</a>')
    assert [fault.partition(",")[0] for fault in check_links.faults(tmp_path)] == [
        "c.html leads to b.html#there", "c.html leads to d.html",
    ]  # fmt: skip


def test_what_is_loaded_must_be_of_the_site(tmp_path):
    (tmp_path / "own.js").touch()
    page(tmp_path, "a.html", '<script src="own.js"></script><img src="data:image/png;base64,">')
    assert check_links.faults(tmp_path) == []
    page(tmp_path, "a.html", '<script src="//cdn.org/x.js"></script><img src="no.png">')
    assert len(check_links.faults(tmp_path)) == 2


@built
def test_no_link_of_the_built_site_is_dead():
    assert check_links.faults(SITE) == []


@built
def test_every_public_object_is_on_its_built_page():
    for full, name in public_names.pages().items():
        short = full.removeprefix("sdegen.")
        target = SITE / "api" / f"{name}.html"
        assert target.exists(), f"{short} has no page"


# what readers from the field look for: words as Sphinx's search has them, after its stemming
WORDS = (
    "vp", "ve", "subvp", "ddpm", "ddim", "edm", "flow", "match", "torchsd", "torchdiffeq",
    "fokker", "planck", "baoab", "passag", "ito", "kramer", "unet", "cosin", "timestep",
)  # fmt: skip


@built
@pytest.mark.parametrize("word", WORDS)
def test_search_finds(word):
    index = (SITE / "searchindex.js").read_text(encoding="utf-8").lower()
    assert re.search(rf'["{{,]"?{word}"?:', index), f"searching for {word} finds nothing"
