"""Tables of a report: numbers below each other, decimal point below decimal point.

Numbers have four significant digits. A `Measured` number stands with its error, both rounded to
the second digit of the error.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Verdict(NamedTuple):
    """A word that is good or bad, in a cell of a table.

    Attributes:
        text: The word, with a sign where the colour is not seen.
        holds: Whether it is good.

    Example:
        >>> page = sg.report.Report("Decay", "A particle in a trap.")
        >>> page.table([{"solver": "Heun", "order": sg.report.Verdict("✓ 2", True)}])
        >>> "✓ 2" in page.html
        True
    """

    text: str
    holds: bool


class Measured(NamedTuple):
    """A number with its error, in a cell of a table.

        cell = value ± error, rounded to two digits of the error

    Attributes:
        value: The number.
        error: Its standard error, or what the table's caption says; None where there is none.

    Example:
        >>> page = sg.report.Report("Decay", "A particle in a trap.")
        >>> page.table([{"solver": "Heun", "mean": sg.report.Measured(0.51234, 0.0121)}])
        >>> "0.512 ± 0.012" in page.html
        True
    """

    value: float
    error: float | None


Cell = str | int | float | bool | Verdict | Measured | None

_DIGITS = 4  # that are significant, of a number without an error
_MOST_DECIMALS = 9
_FIGURE_SPACE, _POINT_SPACE = "\u2007", "\u2008"  # as wide as a digit, and as a point


def number(value: float) -> str:
    """Format a number with four digits as HTML: 1.235·10⁻⁷ with a true superscript.

    >>> number(0.000000123456)
    '1.235·10<sup>−7</sup>'
    >>> number(12345)
    '12,345'
    """
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    if not exponent:
        return mantissa
    power = f"10<sup>{int(exponent)}</sup>".replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}·{power}"


def _decimals(measured: Measured) -> int:
    """Return how many decimals show the second digit of an error."""
    error = measured.error
    if error is None or not 0 < error < math.inf:
        return _DIGITS
    return min(_MOST_DECIMALS, max(0, 1 - math.floor(math.log10(error))))


def column(values: Sequence[Cell]) -> list[str]:
    """Format the cells of one column, with decimal points below each other."""
    if any(isinstance(v, Measured) for v in values):
        values = [Measured(v, None) if isinstance(v, float) else v for v in values]
        widest = max(_decimals(v) for v in values if isinstance(v, Measured))
        return [_measured(v, widest) if isinstance(v, Measured) else cell(v) for v in values]
    numbers = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    if len(values) < 2 or not any(v != int(v) for v in numbers):
        return [cell(v) for v in values]
    texts = [_four_digits(v) if isinstance(v, float) else None for v in values]
    plain = [text for text in texts if text is not None and "<" not in text]
    widest = max((len(text.partition(".")[2]) for text in plain), default=0)
    return [
        cell(value) if text is None else f'<td class="number">{_padded(text, widest)}</td>'
        for value, text in zip(values, texts, strict=True)
    ]


def _four_digits(value: float) -> str:
    """Format a number with four significant digits, zeros at the end among them."""
    if value == 0 or not math.isfinite(value) or not 1e-4 <= abs(value) < 1e6:
        return number(value)
    exponent = math.floor(math.log10(float(f"{abs(value):.{_DIGITS - 1}e}")))
    return f"{value:,.{max(0, _DIGITS - 1 - exponent)}f}".replace("-", "−")


def _padded(text: str, decimals: int) -> str:
    """Return a number with spaces in place of decimals that it does not have."""
    if "<" in text:  # a power of ten
        return text
    missing = decimals - len(text.partition(".")[2])
    return text + (_POINT_SPACE if "." not in text and missing else "") + _FIGURE_SPACE * missing


def _measured(measured: Measured, widest: int) -> str:
    """Format a number with its error, both with the spaces of as many decimals as the widest."""
    decimals = _decimals(measured)
    text = _padded(f"{measured.value:,.{decimals}f}".replace("-", "−"), widest)
    if measured.error is not None and math.isfinite(measured.error):
        text += f" ± {_padded(f'{measured.error:.{decimals}f}', widest)}"
    return f'<td class="number">{text}</td>'


def cell(value: Cell) -> str:
    """Format a table cell; numbers are aligned to the right."""
    if value is None:
        return '<td class="number">–</td>'
    if isinstance(value, Measured):
        return column([value])[0]
    if isinstance(value, Verdict):
        return f'<td class="{"holds" if value.holds else "fails"}">{escape(value.text)}</td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{number(value)}</td>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Format a table from cells of HTML; headings of numbers are aligned to the right."""
    numeric = [all('class="number"' in row[i] for row in rows) for i in range(len(heads))]
    head = "".join(
        f'<th scope="col"{" class=number" if right else ""}>{text}</th>'
        for text, right in zip(heads, numeric, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    title = f"<caption><div>{escape(caption)}</div></caption>" if caption else ""
    return (
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
