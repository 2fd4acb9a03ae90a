"""The page, parsed again, says what was put into it, to the last byte of a picture."""

import base64
import io
import math
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

import sdegen as sg

Claim, Report = sg.report.Claim, sg.report.Report
Measured = sg.report.Measured

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a reader meets: texts by tag, tables as cells, pictures as bytes; tags must nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.tables, self.pictures, self.links = [], {}, [], [], []
        self.declared = []
        self.ids = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_decl(self, decl):
        self.declared.append(decl)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag != "script"
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag == "img":
            kind, data = attrs["src"].split(";base64,")
            self.pictures.append((kind, base64.b64decode(data), attrs["alt"]))
        if "href" in attrs:
            self.links.append(attrs["href"])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_texts_come_back_whatever_they_hold():
    nasty = "<script>alert('x')</script> & \"quotes\" p(x) < 1 > 0"
    report = Report(nasty, lead=nasty)
    report.section(nasty)
    report.text(f"{nasty}\n\nsecond\n   paragraph")
    report.equation(f"x ← x + dt f\n  {nasty}")
    report.table([{nasty: nasty}], caption=nasty)
    page = Page(report.html)
    assert page.declared == ["doctype html"]
    assert page.texts["title"] == page.texts["h1"] == page.texts["h2"] == [nasty]
    assert page.texts["p"] == [nasty, nasty, "second paragraph"]
    assert page.texts["pre"] == [f"x ← x + dt f\n  {nasty}"]
    assert page.tables == [[[nasty], [nasty]]]
    assert page.texts["caption"] == [nasty]


def test_the_page_asks_for_nothing_else():
    report = Report("t")
    report.section("one")
    report.section("two")
    report.figure(_png(), "c")
    page = Page(report.html)
    assert page.links == ["#s1", "#s2"] == [f"#{name}" for name in page.ids]
    assert "http" not in report.html
    assert "url(" not in report.html
    assert "prefers-color-scheme: dark" in report.html


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (-0.5, "−0.5"),
        (1e-12, "10−12"),  # 10 with a superscript
        (1.23456e-7, "1.235·10−7"),
        (-2.5e10, "−2.5·1010"),
        (12345, "12,345"),
        (-3, "−3"),
        (0, "0"),
        (0.0, "0"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
        (True, "yes"),
        (None, "–"),
        ("ten", "ten"),
    ],
)
def test_numbers_are_readable(value, shown):
    report = Report("t")
    report.table([{"a": value}])
    assert Page(report.html).tables == [[["a"], [shown]]]


def test_numbers_of_a_column_stand_with_their_points_below_each_other():
    """Spaces as wide as digits take the places of decimals that a number does not have."""
    report = Report("t")
    report.table([{"a": v, "n": 3} for v in (0.0125, 12.3, 123.456, -1.5, 1e-7, 12345.6, None)])
    rows = [row[0] for row in Page(report.html).tables[0][1:]]
    assert [text.rstrip("\u2007\u2008") for text in rows] == [
        "0.01250", "12.30", "123.5", "−1.500", "10−7", "12,346", "–",
    ]  # fmt: skip
    plain = [text for text in rows if "10−7" not in text and "–" not in text]
    after = [
        len(text) - (text.find(".") if "." in text else text.find("\u2008")) for text in plain
    ]
    assert set(after) == {6}  # the point and five places, of digits or as wide


def test_measured_numbers_have_two_digits_of_their_error():
    report = Report("t")
    pairs = [(4.2564, 0.0311), (130.314, 1.846), (-2.5, math.nan), (0.1, 0.0)]
    report.table([{"a": Measured(*pair), "b": Measured(1.0, None)} for pair in pairs])
    rows = Page(report.html).tables[0][1:]
    assert [row[0].replace("\u2007", "").replace("\u2008", "") for row in rows] == [
        "4.256 ± 0.031", "130.3 ± 1.8", "−2.5000", "0.1000 ± 0.0000",
    ]  # fmt: skip
    assert [row[1] for row in rows] == 4 * ["1.0000"]
    starts = {row[0].find(" ± ") - row[0].find(".") for row in rows[:2]}
    assert len(starts) == 1


