"""Which request meets which mode: every recorded one, and requests that reach what no client sends.

Each made request is a recorded one with further fields, so that what is tried stands
among what clients really send.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from transparency import expected
from transparency.answers import COMPRESSED
from transparency.modes import BETA, MODES, REMOVED, Mode, near
from transparency.recordings import Recording, load, names

# Answered by the gateway itself: Claude Code's look whether anybody is there.
PROBES: Final = ("claude-code-probe.head",)
HANDSHAKES: Final = tuple(name for name in names() if name.endswith("-websocket"))

# What the made requests are made from: small, and with most of what clients send.
_BASES: Final = {
    "claude": "anthropic-python.post-messages-stream",
    "chatgpt": "openai-python.post-responses-stream",
}
# Fields whose value is more than a text.
_VALUES: Final = {
    b"te": b"trailers",
    b"expect": b"100-continue",
    b"upgrade": b"h2c",
    b"keep-alive": b"timeout=5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request and the mode that it meets."""

    name: str
    request: Recording
    mode: Mode

    def __str__(self) -> str:
        return f"{self.mode.name}-{self.name}"


def meets(request: Recording, mode: Mode) -> bool:
    """Tell whether a request is one that a mode serves."""
    path = request.path.removeprefix(b"/" + mode.provider.encode())
    return request.provider == mode.provider and path not in mode.closed


def _recorded() -> list[Case]:
    requests = [load(name) for name in names() if name not in PROBES + HANDSHAKES]
    return [
        Case(name=request.name, request=request, mode=mode)
        for mode in MODES
        for request in requests
        if meets(request, mode)
    ]


def _made(mode: Mode) -> list[Case]:
    base = load(_BASES[mode.provider])
    made: dict[str, Recording] = {}
    for entry in (*REMOVED, *mode.removed):
        name = entry.replace(b"*", b"madeup")
        value = _VALUES.get(entry, b"made up")
        if entry == b"authorization":
            continue  # the base carries one, and two are refused
        # In front of everything and, but for a key, once more among it, spelled otherwise.
        request = base.with_fields(name.upper() + b":" + value, at=0)
        if entry != b"x-api-key":
            request = request.with_fields(name.title() + b":  " + value + b" ", at=5)
        made[f"with {entry.decode()}"] = request
    for name, _ in mode.put:
        if name.lower() not in {b"authorization", b"x-api-key"}:
            theirs = (name.swapcase() + b":theirs", b"X-Between: 1", name + b": theirs again")
            made[f"with {name.decode()}"] = base.with_fields(*theirs, at=3)
            named = (b"Connection: x, " + name, name + b": theirs")
            made[f"with {name.decode()} named"] = base.with_fields(*named, at=1)
    nearly = {
        name for entry in (*REMOVED, *mode.removed, b"sec-websocket-extensions") for name in near(entry)
    }
    made["with what is nearly listed"] = base.with_fields(
        *(name.title() + b": %d" % number for number, name in enumerate(sorted(nearly))), at=3
    )
    made["with a key alone"] = _with_line(base, b"authorization", b"X-API-Key", _token_of(base))
    made["with Connection naming its fields"] = _without(base, b"connection").with_fields(*_NAMED, at=2)
    made["with Connection naming what it may not"] = base.with_fields(
        b"Connection: Host, content-length, Authorization", at=0
    )
    made["with a wish to close"] = _without(base, b"connection").with_fields(b"Connection: close")
    bare = _without(base, b"accept-encoding")
    for number, lines in enumerate(_ENCODINGS):
        made[f"with Accept-Encoding {number}"] = bare.with_fields(*lines, at=2)
    for number, lines in enumerate(_BETAS):
        made[f"with betas {number}"] = base.with_fields(*lines, at=4)
    made["chunked"] = _with_line(base, b"content-length", b"transfer-ENCODING", b"chunked")
    made["with a handshake's fields outside of one"] = base.with_fields(
        b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Version: 13", at=1
    )
    prefix = b"/" + mode.provider.encode()
    targets = _OPEN_TARGETS if mode.settings.get("paths") == "all" else ()
    for target in (*(base.target + query for query in _QUERIES), *(prefix + path for path in targets)):
        made[f"to {target.decode()}"] = replace(base, head=base.head.replace(base.target, target, 1))
    for coding, body in COMPRESSED.items():
        encoded = base.with_fields(b"Content-Encoding: " + coding.encode(), at=6)
        made[f"in {coding}"] = encoded.with_body(body)
    made["with nothing but its token"] = Recording(
        name="bare",
        head=b"\r\n".join([*base.head.split(b"\r\n")[:2], _line(base, b"authorization"), b"", b""]),
        body=b"",
    )
    return [Case(name=name, request=request, mode=mode) for name, request in made.items()]


