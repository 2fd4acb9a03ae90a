"""Advice in messages, followed: what an error or a warning says to do makes the program work.

`cures()` reads every string of the package but docstrings, and keeps those that say, after what
came and what was expected, what to do. The arguments of one `raise` or `warn` are one message; a
string elsewhere, such as a constant, the return of a helper, or a part that is filled in, is one
of its own. So no message hides in a variable. Each has a row: a program that provokes it and the
program that follows it (`FOLLOWED` of the modules in `tests/cures`), or a line in
`tests/cures/listed.txt` under the reason why it has none. A new cure without either fails.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

import sdegen as sg
from tests.cures import (
    active_matter,
    along_paths,
    averages,
    averages_in_time,
    channels,
    checkpoints,
    command_line,
    core,
    densities,
    dynamics,
    energies,
    ensembles,
    entropy,
    fits,
    functionals,
    hierarchies,
    hub,
    identities,
    innovations,
    inverse_problems,
    jumps,
    kinetic,
    latent_variables,
    laws,
    likelihoods,
    linear,
    matrices,
    methods,
    models,
    particles,
    phase_space,
    pictures,
    planes,
    questions,
    relatives,
    result_pictures,
    running,
    samplers,
    sampling,
    scores,
    simulated_scores,
    step_biases,
    stored_states,
    trainings,
    verdicts,
)

ROOMS = (
    verdicts,
    innovations,
    identities,
    step_biases,
    relatives,
    active_matter,
    channels,
    checkpoints,
    inverse_problems,
    core,
    densities,
    questions,
    planes,
    laws,
    linear,
    methods,
    dynamics,
    jumps,
    likelihoods,
    matrices,
    particles,
    models,
    phase_space,
    fits,
    samplers,
    running,
    ensembles,
    functionals,
    entropy,
    sampling,
    scores,
    simulated_scores,
    stored_states,
    pictures,
    result_pictures,
    averages,
    along_paths,
    averages_in_time,
    command_line,
    kinetic,
    trainings,
    latent_variables,
    energies,
    hierarchies,
    hub,
)
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
    "sum",
    "project",
    "reshape",
    "pick",
    "stop",
    "dequantise",
    "print",
    "compute",
    "share",
    "loosen",
    "do not",
    "pip install",
    "fewer",
    "undo",
]
_BEFORE = r"(?:[;:.,?] |^ ?)(?:to |or |and |If [^.]*, |for [^.]* )?"  # what a verb stands after
_CURE = re.compile(rf"{_BEFORE}({'|'.join(_VERBS)})\b", re.I)


def _text(node):
    """The text of an expression, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "{}"


class _Messages(ast.NodeVisitor):
    """The messages of a module: for each, the texts of its parts."""

    def __init__(self):
        self.found = []

    def _keep(self, texts):
        if any(_CURE.search(text) for text in texts):
            self.found.append(" ".join(texts))

    def _inside(self, node):
        """Visits what is filled into a string; the string itself was kept as a whole."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            self._inside(node.left)
            self._inside(node.right)
        elif isinstance(node, ast.JoinedStr):
            for value in node.values:
                if isinstance(value, ast.FormattedValue):
                    self.visit(value.value)
        elif not isinstance(node, ast.Constant):
            self.visit(node)

    def _call(self, call):
        """Keeps the arguments of a raise or a warning as one message."""
        self._keep([_text(a) for a in call.args if not isinstance(a, ast.Name)])
        for argument in call.args:
            self._inside(argument)

    def visit_Expr(self, node):
        if not isinstance(node.value, ast.Constant):  # a docstring is no message
            self.visit(node.value)

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            self._call(node.exc)
        elif node.exc is not None:
            self.visit(node.exc)

    def visit_Call(self, node):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("warn", "warn_inaccurate"):
            self._call(node)
        else:
            self.generic_visit(node)

    def visit_BinOp(self, node):
        if isinstance(node.op, ast.Add) and _CURE.search(_text(node)):
            self._keep([_text(node)])
            self._inside(node)
        else:
            self.generic_visit(node)

    def visit_JoinedStr(self, node):
        self._keep([_text(node)])
        self._inside(node)

    def visit_Constant(self, node):
        # a single word is a name or a choice
        if isinstance(node.value, str) and " " in node.value.strip():
            self._keep([node.value])


def _messages(source):
    reader = _Messages()
    reader.visit(ast.parse(source))
    return reader.found


@functools.cache
def cures():
    """(file, text) of each message that says what to do."""
    return [
        (str(path.relative_to(PACKAGE)), text)
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in _messages(path.read_text())
    ]


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


# compiled once: there are more than re remembers
_PATTERNS = {name: (pattern, re.compile(pattern)) for name, (pattern, _, _) in FOLLOWED.items()}


@functools.cache
def _followed(text):
    """The row of a message that has programs, or None."""
    for name, (pattern, compiled) in _PATTERNS.items():
        if pattern in text or compiled.search(text):
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
    used |= {name for room in ROOMS for name in getattr(room, "UNSEEN", ())}
    assert [name for name in FOLLOWED if name not in used] == []
    there = {_line_of(file, text) for file, text in cures()}
    assert [line for line in listed() if line not in there] == []


@pytest.mark.parametrize(
    "source",
    [
        'raise ValueError(f"x is {x}, but y was wanted; pass y={y}.")',
        '_ADVICE = "x is no y; pass y."\nraise ValueError(_ADVICE)',
        'def why(x):\n    return f"x is {x}; pass y."\nraise ValueError(why(x))',
        "raise ValueError(f\"x is {x}; {f'pass {y}' if y else 'take a larger z'}.\")",
        'text = "x is wrong. " + "Take more cells." if x else ""\nwarnings.warn(text)',
        'warn_inaccurate(error, "the rate", "Pass rtol=, or more cells.")',
        'error.add_note("end the times before")',
    ],
)
def test_a_new_cure_is_seen(source):
    assert _messages(source)
    assert all(
        _followed(text) is None for text in _messages('raise ValueError("no y; pass y=4.")')
    )


def test_what_says_nothing_to_do_is_no_cure():
    assert _messages('"""A page; take it."""\nraise ValueError("x must be > 0, but is -1.")') == []
    assert _messages('form = "pass"') == []


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_advice_is_followed(name, as_user):
    _, provoke, follow = FOLLOWED[name]
    with pytest.raises(
        (ValueError, TypeError, AttributeError, sg.SdegenError, UserWarning)
    ) as caught:
        provoke()
    pattern = FOLLOWED[name][0]
    if name != "square-root noise below zero":
        # the message of the source, with what was filled in
        loose = re.sub(r"(\\?\{\\?\})", ".*?", pattern)
        assert re.search(loose, str(caught.value), re.S), str(caught.value)
    follow()
