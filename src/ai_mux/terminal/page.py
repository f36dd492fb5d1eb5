"""What a verb draws on for a terminal: as wide as that is, in its characters, with colours or without.

Rich is given ``Text`` and never a string, in which it would look for its markup.
"""

import io
from typing import Final

from rich import box
from rich.console import Console, RenderableType
from rich.text import Text

GAP: Final = 2
"""How many blanks stand between two columns of a table."""

# The lines of ``box.SIMPLE``, for terminals that have no others.
_ASCII: Final = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)


class _Paper(io.StringIO):
    """Takes what is drawn, and has the terminal's encoding, by which Rich chooses its lines."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class Page:
    """A page, from its first line to its last.

    Args:
        width: The terminal's, in columns.
        colour: Whether colours, bold and dim are welcome.
        encoding: The terminal's, such as ``utf-8``.

    Attributes:
        width: See above.
        fancy: The terminal has lines and blocks; else all must be ASCII.
        box: The lines of tables.
    """

    def __init__(self, *, width: int, colour: bool, encoding: str) -> None:
        self.width = width
        self.fancy = encoding.lower().startswith("utf")
        self.box: Final = box.SIMPLE if self.fancy else _ASCII
        self._paper = _Paper(encoding)
        self._console = Console(
            file=self._paper,
            width=width,
            force_terminal=colour,
            color_system="standard" if colour else None,
            no_color=not colour,
            legacy_windows=False,
        )

    def say(self, sentence: str, style: str = "") -> None:
        """Add a sentence, on as many lines as it takes."""
        self._console.print(Text(sentence, style))

    def draw(self, drawing: RenderableType) -> None:
        """Add a drawing."""
        self._console.print(drawing)

    def skip(self) -> None:
        """Add an empty line."""
        self._console.print()

    def text(self) -> str:
        """Return all of it, as the terminal is to be sent."""
        return self._paper.getvalue()
