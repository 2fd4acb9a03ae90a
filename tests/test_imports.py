"""Imports go one way, and importing changes nothing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sdegen

PACKAGE = Path(sdegen.__file__).parent

# Each floor may look at those before it, and a room at itself; rooms that share a floor may not
# look at each other.
FLOORS = (
    ({"core"},),
    ({"storage"},),
    ({"metrics"}, {"data"}, {"training"}),
    ({"sde"},),
    ({"solvers"},),
    ({"diffusion"}, {"fokker_planck"}, {"observables"}),
    ({"score"}, {"measurements"}),
    ({"engine"}, {"adaptors"}, {"readers"}),
    ({"calibration"}, {"averages"}),
    ({"likelihood"}, {"verification"}),
    ({"variational"}, {"energy"}),
    ({"plots"},),
    ({"app", "__main__"},),
)
# further than what the floor says
ONLY = {
    "metrics": {"core.shapes", "core.noise", "core.checks", "core.requests", "core.optional"},
    "data": {"core.shapes", "core.noise", "core.checks", "core.optional"},
    "core.update": {"core.shapes"},
    "core.checks": set(),
    "core.requests": set(),
}
# the one import upward: a result asks the room that draws all of them how it looks, when it is
# asked to show itself; else each result would have to be drawn where it is computed
UPWARD = {"core.shown": {"plots"}}


def _floor(part):
    """Floor of a top-level part of the package, and its room there."""
    for level, rooms in enumerate(FLOORS):
        for room in rooms:
            if part.split(".")[0] in room:
                return level, room
    raise AssertionError(f"sdegen.{part} has no place in the house: give it a floor here.")


def _imported(source):
    """Parts of sdegen that a source imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("sdegen."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package: from sdegen.room.file import …"
            path = (node.module or "").split(".")
            if path == ["sdegen"]:
                yield from (a.name for a in node.names)
            elif path[0] == "sdegen":
                yield ".".join(path[1:3]) if path[1] == "core" else path[1]


def upward_looks(part, source):
    """The imports of a part that its place in the house does not allow."""
    level, room = _floor(part)
    for other in _imported(source):
        if other.startswith("__") and other != "__main__":  # __version__ and its like
            continue
        below, there = _floor(other)
        allowed = below < level or room is there
        allowed = allowed or other in UPWARD.get(part, set())
        if not allowed or (part in ONLY and other != part and other not in ONLY[part]):
            yield other


def _sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        part = ".".join(parts[:2]) if parts[0] == "core" else parts[0]
        if part != "__init__":
            yield pytest.param(part, path, id=str(path.relative_to(PACKAGE)))


@pytest.mark.parametrize(("part", "path"), list(_sources()))
def test_nothing_looks_upward(part, path):
    assert list(upward_looks(part, path.read_text())) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("sde", "from sdegen.solvers.euler import EulerMaruyama"),
        ("score", "def f():\n    from sdegen.engine.simulate import simulate"),
        ("fokker_planck", "import sdegen.engine.simulate"),
        ("metrics", "from sdegen.core.sde import SDE"),
        ("solvers", "from sdegen import plots"),
        ("core.trajectory", "from sdegen.storage import save"),
        ("core.trajectory", "from sdegen.plots import results"),
        ("core.shown", "from sdegen.storage import save"),
    ],
)
def test_an_upward_look_is_seen(part, source):
    assert len(list(upward_looks(part, source))) == 1


def _public():
    """Every public name, from the stub."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", list(_public()))
def test_every_public_name_resolves(name):
    assert getattr(sdegen, name) is not None
    assert name in dir(sdegen)


def _fresh(program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return json.loads(done.stdout)


def test_importing_the_package_imports_nothing_heavy():
    heavy = _fresh(
        "import json, sys, sdegen; sdegen.__version__; "
        "print(json.dumps([m for m in ('torch', 'numpy', 'scipy', 'matplotlib') if m in "
        "sys.modules]))"
    )
    assert heavy == []


_UNUSED = (  # by the simulation of a process, and by a page of help
    "matplotlib",
    "torchsde",
    "torchdiffeq",
    "tyro",
    "sklearn",
    "ot",
    "diffusers",
    "huggingface_hub",
    "zarr",
    "xarray",
    "pandas",
    "panel",
    "bokeh",
    "tensorboard",
    "scipy.integrate",
    "scipy.interpolate",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
)


@pytest.mark.parametrize(
    "program",
    [
        "import sdegen as sg; sg.simulate, sg.ItoProcess, sg.EulerMaruyama, sg.Trajectory",
        "import sdegen as sg; sg.simulate(sg.ItoProcess(lambda x: -x, 0.5), [[0.0]], [0, 0.1])",
        "import sdegen as sg; sg.VP(sg.LinearBeta(0.1, 20.0)), sg.MLP, sg.ScoreModel, sg.train",
    ],
)
def test_nothing_is_loaded_that_is_not_used(program):
    """Modules are counted and no seconds: `python -m benchmarks.imports` has those."""
    loaded = _fresh(f"import json, sys; {program}; print(json.dumps(sorted(sys.modules)))")
    assert "sdegen.core.sde" in loaded
    assert [name for name in _UNUSED if name in loaded] == []


def test_a_page_of_help_loads_neither_torch_nor_numpy():
    program = """
import contextlib, io, json, sys
from sdegen.app.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(json.dumps(sorted(sys.modules)))
"""
    loaded = _fresh(program)
    assert "sdegen.app.cli" in loaded
    assert [
        name for name in ("torch", "numpy", *(set(_UNUSED) - {"tyro"})) if name in loaded
    ] == []


def test_loading_everything_changes_nothing_in_torch_and_numpy():
    same = _fresh(
        """
import hashlib, json, pickle, torch, numpy, sdegen
def state():
    return [
        str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), str(torch.get_default_device()),
        torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
        hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        hashlib.sha256(pickle.dumps(numpy.random.get_state())).hexdigest(), numpy.geterr(),
    ]
before = state()
for name in sdegen.__all__:
    try:
        getattr(sdegen, name)
    except (ImportError, AttributeError):
        pass  # that every name resolves is another test
print(json.dumps(before == state()))
"""
    )
    assert same is True
