"""Config file: a config as TOML, and back, with the line of whatever does not fit.

    command = "simulate"
    sde = "/home/me/well.py:well"
    x0 = [-1.0]
    …
    [inputs]
    "/home/me/well.py" = "9f86d0…"
    [versions]
    torch = "2.13.0"

[inputs] has the sha256 of each file that the run read, so that a repetition reads the same. What
is None is left out, since TOML has no word for it. Reading is strict: an unknown key, or a value
of the wrong type, is an error that names the key and its line.
"""

import dataclasses
import difflib
import hashlib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

_TABLES = ("inputs", "versions")
# keys of version 0.1
_RENAMED = {
    ("simulate", "walls"): "boundary",
    ("fokker-planck", "physical_walls"): "truncation_is_physical",
}


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """What a config.toml says.

    Attributes:
        command: The verb.
        config: Its config.
        inputs: sha256 of each file that is read, by path.
        versions: Version of each package that it was written with, by name.
    """

    command: str
    config: Any
    inputs: dict[str, str]
    versions: dict[str, str]


def to_toml(file: ConfigFile) -> str:
    """Return the text of a config.toml."""
    import tomli_w

    values = {f.name: getattr(file.config, f.name) for f in dataclasses.fields(file.config)}
    written: dict[str, Any] = {"command": file.command}
    written |= {name: value for name, value in values.items() if value is not None}
    for table in _TABLES:
        if getattr(file, table):
            written[table] = getattr(file, table)
    return tomli_w.dumps(written)


def read_config(path: Path, kinds: dict[str, type]) -> ConfigFile:
    """Read a config.toml.

    Args:
        path: The file.
        kinds: Class of the config of each command.

    Raises:
        ValueError: If there is no such file, it is no TOML, a key is unknown or missing, or a
            value is of the wrong type or refused by the config; names the file, the line and the
            key.
    """
    try:
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read as TOML: {error}.") from None
    command = values.pop("command", None)
    if command not in kinds:
        words = ", ".join(map(repr, kinds))
        came = "is missing" if command is None else f"is {command!r}"
        raise ValueError(
            f"{_place(path, text, 'command')}command must be one of {words}, but {came}."
        )
    tables = {name: values.pop(name, {}) for name in _TABLES}
    for name, table in tables.items():
        if not _fits(table, dict[str, str]):
            raise ValueError(f"{_place(path, text, name)}{name} must be a table of strings.")
    kind = kinds[command]
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    for (of, old), new in _RENAMED.items():
        if of == command and old in values and new not in values:
            values[new] = values.pop(old)
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"the keys of {command} are {', '.join(names)}."
            )
            raise ValueError(f"{_place(path, text, key)}{command} has no key {key!r}; {hint}")
        if not _fits(value, hints[key]):
            raise ValueError(
                f"{_place(path, text, key)}{key} must be {_spelt(hints[key])}, but is {value!r}."
            )
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"{path}: the key {field.name!r} is missing.")
    try:
        config = kind(**{key: _converted(value, hints[key]) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        key = str(error).partition(" ")[0]
        raise ValueError(f"{_place(path, text, key)}{error}") from None
    return ConfigFile(command, config, **tables)


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(path: Path, text: str, key: str) -> str:
    """Return 'file, line n: ' if the line of the key is known, else 'file: '."""
    line = _line_of(text, key)
    return f"{path}: " if line is None else f"{path}, line {line}: "


def _line_of(text: str, key: str) -> int | None:
    """Return the line on which a top-level key is set, or None.

    tomllib tells no positions; asking it about ever longer beginnings of the file needs no second
    grammar.
    """
    lines = text.splitlines(keepends=True)
    start = 0  # where the statement begins that is not complete yet
    for end in range(1, len(lines) + 1):
        try:
            is_set = key in tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        if is_set:
            return start + 1  # blank lines and comments were complete by themselves
        start = end
    return None


def _fits(value: object, hint: object) -> bool:
    """Return whether a value of TOML is of a type; an int is a float too, a bool is neither."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, options[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, options[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _converted(value: object, hint: object) -> object:
    """Convert a value to what a config holds: arrays to tuples, ints of float keys to floats."""
    options = typing.get_args(hint)
    if isinstance(value, list):
        inner = next(option for option in (hint, *options) if typing.get_origin(option) is tuple)
        return tuple(_converted(item, typing.get_args(inner)[0]) for item in value)
    if type(value) is int and (hint is float or (float in options and int not in options)):
        return float(value)
    return value


def _spelt(hint: object) -> str:
    """Return a type in words."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_spelt(option) for option in options if option is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, options))
    if origin is tuple:
        return f"an array, each entry {_spelt(options[0])}"
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return next((word for kind, word in words.items() if kind is hint), str(hint))
