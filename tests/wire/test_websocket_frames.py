"""What a relay knows of WebSocket: the handshake's rules, a Close frame, and where frames and messages begin.

``whole`` and ``beginnings`` read frames a byte at a time from the text of RFC 6455, 5.2 and 5.4,
without a thought for speed; the properties hold ``Frames`` against them with bytes and cuts that
nobody chose.
"""

import base64
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.errors import BadRequest, UpgradeRequired, UpstreamError
from ai_mux.wire.headers import NOTABLE_IN_REQUESTS, NOTABLE_IN_RESPONSES
from ai_mux.wire.http1 import FieldNames, parse_request, parse_response
from ai_mux.wire.websocket import (
    GOING_AWAY,
    Frames,
    check_handshake,
    check_switch,
    close_frame,
)

KEY = b"bWFkZS11cC0xNi1ieXRlcw=="


def header(length, *, opcode=1, final=True, masked=False, as_bits=None):
    """Return a frame's header, its length in the shortest form or in ``as_bits`` bits."""
    bits = as_bits or (7 if length < 126 else 16 if length < 1 << 16 else 64)
    first = (0x80 if final else 0) | opcode
    second = 0x80 if masked else 0
    key = b"\x01\x80\xff\x7e" if masked else b""
    if bits == 7:
        return bytes((first, second | length)) + key
    if bits == 16:
        return struct.pack("!BBH", first, second | 126, length) + key
    return struct.pack("!BBQ", first, second | 127, length) + key


def whole(data):
    """Return (whether ``data`` ends between two frames, whether a Close header is in it)."""
    stream = iter(data)
    closed = False
    while True:
        first = next(stream, None)
        if first is None:
            return True, closed
        try:
            second = next(stream)
            length = second & 0x7F
            size = {126: 2, 127: 8}.get(length, 0)
            if size:
                length = 0
                for _ in range(size):
                    length = length << 8 | next(stream)
            for _ in range(4 if second >> 7 else 0):
                next(stream)
        except StopIteration:
            return False, closed
        closed = closed or first % 16 == 8
        try:
            for _ in range(min(length, len(data) + 1)):
                next(stream)
        except StopIteration:
            return False, closed


def beginnings(data):
    """Return where in ``data`` messages begin: with each frame that neither continues one nor controls."""
    found, at, unfinished = [], 0, False
    while at < len(data):
        first = data[at]
        opcode = first % 16
        if opcode < 8 and not (opcode == 0 and unfinished):
            found.append(at)
        end = next((end for end in range(at + 1, len(data) + 1) if whole(data[at:end])[0]), len(data))
        if opcode < 8:
            unfinished = first < 128
        at = end
    return found


def fed(*pieces):
    frames = Frames()
    for piece in pieces:
        frames.feed(piece)
    return frames.between, frames.closed


# Frames


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("length", "as_bits"),
    [(0, 7), (1, 7), (125, 7), (0, 16), (126, 16), (65_535, 16), (0, 64), (3, 64), (65_536, 64)],
)
def test_a_frame_ends_with_its_last_byte_and_not_one_earlier_or_later(length, as_bits, masked):
    frame = header(length, masked=masked, as_bits=as_bits) + b"\x88" * length
    assert fed(frame) == (True, False)
    assert fed(frame[:-1]) == (False, False)
    assert fed(frame, b"\x81") == (False, False)
    for cut in range(1, 15):  # in the header, and just behind it
        assert fed(frame[:cut], frame[cut:]) == (True, False)
        assert fed(frame[:cut])[0] is (cut >= len(frame))
    assert fed(*(frame[at : at + 1] for at in range(min(len(frame), 600)))) == (len(frame) <= 600, False)


def test_nothing_received_is_between_two_frames():
    assert fed() == (True, False)
    assert fed(b"") == (True, False)
    assert fed(b"\x81", b"", b"\x01", b"", b"x", b"") == (True, False)


@pytest.mark.parametrize("opcode", range(16))
def test_only_a_close_frame_closes(opcode):
    assert fed(header(2, opcode=opcode) + b"\x03\xe8") == (True, opcode == 8)
    assert fed(header(2, opcode=opcode, final=False, masked=True) + b"\x03\xe8") == (True, opcode == 8)


def test_a_close_counts_from_its_header_on_and_for_good():
    assert fed(header(2, opcode=8)) == (False, True)
    assert fed(header(2, opcode=8)[:1]) == (False, False)
    assert fed(header(0, opcode=8), header(1) + b"x") == (True, True)


def test_what_looks_like_a_close_inside_a_payload_is_none():
    assert fed(header(4) + b"\x88\x02\x03\xe8") == (True, False)
    assert fed(header(200, masked=True), b"\x88\x00" * 100) == (True, False)


