"""Token endpoints that fail, each in its way: no hammering, no loss, and the right answer to clients."""

import asyncio
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from fakes.renewing import Rig, claude_file, jwt, tokens_of, write
from fakes.token_endpoint import (
    TokenEndpoint,
    answers,
    cut,
    endless,
    html,
    nothing,
    reset,
    spent_then_reset,
)

from ai_mux.credentials.endpoint import Answered, NotSent
from ai_mux.credentials.endpoint import TokenEndpoint as Client
from ai_mux.credentials.standing import State
from ai_mux.errors import Unavailable


@pytest.fixture
async def endpoint():
    async with TokenEndpoint("refresh-0") as running:
        yield running


@pytest.fixture
def rig(tmp_path, endpoint):
    return Rig(tmp_path, endpoint)


async def refused(renewer) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        renewer.fresh() or await renewer.renewed()
    return caught.value


# Not sent


async def test_an_unreachable_endpoint_is_asked_after_1_2_4_and_at_last_every_60_s(rig):
    rig.file(left_s=-5)
    rig.endpoint.url = "http://127.0.0.1:1/oauth/token"  # nobody listens on port 1
    renewer = rig.renewer()
    waits = []
    for _ in range(8):
        waits.append((await refused(renewer)).retry_after_s)
        rig.clock.pass_s(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert rig.log.events("warning") == ["credential.renewal_failed"]  # once, not eight times
    assert tokens_of(rig.path) == ("access-0", "refresh-0")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1 that no system trusts, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    both = tmp_path_factory.mktemp("tls") / "both.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    subprocess.run(
        [*made.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", both, "-out", f"{both}.crt"],
        check=True,
        capture_output=True,
    )
    both.write_text(both.read_text() + Path(f"{both}.crt").read_text())
    return both


@pytest.mark.parametrize("trusted", [False, True])
async def test_nothing_is_sent_to_an_endpoint_whose_certificate_is_not_trusted(certificate, trusted):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with TokenEndpoint("refresh-0", tls=tls) as endpoint:
        client = Client(endpoint.url, ca_file=f"{certificate}.crt" if trusted else None)
        outcome = await client.post({"refresh_token": "refresh-0"})
        assert isinstance(outcome, Answered if trusted else NotSent)
        assert len(endpoint.requests) == trusted


async def test_nothing_is_sent_without_the_configured_certificates(endpoint, tmp_path):
    outcome = await Client(endpoint.url, ca_file=str(tmp_path / "none.pem")).post(
        {"refresh_token": "refresh-0"}
    )
    assert isinstance(outcome, NotSent)
    assert "none.pem" in outcome.reason
    assert endpoint.requests == []


async def test_the_environment_s_proxies_are_not_used(endpoint, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert isinstance(await Client(endpoint.url).post({"refresh_token": "refresh-0"}), Answered)


# Sent, and no answer


@pytest.mark.parametrize("misbehaviour", [reset, cut, endless, answers(500, {}), answers(503, b"busy")])
async def test_after_a_lost_answer_the_access_token_is_used_up_and_then_once_more_is_tried(rig, misbehaviour):
    rig.file(left_s=200)
    rig.endpoint.script = [misbehaviour]
    renewer = rig.renewer()
    await renewer.check()
    for _ in range(19):
        assert renewer.fresh().access.reveal() == "access-0"
        await renewer.check()
        rig.clock.pass_s(10)
    assert len(rig.endpoint.requests) == 1
    rig.clock.pass_s(11)
    assert (await renewer.renewed()).access.reveal() == "access-1"


async def test_a_timeout_counts_as_a_lost_answer(rig):
    rig.file(left_s=200)
    rig.endpoint.script = [nothing]
    renewer = rig.renewer(timeout_s=1)  # time enough to connect and to ask
    await renewer.check()
    rig.clock.pass_s(100)
    await renewer.check()
    assert len(rig.endpoint.requests) == 1
    assert "TimeoutError" in renewer.state().problem


async def test_exactly_one_more_attempt_follows_a_lost_answer(rig):
    rig.file(left_s=-5)
    rig.endpoint.script = [reset, reset, reset]
    renewer = rig.renewer()
    assert (await refused(renewer)).retry_after_s == 30
    rig.clock.pass_s(30)
    assert not (await refused(renewer)).retry
    assert renewer.state().state is State.DEAD
    for _ in range(20):
        rig.clock.pass_s(600)
        assert not (await refused(renewer)).retry
        await renewer.check()
    assert len(rig.endpoint.requests) == 2


async def test_a_touched_file_gives_a_risked_token_one_more_chance(rig):
    rig.file(left_s=-5)
    rig.endpoint.script = [reset, reset]
    renewer = rig.renewer()
    await refused(renewer)
    rig.clock.pass_s(30)
    await refused(renewer)
    rig.path.touch()
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-1"


async def test_a_token_that_was_spent_with_its_answer_lost_ends_the_login_without_hammering(rig):
    rig.file(left_s=-5)
    rig.endpoint.script = [spent_then_reset]
    renewer = rig.renewer()
    await refused(renewer)
    rig.clock.pass_s(30)
    assert not (await refused(renewer)).retry
    assert renewer.state().state is State.DEAD
    assert len(rig.endpoint.requests) == 2


# Answered in vain


@pytest.mark.parametrize(
    "misbehaviour",
    [
        html,
        answers(200, b""),
        answers(200, {}),
        answers(200, {"access_token": None}),
        answers(200, {"access_token": "with blank"}),
        answers(200, {"access_token": "with\r\nX-Injected: 1"}),
        answers(200, [1]),
        answers(404, b"gone"),
        answers(400, {"error": "invalid_request"}),
        answers(403, {"error": {"code": "region_not_allowed"}}),
        answers(302, b"", Location="/elsewhere"),
        answers(307, b"", Location="/elsewhere"),
    ],
)
async def test_an_answer_without_a_token_is_passing_60_s_doubling_up_to_the_interval(rig, misbehaviour):
    rig.file(left_s=-5)
    rig.endpoint.script = [misbehaviour] * 5
    renewer = rig.renewer(interval_s=600)
    waits = []
    for number in range(1, 6):
        waits.append((await refused(renewer)).retry_after_s)
        await renewer.check()
        assert len(rig.endpoint.requests) == number
        rig.clock.pass_s(waits[-1])
    assert waits == [60, 120, 240, 480, 600]
    assert (await renewer.renewed()).access.reveal() == "access-1"


@pytest.mark.parametrize(
    ("field", "waits_s"), [("7", 7), ("junk", 60), (None, 60), ("0", 1), ("999999999", 86400)]
)
async def test_a_429_is_honoured(rig, field, waits_s):
    rig.file(left_s=-5)
    fields = {} if field is None else {"Retry_After": field}
    rig.endpoint.script = [answers(429, {"error": "rate_limited"}, **fields)]
    renewer = rig.renewer()
    error = await refused(renewer)
    assert (error.retry, error.retry_after_s) == (True, waits_s)
    rig.clock.pass_s(waits_s - 1)
    await refused(renewer) if waits_s > 1 else None
    assert len(rig.endpoint.requests) == 1
    rig.clock.pass_s(1)
    assert (await renewer.renewed()).access.reveal() == "access-1"


async def test_an_early_renewal_that_fails_does_not_stop_requests(rig):
    rig.file(left_s=50)
    rig.endpoint.script = [answers(400, {"error": "invalid_grant"})]
    renewer = rig.renewer()
    assert (await renewer.renewed()).access.reveal() == "access-0"
    rig.clock.pass_s(49)
    assert renewer.fresh().access.reveal() == "access-0"
    assert renewer.state().state is State.LIVE
    rig.clock.pass_s(2)
    assert not (await refused(renewer)).retry
    assert len(rig.endpoint.requests) == 1


async def test_an_answer_with_only_a_new_refresh_token_is_saved(rig):
    rig.file(left_s=-5)
    rig.endpoint.script = [answers(200, {"refresh_token": "refresh-new"})]
    renewer = rig.renewer()
    assert (await refused(renewer)).retry_after_s == 60
    assert tokens_of(rig.path) == ("access-0", "refresh-new")
    rig.endpoint.valid = "refresh-new"
    rig.clock.pass_s(60)
    assert (await renewer.renewed()).access.reveal() == "access-1"


# Permanent


PERMANENT = [
    (False, 400, {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}),
    (False, 401, {"error": {"code": "refresh_token_reused"}}),
    (True, 401, {"anything": "at all"}),
    (True, 401, b"not even JSON"),
    (True, 400, {"error": {"code": "refresh_token_expired", "message": "…"}}),
    (True, 400, {"error": "refresh_token_invalidated"}),
    (True, 403, {"code": "refresh_token_reused"}),
]


@pytest.mark.parametrize(("chatgpt", "status", "body"), PERMANENT)
async def test_field_note_4_a_dead_credential_is_not_hammered_until_its_file_changes(
    tmp_path, endpoint, chatgpt, status, body
):
    rig = Rig(tmp_path, endpoint, chatgpt=chatgpt)
    ended = {"access_token": "access-0", "refresh_token": "refresh-0", "expires_at": rig.clock.wall - 5}
    if chatgpt:
        write(rig.path, json.dumps(ended))
    else:
        rig.file(left_s=-5)
    endpoint.script = [answers(status, body)]
    renewer = rig.renewer()
    error = await refused(renewer)
    assert not error.retry
    assert rig.provider.name in error.public_message
    assert "operator" in error.public_message
    for _ in range(30):  # so many does Codex send
        await refused(renewer)
        rig.clock.pass_s(60)
        await renewer.check()
    assert len(endpoint.requests) == 1
    assert rig.log.events("error") == ["credential.dead"]
    [mend] = [fields["mend"] for _, event, fields in rig.log.lines if event == "credential.dead"]
    assert str(rig.path.parent) in mend
    assert f"`ai-mux login {rig.provider.name}`" in mend
    if chatgpt:
        write(
            rig.path, json.dumps({**ended, "access_token": "access-new", "expires_at": rig.clock.wall + 7200})
        )
    else:
        rig.file(left_s=7200, access="access-new", refresh="refresh-new")
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-new"


async def test_a_dead_credential_touches_neither_disk_nor_network(rig):
    rig.file(left_s=-5)
    rig.endpoint.valid = None
    renewer = rig.renewer()
    await refused(renewer)
    rig.path.rename(rig.path.with_name("moved"))
    with pytest.raises(Unavailable):
        renewer.fresh()  # a plain call: it cannot have awaited anything
    with pytest.raises(Unavailable):
        await renewer.renewed()
    assert renewer.state().state is State.DEAD  # and did not notice the missing file
    assert len(rig.endpoint.requests) == 1


async def test_a_refusal_is_checked_against_the_file_once_more(rig):
    rig.file(left_s=-5)

    def another_login_meanwhile(endpoint, writer, body):
        claude_file(rig.path, access="access-b", refresh="refresh-b", ends=rig.clock.wall + 7200)
        answers(400, {"error": "invalid_grant"})(endpoint, writer, body)

    rig.endpoint.script = [another_login_meanwhile]
    renewer = rig.renewer()
    assert (await renewer.renewed()).access.reveal() == "access-b"
    assert len(rig.endpoint.requests) == 1


async def test_no_secret_is_logged_or_told_whatever_happens(rig):
    rig.file(left_s=-5, access="access-SENTINEL-0", refresh="refresh-SENTINEL-0")
    echo = {
        "error": "invalid_request",
        "error_description": "what is refresh-SENTINEL-0?",
        "token": "SENTINEL",
    }
    rig.endpoint.script = [reset, answers(400, echo), answers(200, b"SENTINEL refresh-SENTINEL-0"), html]
    renewer = rig.renewer()
    told = []
    for _ in range(4):
        told.append(str(await refused(renewer)))
        rig.clock.pass_s(600)
    write(rig.path, '{"claudeAiOauth": {"accessToken": "access-SENTINEL-1", broken')
    await renewer.check()
    told.append(str(renewer.state()))
    assert "SENTINEL" not in rig.log.text() + "".join(told)
    assert len(rig.log.lines) > 3


async def test_the_answer_s_secrets_stay_out_of_the_log_too(tmp_path, endpoint):
    rig = Rig(tmp_path, endpoint, chatgpt=True)
    access = jwt(iat=rig.clock.wall, exp=rig.clock.wall + 3600)
    endpoint.script = [
        answers(
            200,
            {"access_token": access, "refresh_token": "refresh-n", "id_token": jwt(email="a@example.org")},
        )
    ]
    write(rig.path, json.dumps({"access_token": "a", "refresh_token": "refresh-0", "expires_at": 5}))
    renewer = rig.renewer()
    await renewer.renewed()
    assert access[:20] not in rig.log.text()
    assert "refresh-n" not in rig.log.text()
    await asyncio.gather(renewer.finish(), renewer.finish())
