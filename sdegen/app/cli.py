"""The command line: sdegen <command> [options].

    simulate, fokker-planck, explore, verify, verify-states, train, sample, likelihood, demo
        each has a config, in `sdegen.app.configs`, and writes a run folder
    run config.toml
        repeats a run, bit for bit

Exit status: 0 done; 1 a numerical failure, a certificate that is refused, or an error of the
user's own code; 2 a bad request, said in one line; 130 Ctrl-C, after the step has ended and what
is done is saved. The last line of stdout is the folder of the run.

torch is imported when a command starts to work, so that help and the refusal of a misspelt flag
are instant. For the same reason only the parser of the one command is built.
"""

import dataclasses
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, Generic, TypeVar

from sdegen.app.config_file import ConfigFile, read_config
from sdegen.app.configs.commands import COMMANDS
from sdegen.app.configs.output import Output
from sdegen.app.configs.train import TrainRunConfig
from sdegen.app.execution import execute, print_error, print_message
from sdegen.app.runs import CONFIG
from sdegen.app.user_code import is_reference

# what these are about comes first, without a flag
_POSITIONAL = {
    "run": "the config.toml",
    "verify": "file.py:name of an SDE, or a file of stored states,",
    "verify-states": "a file of stored states",
}

_C = TypeVar("_C")
_O = TypeVar("_O")


@dataclasses.dataclass(frozen=True)
class _Call(Generic[_C, _O]):
    """One call: what is asked, and where it goes."""

    config: _C
    output: _O


@dataclasses.dataclass(frozen=True)
class _TrainOutput(Output):
    """Where the results go.

    Args:
        resume: Folder of a training run to go on with; its config.toml gives all that is not said
            again.
    """

    resume: str | None = None


@dataclasses.dataclass(frozen=True)
class _Repeat:
    """Repeat the run of a config.toml, bit for bit.

    Args:
        file: The config.toml.
    """

    file: str


Call = _Call[Any, Any]


class _Refusal(Exception):
    """What is wrong with the words on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; those of the process unless given.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a σ is no reason to fail, whatever the terminal
            stream.reconfigure(errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _command_of(arguments)
    try:
        status = _dispatch(command, arguments[1:])
    except SystemExit as leave:  # --help has been printed
        return int(leave.code or 0)
    except _Refusal as refusal:
        print_error(command if command in (*COMMANDS, "run") else "", str(refusal))
        return 2
    except KeyboardInterrupt as stop:
        print_message(command, str(stop) or "interrupted.")
        status = 130
    if status == 130 and argv is None:
        # all that is done is on disk, and taking torch down in good order lasts half a second
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _command_of(arguments: Sequence[str]) -> str:
    """Return the command; `verify` of a file of stored states is `verify-states`."""
    command = arguments[0] if arguments else ""
    if command != "verify":
        return command
    first = arguments[1] if len(arguments) > 1 else "-"
    is_file = not (first.startswith("-") or is_reference(first) or first.endswith(".py"))
    says_sde = any(word == "--sde" or word.startswith("--sde=") for word in arguments)
    return "verify-states" if is_file or says_sde else "verify"


def _dispatch(command: str, arguments: list[str]) -> int:
    """Find the command and call it."""
    if command in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if command == "--version":
        from sdegen import __version__

        sys.stdout.write(f"sdegen {__version__}\n")
        return 0
    if command == "run":
        call = _parsed(command, _Repeat, Output, arguments)
        file = _read(Path(call.config.file))
        return execute(file.command, file.config, call.output, recorded=file)
    if command == "explore" and arguments and not arguments[0].startswith("-"):
        arguments = ["--sde", *arguments]  # which may be left out, and then is a double well
    if command in COMMANDS:
        output = _TrainOutput if command == "train" else Output
        call = _parsed(command, COMMANDS[command], output, arguments)
        folder = getattr(call.output, "resume", None)
        if folder is not None:
            return _resume(folder, arguments)
        return execute(command, call.config, call.output)
    names = [*COMMANDS, "run"]
    came = f"there is no command {command!r}" if command else "no command is given"
    near = difflib.get_close_matches(command, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(names)}."
    raise _Refusal(f"{came}; {hint} See sdegen --help.")


def _resume(folder: str, arguments: list[str]) -> int:
    """Resume a training run; its config.toml gives the defaults of the flags."""
    file = _read(Path(folder) / CONFIG)
    if file.command != "train":
        raise _Refusal(f"resume = {folder!r} holds a run of {file.command}, not of train.")
    default = _Call(file.config, _TrainOutput(resume=folder))
    call = _parsed("train", TrainRunConfig, _TrainOutput, arguments, default)
    if call.output.out is not None or call.output.overwrite:
        raise _Refusal(
            "--resume goes on in its own folder; --out and --overwrite do not go with it."
        )
    return execute("train", call.config, call.output, recorded=file, folder=Path(folder))


def _read(path: Path) -> ConfigFile:
    """Read a config.toml, or refuse it."""
    try:
        return read_config(path, COMMANDS)
    except ValueError as error:
        raise _Refusal(str(error)) from None


def _parsed(
    command: str, config: type, output: type, arguments: list[str], default: Call | None = None
) -> Call:
    """Parse the arguments of a command; exit if they ask for help."""
    import tyro

    markers = [tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff]
    if command in _POSITIONAL:
        markers.append(tyro.conf.PositionalRequiredArgs)
    heard = StringIO()
    try:
        with redirect_stderr(heard):
            return tyro.cli(
                _Call[config, output],  # type: ignore[valid-type]
                prog=f"sdegen {command}",
                description=str(config.__doc__).partition("\n\n")[0],
                args=arguments,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=markers,
            )
    except SystemExit as leave:
        if leave.code in (0, None):
            raise
        raise _Refusal(_reason(command, heard.getvalue())) from None
    except (TypeError, ValueError) as error:  # a config that refuses its own values
        raise _Refusal(str(error)) from None


def _reason(command: str, box: str) -> str:
    """Return the reason in the framed message of tyro, and the flag that may be meant."""
    lines = [line.strip("│| ").strip() for line in box.splitlines()]
    body = lines[1:] if lines[0].startswith("╭") else lines[2:]  # a title, framed or underlined
    rules = [i for i, line in enumerate(body) if set(line) in ({"─"}, {"-"})]
    reason = " ".join(body[: rules[0]] if rules else body)
    flags = [line.split()[0] for line in lines if line[:2] == "--" and line[2:3].isalpha()]
    if reason.startswith("Missing from"):
        what = _POSITIONAL.get(command) or flags[0]
        return f"{what} is missing; see sdegen {command} --help."
    if "Perhaps you meant:" in lines and flags:
        return f"{reason}; did you mean {flags[0]}?"
    return reason.removeprefix("Error parsing config: ")


def _overview() -> str:
    """Return what `sdegen --help` prints."""
    verbs: dict[str, type] = {**COMMANDS, "run": _Repeat}
    rows = [f"  {name:<15}{str(verb.__doc__).splitlines()[0]}" for name, verb in verbs.items()]
    return (
        "usage: sdegen COMMAND [OPTIONS]\n\nStochastic dynamics that generate: simulate an "
        "SDE, see its density, learn its score, run it backwards.\n\ncommands:\n"
        + "\n".join(rows)
        + "\n\nsdegen COMMAND --help tells the options of a command, sdegen --version the "
        "version.\nAn SDE of your own is file.py:name. Every run gets a folder, "
        "runs/<command>-<UTC time> unless --out says otherwise.\n"
    )
