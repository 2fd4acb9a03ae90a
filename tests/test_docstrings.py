"""Every public name says what it is: equation, shapes, and an example that is run and compared.

Examples are found in the source, since the run-time checks of this suite wrap functions in ways
that doctest's own finder passes over. An example of a public name has torch and `sg`, as a reader
has them; one of another name has those of its module too.
"""

import ast
import doctest
import enum
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import sdegen as sg
from tests.docstrings import dynamics, other_rooms

PACKAGE = Path(sg.__file__).parent
PARSER = doctest.DocTestParser()
HEADINGS = "Args|Attributes|Returns|Yields|Raises|Warns|References?|Examples?"
NO_EQUATION = dynamics.NO_EQUATION | other_rooms.NO_EQUATION
NO_SHAPES = dynamics.NO_SHAPES | other_rooms.NO_SHAPES


def _examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("sdegen", *path.relative_to(PACKAGE).with_suffix("").parts))
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if ">>>" in source else ():
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                name = f"{module}.{getattr(node, 'name', '')}".rstrip(".")
                line = getattr(node, "lineno", 1)
                yield pytest.param(module, text, str(path), line, id=name)


EXAMPLES = list(_examples())


@pytest.mark.parametrize(("module", "text", "path", "line"), EXAMPLES)
def test_example_gives_what_it_says(module, text, path, line):
    names = {"torch": torch, "sg": sg}
    if text not in {inspect.cleandoc(value.__doc__ or "") for value in PUBLIC.values()}:
        names |= vars(importlib.import_module(module.removesuffix(".__init__")))
    test = PARSER.get_doctest(text, names, path, path, line)
    assert test.examples
    for package in re.findall(r">>> import (.+)", text):
        for name in package.split(", "):
            pytest.importorskip(name.split()[0])
    said = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        test, out=said.append
    )
    assert results.failed == 0, "".join(said)


def _public():
    """Names of the package, and those of its public modules as module.name; no constants."""
    found = {}
    for name in sg.__all__:
        found[name] = value = getattr(sg, name)
        if isinstance(value, ModuleType):
            inside = {f"{name}.{inner}": getattr(value, inner) for inner in value.__all__}
            known = {id(getattr(sg, other)) for other in sg.__all__}
            found |= {k: v for k, v in inside.items() if id(v) not in known}
    return {
        k: v
        for k, v in found.items()
        if inspect.isclass(v) or inspect.isroutine(v) or isinstance(v, ModuleType)
    }


PUBLIC = _public()


def sections(text):
    """The prose of a docstring, and its sections by their heading."""
    parts = re.split(rf"^({HEADINGS}):\n((?:(?:[ ]+.*)?\n)*)", text + "\n", flags=re.MULTILINE)
    return "\n".join(parts[::3]), dict(zip(parts[1::3], parts[2::3], strict=True))


def lacks(name):
    """What the docstring of a public name does not say."""
    value = PUBLIC[name]
    kind = value if inspect.isclass(value) else type(value)
    prose, parts = sections(inspect.cleandoc(value.__doc__ or ""))
    example = "".join(body for heading, body in parts.items() if heading.startswith("Example"))
    runs = PARSER.get_examples(example) if ">>>" in example else []
    facts = (prose + "".join(parts.values())).replace(example, "")
    equation = re.search(r"\s[=∝≈≤≥∈~≠→]\s", re.sub(r"`[^`]*`", "", prose))
    shapes = re.search(r"(?<![^\s*])\(\w[^()]*, ?[^()]*\)", facts)
    shapes = shapes or re.search(r"\b[Ss]hapes?\b", facts + example)
    plain = issubclass(kind, BaseException | enum.Enum) or isinstance(value, ModuleType)
    return {
        "an Example: section with a value": not any(run.want for run in runs),
        "an example that shows more than a shape": any("torch.Size" in run.want for run in runs),
        "an equation in its prose": not (equation or plain or name in NO_EQUATION),
        "shapes": not (shapes or plain or name in NO_SHAPES),
    }


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_says_its_equation_shapes_and_an_example(name):
    missing = [what for what, lacking in lacks(name).items() if lacking]
    assert not missing, f"{name} lacks {', '.join(missing)}"


def test_lists_of_exceptions_name_what_there_is():
    assert (NO_EQUATION.keys() | NO_SHAPES.keys()) <= PUBLIC.keys()
    assert all(len(reason) > 10 for reason in (NO_EQUATION | NO_SHAPES).values())


def test_examples_are_found():
    assert len(EXAMPLES) >= 80
