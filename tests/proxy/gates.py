"""Builds gateways and request heads for the tests of routes and admission."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ai_mux.config import UserConfig
from ai_mux.credentials.credential import Credential
from ai_mux.providers.base import Provider
from ai_mux.providers.chatgpt import PROVIDER as CHATGPT
from ai_mux.providers.claude import PROVIDER as CLAUDE
from ai_mux.proxy.routes import Destination, Gateway, OpenPaths, Origin, Paths, Route
from ai_mux.secret import Secret
from ai_mux.users import Users
from ai_mux.wire.http1 import RequestHead, parse_request

ALICE = "alices-made-up-token"
BOB = "bobs-made-up-token"
CREDENTIAL = Credential(access=Secret("made-up-access"), refresh=None, expires_at=None, account_id="acct-1")
API_KEY = Credential(access=Secret("made-up-key"), refresh=None, expires_at=None, api_key=True)


class OneCredential:
    """Hands out the same credential, until the test puts another one in its place."""

    def __init__(self) -> None:
        self.credential = CREDENTIAL

    @property
    def is_api_key(self) -> bool:
        return self.credential.api_key

    def fresh(self) -> Credential | None:
        return self.credential

    async def renewed(self, refused: Secret | None = None) -> Credential:
        return self.credential


def route(
    provider: Provider,
    *,
    paths: Sequence[str] | None = None,
    base_path: bytes = b"",
    configured: Mapping[bytes, bytes | None] | None = None,
    tokens: OneCredential | None = None,
) -> Route:
    def destination(*, api_key: bool) -> Destination:
        backend = provider.backend(api_key=api_key)
        return Destination(
            api_key=api_key,
            origin=Origin(host="keys.example" if api_key else "origin.example", port=443, tls=None),
            base_path=base_path,
            backend=backend,
            paths=Paths(backend.paths) if paths is None else OpenPaths(paths),
            credential=f"{provider.name}:{'api-key' if api_key else 'login'}",
        )

    return Route(
        name=provider.name,
        provider=provider,
        login=destination(api_key=False),
        api_key=destination(api_key=True),
        tokens=tokens or OneCredential(),
        configured=configured or {},
    )


def gateway(
    *,
    users: Mapping[str, str] | None = None,
    routes: Sequence[Route] | None = None,
    guards_loopback: bool = False,
    max_body_size: int = 1000,
    **allowed: Any,
) -> Gateway:
    tokens = {"alice": ALICE, "bob": BOB} if users is None else users
    if routes is None:
        routes = [route(CLAUDE), route(CHATGPT, base_path=b"/backend-api/codex")]
    return Gateway(
        users=Users(
            [
                UserConfig(name=name, digest=hashlib.sha256(token.encode()).digest(), **allowed)
                for name, token in tokens.items()
            ]
        ),
        routes={one.name.encode(): one for one in routes},
        dialects={provider.name.encode(): provider.dialect for provider in (CLAUDE, CHATGPT)},
        guards_loopback=guards_loopback,
        head_timeout_s=60.0,
        head_timeout_is_cap=False,
        stream_idle_timeout_s=300.0,
        max_body_size=max_body_size,
    )


def head(gate: Gateway, line: str, *fields: str, host: str = "mux.example") -> RequestHead:
    """Read a request such as ``head(gate, "GET /x")``."""
    raw = "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *fields]) + "\r\n\r\n"
    return parse_request(raw.encode("latin-1"), gate.names)
