"""The configuration: read once, checked whole, refused where it is not understood.

Rule 1: what is not understood is an error. A misspelt key that silently became a
default could open a server to the world.

Rule 2: every problem of a file is told at once, each in one line with file, line,
key and the way to mend it, and none with a value in it (``report.py``).

Rule 3: nothing is created or changed here, so that a configuration can be
checked where it will not run.

    text ── yaml_tree, json_tree ──► tree ── values, providers, users, tls, limits, usage, admin ──► model
"""

import os
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from ai_mux.config import addresses, admin, limits, providers, tls, usage, users, values
from ai_mux.config.files import contents, is_directory, is_other_than_directory, warn_if_open
from ai_mux.config.json_tree import read_json
from ai_mux.config.model import (
    AdminConfig,
    Config,
    Listen,
    PriceConfig,
    ProviderConfig,
    TlsConfig,
    UsageConfig,
    UserConfig,
)
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Malformed, Node
from ai_mux.config.yaml_tree import read_yaml
from ai_mux.errors import ConfigError
from ai_mux.hosts import is_loopback
from ai_mux.limits import NO_LIMITS, Limits, Quantity

__all__ = [
    "KEYS",
    "AdminConfig",
    "Config",
    "Listen",
    "PriceConfig",
    "ProviderConfig",
    "TlsConfig",
    "UsageConfig",
    "UserConfig",
    "is_loopback",
    "load",
]

_TOP_KEYS: Final = (
    "listen",
    "state_dir",
    "log_level",
    "request_timeout",
    "refresh_check_interval",
    "providers",
    "users",
    "tls",
    "max_body_size",
    "max_connections",
    "stream_idle_timeout",
    "shutdown_timeout",
    "limits",
    "usage",
    "admin",
    "audit",
)

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": _TOP_KEYS,
    "providers[]": providers.KEYS,
    "users[]": users.KEYS,
    "users[].limits": limits.KEYS,
    "tls": tls.KEYS,
    "limits": limits.KEYS,
    "usage": usage.KEYS,
    "usage.prices[]": usage.PRICE_KEYS,
    "admin": admin.KEYS,
}
"""Every key that is read, by where it stands. The documentation's test goes through it."""

# Tab, line feed and carriage return are layout; no other control character belongs into text.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_LOG_LEVELS: Final = ("debug", "info", "warn", "error")
_DEFAULT_LISTEN: Final = Listen(text=":8080", host=None, port=8080, path=None)
_DEFAULT_STATE_DIR: Final = "~/.ai-mux"


def load(path: Path | None, *, known_providers: Collection[str], now_s: float | None = None) -> Config:
    """Return the configuration in a file, or the defaults for None.

    Files that it names (tokens, certificates, keys) are read as well. The language
    is JSON where the name ends in ``.json``, else YAML.

    Args:
        path: The file.
        known_providers: The names that may stand in ``providers``.
        now_s: The time by which a user's token has expired, in seconds since 1970; None for the machine's.

    Raises:
        ConfigError: With one line for each problem.
    """
    report = Report(path)
    root = None if path is None else _document(path, report)
    config = _config(root, path, known_providers, time.time() if now_s is None else now_s, report)
    report.raise_errors()
    return config


def _document(path: Path, report: Report) -> Node | None:
    try:
        text = _text(contents(path, may_be_pipe=True))
        root = read_json(text) if path.suffix.lower() == ".json" else read_yaml(text)
    except Wrong as exc:
        raise ConfigError(f"{path}: {exc}") from None
    except Malformed as exc:
        raise ConfigError(f"{path}:{exc.line}: {exc}") from None
    warn_if_open(path, report, line=0, key="")
    return root


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Malformed(1, "not UTF-8 but UTF-16; save the file as UTF-8")
    try:
        # A byte order mark at the beginning is not content (YAML 1.2.2, section 5.2; RFC 8259, section 8.1).
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise Malformed(line, "not UTF-8; save the file as UTF-8") from None
    if control := _CONTROL.search(text):
        raise Malformed(text.count("\n", 0, control.start()) + 1, "a control character; remove it")
    return text


