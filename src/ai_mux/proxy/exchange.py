"""ONE REQUEST: read this first.

``exchange`` is the way of a request, top to bottom, in the order in which things
happen. Everything it calls is named for what it does; bodies flow by callbacks
below it (``upload``, ``upstream``) while it waits.
"""

import asyncio
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from ai_mux.credentials.credential import Credential
from ai_mux.errors import (
    BadGateway,
    InternalError,
    MethodNotAllowed,
    RequestError,
    Unavailable,
    UpgradeRequired,
    UpstreamError,
)
from ai_mux.logs import Outcome
from ai_mux.proxy.admission import admit, check_provider, identify, is_probe, presented_token
from ai_mux.proxy.conversation import Conversation
from ai_mux.proxy.models import ModelScan, check_place
from ai_mux.proxy.request import Request
from ai_mux.proxy.routes import USAGE, Admitted, Gateway, Origin, prefix_of
from ai_mux.proxy.tunnel import Tunnel
from ai_mux.proxy.upstream import Downstream, UpstreamConnection
from ai_mux.secret import Secret
from ai_mux.usage.meter import meter_for
from ai_mux.users import User, digest_of
from ai_mux.wire.answers import answer, error_answer
from ai_mux.wire.headers import respond
from ai_mux.wire.http1 import CHUNKED, HEAD_END, UNTIL_CLOSE, RequestHead, ResponseHead
from ai_mux.wire.memory import Memory, up_to
from ai_mux.wire.websocket import check_handshake, check_switch

if TYPE_CHECKING:
    from ai_mux.proxy.server import Server

# What the SDKs may ask for: they send 600, non-streamed answers take minutes, and
# fifteen of them is longer than any provider thinks in silence.
_LONGEST_WAIT_S: Final = 900
_DECLARED_WAITS: Final = (b"x-stainless-timeout", b"x-stainless-read-timeout")
# A refused upgrade that says: there is no WebSocket here. 426 itself is said in our own words, because
# the field Upgrade that belongs to it is between two neighbours (RFC 9110, 7.8).
_NO_WEBSOCKET: Final = frozenset({404, 405, 426, 501, 502})
# The providers' own have 30. What is longer passes to the client, and is cut for our log and ledger.
_ID_BYTES: Final = 256
_READS: Final = frozenset({b"GET", b"HEAD"})
_CONTENT_TYPE: Final = re.compile(rb"\ncontent-type:([^\r\n]*)", re.IGNORECASE)
_SECONDS_BYTES: Final = 16  # more than any that fits the pattern
_SECONDS: Final = re.compile(rb"\d{1,3}(?:\.\d{1,6})?")  # Python SDKs print a float if given one


