"""One request's state, from its head to its line in the log."""

import re
from typing import Final

from ai_mux.errors import RequestError
from ai_mux.proxy.routes import Admitted, Gateway
from ai_mux.proxy.upload import Upload
from ai_mux.proxy.upstream import UpstreamConnection
from ai_mux.usage.limiter import Lease
from ai_mux.usage.meter import Meter
from ai_mux.users import User
from ai_mux.wire.codings import CodingError, decoder
from ai_mux.wire.http1 import RequestHead

# Clients write the model among the first members. It is only noted here, for a response that does
# not say it; where it decides anything, ``proxy.models`` looks for it.
_MODEL: Final = b'"model"'
_MODEL_VALUE: Final = re.compile(rb'\s*:\s*"([!#-\[\]-~]{1,128})"')
_BEGINNING_BYTES: Final = 64 * 1024
_PACKED_BYTES: Final = 16 * 1024
_UNPACKED_BYTES: Final = 1024 * 1024


def asked_model(beginning: bytes) -> str:
    """Return the model that a request's body asks for, as far as its beginning shows; else nothing."""
    at = beginning.find(_MODEL, 0, _BEGINNING_BYTES)
    value = None if at < 0 else _MODEL_VALUE.match(beginning, at + len(_MODEL))
    return "" if value is None else value[1].decode("ascii")


def unpacked(beginning: bytes, content_encoding: bytes) -> bytes:
    """Return what the beginning of a packed body stands for; nothing where it cannot be unpacked."""
    try:
        undoing = decoder(content_encoding, limit=_UNPACKED_BYTES)
        return beginning if undoing is None else undoing.feed(beginning[:_PACKED_BYTES])
    except CodingError:
        return b""


class Request:
    """One request's state, from its head to its line in the log.

    Attributes:
        head: What the client sent.
        upload: Its body.
        gateway: What the configuration decided when it began.
        id: Our request id.
        remote: Where the client is.
        started: When its head was complete, in monotonic seconds.
        user: Whose token it carried.
        admitted: Where it may go, and went with the credential that there was in the end.
        lease: Its place among those that count against its user's limits.
        meter: Reads what its response uses.
        model: The model that it asks for, as far as that was looked for.
        asked: The beginning of its body, where the model is yet to be looked for, should the response
            not say it.
        unanswered: A provider was asked, and has not begun to answer.
        digest: The SHA-256 of a tunnel's token; None where none was needed.
        provider: Where it went.
        host: The provider's host, once it was asked.
        upstream: The connection that serves it now.
        refusal: What broke a rule in its body while it was being served.
        status: What the client was told; 0 while it was told nothing.
        head_at: When the client was sent the response's head, in monotonic seconds.
        sent: Bytes of the response's body that were sent to the client.
        until_close: The response's end is the connection's.
    """

    __slots__ = (
        "admitted",
        "asked",
        "digest",
        "gateway",
        "head",
        "head_at",
        "host",
        "id",
        "lease",
        "meter",
        "model",
        "provider",
        "refusal",
        "remote",
        "sent",
        "started",
        "status",
        "unanswered",
        "until_close",
        "upload",
        "upstream",
        "user",
    )

    def __init__(  # noqa: PLR0917 - see where it is made
        self,
        head: RequestHead,
        upload: Upload,
        gateway: Gateway,
        remote: str,
        request_id: str,
        started: float,
    ) -> None:
        self.head = head
        self.upload = upload
        self.gateway = gateway
        self.id = request_id
        self.remote = remote
        self.started = started
        self.user: User | None = None
        self.lease: Lease | None = None
        self.meter: Meter | None = None
        self.model = ""
        self.asked = b""
        self.unanswered = False
        self.admitted: Admitted | None = None
        self.digest: bytes | None = None
        self.provider = ""
        self.host = ""
        self.upstream: UpstreamConnection | None = None
        self.refusal: RequestError | None = None
        self.status = 0
        self.head_at = 0.0
        self.sent = 0
        self.until_close = False

    def answered(self, status: int, now: float) -> None:
        """Note what the client is told, and when."""
        self.status = status
        self.head_at = now

    def note_model(self) -> None:
        """Note the model that the body asks for, as far as its beginning shows; it may be dropped then."""
        beginning, self.asked = self.asked or self.upload.beginning, b""
        if self.model:
            return
        coding = self.head.listed(b"content-encoding")
        self.model = asked_model(unpacked(beginning, coding) if coding and beginning else beginning)

    def hang_up(self) -> None:
        """Leave the present upstream connection, which then serves nobody again."""
        upstream, self.upstream = self.upstream, None
        self.upload.detach()
        if upstream is not None:
            self.sent = upstream.relayed
            upstream.leave()
            upstream.abort()

    def end(self) -> None:
        """Let go of everything."""
        if self.upstream is not None:
            self.hang_up()
        self.upload.detach()
        self.upload.forget()
