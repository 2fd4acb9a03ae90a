"""The demonstration, rehearsed: report, numbers and pictures are all there and agree."""

import base64
import html
import json
import re
from html.parser import HTMLParser

import pytest

from sdegen.app.configs.demo import DemoConfig
from sdegen.app.demo.main import run_demo

TABLES = {"double_well", "routes", "chosen_route", "likelihood", "ddpm_gap", "cost"}
PICTURES = {
    "double_well", "stationary", "digits", "noise_to_digits", "routes", "training", "ddpm_gap",
}  # fmt: skip
OPEN_ENDED = {"meta", "img", "br"}


class Page(HTMLParser):
    """The page as a tree: complains of tags that are not closed, keeps pictures and tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.tables, self.foreign = [], [], 0, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in OPEN_ENDED:
            self.open.append(tag)
        self.tables += tag == "table"
        for name, value in attrs:
            if tag == "img" and name == "src":
                self.pictures.append(value)
            elif name in ("src", "href") and not value.startswith("#"):
                self.foreign.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    path = run_demo(DemoConfig(quick=True, seed=0), folder, progress=False)
    return folder, path, json.loads((folder / "metrics.json").read_text())


def test_report_is_one_whole_page(run):
    folder, path, _ = run
    assert path == folder / "report.html"
    page = Page(path.read_text())
    assert page.open == []
    assert page.foreign == []
    assert page.tables == len(TABLES) + 3  # and one of claims in each act


def test_report_holds_every_picture_that_is_beside_it(run):
    folder, path, _ = run
    assert {p.stem for p in folder.glob("*.png")} == PICTURES
    held = set()
    for source in Page(path.read_text()).pictures:
        kind, content = re.fullmatch(r"data:image/(png|gif);base64,(.*)", source).groups()
        held.add((kind, base64.b64decode(content)))
    beside = {(p.suffix[1:], p.read_bytes()) for p in folder.glob("*.[pg][ni][gf]")}
    assert held == beside
    assert (folder / "relaxation.gif").read_bytes().count(b"\x21\xf9\x04") > 50  # frames


def test_each_act_has_a_sentence_to_take_away_and_says_what_was_used(run):
    _, path, metrics = run
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", path.read_text()))
    assert text.count("Take away:") + text.count("Not shown in this run:") == 3
    assert "What a floor is: the distance that a perfect answer shows" in text
    assert "DDPM's own chain, whose steps have the posterior variance" in html.unescape(text)
    assert "posterior variance" in metrics["routes"][1]["setting"]
    for row in metrics["routes"][1:]:  # spreads of all routes, of each distance
        for name in ("sliced W2", "energy distance", "in floors", "to validation"):
            assert 0 < row[f"{name} ±"] < row[name]
    assert all(row["sampling floor ±"] > 0 for row in metrics["double_well"])


def test_metrics_have_every_table_and_claim(run):
    _, _, metrics = run
    assert set(metrics) >= TABLES
    assert all(metrics[name] for name in TABLES)
    assert metrics["claims_made"] == len(metrics["claims"]) == 10
    assert metrics["claims_held"] == sum(claim["holds"] for claim in metrics["claims"])
    for claim in metrics["claims"]:
        low = -float("inf") if claim["low"] is None else claim["low"]
        high = float("inf") if claim["high"] is None else claim["high"]
        assert claim["holds"] == (low <= claim["measured"] <= high)


def test_claims_of_physics_and_ddpm_hold_even_when_rehearsed(run):
    _, _, metrics = run
    lost = [claim["claim"] for claim in metrics["claims"] if not claim["holds"]]
    assert all(claim.startswith("digits:") for claim in lost), lost


def test_verdicts_in_the_page_are_those_of_the_numbers(run):
    _, path, metrics = run
    text = path.read_text()
    assert text.count("✓ holds") == metrics["claims_held"]
    assert text.count("✗ fails") == metrics["claims_made"] - metrics["claims_held"]
    assert f"{metrics['claims_held']} of {metrics['claims_made']} claims hold" in text


def test_routes_are_measured_beside_their_floor(run):
    _, _, metrics = run
    floor, *routes = metrics["routes"]
    assert floor["in floors"] == 1.0
    for route in routes:
        assert route["in floors"] == pytest.approx(
            route["energy distance"] / floor["energy distance"]
        )
        assert route["evaluations"] > 0
    mean = sum(row["in floors"] for row in metrics["chosen_route"]) / len(metrics["chosen_route"])
    claim = next(c for c in metrics["claims"] if c["claim"].startswith("digits: energy"))
    assert claim["measured"] == pytest.approx(mean)