class Client(Downstream, Protocol):
    """The client's side, as the exchange uses it: ``proxy.client.ClientConnection``."""

    transport: asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""

    def switch(self, tunnel: Tunnel) -> bytes:
        """Be one end of a tunnel from now on."""

    def invite(self) -> None:
        """Answer 100 Continue."""

    def authenticated(self) -> None:
        """Note that the client has shown a valid token."""

    def look_on(self) -> None:
        """Look into the rest of what was read of the body, in later turns of the loop."""

    def finish(self, *, keep: bool) -> None:
        """Wait for the next request, or close."""

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response."""


async def exchange(request: Request, client: Client, server: "Server") -> None:
    """Serve one request, whatever becomes of it."""
    keep = probe = False
    outcome: Outcome = "done"
    try:
        probe = is_probe(request.head, request.gateway)
        if probe:
            keep = _answer_probe(request, client, server)
            return
        if server.log.is_debug:
            server.show_request(request)
        user = request.user = identify(request.head, request.gateway, server.clock)  # whose token is it?
        client.authenticated()
        if request.head.path == USAGE:
            keep = await _answer_usage(request, client, server, user)
            return
        admitted = request.admitted = admit(request.head, request.gateway)  # may it go there?
        request.provider = admitted.route.name
        if request.refusal is not None:  # of the body's first bytes, which came with the head
            raise request.refusal  # noqa: TRY301 - what is raised is answered below, whoever raises it
        _begin_account(request, server, user, admitted)  # and is there something left for it?
        if user.models is not None:
            await _examine(request, client, admitted, user.models)
        if server.draining:
            raise Unavailable("This server is stopping. Try again.", retry_after_s=1)  # noqa: TRY301
        tokens = admitted.route.tokens
        credential = tokens.fresh()
        if credential is None:
            credential = await server.aside(tokens.renewed())
            admitted = _admit_with(credential, admitted, request)
        if not request.upload.received:
            _invite(request, client)
        origin = admitted.destination.origin
        upstream = server.pool.take(origin) or await _connected(request, server, origin)
        _send(request, client, upstream, admitted, credential)
        response = await upstream.head()
        request.unanswered = False
        if response.status == 401:
            credential = await _renewed(request, client, server, admitted, credential.access)
            admitted = _admit_with(credential, admitted, request)
            origin = admitted.destination.origin
            upstream = server.pool.take(origin) or await _connected(request, server, origin)
            _send(request, client, upstream, admitted, credential)
            response = await upstream.head()
            request.unanswered = False
            _check_accepted(request, response, server)
        if server.log.is_debug:
            server.show_response(request, response, upstream.received, credential.access)
        server.note_windows(admitted.destination.credential, response)
        if request.head.upgrade and _switches(request, response, server):
            outcome = await _tunnel(request, client, server, response, upstream)
            return
        keep = _begin_answer(request, client, server, response, upstream)
        if not upstream.has_ended:
            await upstream.completed()  # the bytes flow by callbacks below
        request.sent = upstream.relayed
        request.upstream = None
        server.pool.give_back(upstream)
    except RequestError as error:
        outcome = _refuse(request, client, server, error)
    except UpstreamError as error:
        server.log.warning(
            "upstream.failed", request_id=request.id, provider=request.provider, problem=str(error)
        )
        outcome = _refuse(request, client, server, BadGateway())
    except asyncio.CancelledError:
        if request.refusal is not None:
            outcome = _refuse(request, client, server, request.refusal)
        else:
            outcome = "cut" if server.ending else "left"
            if request.unanswered:
                request.note_model()
    except Exception as error:  # a bug here ends one request, not the server
        problem = type(error).__name__
        server.log.error("request.bug", request_id=request.id, problem=problem, at=_places(error))
        outcome = _refuse(request, client, server, InternalError())
    finally:
        request.end()
        try:
            server.account(request, outcome, probe=probe)
        finally:  # whatever becomes of that, the client is not left waiting
            if outcome in {"cut", "left"}:  # who half-closed may still read: no clean end
                client.cut(reset=request.until_close)
            else:
                client.finish(keep=keep)


def _answer_probe(request: Request, client: Client, server: "Server") -> bool:
    """Answer ``/healthz``, or the HEAD with which Claude Code begins."""
    head = request.head
    status, body = 200, b""
    if head.path == b"/healthz":
        status, body = (503, b"draining\n") if server.draining else (200, b"ok\n")
    keep = head.keep_alive and request.upload.complete and not server.draining
    fields = (("Content-Type", "text/plain; charset=utf-8"),) if body else ()
    client.write(answer(status, body, fields=fields, to_head=head.method == b"HEAD", close=not keep))
    request.answered(status, server.clock.monotonic())
    request.sent = 0 if head.method == b"HEAD" else len(body)
    return keep


async def _answer_usage(request: Request, client: Client, server: "Server", user: User) -> bool:
    """Tell a user what they have used, and what is left of their limits."""
    head = request.head
    if head.method not in _READS:
        raise MethodNotAllowed("GET, HEAD")
    body = await server.aside(server.pages.page(user))
    keep = head.keep_alive and request.upload.complete and not server.draining
    told = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    client.write(answer(200, body, fields=told, to_head=head.method == b"HEAD", close=not keep))
    request.answered(200, server.clock.monotonic())
    request.sent = 0 if head.method == b"HEAD" else len(body)
    return keep


def _begin_account(request: Request, server: "Server", user: User, admitted: Admitted) -> None:
    """Hold the user to what the operator allows.

    Raises:
        Forbidden: Not this provider.
        LimitReached: Not now.
        UpgradeRequired, BadRequest: A WebSocket's handshake that cannot be relayed.
    """
    check_provider(user, admitted.route.name)
    if request.head.upgrade:
        server.accounting.check(user)  # each response in it is counted by itself
        check_handshake(request.head)
    elif not admitted.free:
        request.lease = server.accounting.begin(user)


async def _examine(request: Request, client: Client, admitted: Admitted, allowed: tuple[str, ...]) -> None:
    """Look for the model in the body; from now on nothing of it passes that was not looked into.

    Raises:
        Forbidden: It is none of the user's, or could be named where nobody looks.
        BadRequest: There is not exactly one.
        UnsupportedMediaType: It is not JSON, or the body's coding cannot be undone.
    """
    head = request.head
    check_place(admitted, head)
    if not head.length:
        return
    kinds = _CONTENT_TYPE.findall(head.raw)
    scan = ModelScan(head.listed(b"content-encoding"), allowed, content_types=kinds)
    request.upload.examine(scan)
    client.look_on()
    client.resume_upload()  # where the copy has no room, reading had stopped
    _invite(request, client)
    await request.upload.known()
    request.model = scan.model


def _admit_with(credential: Credential, admitted: Admitted, request: Request) -> Admitted:
    """Admit anew where the credential became one of the other kind while we waited for it."""
    if credential.api_key is not admitted.destination.api_key:
        admitted = request.admitted = admit(request.head, request.gateway)
        if credential.api_key is not admitted.destination.api_key:
            raise Unavailable("The credential is just being replaced. Try again.", retry_after_s=1)
    return admitted


def _invite(request: Request, client: Client) -> None:
    """Ask for the body, once, where the client waits to be asked (RFC 9110, 10.1.1)."""
    head = request.head
    if head.length and not head.http10 and not request.upload.received and _expects_continue(head):
        client.invite()


async def _connected(request: Request, server: "Server", origin: Origin) -> UpstreamConnection:
    """Open a connection for this request."""
    request.host = origin.host
    upstream = await server.aside(server.pool.connect(origin), unwanted=UpstreamConnection.abort)
    if upstream.is_gone():  # lost between two turns of the loop
        raise UpstreamError("the connection was closed as soon as it was made")
    return upstream


def _send(
    request: Request,
    client: Client,
    upstream: UpstreamConnection,
    admitted: Admitted,
    credential: Credential,
) -> None:
    """Send the head and what there is of the body; the rest follows as it comes."""
    route, gateway, head = admitted.route, request.gateway, request.head
    request.host = admitted.destination.origin.host
    request.upstream = upstream
    upstream.ask(
        client,
        to_head=head.method == b"HEAD",
        head_timeout_s=_head_timeout_s(head, gateway),
        idle_timeout_s=gateway.stream_idle_timeout_s,
        upgrade=head.upgrade,
    )
    client.resume_upload()
    rules = route.rules(credential, handshake=head.upgrade)
    request.upload.attach(upstream, rules.apply(head, admitted.target + head.query))
    request.unanswered = True


async def _renewed(
    request: Request, client: Client, server: "Server", admitted: Admitted, refused: Secret
) -> Credential:
    """The provider refused the credential: return a renewed one, for the same request once more."""
    request.hang_up()
    if request.upload.replayable:
        client.resume_upload()  # read on into the copy, so that the client's leaving is noticed
    renewed = await server.aside(admitted.route.tokens.renewed(refused=refused))
    if not request.upload.replayable:
        raise Unavailable(
            "This request is too large to be repeated after a renewal. Try again.", retry_after_s=1
        )
    return renewed


def _check_accepted(request: Request, response: ResponseHead, server: "Server") -> None:
    """A second 401 is about our credential, so the client must not take it for its own."""
    if response.status == 401:
        server.log.error("credential.refused", provider=request.provider, request_id=request.id)
        raise Unavailable(
            f"The provider does not accept this server's {request.provider} credential. Ask the operator."
        )


def _switches(request: Request, response: ResponseHead, server: "Server") -> bool:
    """Tell whether the provider switched to WebSocket; if not, its refusal passes as it is.

    Raises:
        UpgradeRequired: For refusals after which only HTTP can help: Codex falls back to
            it at once on this status, and on the others after seven tries or never.
    """
    if response.status == 101:
        try:
            check_switch(response)
        except UpstreamError as error:
            server.log.warning(
                "upstream.failed", request_id=request.id, provider=request.provider, problem=str(error)
            )
            raise UpgradeRequired from error
        return True
    if response.status < 400 or response.status in _NO_WEBSOCKET:
        raise UpgradeRequired
    return False


async def _tunnel(
    request: Request, client: Client, server: "Server", response: ResponseHead, upstream: UpstreamConnection
) -> Outcome:
    """Make one WebSocket of both connections, and wait for its end. Return how it ended."""
    head, users = request.head, request.gateway.users
    id_field = request.gateway.dialect(head.path).id_field
    told = respond(response, id_field=id_field, request_id=request.id, switching=True)
    request.id = _told_id(response, id_field) or request.id
    request.digest = digest_of(presented_token(head) or b"") if users else None
    request.answered(101, server.clock.monotonic())
    request.upstream = None  # the tunnel ends it
    request.upload.forget()
    conversation = Conversation(request, server)
    tunnel = Tunnel(client, upstream, server.clock, conversation)
    try:
        tunnel.open(told, from_client=client.switch(tunnel), from_upstream=upstream.switch())
        head.forget()
        response.forget()
        await tunnel.ended()
    finally:
        request.upload.received, request.sent = tunnel.client.passed, tunnel.upstream.passed
        conversation.close()
        upstream.wind_up()
    return tunnel.outcome


def _begin_answer(
    request: Request, client: Client, server: "Server", response: ResponseHead, upstream: UpstreamConnection
) -> bool:
    """Send the head on; the body follows by itself. Return whether the connection stays open."""
    head, admitted = request.head, request.admitted
    assert admitted is not None  # noqa: S101 - the provider was asked
    _begin_metering(request, response, admitted)
    request.upload.forget()
    decode = response.length == CHUNKED and head.http10
    request.until_close = decode or response.length == UNTIL_CLOSE
    keep = head.keep_alive and request.upload.complete and not request.until_close and not server.draining
    # Who was refused a WebSocket and sends frames all the same must not have them read as requests.
    keep = keep and not head.upgrade
    id_field = admitted.dialect.id_field
    ours = respond(
        response,
        id_field=id_field,
        request_id=request.id,
        decoded=decode,
        close=not keep,
    )
    request.id = _told_id(response, id_field) or request.id
    request.answered(response.status, server.clock.monotonic())
    upstream.relay(ours, decode=decode, meter=request.meter)
    if not upstream.has_ended:  # a stream may last for an hour; why keep its heads, or what was asked
        if request.asked:
            request.note_model()
        head.forget()
        response.forget()
    return keep


def _begin_metering(request: Request, response: ResponseHead, admitted: Admitted) -> None:
    """Let a meter see what the response uses, if it uses anything; keep what the request asks for."""
    if request.lease is None or not request.gateway.metered:
        return
    request.asked = request.upload.beginning
    if 200 <= response.status < 300:
        request.meter = meter_for(
            admitted.dialect,
            content_type=response.value(b"content-type") or b"",
            content_encoding=response.listed(b"content-encoding"),
        )


def _told_id(response: ResponseHead, id_field: bytes) -> str | None:
    """Return the provider's own request id, which the client gets instead of ours."""
    told = response.value(id_field)
    return None if told is None else told[:_ID_BYTES].decode("latin-1")


