"""Sphinx configuration."""

import ast
import inspect

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import kdopt

project = "kdopt"
author = "The kdopt authors"
release = kdopt.__version__
copyright = f"{author}. kdopt {release}"  # the footer
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # copies MathJax: a page loads nothing from the network
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md"]
add_function_parentheses = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes, which types do not
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
napoleon_use_ivar = True
highlight_language = "none"  # of code without a language: trees, commands
html_theme = "furo"
html_title = "kdopt"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
mathjax3_config = {"chtml": {"scale": 0.9}}

BARE = {"choosing", "gallery", "losses"}
"""Pages on which bare names stand for functions of kdopt."""

PUBLIC = {
    f"{module.__name__}.{name}"
    for module in (kdopt, kdopt.losses, kdopt.scalarizers, kdopt.diagnostics, kdopt.nnx)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}


def function_named(code: str, page: str) -> str | None:
    """Returns the public function that ``name`` or ``name(arguments)`` refers to."""
    try:
        expression = ast.parse(code, mode="eval").body
    except SyntaxError:
        return None
    if isinstance(expression, ast.Call):
        expression = expression.func
    name = ast.unparse(expression)
    if page in BARE and not name.startswith("kdopt."):
        places = ("kdopt.", "kdopt.losses.")
    else:
        places = ("",)
    return next((p + name for p in places if p + name in PUBLIC), None)


class TrimmedCode(SphinxTransform):
    """Drops the empty line that ends the output of a doctest."""

    default_priority = 500

    def apply(self) -> None:
        """Trims the code blocks of the current page."""
        for block in self.document.findall(nodes.literal_block):
            text = block.astext().rstrip()
            block.rawsource, block.children = text, [nodes.Text(text)]


class LinksToReference(SphinxTransform):
    """Links code that names a public function to its entry in the reference.

    A missing entry is a warning, which fails the build.
    """

    default_priority = 500

    def apply(self) -> None:
        """Replaces the code on the current page by links."""
        page = self.env.docname
        for code in list(self.document.findall(nodes.literal)):
            target = function_named(code.astext(), page)
            inside = nodes.reference | addnodes.pending_xref | nodes.title
            if page == "api" or target is None or isinstance(code.parent, inside):
                continue
            link = addnodes.pending_xref(
                refdomain="py",
                reftype="func",
                reftarget=target,
                refexplicit=True,
                refwarn=True,
            )
            code.replace_self(link)
            link += code


def keep_returns_whole(*event: list[str]) -> None:
    """Keeps Napoleon from parsing text before a colon in ``Returns:`` as a type."""
    lines = event[-1]
    for heading, text in enumerate(lines[1:]):
        if lines[heading].strip() == "Returns:":
            lines[heading + 1] = text.replace(text.lstrip(), f": {text.lstrip()}")


def setup(app: Sphinx) -> None:
    """Registers the transforms."""
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=100)
    app.add_transform(TrimmedCode)
    app.add_transform(LinksToReference)
