"""A file as a tree that knows its lines, whatever language it was written in.

Nodes keep what was written, not what it means: the reader of a key decides that,
because only it knows whether ``no`` is a name or an answer. Nothing here shows a
value in its ``repr``, because any of them may be a token.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

# The configuration is four levels deep. Beyond this, somebody is trying something.
MAX_DEPTH: Final = 16


class Kind(Enum):
    """What a scalar is, by YAML 1.2's core schema or JSON. The value is how a message calls it."""

    STRING = "a string"
    INTEGER = "a number"
    FLOAT = "a number with a fraction"
    BOOL = "true or false"
    NULL = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A value without parts.

    Attributes:
        text: As it was written, without quotes and escapes.
        plain: It stood there without quotes.
    """

    kind: Kind
    text: str = field(repr=False)
    line: int
    plain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    items: "tuple[Node, ...]"
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a mapping, with the line of the key."""

    key: str
    value: "Node"
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping, in the file's order, duplicate keys included."""

    entries: tuple[Entry, ...]
    line: int


Node = Scalar | Items | Table


class Malformed(Exception):
    """The text is not what its language allows. The message holds nothing of the text.

    Attributes:
        line: Counted from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def describe(node: Node) -> str:
    """Name a node's type, for a message. Never its value."""
    match node:
        case Items():
            return "a list"
        case Table():
            return "a mapping"
        case Scalar():
            return node.kind.value
