"""TrainConfig: what it refuses, and what it does not import."""

import dataclasses
import subprocess
import sys

import pytest
from waiting import HANG

import sdegen as sg


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be ≥ 1, but is 0"),
        ({"batch_size": -3}, "batch_size must be ≥ 1, but is -3"),
        ({"validate_every": 0}, "validate_every must be ≥ 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be ≥ 1"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0, but is 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and > 0, but is nan"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be finite and > 0, but is -1"),
        ({"warmup": -1}, "warmup must be ≥ 0, but is -1"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite and ≥ 0, but is inf"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), but is 1"),
        (
            {"weighting": "snr"},
            "'min-snr' or 'flow-matching' or 'edm', but is 'snr'",
        ),
        ({"keep": "first"}, "keep must be 'last' or 'best', but is 'first'"),
    ],
)
def test_wrong_values_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        sg.TrainConfig(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 1.5}, "steps must be an int, but is float"),
        ({"steps": True}, "steps must be an int, but is bool"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, but is 'fast'"),
        ({"step": 10}, "unexpected keyword argument 'step'"),
    ],
)
def test_wrong_kinds_are_refused_by_name(given, message):
    with pytest.raises(TypeError, match=message):
        sg.TrainConfig(**given)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        sg.TrainConfig().steps = 3


def test_it_imports_no_torch():
    code = "import sys, sdegen.score.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=HANG).returncode == 0
