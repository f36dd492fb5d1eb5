"""The ``users`` of a configuration: a name each, a token in one of three forms, what they may use.

Tokens are compared and kept as their SHA-256, by which they are looked up. A
user is named by position in messages, because a name may hold what was meant to
be the next line: its token.
"""

import re
from collections.abc import Collection
from typing import Final

from ai_mux.config import tokens, values
from ai_mux.config.expiry import expires_at
from ai_mux.config.limits import read_limits
from ai_mux.config.model import UserConfig
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Items, Node, Table, describe
from ai_mux.limits import Limits

KEYS: Final = (
    "name",
    "token",
    "token_sha256",
    "token_file",
    "limits",
    "providers",
    "models",
    "expires",
)
_TOKEN_KEYS: Final = KEYS[1:4]

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


def read_users(
    node: Node,
    *,
    known: Collection[str],
    served: Collection[str],
    limits: Limits,
    now_s: float,
    report: Report,
) -> tuple[UserConfig, ...]:
    """Return the users in the file's order; what is wrong goes to ``report``.

    Args:
        node: The list.
        known: The names that providers may have.
        served: Those of them that are configured.
        limits: What holds for users who have no limits of their own.
        now_s: The time, in seconds since 1970.
        report: Where problems go.

    Raises:
        Wrong: The node is no list.
    """
    if not isinstance(node, Items):
        raise Wrong(f"must be a list of users, or [] for none, not {describe(node)}")
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
            text = f"has the same token as {first}; tokens must be unique: {tokens.MAKE_ONE}"
            report.error(item.line, at, text)
        if digest in tokens.DOCUMENTED_DIGESTS:
            report.warn(item.line, at, tokens.KNOWN_TO_ALL)
        own_limits = _limits(fields, limits, report)
        providers = _providers(fields, known, served, report)
        models = _models(fields, report)
        expires = _expires(fields, now_s, report)
        if name is not None and digest is not None:
            key = next(key for key in _TOKEN_KEYS if key in fields)
            users.append(
                UserConfig(
                    name=name,
                    digest=digest,
                    token_key=fields.path(key),
                    token_line=fields.line_of(key),
                    token_file=fields.get("token_file", values.path, None),
                    limits=own_limits,
                    providers=providers,
                    models=models,
                    expires_at=expires,
                )
            )
    return tuple(users)


# Who they are


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

    if given[0] == "token_file":
        return tokens.digest_of_file(fields, "token_file", report)
    return fields.get(given[0], tokens.digest_of_written if given[0] == "token" else _sha256, None)


def _sha256(node: Node) -> bytes:
    digits = values.text(node)
    if not _SHA256.fullmatch(digits):
        raise Wrong("must be 64 hexadecimal digits; make them with: tr -d '\\n' < FILE | sha256sum")
    return bytes.fromhex(digits)


# What they may use


def _limits(fields: Fields, default: Limits, report: Report) -> Limits:
    def read(node: Node) -> Limits:
        return read_limits(node, at=fields.path("limits"), default=default, report=report)

    return fields.get("limits", read, default)


def _providers(
    fields: Fields, known: Collection[str], served: Collection[str], report: Report
) -> frozenset[str] | None:
    at = fields.path("providers")

    def read_one(node: Node) -> str:
        name = values.text(node)
        if name not in known:
            raise Wrong(f"is not a provider; use one of {', '.join(sorted(known))}")
        return name

    def read(node: Node) -> frozenset[str]:
        _refuse_nothing(node)
        return frozenset(values.several(node, read_one, at=at, report=report))

    names = fields.get("providers", read, None)
    # Where nothing is served, that is said once, and not of each user.
    if names is not None and served:
        for name in sorted(names.difference(served)):
            text = f"'{name}' is not served; add it to the top-level 'providers', or remove it here"
            report.warn(fields.line_of("providers"), at, text)
    return names


def _models(fields: Fields, report: Report) -> tuple[str, ...] | None:
    def read(node: Node) -> tuple[str, ...]:
        _refuse_nothing(node)
        return tuple(values.several(node, values.glob, at=fields.path("models"), report=report))

    return fields.get("models", read, None)


def _refuse_nothing(node: Node) -> None:
    """An empty list may mean all or none, and a guess would be wrong for somebody."""
    if isinstance(node, Items) and not node.items:
        raise Wrong("is empty; remove the key to allow all of them, or the user to allow none")


def _expires(fields: Fields, now_s: float, report: Report) -> float | None:
    at_s = fields.get("expires", expires_at, None)
    if at_s is not None and at_s <= now_s:
        text = "is in the past, so this user is let in no more; write a later one, or remove the user"
        report.warn(fields.line_of("expires"), fields.path("expires"), text)
    return at_s
