"""At ``debug`` the log shows much, and of a credential nothing, whatever a provider quotes."""

import pytest
from engine.harness import FIRST, SECOND, Gate, post
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
