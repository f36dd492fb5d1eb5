"""At ``debug`` the log shows much, and of a credential nothing, whatever a provider quotes."""

import pytest
from engine.harness import ALICE, FIRST, SECOND, Gate, post
from engine.wires import eventually


def _answer(status: bytes, body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


async def _logged(gate: Gate, event: bytes) -> bytes:
    await eventually(lambda: any(event in line for line in gate.lines))
    return b"".join(gate.lines)


@pytest.mark.parametrize("before", [0, 10, 4070, 4080, 4090])
async def test_a_quoted_credential_is_masked_wherever_it_stands(opened, before):
    gate = await opened()
    client, provider = await gate.ask(post())
    await provider.message()
    token = FIRST.encode()
    await provider.send(_answer(b"400 Bad Request", b"x" * before + token, b"X-Echo: " + token + b"\r\n"))
    await client.message()
    logged = await _logged(gate, b"upstream.response")
    assert b"X-Echo" in logged
    assert token[:9] not in logged.replace(b"sk-ant-oat01-", b"")
    assert token[13:22] not in logged


async def test_a_renewed_credential_is_masked_as_well(opened):
    gate = await opened()
    client, provider = await gate.ask(post())
    await provider.message()
    await provider.send(_answer(b"401 Unauthorized", b"{}"))
    again = await gate.upstream.accept()
    await again.message()
    await again.send(_answer(b"400 Bad Request", b"you sent Bearer " + SECOND.encode()))
    await client.message()
    logged = await _logged(gate, b"you sent")
    assert SECOND.encode() not in logged


async def test_a_users_token_that_is_repeated_elsewhere_is_masked_too(gate: Gate):
    """OpenAI's convention for browsers puts it into the WebSocket's protocol; others into anything."""
    fields = b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b\r\nX-Mine: say-%b-twice\r\n"
    client, provider = await gate.ask(post(fields=fields % (ALICE, ALICE)))
    await provider.message()
    await provider.send(_answer(b"200 OK", b"{}"))
    await client.message()
    logged = await _logged(gate, b"request.begun")
    assert b"say-[masked]-twice" in logged
    assert ALICE not in logged


async def test_and_that_of_a_stranger(gate: Gate):
    client = await gate.client()
    stranger = b"madeup-token-of-a-stranger"
    await client.send(
        post(token=stranger, fields=b"Sec-WebSocket-Protocol: openai-insecure-api-key.%b\r\n" % stranger)
    )
    assert (await client.message()).status == 401
    assert stranger not in await _logged(gate, b"request.begun")


async def test_and_one_that_stands_in_the_websockets_protocol_alone(gate: Gate):
    client = await gate.client()
    request = post(fields=b"Sec-WebSocket-Protocol: openai-insecure-api-key.%b\r\n" % ALICE)
    await client.send(request.replace(b"Authorization: Bearer %b\r\n" % ALICE, b""))
    assert (await client.message()).status == 401
    assert ALICE not in await _logged(gate, b"request.begun")
