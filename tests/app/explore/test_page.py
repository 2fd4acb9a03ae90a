"""The page in a real browser: what is seen, moved, played, saved; and nothing from elsewhere."""

import re
import runpy
import shutil
import signal
import subprocess
import sys

import pytest

pytest.importorskip("bokeh", reason="the page needs bokeh: pip install 'sdegen[explore]'")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TRAP = """
import sdegen as sg


def trap(noise: float = 1.0) -> sg.SDE:
    if noise > 2.5:
        raise ValueError("the noise is too loud")
    return sg.OrnsteinUhlenbeck(rate=2.0, mean=0.0, sigma=noise)
"""
FRAMES = "Number(document.body.dataset.frames || 0)"
PATIENCE = 60_000  # milliseconds, of a machine that is busy: no deadline


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page on a trap, as its user starts it."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "trap.py").write_text(TRAP)
    words = ["explore", "trap.py:trap", "--no-browser", "--particles", "2000", "--steps", "100"]
    words += ["--mean", "1", "--dt", "0.02", "--out", "seen"]
    program = subprocess.Popen(
        [sys.executable, "-m", "sdegen", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = re.search(r"http://127\.0\.0\.1:\d+/", program.stdout.readline())
    yield address.group(), folder
    program.send_signal(signal.SIGINT)
    _, told = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in told


@pytest.fixture(scope="module")
def tab(served):
    """The page in a browser, with what its console says and where it asks."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE)
        page.said, page.asked = [], []
        page.on("console", lambda line: page.said.append((line.type, line.text)))
        page.on("pageerror", lambda error: page.said.append(("error", str(error))))
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("websocket", lambda socket: page.asked.append(socket.url))
        page.goto(served[0])
        page.wait_for_function(f"{FRAMES} >= 2")
        yield page
        browser.close()


def source(tab, name):
    """The columns of a source, as the browser has them."""
    return tab.evaluate(
        """name => {
          const all = [...Bokeh.documents[0]._all_models.values()];
          const found = all.find(m => m.name === name);
          return Object.fromEntries(Object.entries(found.data).map(([k, v]) => [k, [...v]]));
        }""",
        name,
    )


def move(tab, name, value):
    """Move a slider."""
    tab.evaluate(
        """([name, value]) => {
          const all = [...Bokeh.documents[0]._all_models.values()];
          all.find(m => m.name === name && "value" in m).value = value;
        }""",
        [name, value],
    )


def says(tab, text):
    """Wait until the page has a text."""
    tab.wait_for_function(
        """text => [...Bokeh.documents[0]._all_models.values()]
          .some(m => String(m.text || "").includes(text))""",
        arg=text,
    )


def click(tab, label):
    """Press the button whose label has a word."""
    tab.get_by_role("button", name=re.compile(label)).click()


def variance_of(curve):
    """The variance of a density at even nodes."""
    x, p = curve["x"], curve["p"]
    mean = sum(a * b for a, b in zip(x, p, strict=True)) / sum(p)
    return sum((a - mean) ** 2 * b for a, b in zip(x, p, strict=True)) / sum(p)


def test_time_goes_on_and_stops_when_it_is_told(tab):
    before = tab.evaluate(FRAMES)
    tab.wait_for_function(f"{FRAMES} >= {before + 3}")  # it plays from the beginning
    click(tab, "pause")
    tab.get_by_role("button", name=re.compile("play")).wait_for()
    rests, drawn = -1, tab.evaluate(FRAMES)
    while rests != drawn:  # what was on its way when it was told
        tab.wait_for_timeout(700)
        rests, drawn = drawn, tab.evaluate(FRAMES)
    assert max(source(tab, "distance")["t"]) < 2  # and not at its end
    click(tab, "play")
    tab.wait_for_function(f"{FRAMES} > {rests}")


def test_more_noise_is_seen_in_the_particles_and_in_the_density(tab):
    """At rest the variance is σ²/2k = σ²/4."""
    move(tab, "speed", "4")
    move(tab, "noise", 2.0)
    says(tab, "<b>t = 2</b>")  # the end of 100 steps of 0.02
    says(tab, "at rest</td>")
    assert variance_of(source(tab, "rest")) == pytest.approx(1.0, rel=0.03)  # of what is in view
    x = source(tab, "particles")["x"]
    assert len(x) == 2000
    mean = sum(x) / 2000
    variance = sum((v - mean) ** 2 for v in x) / 1999
    assert variance_of(source(tab, "density")) == pytest.approx(1.0, rel=0.03)
    # Euler's chain of k dt = 0.04 from N(1, 0.01); five standard errors of a variance, 6e-7
    at_rest = 4 * 0.02 / (1 - 0.96**2)
    exact = at_rest + (0.01 - at_rest) * 0.96**200
    assert variance == pytest.approx(exact, abs=5 * exact * (2 / 2000) ** 0.5)


def test_a_setting_that_is_refused_leaves_the_picture_and_says_why(tab):
    before = source(tab, "particles")  # at the end of the run
    move(tab, "noise", 2.9)
    says(tab, "the noise is too loud")
    assert source(tab, "particles") == before
    move(tab, "noise", 1.0)
    says(tab, "<td>0.2500</td>")


def test_a_step_that_is_too_long_is_told(tab):
    move(tab, "dt", "0.5")
    says(tab, "large for OrnsteinUhlenbeck")
    move(tab, "dt", "0.02")
    says(tab, "<b>t = 0</b>")


def test_what_is_saved_gives_what_is_seen(tab, served, monkeypatch, capsys):
    with tab.expect_download() as download:
        click(tab, "save as program")
    file = served[1] / "downloaded.py"
    download.value.save_as(file)
    assert file.read_text() == (served[1] / "seen" / download.value.suggested_filename).read_text()
    monkeypatch.chdir(served[1])
    monkeypatch.setattr("sys.path", [*sys.path])
    runpy.run_path(str(file))
    printed = capsys.readouterr().out
    shown = tab.evaluate(
        "[...Bokeh.documents[0]._all_models.values()].map(m => String(m.text || ''))"
        ".find(text => text.includes('Fokker–Planck</td>'))"
    )
    t, = re.findall(r"<b>t = ([0-9.]+)</b>", shown)  # fmt: skip
    mean, variance = re.findall(r"<td>(-?[0-9.]+) ±", shown)
    assert f"t = {t}, 2000 particles" in printed
    says_mean, says_variance = re.findall(r"= (-?[0-9.e-]+), of the density", printed)
    assert float(mean) == pytest.approx(float(says_mean), abs=6e-5)
    assert float(variance) == pytest.approx(float(says_variance), abs=6e-5)


def test_nothing_is_asked_of_any_network_and_the_console_has_no_error(tab, served):
    assert tab.said
    assert [line for line in tab.said if line[0] in ("error", "warning")] == []
    place = served[0].removeprefix("http:")
    assert {url.split(":", 1)[1].startswith(place) for url in tab.asked if "blob:" not in url} == {
        True
    }
    assert not any("cdn" in url for url in tab.asked)


def test_without_bokeh_it_says_what_to_install(monkeypatch, capsys):
    from sdegen.app.cli import main

    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert main(["explore", "--no-browser"]) == 2
    assert "pip install 'sdegen[explore]'" in capsys.readouterr().err
