"""The table kind × public function is whole, and the tests it names exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from silence import GROUPS, KINDS, TABLE, public_functions

ROOT = Path(__file__).parent.parent
_ID = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")


def test_every_public_function_has_a_row():
    rows = [name for members in GROUPS.values() for name in members]
    assert len(rows) == len(set(rows)), "a function stands in two groups"
    found = set(public_functions())
    assert found - set(rows) == set(), "give the new function a group in tests/silence.py"
    assert set(rows) - found == set(), "a row of a function that is gone"


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_has_a_cell(kind):
    rows = {name for members in GROUPS.values() for name in members}
    assert set(GROUPS) <= set(TABLE[kind])
    assert set(TABLE[kind]) <= set(GROUPS) | rows


@cache
def _tests_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("kind", KINDS)
def test_tests_that_are_named_exist(kind):
    for row, cell in TABLE[kind].items():
        for named in _ID.findall(cell):
            path, _, name = named.partition("::")
            assert (ROOT / path).is_file(), f"{row}: {named}"
            assert not name or name in _tests_of(path), f"{row}: {named}"


def test_a_new_function_without_a_row_is_seen():
    rows = {name for members in GROUPS.values() for name in members}
    assert "FokkerPlanck.something_new" not in rows
    assert {"simulate", "FokkerPlanck.solve", "metrics.energy_distance"} <= rows
