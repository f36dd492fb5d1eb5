"""What the demo prints: plain text that can be copied, with a little colour at a terminal.

Rule: at a terminal and in a pipe the words and line breaks are the same. A line
that is meant for a shell or a file stands alone, complete, and is never wrapped.
"""

import os
import textwrap
from typing import Final, TextIO

from ai_mux.logs import wants_colour

_WIDTH: Final = 80
_BOLD: Final = "1"
_FAINT: Final = "2"
_GREEN: Final = "32"


class Page:
    """A text stream with headings, prose, things to copy, and an answer that grows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = wants_colour(out, os.environ)
        self._column = 0

    def heading(self, text: str) -> None:
        """Print a heading, after an empty line."""
        self._print(f"\n{self._painted(text, _BOLD)}\n")

    def prose(self, text: str) -> None:
        """Print a paragraph."""
        self._print(textwrap.fill(text, _WIDTH) + "\n")

    def note(self, text: str) -> None:
        """Print a line that matters less."""
        self._print(self._painted(text, _FAINT) + "\n")

    def copy(self, text: str) -> None:
        """Print lines to copy, between empty ones. What is indented stays indented, nothing else is."""
        self._print(f"\n{text.strip()}\n\n")

    def word(self, text: str) -> None:
        """Print the next word of the answer as it arrives, on a new line where this one is full."""
        word = text.strip()
        if self._column and self._column + 1 + len(word) > _WIDTH:
            self._print("\n")
            self._column = 0
        elif self._column:
            word = " " + word
        self._column += len(word)
        self._print(self._painted(word, _GREEN))

    def end_of_words(self) -> None:
        """End the answer's last line."""
        self._print("\n")
        self._column = 0

    def _painted(self, text: str, sgr: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self._colour else text

    def _print(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
