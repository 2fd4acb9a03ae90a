"""The site: `make docs` builds it, offline, with warnings as errors.

Pages are Markdown. Blocks ```{code-cell} are run, their output and pictures are shown, and an
error or a warning of Python in one of them fails the build. Equations are Unicode text: nothing is
loaded from elsewhere when a page is read.
"""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext")]
os.environ["PYTHONPATH"] = str(ROOT)  # of the kernels that run the pages
os.environ["OMP_NUM_THREADS"] = "1"  # two pages at once are faster than two threads of one

import gallery  # noqa: E402
import kernels  # noqa: E402

import sdegen  # noqa: E402

project = "sdegen"
author = "the sdegen authors"
copyright = "the sdegen authors, MIT licence"
release = version = sdegen.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "gallery",
    "docstrings",
    "api_pages",
    "links",
    "benchmark_pages",
]
root_doc = "index"
highlight_language = "none"  # of what does not say: what programs print
# a shape such as Float[Tensor, "steps"] is taken for a name that several classes have
suppress_warnings = ["ref.python"]
exclude_patterns = ["_build", "_ext", "**/.ipynb_checkpoints"]

# pages of Markdown
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
_SERVER = kernels.prepare(DOCS / "_build")
nb_execution_timeout = 120
nb_execution_show_tb = True  # of a cell that failed: a warning, hence the end of the build
nb_execution_in_temp = True  # what a page saves is not left in the repository
nb_output_stderr = "remove"  # progress; what Python warns of is an error
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables that a cell returns
nb_mime_priority_overrides = [("html", "image/svg+xml", 5)]

# docstrings
smartquotes_action = "D"  # dashes; quotes are those of Python
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Reference"]
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring is a link where it is a public name
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# the gallery
gallery.stage()
sphinx_gallery_conf = {
    "examples_dirs": str(gallery.EXAMPLES),
    "gallery_dirs": "gallery",
    "filename_pattern": gallery.run_pattern(),
    "within_subsection_order": "gallery.InOrder",
    "image_scrapers": ("gallery.scrape",),
    "reset_modules": ("matplotlib", "gallery.reset"),
    "reset_modules_order": "both",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("sdegen",),
    "reference_url": {"sdegen": None},
    "capture_repr": (),
    "remove_config_comments": True,
    "only_warn_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "notebook_extensions": set(),
    "parallel": 2,
}

html_theme = "pydata_sphinx_theme"
html_title = "sdegen"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sdegen"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "show_toc_level": 2,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "nord",
}
