"""What `make examples-full` compares, keeps and writes."""

import io
import json

import example_files
import examples_full
import numpy as np
import pytest
from PIL import Image

PROGRAM = '''"""A title
=======

What is shown. It prints, in 7 s of one core::

    trained in 3 s, loss 0.50
    mean 0.251 ± 0.004, exact 0.250
"""

MEAN = 0.25
'''
SAID = "trained in 3 s, loss 0.50\nmean 0.251 ± 0.004, exact 0.250"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    for module in (example_files, examples_full):
        monkeypatch.setattr(module, "EXAMPLES", tmp_path)
    (tmp_path / "one.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def test_numbers_are_compared_to_the_last_digit_and_seconds_by_their_words():
    assert examples_full.differences(SAID, SAID.replace("in 3 s", "in 12 s")) == []
    other = SAID.replace("0.251", "0.252")
    assert examples_full.differences(SAID, other) == [
        "mean 0.251 ± 0.004, exact 0.250 | mean 0.252 ± 0.004, exact 0.250"
    ]
    assert len(examples_full.differences(SAID, SAID + "\nand more")) == 1
    assert examples_full.differences("off by 2e-09, 0.5", "off by 7.1e-16, 0.5") == []
    assert len(examples_full.differences("off by 2e-08", "off by 3e-08")) == 1
    assert len(examples_full.differences(SAID, SAID.replace("mean", "median"))) == 1


def test_a_header_is_read_and_rewritten(folder):
    assert example_files.header("one") == SAID
    printed = "trained in 4 s, loss 0.49\nmean 0.252 ± 0.004, exact 0.250\nand more"
    examples_full.rewrite("one", printed, 12.4)
    assert example_files.header("one") == printed
    assert "prints, in 12 s of one core::\n" in example_files.page("one")
    assert example_files.source("one").endswith("MEAN = 0.25\n")


def test_costs_are_recorded_beside_those_of_others(folder):
    examples_full.record("two", 3.26)
    examples_full.record("one", 7.04)
    known = json.loads((folder / "full.json").read_text(encoding="utf-8"))
    assert list(known["cpu_seconds"].items()) == [("one", 7.0), ("two", 3.3)]
    assert set(known) == {"machine", "date", "versions", "cpu_seconds"}


def test_a_picture_becomes_small_and_stays_the_same_picture():
    x, y = np.meshgrid(np.linspace(0, 1, 500), np.linspace(0, 1, 300))
    noise = np.random.default_rng(0).normal(0, 0.03, (300, 500, 3))
    image = np.clip(np.stack([x, y, 1 - x], 2) + noise, 0, 1)
    held = io.BytesIO()
    Image.fromarray((255 * image).astype(np.uint8)).save(held, "PNG")
    assert len(held.getvalue()) > 2 * examples_full.MOST
    small = examples_full.small(held.getvalue())
    assert len(small) <= examples_full.MOST
    found = Image.open(io.BytesIO(small)).convert("RGB").resize((5, 3), Image.Resampling.BOX)
    right = image.reshape(3, 100, 5, 100, 3).mean((1, 3))
    assert np.abs(np.asarray(found) / 255 - right).max() < 0.03