@pytest.mark.parametrize("length", [1 << 32, (1 << 63) - 1, (1 << 64) - 1])
def test_a_frame_of_absurd_length_is_followed_without_a_limit(length):
    assert fed(header(length), b"x" * 1_000_000, b"\x88\x00") == (False, False)


def test_the_length_counts_as_it_is_written_however_wastefully():
    """RFC 6455, 5.2 asks for the shortest form; whether to refuse another is for the endpoints."""
    assert fed(header(5, as_bits=64) + b"hello" + header(0, opcode=8)) == (True, True)


FRAMES = st.builds(
    lambda payload, opcode, masked, final, as_bits: (
        header(len(payload), opcode=opcode, masked=masked, final=final, as_bits=as_bits) + payload
    ),
    st.one_of(st.binary(max_size=9), st.integers(0, 300).map(bytes)),
    st.integers(0, 15),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 16, 64]),
)
STREAMS = st.one_of(st.lists(FRAMES, max_size=6).map(b"".join), st.binary(max_size=40))


@given(stream=STREAMS, tail=st.integers(0, 20), cuts=st.lists(st.integers(0, 400), max_size=8))
@example(stream=b"\x88\xfe\x00\x00abcd\x81\x00", tail=0, cuts=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
@example(stream=b"\x81\xff" + bytes(8) + b"abcd", tail=1, cuts=list(range(14)))
def test_where_the_stream_is_cut_makes_no_difference(stream, tail, cuts):
    stream = stream[: len(stream) - tail]
    frames, at = Frames(), 0
    for cut in [*sorted(cuts), len(stream)]:
        frames.feed(stream[at:cut] if cut >= at else b"")
        at = max(at, min(cut, len(stream)))
        assert (frames.between, frames.closed) == whole(stream[:at])


@given(stream=STREAMS, cut=st.integers(0, 400), cuts=st.lists(st.integers(0, 400), max_size=4))
@example(stream=b"\x81\xfe\x00\x05abcdhello\x81\x00", cut=1, cuts=[2])
@example(stream=b"\x01\x00\x00\x01a\x89\x00\x80\x00\x80\x00", cut=2, cuts=[3])
def test_what_has_begun_is_followed_to_its_end_and_no_message_after_it(stream, cut, cuts):
    """However what comes is cut; and where it stopped, a Close frame of ours may be put."""
    cut = min(cut, len(stream))
    due = next((at for at in beginnings(stream) if at >= cut), len(stream))
    frames, at = Frames(), cut
    frames.feed(stream[:cut])
    for end in [*sorted(one for one in cuts if cut < one < len(stream)), len(stream)]:
        passed = frames.feed(stream[at:end], may_begin=False)
        assert at + passed == min(end, due)
        assert (frames.between, frames.closed) == whole(stream[: at + passed])
        if at + passed < end:
            break
        at = end


PART, LAST = header(1, final=False) + b"a", header(1, opcode=0) + b"c"
MORE = header(1, opcode=0, final=False) + b"b"
PING = header(2, opcode=9) + b"hi"


@pytest.mark.parametrize(
    ("seen", "coming", "passes"),
    [
        (b"", PING, PING),
        (b"", PING + header(1) + b"x", PING),
        (b"", LAST, b""),  # continues nothing
        (PART, LAST, LAST),
        (PART, MORE + PING + MORE + LAST, MORE + PING + MORE + LAST),
        (PART, MORE + LAST + LAST, MORE + LAST),
        (PART, MORE + header(1) + b"x", MORE),  # RFC 6455, 5.4 forbids it, and we let nobody ask with it
        (PART, header(1, final=False) + b"x" + LAST, b""),
        (PART + LAST, PING + LAST, PING),
        (PART[:1], PART[1:] + LAST + PART, PART[1:] + LAST),
        (PART + MORE[:2], MORE[2:] + LAST + PART, MORE[2:] + LAST),
        (PART + LAST[:1], LAST[1:] + MORE, LAST[1:]),
    ],
)
def test_only_the_frames_of_a_message_that_has_begun_may_still_come(seen, coming, passes):
    frames = Frames()
    frames.feed(seen)
    assert coming[: frames.feed(coming, may_begin=False)] == passes


def test_a_message_that_may_not_come_is_known_by_its_first_byte():
    """By the second one it would be a frame that has begun."""
    frames = Frames()
    assert frames.feed(b"\x81", may_begin=False) == 0
    assert frames.between
    assert frames.feed(b"\x89", may_begin=False) == 1
    assert not frames.between


# The Close frame


def test_a_close_frame_towards_a_client_is_plain():
    assert close_frame(GOING_AWAY, masked=False) == b"\x88\x02\x03\xe9"
    assert close_frame(1000, masked=False) == b"\x88\x02\x03\xe8"


def test_a_close_frame_towards_a_server_is_masked_with_a_key_that_nobody_can_foresee():
    """RFC 6455, 5.3: a new key, from a strong source, for each frame."""
    made = [close_frame(GOING_AWAY, masked=True) for _ in range(20)]
    for frame in made:
        assert (len(frame), frame[:2]) == (8, b"\x88\x82")
        key, payload = frame[2:6], frame[6:]
        assert bytes(byte ^ key[at] for at, byte in enumerate(payload)) == b"\x03\xe9"
        assert fed(frame) == (True, True)
    assert len({frame[2:6] for frame in made}) > 15


# The handshake


def asked(*fields):
    lines = [b"GET /chatgpt/v1/responses HTTP/1.1", b"Host: mux.example", *fields]
    return parse_request(b"\r\n".join(lines) + b"\r\n\r\n", FieldNames(NOTABLE_IN_REQUESTS))


VERSION = b"Sec-WebSocket-Version: 13"
GIVEN = b"Sec-WebSocket-Key: " + KEY


@pytest.mark.parametrize(
    "fields",
    [
        [VERSION, GIVEN],
        [b"SEC-WEBSOCKET-VERSION:13 ", b"sec-websocket-key:\t" + KEY],
        *([VERSION, b"Sec-WebSocket-Key: " + base64.b64encode(bytes([n] * 16))] for n in (0, 85, 170, 255)),
    ],
)
def test_a_handshake_of_version_13_with_a_key_is_one(fields):
    check_handshake(asked(*fields))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Sec-WebSocket-Version:"],
        [b"Sec-WebSocket-Version: 8"],
        [b"Sec-WebSocket-Version: 013"],
        [b"Sec-WebSocket-Version: 13, 8"],
        [VERSION, VERSION],
        [b"Sec-WebSocket-Version: 8", VERSION],
    ],
)
def test_another_version_is_a_426_that_names_ours(fields):
    """RFC 6455, 4.2.2: also where the key is missing, which another version might not have."""
    for extra in ([], [GIVEN]):
        with pytest.raises(UpgradeRequired) as refused:
            check_handshake(asked(*fields, *extra))
        assert (("Sec-WebSocket-Version", "13")) in refused.value.fields


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [b""],
        [KEY[:-1]],
        [KEY + b"="],
        [b"A" * 24],
        [b"AAAAAAAAAAAAAAAAAAAAAB=="],  # bits that 16 bytes do not have
        [base64.b64encode(bytes(15))],
        [base64.b64encode(bytes(17))],
        [KEY.replace(b"W", b"-", 1)],
        [b'"' + KEY + b'"'],
        [KEY + b"\xff"],
        [KEY, KEY],
        [KEY, b""],
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_a_400(keys):
    with pytest.raises(BadRequest) as refused:
        check_handshake(asked(VERSION, *(b"Sec-WebSocket-Key: " + key for key in keys)))
    for key in keys:
        assert not key or key.decode("latin-1") not in str(refused.value)


