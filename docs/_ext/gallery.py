"""The gallery: examples/ as pages, each with its picture and the numbers that it printed.

They are copied into the build folder and run there by sphinx-gallery, with warnings as errors.
Those that `examples/quick.toml` calls long are not run: their pages show picture and numbers of
the last whole run, which `make examples-full` repeats. What the others print is compared with
their headers, number by number.
"""

import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from joblib.externals.loky import process_executor
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx_gallery.scrapers import figure_rst

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
from example_files import NAMES, NUMBER, costs, header, is_long, shape, source  # noqa: E402

EXAMPLES = ROOT / "docs" / "_build" / "examples"  # where the copies are
PAGES = ROOT / "docs" / "gallery"
PICTURES = "pictures/examples"  # of long ones, in docs/
_LOG = logging.getLogger(__name__)
_ROUNDING = 1e-8  # what is smaller is rounding, which differs from processor to processor

SECTIONS = {
    "start": ("Start here", """
        overview own_drift double_well ddpm_is_discretised_vp train_and_compare_samplers
        verdict"""),
    "wells": ("Wells, rates and noise", """
        kramers_escape kramers_ensemble kramers_turnover tilted_washboard ito_or_stratonovich
        matrix_noise_readings chemical_langevin nonequilibrium jarzynski_crooks active_particles
        soft_discs average_to_tolerance fit_potential neural_sde"""),
    "diffusion": ("Scores, samplers and likelihoods", """
        gaussian_reverse train_on_files likelihood error_budget two_decompositions
        learned_schedule three_routes foreign_network inverse_problem"""),
    "noising": ("Any process as noise", """
        double_well_noising rotating_drift critically_damped heat_equation phi4"""),
    "energies": ("Energies and latent variables", """
        energy_ring boltzmann_digits vae_digits"""),
}  # fmt: skip


def sections() -> dict[str, str]:
    """Return the folder of each example."""
    found = {
        name: f"{i}_{key}"
        for i, (key, (_, names)) in enumerate(SECTIONS.items(), 1)
        for name in names.split()
    }
    if set(found) != set(NAMES):
        raise ValueError(f"SECTIONS and examples/ differ in {sorted(set(found) ^ set(NAMES))}")
    return found


def staged(name: str) -> str:
    """Return the text of an example; a long one has its stored picture in its header."""
    text = source(name)
    if not is_long(name):
        return text
    end = text.index('"""', 3)
    picture = f"{PICTURES}/{name}.png"
    if not (ROOT / "docs" / picture).exists():
        _LOG.warning("docs/%s is missing: make examples-full", picture)
        return text
    seconds = costs()["cpu_seconds"][name]
    shown = (
        f"\n.. image:: /{picture}\n   :alt: What {name} draws\n   :class: sphx-glr-single-img\n\n"
        f"A whole run takes {seconds:.0f} CPU seconds. Picture and numbers are those of the last "
        "one; this page did not run it again.\n"
    )
    config = f"\n# sphinx_gallery_thumbnail_path = '{picture}'\n"
    return text[:end] + shown + text[end : end + 3] + config + text[end + 3 :]


def stage() -> None:
    """Copy the examples into the build folder, by section."""
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    for i, (key, (title, _)) in enumerate(SECTIONS.items(), 1):
        folder = EXAMPLES / f"{i}_{key}"
        folder.mkdir(parents=True)
        (folder / "GALLERY_HEADER.rst").write_text(f"{title}\n{'-' * len(title)}\n")
    (EXAMPLES / "GALLERY_HEADER.rst").write_text(_HEADER, encoding="utf-8")
    for name, folder in sections().items():
        (EXAMPLES / folder / f"{name}.py").write_text(staged(name), encoding="utf-8")


def run_pattern() -> str:
    """Return the pattern of the files that are run."""
    return rf"[/\\]({'|'.join(name for name in NAMES if not is_long(name))})\.py$"


class InOrder:
    """Sorts the examples of a section as they are listed."""

    def __init__(self, folder: str) -> None:
        self._order = list(sections())

    def __call__(self, file: str) -> int:
        """Return the place of an example."""
        return self._order.index(Path(file).stem)


def reset(conf: dict[str, object], name: str, when: str) -> None:
    """Make warnings errors while an example runs, and undo what one may set."""
    process_executor._MAX_MEMORY_LEAK_SIZE = 1e12  # 300 MB would start the worker anew
    warnings.resetwarnings()
    if when == "before":
        warnings.simplefilter("error")
        # torch's arrays do not know numpy's copy= yet, and matplotlib asks for it
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="matplotlib.cbook")
    plt.close("all")
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)


def scrape(block: object, variables: dict[str, object], conf: dict[str, object]) -> str:
    """Show the picture that an example saved under its own name."""
    saved = Path(str(variables["src_file"])).with_suffix(".png")
    if not saved.exists():
        return ""
    paths = variables["image_path_iterator"]
    shown = next(paths)  # type: ignore[call-overload]
    shutil.move(saved, shown)
    return figure_rst([shown], str(conf["src_dir"]), f"What {saved.stem} draws")


def printed(name: str, folder: str) -> str:
    """Return what an example printed when its page was made."""
    text = (PAGES / folder / f"{name}.rst").read_text(encoding="utf-8")
    found = re.search(
        r"sphx-glr-script-out\n\n \.\. code-block:: none\n\n((?:    .*\n|\n)*)", text
    )
    return "\n".join(line[4:] for line in found[1].splitlines()).strip("\n") if found else ""


def numbers(line: str) -> Iterator[str]:
    """Yield the numbers of a line, as they are written."""
    return (found[0] for found in re.finditer(NUMBER, line))


def agree(a: str, b: str) -> bool:
    """Return whether two numbers agree to a hundredth, or to a unit of their last one."""
    x, y = float(a.replace(",", "")), float(b.replace(",", ""))
    mantissa, _, exponent = a.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(x - y) <= max(1e-2 * max(abs(x), abs(y)), 1.01 * unit, _ROUNDING)


def differences(said: str, found: str) -> list[str]:
    """Return the lines of a header beside those that were printed, where they differ."""
    if shape(said) != shape(found):
        return [f"{said}\n  |\n{found}"]
    pairs = zip(said.splitlines(), found.splitlines(), strict=True)
    timed = re.compile(r"\d s\b")
    return [
        f"{a} | {b}"
        for a, b in pairs
        if not timed.search(a)
        and not all(agree(*pair) for pair in zip(numbers(a), numbers(b), strict=True))
    ]


def check(app: Sphinx) -> None:
    """Compare what was printed with the headers, and look for pictures."""
    if not app.config.sphinx_gallery_conf["plot_gallery"]:
        return
    for name, folder in sections().items():
        if is_long(name):
            continue
        for line in differences(header(name), printed(name, folder)):
            _LOG.warning("examples/%s.py does not print what its header says: %s", name, line)
        if not list((PAGES / folder / "images").glob(f"sphx_glr_{name}_001.*")):
            _LOG.warning("examples/%s.py saved no %s.png", name, name)


_HEADER = """
Gallery
=======

Programs of at most 60 lines, each with its picture and the numbers that it prints. Short ones were
run when this site was built; the others show their last whole run.
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the check, after sphinx-gallery has run the examples."""
    app.connect("builder-inited", check, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
