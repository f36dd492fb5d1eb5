"""What may be a token, wherever one stands in a configuration: users' and the admin listener's.

A token is read, checked and forgotten: what is kept is its SHA-256.
"""

import re
from typing import Final

from ai_mux.config import values
from ai_mux.config.files import contents, warn_if_open
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Node
from ai_mux.secret import Secret

MAKE_ONE: Final = "make one with: openssl rand -hex 32"

_MIN_CHARACTERS: Final = 16
# Longer, and it fits into no header field: nginx and its like take lines of 8 KiB.
_MAX_CHARACTERS: Final = 8000
_TOKEN: Final = re.compile(r"[!-~]+")

# Tokens that stand in our documentation, in any edition of it. Everyone knows them.
DOCUMENTED: Final = frozenset(
    {
        "at-least-16-characters",
        "your-secret-token-at-least-16-chars",
        "alice-secret-token-at-least-16-chars",
        "alice-secret-token-at-least-16",
        "bob-secret-token-at-least-16-chars",
        "shared-secret-at-least-16-chars",
        "made-up-token-of-alice",
        "made-up-token-of-bob",
        "made-up-token-of-prometheus",
    }
)
DOCUMENTED_DIGESTS: Final = frozenset(Secret(token).digest() for token in DOCUMENTED)
KNOWN_TO_ALL: Final = f"its token stands in the documentation, so everyone knows it; {MAKE_ONE}"


def digest_of_written(node: Node) -> bytes:
    """Return the SHA-256 of a token that stands in the configuration itself."""
    return _checked(values.text(node)).digest()


def digest_of_file(fields: Fields, key: str, report: Report) -> bytes | None:
    """Return the SHA-256 of the token in a file that a key names; None where that is wrong."""

    def read(node: Node) -> bytes:
        path = values.path(node)
        digest = _checked(_without_newline(contents(path)).decode("latin-1")).digest()
        warn_if_open(path, report, line=fields.line_of(key), key=fields.path(key))
        return digest

    return fields.get(key, read, None)


def _without_newline(data: bytes) -> bytes:
    """Cut one newline off the end, which editors and ``echo`` put there."""
    return data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")


def _checked(token: str) -> Secret:
    if not _TOKEN.fullmatch(token):
        raise Wrong(f"must be a token in printable ASCII without blanks and line breaks; {MAKE_ONE}")
    if len(token) < _MIN_CHARACTERS:
        raise Wrong(f"must be a token of at least {_MIN_CHARACTERS} characters; {MAKE_ONE}")
    if len(token) > _MAX_CHARACTERS:
        raise Wrong(f"must be a token of at most {_MAX_CHARACTERS} characters; {MAKE_ONE}")
    return Secret(token)
