"""Page: the sliders of one browser tab, its clock, and what the desk answers.

The clock asks for the next frame when the browser has drawn the last one: a small script counts
the frames that were drawn, in `document.body.dataset.frames`, and reports each. So a slow browser
shows fewer frames and never falls behind. Of a slider that is dragged the last place is run.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bokeh.events import ButtonClick, DocumentReady
from bokeh.layouts import column, row
from bokeh.models import Button, CustomJS, Div, InlineStyleSheet, Select, Slider

from sdegen.app.explore.figures import Beside, Drawn, Line, Plane
from sdegen.app.explore.server import Line as Pipe
from sdegen.app.explore.server import Refusal
from sdegen.app.explore.words import lines_beside, reading_table

_TICK = 0.05  # seconds from one frame to the next, at most 20 a second
_BESIDE = 5  # frames from one drawing of what stands beside to the next
_READ = 4  # frames from one writing of the numbers to the next
_SPEEDS = {"¼": 0.25, "½": 0.5, "1": 1.0, "2": 2.0, "4": 4.0}
_DRAWN = """
const n = source.tags[0];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const body = document.body.dataset;
  body.frames = String(Number(body.frames || 0) + 1);
  drawn.end = n + 1;
  drawn.value = n;
}));
"""
_SAVE = """
if (program.text) {
  const place = document.createElement("a");
  place.href = URL.createObjectURL(new Blob([program.text], {type: "text/x-python"}));
  place.download = program.name;
  place.click();
}
"""
_STYLE = InlineStyleSheet(
    css=":host { font-family: system-ui, sans-serif; font-size: 13px; color: #222 }"
    " table { border-collapse: collapse } td, th { padding: 1px 10px 1px 0; text-align: left;"
    " font-weight: normal } th { color: #666 } .bad { color: #B03A00 } .dim { color: #666 }"
)


def open_page(line: Pipe, first: dict[str, Any], doc: Drawn) -> None:
    """Fill the document of a tab that was opened."""
    Page(line, first, doc)


class Page:
    """One tab.

    Args:
        line: To the desk.
        first: Where the sliders of start, step and level stand at first.
        doc: The tab's document.
    """

    def __init__(self, line: Pipe, first: dict[str, Any], doc: Drawn) -> None:
        self._line, self._first, self._doc = line, first, doc
        self._name = doc.session_context.id
        self._wanted: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: dict[str, Any] = {}
        self._found: dict[str, Any] = {}
        self._frame = self._shown = self._sent = self._seen = 0
        self._ready = False
        self._sliders: dict[str, Slider] = {}
        self._run_of = 0  # counts runs
        doc.title = "sdegen explore"
        self._head = Div(text="sdegen explore: torch is being loaded …", stylesheets=[_STYLE])
        self._drawn = Slider(start=0, end=1, value=0, visible=False)
        self._drawn.on_change("value", self._was_drawn)
        doc.add_root(self._head)
        doc.on_event(DocumentReady, self._is_ready)
        doc.on_session_destroyed(self._is_gone)
        self._begun = asyncio.ensure_future(self._begin())

    # ---- beginning and end ---------------------------------------------------------------------

    async def _begin(self) -> None:
        """Lay the page out once the desk has answered, and play."""
        try:
            described = await self._line.ask("describe")
            self._make_sliders(described)
            started = await self._line.ask("start", self._name, self._setting())
        except Refusal as reason:
            await self._change(partial(self._refuse_all, str(reason)))
            return
        self._started = started
        await self._change(partial(self._lay_out, described))
        self._task = asyncio.ensure_future(self._play())
        await self._ask_beside()

    def _refuse_all(self, reason: str) -> None:
        """Say why there is nothing to show."""
        self._head.text = f"<b>sdegen explore</b><p class=bad>{html.escape(reason)}</p>"

    def _is_ready(self, event: object) -> None:
        """Draw the frame once more: the browser is there to count it."""
        self._ready = True
        if self._started:
            self._show(self._started["picture"])

    def _is_gone(self, context: object) -> None:
        """Forget the tab."""
        for task in (self._task, self._begun):
            if task is not None:
                task.cancel()
        self._closing = asyncio.ensure_future(self._line.ask("close", self._name))

    async def _change(self, change: Callable[[], None]) -> None:
        """Change the document when no message of the browser is being worked on."""
        done = asyncio.get_running_loop().create_future()

        def locked() -> None:
            self._doc.hold()  # one message, and one drawing
            try:
                change()
                self._doc.unhold()
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._doc.add_next_tick_callback(locked)
        await done

    # ---- layout --------------------------------------------------------------------------------

    def _make_sliders(self, described: dict[str, Any]) -> None:
        """Make the sliders of the parameters, the start, the step and the level."""
        own = [(name, *rest) for name, *rest in described["sliders"]]
        self._parameters = [name for name, *_ in own]
        first = self._first
        span = max(3.0, 3 * abs(first["mean"]), 3 * abs(first["level"]))
        widest = max(1.0, 3 * first["std"])
        shared = [
            ("mean ", "start: mean", first["mean"], -span, span, 0.05),
            ("std ", "start: standard deviation", first["std"], 0.0, widest, 0.02),
            ("level ", "level of the first passage", first["level"], -span, span, 0.05),
        ]  # fmt: skip
        for name, label, value, low, high, step in [*own, *shared]:
            made = Slider(
                title=label, value=value, start=low, end=high, step=step, width=235,
                format="0.[0000]", margin=(2, 5, 2, 5), name=name.strip(),
            )  # fmt: skip
            made.on_change("value", self._was_moved)
            self._sliders[name] = made
        steps = sorted({*(m * 10.0**-k for k in range(5) for m in (1, 2, 5)), first["dt"]})
        self._dt = Select(
            title="step dt (units of time)", width=110, value=f"{first['dt']:g}", name="dt",
            options=[f"{dt:g}" for dt in steps if 1e-4 <= dt <= 1 or dt == first["dt"]],
        )  # fmt: skip
        self._dt.on_change("value", self._was_moved)

    def _setting(self) -> dict[str, Any]:
        """Return what the sliders say."""
        values = {name: float(slider.value) for name, slider in self._sliders.items()}
        return {
            "parameters": {name: values[name] for name in self._parameters},
            "mean": values["mean "], "std": values["std "], "level": values["level "],
            "dt": float(self._dt.value),
        }  # fmt: skip

    def _lay_out(self, described: dict[str, Any]) -> None:
        """Put the page together."""
        started = self._started
        on_line = started["event"] == (1,)
        self._figures: Line | Plane = Line(started) if on_line else Plane(started)
        self._figures.mark(self._first["level"])
        self._beside = Beside()
        self._readings = Div(width=640, stylesheets=[_STYLE])
        self._told = Div(width=640, stylesheets=[_STYLE], name="told")
        self._exact = Div(width=350, stylesheets=[_STYLE], text="")
        self._playing = Button(label="❚❚ pause", width=80, button_type="primary", name="play")
        self._reset = Button(label="↺ reset", width=75, name="reset")
        self._speed = Select(
            title="speed", options=list(_SPEEDS), value="1", width=60, name="speed"
        )
        self._save = Button(label="save as program", width=235, name="save")
        self._program = Div(visible=False, text="", name="explored.py")
        self._program.js_on_change("text", CustomJS(args={"program": self._program}, code=_SAVE))
        self._playing.on_event(ButtonClick, self._toggle)
        self._reset.on_event(ButtonClick, self._restart)
        self._save.on_event(ButtonClick, self._save_program)
        self._source = self._figures.particles
        self._source.js_on_change(
            "data", CustomJS(args={"source": self._source, "drawn": self._drawn}, code=_DRAWN)
        )
        title, note = html.escape(described["title"]), html.escape(described["note"])
        self._head.text = (
            f"<b style='font-size:16px'>{title}</b> &nbsp; <span class=dim>sdegen explore · "
            f"{len(started['picture']['states']):,} particles by {started['solver']}</span>"
        )
        sliders = list(self._sliders.values())
        if not on_line:
            sliders = sliders[:-1]  # a level is of a line
        left = [*sliders, row(self._dt, self._speed), row(self._playing, self._reset), self._save]
        if note:
            left.append(
                Div(text=f"<span class=dim>{note}</span>", width=235, stylesheets=[_STYLE])
            )
        if started["picture"]["states"].shape[1] > 2:
            left.insert(0, self._choice(started))
        middle = [*self._figures.roots, self._readings, self._told]
        right = [*self._beside.roots, self._exact] if on_line else []
        body = row(column(*left, width=250), column(*middle), column(*right), name="page")
        self._doc.add_root(body)
        self._doc.add_root(row(self._drawn, self._program, visible=False))
        self._show_start()

    def _choice(self, started: dict[str, Any]) -> Drawn:
        """Return what chooses the two coordinates that are drawn."""
        count = int(started["picture"]["states"].shape[1])
        names = [f"x{j + 1}" for j in range(count)]
        across = Select(title="across", options=names, value="x1", width=80)
        up = Select(title="up", options=names, value="x2", width=80)

        def choose(attribute: str, old: str, new: str) -> None:
            assert isinstance(self._figures, Plane)
            self._figures.choose((names.index(across.value), names.index(up.value)))
            self._figures.show(self._started["picture"])

        across.on_change("value", choose)
        up.on_change("value", choose)
        return row(across, up)

    # ---- runs ----------------------------------------------------------------------------------

    def _was_moved(self, attribute: str, old: object, new: object) -> None:
        """Run what the sliders say, the last of what they said while the desk was busy."""
        busy = self._wanted is not None
        self._wanted = self._setting()
        if not busy:
            self._moving = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        """Start runs until the sliders rest."""
        while self._wanted is not None:
            setting = self._wanted
            try:
                started = await self._line.ask("start", self._name, setting)
            except Refusal as reason:
                await self._change(partial(self._tell, str(reason), "bad"))
            else:
                self._started, self._frame = started, 0
                self._run_of += 1
                await self._change(partial(self._show_run, setting))
            if self._wanted is setting:
                self._wanted = None
        await self._ask_beside()

    def _show_run(self, setting: dict[str, Any]) -> None:
        """Show a new run from its first frame."""
        self._figures.start(self._started)
        self._figures.mark(setting["level"])
        self._show_start()

    def _show_start(self) -> None:
        """Empty what stands beside, and show the first frame and what was warned of."""
        self._found = {}
        self._beside.start(self._started)
        self._exact.text = "<span class=dim>asking …</span>"
        self._tell(" ".join(self._started["notes"]), "bad")
        self._show(self._started["picture"])

    async def _ask_beside(self) -> None:
        """Ask for the exact numbers, and show them if no other run has begun meanwhile."""
        run = self._run_of
        try:
            found = await self._line.ask("ask", self._name)
        except Refusal:  # the run that was asked about is gone
            return
        if run == self._run_of and self._wanted is None:
            await self._change(partial(self._show_beside, found))

    def _show_beside(self, found: dict[str, Any]) -> None:
        """Show the exact numbers."""
        self._found = found
        readings = self._started["picture"]["readings"]
        self._readings.text = reading_table(readings, found)
        self._beside.answer(found, self._started["times"])
        if "rest" in found and isinstance(self._figures, Line):
            self._figures.at_rest(found["rest"])
        self._exact.text = lines_beside(found)

    # ---- time ----------------------------------------------------------------------------------

    def _was_drawn(self, attribute: str, old: int, new: int) -> None:
        """Note that the browser has drawn a frame."""
        self._seen = max(self._seen, int(new))

    def _toggle(self, event: object) -> None:
        """Play or pause; at the end, begin again."""
        if self._is_paused and self._frame >= self._started["frames"]:
            self._restart(event)
        self._pause(not self._is_paused)

    @property
    def _is_paused(self) -> bool:
        """Whether time stands still."""
        return "play" in str(self._playing.label)

    def _pause(self, pause: bool) -> None:
        """Let time stand still, or go on."""
        self._playing.label = "▶ play" if pause else "❚❚ pause"
        if pause and self._started:
            readings = self._started["picture"]["readings"]
            self._readings.text = reading_table(readings, self._found)

    def _restart(self, event: object) -> None:
        """Run the same setting from its start."""
        self._was_moved("value", None, None)

    async def _play(self) -> None:
        """Show frame after frame, as fast as the browser draws them, and no faster than said."""
        while True:
            began = time.monotonic()
            waits = self._is_paused or not self._ready or self._sent > self._seen
            if not waits and self._wanted is None:
                await self._next()
            speed = _SPEEDS[self._speed.value]
            pace = _TICK if waits else _TICK / min(1.0, speed)
            left = 0.01 if self._sent > self._seen else pace - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, min(left, pace)))

    async def _next(self) -> None:
        """Show the next frame; at the last one, stop."""
        if self._frame >= self._started["frames"]:
            await self._change(partial(self._pause, True))
            return
        run = self._run_of
        stride = max(1, int(_SPEEDS[self._speed.value]))
        picture = await self._line.ask("frame", self._name, self._frame + stride)
        if run == self._run_of and self._wanted is None:
            self._frame = picture["frame"]
            self._started["picture"] = picture
            await self._change(partial(self._show, picture))

    def _show(self, picture: dict[str, Any]) -> None:
        """Draw a frame, write its numbers, and have the browser report that it was drawn."""
        readings, frame = picture["readings"], picture["frame"]
        self._sent += 1
        self._source.tags = [self._sent]
        self._figures.show(picture)
        self._beside.add(readings)
        last = frame == self._started["frames"]
        if frame // _BESIDE != self._shown // _BESIDE or last:
            self._beside.draw()
        if frame // _READ != self._shown // _READ or last or self._is_paused or not frame:
            self._readings.text = reading_table(readings, self._found)
        self._shown = frame
        if readings["lost"]:
            self._tell(
                f"{readings['lost']:,.0f} particles are no longer finite at t = "
                f"{readings['t']:g}: the step is too long for them; choose a smaller dt.",
                "bad",
            )

    def _tell(self, text: str, kind: str) -> None:
        """Say something below the figures."""
        self._told.text = f"<span class={kind}>{html.escape(text)}</span>" if text else ""

    # ---- program -------------------------------------------------------------------------------

    def _save_program(self, event: object) -> None:
        """Have the browser download the program of what is seen."""
        self._pause(True)
        self._saving = asyncio.ensure_future(self._fetch_program())

    async def _fetch_program(self) -> None:
        """Ask for the program, and hand it over."""
        try:
            name, text = await self._line.ask("program", self._name)
        except Refusal as reason:
            await self._change(partial(self._tell, str(reason), "bad"))
            return

        def hand_over() -> None:
            self._program.name = name
            self._program.text = text
            self._tell(f"saved as {name}: it prints the numbers of this frame.", "dim")

        await self._change(hand_over)
