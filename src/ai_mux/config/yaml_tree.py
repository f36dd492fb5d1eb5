"""YAML 1.2 to a tree, from the parser's events.

Rule 1: scalars are what YAML 1.2.2, section 10.3.2 says and nothing else: ``010``
is ten, ``no`` and ``1:30`` are strings.

Rule 2: no anchors, aliases and tags. A configuration does without them, and a
file that does without them cannot unfold into more than its own length.

Rule 3: the parser's own messages are not shown. They quote the file, and what
they quote may be a token.
"""

import re
from collections.abc import Iterator
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ai_mux.config.tree import MAX_DEPTH, Entry, Items, Kind, Malformed, Node, Scalar, Table

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)

# A piece of the parser's message, and what it means to somebody who writes a file.
_MEANINGS: Final = (
    (r"'\t'", "a tab where YAML wants blanks; indent with blanks"),
    ("cannot start any token", "a value begins with a character of YAML's own; put it in quotes"),
    (
        "mapping values are not allowed",
        "a ':' where none may stand; check the indentation, or quote the value",
    ),
    ("could not find expected ':'", "a key without its ':'; write 'key: value'"),
    ("end of stream", "a quote is opened here and not closed; close it"),
    ("stream end", "a bracket is opened here and not closed; close it"),
    ("escape", "an unknown escape; in double quotes write '\\\\' for a backslash, or use single quotes"),
    ("expected <block end>", "this does not continue what stands above; check indentation and quotes"),
    ("tag handle", "tags ('!…') are not read; put a value that begins with '!' in quotes"),
)
_NOTICED_LATE: Final = ("end of stream", "stream end", "could not find expected ':'")


def read_yaml(text: str) -> Node | None:
    """Return the document in ``text``, or None where it holds nothing but comments.

    Raises:
        Malformed: It is not YAML, or uses what is not read here.
    """
    try:
        return _document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as exc:
        raise Malformed(_line(exc), _meaning(exc.problem or "")) from None
    except (YAMLError, ValueError) as exc:
        # ValueError: an escape that names no character, such as half a surrogate pair.
        raise Malformed(1, f"not YAML ({type(exc).__name__}); check escapes and special characters") from None


def _document(events: Iterator[Event]) -> Node | None:
    root: Node | None = None
    documents = 0
    for event in events:
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Malformed(event.start_mark.line + 1, "a second document begins; one file holds one")
            if event.version not in {None, (1, 2)}:
                raise Malformed(1, "this file is read as YAML 1.2; remove the line '%YAML …'")
            root = _node(next(events), events, depth=0)
    return root


def _node(event: Event, events: Iterator[Event], *, depth: int) -> Node:
    line = event.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise Malformed(line, "nested too deeply; the deepest setting is four levels down")
    if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
        raise Malformed(line, "anchors and aliases ('&', '*') are not read; write the value out, or quote it")
    if isinstance(event, (ScalarEvent, CollectionStartEvent)) and event.tag is not None:
        raise Malformed(line, "tags ('!…') are not read; remove it, or put the value in quotes")
    if isinstance(event, ScalarEvent):
        plain = event.style in {None, ""}
        kind = _kind(event.value) if plain else Kind.STRING
        return Scalar(kind=kind, text=event.value, line=line, plain=plain)
    if isinstance(event, SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(_node(event, events, depth=depth + 1))
        return Items(items=tuple(items), line=line)
    assert isinstance(event, MappingStartEvent)  # noqa: S101 (the parser yields no other event here)
    entries = []
    while not isinstance(event := next(events), MappingEndEvent):
        key = _node(event, events, depth=depth + 1)
        if not isinstance(key, Scalar):
            raise Malformed(key.line, "a list or mapping stands where a key should; write 'key: value'")
        entries.append(Entry(key=key.text, line=key.line, value=_node(next(events), events, depth=depth + 1)))
    return Table(entries=tuple(entries), line=line)


def _kind(text: str) -> Kind:
    if text in _NULL:
        return Kind.NULL
    if text in _BOOL:
        return Kind.BOOL
    if _INTEGER.fullmatch(text):
        return Kind.INTEGER
    return Kind.FLOAT if _FLOAT.fullmatch(text) else Kind.STRING


def _line(exc: MarkedYAMLError) -> int:
    # What is never closed is noticed too late, and mended where it was opened.
    late = any(piece in (exc.problem or "") for piece in _NOTICED_LATE)
    mark = (exc.context_mark if late else None) or exc.problem_mark or exc.context_mark
    return 1 if mark is None else mark.line + 1


def _meaning(problem: str) -> str:
    for piece, meaning in _MEANINGS:
        if piece in problem:
            return f"not YAML: {meaning}"
    return "not YAML; check indentation, quotes and brackets"
