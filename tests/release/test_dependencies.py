"""Dependencies: what the package imports is declared, and by whom an extra's libraries are."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import sdegen as sg

PACKAGE = Path(sg.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
OWNERS = packages_distributions()  # slow: asked once
# of libraries that are not installed here, whose name is another one than what is imported
NAMED = {"sklearn": "scikit-learn", "ot": "pot"}
# what only an extra brings; imported by a function, or by one another
BEHIND = {"app/explore/figures.py": "explore", "app/explore/page.py": "explore"}


def plain(requirement):
    """The name of a distribution, as an index compares it, without versions."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


DECLARED = {plain(one) for one in PROJECT["dependencies"]}
EXTRAS = {
    name: {plain(one) for one in needs if not one.startswith("sdegen[")}
    for name, needs in PROJECT["optional-dependencies"].items()
    if name not in ("benchmarks", "docs", "dev")
}


def distribution(module):
    """The distribution that has a module, or its own name."""
    top = module.partition(".")[0]
    if module == "torch.utils.tensorboard":  # which needs a library of its own
        return "tensorboard"
    found = OWNERS.get(top, [NAMED.get(top, top)])
    return plain(found[0])


def is_foreign(module):
    """Whether a module is neither Python's own nor ours."""
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top != "sdegen"


def modules_of(node):
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


def of_types_alone(node):
    """Whether a statement is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def at_import(node):
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) or of_types_alone(child):
            continue
        yield child
        yield from at_import(child)


def imported(source):
    """Modules that a source imports when it is imported itself, and all others that it does."""
    tree = ast.parse(source)
    first = [name for node in at_import(tree) for name in modules_of(node)]
    every = [name for node in ast.walk(tree) for name in modules_of(node)]
    return set(first), set(every) - set(first)


def asked(source):
    """(library, extra) of each call of `needed`, whose library may be filled in at its end."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needed":
            library = node.args[0]
            if isinstance(library, ast.JoinedStr):
                library = library.values[0]
            (extra,) = [one.value.value for one in node.keywords if one.arg == "extra"]
            yield library.value.rstrip("."), extra


SOURCES = {
    str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))
}


def test_what_is_imported_with_a_module_is_declared():
    missing, used = set(), set()
    for file, source in SOURCES.items():
        allowed = DECLARED | EXTRAS.get(BEHIND.get(file, ""), set())
        names = {distribution(name) for name in imported(source)[0] if is_foreign(name)}
        missing |= {(file, name) for name in names - allowed}
        used |= names
    assert missing == set()
    assert len(used) > 8


def test_what_is_imported_later_is_declared_or_an_extra():
    allowed = DECLARED.union(*EXTRAS.values())
    for file, source in SOURCES.items():
        names = {distribution(name) for name in imported(source)[1] if is_foreign(name)}
        assert names <= allowed, (file, names - allowed)


def test_what_an_extra_is_needed_for_is_in_it():
    found = [pair for source in SOURCES.values() for pair in asked(source)]
    assert {extra for _, extra in found} == set(EXTRAS) - {"all"}
    for library, extra in found:
        assert distribution(library) in EXTRAS[extra], (library, extra)


def test_every_dependency_is_used():
    used = {
        distribution(name)
        for source in SOURCES.values()
        for names in imported(source)
        for name in names
        if is_foreign(name)
    }
    used |= {distribution(name) for source in SOURCES.values() for name, _ in asked(source)}
    assert DECLARED.union(*EXTRAS.values()) - used == set()


def test_files_of_an_extra_are_imported_by_functions_alone():
    for file, source in SOURCES.items():
        first = {
            f"{name.removeprefix('sdegen.').replace('.', '/')}.py" for name in imported(source)[0]
        }
        assert file in BEHIND or not first & set(BEHIND), file


def test_an_import_that_is_not_declared_is_seen():
    source = (
        "import numpy\nif TYPE_CHECKING:\n    import b\ntry:\n    import c.d\nfinally:\n    pass\n"
    )
    source += "class A:\n    import e\n    def f(self):\n        from g.h import i\n"
    assert imported(source) == ({"numpy", "c.d", "e"}, {"b", "g.h"})
    assert list(asked('needed(f"azula.{part}", "f", extra="azula")')) == [("azula", "azula")]
    assert distribution("lazy_loader") == "lazy-loader"
    assert distribution("tomli_w") == "tomli-w"