# The switch


def answered(*fields):
    lines = [b"HTTP/1.1 101 Switching Protocols", *fields]
    return parse_response(b"\r\n".join(lines) + b"\r\n\r\n", FieldNames(NOTABLE_IN_RESPONSES), to_head=False)


@pytest.mark.parametrize(
    "fields",
    [
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Accept: x"],
        [b"upgrade:WebSocket", b"connection: keep-alive , UPGRADE"],
        [b"Connection: upgrade", b"Upgrade: websocket", b"X: sec-websocket-extensions: none"],
        [b"Connection: upgrade", b"Upgrade: websocket", b"X-Sec-WebSocket-Extensions: none"],
        [b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Protocol: made-up"],
    ],
)
def test_a_switch_to_websocket_is_one(fields):
    check_switch(answered(*fields))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade"],
        [b"Connection: keep-alive", b"Upgrade: websocket"],
        [b"Connection: Upgrade", b"Upgrade: h2c"],
        [b"Connection: Upgrade", b"Upgrade: websocket, h2c"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Extensions: permessage-deflate"],
        [b"Sec-websocket-extensions:", b"Connection: Upgrade", b"Upgrade: websocket"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 0"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"],
    ],
)
def test_any_other_switch_is_the_providers_fault(fields):
    with pytest.raises(UpstreamError):  # llhttp refuses some of them itself
        check_switch(answered(*fields))
