"""Archives: what the wheel and the source distribution hold, built once, without a network."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sdegen as sg

ROOT = Path(sg.__file__).parent.parent
pytest.importorskip("build")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The two files, of a copy of what is needed to build: nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in ROOT.glob("*"):
        if path.is_file() or path.name in ("sdegen", "conda.recipe"):
            subprocess.run(["cp", "-r", str(path), str(source)], check=True)
    for room in ("tests", "benchmarks", "docs", "examples"):  # which must not be taken
        (source / room).mkdir()
        (source / room / "__init__.py").touch()
        (source / room / "test_it.py").touch()
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_is_the_package_and_no_more(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {
        "sdegen",
        f"sdegen-{sg.__version__}.dist-info",
    }
    package = Path(sg.__file__).parent
    mine = {
        f"sdegen/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }
    assert mine <= set(names)
    assert not [name for name in names if "test_" in name or "__pycache__" in name]


def test_the_source_distribution_has_what_a_build_needs(archives):
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    needed |= {"SECURITY.md", "conda.recipe/recipe.yaml", "sdegen/py.typed", "sdegen/__init__.pyi"}
    assert needed <= names
    rooms = {name.split("/")[0] for name in names if "/" in name}
    assert rooms == {"sdegen", "sdegen.egg-info", "conda.recipe"}


def test_the_metadata_say_what_is_needed(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        text = wheel.read(f"sdegen-{sg.__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    assert metadata["Version"] == sg.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "io" in metadata.get_all("Provides-Extra")


def test_the_archives_pass_the_check_of_an_index(archives):
    pytest.importorskip("twine")
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
