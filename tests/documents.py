"""Reads this repository's Markdown, so that tests can hold it to its word."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SECTION: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE: Final = re.compile(r"`([^`\n]+)`")
_CELL_END: Final = re.compile(r"(?<!\\)\|")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def pages() -> list[str]:
    """Return the paths of all Markdown files that belong to the repository, but for working notes."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    elsewhere = {"node_modules", "build", "dist", "dev"}
    return sorted(
        str(path)
        for path in found
        if not elsewhere & set(path.parts) and not any(part.startswith(".") for part in path.parts)
    )


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


def sections(document: str) -> list["Section"]:
    """Return a document cut at its headings; what stands before the first one is not among them."""
    text = (ROOT / document).read_text(encoding="utf-8")
    places = list(_SECTION.finditer(_without_blocks(text)))
    ends = [place.start() for place in places[1:]] + [len(text)]
    return [
        Section(level=len(place[1]), title=place[2], text=text[place.end() : end])
        for place, end in zip(places, ends, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands below a heading, up to the next one.

    Attributes:
        level: How many signs the heading has.
        title: What it says.
        text: What stands below it.
    """

    level: int
    title: str
    text: str

    @property
    def fences(self) -> list[tuple[str, str]]:
        """Its fenced blocks: language and content."""
        return _FENCE.findall(self.text)

    @property
    def code(self) -> list[str]:
        """What stands in backticks in its prose and its tables."""
        return _CODE.findall(_without_blocks(self.text))

    @property
    def links(self) -> list[str]:
        """Its links' targets."""
        return _LINK.findall(_without_blocks(self.text))

    @property
    def prose(self) -> str:
        """Its text without blocks, names in backticks and links' targets."""
        return _LINK.sub("]", _CODE.sub("", _without_blocks(self.text)))

    @property
    def rows(self) -> list[list[str]]:
        """Its tables' rows, headers included, cut into cells."""
        lines = _without_blocks(self.text).splitlines()
        cut = (_CELL_END.split(line.strip()[1:-1]) for line in lines if line.startswith("|"))
        return [[cell.strip() for cell in row] for row in cut]


def _without_blocks(text: str) -> str:
    """Return the text with the lines of fenced blocks blanked, everything at its place."""
    return _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