def _config(
    root: Node | None, source: Path | None, known: Collection[str], now_s: float, report: Report
) -> Config:
    fields = Fields(root, at="", known=_TOP_KEYS, report=report)
    state_dir = _state_dir(fields, report)
    listen = fields.get("listen", addresses.listen, _DEFAULT_LISTEN)

    # What is wrong inside a list or mapping is noted piece by piece, so its reader needs the report.
    def read_providers(node: Node) -> tuple[ProviderConfig, ...]:
        return providers.read_providers(node, known=known, state_dir=state_dir, report=report)

    none: tuple[ProviderConfig, ...] = ()
    served = fields.get("providers", read_providers, none)
    if not served:
        line = fields.line_of("providers") if "providers" in fields else 0
        names = ", ".join(sorted(known))
        report.warn(line, "providers", f"none, so every provider's path is a 404; add one of {names}")

    def read_limits(node: Node) -> Limits:
        return limits.read_limits(node, at="limits", default=NO_LIMITS, report=report)

    default = fields.get("limits", read_limits, NO_LIMITS)

    def read_users(node: Node) -> tuple[UserConfig, ...]:
        by_name = [one.name for one in served]
        return users.read_users(node, known=known, served=by_name, limits=default, now_s=now_s, report=report)

    nobody: tuple[UserConfig, ...] = ()
    admitted = fields.get("users", read_users, nobody)

    def read_admin(node: Node) -> AdminConfig | None:
        theirs = {user.digest: user.at for user in admitted}
        return admin.read_admin(node, listen=listen, users=theirs, report=report)

    kept = fields.get("usage", lambda node: usage.read_usage(node, report=report), UsageConfig())
    by_place = {"limits": default, **{user.at: user.limits for user in admitted}}
    usage.check_suffices(kept, by_place, line=fields.line_of("usage"), report=report)
    _warn_of_open_paths(served, default, admitted, line=fields.line_of("providers"), report=report)
    return Config(
        source=source,
        listen=listen,
        state_dir=state_dir,
        log_level=fields.get("log_level", values.choice(_LOG_LEVELS), "info"),
        request_timeout_s=fields.get("request_timeout", values.duration_s, None),
        refresh_check_interval_s=fields.get("refresh_check_interval", values.duration_s, 600.0),
        providers=served,
        users=admitted,
        tls=fields.get("tls", lambda node: tls.read_tls(node, report=report), None),
        # Long sessions with images pass 32 MiB, which is where the providers themselves end.
        max_body_size=fields.get("max_body_size", values.size, 64 * 2**20),
        max_connections=fields.get("max_connections", values.count, 10_000),
        stream_idle_timeout_s=fields.get("stream_idle_timeout", values.duration_s, 300.0),
        shutdown_timeout_s=fields.get("shutdown_timeout", values.duration_s, 10.0),
        limits=default,
        usage=kept,
        admin=fields.get("admin", read_admin, None),
        audit=fields.get("audit", lambda node: _audit(node, source), None),
        warnings=report.warnings,
    )


def _warn_of_open_paths(
    served: tuple[ProviderConfig, ...],
    default: Limits,
    admitted: tuple[UserConfig, ...],
    *,
    line: int,
    report: Report,
) -> None:
    """Say what ``paths`` do to what users are held to: beyond a provider's own ones little is known of it."""
    metered = {Quantity.TOKENS, Quantity.COST}
    limited = any(
        rule.quantity in metered
        for one in (default, *(user.limits for user in admitted))
        for rule in one.rules
    )
    narrowed = any(user.models is not None for user in admitted)
    for index, one in enumerate(served):
        at = f"providers[{index}].paths"
        if one.paths is not None and limited:
            text = (
                "what is used on paths beyond the provider's own cannot always be read, and limits of tokens "
                "or cost count an estimate then; leave 'paths' out to be sure of them"
            )
            report.warn(line, at, text)
        if one.paths is not None and narrowed:
            text = (
                "users with 'models' get a 403 on paths beyond the provider's own, "
                "because there it is not known where a request names its model"
            )
            report.warn(line, at, text)


def _state_dir(fields: Fields, report: Report) -> Path:
    def read(node: Node) -> Path:
        path = values.path(node)
        if is_other_than_directory(path):
            raise Wrong("is not a directory; name one, or what does not exist yet")
        return path

    if "state_dir" in fields:
        return fields.get("state_dir", read, Path())
    try:
        return values.expanded(_DEFAULT_STATE_DIR)
    except Wrong as exc:
        report.error(0, "state_dir", f"by default '{_DEFAULT_STATE_DIR}', and {exc}")
        return Path()


def _audit(node: Node, source: Path | None) -> Path:
    path = values.path(node)
    if path.name == "-":
        raise Wrong("names no file; name one, because stderr has the log")
    if values.text(node).endswith("/") or is_directory(path):
        raise Wrong("is a directory; name the file in it")
    if source is not None and os.path.realpath(path) == os.path.realpath(source):
        raise Wrong("is the configuration itself; name another file")
    return path
