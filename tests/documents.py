"""Reads this repository's Markdown, so that tests can hold it to its word."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def blocks(language: str, *, document: str = "README.md", under: str | None = None) -> list[str]:
    """Return the fenced blocks of a language, in order.

    Args:
        language: What stands behind the opening fence.
        document: The file's path in the repository.
        under: Only those below this heading, up to the next one.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    if under is not None:
        # A heading is looked for outside of blocks: a shell comment looks like one.
        places = list(_HEADING.finditer(_without_blocks(text)))
        names = [match[1] for match in places]
        at = names.index(under)
        end = places[at + 1].start() if at + 1 < len(places) else len(text)
        text = text[places[at].start() : end]
    return [body for tag, body in _FENCE.findall(text) if tag == language]


def links(document: str) -> list[str]:
    """Return the targets of a document's links, in order."""
    return _LINK.findall(_without_blocks((ROOT / document).read_text(encoding="utf-8")))


def anchors(document: str) -> set[str]:
    """Return what ``#…`` can stand for in a document, as GitHub makes it from headings."""
    headings = _HEADING.findall(_without_blocks((ROOT / document).read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_blocks(text: str) -> str:
    """Return the text with the lines of fenced blocks blanked, everything at its place."""
    return _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
