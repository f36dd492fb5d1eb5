"""The site: the repository's Markdown as it is, with a table of contents and a search.

Rule 1: the pages are written for GitHub and for an editor. Nothing in them is for this site alone:
its contents are the lists of the index pages, its links are the pages' own.

Rule 2: nothing is fetched, neither to build it nor to read it.

It is built from the root of the repository, so that every path is the same here as there.
"""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
sys.path.insert(0, str(_HERE))

import words  # noqa: E402 - beside this file

project = "ai-mux"
author = "the ai-mux contributors"
project_copyright = author
release = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/README"
_KINDS: Final = ("tutorial", "how-to", "reference", "explanation")
include_patterns = ["*.md", "docs/*.md", *(f"docs/{kind}/*.md" for kind in _KINDS)]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"ai-mux {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "forward.html"}  # the beginning is docs/README.html
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e6e", "color-brand-content": "#0b6e6e"},
    "dark_css_variables": {"color-brand-primary": "#5cc8c8", "color-brand-content": "#5cc8c8"},
}

# Which pages' links are the contents below them, and where those have to lead: an index lists what
# lies beside it, and a page in two languages has its translations below it.
_CONTENTS: Final = {
    root_doc: r".*",
    **{f"docs/{kind}/README": rf"docs/{kind}/" for kind in _KINDS},
    "docs/configuration": r"docs/configuration\.",
    "README": r"README\.",
}
# In the contents a page has its own title, but not where two languages share one.
_TITLES: Final = {
    "/README.md": "README (English)",
    "/README.zh.md": "README (中文)",
    "/docs/configuration.en.md": "English",
    "/docs/configuration.zh.md": "中文",
}
_LINK: Final = re.compile(r"\]\(([^)#\s]+\.md)(?:#[^)\s]*)?\)")


def _contents(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Add a table of contents to an index, out of its own links, in their order."""
    wanted = _CONTENTS.get(docname)
    if wanted is None:
        return
    directory = os.path.dirname(docname)  # noqa: PTH120 - a name of Sphinx's, and no path
    links = (os.path.normpath(os.path.join(directory, link)) for link in _LINK.findall(source[0]))  # noqa: PTH118
    pages = [f"/{page}" for page in dict.fromkeys(links) if re.match(wanted, page)]
    pages = [f"{_TITLES[page]} <{page}>" if page in _TITLES else page for page in pages]
    source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _pictures(_: "Sphinx", doctree: nodes.document) -> None:
    """Let a picture that leads to itself be opened: to Sphinx, a link to such a file is a download."""
    for link in list(doctree.findall(addnodes.download_reference)):
        pictures = list(link.findall(nodes.image))
        if [picture["uri"] for picture in pictures] == [link["reftarget"]]:
            pictures[0]["width"] = "100%"  # one that is scaled, Sphinx links to its file
            link.replace_self(pictures)


def _language(_: "Sphinx", docname: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Say which pages are Chinese, or a browser may choose Japanese shapes for their characters."""
    if docname.endswith(".zh"):
        context["language"] = "zh-Hans"


def setup(app: "Sphinx") -> dict[str, Any]:
    """Tell Sphinx of what is ours."""
    app.connect("source-read", _contents)
    app.connect("doctree-read", _pictures, priority=400)  # before Sphinx collects downloads and pictures
    app.connect("html-page-context", _language)
    app.add_lexer("caddyfile", TextLexer)
    words.use()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
