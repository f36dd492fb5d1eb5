"""The document of ``GET /usage``: one's own use and limits, and nobody else's."""

import json
import re
from contextlib import closing

import pytest
from documents import ROOT
from fakes.clock import FakeClock
from fakes.rows import DAY_S, HOUR_S, NOON, refused, row, unmetered, write

from ai_mux.errors import LedgerError, LimitReached
from ai_mux.limits import Limits, Quantity, Rule
from ai_mux.storage.sqlite import open_for_reading
from ai_mux.usage.limiter import Limiter
from ai_mux.usage.page import page
from ai_mux.usage.tally import MicroUsd, Tokens
from ai_mux.usage.windows import ProviderWindows
from ai_mux.users import User

DOCUMENT = (ROOT / "docs" / "reference" / "usage.md").read_text()

PER_MINUTE = Rule(quantity=Quantity.REQUESTS, amount=60, window_s=60, text="60/min")
PER_DAY = Rule(quantity=Quantity.TOKENS, amount=5_000_000, window_s=DAY_S, text="5M/day")
PER_WEEK = Rule(quantity=Quantity.COST, amount=20_000_000, window_s=7 * DAY_S, text="$20/week")
ALICE = User(name="alice", limits=Limits(concurrent=8, rules=(PER_MINUTE, PER_DAY, PER_WEEK)))
BOB = User(name="bob")

HEAD = [
    (b"anthropic-ratelimit-unified-5h-utilization", b"0.42"),
    (b"anthropic-ratelimit-unified-5h-reset", b"%d" % (NOON + 2 * HOUR_S)),
    (b"anthropic-ratelimit-unified-5h-status", b"allowed"),
    (b"anthropic-ratelimit-unified-something-new", b"of the owner"),
]


@pytest.fixture
def ask(tmp_path):
    """Make the page of a user over a ledger with these rows."""

    def made(rows=(), user=ALICE, limiter=None, windows=None, now_s=NOON):
        limiter = limiter or Limiter(FakeClock(wall=now_s))
        with closing(open_for_reading(write(tmp_path, rows))) as ledger:
            told = page(
                user=user,
                standing=limiter.standing(user.name, user.limits),
                sums=ledger.sums,
                windows=windows,
                now_s=now_s,
            )
        return json.loads(told)

    return made


@pytest.fixture
def windows():
    seen = ProviderWindows()
    seen.note_head("claude:login", HEAD, NOON)
    seen.note_head("chatgpt:login", [(b"x-codex-primary-used-percent", b"7")], NOON)
    return seen.shown(NOON)


# One's own use


def test_field_note_12_nobody_sees_anybody_elses_use(ask):
    rows = [
        row("alice", "m1"),
        *(row("bob", "bobs-model") for _ in range(5)),
        row("alice ", "m3"),
        row("Alice", "m4"),
    ]
    told = ask(rows)
    assert told["user"] == "alice"
    assert [told["usage"][period]["requests"] for period in ("today", "7d", "30d")] == [1, 1, 1]
    assert [one["model"] for one in told["usage"]["30d"]["models"]] == ["m1"]
    assert "bob" not in json.dumps(told)


def test_periods_are_whole_days_in_utc_with_today_in_each(ask):
    rows = [
        row(ago_s=12 * HOUR_S),  # midnight
        row(ago_s=12 * HOUR_S + 1),
        row(ago_s=6 * DAY_S + 12 * HOUR_S),
        row(ago_s=6 * DAY_S + 12 * HOUR_S + 1),
        row(ago_s=29 * DAY_S + 12 * HOUR_S),
        row(ago_s=29 * DAY_S + 12 * HOUR_S + 1),
    ]
    usage = ask(rows)["usage"]
    assert [usage[period]["requests"] for period in ("today", "7d", "30d")] == [1, 3, 5]
    assert [usage[period]["since"] for period in ("today", "7d", "30d")] == [
        "2026-11-22T00:00:00Z", "2026-11-16T00:00:00Z", "2026-10-24T00:00:00Z",
    ]  # fmt: skip


def test_what_a_wrong_clock_put_into_the_future_counts(ask):
    assert ask([row(ago_s=-40 * DAY_S)])["usage"]["today"]["requests"] == 1


