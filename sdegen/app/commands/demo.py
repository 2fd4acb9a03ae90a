"""sdegen demo: the demonstration, and its report."""

import json
from pathlib import Path
from typing import Any

from sdegen.app.configs.demo import DemoConfig
from sdegen.app.demo.main import run_demo
from sdegen.app.runs import METRICS


def resolved(config: DemoConfig) -> DemoConfig:
    """Return the config: nothing is left to settle."""
    return config


def run(config: DemoConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Run the demonstration, which writes report.html, its pictures and its numbers.

    Returns:
        Its numbers.
    """
    run_demo(config, folder, progress=progress)
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text())
    return metrics
