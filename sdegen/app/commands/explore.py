"""sdegen explore: an SDE on a live page of this machine."""

import dataclasses
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sdegen.app.configs.explore import ExploreConfig
from sdegen.app.explore.server import HOST, begin
from sdegen.core.optional import needed

_PIPES: dict[int, Connection] = {}  # of servers that have begun, by their port


def resolved(config: ExploreConfig) -> ExploreConfig:
    """Return the config with the port of the page, whose server loads while torch does."""
    needed("bokeh", "sdegen explore", extra="explore")
    first = {name: getattr(config, name) for name in ("mean", "std", "dt", "level")}
    port, pipe = begin(config.port, browser=not config.no_browser, first=first)
    _PIPES[port] = pipe
    sys.stdout.write(f"sdegen explore: http://{HOST}:{port}/ (Ctrl-C ends it)\n")
    sys.stdout.flush()
    return dataclasses.replace(config, port=port)


def run(config: ExploreConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Answer the page until Ctrl-C.

    Returns:
        How many programs were saved.
    """
    from sdegen.app.explore.desk import Desk, serve

    assert config.port is not None
    desk = Desk(config, folder)
    with _PIPES.pop(config.port) as pipe:
        serve(desk, pipe)
    return {"programs": desk.saved}
