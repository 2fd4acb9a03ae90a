"""Their program beside ours: ours is as short, and both give the answer that the page states.

Programs of libraries that are not installed are left out by name, those of Julia always; the
stated distances are of 5 standard errors or more, and all programs have fixed seeds.
"""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "coming_from"
PROGRAMS = PAGES / "programs"
STATED = re.compile(r"`(\w+)`: theirs (not run|[-\d.]+), ours ([-\d.]+), equal within ([-\d.e]+):")
ROWS = {
    name: stated
    for page in sorted(PAGES.glob("*.md"))
    for name, *stated in STATED.findall(page.read_text(encoding="utf-8"))
}


def lines(file):
    text = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(1 for line in text if line and not line.startswith("#"))


def imported(file):
    """The libraries that a program asks for."""
    return set(
        re.findall(r"^(?:import|from) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    )


def agrees(value, stated):
    """Whether a number is the stated one, but for the last digit that is written."""
    digits = len(stated.partition(".")[2])
    return abs(value - float(stated)) < 1.01 * 10**-digits


def test_each_pair_is_on_a_page():
    named = {file.stem.rpartition("_")[0] for file in PROGRAMS.iterdir() if file.suffix != ".pyc"}
    assert named - {""} == set(ROWS)
    assert len(list(PAGES.glob("*.md"))) == 8


@pytest.mark.parametrize("name", ROWS)
def test_ours_is_as_short(name):
    (theirs,) = PROGRAMS.glob(f"{name}_theirs.*")
    # of Julia its own length counts too
    assert lines(PROGRAMS / f"{name}_ours.py") <= lines(theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs
@pytest.mark.parametrize("name", ROWS)
def test_both_give_the_stated_answer(name, monkeypatch):
    theirs, ours, within = ROWS[name]
    value = float(runpy.run_path(str(PROGRAMS / f"{name}_ours.py"))["answer"])
    assert agrees(value, ours)
    if theirs != "not run":
        assert abs(float(theirs) - float(ours)) <= float(within) + 1e-5  # as far as is written
    program = PROGRAMS / f"{name}_theirs.py"
    if not program.exists():
        pytest.skip("their program is in Julia, which is not run here")
    for library in imported(program) - set(sys.stdlib_module_names):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    other = float(runpy.run_path(str(program))["answer"])
    assert agrees(other, theirs)
    assert abs(other - value) <= float(within)
