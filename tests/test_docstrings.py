"""Every >>> example of the package, run and compared to the last digit.

Examples are found in the source, since the run-time checks of this suite wrap functions in ways
that doctest's own finder passes over. An example may use torch, `sg`, and every public name.
"""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

import sdegen as sg

PACKAGE = Path(sg.__file__).parent
PARSER = doctest.DocTestParser()


def _examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("sdegen", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                name = f"{module}.{getattr(node, 'name', '')}".rstrip(".")
                line = getattr(node, "lineno", 1)
                yield pytest.param(module, text, str(path), line, id=name)


@pytest.mark.parametrize(("module", "text", "path", "line"), list(_examples()))
def test_example_gives_what_it_says(module, text, path, line):
    own = vars(importlib.import_module(module.removesuffix(".__init__")))
    words = set(re.findall(r"\w+", text))
    public = {name: getattr(sg, name) for name in sg.__all__ if name in words}
    test = PARSER.get_doctest(text, {"torch": torch, "sg": sg, **public, **own}, path, path, line)
    assert test.examples
    said = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        test, out=said.append
    )
    assert results.failed == 0, "".join(said)


def test_examples_are_found():
    assert len(list(_examples())) >= 9
