"""Every request arrives byte for byte but for the listed changes, with each kind of credential."""

import pytest
from transparency import expected
from transparency.cases import CASES, PROBES, Case, meets
from transparency.client_runs import OTHER_TOKEN, TOKEN
from transparency.crossing import Through
from transparency.modes import MODES, Mode
from transparency.recordings import load, names

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_request_arrives_with_the_listed_changes_and_no_other(through: Through, case: Case):
    passage = await through(case.mode)
    crossed = await passage.cross(case.request, case.mode)
    arrived = crossed.arrived
    expected.request(case.request.head, case.mode, host=passage.host(case.mode)).check(arrived.raw_head)
    assert arrived.body == case.request.body
    for token in (TOKEN, OTHER_TOKEN):
        assert token.encode() not in arrived.raw_head
    assert arrived.raw_head.count(case.mode.secret.encode()) == 1


_KEEPING = ("claude-code-token", "anthropic-python", "anthropic-js", "openai-python", "openai-js")


@pytest.mark.parametrize(
    ("run", "mode"),
    [
        (run, mode)
        for run in _KEEPING
        for mode in MODES
        if run.startswith("openai") == (mode.provider == "chatgpt")
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
async def test_requests_on_a_kept_connection_arrive_like_any(through: Through, run: str, mode: Mode):
    requests = [load(name) for name in names() if name.startswith(f"{run}.")]
    requests = [request for request in requests if meets(request, mode)]
    passage = await through(mode)
    arrived = await passage.converse(requests, mode)
    for request, message in zip(requests, arrived, strict=True):
        expected.request(request.head, mode, host=passage.host(mode)).check(message.raw_head)
        assert message.body == request.body


@pytest.mark.parametrize("name", PROBES)
async def test_a_probe_is_answered_here_and_reaches_nobody(through: Through, name: str):
    probe = load(name)
    mode = next(mode for mode in MODES if mode.provider == probe.provider)
    passage = await through(mode)
    head = await passage.answered_here(probe)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert await passage.upstreams[mode.provider].nobody_comes()
