"""The ``providers`` of a configuration: names, or mappings with a name."""

import os
import re
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from ai_mux.config import addresses, values
from ai_mux.config.files import contents, is_directory
from ai_mux.config.model import ProviderConfig
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Items, Kind, Node, Scalar, Table, describe

KEYS: Final = (
    "name",
    "credentials",
    "api_key_file",
    "paths",
    "headers",
    "base_url",
    "token_url",
    "proxy",
    "ca_file",
)

# What an operator may not set, by reason. A name that ends in "*" is a beginning.
FORBIDDEN_HEADERS: Final = {
    # Ours: the credential, whose it is, and where the request goes.
    "it carries the credential or the account": frozenset(
        {"authorization", "x-api-key", "cookie", "proxy-*", "chatgpt-account-id"}
    ),
    # The framing of the message and the state of the connection (RFC 9110, 7.6.1; RFC 9112, 6).
    "it frames the message or the connection": frozenset(
        {
            "host",
            "content-length",
            "content-encoding",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "accept-encoding",
            "sec-websocket-*",
        }
    ),
    # Who stands in between is not told, in either direction.
    "it would name who is in between": frozenset({"forwarded", "x-forwarded-*", "via"}),
    # No disguises.
    "it says which client this is, and that is not disguised": frozenset(
        {"user-agent", "x-app", "originator"}
    ),
}

# RFC 9110, section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, section 5.5, without obs-text and tabs: ASCII, blanks only inside.
_FIELD_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")

