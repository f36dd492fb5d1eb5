"""Reads what stands at both ends of a JSON object (RFC 8259) without parsing what lies between.

A provider's answer says at its beginning which model wrote it and at its end what it used;
between them are the words, or megabytes of numbers.

Rule 1: only members of the outermost object are found, never what looks like one deeper in
it or in a string. ``members_from`` parses all that follows a key, as if the object began
there; if that works out to the last bracket, the key stood in the outermost object, because
every other leaves a bracket over. ``way_to`` reads only over members that are no objects
or lists.

Rule 2: what cannot be proved so is not found, and the caller has to parse the whole.

Both take it that the document is valid where they do not look.
"""

import json
import re
from typing import Final

_PARSE: Final = json.JSONDecoder().raw_decode
_BACKSLASH: Final = 0x5C
# No possessive groups: Python 3.11.2, which is Debian's, matches them wrongly. Nothing here backtracks far.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_SCALAR: Final = rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z]++)"


def members_from(raw: bytes, at: int) -> dict[str, object] | None:
    """Return the outermost object's members from one on, or None where that cannot be told.

    Args:
        raw: The document, or its end.
        at: Where the first of them begins, with its name's opening quote; less than 1 for nowhere.
    """
    # A backslash before a quote: it stands in a string, such as the name of "not \"usage".
    if at < 1 or raw[at - 1] == _BACKSLASH:
        return None
    try:
        text = "{" + raw[at:].decode()
        found, stop = _PARSE(text)
    except (ValueError, RecursionError):
        return None
    if stop != len(text) and text[stop:].strip(" \t\r\n"):
        return None
    return found if isinstance(found, dict) else None


def way_to(key: bytes, *, inside: bytes = b"") -> re.Pattern[bytes]:
    """Return what matches a document's beginning up to a string among the outermost object's first members.

    The match's first group is the string between its quotes, if it needs no escapes. There is no match
    where an object or a list stands before it.

    Args:
        key: The member's name, with quotes.
        inside: Look for it in the object that this member is instead, a name with quotes as well.
    """
    way = rb"\s*+\{\s*+"
    for step, value in ((inside, rb"\{\s*+"), (key, rb'"([^"\\]*+)"')):
        if step:
            name = re.escape(step)
            over = rb"(?:(?!" + name + rb")" + _STRING + rb"\s*+:\s*+" + _SCALAR + rb"\s*+,\s*+)*"
            way += over + name + rb"\s*+:\s*+" + value
    return re.compile(way, re.DOTALL)
