"""The ``users`` of a configuration: a name each, and a token in one of three forms.

Tokens are compared and kept as their SHA-256, by which they are looked up. A
user is named by position in messages, because a name may hold what was meant to
be the next line: its token.
"""

import re
from typing import Final

from ai_mux.config import values
from ai_mux.config.files import contents, warn_if_open
from ai_mux.config.model import UserConfig
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Items, Node, Table, describe
from ai_mux.secret import Secret

KEYS: Final = ("name", "token", "token_sha256", "token_file")
_TOKEN_KEYS: Final = KEYS[1:]

_MIN_TOKEN_CHARACTERS: Final = 16
# Longer, and it fits into no header field: nginx and its like take lines of 8 KiB.
_MAX_TOKEN_CHARACTERS: Final = 8000
_TOKEN: Final = re.compile(r"[!-~]+")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")

_MAKE_ONE: Final = "make one with: openssl rand -hex 32"

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
    }
)


def read_users(node: Node, *, report: Report) -> tuple[UserConfig, ...]:
    """Return the users in the file's order; what is wrong goes to ``report``.

    Raises:
        Wrong: The node is no list.
    """
    if not isinstance(node, Items):
        raise Wrong(f"must be a list of users, or [] for none, not {describe(node)}")
    documented = {Secret(token).digest() for token in DOCUMENTED}
    names: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    users = []
    for index, item in enumerate(node.items):
        at = f"users[{index}]"
        if not isinstance(item, Table):
            report.error(item.line, at, f"must be a mapping with name and token, not {describe(item)}")
            continue
        fields = Fields(item, at=at, known=KEYS, report=report)
        name = _name(fields, report)
        digest = _digest(fields, report)
        if name is not None and (first := names.setdefault(name, at)) != at:
            report.error(fields.line_of("name"), f"{at}.name", f"is also the name of {first}; choose another")
        if digest is not None and (first := digests.setdefault(digest, at)) != at:
            report.error(item.line, at, f"has the same token as {first}; tokens must be unique: {_MAKE_ONE}")
        if digest in documented:
            report.warn(
                item.line, at, f"its token stands in the documentation, so everyone knows it; {_MAKE_ONE}"
            )
        if name is not None and digest is not None:
            key = next(key for key in _TOKEN_KEYS if key in fields)
            users.append(
                UserConfig(
                    name=name,
                    digest=digest,
                    token_key=fields.path(key),
                    token_line=fields.line_of(key),
                    token_file=fields.get("token_file", values.path, None),
                )
            )
    return tuple(users)


def _name(fields: Fields, report: Report) -> str | None:
    if "name" not in fields:
        report.error(fields.line, fields.path("name"), "is missing; every user has a name")
        return None
    name = fields.get("name", values.text, None)
    if name is not None and not name.strip():
        report.error(fields.line_of("name"), fields.path("name"), "must not be blank; write a name")
        return None
    return name


def _digest(fields: Fields, report: Report) -> bytes | None:
    given = [key for key in _TOKEN_KEYS if key in fields]
    if len(given) != 1:
        wrong = f"{' and '.join(given)} exclude each other" if given else "no token"
        at = fields.path(given[1] if given else "token")
        line = fields.line_of(given[1]) if given else fields.line
        report.error(line, at, f"{wrong}; give exactly one of {', '.join(_TOKEN_KEYS)}")
        return None

    def from_file(node: Node) -> bytes:
        path = values.path(node)
        digest = _checked(_without_newline(contents(path)).decode("latin-1")).digest()
        warn_if_open(path, report, line=fields.line_of("token_file"), key=fields.path("token_file"))
        return digest

    readers = {"token": _token, "token_sha256": _sha256, "token_file": from_file}
    return fields.get(given[0], readers[given[0]], None)


def _token(node: Node) -> bytes:
    return _checked(values.text(node)).digest()


def _sha256(node: Node) -> bytes:
    digits = values.text(node)
    if not _SHA256.fullmatch(digits):
        raise Wrong("must be 64 hexadecimal digits; make them with: printf %s TOKEN | sha256sum")
    return bytes.fromhex(digits)


def _without_newline(data: bytes) -> bytes:
    """Cut one newline off the end, which editors and ``echo`` put there."""
    return data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")


def _checked(token: str) -> Secret:
    if not _TOKEN.fullmatch(token):
        raise Wrong(f"must be a token in printable ASCII without blanks and line breaks; {_MAKE_ONE}")
    if len(token) < _MIN_TOKEN_CHARACTERS:
        raise Wrong(f"must be a token of at least {_MIN_TOKEN_CHARACTERS} characters; {_MAKE_ONE}")
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise Wrong(f"must be a token of at most {_MAX_TOKEN_CHARACTERS} characters; {_MAKE_ONE}")
    return Secret(token)