def _refuse(request: Request, client: Client, server: "Server", error: RequestError) -> Outcome:
    """Answer with an error of ours, or cut the answer that has begun."""
    if request.status:
        return "cut"
    path = request.head.path
    if request.admitted is not None and not request.admitted.free:
        request.note_model()
    told = error_answer(
        error, request.gateway.dialect(path), request.id, to_head=request.head.method == b"HEAD"
    )
    client.write(told)
    request.hang_up()
    request.sent = len(told) - told.find(HEAD_END) - len(HEAD_END)
    request.answered(error.status, server.clock.monotonic())
    route = request.gateway.routes.get(prefix_of(path))
    if request.user and route is not None:
        request.provider = route.name
    return "refused"


def _expects_continue(head: RequestHead) -> bool:
    return (head.value(b"expect") or b"").lower() == b"100-continue"


def _head_timeout_s(head: RequestHead, gateway: Gateway) -> float:
    """Return how long the response's head may take: longer where the client says so and may."""
    if gateway.head_timeout_is_cap:
        return gateway.head_timeout_s
    for name in _DECLARED_WAITS:
        declared = head.value(name)
        if declared is not None and (wait_s := _DECLARED_S[declared]) is not None:
            return max(gateway.head_timeout_s, wait_s)
    return gateway.head_timeout_s


def _declared_s(value: bytes) -> float | None:
    if len(value) <= _SECONDS_BYTES and _SECONDS.fullmatch(value) and 1 <= float(value) <= _LONGEST_WAIT_S:
        return float(value)
    return None


_DECLARED_S: Final = Memory(_declared_s, keeps=up_to(_SECONDS_BYTES), most=64)


def _places(error: BaseException) -> str:
    """Return where an error passed through: files and lines, nothing that was in them."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
