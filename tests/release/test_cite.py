"""cite: every source that a docstring names resolves to BibTeX that can be parsed."""

import inspect
import re

import pytest

import sdegen as sg
from sdegen.app.cite import _references, entries, reference_of

_FORM = re.compile(r"@(article|book|misc|incollection|software)\{[\w-]+,\n(  \w+ = \{.*\},\n)+\}")
_NEEDED = {
    "article": {"author", "title", "year", "journal"},
    "book": {"author", "title", "year", "publisher"},
    "misc": {"author", "title", "year"},
    "incollection": {"author", "title", "year", "booktitle"},
}
OBJECTS = {name: getattr(sg, name) for name in sg.__all__}


def keys(text):
    """The keys of the entries, each of which has the form of BibTeX."""
    parts = text.split("\n\n")
    assert all(_FORM.fullmatch(part) for part in parts), text
    return [re.match(r"@\w+\{([\w-]+),", part)[1] for part in parts]


def own_reference(thing):
    """What the docstring of a public name itself has under Reference."""
    return reference_of(vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__)


def test_every_entry_has_what_its_kind_needs():
    for key, text in entries().items():
        assert keys(text) == [key]
        assert text.count("{") == text.count("}")
        fields = set(re.findall(r"^  (\w+) =", text, re.M))
        assert _NEEDED[re.match(r"@(\w+)", text)[1]] <= fields, key
        if "eprint" not in fields and text.startswith("@misc"):
            assert "howpublished" in fields, key


def test_every_public_name_with_a_reference_is_cited():
    named = [name for name, thing in OBJECTS.items() if own_reference(thing)]
    assert len(named) > 60
    for name in named:
        assert keys(sg.cite(name)), name


def test_every_solver_of_the_table_is_cited():
    solvers = {
        word for word in re.findall(r"^(\w+)\(", str(sg.which_solver()), re.M) if word in OBJECTS
    }
    assert len(solvers) > 10
    for name in solvers:
        assert keys(sg.cite(OBJECTS[name])), name


def test_every_arxiv_number_is_in_the_table_and_every_entry_is_used():
    table, used = "\n".join(entries().values()), set()
    for name, thing in OBJECTS.items():
        texts = _references(thing)
        for number in re.findall(r"arXiv:([a-z-]*/?[\d.]*\d)", " ".join(texts)):
            assert f"eprint = {{{number}}}" in table, (name, number)
        if any(texts):
            try:
                used |= set(keys(sg.cite(thing)))
            except ValueError:
                assert not own_reference(thing), name
    assert set(entries()) - used == set()


def test_known_methods_have_their_papers():
    assert keys(sg.cite(sg.BAOAB())) == ["leimkuhler2013"]
    assert keys(sg.cite(sg.DDIM)) == ["song2021ddim"]
    assert keys(sg.cite("VP")) == ["song2021"]
    assert set(keys(sg.cite(sg.TorchSDE("srk")))) == {"rossler2010", "li2020"}
    assert f"version = {{{sg.__version__}}}" in sg.cite()
    assert keys(sg.cite()) == ["sdegen"]


def test_a_class_that_derives_from_one_is_cited_by_it():
    class Mine(sg.EulerMaruyama):
        """A variant of mine."""

    assert keys(sg.cite(Mine())) == ["kloeden1992"]


def test_what_is_unknown_is_refused_by_name():
    with pytest.raises(TypeError, match="cite takes what sdegen has"):
        sg.cite(3.0)
    with pytest.raises(ValueError, match="no public name 'Eulr'"):
        sg.cite("Eulr")
    with pytest.raises(ValueError, match="documentation of Trajectory names no source"):
        sg.cite("Trajectory")
