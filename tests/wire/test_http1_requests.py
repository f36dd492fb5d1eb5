"""Request heads: what is refused, what is understood, and that llhttp sees the same as we do."""

import re

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from ai_mux.errors import BadRequest, HeadTooLarge, RequestError, TargetTooLong
from ai_mux.wire.headers import NOTABLE_IN_REQUESTS
from ai_mux.wire.http1 import (
    CHUNKED,
    REQUEST_FIELDS,
    REQUEST_LINE_BYTES,
    RequestHead,
    parse_request,
)
from ai_mux.wire.shapes import FieldNames

NAMES = FieldNames(NOTABLE_IN_REQUESTS)


def read(raw: bytes) -> RequestHead:
    return parse_request(raw, NAMES)


def request(*fields: bytes, line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *fields]) + b"\r\n\r\n"


def with_host(*fields: bytes, line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return request(b"Host: mux.example", *fields, line=line)


# Design section 4, "What bites", point 6: each of these is a 400.
REFUSED = {
    "CL with TE": with_host(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "TE with CL": with_host(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "differing CL": with_host(b"Content-Length: 5", b"Content-Length: 6"),
    "repeated CL": with_host(b"Content-Length: 5", b"content-length: 5"),
    "listed CL": with_host(b"Content-Length: 5, 5"),
    "CL with a plus": with_host(b"Content-Length: +5"),
    "CL with a minus": with_host(b"Content-Length: -5"),
    "CL with a blank inside": with_host(b"Content-Length: 5 5"),
    "CL with a leading zero": with_host(b"Content-Length: 05"),
    "CL of zeros": with_host(b"Content-Length: 00"),
    "CL in hexadecimal": with_host(b"Content-Length: 0x5"),
    "CL with an underscore": with_host(b"Content-Length: 1_0"),
    "empty CL": with_host(b"Content-Length:"),
    "CL beyond 64 bits": with_host(b"Content-Length: 18446744073709551621"),
    "CL beyond 18 digits": with_host(b"Content-Length: 1234567890123456789"),
    "TE of gzip and chunked": with_host(b"Transfer-Encoding: gzip, chunked"),
    "TE of chunked twice": with_host(b"Transfer-Encoding: chunked, chunked"),
    "TE in two fields": with_host(b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"),
    "TE of identity": with_host(b"Transfer-Encoding: identity"),
    "TE with a parameter": with_host(b"Transfer-Encoding: chunked;a=b"),
    "TE in quotes": with_host(b'Transfer-Encoding: "chunked"'),
    "empty TE": with_host(b"Transfer-Encoding:"),
    "TE with a vertical tab": with_host(b"Transfer-Encoding: \x0bchunked"),
    "TE in HTTP/1.0": with_host(b"Transfer-Encoding: chunked", line=b"POST /x HTTP/1.0"),
    "obs-fold with a blank": with_host(b"A: b", b" c"),
    "obs-fold with a tab": with_host(b"A: b", b"\tc"),
    "obs-fold of an empty value": with_host(b"A:", b" c"),
    "obs-fold of the first field": request(b" Host: mux.example"),
    "obs-folded TE": with_host(b"Transfer-Encoding:", b" chunked"),
    "bare LF after the request line": b"POST /x HTTP/1.1\nHost: mux.example\r\n\r\n",
    "bare LF between fields": with_host(b"A: b\nC: d"),
    "bare CR between fields": with_host(b"A: b\rC: d"),
    "bare CR in a value": with_host(b"A: b\r"),
    "LF before the method": b"\n" + with_host(),
    "CR before the method": b"\r" + with_host(),
    "CR LF before the method": b"\r\n" + with_host(),
    "NUL in a value": with_host(b"A: b\0c"),
    "NUL in a name": with_host(b"A\0: b"),
    "control character in a value": with_host(b"A: b\x01c"),
    "DEL in a value": with_host(b"A: b\x7fc"),
    "space before the colon": with_host(b"Content-Length : 5"),
    "tab before the colon": with_host(b"Content-Length\t: 5"),
    "blank in a name": with_host(b"A B: c"),
    "no name": with_host(b": b"),
    "no colon": with_host(b"A"),
    "name beyond ASCII": with_host(b"\xc4: b"),
    "no Host": request(b"A: b"),
    "no Host in HTTP/1.0": request(b"A: b", line=b"GET / HTTP/1.0"),
    "two Hosts": with_host(b"HOST: mux.example"),
    "two Hosts spelled alike": with_host(b"Host: mux.example"),
    "empty Host": request(b"Host:"),
    "Host with a path": request(b"Host: mux.example/x"),
    "Host with a user": request(b"Host: user@mux.example"),
    "Host with a blank": request(b"Host: mux.example other"),
    "Host with junk behind brackets": request(b"Host: [::1]mux.example"),
    "Host with a port that is none": request(b"Host: mux.example:80x"),
    "Host with two ports": request(b"Host: mux.example:80:80"),
    "Host beyond ASCII": request(b"Host: m\xfcx.example"),
    "absurdly long Host": request(b"Host: " + b"a" * 300),
    "absolute form with another authority": with_host(line=b"GET http://other.example/x HTTP/1.1"),
    "absolute form with another port": with_host(line=b"GET http://mux.example:81/x HTTP/1.1"),
    "absolute form with a user": with_host(line=b"GET http://u@mux.example/x HTTP/1.1"),
    "HTTP/0.9": with_host(line=b"GET /x HTTP/0.9"),
    "HTTP/1.2": with_host(line=b"GET /x HTTP/1.2"),
    "HTTP/2.0": with_host(line=b"GET /x HTTP/2.0"),
    "the preface of HTTP/2": with_host(line=b"PRI * HTTP/2.0"),
    "RTSP": with_host(line=b"DESCRIBE /x RTSP/1.0"),
    "ICE": with_host(line=b"SOURCE /x ICE/1.0"),
    "no version": with_host(line=b"GET /x"),
    "no target": with_host(line=b"GET HTTP/1.1"),
    "lower-case version": with_host(line=b"GET /x http/1.1"),
    "two blanks after the method": with_host(line=b"GET  /x HTTP/1.1"),
    "two blanks before the version": with_host(line=b"GET /x  HTTP/1.1"),
    "tab after the method": with_host(line=b"GET\t/x HTTP/1.1"),
    "blank at the end of the line": with_host(line=b"GET /x HTTP/1.1 "),
    "blank in the target": with_host(line=b"GET /x y HTTP/1.1"),
    "tab in the target": with_host(line=b"GET /x\ty HTTP/1.1"),
    "control character in the target": with_host(line=b"GET /x\x01 HTTP/1.1"),
    "DEL in the target": with_host(line=b"GET /x\x7f HTTP/1.1"),
    "target beyond ASCII": with_host(line=b"GET /x\x80 HTTP/1.1"),
    "query beyond ASCII": with_host(line=b"GET /x?\xff HTTP/1.1"),
    "form feed in the query": with_host(line=b"GET /x?\x0c HTTP/1.1"),
    "method beyond ASCII": with_host(line=b"G\xc4T /x HTTP/1.1"),
    "control character in the method": with_host(line=b"G\x01T /x HTTP/1.1"),
    "unknown method": with_host(line=b"BREW /x HTTP/1.1"),
    "method in lower case": with_host(line=b"get /x HTTP/1.1"),
    "target without a slash": with_host(line=b"GET x HTTP/1.1"),
    "nothing but blank lines": b"\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    # Design section 2: two of either is a 400, whatever they hold.
    "two Authorization fields": with_host(b"Authorization: Bearer a", b"authorization: Bearer a"),
    "two Authorization fields spelled alike": with_host(
        b"Authorization: Bearer a", b"Authorization: Bearer b"
    ),
    "two x-api-key fields": with_host(b"x-api-key: a", b"X-Api-Key: a"),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_head_is_a_400(raw):
    with pytest.raises(BadRequest):
        read(raw)


def test_the_number_of_fields_is_limited():
    fields = [b"A-%d: b" % number for number in range(REQUEST_FIELDS - 1)]
    assert len(read(with_host(*fields)).lines) == REQUEST_FIELDS + 1
    with pytest.raises(HeadTooLarge):
        read(with_host(*fields, b"One: more"))


def test_the_request_line_is_limited():
    room = REQUEST_LINE_BYTES - len(b"GET / HTTP/1.1")
    assert read(with_host(line=b"GET /%b HTTP/1.1" % (b"a" * room))).http10 is False
    with pytest.raises(TargetTooLong):
        read(with_host(line=b"GET /%b HTTP/1.1" % (b"a" * (room + 1))))


def test_a_head_of_70_kb_and_200_fields_is_normal():
    fields = [b"X_Odd-%d: %b" % (number, b"v" * 350) for number in range(199)]
    assert read(with_host(*fields)).lines[1:] == [b"Host: mux.example", *fields]


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length:5"], 5),
        ([b"content-LENGTH: \t5 \t"], 5),
        ([b"Content-Length: 999999999999999999"], 999999999999999999),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:CHUNKED "], CHUNKED),
    ],
)
def test_the_framing_is_computed_from_the_head(fields, length):
    assert read(with_host(*fields)).length == length


@pytest.mark.parametrize(
    ("host", "target", "path", "query"),
    [
        (b"mux.example", b"/claude/v1/messages?beta=true", b"/claude/v1/messages", b"?beta=true"),
        (b"mux.example", b"/a?", b"/a", b"?"),
        (b"mux.example", b"/a?b?c", b"/a", b"?b?c"),
        (b"mux.example", b"/%41%2f..//", b"/%41%2f..//", b""),
        (b"mux.example", b"http://mux.example/a?b", b"/a", b"?b"),
        (b"MUX.example:8080", b"HTTP://mux.EXAMPLE:8080/a", b"/a", b""),
        (b"mux.example", b"https://mux.example", b"/", b""),
        (b"[::1]:8080", b"http://[::1]:8080/", b"/", b""),
        (b"mux_1.example", b"*", b"*", b""),
    ],
)
def test_the_target_is_split_and_never_decoded(host, target, path, query):
    head = read(request(b"Host: " + host, line=b"OPTIONS %b HTTP/1.1" % target))
    assert (head.target, head.path, head.query) == (target, path, query)


def test_a_request_line_that_was_met_before_is_judged_by_this_request_s_host():
    line = b"GET http://mux.example/x?y HTTP/1.1"
    for _ in range(2):
        head = read(request(b"Host: mux.example", line=line))
        assert (head.target, head.path, head.query) == (b"http://mux.example/x?y", b"/x", b"?y")
        with pytest.raises(BadRequest, match="differ"):
            read(request(b"Host: other.example", line=line))


@pytest.mark.parametrize("target", [b"/" + b"p" * 300 + b"?q", b"/p?" + b"q" * 300])
def test_a_long_request_line_is_read_like_a_short_one(target):
    for _ in range(2):
        head = read(with_host(line=b"GET " + target + b" HTTP/1.0"))
        assert (head.method, head.path + head.query, head.http10) == (b"GET", target, True)


@pytest.mark.parametrize(
    ("version", "fields", "keep"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: keep-alive"], True),
        (b"1.1", [b"Connection: Close"], False),
        (b"1.1", [b"Connection: x , close,y"], False),
        (b"1.1", [b"Connection: close", b"Connection: keep-alive"], False),
        (b"1.1", [b"connection: keep-alive", b"Connection: close"], False),
        (b"1.1", [b"Connection: closed"], True),
        (b"1.1", [b"Connection: " + b"x," * 200 + b"close"], False),
        (b"1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_unless_the_client_says_otherwise(version, fields, keep):
    assert read(with_host(*fields, line=b"GET / HTTP/%b" % version)).keep_alive is keep


WEBSOCKET = (b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket")


@pytest.mark.parametrize(
    ("line", "fields", "upgrade"),
    [
        (b"GET / HTTP/1.1", WEBSOCKET, True),
        (b"GET / HTTP/1.1", (*WEBSOCKET, b"Content-Length: 0"), True),
        # Point 11: curl --http2 asks for h2c, with whatever method and body it has.
        (
            b"POST / HTTP/1.1",
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: 5"),
            False,
        ),
        (b"GET / HTTP/1.1", (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), False),
        (b"GET / HTTP/1.1", (*WEBSOCKET, b"Content-Length: 5"), False),
        (b"GET / HTTP/1.1", (*WEBSOCKET, b"Transfer-Encoding: chunked"), False),
        (b"POST / HTTP/1.1", WEBSOCKET, False),
        (b"GET / HTTP/1.0", WEBSOCKET, False),
        (b"GET / HTTP/1.1", (b"Upgrade: websocket",), False),
        (b"GET / HTTP/1.1", (b"Connection: Upgrade",), False),
        (b"CONNECT mux.example:443 HTTP/1.1", (), False),
    ],
)
def test_an_upgrade_counts_only_on_a_bodyless_get_to_websocket(line, fields, upgrade):
    assert read(with_host(*fields, line=line)).upgrade is upgrade


class Heard:
    """What llhttp reports when it is given every callback."""

    def __init__(self, raw: bytes, body: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.begun = 0
        self.completed_at: int | None = None
        parser = HttpRequestParser(self)
        try:
            parser.feed_data(raw)
            for at in range(len(body)):
                parser.feed_data(body[at : at + 1])
        except HttpParserUpgrade:
            pass
        self.method = parser.get_method()

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.completed_at is None:
            self.completed_at = len(self.body)


name = st.sampled_from(
    [
        b"Host",
        b"host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Upgrade",
        b"A",
        b"x_y",
        b"",
        b"A B",
    ]
)
value = st.one_of(
    st.sampled_from(
        [b"", b"m", b"5", b"0", b"05", b"chunked", b"close", b"Upgrade, close", b"websocket", b"h2c", b"m:8"]
    ),
    st.binary(max_size=6),
)
separator = st.sampled_from([b": ", b": ", b": ", b":", b":\t ", b" :", b""])
ending = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b" \r\n", b"\r\r\n"])
field = st.builds(lambda n, s, v, e: n + s + v + e, name, separator, value, ending)
start = st.sampled_from(
    [
        b"GET /a HTTP/1.1",
        b"POST /a?b HTTP/1.1",
        b"GET http://m/a HTTP/1.0",
        b"\nGET / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"POST * HTTP/1.1",
        b"CONNECT m:8 HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
        b"GET / HTTP/1.10",
    ]
)


@given(start, ending, st.lists(field, max_size=5), st.booleans())
@example(b"POST / HTTP/1.1", b"\r\n", [b"Content-Length: 5\r\n", b"X: y\r\n"], True)
@example(b"GET / HTTP/1.1", b"\r\n", [b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n"], True)
def test_what_is_accepted_llhttp_reads_in_the_same_way(start, ending, fields, hosted):
    whole = start + ending + (b"Host: m\r\n" if hosted else b"") + b"".join(fields) + b"\r\n"
    raw = whole[: whole.index(b"\r\n\r\n") + 4] if b"\r\n\r\n" in whole else whole
    if not raw.endswith(b"\r\n\r\n"):
        return
    try:
        head = read(raw)
    except RequestError:
        return
    # One byte more than the body, which must begin another message.
    heard = Heard(raw, b"G" * (head.length + 1) if 0 < head.length < 9 else b"")
    ours = [line.partition(b":") for line in head.lines[1:]]
    assert heard.fields == [(name, value.strip(b" \t")) for name, _, value in ours]
    assert (heard.method, heard.url) == (head.method, head.target)
    assert heard.begun == 1 + (0 < head.length < 9)
    if 0 <= head.length < 9 and head.method != b"CONNECT":
        assert heard.completed_at == head.length
    assert head.raw == b"\r\n".join(head.lines) + b"\r\n\r\n"
    assert re.fullmatch(rb"[A-Z-]+ [!-~]+ HTTP/1\.[01]", head.lines[0])
    assert head.notable == [
        (name.lower(), value.strip(b" \t")) for name, _, value in ours if NAMES.are_notable(name.lower())
    ]


@given(st.binary(max_size=80))
def test_no_bytes_make_the_parser_fail_otherwise(junk):
    try:
        read(junk.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")
    except (RequestError, HttpParserError) as error:
        assert isinstance(error, RequestError)