def test_figures_are_exact_and_say_what_is_missing(ask):
    rows = [
        row(tokens=Tokens(1, 2, 3, 4, 5), cost=1_234_567),
        row(tokens=Tokens(10, 20, 30, 40, 50), cost=1),
        unmetered(),
        refused(),
        row(model="homemade-1", cost=None, tokens=Tokens(7, 0, 0, 0, 0)),
    ]
    today = ask(rows)["usage"]["today"]
    assert today["tokens"] == {
        "input": 18, "cache_read": 22, "cache_write_5m": 33, "cache_write_1h": 44, "output": 55, "total": 172,
    }  # fmt: skip
    assert today["cost_usd"] == 1.234568
    assert [today[name] for name in ("requests", "errors", "unmetered", "unpriced")] == [5, 1, 1, 1]
    assert [today["bytes_in"], today["bytes_out"]] == [5000, 100_000]


def test_models_are_listed_with_the_costliest_first(ask):
    rows = [row(model="cheap", cost=1), row(model="dear", cost=9), row(model="dear", cost=9), refused()]
    models = ask(rows)["usage"]["today"]["models"]
    assert [(one["model"], one["requests"], one["cost_usd"]) for one in models] == [
        ("dear", 2, 0.000018), ("cheap", 1, 0.000001), (None, 1, 0),
    ]  # fmt: skip


def test_a_thousand_invented_models_do_not_make_a_page_of_a_thousand_lines(ask):
    told = ask([row(model=f"invented-{number}", cost=number) for number in range(1000)])["usage"]["today"]
    assert len(told["models"]) == 51
    assert told["models"][0]["model"] == "invented-999"
    rest = told["models"][50]
    assert (rest["model"], rest["others"], rest["requests"]) == (None, 950, 950)
    assert not any("others" in one for one in told["models"][:50])
    assert sum(one["requests"] for one in told["models"]) == told["requests"] == 1000


def test_whoever_has_used_nothing_sees_noughts(ask):
    told = ask([row("bob")])
    assert told["usage"]["30d"]["requests"] == 0
    assert told["usage"]["30d"]["models"] == []
    assert "problem" not in told


def test_a_strange_name_is_still_json_that_a_terminal_may_show(ask):
    text = json.dumps(ask([row(model="\x1b[31m\x9b")]))
    assert "\\u001b[31m\\u009b" in text


def test_the_page_is_ascii_for_any_name(tmp_path):
    path = write(tmp_path, [row("名", "\x7f\x9b\u202e")])
    with closing(open_for_reading(path)) as ledger:
        told = page(user=User(name="名"), standing=[], sums=ledger.sums, windows=None, now_s=NOON)
    assert told.replace(b"\n", b"").decode("ascii").isprintable()
    assert json.loads(told)["usage"]["today"]["models"][0]["model"] == "\x7f\x9b\u202e"


# Where it cannot be told


def test_a_ledger_that_cannot_be_read_tells_a_user_nothing_of_this_machine():
    def broken(query):
        raise LedgerError("cannot read /home/owner/.ai-mux/usage.sqlite: uid 1000", passing=True)

    told = json.loads(page(user=ALICE, standing=[], sums=broken, windows=None, now_s=NOON))
    assert told["usage"] is None
    assert not re.search(r"/|uid|sqlite|1000", told["problem"])
    assert told["user"] == "alice"


def test_where_nothing_is_kept_the_page_says_so():
    told = json.loads(page(user=ALICE, standing=[], sums=None, windows=None, now_s=NOON))
    assert told["usage"] is None
    assert "keeps no record" in told["problem"]


# Limits


def test_field_note_11_limits_tell_what_is_used_left_and_when_it_comes_back(ask):
    clock = FakeClock(wall=NOON)
    limiter = Limiter(clock)
    limiter.begin("alice", ALICE.limits).settle(1_000_000, MicroUsd(2_500_000))
    clock.pass_s(10)
    lease = limiter.begin("alice", ALICE.limits)
    told = ask(limiter=limiter, now_s=clock.wall)
    requests, tokens, cost = told["limits"]
    assert [one["text"] for one in told["limits"]] == ["60/min", "5M/day", "$20/week"]
    assert [one["unit"] for one in told["limits"]] == ["requests", "tokens", "usd"]
    assert [one["window_s"] for one in told["limits"]] == [60, DAY_S, 7 * DAY_S]
    assert [requests[name] for name in ("amount", "used", "left")] == [60, 2, 58]
    assert [tokens[name] for name in ("amount", "used", "left")] == [5_000_000, 1_000_000, 4_000_000]
    assert [cost[name] for name in ("amount", "used", "left")] == [20, 2.5, 17.5]
    assert told["concurrent"] == {"limit": 8, "running": 1, "left": 7}
    lease.settle(0, MicroUsd(0))


