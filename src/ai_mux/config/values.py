"""What one value means: text, numbers, durations, sizes, globs, paths.

Each reader takes a node and returns the value, or raises ``Wrong`` with a
sentence that says how to mend it and does not repeat what was written.
"""

import os
import re
from collections.abc import Callable, Collection
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar

from ai_mux.config.report import Report, Wrong
from ai_mux.config.tree import Items, Kind, Node, Scalar, describe

T = TypeVar("T")

# C0 controls, DEL and C1 controls break lines and terminals; surrogates are not Unicode text.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")

# What no file would be called: keys and JSON Web Tokens begin like this, and other tokens are
# one long word.
_SECRET: Final = re.compile(r"(?:sk-|eyJ)[^/]*|[A-Za-z0-9_+=-]{32,}")

# Go's time.ParseDuration, whose notation the product's contract names.
_UNIT_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION: Final = re.compile(rf"\+?(?:{_DURATION_PART.pattern})+")
_DURATION_FORM: Final = 'write it like "90s", "1m30s" or "1.5h" (ns, us, ms, s, m, h), or as whole seconds'
# Go counts durations in 63 bits of nanoseconds: 292 years.
_MAX_NS: Final = 2**63 - 1
LONGEST_S: Final = _MAX_NS / 10**9

_UNIT_BYTES: Final = {
    "": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
_SIZE: Final = re.compile(r"([0-9]{1,18})(|[KMG]i?B)")
_SIZE_FORM: Final = 'write it like "64MiB" (KiB, MiB, GiB, KB, MB, GB), or as whole bytes'

# The names of models are printable ASCII without blanks and commas, and none has half as many characters.
_GLOB: Final = re.compile(r"[!-+\--~]{1,128}")
GLOB_FORM: Final = 'write one model, like "gpt-5.1", or several, like "claude-sonnet-*"'


def text(node: Node) -> str:
    """Return a string: one line, not empty."""
    written = _string(node)
    if not written:
        raise Wrong("must not be empty; write a value, or remove the key")
    return written


def possibly_empty(node: Node) -> str:
    """Return a string of one line, which may be empty."""
    return _string(node)


def choice(options: Collection[str]) -> Callable[[Node], str]:
    """Return a reader of one of several words."""

    def read(node: Node) -> str:
        word = text(node)
        if word not in options:
            raise Wrong(f"must be one of {', '.join(options)}")
        return word

    return read


def flag(node: Node) -> bool:
    """Return a bool. Plain yes and no count as well: nothing else can be meant where a bool stands."""
    if isinstance(node, Scalar):
        if node.kind is Kind.BOOL:
            return node.text.lower() == "true"
        if node.kind is Kind.STRING and node.plain and node.text.lower() in {"yes", "no"}:
            return node.text.lower() == "yes"
    raise Wrong(f"must be true or false, without quotes, not {describe(node)}")


def count(node: Node) -> int:
    """Return a positive whole number."""
    if not isinstance(node, Scalar) or node.kind is not Kind.INTEGER:
        raise Wrong(f"must be a whole number, without quotes, not {describe(node)}")
    number = _decimal(node.text)
    if number is None:
        raise Wrong("must be a positive whole number in decimal digits")
    return number


def duration_s(node: Node, *, form: str = _DURATION_FORM) -> float:
    """Return seconds, from Go's notation or whole seconds. Positive, to the nanosecond.

    Args:
        node: The value.
        form: How a message says that it is written.
    """
    written = _number_or_text(node, form)
    if written.startswith("-") or not written.strip("+0"):
        raise Wrong(f"must be positive; {form}")
    if _DIGITS.fullmatch(written):
        ns = int(written) * _UNIT_NS["s"]
    # 64: Go's own longest duration takes 27 characters.
    elif len(written) <= 64 and _DURATION.fullmatch(written):
        ns = int(sum(Fraction(number) * _UNIT_NS[unit] for number, unit in _DURATION_PART.findall(written)))
    else:
        raise Wrong(f"is not a duration; {form}")
    if ns <= 0:
        raise Wrong(f"must be positive; {form}")
    if ns > _MAX_NS:
        raise Wrong("is longer than 292 years, the longest duration; write less")
    return ns / 10**9


def size(node: Node) -> int:
    """Return bytes, from whole bytes or a number with a unit. Positive."""
    written = _number_or_text(node, _SIZE_FORM)
    if not (parts := _SIZE.fullmatch(written)):
        raise Wrong(f"is not a size; {_SIZE_FORM}")
    if not (number := int(parts[1])):
        raise Wrong(f"must be positive; {_SIZE_FORM}")
    return number * _UNIT_BYTES[parts[2]]


def several(node: Node, read: Callable[[Node], T], *, at: str, report: Report) -> list[T]:
    """Return what ``read`` makes of each item of a list, or of one value that stands without a list.

    What is wrong with an item goes to ``report``, with the item's own line.

    Raises:
        Wrong: The one value cannot be read.
    """
    if not isinstance(node, Items):
        return [read(node)]
    found = []
    for index, item in enumerate(node.items):
        try:
            found.append(read(item))
        except Wrong as exc:
            report.error(item.line, f"{at}[{index}]", str(exc))
    return found


def glob(node: Node) -> str:
    """Return the name of a model, in which ``*``, ``?`` and ``[…]`` may stand for others."""
    written = text(node)
    if not is_glob(written):
        raise Wrong(f"is no name of a model; {GLOB_FORM}")
    return written


def is_glob(written: str) -> bool:
    """Tell whether this may be the name of a model, or of several."""
    return _GLOB.fullmatch(written) is not None


def path(node: Node) -> Path:
    """Return an absolute path. ``~`` is expanded; a relative one starts at the working directory.

    Raises:
        Wrong: It is empty, or a secret in the place of its file's name: paths are logged.
    """
    written = text(node)
    if _SECRET.fullmatch(written) and not Path(written).exists():
        raise Wrong("looks like a key or token itself; write it into a file, and name that file here")
    return expanded(written)


def expanded(written: str) -> Path:
    """Return ``written`` as an absolute path with ``~`` expanded.

    Raises:
        Wrong: ``~`` stands for a home directory that does not exist.
    """
    advice = "'~' stands for a home directory, and there is none; set HOME, or write an absolute path"
    if written == "~" or written.startswith("~/"):
        # An empty HOME would silently become the root directory.
        home = os.environ.get("HOME")
        if home is not None and not home.startswith("/"):
            raise Wrong(advice)
    try:
        return Path(written).expanduser().absolute()
    except RuntimeError:
        raise Wrong(advice) from None


def _string(node: Node) -> str:
    if not isinstance(node, Scalar) or node.kind is not Kind.STRING:
        if not isinstance(node, Scalar):
            raise Wrong(f"must be a string, not {describe(node)}")
        if node.kind is Kind.NULL:
            raise Wrong("has no value; write one, or remove the key")
        raise Wrong(f"must be a string, and without quotes this is {describe(node)}; put it in quotes")
    if _UNPRINTABLE.search(node.text):
        raise Wrong("holds a line break or another control character; write one line of plain text")
    return node.text


def _number_or_text(node: Node, form: str) -> str:
    if isinstance(node, Scalar) and node.kind is Kind.INTEGER:
        return node.text.removeprefix("+")
    if isinstance(node, Scalar) and node.kind is Kind.FLOAT:
        raise Wrong(f"must not be a number with a fraction; {form}")
    return text(node)


def _decimal(digits: str) -> int | None:
    number = int(digits.removeprefix("+")) if _DIGITS.fullmatch(digits.removeprefix("+")) else 0
    return number or None
