"""Execution: from a config to a run folder, and from whatever happens to an exit status.

First everything is resolved (a seed, the number of threads, absolute paths) and written to
config.toml with the sha256 of every file that is read and the versions of the packages. Only then
the command works.

    0    done
    1    a numerical failure, or a disk that is full, in one line; an error of the user's own code,
         with its traceback
    2    a bad request, in one line; the folder is taken away again
    130  Ctrl-C: what is done is in the folder
"""

import dataclasses
import importlib
import json
import os
import platform
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from sdegen.app.config_file import ConfigFile, read_config, sha256_of, to_toml
from sdegen.app.configs.base import Config
from sdegen.app.configs.commands import COMMANDS
from sdegen.app.configs.output import Output
from sdegen.app.runs import CONFIG, make_folder, remove_if_unused, write_metrics
from sdegen.app.user_code import is_reference, loaded_files, source_file
from sdegen.core.errors import RankError, SdegenError

_PACKAGES = ("sdegen", "torch", "numpy", "scipy", "torchsde", "torchdiffeq")
_FEW = 4
_REFUSALS = (ValueError, TypeError, MemoryError, ImportError, FileNotFoundError)
# what messages of the library ask for, in the words of the command line
_FLAGS = {
    r"resume=True": "--resume",
    r"keep_path=False": "--last-only",
    r"EulerMaruyama\(substeps=…\)": "--solver euler-maruyama",
    r"Heun\(substeps=…\)": "--solver heun",
    r"\bMilstein\(\)": "--solver milstein",
    r"substeps=…": "--substeps",
    r"(?<!\()\bsubsteps=(\d+)": r"--substeps \1",  # not that of an object
    r"on_nonfinite='freeze'": "--on-nonfinite freeze",
    r"interacting=True": "--interacting True",
    r"\blayout=('[^']*')": r"--layout \1",
    r"pass dt=, the time from one frame to the next, or times=": (
        "pass --dt, the step of the solver, or --times, the name of their array"
    ),
    r"float64 states, x0\.double\(\),": "--dtype float64,",
}
_MAY_NAME_A_FILE = (
    *("sde", "diffusion", "boundary", "potential", "density"),
    *("data", "model", "states"),
)


def execute(
    command: str,
    config: Config,
    output: Output,
    *,
    recorded: ConfigFile | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command in a folder of its own.

    Args:
        command: The verb; `sdegen.app.commands` has a module of that name.
        config: Its config.
        output: Where the results go.
        recorded: The config.toml that is repeated or gone on with; the files it read must still be
            the same.
        folder: The folder to go on in; None makes one.

    Returns:
        The exit status.
    """
    started, resuming = time.perf_counter(), folder is not None
    try:
        work = importlib.import_module(f"sdegen.app.commands.{command.replace('-', '_')}")
        config = work.resolved(_resolved(config))
        if int(os.environ.get("RANK", "0")) > 0:
            return _run_worker(command, work, config)
        inputs = _inputs(config)
        if recorded is not None:
            _check_recorded(command, recorded, inputs)
        if folder is None and _continues_there(command, config, output):
            folder, resuming = Path(str(output.out)), True
        if folder is None:
            folder = make_folder(command, output.out, output.overwrite)
    except Exception as error:
        return _print_failure(command, error)
    metrics: dict[str, Any] = {"command": command, "status": "complete"}
    status, earlier = 0, (folder / CONFIG).read_bytes() if resuming else b""
    from sdegen.storage import atomic_write

    try:
        toml = to_toml(ConfigFile(command, config, inputs, _versions()))
        atomic_write(folder / CONFIG, toml.encode())
        with _machine(config), _notes(command):
            metrics |= work.run(config, folder, sys.stderr.isatty())
    except KeyboardInterrupt:
        if not resuming and remove_if_unused(folder):
            raise
        store = getattr(config, "store", None)
        also = "" if store is None else f", and in {store}: --resume goes on with that"
        print_message(command, f"interrupted; what is done is in {folder}{also}.")
        metrics["status"], status = "interrupted", 130
    except Exception as error:
        status = _print_failure(command, error)
        refused = status == 2 or isinstance(error, OSError)
        if refused and resuming:
            with suppress(OSError):
                atomic_write(folder / CONFIG, earlier)
        gone = refused and not resuming and remove_if_unused(folder)
        if status == 2 or gone:
            return status
        metrics |= {"status": "failed", "error": _in_flags(str(error))}
    metrics["seconds"] = round(time.perf_counter() - started, 3)
    try:
        write_metrics(folder, metrics)
    except OSError as error:
        status = status or _print_failure(command, error)  # a full disk has been told of
    report = folder / "report.html"
    sys.stdout.write(_lines(metrics) + f"{report if report.exists() else folder}\n")
    return status


def _run_worker(command: str, work: ModuleType, config: Config) -> int:
    """Compute the share of a process that torchrun started beside the first; write no folder."""
    if not hasattr(work, "run_worker"):
        raise ValueError("only simulate is shared by the processes of torchrun.")
    try:
        with _machine(config), _notes(command):
            work.run_worker(config)
    except KeyboardInterrupt as stop:
        print_message(command, _in_flags(f"rank {os.environ['RANK']}: {stop}"))
        return 130
    except RankError as error:  # torchrun is to tell of the rank that is the cause
        print_message(command, _in_flags(str(error)))
        return 1
    except Exception as error:
        return _print_failure(command, error)
    return 0


def print_message(command: str, text: str) -> None:
    """Write one line to stderr."""
    name = f"sdegen {command}" if command else "sdegen"
    sys.stderr.write(f"{name}: {' '.join(text.split())}\n")


def print_error(command: str, text: str) -> None:
    """Write one line to stderr, and to the file that torchrun reports a failure from."""
    print_message(command, text)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is not None:
        extra = {"timestamp": str(int(time.time()))}
        message = {"message": f"sdegen {command}: {' '.join(text.split())}", "extraInfo": extra}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": message}))


def _in_flags(text: str) -> str:
    """Translate a message of the library into the words of the command line."""
    for argument, flag in _FLAGS.items():
        text = re.sub(argument, flag, text)
    return text


def _continues_there(command: str, config: Config, output: Output) -> bool:
    """Return whether --out holds the beginning of the ensemble that --resume continues."""
    if output.out is None or not getattr(config, "resume", False):
        return False
    file = Path(output.out) / CONFIG
    if not file.is_file():
        return False
    try:
        earlier = read_config(file, COMMANDS)
    except ValueError:
        return False
    same = getattr(earlier.config, "store", None) == getattr(config, "store", "")
    return earlier.command == command and same


def _print_failure(command: str, error: Exception) -> int:
    """Print what went wrong, and return the exit status for it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not any(frame.filename in loaded_files() for frame in frames):
        refused = isinstance(error, _REFUSALS)
        if refused or isinstance(error, SdegenError | OSError):
            print_error(command, _in_flags(str(error)))
            return 2 if refused else 1
    traceback.print_exception(error)
    return 1


def _lines(metrics: dict[str, Any]) -> str:
    """Return the numbers and short lists among the metrics, a line each."""
    shown = []
    for name, value in metrics.items():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) <= _FEW and all(type(number) in (int, float) for number in numbers):
            words = [f"{n:.6g}" if isinstance(n, float) else str(n) for n in numbers]
            shown.append(f"{name} = {', '.join(words)}\n")
    return "".join(shown)


