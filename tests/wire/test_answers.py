"""The answers of our own: every row of the table of errors, in both shapes."""

import json
import re
from collections import Counter
from email.utils import parsedate_to_datetime

import pytest
from httptools import HttpResponseParser

from ai_mux import errors
from ai_mux.wire.answers import CONTINUE, Dialect, RequestIds, answer, error_answer

ID = "amx_" + "a" * 26

# error, status, Anthropic's type, OpenAI's type and code, x-should-retry
TABLE = [
    (errors.BadRequest(), 400, "invalid_request_error", "invalid_request_error", "bad_request", "false"),
    (
        errors.MethodNotAllowed("POST"),
        405,
        "invalid_request_error",
        "invalid_request_error",
        "bad_request",
        "false",
    ),
    (errors.TargetTooLong(), 414, "invalid_request_error", "invalid_request_error", "bad_request", "false"),
    (errors.HeadTooLarge(), 431, "invalid_request_error", "invalid_request_error", "bad_request", "false"),
    (errors.Unauthorized(), 401, "authentication_error", "invalid_request_error", "invalid_api_key", "false"),
    (errors.Forbidden(), 403, "permission_error", "invalid_request_error", "forbidden", "false"),
    (errors.NotFound(), 404, "not_found_error", "invalid_request_error", "not_found", "false"),
    (errors.RequestTimeout(), 408, "timeout_error", "server_error", "timeout", "true"),
    (errors.TooLarge(), 413, "request_too_large", "invalid_request_error", "request_too_large", "false"),
    (
        errors.UnsupportedMediaType(),
        415,
        "invalid_request_error",
        "invalid_request_error",
        "bad_request",
        "false",
    ),
    (errors.UpgradeRequired(), 426, "invalid_request_error", "invalid_request_error", "bad_request", "false"),
    (
        errors.LimitReached("Too many at once.", retry_after_s=1),
        429,
        "rate_limit_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "true",
    ),
    (
        errors.LimitReached("Longer than a client waits.", retry_after_s=61),
        429,
        "rate_limit_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "false",
    ),
    (errors.InternalError(), 500, "api_error", "server_error", "internal", "false"),
    (errors.BadGateway(), 502, "api_error", "server_error", "bad_gateway", "true"),
    (errors.Unavailable("Dead."), 503, "api_error", "server_error", "unavailable", "false"),
    (errors.Unavailable("Wait.", retry_after_s=7), 503, "api_error", "server_error", "unavailable", "true"),
    (errors.Unavailable("Again.", retry=True), 503, "api_error", "server_error", "unavailable", "true"),
    (errors.GatewayTimeout(), 504, "timeout_error", "server_error", "timeout", "true"),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[1]}-{row[0].public_message[:8]}")


