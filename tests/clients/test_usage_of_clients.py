"""What the vendors' own clients used, read back with ``ai-mux usage``; and what they make of a limit."""

import asyncio
import json
from collections import Counter
from decimal import Decimal

import aiohttp
import anthropic
import openai
import pytest
from codex_client import ask as ask_codex
from gateway_process import TOKEN, verb
from tapped import KINDS, Tapped
from test_claude_code import ask as ask_claude_code

pytestmark = pytest.mark.clients

BOB = "made-up-user-token-of-bob"
USERS = [{"name": "alice", "token": TOKEN}, {"name": "bob", "token": BOB}]
MODELS = ("claude-sonnet-5", "gpt-5.5")
# The operator's own, so that what it comes to can be said here: dollars for a million tokens.
PRICES = {
    "claude-*": {
        "input": 3, "output": 15, "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": 6,
    },
    "gpt-*": {"input": 5, "output": 30, "cache_read": "0.5"},
}  # fmt: skip
MESSAGES = "/claude/v1/messages"
RESPONSES = "/chatgpt/v1/responses"
_QUESTION = [{"role": "user", "content": "say hi"}]
_QUIET = {"CLAUDE_CODE_MAX_RETRIES": "0"}


@pytest.fixture
def provider():
    return Tapped()


@pytest.fixture
def counted(serve, provider):
    """Return a function that starts a gateway whose users have limits."""

    async def start(*, openai=False, chatgpt=None, settings=None, **limits):
        whole = {"usage": {"prices": PRICES}, "users": USERS, **({"limits": limits} if limits else {})}
        return await serve(provider, openai=openai, settings=whole | (settings or {}), **(chatgpt or {}))

    return start


async def read_back(directory, *by):
    """Return the groups and the total that ``ai-mux usage --json`` prints."""
    code, printed = await verb(directory, "usage", "--json", "--by", ",".join(by))
    assert code == 0, printed
    told = json.loads(printed, parse_float=Decimal)
    assert told["notional"] is True
    return {tuple(group[one] for one in by): group for group in told["groups"]}, told["total"]


def cost_of(model, tokens):
    prices = PRICES[f"{model.partition('-')[0]}-*"]
    return sum(tokens[kind] * Decimal(prices[kind]) for kind in KINDS if tokens[kind]) / 1_000_000


def assert_equal(group, model, sent):
    """Assert that a group is what the provider sent; each request's cost is rounded by itself."""
    assert group["requests"] == sent["requests"]
    assert {kind: group["tokens"][kind] for kind in KINDS} == {kind: sent[kind] for kind in KINDS}
    assert group["tokens"]["total"] == sum(sent[kind] for kind in KINDS)
    assert abs(group["cost_usd"] - cost_of(model, sent)) <= Decimal("0.0000005") * sent["requests"]
    assert (group["errors"], group["unmetered"], group["unpriced"]) == (0, 0, 0)


# What they used


async def test_what_claude_code_used_is_what_the_provider_sent(
    run_client, clients, counted, provider, tmp_path
):
    gateway = await counted()
    code, result = await ask_claude_code(
        run_client, clients, gateway, tmp_path, **_QUIET, ANTHROPIC_AUTH_TOKEN=TOKEN
    )
    await gateway.stop()

    assert (code, result["is_error"]) == (0, False)
    sent = provider.used()
    groups, _ = await read_back(tmp_path, "user", "model", "credential")
    assert {key[1] for key in groups} == sent.keys()
    for model, figures in sent.items():
        assert_equal(groups["alice", model, "claude:login"], model, figures)
    assert sent["claude-sonnet-5"]["cache_read"] > 0  # it marks its prompts, so all kinds are there
    assert sent["claude-sonnet-5"]["cache_write_5m"] + sent["claude-sonnet-5"]["cache_write_1h"] > 0
    # And the client itself tells its user the same.
    told = result["modelUsage"]["claude-sonnet-5"]
    assert told["outputTokens"] == sent["claude-sonnet-5"]["output"]
    assert told["inputTokens"] == sent["claude-sonnet-5"]["input"]
    assert told["cacheReadInputTokens"] == sent["claude-sonnet-5"]["cache_read"]


@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
async def test_what_codex_used_is_what_the_provider_sent(
    run_client, clients, counted, provider, tmp_path, websockets
):
    gateway = await counted()
    finished = await ask_codex(run_client, clients, gateway, tmp_path, websockets=websockets)
    await gateway.stop()

    assert finished.code == 0, finished.out + finished.err
    sent = provider.used()
    assert sent["gpt-5.5"]["requests"] == 1 + websockets  # the warm-up is a response as well
    assert sent["gpt-5.5"]["cache_read"] > 0
    groups, _ = await read_back(tmp_path, "user", "model", "credential")
    assert groups.keys() == {("alice", "gpt-5.5", "chatgpt:login")}
    assert_equal(groups["alice", "gpt-5.5", "chatgpt:login"], "gpt-5.5", sent["gpt-5.5"])


