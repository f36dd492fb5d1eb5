"""Content codings are undone however their bytes are cut, within bounds; nothing sloppy passes for one."""

import gzip
import itertools
import random
import subprocess
import sys
import time
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.wire.codings import CodingError, decoder

MIB = 1024 * 1024


def deflate(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACK = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": lambda data: deflate(data, 15),
    b"br": lambda data: brotli.compress(data, quality=1),
    b"zstd": zstd,
}
CODINGS = pytest.mark.parametrize("coding", PACK)

# What bodies are made of: words that repeat, and bytes that do not.
datas = st.builds(
    lambda words, times, rest: words * times + rest,
    st.binary(max_size=60),
    st.integers(0, 400),
    st.binary(max_size=400),
)
cuts = st.lists(st.integers(0, 10**6), max_size=8)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def undone(coding: bytes, pieces: list[bytes], limit: int = 64 * MIB) -> bytes:
    undo = decoder(coding, limit=limit)
    assert undo is not None
    out = b"".join(undo.feed(piece) for piece in pieces)
    undo.finish()
    return out


@CODINGS
@given(datas, cuts)
def test_a_body_is_undone_however_its_bytes_are_cut(coding, data, at):
    assert undone(coding, cut(PACK[coding](data), at)) == data


@given(datas, cuts, st.lists(st.sampled_from(list(PACK)), min_size=1, max_size=5))
def test_codings_are_undone_in_reverse_order(data, at, listed):
    packed = data
    for coding in listed:
        packed = PACK[coding](packed)
    assert undone(b", ".join(listed), cut(packed, at)) == data


@given(datas, cuts)
def test_deflate_without_its_header_is_undone_too(data, at):
    assert undone(b"deflate", cut(deflate(data, -15), at)) == data


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
@given(st.lists(datas, min_size=1, max_size=4), cuts)
def test_members_follow_each_other(coding, parts, at):
    packed = b"".join(PACK[coding](part) for part in parts)
    assert undone(coding, cut(packed, at)) == b"".join(parts)


@pytest.mark.parametrize("size", [32_000, 3 * MIB])
@CODINGS
def test_a_body_that_hardly_packs_comes_out_whole(coding, size):
    data = random.Random(4).randbytes(size)
    packed = PACK[coding](data)
    assert undone(coding, [packed]) == data
    assert undone(coding, [packed[at : at + 4096] for at in range(0, len(packed), 4096)]) == data


@CODINGS
def test_what_was_flushed_comes_out_at_once(coding):
    """An event is packed and flushed, and is not held back until more comes."""
    packers = {
        b"br": lambda: brotli.Compressor(quality=4),
        b"zstd": lambda: zstandard.ZstdCompressor().compressobj(),
        b"deflate": zlib.compressobj,
    }
    packer = packers.get(coding, lambda: zlib.compressobj(wbits=31))()
    undo = decoder(coding, limit=MIB)
    for number in range(200):
        event = b"data: %d, and some words that are said again and again\n\n" % number * (number % 50 + 1)
        if coding == b"br":
            packed = packer.process(event) + packer.flush()
        elif coding == b"zstd":
            packed = packer.compress(event) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        else:
            packed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert undo.feed(packed) == event
    with pytest.raises(CodingError):
        undo.finish()


@pytest.mark.parametrize("value", [b"", b"identity", b" Identity , ", b",,"])
def test_there_may_be_nothing_to_undo(value):
    assert decoder(value, limit=1) is None


@pytest.mark.parametrize("value", [b"GZIP", b"\tgzip ", b"identity, gzip", b"gzip,,identity"])
def test_names_are_read_as_lists_are(value):
    assert undone(value, [gzip.compress(b"x")]) == b"x"


@pytest.mark.parametrize("value", [b"compress", b"gzip;q=1", b"gzip br", b"gzi", b"zstd, aes128gcm", b"\xff"])
def test_an_unknown_coding_is_an_error(value):
    with pytest.raises(CodingError):
        decoder(value, limit=MIB)


def test_a_list_of_codings_has_an_end():
    assert decoder(b", ".join([b"gzip"] * 5), limit=MIB) is not None
    with pytest.raises(CodingError):
        decoder(b", ".join([b"gzip"] * 6), limit=MIB)


# Bounds


@CODINGS
def test_as_much_as_the_limit_comes_out_and_no_more(coding):
    data = b"abc" * 100_000
    packed = PACK[coding](data)
    assert undone(coding, [packed], limit=len(data)) == data
    for pieces in ([packed], [packed[at : at + 1] for at in range(len(packed))]):
        with pytest.raises(CodingError):
            undone(coding, pieces, limit=len(data) - 1)


def rle_frame(blocks: int) -> bytes:
    """A zstd frame, written by hand, whose blocks of four bytes stand for 128 KiB each."""
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(20 - 10) << 3])  # a window of 1 MiB
    block = (128 * 1024) << 3 | 1 << 1
    return header + (block.to_bytes(3, "little") + b" ") * blocks + (block | 1).to_bytes(3, "little") + b" "


