"""The vendors' Python SDKs through the gateway, streaming and plain."""

import anthropic
import openai
import pytest
from gateway_process import STRANGER, TOKEN

from ai_mux.demo import SimulatedProvider

pytestmark = pytest.mark.clients

_QUESTION = [{"role": "user", "content": "say hi"}]


@pytest.fixture
async def claude(gateway):
    async with anthropic.AsyncAnthropic(
        base_url=f"{gateway.url}/claude", api_key=TOKEN, max_retries=0
    ) as client:
        yield client


def chatgpt_at(gateway, token=TOKEN):
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/chatgpt/v1", api_key=token, max_retries=0)


# anthropic


async def test_anthropic_streams_text_as_it_is_written(claude):
    async with claude.messages.stream(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()

    assert len(pieces) > 1
    assert "".join(pieces) == message.content[0].text
    assert message.usage.output_tokens > 0


async def test_anthropic_gets_a_plain_message(claude):
    message = await claude.messages.create(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION)

    assert "ai-mux" in message.content[0].text
    assert message.stop_reason == "end_turn"


async def test_anthropic_counts_tokens_and_lists_models(claude):
    counted = await claude.messages.count_tokens(model="claude-sonnet-5", messages=_QUESTION)
    models = [model.id async for model in claude.models.list()]

    assert counted.input_tokens > 0
    assert models
    assert (await claude.models.retrieve(models[0])).id == models[0]


async def test_anthropic_raises_its_own_error_with_our_request_id(gateway):
    url = f"{gateway.url}/claude"
    async with anthropic.AsyncAnthropic(base_url=url, api_key=STRANGER) as stranger:
        with pytest.raises(anthropic.AuthenticationError, match="No valid ai-mux token") as raised:
            await stranger.messages.create(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION)

    assert raised.value.request_id.startswith("amx_")
    assert await gateway.requests() == [("POST", "/claude/v1/messages", 401)]


# openai, the subscription's backend


async def test_openai_streams_a_response_with_store_off(gateway):
    async with (
        chatgpt_at(gateway) as client,
        await client.responses.create(model="gpt-5.5", input="say hi", store=False, stream=True) as stream,
    ):
        events = [event async for event in stream]

    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert "ai-mux" in text
    assert events[-1].type == "response.completed"


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"stream": True}, "Store must be set to false"),
        ({"store": False}, "Stream must be set to true"),
    ],
)
async def test_openai_sees_the_subscription_backends_refusal_as_it_was_written(gateway, asked, detail):
    async with chatgpt_at(gateway) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.create(model="gpt-5.5", input="say hi", **asked)

    assert raised.value.response.json() == {"detail": detail}


async def test_openai_is_told_that_chat_completions_do_not_exist_on_a_subscription(gateway):
    async with chatgpt_at(gateway) as client:
        with pytest.raises(openai.BadRequestError, match="no Chat Completions"):
            await client.chat.completions.create(model="gpt-5.5", messages=_QUESTION)


async def test_openai_raises_its_own_error_with_our_request_id(gateway):
    async with chatgpt_at(gateway, STRANGER) as stranger:
        with pytest.raises(openai.AuthenticationError, match="No valid ai-mux token") as raised:
            await stranger.responses.create(model="gpt-5.5", input="say hi", store=False, stream=True)

    assert raised.value.request_id.startswith("amx_")


# With API keys on the server


@pytest.fixture
async def keyed(serve):
    """A gateway with an API key for each provider, where a login's fields would be refused."""
    provider = SimulatedProvider(pace_s=0)
    return await serve(
        provider, openai=True, api_key=provider.openai_key, claude={"api_key": provider.claude_key}
    )


async def test_anthropic_is_served_with_the_servers_api_key(keyed):
    url = f"{keyed.url}/claude"
    async with anthropic.AsyncAnthropic(base_url=url, api_key=TOKEN, max_retries=0) as client:
        plain = await client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=_QUESTION)
        async with client.messages.stream(
            model="claude-sonnet-5", max_tokens=100, messages=_QUESTION
        ) as stream:
            streamed = await stream.get_final_text()
        counted = await client.messages.count_tokens(model="claude-sonnet-5", messages=_QUESTION)
        models = [model.id async for model in client.models.list()]

    assert "ai-mux" in plain.content[0].text
    assert streamed == plain.content[0].text
    assert counted.input_tokens > 0
    assert models


async def test_openai_gets_plain_and_stored_responses_with_the_servers_api_key(keyed):
    async with chatgpt_at(keyed) as client:
        plain = await client.responses.create(model="gpt-5.5", input="say hi")
        async with client.responses.stream(model="gpt-5.5", input="say hi") as stream:
            streamed = await stream.get_final_response()

    assert "ai-mux" in plain.output_text
    assert plain.store is True
    assert streamed.output_text == plain.output_text
    assert await keyed.requests() == [("POST", "/chatgpt/v1/responses", 200)] * 2


async def test_openai_gets_chat_completions_and_models_with_the_servers_api_key(keyed):
    async with chatgpt_at(keyed) as client:
        plain = await client.chat.completions.create(model="gpt-5.5", messages=_QUESTION)
        chunks = await client.chat.completions.create(model="gpt-5.5", messages=_QUESTION, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        models = [model.id async for model in client.models.list()]
        one = await client.models.retrieve(models[0])

    assert "ai-mux" in plain.choices[0].message.content
    assert streamed == plain.choices[0].message.content
    assert one.id == models[0]
