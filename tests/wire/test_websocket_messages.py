"""What is in frames: a client's pieces and their payload, and a provider's messages that are worth a look.

``messages`` puts a provider's messages together frame by frame (RFC 6455, 5.4), without a thought
for speed; the properties hold ``EventFrames`` against it, and against ``Frames``.
"""

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.wire.messages import EventFrames, FrameCutter, text_frame, whole_text
from ai_mux.wire.websocket import Frames

KEY = b"\x01\x80\xff\x7e"


def frame(payload, *, first=0x81, key=b"", as_bits=None):
    size = len(payload)
    bits = as_bits or (7 if size < 126 else 16 if size < 1 << 16 else 64)
    mask = 0x80 if key else 0
    if bits == 7:
        head = bytes((first, mask | size))
    elif bits == 16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return (
        head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if key else head + payload
    )


def cut_up(data, cuts):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


PAYLOADS = st.one_of(st.binary(max_size=9), st.integers(0, 300).map(lambda size: bytes(range(256)) * 2))
FIRSTS = st.one_of(st.sampled_from([0x81, 0x01, 0x00, 0x80, 0x82, 0x88, 0x89]), st.integers(0, 255))
CLIENTS_FRAMES = st.lists(
    st.tuples(PAYLOADS, FIRSTS, st.sampled_from([b"", KEY, b"\0\0\0\0"]), st.sampled_from([None, 16, 64])),
    max_size=5,
)
CUTS = st.one_of(st.lists(st.integers(0, 1200), max_size=6), st.just(range(4000)))


# A client's


@given(frames=CLIENTS_FRAMES, tail=st.integers(0, 10), cuts=CUTS, most=st.sampled_from([1, 2, 1000]))
def test_the_pieces_are_the_bytes_and_their_payload_is_the_frames(frames, tail, cuts, most):
    data = b"".join(
        frame(payload, first=first, key=key, as_bits=bits) for payload, first, key, bits in frames
    )
    data = data[: len(data) - tail] if frames else b""
    cutter, pieces = FrameCutter(), []
    for part in cut_up(data, cuts):
        rest = part
        while rest:
            some, rest = cutter.feed(rest, most)
            assert 1 <= len(some) <= most
            pieces += some
    assert b"".join(piece.raw for piece in pieces) == data
    seen = []
    for piece in pieces:
        if piece.begins:
            seen.append([piece.first, b"", False])
        assert piece.first == seen[-1][0]
        assert piece.at == len(seen[-1][1])
        assert not seen[-1][2]
        seen[-1][1] += piece.payload
        seen[-1][2] = piece.ends
    whole = [[first, payload, True] for payload, first, _, _ in frames]
    if not tail:
        assert seen == whole
    else:
        for (first, payload, ended), (real_first, real_payload, _) in zip(seen, whole, strict=False):
            assert first == real_first
            assert real_payload.startswith(payload)
            assert not ended or payload == real_payload


@pytest.mark.parametrize(
    ("data", "sound"),
    [
        (frame(b"x", key=KEY), True),
        (frame(b"x" * 200, key=KEY), True),
        (frame(b"x", key=KEY, as_bits=64), True),
        (frame(b"x", key=KEY, first=0x02), True),
        (frame(b"x", key=KEY, first=0x00), True),
        (frame(b"x" * 125, key=KEY, first=0x8A), True),
        (frame(b"x"), False),
        (frame(b"x", key=KEY, first=0xC1), False),
        (frame(b"x", key=KEY, first=0xA1), False),
        (frame(b"x", key=KEY, first=0x90), False),
        (frame(b"x", key=KEY, first=0x83), False),
        (frame(b"x", key=KEY, first=0x8B), False),
        (frame(b"x", key=KEY, first=0x09), False),
        (frame(b"x" * 126, key=KEY, first=0x89), False),
        (frame(b"x", key=KEY, first=0x89, as_bits=16), False),
        (b"\x81\xff\x80" + bytes(7) + KEY, False),
    ],
)
def test_a_frame_that_could_be_read_in_two_ways_is_called_so(data, sound):
    for pieces in ([data], [data[:1], data[1:]], [data[at : at + 1] for at in range(len(data))]):
        cutter = FrameCutter()
        cut = [piece for part in pieces for piece in cutter.feed(part, 1000)[0]]
        assert all(piece.is_sound for piece in cut) is sound


def test_one_odd_frame_does_not_make_the_next_one_odd():
    pieces, _ = FrameCutter().feed(frame(b"x") + frame(b"x", key=KEY), 1000)
    assert [piece.is_sound for piece in pieces] == [False, True]


@given(frames=CLIENTS_FRAMES.filter(bool), tail=st.integers(0, 10), extra=st.binary(max_size=3))
def test_only_one_whole_masked_text_is_taken_for_one(frames, tail, extra):
    (payload, first, key, bits), *_ = frames
    data = frame(payload, first=first, key=key, as_bits=bits)
    whole = data[: len(data) - tail] + extra
    expected = (payload[:512], len(payload)) if key and first == 0x81 else None
    if whole == data:
        assert whole_text(whole) == expected
    else:
        # What came in the place of the end may be as long. Then it is a message of that length still,
        # with another text where it changed the key or the text.
        told = whole_text(whole)
        assert told is None or (len(whole) == len(data) and told[1] == len(payload))