class Seen:
    """A response as llhttp reads it."""

    def __init__(self, raw: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.body = b""
        self.complete = False
        parser = HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode().lower() not in self.fields, "no field stands twice"
        self.fields[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


@ROWS
def test_an_error_has_anthropics_shape(row):
    error, status, anthropic_type, _, _, retry = row
    seen = Seen(error_answer(error, Dialect.ANTHROPIC, ID))
    assert (seen.status, seen.complete) == (status, True)
    assert json.loads(seen.body) == {
        "type": "error",
        "error": {"type": anthropic_type, "message": error.public_message},
        "request_id": ID,
    }
    assert (seen.fields["request-id"], seen.fields["x-should-retry"]) == (ID, retry)
    assert "x-request-id" not in seen.fields


@ROWS
def test_an_error_has_openais_shape(row):
    error, status, _, openai_type, code, retry = row
    seen = Seen(error_answer(error, Dialect.OPENAI, ID))
    assert (seen.status, seen.complete) == (status, True)
    assert json.loads(seen.body) == {
        "error": {"message": error.public_message, "type": openai_type, "param": None, "code": code}
    }
    assert (seen.fields["x-request-id"], seen.fields["x-should-retry"]) == (ID, retry)
    assert "request-id" not in seen.fields


@ROWS
@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_says_what_every_answer_says(row, dialect):
    seen = Seen(error_answer(row[0], dialect, ID))
    assert seen.fields["content-type"] == "application/json"
    assert seen.fields["content-length"] == str(len(seen.body))
    assert seen.fields["date"].endswith(" GMT")
    assert parsedate_to_datetime(seen.fields["date"]).tzinfo is not None
    assert len(row[0].public_message) > 4


def test_the_table_has_every_error_that_a_client_can_be_told():
    told = {
        error.status
        for error in vars(errors).values()
        if isinstance(error, type) and hasattr(error, "status")
    }
    listed = {status for _, status, *_ in TABLE}
    assert (
        listed
        == {cls.status for cls in errors.RequestError.__subclasses__()}
        == {status for status in told if isinstance(status, int)}
    )


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (errors.MethodNotAllowed("GET, HEAD"), "allow", "GET, HEAD"),
        (errors.Unauthorized(), "www-authenticate", "Bearer"),
        (errors.UpgradeRequired(), "upgrade", "websocket"),
        (errors.UnsupportedMediaType(), "accept-encoding", "gzip, br, zstd"),
        (errors.Unavailable("Wait.", retry_after_s=7), "retry-after", "7"),
        (errors.LimitReached("Wait.", retry_after_s=8, resets_at=1_800_000_000), "retry-after", "8"),
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_some_errors_say_more(error, name, value, dialect):
    assert Seen(error_answer(error, dialect, ID)).fields[name] == value
    assert name not in Seen(error_answer(errors.BadRequest(), dialect, ID)).fields


def test_a_window_that_is_used_up_tells_codex_until_when():
    error = errors.LimitReached("Used up.", retry_after_s=4000, resets_at=1_800_004_000)
    told = json.loads(Seen(error_answer(error, Dialect.OPENAI, ID)).body)["error"]
    assert told == {
        "message": "Used up.",
        "type": "usage_limit_reached",
        "param": None,
        "code": "rate_limit_exceeded",
        "resets_at": 1_800_004_000,
    }
    told = json.loads(Seen(error_answer(error, Dialect.ANTHROPIC, ID)).body)["error"]
    assert told == {"type": "rate_limit_error", "message": "Used up."}


def test_an_answer_before_the_body_was_read_closes_the_connection():
    raw = error_answer(errors.TooLarge(), Dialect.OPENAI, ID)
    assert Seen(raw).fields["connection"] == "close"
    assert "connection" not in Seen(error_answer(errors.TooLarge(), Dialect.OPENAI, ID, close=False)).fields


@pytest.mark.parametrize(("close", "options"), [(True, {"close", "Upgrade"}), (False, {"Upgrade"})])
def test_the_426_names_upgrade_in_connection(close, options):
    connection = Seen(error_answer(errors.UpgradeRequired(), Dialect.OPENAI, ID, close=close)).fields[
        "connection"
    ]
    assert set(connection.split(", ")) == options


def test_an_answer_to_head_announces_the_body_and_sends_none():
    whole = error_answer(errors.NotFound(), Dialect.ANTHROPIC, ID)
    short = error_answer(errors.NotFound(), Dialect.ANTHROPIC, ID, to_head=True)
    without_date = [re.sub(rb"Date: [^\r]*", b"Date: x", raw) for raw in (whole, short)]
    head, _, body = without_date[0].partition(b"\r\n\r\n")
    assert without_date[1] == head + b"\r\n\r\n"
    assert body


def test_a_message_cannot_break_out_of_its_answer():
    evil = 'x"}\r\nSet-Cookie: a=b\r\n\r\n<é\ud800>'
    for dialect in Dialect:
        seen = Seen(error_answer(errors.Forbidden(evil), dialect, ID))
        assert json.loads(seen.body)["error"]["message"] == evil
        assert "set-cookie" not in seen.fields


def test_an_answer_of_any_other_kind_has_a_date_and_a_length():
    seen = Seen(answer(200, b"ok\n", fields=(("Content-Type", "text/plain"),)))
    assert (seen.status, seen.body, seen.fields["content-type"]) == (200, b"ok\n", "text/plain")
    assert {"date", "content-length", "content-type"} == seen.fields.keys()
    assert Seen(CONTINUE).status == 100


def test_request_ids_are_26_base32_characters_and_never_repeat():
    ids = RequestIds()
    made = [ids.next() for _ in range(2000)]
    assert all(re.fullmatch(r"amx_[a-z2-7]{26}", one) for one in made)
    assert len(set(made)) == len(made)
    seen = Counter("".join(one[4:] for one in made))
    assert max(seen.values()) < 1.5 * min(seen.values()), "every character is equally likely"
    assert len(seen) == 32
    assert RequestIds().next() not in made