async def test_what_both_sdks_used_is_told_apart_by_user_model_and_credential(counted, provider, tmp_path):
    gateway = await counted(openai=True, chatgpt={"api_key": provider.openai_key})
    claude = f"{gateway.url}/claude"
    chatgpt = f"{gateway.url}/chatgpt/v1"
    asked = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": _QUESTION}
    async with (
        anthropic.AsyncAnthropic(base_url=claude, api_key=TOKEN, max_retries=0) as alice,
        anthropic.AsyncAnthropic(base_url=claude, api_key=BOB, max_retries=0) as bob,
        openai.AsyncOpenAI(base_url=chatgpt, api_key=BOB, max_retries=0) as bobs,
    ):
        plain = await alice.messages.create(**asked)
        async with alice.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
        kept = {"type": "text", "text": "long " * 2000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        bobs_own = await bob.messages.create(**asked | {"system": [kept]})
        await alice.messages.count_tokens(model="claude-sonnet-5", messages=_QUESTION)
        responses = [await bobs.responses.create(model="gpt-5.5", input="say hi" * 4000)]
        async with bobs.responses.stream(model="gpt-5.5", input="say hi") as stream:
            responses.append(await stream.get_final_response())
        chat = await bobs.chat.completions.create(model="gpt-5.5", messages=_QUESTION)
        options = {"include_usage": True}
        async for chunk in await bobs.chat.completions.create(
            model="gpt-5.5", messages=_QUESTION, stream=True, stream_options=options
        ):
            last = chunk.usage
    await gateway.stop()

    sent = provider.used()
    groups, total = await read_back(tmp_path, "user", "model", "credential")
    alices = groups["alice", "claude-sonnet-5", "claude:login"]
    at_bobs = groups["bob", "claude-sonnet-5", "claude:login"]
    # As the SDKs hold it, and as the provider sent it.
    assert alices["requests"] == 2
    assert alices["tokens"]["output"] == plain.usage.output_tokens + streamed.usage.output_tokens
    assert at_bobs["tokens"]["input"] == bobs_own.usage.input_tokens
    assert at_bobs["tokens"]["cache_write_1h"] == bobs_own.usage.cache_creation.ephemeral_1h_input_tokens > 0
    both = Counter(alices["tokens"]) + Counter(at_bobs["tokens"])
    of_sonnet = sent["claude-sonnet-5"]
    assert {kind: both[kind] for kind in KINDS} == {kind: of_sonnet[kind] for kind in KINDS}
    cost = alices["cost_usd"] + at_bobs["cost_usd"]
    assert abs(cost - cost_of("claude-sonnet-5", of_sonnet)) <= Decimal("0.0000015")
    assert_equal(groups["bob", "gpt-5.5", "chatgpt:api-key"], "gpt-5.5", sent["gpt-5.5"])
    assert groups["bob", "gpt-5.5", "chatgpt:api-key"]["tokens"]["total"] == (
        sum(one.usage.total_tokens for one in responses) + chat.usage.total_tokens + last.total_tokens
    )
    assert sent["gpt-5.5"]["cache_read"] > 0
    # Counting tokens is a request of which there is a row, and no usage: of no known model.
    assert groups["alice", "", "claude:login"]["tokens"]["total"] == 0
    assert total["requests"] == 2 + 1 + 4 + 1
    assert total["unmetered"] == 0


async def test_a_user_reads_their_own_part_of_what_the_operator_reads(counted, provider, tmp_path):
    gateway = await counted(requests=["60/min"])
    asked = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": _QUESTION}
    for token in (TOKEN, TOKEN, BOB):
        url = f"{gateway.url}/claude"
        async with anthropic.AsyncAnthropic(base_url=url, api_key=token, max_retries=0) as client:
            await client.messages.create(**asked)
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.get(f"{gateway.url}/usage", headers={"x-api-key": TOKEN}) as page,
    ):
        mine = await page.json()
    await gateway.stop()

    groups, _ = await read_back(tmp_path, "user")
    assert mine["user"] == "alice"
    assert mine["usage"]["today"]["tokens"] == groups["alice",]["tokens"]
    assert Decimal(str(mine["usage"]["today"]["cost_usd"])) == groups["alice",]["cost_usd"]
    assert [(one["used"], one["left"]) for one in mine["limits"]] == [(2, 58)]
    assert "bob" not in json.dumps(mine)