# A provider's

DELTA = b'{"type":"response.output_text.delta","delta":"Hello"}'
TEXTS = st.sampled_from(
    [
        b"",
        b'{"type":"response.created"}',
        b'{"type":"response.completed","response":{"usage":{"input_tokens":1}}}' + b" " * 300,
        b'{"type":"error"}',
        DELTA,
        DELTA[:-1] + b',"x":"' + b"y" * 300 + b'"}',
        b'{"sequence_number":1234567890,"item":"x","type":"response.x.delta"}',
        b'{"type":"response.completed","response":{"text":"response.output_text.delta"}}',
        b'{"type":"response.done","x":"' + b"z" * 40 + b'.delta"}',
        b'{"type":"x",  ' + b" " * 43 + b'".delta"}',
        b'{"type":"x",  ' + b" " * 44 + b'".delta"}',
        b'{"type":"x",  ' + b" " * 45 + b'".delta"}',
    ]
)
IN_PARTS = st.builds(
    lambda text, cut, between, first: (
        frame(text[:cut], first=first)
        + between
        + frame(text[cut:][:1], first=0x00)
        + frame(text[cut + 1 :], first=0x80)
    ),
    TEXTS,
    st.integers(0, 400),
    st.sampled_from([b"", frame(b"", first=0x89), frame(b"x" * 9, first=0x8A)]),
    st.sampled_from([0x01, 0x01, 0x02]),
)
PROVIDERS_FRAMES = st.one_of(
    IN_PARTS,
    st.builds(frame, TEXTS, first=st.sampled_from([0x81, 0x81, 0x01, 0x00, 0x80, 0x82, 0xC1])),
    st.builds(frame, TEXTS, as_bits=st.sampled_from([16, 64])),
    st.builds(frame, st.binary(max_size=5), first=st.sampled_from([0x88, 0x89, 0x8A])),
)


def messages(stream):
    """Return the whole messages of text in ``stream`` that are no steps of an answer."""
    found, message, begun = [], None, False
    at = 0
    while at + 2 <= len(stream):
        first, size = stream[at], stream[at + 1] & 0x7F
        more = {126: 2, 127: 8}.get(size, 0)
        if at + 2 + more > len(stream):
            break
        if more:
            size = int.from_bytes(stream[at + 2 : at + 2 + more], "big")
        at += 2 + more
        if at + size > len(stream):
            break
        payload = stream[at : at + size]
        at += size
        opcode = first & 0x0F
        if opcode >= 8:
            continue
        if opcode:
            message = payload if opcode == 1 and not first & 0x70 else None
        elif not begun:
            message = None
        elif message is not None:
            message += payload
        begun = first < 0x80
        if not begun and message is not None and b'.delta"' not in message[:64]:
            found.append(message)
    return found


@given(frames=st.lists(PROVIDERS_FRAMES, max_size=6), tail=st.integers(0, 10), cuts=CUTS)
@example(frames=[frame(b'{"type":"error"}'), frame(DELTA)], tail=0, cuts=[])
@example(frames=[frame(b"{", first=0x01), frame(DELTA), frame(b"}", first=0x80)], tail=0, cuts=[3])
def test_of_a_providers_messages_all_but_the_steps_are_found_however_they_come(frames, tail, cuts):
    data = b"".join(frames)
    data = data[: len(data) - tail] if frames else b""
    events, plain, found = EventFrames(), Frames(), []
    for part in cut_up(data, cuts):
        if part:
            found += events.hear(part)
            plain.feed(part)
            assert events.met == plain.met
        assert (events.between, events.closed, events.is_in_message) == (
            plain.between,
            plain.closed,
            plain.is_in_message,
        )
    assert found == messages(data)


@given(stream=st.binary(max_size=40), cuts=CUTS)
def test_whatever_bytes_come_where_frames_begin_is_known(stream, cuts):
    events, plain = EventFrames(), Frames()
    for part in cut_up(stream, cuts):
        if part:
            events.hear(part)
            plain.feed(part)
        assert (events.between, events.closed) == (plain.between, plain.closed)


def test_a_message_of_a_gigabyte_is_followed_in_constant_memory_and_only_its_beginning_is_kept():
    events = EventFrames()
    begin = b'{"type":"response.completed","response":"'
    size = 1 << 30
    tracemalloc.start()
    assert events.hear(b"\x81\x7f" + size.to_bytes(8, "big") + begin) == []
    left = size - len(begin)
    piece = b"x" * (1 << 20)
    while left > len(piece):
        assert events.hear(piece) == []
        left -= len(piece)
    (found,) = events.hear(piece[:left])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.startswith(begin)
    assert len(found) == 4 * 1024 * 1024
    assert events.between
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 125, 126, 5000])
def test_a_text_frame_towards_a_client_is_whole_and_plain(size):
    assert text_frame(b"x" * size) == frame(b"x" * size)
