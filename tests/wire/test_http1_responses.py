"""Response heads: which can be trusted, how long their bodies are, and what may follow them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.errors import UpstreamError
from ai_mux.wire.headers import NOTABLE_IN_RESPONSES
from ai_mux.wire.http1 import CHUNKED, RESPONSE_FIELDS, UNTIL_CLOSE, ResponseHead, parse_response
from ai_mux.wire.shapes import FieldNames


def read(raw: bytes, *, to_head: bool = False) -> ResponseHead:
    return parse_response(raw, FieldNames(NOTABLE_IN_RESPONSES), to_head=to_head)


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *fields]) + b"\r\n\r\n"


# Design section 4, "What bites", point 8, and what no origin sends.
REFUSED = {
    "CL with TE": response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "differing CL": response(b"Content-Length: 5", b"Content-Length: 6"),
    "repeated CL": response(b"Content-Length: 5", b"content-length: 5"),
    "listed CL": response(b"Content-Length: 5, 5"),
    "CL with a sign": response(b"Content-Length: +5"),
    "CL with a leading zero": response(b"Content-Length: 05"),
    "TE other than chunked": response(b"Transfer-Encoding: gzip, chunked"),
    "TE of identity": response(b"Transfer-Encoding: identity"),
    "TE in two fields": response(b"Transfer-Encoding: gzip", b"TRANSFER-encoding: chunked"),
    "TE in HTTP/1.0": response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"),
    "HTTP/2.0": response(line=b"HTTP/2.0 200 OK"),
    "Shoutcast": response(line=b"ICY 200 OK"),
    "a blank line first": b"\r\n" + response(),
    "LF first": b"\n" + response(),
    "status 0": response(line=b"HTTP/1.1 000 OK"),
    "status 99": response(line=b"HTTP/1.1 099 OK"),
    "status of two digits": response(line=b"HTTP/1.1 20 OK"),
    "status of four digits": response(line=b"HTTP/1.1 2000 OK"),
    "status with a sign": response(line=b"HTTP/1.1 +20 OK"),
    "NUL in the reason": response(line=b"HTTP/1.1 200 O\0K"),
    "ESC in the reason": response(line=b"HTTP/1.1 200 O\x1bK"),
    "bare CR in the reason": response(line=b"HTTP/1.1 200 O\rK"),
    "bare LF in the reason": response(line=b"HTTP/1.1 200 O\nK"),
    "bare LF between fields": response(b"A: b\nC: d"),
    "bare CR between fields": response(b"A: b\rC: d"),
    "obs-fold": response(b"A: b", b" c"),
    "space before the colon": response(b"A : b"),
    "NUL in a value": response(b"A: \0"),
    "no colon": response(b"A"),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_a_head_that_cannot_be_trusted_is_refused(raw):
    with pytest.raises(UpstreamError):
        read(raw)


def test_the_number_of_fields_is_limited():
    fields = [b"A-%d: b" % number for number in range(RESPONSE_FIELDS)]
    assert len(read(response(*fields)).sent) == RESPONSE_FIELDS
    with pytest.raises(UpstreamError):
        read(response(*fields, b"One: more"))


@pytest.mark.parametrize(
    ("line", "fields", "to_head", "length", "keep"),
    [
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], False, 5, True),
        (b"HTTP/1.1 200 OK", [b"content-length:0"], False, 0, True),
        (b"HTTP/1.1 200", [b"Transfer-Encoding: Chunked"], False, CHUNKED, True),
        (b"HTTP/1.1 200 ", [], False, UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 \xdcber gut", [b"Content-Length: 5"], False, 5, True),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Connection: close"], False, 5, False),
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Connection: x", b"Connection: CLOSE"], False, 5, False),
        (b"HTTP/1.0 200 OK", [b"Content-Length: 5", b"Connection: keep-alive"], False, 5, False),
        # Point 5: HEAD, 204 and 304 have no body, whatever the head says.
        (b"HTTP/1.1 200 OK", [b"Content-Length: 5"], True, 0, True),
        (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], True, 0, True),
        (b"HTTP/1.1 204 No Content", [], False, 0, True),
        (b"HTTP/1.1 204 No Content", [b"Content-Length: 5"], False, 0, True),
        (b"HTTP/1.1 304 Not Modified", [b"Content-Length: 5"], False, 0, True),
        (b"HTTP/1.1 304 Not Modified", [b"Transfer-Encoding: chunked"], False, 0, True),
        (b"HTTP/1.1 100 Continue", [], False, 0, True),
        (b"HTTP/1.1 103 Early Hints", [b"Link: </a>"], False, 0, True),
        (b"HTTP/1.1 999 What", [b"Content-Length: 1"], False, 1, True),
    ],
)
def test_the_body_and_what_follows_are_known_from_the_head(line, fields, to_head, length, keep):
    head = read(response(*fields, line=line), to_head=to_head)
    assert (head.status, head.length, head.keep_alive) == (int(line[9:12]), length, keep)


def test_an_unasked_upgrade_is_read_and_left_to_the_status():
    assert read(response(b"Connection: Upgrade", b"Upgrade: h2c", line=b"HTTP/1.1 101 X")).status == 101


@given(st.binary(max_size=80))
def test_no_bytes_make_the_parser_fail_otherwise(junk):
    with contextlib.suppress(UpstreamError):
        read(b"HTTP/1.1 200" + junk.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")
