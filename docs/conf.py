"""Sphinx configuration."""

import kdopt

project = "kdopt"
author = "The kdopt authors"
release = kdopt.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes, which types do not
napoleon_use_ivar = True
html_theme = "furo"
html_title = "kdopt"
