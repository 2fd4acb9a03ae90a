"""Metadata: one version, floors that all files agree on, and a change log in order."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import sdegen as sg

ROOT = Path(sg.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FLOORS = dict(line.split(">=") for line in PROJECT["dependencies"])
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def test_the_version_is_said_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == sg.__version__
    recipe = yaml.safe_load((ROOT / "conda.recipe" / "recipe.yaml").read_text())
    assert recipe["package"]["version"] == sg.__version__


def test_the_citation_has_what_its_form_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"])
    assert all(set(author) == {"name"} for author in citation["authors"])
    assert citation["license"] == PROJECT["license"]


def test_the_recipe_has_the_floors_of_the_package():
    recipe = yaml.safe_load((ROOT / "conda.recipe" / "recipe.yaml").read_text())
    run = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert run.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert run == {CONDA.get(name, name): floor for name, floor in FLOORS.items()}


def test_the_lowest_versions_are_the_floors():
    lines = (ROOT / "constraints-min.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))

    def plain(version):
        return tuple(int(part) for part in re.sub(r"(\.0)+$", "", version).split("."))

    assert {name: plain(pin) for name, pin in pins.items()} == {
        name: plain(floor) for name, floor in FLOORS.items()
    }


def test_the_change_log_is_in_order():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings[0] == "[Unreleased]"
    versions = []
    for heading in headings[1:]:
        version, date = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading).groups()
        versions.append((tuple(map(int, version.split("."))), date))
    assert versions == sorted(versions, reverse=True)
    assert ".".join(map(str, versions[0][0])) == sg.__version__
    kinds = re.findall(r"^### (\w+)", text, re.M)
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Before"}
    assert set(kinds) <= known


@pytest.mark.parametrize("name", ["SECURITY.md", "CITATION.cff", "docs/versions.md"])
def test_lines_are_short(name):
    assert max(map(len, (ROOT / name).read_text().splitlines())) <= 112