def test_what_was_not_shown_is_not_told_as_shown():
    report = Report("t")
    report.take_away("the <law>\n  is right")
    report.take_away("digits are sharp", holds=False)
    shown, not_shown = Page(report.html).texts["p"]
    assert shown == "Take away: the <law> is right"
    assert not_shown == "Not shown in this run: digits are sharp"
    assert 'class="summary fails"' in report.html


def test_a_sharp_picture_is_neither_shrunk_nor_smoothed():
    report = Report("t")
    report.figure(_png(), "c", sharp=True)
    assert "<figure class=sharp><img " in report.html
    rules = report.html.partition("figure.sharp img {")[2].partition("}")[0]
    assert "max-width: none" in rules
    assert "image-rendering: pixelated" in rules


def test_superscripts_are_superscripts():
    report = Report("t")
    report.table([{"a": 1.5e-7}])
    assert "1.5·10<sup>−7</sup>" in report.html


def test_claims_carry_the_verdict_that_follows_from_their_bounds():
    claims = [
        Claim("mass is kept", 2e-13, high=1e-12),
        Claim("slope", -1.2, low=-1.05, high=-0.95),
        Claim("far from the training data", 0.9, low=0.9),
        Claim("lost", math.nan, high=1.0),
    ]
    report = Report("t")
    report.claims(claims[:2], caption="first")
    report.claims(claims[2:])
    page = Page(report.html)
    assert page.tables[0] == [
        ["claim", "measured", "required", "verdict"],
        ["mass is kept", "2·10−13", "≤ 10−12", "✓ holds"],
        ["slope", "−1.2", "−1.05 … −0.95", "✗ fails"],
    ]
    assert page.tables[1][1:] == [
        ["far from the training data", "0.9", "≥ 0.9", "✓ holds"],
        ["lost", "NaN", "≤ 1", "✗ fails"],
    ]
    # the head, before any section, counts them and names those that fail
    assert page.texts["p"][0] == "2 of 4 claims hold. These fail: slope; lost."
    good = Report("t")
    good.claims(claims[:1])
    assert Page(good.html).texts["p"][0] == "1 of 1 claims hold."


def test_pictures_come_back_byte_for_byte(tmp_path):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([0, 1], [1, 3])
    gif = io.BytesIO()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 128, 255)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    file = tmp_path / "film.gif"
    file.write_bytes(gif.getvalue())
    report = Report("t")
    report.figure(_png(), 'a "picture" < 1')
    report.figure(file, "a film")
    report.figure(str(file), "again")
    report.figure(figure, "a figure")
    png, film, again, drawn = Page(report.html).pictures
    assert png == ("data:image/png", _png(), 'a "picture" < 1')
    assert film == ("data:image/gif", gif.getvalue(), "a film")
    assert again[1] == film[1]
    assert Image.open(io.BytesIO(film[1])).n_frames == 3
    assert Image.open(io.BytesIO(drawn[1])).size == (100, 50)


def test_the_file_is_the_page_and_is_written_whole(tmp_path, monkeypatch):
    report = Report("Wände", lead="α → ω")
    target = tmp_path / "report.html"
    report.write(target)
    assert target.read_bytes() == report.html.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdegen.storage.os.fsync", full)
    with pytest.raises(OSError, match="were needed"):
        Report("other").write(target)
    assert target.read_bytes() == report.html.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_is_the_same_bytes():
    def build():
        report = Report("t")
        report.figure(Figure(figsize=(1, 1), dpi=40), "empty")
        return report.html

    assert build() == build()


def test_bad_requests(tmp_path):
    report = Report("t")
    with pytest.raises(ValueError, match="a table needs at least one row"):
        report.table([])
    with pytest.raises(ValueError, match=r"columns \['a'\], but row 1 has \['b'\]"):
        report.table([{"a": 1}, {"b": 2}])
    with pytest.raises(ValueError, match="a table of claims needs at least one"):
        report.claims([])
    with pytest.raises(ValueError, match="must be a PNG or a GIF, but begins with b'%PDF"):
        report.figure(b"%PDF-1.4 and more", "no")
    with pytest.raises(FileNotFoundError):
        report.figure(tmp_path / "none.png", "no")
    with pytest.raises(ValueError, match="'nothing' has low = -inf, high = inf"):
        Claim("nothing", 1.0)
    with pytest.raises(ValueError, match="low = 2, high = 1"):
        Claim("crossed", 1.0, low=2.0, high=1.0)


def _png():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (0, 114, 178)).save(buffer, "PNG")
    return buffer.getvalue()
