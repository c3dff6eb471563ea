"""The documentation site: `make docs` builds it into build/docs, without a network."""

import sys
from pathlib import Path

import stcore

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "stcore"
version = release = stcore.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml", "prose", "commands", "decisions"]

html_theme = "furo"
html_title = f"stcore {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path: list[str] = []
exclude_patterns = ["_ext", "notebooks"]

# Pages are plain Markdown, which reads well on a Git host too, with formulas between $ and links to headings.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False  # Keras' are of another style
autodoc_preserve_defaults = True
default_role = "code"

# Signatures name more than the site describes: other packages' types, and those of ours that no user meets.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!stcore\.).*"),
    ("py:.*", r"stcore\.(?!protocols\.|errors\.)\w+\.[\w.]+"),
]
