"""Blocks of 1024 numbers, so that a few thousand trajectories are many blocks."""

import pytest


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 1024})
