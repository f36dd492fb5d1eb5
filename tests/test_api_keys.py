"""API keys as credentials, through a whole ai-mux: where they go, how they are sent, what they open."""

import asyncio
import json
from dataclasses import replace

import pytest
from engine.wires import Wire, eventually
from fakes.renewing import claude_file, write
from fakes.token_endpoint import TokenEndpoint
from whole import ALICE, ChatGPTAt, Origin, Whole, refused, request, whole

from ai_mux.credentials.credential import Credential
from ai_mux.providers import PROVIDERS
from ai_mux.secret import Secret

CLAUDE_KEY = "sk-ant-api03-Vt3Xw1Lp9Kf6Qz8Bd5"
OPENAI_KEY = "sk-proj-Jh7Gc2Ns4Rb9Mw0Ye1"
OTHER_KEY = "sk-proj-Ua6Pk3Ez8Ox5Ci2Tq7"
LOGIN, REFRESH, RENEWED = "Wd6uHn3Lf0Gb5eTa1Qo7", "Xi8rMk2Vz4Pl9oBn6Wc", "Nc0jPs5Dy1Ft7hGu3Za"
SECRETS = (CLAUDE_KEY, OPENAI_KEY, OTHER_KEY, LOGIN, REFRESH, RENEWED)


@pytest.fixture
async def keys():
    """The provider that takes API keys."""
    return Origin()


@pytest.fixture
async def logins():
    """The provider that takes logins."""
    return Origin()


@pytest.fixture
async def mux(tmp_path, keys, logins):
    """A whole ai-mux whose ChatGPT has a backend for each kind, not yet configured."""
    chatgpt = ChatGPTAt(login=f"{logins.url}/backend-api/codex", api_key=keys.url)
    async with whole(tmp_path, origins=[keys, logins], providers={**PROVIDERS, "chatgpt": chatgpt}) as it:
        it.secrets += SECRETS
        yield it


def auth(mux: Whole, **document: object) -> None:
    """Write Codex's auth.json."""
    write(mux.state / "chatgpt" / "auth.json", json.dumps(document))


def login() -> dict[str, object]:
    tokens = {"access_token": LOGIN, "refresh_token": None, "account_id": "acct-0"}
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens}


def key_file(mux: Whole, key: str = OPENAI_KEY):
    """Write a key's file as an operator does, and return its path."""
    path = mux.directory / "key"
    path.touch(0o600)
    path.write_text(f"{key}\n")
    return path


def fields_of(message) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in message.fields:
        found.setdefault(name.lower(), []).append(value)
    return found


# What is sent


async def test_a_claude_key_is_sent_as_x_api_key_and_without_the_oauth_beta(mux, keys):
    mux.configure(
        providers=[{"name": "claude", "base_url": keys.url, "api_key_file": str(key_file(mux, CLAUDE_KEY))}]
    )
    await mux.start()
    answer = await mux.ask(
        "POST /claude/v1/messages?beta=true", "anthropic-beta: one,two", "X-Api-Key: theirs"
    )
    assert answer.status == 200
    (asked,) = keys.asked
    fields = fields_of(asked)
    assert asked.start == b"POST /v1/messages?beta=true HTTP/1.1"
    assert fields[b"x-api-key"] == [CLAUDE_KEY.encode()]
    assert fields[b"anthropic-beta"] == [b"one,two"]
    assert b"authorization" not in fields
    await mux.ask()
    assert b"anthropic-beta" not in fields_of(keys.asked[1])
    assert ALICE.encode() not in keys.raw


