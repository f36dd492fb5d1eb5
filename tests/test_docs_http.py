"""``docs/reference/http.md`` names every path, field and bound as the code has it."""

import re

import pytest
from documents import ROOT

from ai_mux import errors
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.refresh import REQUEST_WAIT_S
from ai_mux.providers import PROVIDERS
from ai_mux.proxy import client, conversation, engine, exchange, pool, tunnel
from ai_mux.secret import Secret
from ai_mux.wire import headers, http1

DOCUMENT = (ROOT / "docs" / "reference" / "http.md").read_text()
LOGIN = Credential(
    access=Secret("made-up"), refresh=None, expires_at=None, account_id="made-up", fedramp=True
)
BARE_LOGIN = Credential(access=Secret("made-up"), refresh=None, expires_at=None)
REMOVED = re.compile(r"^- \*\*Removed\*\*, (.*?)\.$", re.M | re.S)  # the first sentence
KEY = Credential(access=Secret("made-up"), refresh=None, expires_at=None, api_key=True)


def between(beginning, end):
    return DOCUMENT.partition(beginning)[2].partition(end)[0]


def named(text):
    return {name.lower() for name in re.findall(r"`([A-Za-z0-9*-]+)`", text)}


REQUEST = between("### In a request", "### In a response")
RESPONSE = between("### In a response", "## What is looked at")
LOOKED_AT = between("## What is looked at", "## Sizes")


def test_every_path_that_a_provider_serves_is_listed_and_no_other():
    served = set()
    for provider in PROVIDERS.values():
        login, key = (set(provider.backend(api_key=api_key).paths) for api_key in (False, True))
        for kind, rules in (("any", login & key), ("API key", key - login), ("login", login - key)):
            for rule in rules:
                methods = [method.decode() for method in rule.methods] + ["WebSocket"] * rule.upgrade
                served.add((provider.name, kind, rule.path.decode(), ", ".join(methods)))
    row = r"^\| `(\w+)` \| (any|API key|login) \| `(\S+)` \| ([\w, ]+) \|$"
    assert set(re.findall(row, DOCUMENT, re.M)) == served


def test_every_field_that_is_removed_from_requests_is_named_and_no_other():
    removed = named(" ".join(REMOVED.findall(REQUEST)))
    assert removed == {name.decode() for name in headers._DROPPED_FROM_REQUESTS}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
@pytest.mark.parametrize("credential", [LOGIN, BARE_LOGIN, KEY], ids=["login", "bare login", "key"])
def test_every_field_that_a_provider_changes_is_named(provider, credential):
    changes = provider.changes(credential)
    names = {name.lower() for name, _ in changes.put} | set(changes.drop)
    names |= {name for pair in changes.include for name in pair}
    told = REQUEST.replace("`Authorization: Bearer …`", "`Authorization`")
    told = told.replace("`X-OpenAI-Fedramp: true`", "`X-OpenAI-Fedramp`")
    assert {name.decode() for name in names} <= named(told)


def test_every_content_coding_that_is_kept_is_named():
    assert {coding.decode() for coding in headers._CODINGS} <= named(REQUEST)


def test_every_field_that_is_removed_from_responses_is_named_and_no_other():
    removed = named(" ".join(REMOVED.findall(RESPONSE)))
    assert removed == {name.decode() for name in headers._DROPPED_FROM_RESPONSES}


def test_every_field_that_is_looked_at_is_named():
    known = {name.decode() for name in headers._LOOKED_AT | set(exchange._DECLARED_WAITS)}
    assert known - {"accept-encoding"} <= named(LOOKED_AT)
    assert {"content-type", "request-id", "x-request-id"} <= named(LOOKED_AT)


@pytest.mark.parametrize(
    ("what", "bound"),
    [
        ("request line", f"{http1.REQUEST_LINE_BYTES // 1024} KiB"),
        ("request head", f"{http1.REQUEST_HEAD_BYTES // 1024} KiB, {http1.REQUEST_FIELDS} fields"),
        ("response head", f"{http1.RESPONSE_HEAD_BYTES // 1024} KiB, {http1.RESPONSE_FIELDS} fields"),
        ("a request head's arrival", f"{client.HEAD_S:.0f} s"),
        ("silence inside a request body", f"{client.BODY_STALL_S:.0f} s"),
        ("a client that does not read", f"{client.WRITE_STALL_S:.0f} s"),
        (
            "a connection without a request",
            f"{client.IDLE_S:.0f} s, or {client.IDLE_STRANGER_S:.0f} s before its first token",
        ),
        ("a TLS handshake", f"{engine.TLS_HANDSHAKE_S:.0f} s"),
        ("connecting to a provider", f"{pool.CONNECT_TIMEOUT_S:.0f} s"),
        ("waiting for a renewal", f"{REQUEST_WAIT_S} s"),
        ("silence on a WebSocket, both ways", f"{tunnel.IDLE_S / 60:.0f} min"),
    ],
)
def test_every_bound_is_the_codes(what, bound):
    assert f"\n| {what} | {bound} |" in DOCUMENT


def test_every_type_of_message_that_passes_is_named():
    websocket = between("## WebSocket", "## Status")
    assert set(re.findall(r"`(response\.\w+)`", websocket)) == conversation._TYPES


def test_every_status_of_our_own_has_a_row():
    table = between("## Status codes", "## The admin")
    cells = " ".join(re.findall(r"^\| (.*?) \|", table, re.M))
    made = {error.status for error in errors.RequestError.__subclasses__()}
    assert {int(status) for status in re.findall(r"\b\d{3}\b", cells)} == made | {100, 200}
