"""How Sphinx makes the web book; `build.py` lays out the pages and calls it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for docstrings.py

project = "Removing Redundancy"
author = "The authors of Removing Redundancy"
copyright = "text CC BY 4.0, code MIT"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "docstrings"]
if not tags.has("student"):  # noqa: F821, Sphinx defines it
    extensions.append("sphinx.ext.viewcode")  # the library's code, which answers exercises

# Notebooks are shown as they were run, never run again.
nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "course_lib.classroom.links.heading_anchor"
myst_dmath_double_inline = True

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Nothing comes from another host: MathJax lies in _static, and no widget is loaded.
mathjax_path = "mathjax/tex-chtml.js"
nb_ipywidgets_js = {}

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = [("live.js", {"defer": "defer"})]
# A page of the library's code has no list of all pages: 220 times that took half of the build.
html_sidebars = {"_modules/**": []}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "extra_footer": "Built from recorded outputs; no page asks another host for anything.",
}
