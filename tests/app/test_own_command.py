"""A command of one's own is two files: what it is asked, and what it does."""

import json

CONFIG = '''
"""What sdegen well-depth is asked."""

from dataclasses import dataclass

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import check_seed


@dataclass(frozen=True)
class WellDepthConfig(Config):
    """Measure how deep a double well is.

    Args:
        quartic: Of U(x) = quartic x⁴ − quadratic x².
        quadratic: The same.
        seed: Seed of all random numbers; fresh unless said.
    """

    quartic: float = 0.25
    quadratic: float = 0.5
    seed: int | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
'''
COMMAND = '''
"""sdegen well-depth: how deep a double well is."""

import torch

import sdegen as sg
from sdegen.storage import save_tensors


def resolved(config):
    """Return the config: nothing is left to settle."""
    return config


def run(config, folder, progress):
    """Measure, and write depth.safetensors."""
    well = sg.DoubleWell(quartic=config.quartic, quadratic=config.quadratic)
    place = (config.quadratic / (2 * config.quartic)) ** 0.5
    bottom = torch.tensor([[place]], dtype=torch.float64)
    depth = well.energy(0 * bottom) - well.energy(bottom)
    save_tensors(folder / "depth.safetensors", {"depth": depth}, {"kind": "Depth"})
    return {"depth": float(depth), "seed": config.seed}
'''
CALL = """
import sys
import sdegen.app.commands, sdegen.app.configs
sdegen.app.configs.__path__.append("configs")
sdegen.app.commands.__path__.append("commands")
from sdegen.app.cli import main
sys.exit(main())
"""


def test_a_command_of_ones_own_is_two_files(programs, tmp_path):
    for folder, text in (("configs", CONFIG), ("commands", COMMAND)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "well_depth.py").write_text(text)

    def call(*words):
        program = programs.start(*words, code=CALL, folder=tmp_path)
        return program.communicate(), program.returncode

    (overview, _), _ = call("--help")
    assert "  well-depth     Measure how deep a double well is.\n" in overview
    assert overview.index("\n  demo ") < overview.index("well-depth") < overview.index("\n  run ")
    (asked, _), _ = call("well-depth", "--help")
    assert "--quartic FLOAT" in asked
    (_, told), status = call("well-depth", "--quartic", "0.5", "--out", "first")
    assert status == 0, told
    # U(0) − U(x₀) = quadratic²/(4 quartic)
    numbers = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert numbers["depth"] == 0.125
    (_, told), status = call("run", "first/config.toml", "--out", "again")
    assert status == 0, told
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["seed"] == numbers["seed"]
    (_, told), status = call("well-depth", "--seed", "-1")
    assert status == 2
    assert told == "sdegen well-depth: seed must lie in [0, 2**63), but is -1.\n"
    (_, told), _ = call("well-dept")
    assert "did you mean well-depth?" in told
