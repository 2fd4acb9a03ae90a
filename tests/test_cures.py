"""Advice in messages, followed: what an error or a warning says to do makes the program work.

`cures()` reads every `raise` and `warn` of the package and keeps those whose text goes on, after
what came and what was expected, with something to do. Each has a row: a program that provokes it
and the program that follows it (`FOLLOWED` of the modules in `tests/cures`), or a line in
`tests/cures/listed.txt` under the reason why it
has none, such as that it says what the value must be. A new cure without either fails.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

import sdegen as sg
from tests.cures import core, densities, models, running

ROOMS = (core, densities, models, running)
FOLLOWED = {name: row for room in ROOMS for name, row in room.FOLLOWED.items()}

PACKAGE = Path(sg.__file__).parent

# verbs that begin what is to be done
_VERBS = [
    "pass",
    "use",
    "take",
    "build",
    "say",
    "leave",
    "widen",
    "give",
    "ask",
    "call",
    "write",
    "move",
    "end",
    "start",
    "run",
    "make",
    "install",
    "keep",
    "lower",
    "raise",
    "look",
    "freeze",
    "divide",
    "add",
    "try",
    "choose",
    "drop",
    "simulate",
    "solve",
    "compare",
    "refine",
    "resume",
    "scale",
    "wrap",
    "set",
    "put",
    "train",
    "convert",
    "load",
    "save",
    "remove",
    "rename",
    "name",
    "cut",
    "draw",
    "replace",
    "start",
]
_CURE = re.compile(
    rf"(?:[;:.] |, or |, and |; |^)(?:to |or |If [^.]*, |for [^.]* )?({'|'.join(_VERBS)})\b", re.I
)


def _text(node):
    """The text of an expression, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "{}"


@functools.cache
def cures():
    """(file, text) of each message that says what to do."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            call = None
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                call = node.exc
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                call = node if name in ("warn", "warn_inaccurate") else None
            if call is None:
                continue
            text = " ".join(_text(a) for a in call.args if not isinstance(a, ast.Name))
            if _CURE.search(text):
                found.append((str(path.relative_to(PACKAGE)), text))
    return found


# The other cures, under the reason why they have no program here: one line each, the file and how
# its text begins. A new one is written there, or better above.
LISTED = Path(__file__).parent / "cures" / "listed.txt"
_BEGINNING = 60


def listed():
    """Reason of each line of the list, by (file, beginning)."""
    reasons, reason = {}, ""
    for line in LISTED.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            file, _, beginning = line.partition(" | ")
            reasons[file, beginning] = reason
    return reasons


def _followed(text):
    """The row of a message that has programs, or None."""
    for name, (pattern, _, _) in FOLLOWED.items():
        if pattern in text or re.search(pattern, text):
            return name
    return None


def _line_of(file, text):
    return file, " ".join(text.split())[:_BEGINNING].strip()


def test_no_two_rooms_share_a_name():
    assert len(FOLLOWED) == sum(len(room.FOLLOWED) for room in ROOMS)


def test_every_cure_has_a_row():
    known = listed()
    missing = {
        " | ".join(_line_of(file, text))
        for file, text in cures()
        if _followed(text) is None and _line_of(file, text) not in known
    }
    assert sorted(missing) == [], f"follow them in FOLLOWED, or say in {LISTED.name} why not"
    assert len(cures()) > 250


def test_no_row_is_of_a_message_that_is_gone():
    used = {_followed(text) for _, text in cures()} | {"square-root noise below zero"}
    assert [name for name in FOLLOWED if name not in used] == []
    there = {_line_of(file, text) for file, text in cures()}
    assert [line for line in listed() if line not in there] == []


def test_a_new_cure_is_seen():
    source = ast.parse('raise ValueError(f"x is {x}, but y was wanted; pass y={y}.")')
    call = source.body[0].exc
    assert _CURE.search(_text(call.args[0]))
    assert _followed("x is 3, but y was wanted; pass y=4.") is None


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_advice_is_followed(name, as_user):
    _, provoke, follow = FOLLOWED[name]
    with pytest.raises((ValueError, TypeError, sg.SdegenError)) as caught:
        provoke()
    pattern = FOLLOWED[name][0]
    if name != "square-root noise below zero":
        # the message of the source, with what was filled in
        loose = re.sub(r"(\\?\{\\?\})", ".*?", pattern)
        assert re.search(loose, str(caught.value), re.S), str(caught.value)
    follow()
