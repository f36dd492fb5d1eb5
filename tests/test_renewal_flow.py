"""Renewal in good order: when, how often, by whom, and what is written."""

import asyncio
import json
import os
import stat
import sys
import time
from pathlib import Path

import pytest
from fakes.machine import names
from fakes.renewing import Rig, claude_file, jwt, tokens_of, write
from fakes.token_endpoint import TokenEndpoint, answers

from ai_mux import __version__
from ai_mux.credentials.standing import State
from ai_mux.errors import Unavailable
from ai_mux.secret import Secret


@pytest.fixture
async def endpoint():
    async with TokenEndpoint("refresh-0") as running:
        yield running


@pytest.fixture
def rig(tmp_path, endpoint):
    return Rig(tmp_path, endpoint)


async def test_a_token_with_time_left_is_used_without_asking_anyone(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    assert renewer.fresh() is None  # not read yet
    assert (await renewer.renewed()).access.reveal() == "access-0"
    assert renewer.fresh().access.reveal() == "access-0"
    assert rig.endpoint.requests == []


async def test_a_request_that_meets_less_than_60_s_waits_for_a_new_token(rig):
    rig.file(left_s=59)
    renewer = rig.renewer()
    await renewer.renewed()
    assert renewer.fresh().access.reveal() == "access-1"
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


async def test_between_60_s_and_the_early_mark_only_the_background_renews(rig):
    rig.file(left_s=300)
    renewer = rig.renewer()
    assert (await renewer.renewed()).access.reveal() == "access-0"
    assert rig.endpoint.requests == []
    await renewer.check()
    assert renewer.fresh().access.reveal() == "access-1"


@pytest.mark.parametrize(
    ("interval_s", "left_s", "renews"),
    [
        (600, 1199, True),  # 2 × interval
        (600, 1201, False),
        (1, 299, True),  # never later than 5 minutes before the end
        (1, 301, False),
        (86400, 14399, True),  # never earlier than half the lifetime of 8 h
        (86400, 14401, False),
    ],
)
async def test_the_background_renews_in_time_and_not_before(rig, interval_s, left_s, renews):
    rig.file(left_s=59)
    renewer = rig.renewer(interval_s=interval_s)
    await renewer.renewed()  # from here on the lifetime is known: 8 h
    rig.clock.pass_s(28800 - left_s)
    await renewer.check()
    assert len(rig.endpoint.requests) == 1 + renews


async def test_a_hundred_callers_share_one_renewal(rig):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    found = await asyncio.gather(*(renewer.renewed() for _ in range(100)))
    assert {credential.access.reveal() for credential in found} == {"access-1"}
    assert rig.endpoint.spent == ["refresh-0"]


async def test_field_note_1_processes_that_share_a_file_spend_each_refresh_token_once(rig):
    rig.clock.wall = time.time()
    rig.file(left_s=-5)
    child = Path(__file__).parent / "fakes" / "renewing_process.py"
    environment = {**os.environ, "PYTHONPATH": str(child.parent.parent)}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, child, rig.path, rig.endpoint.url, env=environment, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = [(await process.communicate())[0].decode().strip() for process in processes]
    assert said == ["access-1"] * 4
    assert rig.endpoint.spent == ["refresh-0"]
    assert len(rig.endpoint.requests) == 1


async def test_field_note_2_a_client_that_leaves_cancels_nothing(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer()
    leaving = [asyncio.create_task(renewer.renewed()) for _ in range(3)]
    staying = asyncio.create_task(renewer.renewed())
    await rig.endpoint.arrived.wait()
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    rig.endpoint.gate.set()
    assert (await staying).access.reveal() == "access-1"
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


async def test_requests_go_on_with_a_live_token_while_it_is_renewed_early(rig):
    rig.file(left_s=200)
    renewer = rig.renewer()
    await renewer.renewed()
    rig.endpoint.gate.clear()
    checking = asyncio.create_task(renewer.check())
    await rig.endpoint.arrived.wait()
    assert renewer.fresh().access.reveal() == "access-0"
    rig.endpoint.gate.set()
    await checking
    assert renewer.fresh().access.reveal() == "access-1"


async def test_a_request_waits_a_bounded_time_and_may_then_retry(rig):
    rig.file(left_s=-5)
    rig.endpoint.gate.clear()
    renewer = rig.renewer(wait_s=0.2)
    with pytest.raises(Unavailable) as caught:
        await renewer.renewed()
    assert caught.value.retry
    await rig.endpoint.arrived.wait()  # the end gives up a renewal that has not begun
    rig.endpoint.gate.set()
    await renewer.finish()
    assert renewer.fresh().access.reveal() == "access-1"


async def test_the_file_keeps_its_unknown_keys_its_unit_and_its_mode(rig):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    await renewer.renewed()
    whole = json.loads(rig.path.read_text())
    assert whole["claudeAiOauth"].pop("accessToken") == "access-1"
    assert whole["claudeAiOauth"].pop("refreshToken") == "refresh-1"
    assert whole["claudeAiOauth"].pop("expiresAt") == int((rig.clock.wall + 28800) * 1000)
    assert whole == {
        "claudeAiOauth": {"scopes": ["user:inference"], "subscriptionType": "max"},
        "mcpOAuth": {"kept": 0.1},
    }
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    assert names(rig.path.parent) == [".ai-mux.lock", ".credentials.json"]


async def test_the_request_is_honest_about_who_asks(rig):
    rig.file(left_s=-5)
    await rig.renewer().renewed()
    assert rig.endpoint.headers[0]["user-agent"] == f"ai-mux/{__version__}"
    assert rig.endpoint.requests[0]["grant_type"] == "refresh_token"
    assert "authorization" not in rig.endpoint.headers[0]


async def test_a_renewal_without_a_new_refresh_token_keeps_the_old_one(rig):
    rig.file(left_s=-5)
    rig.endpoint.script = [answers(200, {"access_token": "access-x", "expires_in": 600})]
    renewer = rig.renewer()
    await renewer.renewed()
    assert tokens_of(rig.path) == ("access-x", "refresh-0")


async def test_another_process_that_renewed_is_believed_without_asking_again(rig):
    rig.file(left_s=300)
    ours, theirs = rig.renewer(), rig.renewer()
    await ours.renewed()
    await theirs.check()
    rig.clock.pass_s(250)
    assert (await ours.renewed()).access.reveal() == "access-1"
    assert rig.endpoint.spent == ["refresh-0"]


# After a 401


async def test_field_note_5_a_401_renews_once_and_never_returns_the_refused_token(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    token = await renewer.renewed()
    found = await asyncio.gather(*(renewer.renewed(token.access) for _ in range(10)))
    assert {credential.access.reveal() for credential in found} == {"access-1"}
    assert rig.endpoint.spent == ["refresh-0"]
    assert (await renewer.renewed(token.access)).access.reveal() == "access-1"  # a straggler
    assert rig.endpoint.spent == ["refresh-0"]


async def test_a_401_within_60_s_of_a_renewal_causes_none(rig):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    token = await renewer.renewed()
    rig.clock.pass_s(20)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await renewer.renewed(token.access)
        assert (caught.value.retry, caught.value.retry_after_s) == (True, 40)
    assert renewer.fresh().access == token.access  # not marked dead
    rig.clock.pass_s(41)
    assert (await renewer.renewed(token.access)).access.reveal() == "access-2"


async def test_a_401_within_60_s_of_another_process_s_renewal_causes_none(rig):
    rig.file(left_s=-5)
    ours, theirs = rig.renewer(), rig.renewer()
    rig.clock.wall = rig.path.stat().st_mtime  # the file system keeps the real time
    claude_file(rig.path, ends=rig.clock.wall - 5)
    await theirs.renewed()
    token = await ours.renewed()
    assert token.access.reveal() == "access-1"
    with pytest.raises(Unavailable) as caught:
        await ours.renewed(token.access)
    assert caught.value.retry
    assert rig.endpoint.spent == ["refresh-0"]


async def test_a_401_finds_the_token_that_somebody_else_put_into_the_file(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    token = await renewer.renewed()
    rig.file(left_s=7200, access="access-theirs", refresh="refresh-theirs")
    assert (await renewer.renewed(token.access)).access.reveal() == "access-theirs"
    assert rig.endpoint.requests == []


# Wrong clocks


@pytest.mark.parametrize("off_s", [86400, -86400])
async def test_a_clock_that_is_a_day_wrong_renews_once_and_not_at_every_request(tmp_path, endpoint, off_s):
    rig = Rig(tmp_path, endpoint, chatgpt=True)
    true = rig.clock.wall
    rig.clock.wall += off_s
    endpoint.answer = {}
    endpoint.access = lambda number: jwt(iat=true, exp=true + 3600, n=number)
    old = jwt(iat=true - 4000, exp=true - 400 if off_s > 0 else true - 90000)
    tokens = {"access_token": old, "refresh_token": "refresh-0"}
    write(rig.path, json.dumps({"tokens": tokens, "last_refresh": None}))
    renewer = rig.renewer()
    first = await renewer.renewed()
    for _ in range(10):
        assert renewer.fresh() == first
        await renewer.check()
        rig.clock.pass_s(120)
    assert endpoint.spent == ["refresh-0"]
    assert rig.renewer().fresh() is None
    again = rig.renewer()  # a restart with the same wrong clock
    await again.renewed()
    await again.check()
    assert endpoint.spent == ["refresh-0"]
    rig.clock.pass_s(2400)  # the hour is over
    assert (await renewer.renewed()).access != first.access


@pytest.mark.parametrize("jump_s", [86400, -86400])
async def test_a_clock_that_jumps_costs_at_most_one_renewal(rig, jump_s):
    rig.file(left_s=-5)
    renewer = rig.renewer()
    await renewer.renewed()
    rig.clock.pass_s(100)
    rig.clock.wall += jump_s
    for _ in range(5):
        await renewer.renewed()
        await renewer.check()
        rig.clock.pass_s(61)
    assert len(rig.endpoint.spent) <= 2


async def test_a_token_that_ended_while_the_machine_slept_is_not_used(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.renewed()
    rig.clock.wall += 7200  # the monotonic clock stands still meanwhile
    assert (await renewer.renewed()).access.reveal() == "access-1"


async def test_a_clock_set_back_does_not_prolong_a_token(rig):
    rig.file(left_s=7200)
    renewer = rig.renewer()
    await renewer.renewed()
    rig.clock.wall -= 86400
    rig.clock.pass_s(7200)
    assert (await renewer.renewed()).access.reveal() == "access-1"


async def test_a_token_that_lives_shorter_than_a_minute_is_not_renewed_at_every_request(rig):
    rig.endpoint.answer["expires_in"] = 5
    rig.file(left_s=-5)
    renewer = rig.renewer()
    for _ in range(6):
        await renewer.renewed()
        rig.clock.pass_s(9)
    assert rig.endpoint.spent == ["refresh-0"]


# Special files


async def test_a_long_lived_token_is_used_until_it_ends_and_never_renewed(rig):
    rig.file(left_s=100, refresh="")
    renewer = rig.renewer()
    token = await renewer.renewed()
    await renewer.check()
    rig.clock.pass_s(99)
    assert renewer.fresh() == token
    with pytest.raises(Unavailable) as caught:
        await renewer.renewed(token.access)
    assert not caught.value.retry
    rig.clock.pass_s(2)
    with pytest.raises(Unavailable):
        renewer.fresh()
    assert renewer.state().state is State.ENDED
    await renewer.check()
    await renewer.check()
    assert rig.log.events("error").count("credential.ended") == 1
    assert rig.endpoint.requests == []


async def test_a_long_lived_token_without_an_end_lasts(rig):
    rig.file(left_s=None, refresh=None)
    renewer = rig.renewer()
    await renewer.renewed()
    rig.clock.pass_s(300 * 86400)
    assert renewer.fresh().access.reveal() == "access-0"


async def test_a_file_with_only_a_refresh_token_is_renewed_before_it_is_used(rig):
    rig.file(left_s=7200, access="")
    renewer = rig.renewer()
    assert (await renewer.renewed()).access.reveal() == "access-1"
    assert tokens_of(rig.path) == ("access-1", "refresh-1")


async def test_a_login_by_api_key_serves_the_key_and_renews_nothing(tmp_path, endpoint):
    rig = Rig(tmp_path, endpoint, chatgpt=True)
    write(rig.path, json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up", "tokens": None}))
    renewer = rig.renewer()
    assert not renewer.is_api_key  # nothing is known yet
    assert (await renewer.renewed()).access.reveal() == "sk-made-up"
    assert renewer.is_api_key
    rig.clock.pass_s(300 * 86400)
    assert renewer.fresh().api_key
    assert renewer.state().state is State.LIVE
    assert not renewer.state().renewable
    with pytest.raises(Unavailable) as caught:
        await renewer.renewed(refused=Secret("sk-made-up"))
    assert not caught.value.retry
    assert rig.log.events("error") == ["credential.refused"]
    assert endpoint.requests == []
