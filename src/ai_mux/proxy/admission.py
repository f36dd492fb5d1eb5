"""Who may do what: the checks before a request may cost anything, in their order.

The order is part of the contract. Once users are configured a stranger learns
nothing, so the token comes before everything that depends on the path; framing
comes even before that, because a request whose end is unknown has no path.
"""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final

from ai_mux.clock import Clock
from ai_mux.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    RequestError,
    TooLarge,
    Unauthorized,
)
from ai_mux.hosts import is_local_name
from ai_mux.proxy.routes import HEALTH, Admitted, Gateway, OpenPaths, Paths, prefix_of
from ai_mux.users import User
from ai_mux.wire.http1 import RequestHead

# Everything that an origin server might normalise after we matched the path raw.
_TREACHEROUS: Final = re.compile(rb"//|\\|#|%2f|%5c|%00|/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_SCHEME: Final = b"bearer "
# Paths are few where they are ruled, and anything where ``paths: all`` opens them.
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 256
# They fetch or remove what is there; no model answers them.
_ASKS_NOTHING: Final = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})
# For whose handshake is none: it has a body, or a proxy on the way has removed what asks for it.
_HANDSHAKE: Final = ", and GET as a WebSocket handshake: Connection: Upgrade, Upgrade: websocket, no body"


def is_probe(head: RequestHead, gateway: Gateway) -> bool:
    """Tell whether it is a probe, which anyone may make.

    HEAD on a base URL itself is what Claude Code begins with; ``/healthz`` is asked by
    whoever runs the server.
    """
    if head.path not in gateway.open_to_all or head.query:
        return False
    return head.method == b"HEAD" or (head.method == b"GET" and head.path == HEALTH)


def identify(head: RequestHead, gateway: Gateway, clock: Clock) -> User:
    """Return who asks.

    With both fields present Authorization decides: clients exist that send two
    different tokens in one request.

    Raises:
        Unauthorized: Users are configured, and none has this token, or not any more.
        Forbidden: No users are configured, and a web page may have sent this.
    """
    if gateway.is_open:
        _refuse_web_pages(head, gateway)
        return gateway.anonymous
    token = presented_token(head)
    user = gateway.users.find(token) if token else None
    if user is None:
        raise Unauthorized
    check_expiry(user, clock)
    return user


def check_expiry(user: User, clock: Clock) -> None:
    """Refuse a token whose time is over.

    Raises:
        Unauthorized: It is. That it was valid once is known to whoever has it (RFC 6750, 3.1).
    """
    if user.expires_at is not None and clock.time() >= user.expires_at:
        until = _end(user.expires_at)
        raise Unauthorized(
            f"This token has expired: it was valid until {until}. Ask the operator for another."
        )


def _end(expires_at: float) -> str:
    """Return when a token ended, as whoever set it wrote it: a date counts to its end."""
    at = datetime.fromtimestamp(expires_at, UTC).replace(tzinfo=None)
    if at.time() == time.min:
        return f"the end of {at.date() - timedelta(days=1)} (UTC)"
    return f"{at} UTC"


def check_provider(user: User, provider: str) -> None:
    """Refuse a provider that is not among the user's.

    Raises:
        Forbidden: It is not.
    """
    if user.providers is not None and provider not in user.providers:
        raise Forbidden(f"Your token is not for {provider}. The operator can add it to your providers.")


def still_admitted(
    before: Admitted, head: RequestHead, digest: bytes | None, gateway: Gateway
) -> User | None:
    """Return who opened a tunnel if they might open it now, to the same place; else None.

    Args:
        before: What the handshake was found to be good for.
        head: The handshake's head, of which only the request line must be left.
        digest: The SHA-256 of the token that was shown; None where none was needed.
        gateway: What the configuration decides now.
    """
    if digest is None:
        user = gateway.anonymous if gateway.is_open else None
    else:
        user = gateway.users.with_digest(digest)
    if user is None:
        return None
    try:
        check_provider(user, before.route.name)
        return user if _find(head, gateway).leads_as(before) else None
    except RequestError:
        return None


def presented_token(head: RequestHead) -> bytes | None:
    """Return the token that the request carries, or None."""
    authorization = head.value(b"authorization")
    if authorization is None:
        return head.value(b"x-api-key")
    if authorization[:7].lower() != _SCHEME:
        return None
    return authorization[7:].strip(b" ")


def admit(head: RequestHead, gateway: Gateway) -> Admitted:
    """Find out where an identified request goes.

    Raises:
        RequestError: The first rule that it breaks.
    """
    found = gateway.admitted.get((head.method, head.path))
    if (
        found is None
        or found.destination.api_key is not found.route.tokens.is_api_key
        or head.upgrade
        or head.query.find(b"#") >= 0  # ``in`` would try first whether it is given a number
    ):
        found = _find(head, gateway)
    if head.length > gateway.max_body_size:
        raise TooLarge
    return found


def _find(head: RequestHead, gateway: Gateway) -> Admitted:
    """Apply the rules for paths and methods; what passes is remembered, within limits."""
    method, path = head.method, head.path
    if method in {b"TRACE", b"CONNECT"}:
        # TRACE would show the user our credential (RFC 9110, 9.3.8).
        raise MethodNotAllowed("GET, HEAD, POST")
    if b"#" in head.target or _TREACHEROUS.search(path):
        raise BadRequest("The path has characters or segments that could be read in two ways.")
    name = prefix_of(path)
    route = gateway.routes.get(name)
    if route is None or not path.startswith(b"/"):
        raise NotFound
    rest = path[1 + len(name) :]
    destination = route.destination
    backend = destination.backend
    reason = backend.impossible.get(backend.target(rest))
    if reason is not None:
        raise BadRequest(reason)
    _check_path(route.name, destination.paths, method, rest, upgrade=head.upgrade)
    free = not head.upgrade and (method in _ASKS_NOTHING or backend.is_free(rest))
    admitted = Admitted(
        route=route,
        destination=destination,
        target=destination.target(rest),
        free=free,
        dialect=gateway.dialect(path),
    )
    if not head.upgrade and len(path) <= _REMEMBERED_BYTES:
        if len(gateway.admitted) >= _REMEMBERED:
            gateway.admitted.clear()
        gateway.admitted[method, path] = admitted
    return admitted


def _check_path(
    provider: str, paths: Paths | OpenPaths, method: bytes, path: bytes, *, upgrade: bool
) -> None:
    if isinstance(paths, OpenPaths):
        if path not in paths:
            raise _closed(provider, path)
        return
    rule = paths.find(path)
    if rule is None:
        raise _closed(provider, path)
    if method not in rule.methods and not (upgrade and rule.upgrade):
        raise MethodNotAllowed(
            ", ".join(allowed.decode("ascii") for allowed in rule.methods),
            hint=_HANDSHAKE if rule.upgrade and method == b"GET" else "",
        )


def _closed(provider: str, path: bytes) -> Forbidden:
    return Forbidden(
        f"{path.decode('latin-1') or '/'} is not among the paths that this server opens for "
        f"{provider}; its operator can add it under 'paths' of that provider."
    )


def _refuse_web_pages(head: RequestHead, gateway: Gateway) -> None:
    """Without users a browser's page could use the gateway; neither it nor DNS rebinding may."""
    if head.value(b"origin") is not None:
        raise Forbidden("Requests from web pages are refused while no users are configured.")
    if gateway.guards_loopback and not is_local_name((head.value(b"host") or b"").decode("latin-1")):
        raise Forbidden("The Host must be a loopback name or an IP address while no users are configured.")
