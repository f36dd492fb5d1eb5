"""The ``tls`` of a configuration: a certificate and its key, tried out before they are needed."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ai_mux.config import values
from ai_mux.config.files import contents, warn_if_open
from ai_mux.config.model import TlsConfig
from ai_mux.config.report import Fields, Report, Wrong
from ai_mux.config.tree import Node

KEYS: Final = ("enabled", "cert_path", "key_path")

_REQUIRED: Final = "is required when tls.enabled is true; name the PEM file"


class _Encrypted(Exception):
    """OpenSSL asked for a password."""


def read_tls(node: Node, *, report: Report) -> TlsConfig | None:
    """Return certificate and key, or None where TLS is off; what is wrong goes to ``report``."""
    fields = Fields(node, at="tls", known=KEYS, report=report)
    enabled = fields.get("enabled", values.flag, False)
    if not enabled:
        # Read all the same, so that a wrong type is told.
        written = [fields.get(key, values.possibly_empty, "") for key in ("cert_path", "key_path")]
        if "enabled" not in fields and any(written):
            report.warn(fields.line, "tls", "has a certificate, and TLS is off; add 'enabled: true'")
        return None
    for key in ("cert_path", "key_path"):
        if key not in fields:
            report.error(fields.line, f"tls.{key}", _REQUIRED)
    cert_path = fields.get("cert_path", _pem("BEGIN CERTIFICATE"), None)
    key_path = fields.get("key_path", _pem("PRIVATE KEY"), None)
    if cert_path is None or key_path is None:
        return None
    warn_if_open(key_path, report, line=fields.line_of("key_path"), key="tls.key_path")
    try:
        _try_out(cert_path, key_path)
    except Wrong as exc:
        report.error(fields.line_of("key_path"), "tls.key_path", str(exc))
        return None
    return TlsConfig(cert_path=cert_path, key_path=key_path)


def _pem(label: str) -> Callable[[Node], Path]:
    """Return a reader of the path to a PEM file (RFC 7468) that holds ``label``."""

    def read(node: Node) -> Path:
        if not values.possibly_empty(node):
            raise Wrong(_REQUIRED)
        path = values.path(node)
        if f"{label}-----".encode() not in contents(path):
            raise Wrong(f"holds no '{label}' in PEM; is it the right file?")
        return path

    return read


def _try_out(cert_path: Path, key_path: Path) -> None:
    def refuse() -> str:
        # Without this OpenSSL asks on the terminal, and a service would hang there.
        raise _Encrypted

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password=refuse)
    except _Encrypted:
        raise Wrong(
            "is encrypted, and nobody is there to type its password; "
            "decrypt it with: openssl pkey -in KEY -out NEWKEY"
        ) from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise Wrong("does not belong to tls.cert_path; name the key that it was made with") from None
        raise Wrong(f"cannot be used with tls.cert_path ({exc.reason}); are both files whole?") from None
    except OSError as exc:
        raise Wrong(f"cannot be read ({exc.strerror}); check that the path is right and readable") from None