def _resolved(config: Config) -> Config:
    """Give a config a seed, a number of threads and absolute paths."""
    changes: dict[str, Any] = {}
    fields = {field.name for field in dataclasses.fields(config)}
    if getattr(config, "is_ensemble", False):
        fields -= {"seed", "threads"}  # of the store, and of the machine: the command settles them
    if "seed" in fields and getattr(config, "seed") is None:  # noqa: B009
        from sdegen.core.noise import seed_of  # a command that waits for no torch is instant

        changes["seed"] = seed_of(None)
    if "threads" in fields:
        import torch

        changes["threads"] = getattr(config, "threads", None) or torch.get_num_threads()
    for name in fields.intersection(_MAY_NAME_A_FILE):
        value = getattr(config, name)
        if isinstance(value, str) and is_reference(value):
            file = source_file(value)
            if file is not None:
                changes[name] = f"{file}:{value.rpartition(':')[2]}"
        elif isinstance(value, str) and Path(value).exists():
            changes[name] = str(Path(value).resolve())
    return dataclasses.replace(config, **changes)


def _inputs(config: Config) -> dict[str, str]:
    """Return the sha256 of each file that a resolved config names."""
    paths = set()
    for name in _MAY_NAME_A_FILE:
        value = getattr(config, name, None)
        if isinstance(value, str):
            paths.add(source_file(value) if is_reference(value) else Path(value))
    return {
        str(path): sha256_of(path)
        for path in sorted(p for p in paths if p is not None and p.is_file())
    }


def _check_recorded(command: str, recorded: ConfigFile, inputs: dict[str, str]) -> None:
    """Refuse a repetition with other inputs, and warn of one with other packages.

    Raises:
        ValueError: Naming the file that has changed.
    """
    for path, digest in recorded.inputs.items():
        if inputs.get(path, digest) != digest:
            raise ValueError(
                f"{path} is not what it was in the recorded run: its sha256 differs, so that the "
                "result would; to run with the file as it is, take its line out of [inputs]."
            )
    now = _versions()
    for name, then in recorded.versions.items():
        if name in now and now[name] != then:
            print_message(
                command,
                f"note: recorded with {name} {then}, this is {now[name]}; the bits may differ.",
            )


def _versions() -> dict[str, str]:
    """Return what bits depend on: versions of packages, and the kind of processor."""
    from sdegen.core.fingerprint import versions  # help need not wait for torch

    return versions(*_PACKAGES) | {"python": platform.python_version()}


@contextmanager
def _notes(command: str) -> Iterator[None]:
    """Print warnings as one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print_message(
            command, f"note: {_in_flags(str(message))}"
        )
        yield


@contextmanager
def _machine(config: Config) -> Iterator[None]:
    """Set the threads of the config, and on a GPU algorithms of the same bits at any timing."""
    import torch

    threads, on_gpu = torch.get_num_threads(), getattr(config, "device", "cpu") != "cpu"
    torch.set_num_threads(getattr(config, "threads", None) or threads)
    if on_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # not touched on a CPU: the call imports torch's compiler, for two seconds
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if on_gpu:
            torch.use_deterministic_algorithms(False)
