"""Kernels for the pages, forked from one process that has imported what they need.

A page's kernel would import torch and this package for four seconds, mostly to run for one. Here
one process imports them, and forks a kernel for each page: with a folder, an environment and a
namespace of its own. What a page changes, no other page sees.

    python kernels.py serve SOCKET          the process that forks, until its input ends
    python kernels.py start SOCKET FILE     what Jupyter starts, as long as a kernel lives
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve()


def serve(path: str) -> None:
    """Import what pages need, then fork a kernel for each request."""
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from ipykernel.kernelapp import IPKernelApp

    import sdegen

    for name in sdegen.__all__:
        getattr(sdegen, name)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # which imports torch's compiler
    threading.Thread(target=_end_with_input, args=(path,), daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel
    door = socket.socket(socket.AF_UNIX)
    door.bind(path + ".new")
    door.listen()
    os.rename(path + ".new", path)  # it is there once it listens
    while True:
        line, _ = door.accept()
        if os.fork() == 0:
            break
        line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(line.makefile().readline())
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    threading.Thread(target=_end_with_line, args=(line,), daemon=True).start()
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # with which the kernel ends
    IPKernelApp.launch_instance(argv=[*request["argv"], parent])


def _end_with_input(path: str) -> None:
    sys.stdin.read()
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    os._exit(0)


def _end_with_line(line: socket.socket) -> None:
    line.recv(1)
    os._exit(1)


def start(path: str, file: str, *options: str) -> None:
    """Ask for a kernel, and stay until it has ended."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        argv = ["-f", file, *options, "--IPKernelApp.log_level=40"]
        request = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        line.sendall(json.dumps(request).encode() + b"\n")
        line.recv(1)


def prepare(build: Path) -> subprocess.Popen[bytes]:
    """Start the process that forks, and let Jupyter use it for the kernel "python3".

    Args:
        build: Folder for the description of the kernel, and for what a kernel does as it starts.
    """
    folder = build / "jupyter" / "kernels" / "python3"
    shutil.rmtree(build / "jupyter", ignore_errors=True)
    folder.mkdir(parents=True)
    path = os.path.join(tempfile.mkdtemp(prefix="sdegen-pages-"), "door")
    argv = [sys.executable, "-I", "-S", str(HERE), "start", path, "{connection_file}"]
    kernel = {
        "argv": argv, "display_name": "Python 3", "language": "python",
        "interrupt_mode": "message",
    }  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(kernel))
    startup = build / "jupyter" / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(HERE.with_name("page_startup.py"), startup / "00-pages.py")
    os.environ["JUPYTER_PATH"] = str(folder.parents[1])
    os.environ["IPYTHONDIR"] = str(startup.parents[1])
    command = [sys.executable, str(HERE), "serve", path]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    while not os.path.exists(path):
        if server.poll() is not None:
            raise RuntimeError("the process that forks kernels for the pages has ended")
        threading.Event().wait(0.05)
    return server


if __name__ == "__main__":
    {"serve": serve, "start": start}[sys.argv[1]](*sys.argv[2:])
