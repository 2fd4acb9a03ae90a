"""Page: a result as a piece of HTML for notebooks, complete in itself.

The picture is a PNG inside the text: nothing is fetched from anywhere. Colours of text and
background are those of the page around it, light or dark; the picture keeps its white paper.
"""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from sdegen.plots import style
from sdegen.plots.results.drawing import picture
from sdegen.plots.results.summaries import Fact, Summary, summary

BYTES = 30_000  # of a picture, at most: 40 kB in base64
# dots per inch, and shades of each colour, given up together until a picture is small
_TRIED = ((130, 12), (115, 8), (100, 6), (90, 5), (80, 5), (70, 4), (60, 4), (50, 3), (20, 2))
_HOPELESS = 1.5  # fewer shades help too
_GROWS = 1.2  # bytes grow with this power of the dots per inch, or faster
_WIDTH = 78  # pixels of the page for an inch of the figure
_PASSED, _FAILED = "#009E73", "#D55E00"
_LINE = "1px solid rgba(128,128,128,.35)"
_CELL = f"padding:.15em .8em .15em 0;border:0;border-bottom:{_LINE};text-align:left"
_MANY = 6  # columns beyond which the last one, of sentences, needs room
_QUIET = "opacity:.75;font-size:90%"


def page(result: object) -> str:
    """Return a result as HTML: its numbers with their errors, what made it, and a picture."""
    said = summary(result)
    edge = {None: "rgba(128,128,128,.5)", True: _PASSED, False: _FAILED}[said.good]
    parts = [f'<div style="font-weight:600">{escape(said.title)}</div>']
    if said.sentence:
        parts.append(f'<p style="margin:.3em 0">{escape(said.sentence)}</p>')
    parts.append(_facts(said.facts))
    parts.append(_drawn(result, spoken=bool(said.sentence)))
    parts.append(_table(said))
    parts.append(_trust(result))
    if said.made:
        parts.append(f'<div style="{_QUIET}">{escape(_made(said))}</div>')
    inside = "".join(parts)
    return (
        f'<div class="sdegen" style="border-left:4px solid {edge};padding-left:.8em;'
        f'margin:.4em 0;color:inherit;background:transparent">{inside}</div>'
    )


def _facts(facts: tuple[Fact, ...]) -> str:
    """Return rows of numbers; the exact ones are attributes of their cells."""
    rows = []
    for fact in facts:
        exact = ""
        if not isinstance(fact.value, str):
            exact = f' data-value="{fact.value!r}"'
            exact += "" if fact.error is None else f' data-error="{fact.error!r}"'
        rows.append(
            f'<tr style="background:transparent"><td style="{_CELL}">{escape(fact.name)}</td>'
            f'<td style="{_CELL}"{exact}>{escape(str(fact))}</td></tr>'
        )
    return _framed("".join(rows)) if rows else ""


def _framed(rows: str) -> str:
    style = "border-collapse:collapse;margin:.4em 0;color:inherit;background:transparent;border:0"
    return f'<div style="overflow-x:auto"><table style="{style}">{rows}</table></div>'


def _drawn(result: object, *, spoken: bool) -> str:
    """Return the picture, less words that the page has said; in its place why there is none."""
    try:
        figure = picture(result)
        if spoken and figure.get_supxlabel():
            figure.supxlabel("")
        data, width = png_of(figure), round(_WIDTH * figure.get_figwidth())
    except Exception as error:  # the numbers stand, whatever the picture lacks, which is said
        said = f"no picture: {type(error).__name__}: {error}"
        return f'<div style="{_QUIET}">{escape(said)}</div>'
    inside = base64.b64encode(data).decode("ascii")
    style = f"width:{width}px;max-width:100%;height:auto;border-radius:4px;display:block"
    return (
        f'<img alt="picture of the result" style="{style}" src="data:image/png;base64,{inside}">'
    )


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG in the colours of the house, as sharp as 30 kB allow."""
    data, before = b"", 0
    for dpi, shades in _TRIED:
        expected = len(data) * (dpi / max(before, dpi)) ** _GROWS
        if expected > _HOPELESS * BYTES and (dpi, shades) != _TRIED[-1]:
            continue
        before = dpi
        drawn = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(drawn, format="png", dpi=dpi)
        drawn.seek(0)
        whole = Image.open(drawn).convert("RGB")
        few = whole.quantize(palette=_palette(shades), dither=Image.Dither.NONE)
        small = io.BytesIO()
        few.save(small, format="png", optimize=True)
        data = small.getvalue()
        if len(data) <= BYTES:
            break
    return data


def _palette(shades: int) -> Image.Image:
    """Return every colour of the house, and its mixtures with white: no hue is lost to another."""
    pure = np.array([to_rgb(colour) for colour in (*style.CYCLE, style.GREY)])
    share = np.linspace(0, 1, shades + 1)[1:, None, None]
    mixed = (1 - share * (1 - pure)).reshape(-1, 3)
    density = style.DENSITY(np.linspace(0.05, 1, 4 * shades))[:, :3]
    greys = np.linspace(1, 0.8, 6)[:, None].repeat(3, 1)
    colours = (255 * np.concatenate([greys, mixed, density])).round().astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette(colours.tobytes())
    return image


def _table(said: Summary) -> str:
    """Return a table of words."""
    if not said.table:
        return ""
    head, *rows = said.table
    wide = len(head) > _MANY
    lines = "".join(f'<th style="{_CELL}">{escape(word)}</th>' for word in head)
    text = f'<thead><tr style="background:transparent">{lines}</tr></thead><tbody>'
    for row in rows:
        last = f"{_CELL};min-width:18em" if wide else _CELL
        cells = "".join(f'<td style="{_CELL}">{escape(word)}</td>' for word in row[:-1])
        cells += f'<td style="{last}">{escape(row[-1])}</td>'
        text += f'<tr style="background:transparent">{cells}</tr>'
    text = _framed(f"{text}</tbody>")
    if not said.folded:
        return text
    return f"<details><summary>{len(rows)} rows</summary>{text}</details>"


def _trust(result: object) -> str:
    """Return what is known of its errors, opened by a click, where the result says so."""
    ask = getattr(result, "trust", None)
    if ask is None:
        return ""
    rows = "".join(
        f'<tr style="background:transparent"><td style="{_CELL}">{escape(cause)}</td>'
        f'<td style="{_CELL}">{escape(known)}</td></tr>'
        for cause, known in ask().rows
    )
    return f"<details><summary>how far it can be trusted</summary>{_framed(rows)}</details>"


def _made(said: Summary) -> str:
    """Return what made a result, in the words of a call: rng=0, nfe=500."""
    names = {"seed": "rng"}
    return ", ".join(f"{names.get(name, name)}={value}" for name, value in said.made.items())
