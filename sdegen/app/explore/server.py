"""Server: the process that serves the page, and its end of the pipe to the desk.

It listens on 127.0.0.1 alone, and answers nobody else: the browser gets all of bokeh's scripts
from here, and asks for nothing in any network. The socket is bound by the process that starts it,
so that the address is known, and the browser may come, before this one has loaded bokeh.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import threading
import webbrowser
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

HOST = "127.0.0.1"
_KEEP_ALIVE = 10_000  # milliseconds
_FORGOTTEN = 15_000  # milliseconds without a browser, after which a page is closed


Answer = Any  # plain numbers and arrays, each request its own


class Refusal(Exception):
    """The desk's reason why a request has no answer."""


class Line:
    """The pipe to the desk: one request at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._free = pipe, asyncio.Lock()

    async def ask(self, name: str, *arguments: object) -> Answer:
        """Return the desk's answer.

        Raises:
            Refusal: With the desk's reason.
        """
        async with self._free:
            try:
                self._pipe.send((name, arguments))
                loop = asyncio.get_running_loop()
                done, answer = await loop.run_in_executor(None, self._pipe.recv)
            except (EOFError, OSError):
                raise asyncio.CancelledError from None  # the desk has ended, and so does this
        if not done:
            raise Refusal(answer)
        return answer


def begin(port: int | None, *, browser: bool, first: dict[str, Any]) -> tuple[int, Connection]:
    """Start the server, and return its port and the pipe on which it asks.

    Args:
        port: None takes a free one.
        browser: Whether the page is opened.
        first: Where the sliders of start, step and level stand at first.

    Raises:
        ValueError: If the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port or 0))
    except OSError as error:
        listening.close()
        raise ValueError(f"port {port} cannot be had ({error.strerror}); pass another.") from None
    listening.listen(64)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(listening, theirs, browser, first), daemon=True)
    process.start()
    theirs.close()
    taken: int = listening.getsockname()[1]
    listening.close()
    return taken, ours


def _serve(
    listening: socket.socket, pipe: Connection, browser: bool, first: dict[str, Any]
) -> None:
    """Serve the page until the desk is gone."""
    os.environ.pop("BOKEH_RESOURCES", None)  # which may name a network
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the desk's, whose end ends this
    port = listening.getsockname()[1]
    if browser:
        url = f"http://{HOST}:{port}/"
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    asyncio.run(_listen(listening, pipe, port, first))


async def _listen(
    listening: socket.socket, pipe: Connection, port: int, first: dict[str, Any]
) -> None:
    """Serve the page on a socket that is bound."""
    from bokeh.application.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import BaseServer
    from bokeh.server.tornado import BokehTornado
    from tornado.httpserver import HTTPServer
    from tornado.ioloop import IOLoop

    from sdegen.app.explore.page import open_page

    line = Line(pipe)
    application = Application(FunctionHandler(partial(open_page, line, first)))

    class Small(BokehTornado):  # type: ignore[misc]  # bokeh has no types here
        """Serves what the page uses of bokeh's scripts alone: no tables, no mathematics."""

        def resources(self, *arguments: object, **options: object) -> object:
            found = super().resources(*arguments, **options)
            found.components = ["bokeh", "bokeh-widgets"]
            return found

    tornado = Small(
        {"/": application},
        extra_websocket_origins=[f"{HOST}:{port}", f"localhost:{port}"],
        keep_alive_milliseconds=_KEEP_ALIVE,
        unused_session_lifetime_milliseconds=_FORGOTTEN,
        check_unused_sessions_milliseconds=_FORGOTTEN,
        log_stats_frequency_milliseconds=0,
        mem_log_frequency_milliseconds=0,
    )
    listening.setblocking(False)
    http = HTTPServer(tornado)
    http.add_sockets([listening])
    server = BaseServer(IOLoop.current(), tornado, http)
    server.start()
    while multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]
        await asyncio.sleep(0.5)
    http.stop()
