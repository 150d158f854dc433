"""Sphinx configuration of the documentation: `make docs` writes build/docs/html/index.html."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dfs_ros.version import __version__  # noqa: E402

project = "dfs_ros"
author = "dfs_ros developers"
copyright = "dfs_ros developers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["Thumbs.db"]
html_theme = "furo"
html_title = f"dfs_ros {__version__}"
templates_path: list[str] = []
html_static_path: list[str] = []

# Anchors as GitHub makes them, so that links work on both.
myst_heading_anchors = 4
# Shell lines stand in indented blocks, without a language.
highlight_language = "none"
# Docstrings write names and values between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# On a machine that only builds the documentation.
autodoc_mock_imports = ["rclpy", "cv_bridge", "tensorrt", "tensorrt_rtx", "cuda"]


def _link_within(app: object, name: str, source: list[str]) -> None:
    """Lead the link to a page outside this folder to that which includes it."""
    source[0] = source[0].replace("../models/light.md", "light.md")


def setup(app: object) -> None:
    app.connect("source-read", _link_within)  # type: ignore[attr-defined]
