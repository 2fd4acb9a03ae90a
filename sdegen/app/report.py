"""Report: results as one HTML file that reads by itself.

A `Report` is filled from top to bottom, with headings, text, equations, tables, pictures and
claims, and written whole. The file holds its pictures and its style and asks for nothing else, so
that it can be sent to somebody who was not there. It contains no script. Everything that comes in
is text: it is escaped, never taken as HTML.

Numbers of one column of a table stand with their decimal points below each other. A `Measured`
number stands with its error, both rounded to the error's second digit.

A **claim** is a number, the bounds it must lie in, and the verdict that follows from these. The
head of the report counts the claims that hold and names those that do not.

Example:
    >>> page = sg.report.Report("Decay", "A particle in a trap.")
    >>> page.claims([sg.report.Claim("the mean is halved", 0.502, 0.49, 0.51)])
    >>> "1 of 1" in page.html
    True
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from sdegen.app.report_table import Cell, Measured, Verdict, cell, column, number, table
from sdegen.storage import atomic_write

__all__ = ["Cell", "Claim", "Measured", "Report", "Verdict"]


@dataclass(frozen=True)
class Claim:
    """A number that must lie between two bounds, both included: low ≤ measured ≤ high.

    Attributes:
        claim: What is claimed, in words.
        measured: The number.
        low: Lower bound, −∞ if there is none.
        high: Upper bound, ∞ if there is none.

    Raises:
        ValueError: If there is no bound, or low > high.

    Example:
        >>> claims = [sg.report.Claim("the mean is halved", x, 0.49, 0.51) for x in (0.502, 0.6)]
        >>> [claim.holds for claim in claims]
        [True, False]
    """

    claim: str
    measured: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.low == -math.inf and self.high == math.inf):
            raise ValueError(
                f"a claim needs a bound, and low ≤ high, but {self.claim!r} has low = "
                f"{self.low:g}, high = {self.high:g}; give low=, high= or both."
            )

    @property
    def holds(self) -> bool:
        """Return whether low ≤ measured ≤ high; False for NaN."""
        return self.low <= self.measured <= self.high


_SIGNS = {True: Verdict("✓ holds", True), False: Verdict("✗ fails", False)}


class Report:
    """A report, filled from top to bottom.

    Args:
        title: Title of the page.
        lead: What this is and how it came about, in a few sentences.

    Example:
        >>> page = sg.report.Report("Decay <1>", "A particle in a trap.")
        >>> page.equation("dX = −X dt + dW")
        >>> "dX = −X dt + dW" in page.html, "Decay &lt;1&gt;" in page.html  # all is text
        (True, True)
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title, self._lead = title, lead
        self._sections: list[str] = []
        self._body: list[str] = []
        self._claims: list[Claim] = []
        self._verdicts: list[str] = []

    def verdict(self, sentence: str, *, holds: bool) -> None:
        """Add a sentence to the head of the page, in the colour of what is good or bad."""
        kind = "holds" if holds else "fails"
        self._verdicts.append(f'<p class="summary {kind}">{escape(sentence)}</p>')

    def section(self, heading: str) -> None:
        """Begin a section."""
        self._sections.append(heading)
        self._body.append(f'<h2 id="s{len(self._sections)}">{escape(heading)}</h2>')

    def text(self, text: str) -> None:
        """Add text; an empty line begins a new paragraph."""
        for paragraph in text.split("\n\n"):
            self._body.append(f"<p>{escape(' '.join(paragraph.split()))}</p>")

    def equation(self, text: str) -> None:
        """Add equations in plain characters, line by line."""
        self._body.append(f'<pre class="equation">{escape(text.strip(chr(10)))}</pre>')

    def table(self, rows: Sequence[Mapping[str, Cell]], caption: str = "") -> None:
        """Add a table.

        Args:
            rows: Rows, all with the same keys, which head the columns. Numbers have four
                significant digits, or as many as their error has meaning for; None is a dash.
            caption: What the table shows.

        Raises:
            ValueError: If there are no rows, or their keys differ.
        """
        if not rows:
            raise ValueError("a table needs at least one row.")
        keys = list(rows[0])
        for i, row in enumerate(rows):
            if list(row) != keys:
                raise ValueError(
                    f"all rows of a table must have the columns {keys}, but row {i} has "
                    f"{list(row)}."
                )
        columns = [column([row[key] for row in rows]) for key in keys]
        cells = [list(row) for row in zip(*columns, strict=True)]
        self._body.append(table([escape(key) for key in keys], cells, caption))

    def claims(self, claims: Sequence[Claim], caption: str = "") -> None:
        """Add a table of claims with their verdicts, which the head of the report counts.

        Args:
            claims: The claims.
            caption: What they are about.

        Raises:
            ValueError: If there are none.
        """
        if not claims:
            raise ValueError("a table of claims needs at least one.")
        self._claims += claims
        cells = [
            [
                f"<td>{escape(claim.claim)}</td>",
                cell(claim.measured),
                f'<td class="number">{_bounds(claim)}</td>',
                cell(_SIGNS[claim.holds]),
            ]
            for claim in claims
        ]
        self._body.append(table(["claim", "measured", "required", "verdict"], cells, caption))

    def take_away(self, sentence: str, *, holds: bool = True) -> None:
        """Add the sentence to take away; where it was not shown, the page says so before it.

        Args:
            sentence: What was found, in one sentence.
            holds: Whether this run shows it.

        Example:
            >>> page = sg.report.Report("Decay", "A particle in a trap.")
            >>> page.take_away("The particle comes to rest.")
            >>> "<strong>Take away:</strong> The particle" in page.html
            True
        """
        head, kind = ("Take away", "holds") if holds else ("Not shown in this run", "fails")
        self._body.append(
            f'<p class="summary {kind}"><strong>{head}:</strong> '
            f"{escape(' '.join(sentence.split()))}</p>"
        )

    def figure(
        self, picture: Figure | bytes | str | Path, caption: str, *, sharp: bool = False
    ) -> None:
        """Add a picture; the file will hold it.

        Args:
            picture: A matplotlib figure, or a PNG or GIF as bytes or by its path.
            caption: What is to be seen; also what is read out where pictures are not shown.
            sharp: Whether it is shown pixel by pixel, never shrunk nor smoothed.

        Raises:
            ValueError: If bytes or file are neither PNG nor GIF.
            FileNotFoundError: If there is no such file.
        """
        content = _image(picture)
        kind = _kind(content)
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        kind = " class=sharp" if sharp else ""
        self._body.append(
            f'<figure{kind}><img src="{source}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    @property
    def html(self) -> str:
        """Return the page."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n<h1>{escape(self._title)}</h1>\n{self._head()}\n"
            + "\n".join(self._body)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: If it cannot be written; a file that was there before is untouched.
        """
        atomic_write(path, self.html.encode())

    def _head(self) -> str:
        """Format the lead, the count of claims, and links to the sections."""
        parts = [f'<p class="lead">{escape(self._lead)}</p>'] if self._lead else []
        parts += self._verdicts
        if self._claims:
            lost = [claim for claim in self._claims if not claim.holds]
            count = f"{len(self._claims) - len(lost)} of {len(self._claims)} claims hold."
            names = "; ".join(escape(claim.claim) for claim in lost)
            kind, rest = ("fails", f" These fail: {names}.") if lost else ("holds", "")
            parts.append(f'<p class="summary {kind}"><strong>{count}</strong>{rest}</p>')
        if len(self._sections) > 1:
            links = (
                f'<li><a href="#s{i}">{escape(heading)}</a></li>'
                for i, heading in enumerate(self._sections, 1)
            )
            parts.append(f"<nav><ol>{''.join(links)}</ol></nav>")
        return "\n".join(parts)


def _bounds(claim: Claim) -> str:
    """Format the bounds of a claim as HTML."""
    if claim.low == -math.inf:
        return f"≤ {number(claim.high)}"
    if claim.high == math.inf:
        return f"≥ {number(claim.low)}"
    return f"{number(claim.low)} … {number(claim.high)}"


def _image(picture: Figure | bytes | str | Path) -> bytes:
    """Return the bytes of a picture."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png")
        return buffer.getvalue()
    return Path(picture).read_bytes()


def _kind(content: bytes) -> str:
    """Return the type of an image by its first bytes."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    raise ValueError(
        f"a picture must be a PNG or a GIF, but begins with {content[:8]!r}; save it as one."
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5b6570; --line:
#d9dee3; --band: #f5f7f9; --link: #0060a0; --good: #00684f; --bad: #b03a00; } @media
(prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14181c; --soft: #9aa5b0; --line:
#343c44; --band: #1c2228; --link: #6fb7ea; --good: #4cc9a4; --bad: #ff9a66; } } body { margin: 0;
background: var(--paper); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
Roboto, "DejaVu Sans", sans-serif; } main { max-width: 58rem; margin: 0 auto; padding: 2rem 1.25rem
4rem; } h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; } h2 { font-size: 1.3rem;
margin: 2.8rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); } p { margin: .7rem
0; max-width: 44rem; } a { color: var(--link); } .lead { font-size: 1.08rem; color: var(--soft); }
.summary { padding: .6rem .9rem; border-left: 4px solid var(--good); background: var(--band); }
.summary.fails { border-color: var(--bad); } nav ol { margin: .8rem 0; padding-left: 1.4rem; }
.equation { font: 1rem/1.7 "DejaVu Sans Mono", Menlo, Consolas, monospace; background: var(--band);
padding: .7rem 1rem; overflow-x: auto; border-radius: 4px; } .wide { overflow-x: auto; margin:
1.1rem 0; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric:
tabular-nums; } caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
caption div { max-width: 44rem; } th, td {
padding: .32rem .5rem .32rem .2rem; text-align: left; border-bottom: 1px solid var(--line);
vertical-align: top; } th { font-weight: 600; border-bottom: 2px solid var(--soft); } .number {
text-align: right; white-space: nowrap; } sup { line-height: 0; font-size: .72em; } td.holds {
color: var(--good); white-space: nowrap; } td.fails { color: var(--bad); font-weight: 700;
white-space: nowrap; } figure { margin: 1.4rem 0; } figure img { max-width: 100%; height: auto;
background: #fff; border-radius: 4px; padding: .5rem; box-sizing: border-box; border: 1px solid
var(--line); } figure.sharp { overflow-x: auto; } figure.sharp img { max-width: none; padding: 0;
border: 0; border-radius: 0; image-rendering: pixelated; } figcaption { color:
var(--soft); font-size: .93rem; max-width: 44rem; } @media print
{ h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""