@pytest.mark.parametrize("how", ["api_key_file", "auth_mode", "no tokens"])
async def test_an_openai_key_goes_to_the_api_with_the_version_kept(mux, keys, logins, how):
    one = {"name": "chatgpt"}
    if how == "api_key_file":
        one["api_key_file"] = str(key_file(mux))
    elif how == "auth_mode":
        auth(mux, **{**login(), "auth_mode": "apikey", "OPENAI_API_KEY": OPENAI_KEY})
    else:
        auth(mux, OPENAI_API_KEY=OPENAI_KEY, tokens=None)
    mux.configure(providers=[one])
    await mux.start()
    chosen = [
        "chatgpt-account-id: mine", "openai-organization: org-mine", "openai-project: proj-mine",
        "x-openai-account-routing-override: there", "anthropic-beta: gone",
    ]  # fmt: skip
    assert (await mux.ask("POST /chatgpt/v1/responses", *chosen)).status == 200
    (asked,) = keys.asked
    fields = fields_of(asked)
    assert asked.start == b"POST /v1/responses HTTP/1.1"
    assert fields[b"authorization"] == [f"Bearer {OPENAI_KEY}".encode()]
    assert fields[b"openai-organization"] == [b"org-mine"]
    assert fields[b"openai-project"] == [b"proj-mine"]
    assert fields[b"chatgpt-account-id"] == [b"mine"]
    assert b"anthropic-beta" not in fields
    assert not logins.asked


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /chatgpt/v1/responses", 200),
        ("POST /chatgpt/v1/responses/compact", 200),
        ("POST /chatgpt/v1/chat/completions", 200),
        ("POST /chatgpt/v1/embeddings", 200),
        ("GET /chatgpt/v1/models", 200),
        ("HEAD /chatgpt/v1/models", 200),
        ("GET /chatgpt/v1/models/gpt-5.5", 200),
        ("GET /chatgpt/v1/chat/completions", 405),
        ("POST /chatgpt/chat/completions", 403),
        ("POST /chatgpt/v1/audio/speech", 403),
        ("GET /chatgpt/v1/files", 403),
        ("GET /chatgpt/v1/organization/costs", 403),
    ],
)
async def test_an_openai_key_opens_inference_and_nothing_else(mux, keys, line, status):
    keys.answer = lambda message: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    mux.configure(providers=[{"name": "chatgpt", "api_key_file": str(key_file(mux))}])
    await mux.start()
    assert (await mux.ask(line)).status == status
    assert [message.start.decode() for message in keys.asked] == (
        [f"{line.replace('/chatgpt', '')} HTTP/1.1"] if status == 200 else []
    )


@pytest.mark.parametrize("paths", [None, "all"])
async def test_a_subscription_has_no_chat_completions_whatever_is_opened(mux, logins, paths):
    auth(mux, **login())
    mux.configure(providers=[{"name": "chatgpt", **({"paths": paths} if paths else {})}])
    await mux.start()
    answer = await mux.ask("POST /chatgpt/v1/chat/completions")
    assert answer.status == 400
    assert answer.get(b"x-should-retry") == b"false"
    assert "/chatgpt/v1/responses" in json.loads(answer.body)["error"]["message"]
    assert not logins.asked


async def test_a_first_request_is_judged_by_the_key_that_the_login_file_holds(mux, keys):
    """Even one that waits at the door: before the file was read, it would be taken for a login's."""
    auth(mux, auth_mode="apikey", OPENAI_API_KEY=OPENAI_KEY)
    mux.configure(providers=[{"name": "chatgpt"}])
    started = asyncio.create_task(mux.start())
    await eventually(lambda: mux._app is not None, what="its sockets are bound")
    wire = await Wire.to(mux.app._listening[0].getsockname()[1])
    await wire.send(request("POST /chatgpt/v1/chat/completions"))
    assert (await wire.message()).status == 200
    await started
    wire.close()
    assert len(keys.asked) == 1


async def test_a_key_and_a_login_serve_beside_each_other(mux, keys, logins):
    claude_file(mux.state / "claude" / ".credentials.json", access=LOGIN, refresh=None, ends=None)
    mux.configure(providers=[
        {"name": "claude", "base_url": logins.url},
        {"name": "chatgpt", "api_key_file": str(key_file(mux))},
    ])  # fmt: skip
    await mux.start()
    for _ in range(3):
        assert (await mux.ask()).status == 200
        assert (await mux.ask("POST /chatgpt/v1/chat/completions")).status == 200
    assert len(keys.asked) == len(logins.asked) == 3
    assert LOGIN.encode() not in keys.raw
    assert OPENAI_KEY.encode() not in logins.raw
    assert all(fields_of(one)[b"anthropic-beta"] == [b"oauth-2025-04-20"] for one in logins.asked)


