"""What is not on the list passes, whatever it is: fields nobody has thought of, in any order, any body."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transparency import expected
from transparency.answers import Answer
from transparency.cases import HANDSHAKES, PROBES, meets
from transparency.crossing import Through
from transparency.modes import MODES, REMOVED, REMOVED_FROM_RESPONSES, Mode, near
from transparency.recordings import Recording, load, names, with_fields

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SMALL_BYTES = 4096
_REQUESTS = [
    request
    for request in (load(name) for name in names() if name not in PROBES + HANDSHAKES)
    if len(request.body) <= _SMALL_BYTES and not request.waits_for_continue
]
# What may stand once only, frames the message, asks for something, or ends the connection:
# these have tests of their own.
_NOT_ADDED = {
    b"host", b"authorization", b"x-api-key", b"content-length", b"transfer-encoding",
    b"expect", b"connection", b"upgrade",
}  # fmt: skip

# RFC 9110, 5.6.2 and 5.5. Underscores and full stops are what other proxies drop or choke on.
_TCHARS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LISTED = sorted({*REMOVED, *REMOVED_FROM_RESPONSES, *(name for mode in MODES for name in mode.removed)})


def _any_case(name: bytes) -> st.SearchStrategy[bytes]:
    letters = (st.sampled_from([letter.lower(), letter.upper()]) for letter in name.decode())
    return st.tuples(*letters).map(lambda chosen: "".join(chosen).encode())


_ENTRIES = st.sampled_from([entry for entry in _LISTED if entry not in _NOT_ADDED])
_NAMES = st.one_of(
    st.text(_TCHARS, min_size=1, max_size=40).map(str.encode),
    _ENTRIES.flatmap(lambda entry: st.sampled_from(near(entry))),
    _ENTRIES.map(lambda entry: entry.replace(b"*", b"x")).flatmap(_any_case),
    st.sampled_from([b"x_team", b"X-Custom", b"anthropic-version", b"openai-beta", b"Content-Encoding"]),
).filter(lambda name: name.lower() not in _NOT_ADDED)
_BLANKS = st.text(" \t", max_size=3).map(str.encode)
_VALUES = st.one_of(
    st.binary(max_size=60).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value)),
    st.sampled_from([b"", b",", b"a, b;q=0", b'"quoted, \\" text"', b"0" * 3000, b"gzip", b"*"]),
)


@st.composite
def _lines(draw: st.DrawFn) -> list[bytes]:
    """Field lines; some named by a Connection field among them."""
    added = draw(st.lists(_NAMES, max_size=8))
    lines = [name + b":" + draw(_BLANKS) + draw(_VALUES) + draw(_BLANKS) for name in added]
    named = draw(st.lists(st.sampled_from(added), max_size=2)) if added and draw(st.booleans()) else []
    if named:
        lines.insert(draw(st.integers(0, len(lines))), b"Connection: " + b" , ".join(named))
    return lines


@st.composite
def _requests(draw: st.DrawFn) -> tuple[Recording, Mode]:
    mode = draw(st.sampled_from(MODES))
    request = draw(st.sampled_from([request for request in _REQUESTS if meets(request, mode)]))
    for line in draw(_lines()):
        request = request.with_fields(line, at=draw(st.integers(0, 30)))
    if request.body:
        request = request.with_body(draw(st.binary(min_size=1, max_size=_SMALL_BYTES)))
    return request, mode


@given(drawn=_requests())
@settings(max_examples=300)
async def test_a_request_passes_but_for_what_is_listed(through: Through, drawn: tuple[Recording, Mode]):
    request, mode = drawn
    passage = await through(mode)
    crossed = await passage.cross(request, mode)
    expected.request(request.head, mode, host=passage.host(mode)).check(crossed.arrived.raw_head)
    assert crossed.arrived.body == request.body


@st.composite
def _answers(draw: st.DrawFn) -> Answer:
    # A 401 is about the gateway's own credential, and is another test's.
    status = draw(st.integers(200, 599).filter(lambda status: status not in {204, 304, 401}))
    reason = draw(st.text(" !abcXYZ0129()-\xe4", max_size=20)).encode("latin-1")
    pieces = draw(st.lists(st.binary(min_size=1, max_size=600), max_size=5))
    if draw(st.booleans()):
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        framing, body = b"TRANSFER-encoding: chunked", chunks + b"0\r\n\r\n"
    else:
        body = b"".join(pieces)
        framing = b"content-LENGTH: %d" % len(body)
    head = b"HTTP/1.1 %d %b\r\n%b\r\n\r\n" % (status, reason, framing)
    for line in draw(_lines()):
        head = with_fields(head, line, at=draw(st.integers(0, 9)))
    return Answer(name="any", head=head, body=body)


@given(answer=_answers(), mode=st.sampled_from(MODES))
@settings(max_examples=300)
async def test_an_answer_passes_but_for_what_is_listed(through: Through, answer: Answer, mode: Mode):
    request = load({"claude": "curl-key.post-messages", "chatgpt": "openai-js.post-responses"}[mode.provider])
    crossed = await (await through(mode)).cross(request, mode, answer)
    expected.response(answer.head, mode.provider, chunked=answer.chunked).check(crossed.head)
    assert crossed.body == answer.body