_QUERIES: Final = (b"?", b"?beta=true&x=%20a%2Fb%00&a=b?c&&=", b"?%7Bid%7d=../..//;'~!$*()+,:@[]{}|^`\"<>\\")
# Where every path is open: the absent segment goes only if it is a whole one, and only in front.
_OPEN_TARGETS: Final = (
    b"",
    b"?x=1",
    b"/",
    b"/v1",
    b"/v1/",
    b"/v1?v1/x",
    b"/v1beta/x",
    b"/v10",
    b"/v1/v1/x",
    b"/x/v1/%41~;a",
)
_NAMED: Final = (
    b"connection: close-not, X-Named",
    b"X-named: 1",
    b"X-Kept: 1",
    b"x-NAMED: 2",
    b"CONNECTION:\tx-other",
    b"X-Other: 1",
)
_ENCODINGS: Final = (
    (),
    (b"Accept-Encoding: ",),
    (b"accept-encoding: *",),
    (b"Accept-Encoding:gzip;q=0.5,  BR ; q=1,zstd",),
    (b"Accept-Encoding: gzip;q=1.0, compress, X-Gzip, sdch;q=0.3, *;q=0, identity",),
    (b"Accept-Encoding: sdch", b"X-Between: 1", b"accept-encoding: deflate"),
    (b"Accept-Encoding: sdch", b"X-Between: 1", b"accept-encoding: *"),
    (b"Accept-Encoding: gzip,,  br,",),
    (b"Accept-Encoding: gzip, madeup" + b"-coding" * 30,),
)
_BETAS: Final = (
    (b"Anthropic-Beta: one,two-2026-01-01",),
    (b"anthropic-beta: one", b"X-Between: 1", b"ANTHROPIC-BETA: two , three \t"),
    (b"anthropic-beta: " + BETA, b"X-Between: 1", b"anthropic-beta: two"),
    (b"anthropic-beta: one , " + BETA + b" ,two",),
    (b"anthropic-beta: not-" + BETA,),
    (b"anthropic-beta:",),
)


def _token_of(request: Recording) -> bytes:
    return _line(request, b"authorization").rpartition(b" ")[2]


def _line(request: Recording, name: bytes) -> bytes:
    (line,) = [line for line in request.head.split(b"\r\n") if line.lower().startswith(name + b":")]
    return line


def _with_line(request: Recording, old: bytes, name: bytes, value: bytes) -> Recording:
    head = request.head.replace(_line(request, old), name + b": " + value)
    return replace(request, head=head)


def _without(request: Recording, name: bytes) -> Recording:
    head = re.sub(rb"(?im)^" + name + rb":[^\r]*\r\n", b"", request.head)
    return replace(request, head=head)


CASES: Final = tuple(case for case in (*_recorded(), *(case for mode in MODES for case in _made(mode))))


def listed(mode: Mode) -> set[str]:
    """Return every change that the list can make to a request in a mode."""
    put = [name.decode().lower() for name, _ in mode.put]
    removed = [entry.decode() for entry in (*REMOVED, *mode.removed)]
    return (
        {f"removed: {entry}" for entry in removed if entry not in put}
        | {f"{expected.IN_PLACE}: {name}" for name in (*put, "host")}
        | {f"{expected.AT_THE_END}: {name}" for name in put}
        | ({expected.MEMBER_ADDED, expected.MEMBER_PRESENT, expected.MEMBER_ALONE} if mode.joined else set())
        | {expected.CODINGS_KEPT, expected.CODINGS_DROPPED, expected.CODINGS_GONE, expected.CODINGS_MISSING}
        | {expected.NAMED, expected.NAMED_IN_VAIN, expected.FRAMING}
        | ({expected.REPEATED} if len(put) > 1 else set())
    )
