"""The recordings are whole, and hold nothing but what is made up."""

import re

import pytest
from transparency.cases import PROBES
from transparency.client_runs import OTHER_TOKEN, RUNS, TOKEN
from transparency.recorder import framing
from transparency.recordings import HOST, Recording, load, names

_ALL = [load(name) for name in names()]
_UUID = re.compile(rb"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-([0-9a-f]{12})\b")


@pytest.mark.parametrize("request_", _ALL, ids=lambda one: one.name)
def test_a_recording_names_no_machine_and_holds_no_token_but_made_up_ones(request_: Recording):
    head = request_.head
    fields = framing(head)
    assert fields[b"host"] == HOST.encode()
    assert fields.get(b"authorization", b"Bearer " + TOKEN.encode()) == b"Bearer " + TOKEN.encode()
    assert fields.get(b"x-api-key", TOKEN.encode()) in {TOKEN.encode(), OTHER_TOKEN.encode()}
    assert all(int(last) < 100 for last in _UUID.findall(head)), "an id is of that shape, and not made up"
    for place in (b"/tmp", b"/home", b"/root/", b"/Users", b"/var"):
        assert place not in head
    assert not re.search(rb"eyJ|sk-ant|sk-proj|[0-9a-f]{40}", head)


def test_each_recording_belongs_to_a_run_that_the_client_tests_repeat():
    runs = {name.partition(".")[0] for name in names() if name not in PROBES}
    assert runs == set(RUNS)


def test_the_recordings_hold_what_is_hard():
    """Large bodies, compressed ones, handshakes, old and new ways to wait and to end."""
    assert max(len(one.body) for one in _ALL) > 2_000_000
    assert any(one.name.startswith("claude-code") and len(one.body) > 100_000 for one in _ALL)
    assert any(framing(one.head).get(b"content-encoding") == b"zstd" for one in _ALL)
    assert any(one.asks_for_websocket for one in _ALL)
    assert any(one.waits_for_continue for one in _ALL)
    assert {one.method for one in _ALL} == {b"GET", b"HEAD", b"POST"}
    clients = {one.name.partition("-")[0] for one in _ALL}
    assert clients == {"anthropic", "claude", "codex", "curl", "openai"}
