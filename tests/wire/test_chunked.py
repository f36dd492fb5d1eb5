"""The chunked coding: where the bytes are cut makes no difference, and nothing sloppy is let through."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.wire.chunked import LAST_CHUNK, ChunkDecoder, ChunkError, ChunkWatcher, chunk

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def decoded(pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    decoder = ChunkDecoder()
    body = b""
    for index, piece in enumerate(pieces):
        body += b"".join(decoder.feed(piece))
        if decoder.done:
            return body, True, decoder.rest + b"".join(pieces[index + 1 :])
    return body, False, b""


bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b" " * 0])
trailers = st.lists(
    st.sampled_from([b"A: b", b"X-Sum: 00", b"Upgrade: x", b"Connection: upgrade"]), max_size=3
)
cuts = st.lists(st.integers(0, 400), max_size=12)


def coded(body: list[bytes], extension: bytes, trailer: list[bytes]) -> bytes:
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in body)
    return chunks + b"0%b\r\n" % extension + b"".join(line + b"\r\n" for line in trailer) + b"\r\n"


@given(bodies, extensions, trailers, st.binary(max_size=20), cuts)
def test_a_body_is_read_the_same_however_its_bytes_are_cut(body, extension, trailer, rest, at):
    whole = coded(body, extension, trailer) + rest
    assert decoded(cut(whole, at)) == (b"".join(body), True, rest)


@given(bodies, cuts)
def test_a_body_is_not_done_before_its_last_byte(body, at):
    whole = coded(body, b"", [])[:-1]
    assert decoded(cut(whole, at)) == (b"".join(body), False, b"")


@given(bodies)
def test_what_is_framed_anew_reads_back(body):
    assert decoded([b"".join(map(chunk, body)) + LAST_CHUNK]) == (b"".join(body), True, b"")


BROKEN = {
    "a sign": b"+5\r\nhello\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "an underscore": b"0_5\r\nhello\r\n",
    "a blank before the size": b" 5\r\nhello\r\n",
    "a blank after the size": b"5 \r\nhello\r\n",
    "a blank before an extension": b"5 ;a\r\nhello\r\n",
    "no size": b"\r\nhello\r\n",
    "an extension without a size": b";a\r\nhello\r\n",
    "a size that is no number": b"five\r\nhello\r\n",
    "a size beyond ASCII": b"\xb5\r\nhello\r\n",
    "a size of 16 digits": b"0000000000000005\r\nhello\r\n",
    "a negative size": b"-1\r\nhello\r\n",
    "bare LF after the size": b"5\nhello\r\n",
    "bare LF in an extension": b"5;a\n\r\nhello\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n",
    "two CR after the size": b"5\r\r\nhello\r\n",
    "NUL in an extension": b"5;\0\r\nhello\r\n",
    "bare LF after the data": b"5\r\nhello\n",
    "a longer chunk than announced": b"5\r\nhello!\r\n",
    "a shorter chunk than announced": b"6\r\nhello\r\n0\r\n\r\n",
    "bare LF in a trailer": b"0\r\nA: b\n\r\n",
    "bare CR in a trailer": b"0\r\nA: b\rC: d\r\n\r\n",
    "bare LF at the end": b"0\r\n\n",
    "an endless size line": b"5;" + b"a" * 5000,
    "an endless trailer line": b"0\r\nA: " + b"a" * 5000,
    "endless trailers": b"0\r\n" + b"A: b\r\n" * 5000,
    "an endless size": b"5" * 5000,
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_sloppy_body_is_refused(raw, step):
    decoder = ChunkDecoder()
    with pytest.raises(ChunkError):
        for at in range(0, len(raw), step):
            decoder.feed(raw[at : at + step])


def test_junk_in_the_place_of_a_line_end_is_not_waited_for():
    decoder = ChunkDecoder()
    with pytest.raises(ChunkError):
        decoder.feed(b"1\r\naXX")


@given(bodies, extensions, trailers, cuts)
def test_the_watcher_finds_the_end_however_the_bytes_are_cut(body, extension, trailer, at):
    watcher = ChunkWatcher(HEAD)
    pieces = cut(coded(body, extension, trailer), at)
    for piece in pieces[:-1]:
        watcher.feed(piece)
        assert not watcher.done
    watcher.feed(pieces[-1])
    assert watcher.done


JUNK = [
    b"\r\n",
    b"\n",
    b"\r",
    b"x",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\0",
    b" ",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("together", [True, False])
def test_whatever_follows_the_last_chunk_is_an_error(junk, together):
    watcher = ChunkWatcher(HEAD)
    with pytest.raises(ChunkError):
        for piece in [b"5\r\nhello\r\n0\r\n\r\n" + junk] if together else [b"0\r\n\r\n", junk]:
            watcher.feed(piece)


@given(bodies, st.binary(min_size=1, max_size=8), cuts)
def test_no_cut_hides_junk_behind_the_last_chunk(body, junk, at):
    watcher = ChunkWatcher(HEAD)
    with pytest.raises(ChunkError):
        for piece in cut(coded(body, b"", []) + junk, at):
            watcher.feed(piece)


def test_a_response_whose_chunks_are_broken_is_an_error():
    watcher = ChunkWatcher(HEAD)
    with pytest.raises(ChunkError):
        watcher.feed(b"5\r\nhelloworld\r\n")


def test_a_trailer_cannot_change_the_framing():
    decoder = ChunkDecoder()
    assert decoder.feed(b"1\r\na\r\n0\r\nContent-Length: 7\r\n\r\nGET /") == [b"a"]
    assert (decoder.done, decoder.rest) == (True, b"GET /")
    watcher = ChunkWatcher(HEAD)
    with pytest.raises(ChunkError):
        watcher.feed(b"1\r\na\r\n0\r\nContent-Length: 7\r\n\r\n")


def test_an_upgrade_that_is_only_offered_does_not_disturb_the_watcher():
    offered = HEAD[:-2] + b"Connection: Upgrade\r\nUpgrade: h2,h2c\r\n\r\n"  # as Apache does
    watcher = ChunkWatcher(offered)
    watcher.feed(b"1\r\na\r\n0\r\n\r\n")
    assert watcher.done


def test_a_body_that_ends_in_blank_lines_is_not_its_end():
    watcher = ChunkWatcher(HEAD)
    watcher.feed(b"8\r\nabcd\r\n\r\n")
    watcher.feed(b"\r\n4\r\n\r\n\r\n")
    assert not watcher.done
    watcher.feed(b"\r\n0\r\n\r\n")
    assert watcher.done