# Printable ASCII without blanks, "?", "#" and "\".
_PATH: Final = re.compile(r"/[!\"$->@-\[\]-~]*")
# Refused in every request, whatever is allowed, because the origin might normalise what we did not.
_NEVER_SERVED: Final = re.compile(r"//|%2f|%5c|%00|/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


def read_providers(
    node: Node, *, known: Collection[str], state_dir: Path, report: Report
) -> tuple[ProviderConfig, ...]:
    """Return the providers in the file's order; what is wrong goes to ``report``.

    Raises:
        Wrong: The node is no list.
    """
    if not isinstance(node, Items):
        raise Wrong(f"must be a list of provider names, each on a line '- NAME', not {describe(node)}")
    found: dict[str, int] = {}
    providers: list[ProviderConfig] = []
    for index, item in enumerate(node.items):
        at = f"providers[{index}]"
        provider = _provider(item, at=at, known=known, report=report)
        if provider is None:
            continue
        if provider.name in found:
            first = found[provider.name]
            report.error(item.line, at, f"'{provider.name}' is listed already in line {first}; remove one")
            continue
        found[provider.name] = item.line
        _warn_if_vendors_own(provider, state_dir, report, line=item.line, key=at)
        if (other := _shares_file(provider, providers)) is not None:
            key = "api_key_file" if provider.credentials is None else "credentials"
            text = f"is also the file of '{other}', and no login is for two providers; name another file"
            report.error(item.line, f"{at}.{key}", text)
        providers.append(provider)
    return tuple(providers)


def _provider(node: Node, *, at: str, known: Collection[str], report: Report) -> ProviderConfig | None:
    if isinstance(node, Scalar):
        try:
            name = _name(node, known)
        except Wrong as exc:
            report.error(node.line, at, str(exc))
            return None
        fields = Fields(None, at=at, known=KEYS, report=report)
    else:
        fields = Fields(node, at=at, known=KEYS, report=report)
        if isinstance(node, Table) and "name" not in fields:
            report.error(node.line, f"{at}.name", f"is missing; add 'name: {next(iter(known), 'NAME')}'")
        name = fields.get("name", lambda value: _name(value, known), "")
    if "credentials" in fields and "api_key_file" in fields:
        text = "excludes 'credentials', because an API key is used instead of a login; remove one of them"
        report.error(fields.line_of("api_key_file"), fields.path("api_key_file"), text)
    provider = ProviderConfig(
        name=name,
        credentials=fields.get("credentials", _credential_file, None),
        api_key_file=fields.get("api_key_file", _credential_file, None),
        paths=fields.get("paths", lambda value: _paths(value, fields.path("paths"), report), None),
        headers=fields.get("headers", lambda value: _headers(value, fields.path("headers"), report), {}),
        base_url=fields.get("base_url", addresses.base_url, None),
        token_url=fields.get("token_url", addresses.token_url, None),
        proxy=fields.get("proxy", addresses.proxy, None),
        ca_file=fields.get("ca_file", _ca_file, None),
    )
    if any(f"{path}/".startswith(f"/{name}/") for path in provider.paths or ()):
        text = f"paths stand without the provider's prefix; is '/{name}' too much?"
        report.warn(fields.line_of("paths"), fields.path("paths"), text)
    return provider if name else None


def _name(node: Node, known: Collection[str]) -> str:
    name = values.text(node)
    if name not in known:
        raise Wrong(f"is not a provider; use one of {', '.join(sorted(known))}")
    return name


def _credential_file(node: Node) -> Path:
    path = values.path(node)
    if is_directory(path):
        raise Wrong("is a directory; name the credential file in it")
    return path


def _warn_if_vendors_own(
    provider: ProviderConfig, state_dir: Path, report: Report, *, line: int, key: str
) -> None:
    """Two programs that renew one login end in both being logged out: refresh tokens are single-use."""
    if provider.api_key_file is not None:
        return  # a key is not renewed
    file = provider.credentials or state_dir / provider.name
    for vendors in _vendor_directories():
        if file.is_relative_to(vendors) or _real(file).is_relative_to(_real(vendors)):
            report.warn(
                line,
                key,
                f"its credentials lie in ~/{vendors.name}, where another program renews the same login, and "
                "both end logged out; log in anew into a directory that only ai-mux uses",
            )
            return


def _shares_file(provider: ProviderConfig, others: Collection[ProviderConfig]) -> str | None:
    """Return who else names this provider's file, unless both only read a key from it.

    One key may open two providers, behind a gateway that speaks for both. A login is
    written back, and two that do so would undo each other's work.
    """
    file = provider.credentials or provider.api_key_file
    for other in others:
        theirs = other.credentials or other.api_key_file
        only_keys = provider.credentials is None and other.credentials is None
        if file is not None and theirs is not None and not only_keys and _real(file) == _real(theirs):
            return other.name
    return None


def _real(path: Path) -> Path:
    # Path.resolve raises for a loop of links before Python 3.13; this never does.
    return Path(os.path.realpath(path))


def _vendor_directories() -> Iterator[Path]:
    for name in (".claude", ".codex"):
        try:
            yield values.expanded(f"~/{name}")
        except Wrong:
            return  # no home, so nothing of it can be meant


def _paths(node: Node, at: str, report: Report) -> tuple[str, ...]:
    form = "write 'all', or a list of paths like /v1/messages or /v1/files/*"
    if isinstance(node, Scalar):
        if values.text(node) != "all":
            raise Wrong(f"must be 'all' or a list; {form}")
        return ("*",)
    if not isinstance(node, Items):
        raise Wrong(f"must be 'all' or a list, not {describe(node)}; {form}")
    if not node.items:
        raise Wrong(f"names no path, so every request would be refused; {form}")
    paths = []
    for index, item in enumerate(node.items):
        try:
            paths.append(_path(item))
        except Wrong as exc:
            report.error(item.line, f"{at}[{index}]", str(exc))
    return tuple(paths)


def _path(node: Node) -> str:
    path = values.text(node)
    if not _PATH.fullmatch(path):
        raise Wrong("must begin with '/' and be printable ASCII without blanks, '?', '#' and '\\'")
    if "*" in path[:-1]:
        raise Wrong("has a '*' before its end; only the last character may be one")
    if _NEVER_SERVED.search(path):
        raise Wrong("holds '//', '.', '..', %2f, %5c or %00, and such requests are refused; remove it")
    return path


def _headers(node: Node, at: str, report: Report) -> dict[str, str | None]:
    if not isinstance(node, Table):
        raise Wrong(f"must be a mapping of field names to strings, not {describe(node)}")
    found: dict[str, int] = {}
    headers: dict[str, str | None] = {}
    for entry in node.entries:
        name = entry.key.lower()
        if not _TOKEN.fullmatch(name):
            report.error(entry.line, at, "holds a name that is no field name; use letters, digits and '-'")
        elif reason := _forbidden(name):
            report.error(entry.line, f"{at}.{entry.key}", f"must not be set, because {reason}; remove it")
        elif name in found:
            text = f"duplicate field, already in line {found[name]}; remove one"
            report.error(entry.line, f"{at}.{entry.key}", text)
        else:
            found[name] = entry.line
            try:
                headers[entry.key] = _field_value(entry.value)
            except Wrong as exc:
                report.error(entry.line, f"{at}.{entry.key}", str(exc))
    return headers


def _forbidden(name: str) -> str | None:
    for reason, names in FORBIDDEN_HEADERS.items():
        for forbidden in names:
            if name == forbidden or (forbidden.endswith("*") and name.startswith(forbidden[:-1])):
                return reason
    return None


def _field_value(node: Node) -> str | None:
    if isinstance(node, Scalar) and node.kind is Kind.NULL:
        return None
    value = values.possibly_empty(node)
    if not _FIELD_VALUE.fullmatch(value):
        raise Wrong("must be printable ASCII without blanks at its ends; null removes the field")
    return value


def _ca_file(node: Node) -> Path:
    path = values.path(node)
    contents(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError:  # SSLError is one
        raise Wrong("holds no certificates in PEM; is it the right file?") from None
    return path