# What they make of our refusals. Their own retries stay on where nothing else is said.


@pytest.fixture
def spent(counted):
    """Return a function that starts a gateway where alice has used up her one request an hour."""

    async def start():
        gateway = await counted(requests=["1/hour"])
        url = f"{gateway.url}/claude"
        async with anthropic.AsyncAnthropic(base_url=url, api_key=TOKEN, max_retries=0) as client:
            await client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION)
        return gateway

    return start


async def test_claude_code_tells_its_user_which_limit_is_used_up_and_asks_once(
    run_client, clients, spent, tmp_path
):
    gateway = await spent()
    code, result = await ask_claude_code(run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=TOKEN)

    assert (code, result["api_error_status"]) == (1, 429)
    assert "Your limit of 1 request per hour (1/hour) is used up; there will be room at" in result["result"]
    assert await gateway.requests() == [("POST", MESSAGES, 200), ("POST", MESSAGES, 429)]


async def test_claude_code_waits_for_its_turn_where_too_many_requests_run(
    run_client, clients, counted, provider, tmp_path
):
    gateway = await counted(concurrent=1)
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    _, running = await asyncio.open_connection(host, int(port))
    running.write(f"POST {MESSAGES} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {TOKEN}\r\n".encode())
    running.write(b"Content-Length: 10\r\n\r\n{")  # and no more, so that it runs
    asking = asyncio.create_task(
        ask_claude_code(run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=TOKEN)
    )
    async with asyncio.timeout(30):
        while '"status":429' not in gateway.log.read_text():
            assert not asking.done(), asking.result()
            await asyncio.sleep(0.02)
    running.close()
    code, result = await asking

    assert (code, result["is_error"]) == (0, False)
    assert "ai-mux" in result["result"]
    assert provider.used()["claude-sonnet-5"]["requests"] == 1


@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
async def test_codex_tells_its_user_when_a_limit_ends_and_does_not_ask_on(
    run_client, clients, spent, provider, tmp_path, websockets
):
    gateway = await spent()
    finished = await ask_codex(run_client, clients, gateway, tmp_path, websockets=websockets, retries=True)

    assert finished.code == 1
    assert "hit your usage limit" in finished.out
    assert "Try again at" in finished.out
    assert "gpt-5.5" not in provider.used()
    first, *refused = await gateway.requests()
    assert first == ("POST", MESSAGES, 200)
    # Its warm-up is refused, and its question, each once.
    assert refused == ([("GET", RESPONSES, 429)] * 2 if websockets else [("POST", RESPONSES, 429)])


async def test_codex_is_told_within_its_websocket_that_a_limit_is_used_up(
    run_client, clients, counted, provider, tmp_path
):
    gateway = await counted(requests=["1/hour"])  # which its warm-up uses up
    finished = await ask_codex(run_client, clients, gateway, tmp_path, websockets=True, retries=True)
    told = await gateway.requests()

    assert finished.code == 1
    assert "hit your usage limit" in finished.out
    assert "Try again at" in finished.out
    assert told[0] == ("GET", RESPONSES, 101)
    assert provider.used()["gpt-5.5"]["requests"] == 1
    assert provider.used()["gpt-5.5"]["output"] == 0
    groups, _ = await read_back(tmp_path, "user", "model")
    assert groups["alice", "gpt-5.5"]["tokens"]["input"] == provider.used()["gpt-5.5"]["input"]


@pytest.mark.parametrize("client", ["claude code", "codex", "codex over a websocket"])
@pytest.mark.parametrize(
    ("granted", "says"),
    [
        ({"models": ["made-up-*"]}, "Your token is not for the model"),
        ({"providers": "the other"}, "The operator can add it to your providers"),
        ({"expires": "2020-01-01"}, "it was valid until the end of 2020-01-01 (UTC)"),
    ],
    ids=["model", "provider", "expired"],
)
async def test_a_user_reads_in_their_client_what_the_token_is_not_for(
    run_client, clients, counted, provider, tmp_path, client, granted, says
):
    if "providers" in granted:
        granted = {"providers": ["chatgpt" if client == "claude code" else "claude"]}
    gateway = await counted(settings={"users": [{"name": "alice", "token": TOKEN, **granted}]})
    if client == "claude code":
        code, result = await ask_claude_code(
            run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=TOKEN
        )
        printed = result["result"]
        assert len(await gateway.requests()) == 1  # x-should-retry is false
    else:
        finished = await ask_codex(
            run_client, clients, gateway, tmp_path, websockets=client.endswith("websocket")
        )
        code, printed = finished.code, finished.out

    assert code == 1
    assert says in printed
    assert not provider.used()
