"""Asks a token endpoint to exchange a refresh token (RFC 6749, section 6).

Rule 1: tell apart what was not sent, what may have been received, and what was
answered. A refresh token is spent by being received, whatever we hear of it.

Rule 2: never send it twice by accident: one connection of its own, nothing
retried, no redirect followed (that would also carry it to another place).
With a proxy it goes through that or is not sent.

Rule 3: nothing that was sent or answered reaches a log or an error's text.
"""

import asyncio
import importlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ai_mux import __version__
from ai_mux.outbound import OutboundProxy

# What the vendors' own clients wait for their token endpoints.
TIMEOUT_S: Final = 30
_CONNECT_S: Final = 10
# Token answers are a few KiB. The same bound as for the credential file (storage/files.py).
_ANSWER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """The endpoint could not be reached: the refresh token is as good as before."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The request was sent and no whole answer came: the refresh token may be spent."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The endpoint answered.

    Attributes:
        status: The HTTP status code.
        members: The answer's JSON object; empty when it is none.
        retry_after: The field ``Retry-After`` as it came, or None.
    """

    status: int
    members: Mapping[str, object]
    retry_after: str | None = None


class TokenEndpoint:
    """A token endpoint over HTTPS, or over HTTP on a loopback address.

    Args:
        url: Where it is.
        ca_file: PEM certificates that replace the system's roots, or None.
        via: The proxy to go through, or None. The environment is not asked.
        timeout_s: From the first step to the last byte of the answer.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | None = None,
        via: OutboundProxy | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._ca_file = ca_file
        self._via = via
        self._timeout_s = timeout_s

    async def post(self, body: Mapping[str, str]) -> NotSent | Unknown | Answered:
        """Send one request. Never raises for what the network or the endpoint does."""
        # aiohttp takes 0.1 s to import and a TLS context some 20 ms to build:
        # in a thread, so that streams go on meanwhile.
        await asyncio.to_thread(importlib.import_module, "ai_mux.credentials.connector")
        import aiohttp  # noqa: PLC0415 - only when a credential is renewed, never at start

        from ai_mux.credentials.connector import ProxyConnector  # noqa: PLC0415 - imports aiohttp

        try:
            tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file)
        except (OSError, ValueError) as exc:
            return NotSent(reason=f"cannot read the certificates of {self._ca_file or 'the system'}: {exc}")
        sent = False

        async def note(*_: Any) -> None:  # noqa: ANN401 - aiohttp's signal, whose arguments are not looked at
            nonlocal sent
            sent = True

        via = self._via
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(note)  # from here on bytes may leave
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=tls, force_close=True)
                    if via is None
                    else ProxyConnector(via, tls=tls),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                    timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
                    trace_configs=[trace],
                ) as session,
                session.post(
                    self._url,
                    data=json.dumps(dict(body)).encode(),
                    headers={
                        "Accept": "application/json",
                        "Accept-Encoding": "identity",
                        "Content-Type": "application/json",
                        "User-Agent": f"ai-mux/{__version__}",  # our own honest name
                    },
                    allow_redirects=False,
                ) as response,
            ):
                raw = await _bounded(response.content)
                return Answered(
                    status=response.status,
                    members=_object(raw),
                    retry_after=response.headers.get("Retry-After"),
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            # The class says enough ("ServerDisconnectedError"); an answer's text might quote what was sent.
            reason = type(exc).__name__ if sent else f"{type(exc).__name__}: {exc}"
            return Unknown(reason=reason) if sent else NotSent(reason=reason)


def retry_after_s(field: str | None, now: float) -> float | None:
    """Return what a ``Retry-After`` field (RFC 9110, section 10.2.3) asks for, in seconds from ``now``."""
    if field is None:
        return None
    if field.strip().isascii() and field.strip().isdigit():
        return float(field.strip()[:12])
    try:
        when = parsedate_to_datetime(field)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(now, UTC)).total_seconds())


async def _bounded(stream: Any) -> bytes:  # noqa: ANN401 - aiohttp's StreamReader, which is not imported at start
    """Return a body of at most ``_ANSWER_BYTES``; a longer one is no answer."""
    raw = b""
    while piece := await stream.read(_ANSWER_BYTES):
        raw += piece
        if len(raw) > _ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return raw


def _object(raw: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
