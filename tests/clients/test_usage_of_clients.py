"""What the vendors' own clients used, read back with ``ai-mux usage``; and what they make of a limit."""

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
        bobs_own = await bob.messages.create(**asked)
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
    both = Counter(alices["tokens"]) + Counter(at_bobs["tokens"])
    assert {kind: both[kind] for kind in KINDS} == {kind: sent["claude-sonnet-5"][kind] for kind in KINDS}
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


async def test_probe(run_client, clients, counted, provider, tmp_path):
    import os, time, aiohttp
    case = os.environ["CASE"]
    limits = {"requests": ["1/hour"]}
    settings = {}
    if case.startswith("model"):
        limits = {}
        settings = {"users": [{"name": "alice", "token": TOKEN, "models": ["nothing-*"]}]}
    if case.startswith("expired"):
        limits = {}
        settings = {"users": [{"name": "alice", "token": TOKEN, "expires": "2020-01-01"}, USERS[1]]}
    if case.startswith("concurrent"):
        limits = {"concurrent": 1}
    gateway = await counted(settings=settings, **limits)
    if case.startswith("window"):
        async with anthropic.AsyncAnthropic(base_url=f"{gateway.url}/claude", api_key=TOKEN, max_retries=0) as c:
            await c.messages.create(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION)
    t = time.monotonic()
    if case.endswith("claude"):
        print(await ask_claude_code(run_client, clients, gateway, tmp_path, ANTHROPIC_AUTH_TOKEN=TOKEN))
    else:
        f = await ask_codex(run_client, clients, gateway, tmp_path, websockets=case.endswith("ws"), retries=True)
        print(f.code, f.out, f.err)
    print("TOOK", time.monotonic() - t)
    await gateway.stop()
    print(gateway.log.read_text())
    print(await read_back(tmp_path, "user", "model"))
    assert 0