def test_who_comes_back_when_the_page_says_is_let_in(ask):
    clock = FakeClock(wall=NOON + 0.4)
    limiter = Limiter(clock)
    limits = Limits(rules=(Rule(quantity=Quantity.REQUESTS, amount=1, window_s=60, text="1/min"),))
    limiter.begin("bob", limits).settle(0, MicroUsd(0))
    [told] = ask(user=User(name="bob", limits=limits), limiter=limiter, now_s=clock.wall)["limits"]
    with pytest.raises(LimitReached):
        limiter.check("bob", limits)
    assert told["left"] == 0
    assert told["frees_at"] == told["whole_at"]
    clock.pass_s(at(told["frees_at"]) - clock.wall)
    limiter.check("bob", limits)


def at(written):
    from datetime import datetime  # noqa: PLC0415

    return datetime.fromisoformat(written).timestamp()


def test_a_user_without_limits_sees_none(ask):
    told = ask(user=BOB)
    assert told["limits"] == []
    assert told["concurrent"] == {"limit": None, "running": 0, "left": None}
    assert (told["providers"], told["models"], told["expires"]) == (None, None, None)


def test_what_a_user_may_use_is_told(ask):
    user = User(name="carol", providers=frozenset("edcba"), models=("gpt-5*",), expires_at=NOON + 1)
    told = ask(user=user)
    assert told["providers"] == ["a", "b", "c", "d", "e"]
    assert told["models"] == ["gpt-5*"]
    assert told["expires"] == "2026-11-22T12:00:01Z"


# The providers' own windows


def test_field_note_12_the_owners_windows_are_not_shown_unless_the_operator_wants_it(ask, windows):
    assert "provider_windows" not in ask()
    told = ask(windows=windows)["provider_windows"]
    assert {one["provider"] for one in told} == {"claude", "chatgpt"}
    [claude] = [one for one in told if one["provider"] == "claude"]
    assert claude == {
        "provider": "claude", "window": "5h", "used": 0.42, "resets_at": "2026-11-22T14:00:00Z",
        "status": "allowed", "seen_at": "2026-11-22T12:00:00Z",
    }  # fmt: skip


def test_windows_of_a_provider_that_a_user_may_not_use_are_not_shown(ask, windows):
    user = User(name="carol", providers=frozenset({"chatgpt"}))
    assert {one["provider"] for one in ask(user=user, windows=windows)["provider_windows"]} == {"chatgpt"}


def test_what_a_provider_says_besides_is_for_the_owner_alone(ask, windows):
    assert "owner" not in json.dumps(ask(windows=windows))


# What the documentation says


def documented(heading):
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return set(
        re.findall(r"^\| `([A-Za-z0-9_.\[\]]+)` \| (?:number|string|bool|array|object)", section, re.M)
    )


def members(value, path=""):
    """Yield the path of every member."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from members(one, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{path}[]"
        yield from members(value[0], f"{path}[]")
    else:
        yield path


def test_every_member_stands_in_the_documentation(ask, windows):
    told = ask([row()], windows=windows)
    figures = documented("What the figures say")
    periods = {name: told["usage"].pop(name) for name in ("7d", "30d")}
    today = told["usage"].pop("today")
    assert set(members({**today, "models": []})) == figures | {"since", "models"}
    assert set(members(today["models"][0])) == figures | {"model"}
    assert all(set(members(one)) == set(members(today)) for one in periods.values())
    own = {"usage", "usage.today", "usage.today.since", "usage.today.models[]", "problem"}
    own |= {"usage.today.models[].model", "usage.today.models[].others"}
    assert set(members(told)) | own == documented("GET /usage")
    assert all(f"`usage.{name}`" in DOCUMENT for name in periods)