BOMBS = {
    "gzip": (b"gzip", gzip.compress(bytes(32 * MIB)) * 32),
    "deflate": (b"deflate", deflate(bytes(128 * MIB), 15)),
    "br": (b"br", brotli.compress(bytes(64 * MIB), quality=5)),
    "zstd": (b"zstd", rle_frame(32 * 1024)),  # 4 GiB
    "zstd's frames": (b"zstd", zstd(bytes(16 * MIB)) * 64),
    "gzip in gzip": (b"gzip, gzip", gzip.compress(gzip.compress(bytes(32 * MIB)) * 32)),
    "gzip in br in zstd": (
        b"gzip, br, zstd",
        zstd(brotli.compress(gzip.compress(bytes(64 * MIB)), quality=5)),
    ),
}


@pytest.mark.parametrize("limit", [MIB, 1024 * MIB])
@pytest.mark.parametrize(("coding", "bomb"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_costs_little_memory_and_time(coding, bomb, limit):
    undo = decoder(coding, limit=limit)
    undo.feed(b"")
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(CodingError):
            undo.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 16 * MIB + len(bomb)
    assert time.process_time() - began < 2, "seconds of CPU; unbounded it takes many"


@pytest.mark.parametrize(
    ("coding", "member"),
    [
        (b"gzip", gzip.compress(b"")),
        (b"zstd", rle_frame(0)[:6] + b"\x01\0\0"),
        (b"zstd", b"\x50\x2a\x4d\x18\0\0\0\0"),
    ],
)
def test_thousands_of_empty_members_cost_no_more_than_their_bytes(coding, member):
    began = time.process_time()
    assert undone(coding, [member * (256 * 1024 // len(member))]) == b""
    assert time.process_time() - began < 2


def test_a_window_that_needs_much_memory_is_an_error():
    parameters = zstandard.ZstdCompressionParameters(window_log=24, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(random.Random(4).randbytes(17 * MIB)) + packer.flush()
    with pytest.raises(CodingError):
        undone(b"zstd", [packed[at : at + MIB] for at in range(0, len(packed), MIB)])


# What is not exactly the coding


@CODINGS
def test_a_body_that_is_cut_has_not_ended(coding):
    packed = PACK[coding](b"some words, " * 50)
    for end in range(len(packed)):
        undo = decoder(coding, limit=MIB)
        undo.feed(packed[:end])
        with pytest.raises(CodingError):
            undo.finish()


@CODINGS
@pytest.mark.parametrize("together", [True, False])
def test_nothing_may_follow_the_end(coding, together):
    packed = PACK[coding](b"some words")
    for junk in (b"x", b"\0", b"\r\n", bytes(100)):
        with pytest.raises(CodingError):
            undone(coding, [packed + junk] if together else [packed, junk])


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"deflate", deflate(b"words", 15)),
        (b"deflate", deflate(b"words", -15)),
        (b"br", brotli.compress(b"words")),
    ],
    ids=["zlib", "raw", "br"],
)
def test_some_codings_have_one_member_only(coding, packed):
    assert undone(coding, [packed]) == b"words"
    for pieces in ([packed + packed], [packed, packed], [packed, b"x"]):
        with pytest.raises(CodingError):
            undone(coding, pieces)


@CODINGS
@given(st.data())
def test_broken_bytes_are_an_error_or_other_bytes_and_nothing_else(coding, data):
    packed = bytearray(PACK[coding](b"some words, " * 20))
    for _ in range(data.draw(st.integers(1, 5))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    undo = decoder(coding, limit=MIB)
    try:
        undo.feed(bytes(packed))
        undo.finish()
    except CodingError:
        with pytest.raises(CodingError):
            undo.finish()


@CODINGS
@given(st.binary(max_size=200), cuts)
def test_any_bytes_are_an_error_at_worst(coding, data, at):
    undo = decoder(coding, limit=MIB)
    try:
        for piece in cut(data, at):
            undo.feed(piece)
        undo.finish()
    except CodingError:
        return
    assert undone(coding, [data]) is not None


@CODINGS
def test_what_was_broken_stays_so(coding):
    undo = decoder(coding, limit=MIB)
    with pytest.raises(CodingError):
        undo.feed(b"these are words, and not the coding that was announced")
    for piece in (PACK[coding](b"x"), b""):
        with pytest.raises(CodingError):
            undo.feed(piece)
    with pytest.raises(CodingError):
        undo.finish()


def test_libraries_are_loaded_when_a_body_needs_them():
    program = (
        "import sys; from ai_mux.wire.codings import decoder; decoder(b'gzip', limit=1)\n"
        "print(*sorted({'brotli', 'zstandard'} & sys.modules.keys()))\n"
        "decoder(b'br', limit=1); print(*sorted({'brotli', 'zstandard'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n") == ["", "brotli", ""]
