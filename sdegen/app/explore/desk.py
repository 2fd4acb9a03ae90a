"""Desk: answers the requests of the page's server, of one SDE and any number of open pages.

    describe()                 what the page is headed with, and its sliders
    start(page, setting)       runs a setting, and returns its first frame
    ask(page)                  the questions beside it
    frame(page, frame)         goes on to a frame
    program(page)              the Python of what is seen
    close(page)                a page is gone

What goes wrong at a setting is an answer too, with the words that the page shows.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sdegen.app.configs.explore import ExploreConfig
from sdegen.app.explore.family import family_of
from sdegen.app.explore.program import program_of
from sdegen.app.explore.questions import answers
from sdegen.app.explore.run import Run, Setting


class Desk:
    """The SDE, and the run of each page.

    Args:
        config: What the command was asked.
        folder: Where programs are kept.
    """

    def __init__(self, config: ExploreConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._family = family_of(config.sde)
        self._runs: dict[str, Run] = {}
        self.saved: int = 0

    def describe(self) -> dict[str, Any]:
        """Return the title and the sliders, as plain numbers and words."""
        return {
            "title": self._family.title,
            "note": self._family.note,
            "sliders": [
                (s.name, s.label, s.value, s.low, s.high, s.step) for s in self._family.sliders
            ],
        }

    def start(self, page: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Run a setting; the page's earlier run stays where it is refused."""
        config = self._config
        ends = None if config.low is None or config.high is None else (config.low, config.high)
        run = Run(
            self._family,
            Setting(
                particles=config.particles, steps=config.steps, seed=config.seed,
                solver=config.solver, ends=ends, **asked,
            ),
        )  # fmt: skip
        self._runs[page] = run
        shown = {
            "event": run.event,
            "phase space": run.sde.phase_space,
            "frames": run.setting.frames,
            "end": float(run.times[-1]),
            "times": run.times[:: run.setting.stride].numpy(),
            "notes": run.notes,
            "solver": type(run.solver).__name__,
        }
        if run.on_line:
            shown |= {"x": run.grid.nodes.numpy(), "view": (run.low, run.high)}
        return shown | {"picture": run.picture()}

    def ask(self, page: str) -> dict[str, Any]:
        """Return the exact numbers beside a run."""
        return answers(self._runs[page])

    def frame(self, page: str, frame: int) -> dict[str, Any]:
        """Return the picture of a frame; a run does not go back."""
        self._runs[page].advance(frame)
        return self._runs[page].picture()

    def program(self, page: str) -> tuple[str, str]:
        """Return the name and the text of a program, and keep it in the folder of the run."""
        text = program_of(self._family, self._runs[page])
        self.saved += 1
        name = f"explored_{self.saved}.py"
        (self._folder / name).write_text(text)
        return name, text

    def close(self, page: str) -> None:
        """Forget a page."""
        self._runs.pop(page, None)


def serve(desk: Desk, pipe: Connection) -> None:
    """Answer requests until the server ends."""
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer = (True, getattr(desk, name)(*arguments))
        except Exception as error:  # also what the user's own code raises at some setting
            reason = " ".join(str(error).split()) or type(error).__name__
            answer = (False, reason)
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
