"""Reads a JSON document, and changes a few of its values without touching the rest.

A credential file belongs to the vendor's own client as well, which may keep
there what we know nothing about. So a value is replaced in the text itself:
every other byte stays as it was, with its order, spacing, escapes and digits
(a parsed and printed ``1e400`` or ``0.10`` would not).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from ai_mux.errors import BrokenCredential

_DECODER: Final = json.JSONDecoder()
_BLANKS: Final = " \t\r\n"

_KINDS: Final[Mapping[type, str]] = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
}


def parse(document: bytes) -> dict[str, object]:
    """Return the JSON object (RFC 8259) that a file holds.

    Raises:
        BrokenCredential: It is empty, not UTF-8, not JSON, or not an object. The
            message quotes nothing of the document, which may be half a token.
    """
    if not document.strip():
        raise BrokenCredential("the file is empty")
    try:
        parsed = json.loads(document.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise BrokenCredential(f"the file is not UTF-8 (byte {exc.start})") from None
    except json.JSONDecodeError as exc:
        raise BrokenCredential(f"the file is not JSON (line {exc.lineno}, column {exc.colno})") from None
    except (RecursionError, ValueError):
        # Nested too deeply, or a number of more digits than Python reads.
        raise BrokenCredential("the file is not JSON that a credential file would hold") from None
    if not isinstance(parsed, dict):
        raise BrokenCredential(f"the file holds {_KINDS.get(type(parsed), 'a value')}, not a JSON object")
    return parsed


def changed(document: bytes, changes: Mapping[tuple[str, ...], object]) -> bytes:
    """Return the document with the values at some paths replaced or added.

    A path names members from the outermost object inwards. A missing last
    member is added at the end of its object; a missing or non-object parent is
    added or replaced as a whole.

    Raises:
        BrokenCredential: ``document`` is not a JSON object.
    """
    parse(document)
    text = document.decode("utf-8-sig")
    for path, value in changes.items():
        text = _with(text, _skip(text, 0), path, value)
    return text.encode("utf-8", "surrogatepass")


def _with(text: str, start: int, path: tuple[str, ...], value: object) -> str:
    """Return ``text`` with one member of the object at ``start`` set."""
    name, inner = path[0], path[1:]
    found: tuple[int, int] | None = None
    last = start + 1
    for key, begin, end in _members(text, start):
        last = end
        if key == name:
            found = (begin, end)  # of repeated names the last one counts, as for most readers
    if found is not None and inner and text[found[0]] == "{":
        return _with(text, found[0], inner, value)
    for step in reversed(inner):
        value = {step: value}
    new = json.dumps(value)
    if found is not None:
        return text[: found[0]] + new + text[found[1] :]
    comma = "," if last > start + 1 else ""
    return f"{text[:last]}{comma}{json.dumps(name)}:{new}{text[last:]}"


def _members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name, begin of value, its end) for the object at ``start``, already known to be JSON."""
    at = _skip(text, start + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + 1)  # over the colon
        _, end = _DECODER.raw_decode(text, begin)
        yield key, begin, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Return where the blanks that begin at ``at`` end."""
    while text[at] in _BLANKS:
        at += 1
    return at
