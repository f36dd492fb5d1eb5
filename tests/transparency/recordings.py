"""The recorded requests: how they are kept, named and brought back to their full size.

A file holds a head as the client sent it, but for its line ends (LF for CR LF) and for
what is nobody's business: ids are made up in their shape, machine paths and ports are
replaced, and tokens were made up from the start. Names, order, spelling and blanks are
the client's.

A body is kept whole if it is small. Of a large one the members are kept, and what they
hold is not: prompts are their vendor's. ``load`` fills it up to the recorded
Content-Length with text that is the same every time. A compressed body is made anew.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transparency.recorder import Request, framing

DIRECTORY: Final = Path(__file__).parent / "recordings"
# Where the recorded clients believed that they spoke to.
HOST: Final = "127.0.0.1:8080"

_KEPT_BYTES: Final = 400  # what our own questions need; no client's prompt fits
_FILLER: Final = b"<filled up to Content-Length>"
_ABSENT: Final = b"<compressed>"
_TEXT: Final = b"These bytes stand where a prompt stood, \xc2\xa7 4; they mean nothing. "
_BLOCK_BYTES: Final = 128 * 1024  # RFC 8878, 3.1.1.2.4

_UUID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_KEY: Final = re.compile(r"(?im)^(sec-websocket-key: )[^\r]*")
_NONCE: Final = "bWFkZS11cC1ub25jZS0xNg=="  # RFC 6455, 4.1: 16 bytes
_WHEN: Final = re.compile(r'("[a-z_]+_unix_ms":)\d+')
_PORT: Final = re.compile(r"(?im)^(host: )[^\r]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded request.

    Attributes:
        name: Of its file, without the ending: the run, the method and the path.
        head: As sent, blank line included.
        body: Without transfer framing.
    """

    name: str
    head: bytes
    body: bytes

    @property
    def method(self) -> bytes:
        return self.head.split(b" ", 1)[0]

    @property
    def target(self) -> bytes:
        return self.head.split(b" ", 2)[1]

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def provider(self) -> str:
        """The first segment of its path."""
        return self.path.split(b"/")[1].decode()

    @property
    def field_names(self) -> list[str]:
        """The names of its fields, as spelled and in order."""
        return field_names(self.head)

    @property
    def asks_for_websocket(self) -> bool:
        return framing(self.head).get(b"upgrade", b"").lower() == b"websocket"

    @property
    def waits_for_continue(self) -> bool:
        return b"expect" in framing(self.head)

    def with_fields(self, *lines: bytes, at: int | None = None) -> "Recording":
        """Return the same request with further field lines, before the field ``at`` or at the end."""
        return Recording(name=self.name, head=with_fields(self.head, *lines, at=at), body=self.body)

    def with_body(self, body: bytes) -> "Recording":
        """Return the same request with another body."""
        length = b"\\g<1>: %d" % len(body)
        head = re.sub(rb"(?im)^(content-length): \d+", length, self.head)
        return Recording(name=self.name, head=head, body=body)

    @property
    def framed(self) -> bytes:
        """The body as it travels: chunked, in three pieces, where the head says so."""
        if b"transfer-encoding" not in framing(self.head):
            return self.body
        cuts = [0, len(self.body) // 7, len(self.body) // 3, len(self.body)]
        pieces = [self.body[begin:end] for begin, end in itertools.pairwise(cuts)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def field_names(head: bytes) -> list[str]:
    """Return the names of a head's fields, as spelled and in order."""
    return [line.partition(b":")[0].decode() for line in head[:-4].split(b"\r\n")[1:]]


def with_fields(head: bytes, *lines: bytes, at: int | None = None) -> bytes:
    """Return a head with further field lines, before the field ``at`` or at the end."""
    start, *fields = head[:-4].split(b"\r\n")
    place = len(fields) if at is None else at % (len(fields) + 1)
    return b"\r\n".join([start, *fields[:place], *lines, *fields[place:], b"", b""])


# Reading


def names() -> list[str]:
    """Return the names of all recordings."""
    return sorted(file.name.removesuffix(".http") for file in DIRECTORY.glob("*.http"))


def load(name: str) -> Recording:
    """Return a recording in its full size."""
    head, _, body = (DIRECTORY / f"{name}.http").read_bytes().partition(b"\n\n")
    assert b"\r" not in head
    head = head.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    size = int(framing(head).get(b"content-length", b"0"))
    if body == _ABSENT:
        body = zstd(size)
    elif _FILLER in body:
        before, _, after = body.partition(_FILLER)
        body = before + text(size - len(before) - len(after)) + after
    assert b"content-length" not in framing(head) or len(body) == size, name
    return Recording(name=name, head=head, body=body)


def text(size: int) -> bytes:
    """Return ``size`` bytes that are the same every time."""
    return (_TEXT * (size // len(_TEXT) + 1))[:size]


def zstd(size: int) -> bytes:
    """Return a Zstandard frame of ``size`` bytes, made of raw blocks (RFC 8878, 3.1.1)."""
    # Magic number, then a header that says: one segment, its length in four bytes.
    overhead = 4 + 1 + 4
    rest = size - overhead
    blocks = []
    content = 0
    while rest > 0:
        held = min(rest - 3, _BLOCK_BYTES)
        blocks.append(held)
        content += held
        rest -= held + 3
    data = text(content)
    frame = b"\x28\xb5\x2f\xfd\xa0" + content.to_bytes(4, "little")
    at = 0
    for number, held in enumerate(blocks, start=1):
        is_last = number == len(blocks)
        frame += (is_last | held << 3).to_bytes(3, "little") + data[at : at + held]
        at += held
    return frame


# Recording


def kept(run: str, requests: list[Request], *, home: Path) -> Iterator[Recording]:
    """Yield a run's different requests: one for each method, path, list of fields and way to answer."""
    seen: set[tuple[str, ...]] = set()
    taken: set[str] = set()
    for request in requests:
        path = request.target.partition("?")[0]
        if not path.startswith(("/claude", "/chatgpt")):
            continue  # a client's calls to its vendor's other services
        streams = b'"stream":true' in request.body
        shape = (request.method, path, str(streams), *field_names(request.head))
        if shape in seen:
            continue
        seen.add(shape)
        rest = re.sub(r"^/\w+(/v1)?", "", path).replace("/", "-")
        upgrade = "-websocket" if b"sec-websocket-key" in request.head.lower() else ""
        name = f"{run}.{request.method.lower()}{rest}{'-stream' if streams else ''}{upgrade}"
        while name in taken:
            name += "-again"
        taken.add(name)
        yield Recording(name=name, head=_made_up(request.head, home), body=request.body)


def save(recording: Recording) -> None:
    """Write a recording's file."""
    DIRECTORY.mkdir(exist_ok=True)
    head = recording.head.replace(b"\r\n", b"\n")
    (DIRECTORY / f"{recording.name}.http").write_bytes(head + _abridged(recording))


def _made_up(head: bytes, home: Path) -> bytes:
    """Replace what is this machine's or this run's own, each id by one of the same shape."""
    lines = (
        head.decode("ascii").replace(str(home.resolve()), "/srv/project").replace(str(home), "/srv/project")
    )
    ids: dict[str, str] = {}

    def made_up_id(found: re.Match[str]) -> str:
        return ids.setdefault(found[0], f"00000000-0000-4000-8000-{len(ids) + 1:012d}")

    lines = _UUID.sub(made_up_id, lines)
    for pattern, value in ((_KEY, _NONCE), (_WHEN, "1767225600000"), (_PORT, HOST)):
        lines = pattern.sub(rf"\g<1>{value}", lines)
    return lines.encode()


def _abridged(recording: Recording) -> bytes:
    body = recording.body
    if framing(recording.head).get(b"content-encoding") is not None:
        return _ABSENT
    if len(body) <= _KEPT_BYTES:
        return body
    members = {
        key: value if not isinstance(value, str | list | dict) else type(value)()
        for key, value in json.loads(body).items()
    }
    members["model"] = json.loads(body).get("model", "")
    return json.dumps(members | {"filler": _FILLER.decode()}, separators=(",", ":")).encode()
