"""The messages of a WebSocket are told apart, and what a response used is read from its last one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import (
    BLANK_RESPONSE,
    RESPONSE,
    RESPONSE_COMPLETED,
    RESPONSE_DELTAS,
    RESPONSE_EVENTS,
    RESPONSE_READING,
    WINDOWS,
    compact,
)

from ai_mux.usage.meter import read_event
from ai_mux.usage.tally import NO_TOKENS, NOTHING_READ, Reading

UNMETERED = Reading(NO_TOKENS, "unmetered")


def spaced(event: dict[str, object]) -> bytes:
    event = dict(event)
    kind = event.pop("type")
    return json.dumps({**event, "type": kind}, indent=1).encode()


WAYS = pytest.mark.parametrize("written", [compact, spaced])


@WAYS
def test_the_messages_of_a_conversation_are_told_apart(written):
    kinds = [read_event(written(event)).kind for event in RESPONSE_EVENTS]
    assert kinds == ["windows", "other", "other", *["other"] * len(RESPONSE_DELTAS), "ended"]


@WAYS
@pytest.mark.parametrize("end", ["completed", "incomplete", "failed", "cancelled"])
def test_the_last_message_of_a_response_says_what_it_used(end, written):
    event = read_event(written({"type": f"response.{end}", "response": RESPONSE}))
    assert (event.kind, event.reading) == ("ended", RESPONSE_READING)


def test_a_response_may_end_without_saying_what_it_used():
    refused = read_event(compact({"type": "response.failed", "response": BLANK_RESPONSE}))
    assert refused.reading == NOTHING_READ._replace(model="gpt-5.5", tier=None)
    silent = read_event(compact({"type": "response.completed", "response": {"id": "resp_made_up"}}))
    assert silent.reading == UNMETERED
    for response in (None, 7, [], "x"):
        event = read_event(compact({"type": "response.completed", "response": response}))
        assert (event.kind, event.reading) == ("ended", UNMETERED)


@WAYS
def test_the_providers_windows_are_handed_on_as_they_came(written):
    assert read_event(written(WINDOWS)).windows == WINDOWS
    assert read_event(compact(RESPONSE_COMPLETED)).windows == {}


@WAYS
@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"status": 429}, 429),
        ({"status_code": 400}, 400),
        ({}, 0),
        ({"status": "429"}, 0),
        ({"status": True}, 0),
        ({"status": 429.0}, 0),
        ({"status": 10**30}, 0),
        ({"status": -1}, 0),
        ({"status": None}, 0),
    ],
)
def test_an_error_says_its_status(said, status, written):
    event = read_event(written({"type": "error", "error": {"code": "x", "message": "m"}, **said}))
    assert (event.kind, event.status) == ("error", status)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b'{"type":"response.completed","response":{"usage":{"input_tokens":1', "ended"),
        (b'{"type":"response.completed","response":' + b"[" * 100_000, "ended"),
        (b'{"type":"response.failed","x":"\xff"}', "ended"),
        (b'{"type":"error","status":429', "error"),
        (b'{"type":"codex.rate_limits"', "other"),
        (b'{"response":{},"type":"response.completed"', "other"),
        (b'{"type":["response.completed"],"response":{}}', "other"),
        (b'{"type":{},"usage":{"input_tokens":1}}', "other"),
        (b'{"type":null}', "other"),
        (b'{"usage":{"input_tokens":1}}', "other"),
        (b'["response.completed"]', "other"),
        (b"7", "other"),
        (b"", "other"),
        (b"\xff\xfe", "other"),
        (b"[" * 100_000, "other"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_a_message_that_is_broken_or_of_another_shape_does_not_raise(message, kind):
    event = read_event(message)
    assert event.kind == kind
    assert event.reading == (UNMETERED if kind == "ended" else NOTHING_READ)
    assert event.status == 0


@given(
    st.binary(max_size=80),
    st.sampled_from([compact(event) for event in RESPONSE_EVENTS]),
    st.integers(0, 500),
)
def test_no_message_raises(junk, message, at):
    at %= len(message)
    for broken in (
        junk,
        message[:at] + junk + message[at:],
        message[:at] + junk,
        message[:at] + message[at + 1 :],
    ):
        event = read_event(broken)
        assert all(count >= 0 for count in event.reading.tokens)


def test_what_a_delta_says_is_not_parsed():
    """It is known by the type that stands first: what follows may be of any size, or no JSON at all."""
    twice = b'{"type":"response.output_text.delta","type":"response.completed","response":{}}'
    assert read_event(twice).kind == "other"
    assert read_event(b'{"type":"response.output_text.delta","delta":' + b"[" * 10_000_000).kind == "other"
