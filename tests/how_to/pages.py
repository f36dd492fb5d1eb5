"""Reads a page of the documentation as steps that a machine can follow.

Rule 1: a block of ``bash`` is run, unless the comment above it says why it cannot be.
Nothing is left out silently: a comment that is not one of these is an error.

    <!-- not run: REASON -->   the next block is only read
    <!-- run by: TEST -->      another test runs it, in this file
    <!-- keeps running -->     it serves until the page ends, or until another step of it does; it is
                               ready when it has printed what is shown, else when it says that it listens
    <!-- typed: TEXT -->       what the person types while it runs
    <!-- on: MACHINE -->       it runs on another machine, with a home of its own
    <!-- file: PATH -->        the next block, of any language, is that file; two comments may stand together

Rule 2: a block of ``text`` below a command is what it prints: these lines, in this
order, among others. "…" stands for anything.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from documents import ROOT

_COMMENT: Final = re.compile(r"<!-- (.*?) -->")
_FENCE: Final = re.compile(r"^```(\w*)$")
_MARKS: Final = frozenset({"not run", "run by", "keeps running", "typed", "on", "file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A fenced block that something is done with.

    Attributes:
        line: Where it begins in the page.
        language: What stands behind its fence.
        body: What stands in it.
        marks: Its comments, by name; a comment without a value has an empty one.
        shows: The lines that it prints.
    """

    line: int
    language: str
    body: str
    marks: dict[str, str]
    shows: tuple[str, ...] = ()


def steps(page: str) -> list[Step]:
    """Return what is to be done on a page, in order.

    Args:
        page: Its path in the repository.

    Raises:
        ValueError: A comment is none that this knows, or it or an output belongs to nothing.
    """
    found: list[Step] = []
    marks: dict[str, str] = {}
    lines = iter(enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), start=1))
    for at, line in lines:
        if comment := _COMMENT.fullmatch(line):
            name, _, value = comment[1].partition(": ")
            if name not in _MARKS:
                raise ValueError(f"{page}:{at}: no mark is called {name!r}")
            marks[name] = value
            continue
        fence = _FENCE.match(line)
        if fence is None:
            if marks and line:
                raise ValueError(f"{page}:{at}: the comment above belongs to no block")
            continue
        body = []
        for _, inside in lines:
            if inside == "```":
                break
            body.append(inside)
        if fence[1] == "text" and found:
            if found[-1].language != "bash":
                raise ValueError(f"{page}:{at}: nothing above prints this")
            found[-1] = replace(found[-1], shows=tuple(body))
        elif fence[1] == "bash" or "file" in marks:
            found.append(Step(line=at, language=fence[1], body="\n".join(body) + "\n", marks=marks))
        marks = {}
    return found


def is_shown(line: str, printed: str) -> bool:
    """Tell whether a line of a page is what was printed, "…" standing for anything."""
    wanted = ".*".join(re.escape(part) for part in re.split(r"\s*…\s*", line.strip()))
    return re.fullmatch(wanted, printed.strip()) is not None


def missing(shows: tuple[str, ...], printed: str) -> str | None:
    """Return the first line that was not printed after those before it, or None."""
    rest = iter(printed.splitlines())
    for line in shows:
        if line.strip() and not any(is_shown(line, one) for one in rest):
            return line
    return None
