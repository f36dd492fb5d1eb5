"""The document of /status, and what is wrong in words."""

import json
import re

import pytest
from admin.parts import Parts, add, record
from documents import ROOT

from ai_mux.admin.status import document
from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import inspect
from ai_mux.storage.sqlite import SqliteStore
from ai_mux.usage.ledger import Ledger
from ai_mux.usage.tally import NO_TOKENS

DOCUMENT = (ROOT / "docs" / "reference" / "command-line.md").read_text()
SECTION = DOCUMENT.partition("\n## status\n")[2].partition("\n## ")[0]
UNIFIED = b"anthropic-ratelimit-unified-"


async def test_when_all_is_well_it_says_so_and_how_things_stand(parts: Parts):
    await parts.credential(left_s=3600)
    add(parts.totals, record(), "done")
    add(parts.totals, record(status=502, tokens=NO_TOKENS, cost=None, metering="unmetered"), "refused")
    add(parts.totals, record(status=0, tokens=NO_TOKENS, cost=None), "left")
    parts.totals.stranger(401)
    parts.windows.note_head(
        "claude:login",
        [
            (UNIFIED + b"5h-utilization", b"0.62"),
            (UNIFIED + b"5h-reset", b"1800000600"),
            (UNIFIED + b"x", b"y"),
        ],
        parts.clock.wall,
    )
    sources = parts.sources()
    parts.clock.pass_s(90)
    said = document(sources)
    assert said["ok"] is said["ready"] is True
    assert said["problems"] == []
    assert (said["version"], said["uptime_s"]) == ("1.2.3", 90)
    assert (said["started"], said["time"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:01:30Z")
    (credential,) = said["credentials"]
    assert credential["expires_at"] == "2027-01-15T09:00:00Z"
    assert credential["expires_in_s"] == 3510
    assert (credential["state"], credential["usable"], credential["problem"]) == ("live", True, None)
    assert credential["windows"] == [
        {
            "name": "5h",
            "used": 0.62,
            "status": None,
            "resets_at": "2027-01-15T08:10:00Z",
            "resets_in_s": 510,
            "seen_at": "2027-01-15T08:00:00Z",
            "seen_s_ago": 90,
        }
    ]
    assert credential["other_claims"] == {"x": "y"}
    assert said["since_start"] == {
        "requests": 3,
        "errors": 2,
        "unidentified": 1,
        "unmetered": 1,
        "tokens": 267,
        "cost_usd": 1.25,
    }
    assert said["ledger"] == {"state": "writing", "queued": 0, "written": 0, "dropped": 0}


async def test_a_credential_that_cannot_be_used_is_named_with_what_mends_it(parts: Parts):
    await parts.credential("claude")
    await parts.credential("chatgpt", left_s=None)
    said = document(parts.sources())
    assert said["ok"] is False
    assert said["ready"] is True
    path = parts.directory / "chatgpt" / "auth.json"
    assert said["problems"] == [
        "chatgpt:login is missing (there is no credential file); "
        f"run `ai-mux login chatgpt`, with the server's --config, for a login in {path}"
    ]


@pytest.mark.parametrize(
    ("days", "refresh", "is_told"), [(29.9, None, True), (30.1, None, False), (29.9, "refresh-0", False)]
)
async def test_a_token_that_ends_soon_and_cannot_be_renewed_is_a_problem_as_for_check(
    parts: Parts, days, refresh, is_told
):
    await parts.credential(left_s=days * 86400, refresh=refresh)
    said = document(parts.sources())
    assert (said["ok"], len(said["problems"])) == (not is_told, int(is_told))
    path = parts.directory / "claude" / ".credentials.json"
    found = inspect(path, PROVIDERS["claude"].issuer, now=parts.clock.wall)
    assert any("it may end soon" in one.text for one in found.findings) == is_told
    if is_told:
        [problem] = said["problems"]
        assert problem.startswith(
            "claude:login ends 2027-02-14T05:36:00Z and cannot be renewed; run `ai-mux login claude`, with "
            "the server's --config"
        )
        assert "claude setup-token" in problem


async def test_an_api_key_that_is_missing_has_its_own_way_to_be_mended(parts: Parts):
    renewer = await parts.api_key("claude", "made-up-key-of-claude")
    (parts.directory / "claude.key").unlink()
    await renewer.look()
    [problem] = document(parts.sources())["problems"]
    assert problem.endswith(
        f"; write the provider's API key into {parts.directory / 'claude.key'}: the key alone, on one line"
    )


async def test_a_credential_that_works_and_has_trouble_is_a_problem_too(parts: Parts):
    renewer = await parts.credential(left_s=200)
    await renewer.check()  # nobody answers at its endpoint
    (problem,) = document(parts.sources())["problems"]
    assert problem.startswith("claude:login works, but: the token endpoint could not be reached")


async def test_an_expired_login_needs_patience_and_no_new_login(parts: Parts):
    renewer = await parts.credential(left_s=100)
    await renewer.check()
    parts.clock.pass_s(200)
    said = document(parts.sources())
    assert "has expired, and its renewal does not work yet" in said["problems"][0]
    assert "run:" not in said["problems"][0]
    assert said["ready"] is False


async def test_a_ledger_that_cannot_be_written_is_a_problem(parts: Parts, tmp_path):
    await parts.credential()
    (tmp_path / "in the way").write_text("a file where a directory belongs")
    place = tmp_path / "in the way" / "usage.sqlite"
    parts.ledger = Ledger(lambda: SqliteStore(place), log=parts.log, clock=parts.clock, keep_s=1e9)
    parts.ledger.start()
    parts.ledger.put(record())
    assert _soon(lambda: parts.ledger.is_failing)
    said = document(parts.sources())
    parts.ledger.close(0.1)
    assert said["ledger"]["state"] == "failing"
    assert said["problems"] == [
        "ledger: cannot be written; 1 rows wait in memory, see the log, or the disk hangs"
    ]
    assert said["ready"] is True


def _soon(condition) -> bool:
    import time  # noqa: PLC0415

    until = time.monotonic() + 5
    while time.monotonic() < until and not condition():
        time.sleep(0.01)
    return condition()


async def test_a_server_that_stops_or_has_no_provider_says_so(parts: Parts):
    parts.proxy.draining = True
    assert document(parts.sources())["problems"] == ["the server is stopping", "no provider is configured"]


async def test_every_member_stands_in_the_reference_with_its_type(parts: Parts):
    await parts.credential()
    parts.windows.note_head("claude:login", [(UNIFIED + b"5h-utilization", b"0.5")], parts.clock.wall)
    documented = dict(re.findall(r"^\| `([a-z_.\[\]]+)` \| ([a-z ]+) \|", SECTION, re.M))
    said = json.loads(json.dumps(document(parts.sources())))
    assert dict(_members(said)) | {"problems[]": "string"} == {
        name: kind.removesuffix(" or null") for name, kind in documented.items()
    } | {
        name: "null"
        for name, kind in _members(said)
        if kind == "null" and documented[name].endswith(" or null")
    }


def _members(value, at=""):
    """Give every member of a document, with what JSON calls its type."""
    for name, member in value.items():
        path = f"{at}{name}"
        match member:
            case dict() if name != "other_claims":
                if at == "" and name == "ledger":
                    yield path, "object"
                yield from _members(member, f"{path}.")
            case list():
                for one in member:
                    yield from _members(one, f"{path}[].")
            case _:
                kinds = {bool: "bool", str: "string", int: "number", float: "number", dict: "object"}
                yield path, kinds.get(type(member), "null")