# The switch, while it runs


async def test_the_file_may_become_a_key_s_and_a_login_s_again(mux, keys, logins):
    auth(mux, **login())
    mux.configure(providers=[{"name": "chatgpt"}])
    await mux.start()
    line = "POST /chatgpt/v1/responses"
    assert (await mux.ask(line)).status == 200
    assert (await mux.ask("POST /chatgpt/v1/embeddings")).status == 403
    auth(mux, auth_mode="apikey", OPENAI_API_KEY=OPENAI_KEY, tokens=None)
    await mux.reload()
    assert (await mux.ask(line)).status == 200
    assert (await mux.ask("POST /chatgpt/v1/embeddings")).status == 200
    auth(mux, **login())
    await mux.reload()
    assert (await mux.ask(line)).status == 200
    assert (await mux.ask("POST /chatgpt/v1/embeddings")).status == 403
    assert [one.start.split()[1] for one in logins.asked] == [b"/backend-api/codex/responses"] * 2
    assert [one.start.split()[1] for one in keys.asked] == [b"/v1/responses", b"/v1/embeddings"]
    kinds = [line["kind"] for line in await mux.events("credential.read")]
    assert kinds == ["login", "api_key", "login"]


async def test_connections_of_either_kind_serve_again_after_a_reload(mux, keys, logins):
    auth(mux, **login())
    mux.configure(providers=[{"name": "chatgpt"}])
    await mux.start()
    for there in (logins, keys):
        await mux.reload()
        for _ in range(3):
            assert (await mux.ask("POST /chatgpt/v1/responses")).status == 200
        assert (len(there.asked), len(there.upstream.accepted)) == (3, 1)
        auth(mux, auth_mode="apikey", OPENAI_API_KEY=OPENAI_KEY)


async def test_no_credential_goes_where_the_other_kind_belongs_in_a_storm_of_switches(mux, keys, logins):
    auth(mux, **login())
    mux.configure(providers=[{"name": "chatgpt"}])
    await mux.start()
    over = asyncio.Event()
    told: list[int] = []

    async def ask_on() -> None:
        wire = await Wire.to(mux.port)
        while not over.is_set():
            told.append((await mux.ask_over(wire, "POST /chatgpt/v1/responses")).status)
            told.append((await mux.ask_over(wire, "GET /chatgpt/v1/models")).status)
        wire.close()

    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    for turn in range(40):
        before = len(told)
        if turn % 2:
            auth(mux, **login(), turn=turn)
        else:
            auth(mux, auth_mode="apikey", OPENAI_API_KEY=OPENAI_KEY, turn=turn)
        await mux.reload()
        await eventually(lambda before=before: len(told) > before + 8, what="requests go on")
    over.set()
    await asyncio.gather(*asking)
    assert set(told) == {200}
    assert keys.asked
    assert logins.asked
    assert {one.start.split()[1] for one in keys.asked} == {b"/v1/responses", b"/v1/models"}
    assert {one.start.split()[1] for one in logins.asked} == {
        b"/backend-api/codex/responses",
        b"/backend-api/codex/models",
    }
    assert LOGIN.encode() not in keys.raw
    assert OPENAI_KEY.encode() not in logins.raw


async def test_what_waits_for_a_login_s_renewal_goes_where_the_key_belongs_that_took_its_place(
    mux, keys, logins
):
    tokens = {"access_token": LOGIN, "refresh_token": REFRESH, "expires_at": mux.clock.wall - 5}
    auth(mux, tokens=tokens)
    async with TokenEndpoint(REFRESH) as endpoint:
        endpoint.access, endpoint.answer = lambda _: RENEWED, {"refresh_token": RENEWED[::-1]}
        endpoint.gate.clear()
        mux.configure(providers=[{"name": "chatgpt", "token_url": endpoint.url}])
        await mux.start()
        waiting = asyncio.create_task(mux.ask("POST /chatgpt/v1/responses"))
        await endpoint.arrived.wait()
        auth(mux, auth_mode="apikey", OPENAI_API_KEY=OPENAI_KEY)
        endpoint.gate.set()
        assert (await waiting).status == 200
        assert not logins.asked
        (asked,) = keys.asked
        assert asked.start == b"POST /v1/responses HTTP/1.1"
        assert fields_of(asked)[b"authorization"] == [f"Bearer {OPENAI_KEY}".encode()]
        saved = json.loads((mux.state / "chatgpt" / "auth.json").read_text())
        assert saved["tokens"]["access_token"] == RENEWED  # a token that came is never lost
        assert endpoint.spent == [REFRESH]


