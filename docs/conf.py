"""How the documentation site is built: `make docs`."""

from penstock import __version__

project = "penstock"
author = "the penstock authors"
html_show_copyright = False
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"penstock {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
default_role = "any"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
nitpicky = False
