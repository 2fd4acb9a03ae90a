"""Options of the suite: --device, --dtype. Shapes and types are checked in the whole package."""

import signal

import jaxtyping
import pytest
import torch
from shape_checker import install

install()

# a shell that starts the suite in the background ignores Ctrl-C for it, and for what it starts:
# tests press it, and their processes inherit that it is heard
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--device", default="cpu", help="device that the states of the tests live on: cpu, cuda"
    )
    parser.addoption(
        "--dtype",
        default="float64",
        choices=["float32", "float64"],
        help="dtype of the states of the tests",
    )


@pytest.fixture
def device(request):
    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(name)


@pytest.fixture
def dtype(request):
    return getattr(torch, request.config.getoption("--dtype"))


# Most tests take steps that are long on purpose: laws of chains, orders and their constants, or
# what no step matters to. That such steps are warned of is the matter of these alone; examples
# run with all warnings as errors in processes of their own.
STRICT = ("test_pilot", "test_brownian", "test_main", "test_physics")


def pytest_collection_modifyitems(items):
    quiet = pytest.mark.filterwarnings(
        "ignore:(steps of|.* seems to explode):sdegen.AccuracyWarning"
    )
    for item in items:
        if item.path.stem not in STRICT:
            item.add_marker(quiet)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))


@pytest.fixture
def as_user():
    """Switches the run-time checks off, so that bad arguments meet our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 1024 numbers, so that a few thousand trajectories are many blocks."""
    monkeypatch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 1024})


@pytest.fixture(scope="session")
def programs():
    """What starts programs in processes of their own, without the seconds that imports take."""
    from programs import Programs

    started = Programs()
    yield started
    started.close()