class Replaced:
    """Who hands out a credential just as one of the other kind takes its place.

    Args:
        first: What is handed out at once, or None to have every request wait.
        then: What those get who wait, of the kind that the file does not hold any more.
    """

    def __init__(self, first: Credential | None, then: Credential) -> None:
        self.is_api_key = not then.api_key
        self._first, self._then = first, then

    def fresh(self) -> Credential | None:
        return self._first

    async def renewed(self, refused: Secret | None = None) -> Credential:
        return self._then


A_KEY = Credential(access=Secret(OPENAI_KEY), refresh=None, expires_at=None, api_key=True)
A_LOGIN = Credential(access=Secret(LOGIN), refresh=None, expires_at=None, account_id="acct-0")


@pytest.mark.parametrize("refused_first", [False, True], ids=["first waits", "is refused first"])
@pytest.mark.parametrize(("then", "other"), [(A_KEY, A_LOGIN), (A_LOGIN, A_KEY)], ids=["key", "login"])
async def test_a_credential_that_is_replaced_as_it_is_handed_out_goes_nowhere(
    mux, keys, logins, then, other, refused_first
):
    """Between a renewal's end and the turn in which its request goes on, the file may change."""
    there, elsewhere = (logins, keys) if then.api_key else (keys, logins)
    there.answer = lambda message: refused(401)
    mux.configure(providers=[{"name": "chatgpt"}])
    await mux.start()
    gateway = mux.app.server.gateway
    tokens = Replaced(other if refused_first else None, then)
    gateway.routes[b"chatgpt"] = replace(gateway.routes[b"chatgpt"], tokens=tokens)
    answer = await mux.ask("POST /chatgpt/v1/responses")
    assert (answer.status, answer.get(b"retry-after")) == (503, b"1")
    assert b"just being replaced" in answer.body
    assert len(there.asked) == refused_first
    assert not elsewhere.asked
    assert then.access.reveal().encode() not in there.raw


# Refused


async def test_a_refused_key_is_a_503_that_is_asked_once_and_logged_once(mux, keys):
    keys.answer = lambda message: refused(401, b"Incorrect API key provided: " + OPENAI_KEY.encode())
    mux.configure(providers=[{"name": "chatgpt", "api_key_file": str(key_file(mux))}])
    await mux.start()
    for number in range(1, 6):
        answer = await mux.ask("POST /chatgpt/v1/responses")
        assert answer.status == 503
        assert answer.get(b"x-should-retry") == b"false"
        assert answer.get(b"retry-after") is None
        assert OPENAI_KEY.encode() not in answer.body
        assert b"does not accept this server's API key" in answer.body
        assert b"operator" in answer.body
        assert len(keys.asked) == number
    (line,) = await mux.events("credential.refused")
    assert (line["level"], line["provider"]) == ("error", "chatgpt")
    assert str(mux.directory / "key") in line["mend"]
    key_file(mux, OTHER_KEY)
    keys.answer = lambda message: refused(200)
    await mux.reload()
    assert (await mux.ask("POST /chatgpt/v1/responses")).status == 200
    assert fields_of(keys.asked[-1])[b"authorization"] == [f"Bearer {OTHER_KEY}".encode()]


@pytest.mark.parametrize("status", [400, 403, 429, 500, 529])
async def test_another_refusal_of_a_key_passes_as_it_is(mux, keys, status):
    keys.answer = lambda message: refused(status, b"as it is")
    mux.configure(providers=[{"name": "chatgpt", "api_key_file": str(key_file(mux))}])
    await mux.start()
    answer = await mux.ask("POST /chatgpt/v1/responses")
    assert (answer.status, answer.body) == (status, b"as it is")
    assert len(keys.asked) == 1
