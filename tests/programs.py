"""Programs in processes of their own, forked from one that has imported what they need.

An interpreter takes two seconds to import torch, and a program often less to run. `Programs`
starts one, which imports torch, the whole package and matplotlib with all warnings as errors, and
forks a child for each program: with arguments, a folder, an environment and output of its own, and
every module as it was after the import. What a program changes, no other program sees.

What must be there before torch is, such as an environment that torch reads as it is loaded, needs
an interpreter of its own, and so does torchrun.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from waiting import HANG

SERVER = r"""
import atexit, importlib.util, json, os, runpy, sys, threading, types, warnings
for name in ("sklearn", "zarr", "xarray"):
    if importlib.util.find_spec(name):
        importlib.import_module({"sklearn": "sklearn.datasets"}.get(name, name))
import torch
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # which imports torch's compiler
warnings.simplefilter("error")
# torch's arrays do not know numpy's copy= yet, and matplotlib asks for it
warnings.filterwarnings("ignore", category=DeprecationWarning, module="matplotlib.cbook")
strict = warnings.filters[:2]
import torch.distributed, matplotlib.pyplot, scipy.stats, sdegen

def next_program():
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            return request
        print(child, flush=True)
    os._exit(0)

given = next_program()
for name, number in (("/dev/null", 0), (given["out"], 1), (given["err"], 2)):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
os.chdir(given["folder"])
os.environ.update(given["environment"])
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
if not given["strict"]:
    for one in strict:
        warnings.filters.remove(one)
sys.argv = [given["name"], *given["arguments"]]
sys.path.insert(0, os.path.dirname(os.path.abspath(given["name"])) if given["file"] else "")
status = 0
try:
    if given["module"]:
        runpy.run_module(given["name"], run_name="__main__", alter_sys=True)
    elif given["file"]:
        runpy.run_path(given["name"], run_name="__main__")
    else:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(given["code"], "<string>", "exec"), vars(main))
except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(end.code is not None)
    if status and not isinstance(end.code, int):
        print(end.code, file=sys.stderr)
except BaseException as error:
    sys.excepthook(type(error), error, error.__traceback__)
    status = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush(), sys.stderr.flush()
os._exit(status)  # to take all modules apart would take a second
"""


class Programs:
    """The process that has imported everything, and forks."""

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {
                "EAGER_IMPORT": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg",
                "PYTHONPATH": str(Path(__file__).parent.parent),
                # workers for many compilations at once would import torch, each for itself
                "TORCHINDUCTOR_COMPILE_THREADS": "1",
            },
        )  # fmt: skip
        self._written = tempfile.TemporaryDirectory()
        self._numbers = itertools.count()

    def asked(self, **request):
        """The number that answers a request."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def start(
        self,
        *arguments,
        code=None,
        file=None,
        module=None,
        folder=".",
        strict=False,
        **environment,
    ):
        """A program of that code, file or module.

        Args:
            arguments: Words of its command line.
            code: Its text.
            file: Or the file that holds it.
            module: Or the name of a module, as after python -m.
            folder: Where it runs.
            strict: Whether warnings are errors.
            environment: What is set beside the environment of the tests.
        """
        written = Path(self._written.name, str(next(self._numbers)))
        return Program(
            self, written,
            self.asked(
                code=code, file=file is not None, module=module is not None,
                name=str(file or module or "-c"), arguments=list(map(str, arguments)),
                folder=str(Path(folder).resolve()), environment=environment, strict=strict,
                out=f"{written}.out", err=f"{written}.err",
            ),
        )  # fmt: skip

    def ranks(self, count, *arguments, **given):
        """So many programs of one kind, each with what torchrun says to its rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        said |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        return [
            self.start(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), **said, **given)
            for rank in range(count)
        ]

    def run(self, *arguments, **given):
        """What a program has printed that ends without an error."""
        program = self.start(*arguments, **given)
        out, err = program.communicate()
        assert program.returncode == 0, err
        return out

    def close(self):
        """Lets it end."""
        self._server.stdin.close()
        self._server.wait(HANG)
        self._server.stdout.close()
        self._written.cleanup()


class Program:
    """A forked program, to be asked as a `subprocess.Popen` is."""

    def __init__(self, programs, written, pid):
        self._programs, self._written, self.pid, self.returncode = programs, written, pid, None

    def poll(self):
        """Its exit status, or None while it runs."""
        if self.returncode is None:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                self.returncode = self._programs.asked(wait=self.pid)
        return self.returncode

    def send_signal(self, kind):
        """Sends a signal to it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, kind)

    def kill(self):
        """Ends it, with kill −9."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=HANG):
        """Waits until it has ended; what it has printed, and its errors."""
        begun = time.monotonic()
        while self.poll() is None:
            assert time.monotonic() - begun < timeout, "it hangs"
            time.sleep(0.003)
        return self.written("out"), self.written("err")

    def written(self, kind="out"):
        """What it has printed so far."""
        path = self._written.with_suffix(f".{kind}")
        return path.read_text(encoding="utf-8") if path.exists() else ""
