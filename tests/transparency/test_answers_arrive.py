"""Every answer reaches the client byte for byte but for the listed changes."""

import pytest
from transparency import expected
from transparency.answers import MADE, TO_HEAD, USUAL, Answer
from transparency.crossing import Through
from transparency.modes import CHATGPT_LOGIN, CLAUDE_LOGIN, Mode
from transparency.recordings import load

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ASKING = {
    CLAUDE_LOGIN.name: "claude-code-token.post-messages-stream",
    CHATGPT_LOGIN.name: "codex-login.post-responses",
}


@pytest.mark.parametrize("mode", [CLAUDE_LOGIN, CHATGPT_LOGIN], ids=lambda mode: mode.name)
@pytest.mark.parametrize("answer", USUAL + MADE, ids=str)
async def test_an_answer_reaches_the_client_with_the_listed_changes_and_no_other(
    through: Through, answer: Answer, mode: Mode
):
    crossed = await (await through(mode)).cross(load(_ASKING[mode.name]), mode, answer)
    expected.response(answer.head, mode.provider, chunked=answer.chunked, closes=answer.until_close).check(
        crossed.head
    )
    assert crossed.body == answer.body


@pytest.mark.parametrize("answer", TO_HEAD, ids=str)
async def test_an_answer_to_a_head_is_a_head(through: Through, answer: Answer):
    crossed = await (await through(CHATGPT_LOGIN)).cross(load("curl-head.head-models"), CHATGPT_LOGIN, answer)
    expected.response(answer.head, "chatgpt", chunked=False).check(crossed.head)
    assert crossed.body == b""


@pytest.mark.parametrize("answer", USUAL, ids=str)
async def test_an_old_client_gets_the_same_without_chunks(through: Through, answer: Answer):
    """HTTP/1.0 knows neither chunks nor a connection that stays open (RFC 9112, 9.3)."""
    crossed = await (await through(CLAUDE_LOGIN)).cross(
        load("curl-http10.post-messages"), CLAUDE_LOGIN, answer
    )
    expected.response(answer.head, "claude", chunked=False, closes=True).check(crossed.head)
    assert crossed.body == answer.content


async def test_a_client_that_asks_for_the_end_is_told_of_it(through: Through):
    (answer,) = [answer for answer in USUAL if answer.name == "json"]
    request = load("curl-key.post-messages").with_fields(b"connection: Close")
    crossed = await (await through(CLAUDE_LOGIN)).cross(request, CLAUDE_LOGIN, answer)
    expected.response(answer.head, "claude", chunked=False, closes=True).check(crossed.head)
    assert crossed.body == answer.body
