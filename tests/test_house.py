"""The house stays livable: few rooms, files and functions that are read in one go."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import sdegen

PACKAGE = Path(sdegen.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
_LONGEST_FILE, _LONGEST_FUNCTION, _MOST_ROOMS = 400, 60, 23
# façades, which say themselves why they are long
FACADES = {"fokker_planck/solver.py"}
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source):
    """Lines that hold code: neither blank nor comments nor docstrings."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            lines -= set(range(text.lineno, text.end_lineno + 1))
    return lines


def test_there_are_few_rooms():
    rooms = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert len([p for p in rooms if not p.name.startswith("__")]) <= _MOST_ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_and_its_functions_are_read_in_one_go(path):
    source = path.read_text()
    name = str(path.relative_to(PACKAGE))
    if name in FACADES:
        assert "façade" in ast.get_docstring(ast.parse(source))
    else:
        assert source.count("\n") <= _LONGEST_FILE
    lines = code_lines(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= _LONGEST_FUNCTION, f"{node.name} has {length} lines of code"
