"""The ``admin`` of a configuration: where metrics and status are shown, and to whom.

What it shows tells who uses what, so it is never open to a network without a token.
"""

from collections.abc import Mapping
from typing import Final

from ai_mux.config import addresses, tokens, values
from ai_mux.config.model import AdminConfig, Listen
from ai_mux.config.report import Fields, Report
from ai_mux.config.tree import Node, Table
from ai_mux.hosts import is_loopback

KEYS: Final = ("listen", "token", "token_file")

_ANY_ADDRESS: Final = frozenset({None, "0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def read_admin(
    node: Node, *, listen: Listen, users: Mapping[bytes, str], report: Report
) -> AdminConfig | None:
    """Return the listener, or None where it is wrong, which goes to ``report``.

    Args:
        node: The mapping.
        listen: Where requests are served, which must be elsewhere.
        users: Where the token with a SHA-256 stands already, like ``users[0]``.
        report: Where problems go.
    """
    fields = Fields(node, at="admin", known=KEYS, report=report)
    if isinstance(node, Table) and "listen" not in fields:
        report.error(fields.line, "admin.listen", 'is missing; add one like "127.0.0.1:9180"')
    where = fields.get("listen", addresses.listen, None)
    key, digest = _token(fields, users, report)
    if where is None:
        return None
    if key is None and not where.is_local:
        text = (
            "is reached from elsewhere, and there is no token; "
            "add admin.token or admin.token_file, or listen on 127.0.0.1 or a unix socket"
        )
        report.error(fields.line_of("listen"), "admin.listen", text)
    if _is_same(where, listen):
        text = "is where requests are served ('listen'); choose another port or path"
        report.error(fields.line_of("listen"), "admin.listen", text)
    return AdminConfig(
        listen=where,
        token_digest=digest,
        token_key="" if key is None else fields.path(key),
        token_line=0 if key is None else fields.line_of(key),
        token_file=fields.get("token_file", values.path, None) if key == "token_file" else None,
    )


def _token(fields: Fields, users: Mapping[bytes, str], report: Report) -> tuple[str | None, bytes | None]:
    """Return the key that a token is given with, if any, and its SHA-256 where it can be used."""
    given = [key for key in KEYS[1:] if key in fields]
    if not given:
        return None, None
    key = given[-1]
    at, line = fields.path(key), fields.line_of(key)
    if len(given) > 1:
        report.error(line, at, "token and token_file exclude each other; remove one of them")
        return key, None
    if key == "token":
        digest = fields.get(key, tokens.digest_of_written, None)
    else:
        digest = tokens.digest_of_file(fields, key, report)
    if digest is not None and (user := users.get(digest)) is not None:
        text = f"is also the token of {user}, who would see what everyone uses; {tokens.MAKE_ONE}"
        report.error(line, at, text)
    if digest in tokens.DOCUMENTED_DIGESTS:
        report.warn(line, at, tokens.KNOWN_TO_ALL)
    return key, digest


def _is_same(one: Listen, other: Listen) -> bool:
    """Tell whether two cannot both be listened on, as far as that can be seen without trying."""
    if one.path is not None or other.path is not None:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    hosts = {None if host is None else host.lower() for host in (one.host, other.host)}
    if len(hosts) == 1 or hosts & _ANY_ADDRESS:
        return True
    return "localhost" in hosts and all(host is not None and is_loopback(host) for host in hosts)
