"""The providers' own windows, from whatever their responses say of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.usage.windows import ProviderWindows, Window

NOW = 1_800_000_000.0
CLAUDE, CODEX = "claude:login", "chatgpt:login"
UNIFIED = "anthropic-ratelimit-unified-"


def seen(fields, credential=CLAUDE, *, at=NOW, windows=None):
    windows = windows or ProviderWindows()
    raw = [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in fields.items()]
    windows.note_head(credential, raw, at)
    return windows.shown(at)[credential]


def heard(event, *, at=NOW):
    windows = ProviderWindows()
    windows.note_event(CODEX, {"type": "codex.rate_limits", **event}, at)
    return windows.shown(at)[CODEX]


def used(shown):
    return {window.name: window.used for window in shown.windows}


def test_claude_s_windows_are_read_from_the_head_of_a_response():
    shown = seen(
        {
            "content-type": "text/event-stream",
            UNIFIED + "status": "allowed_warning",
            UNIFIED + "reset": int(NOW) + 600,
            UNIFIED + "representative-claim": "five_hour",
            UNIFIED + "fallback-percentage": "0.5",
            "Anthropic-Ratelimit-Unified-5h-Status": "allowed",
            "Anthropic-Ratelimit-Unified-5h-Reset": int(NOW) + 600,
            "Anthropic-Ratelimit-Unified-5h-Utilization": " 0.62 ",
            UNIFIED + "7d-utilization": "1.03",
            UNIFIED + "7d-reset": int(NOW) + 90_000,
            UNIFIED + "7d-status": "rejected",
            UNIFIED + "7d_oi-utilization": "-0.0",
            UNIFIED + "overage-status": "rejected",
            UNIFIED + "overage-disabled-reason": "org_level_disabled",
            UNIFIED + "upgrade-paths": "max",
        }
    )
    assert shown.windows == (
        Window("5h", 0.62, NOW + 600, "allowed", NOW),
        Window("7d", 1.03, NOW + 90_000, "rejected", NOW),
        Window("7d_oi", 0.0, None, "", NOW),
        Window("overage", None, None, "rejected", NOW),
    )
    assert math.copysign(1, shown.windows[2].used) == 1
    assert shown.other == {
        "status": "allowed_warning",
        "reset": str(int(NOW) + 600),
        "representative-claim": "five_hour",
        "fallback-percentage": "0.5",
        "overage-disabled-reason": "org_level_disabled",
    }


def test_codex_s_windows_are_named_by_their_length_whatever_slot_they_are_in():
    shown = seen(
        {
            "x-codex-primary-used-percent": "51",
            "x-codex-primary-window-minutes": "10080",
            "x-codex-primary-reset-at": int(NOW) + 9000,
            "x-codex-secondary-used-percent": "12.5",
            "x-codex-secondary-window-minutes": "299",
            "x-codex-secondary-reset-after-seconds": "60",
            "x-codex-credits-has-credits": "False",
            "x-codex-turn-state": "opaque-state-of-a-conversation",
            "x-codex-plan-type": "pro",
            "x-codex-promo-message": "Buy more!",
        },
        CODEX,
    )
    assert shown.windows == (
        Window("5h", 0.125, NOW + 60, "", NOW),
        Window("7d", 0.51, NOW + 9000, "", NOW),
    )
    assert shown.other == {"credits-has-credits": "False"}


@pytest.mark.parametrize(
    ("minutes", "name"),
    [
        ("300", "5h"), ("10080", "7d"), ("10079", "7d"), ("43200", "30d"), ("1440", "1d"), ("60", "1h"),
        ("90", "90m"), ("15", "15m"), ("1", "1m"), ("7200", "5d"), ("1e300", "primary"),
    ],
)  # fmt: skip
def test_a_length_is_written_as_people_write_it(minutes, name):
    shown = seen({"x-codex-primary-used-percent": "1", "x-codex-primary-window-minutes": minutes}, CODEX)
    assert used(shown) == {name: 0.01}


def test_a_slot_without_a_length_keeps_the_name_of_the_slot():
    shown = seen({"x-codex-primary-used-percent": "1", "x-codex-secondary-used-percent": "2"}, CODEX)
    assert used(shown) == {"primary": 0.01, "secondary": 0.02}


def test_two_slots_of_one_length_are_two_windows():
    fields = {f"x-codex-{slot}-window-minutes": "300" for slot in ("primary", "secondary")}
    shown = seen(fields | {"x-codex-primary-used-percent": "1", "x-codex-secondary-used-percent": "2"}, CODEX)
    assert used(shown) == {"5h": 0.01, "5h secondary": 0.02}


def test_an_empty_slot_is_no_window():
    fields = {f"x-codex-secondary-{end}": "0" for end in ("used-percent", "window-minutes", "reset-at")}
    assert seen(fields, CODEX).windows == ()


@pytest.mark.parametrize("active", [None, "premium", "codex"])
def test_limits_beside_the_account_s_own_have_their_name_before_the_window(active):
    fields = {
        "x-codex-primary-used-percent": "5",
        "x-codex-primary-window-minutes": "300",
        "x-codex-bengalfox-primary-used-percent": "80",
        "x-codex-bengalfox-primary-window-minutes": "10080",
        "x-codex-bengalfox-limit-name": "A-Model",
        "x-brand-new-secondary-used-percent": "7",
    }
    shown = seen(fields | ({} if active is None else {"x-codex-active-limit": active}), CODEX)
    assert used(shown) == {"5h": 0.05, "brand_new/secondary": 0.07, "codex_bengalfox/7d": 0.8}


def test_what_repeats_another_limit_s_figures_is_not_taken_for_the_account_s_own():
    shown = seen(
        {
            "x-codex-active-limit": "codex-bengalfox",
            "x-codex-primary-used-percent": "80",
            "x-codex-primary-window-minutes": "10080",
            "x-codex-bengalfox-primary-used-percent": "80",
            "x-codex-bengalfox-primary-window-minutes": "10080",
        },
        CODEX,
    )
    assert used(shown) == {"codex_bengalfox/7d": 0.8}


def test_times_in_milliseconds_are_times_too():
    fields = {"x-codex-primary-used-percent": "1", "x-codex-primary-reset-at": int(NOW * 1000) + 9_000_000}
    assert seen(fields, CODEX).windows[0].resets_at == NOW + 9000


def test_the_event_says_the_same_as_the_fields():
    shown = heard(
        {
            "plan_type": "pro",
            "rate_limits": {
                "allowed": True,
                "limit_reached": False,
                "primary": {"used_percent": 94, "window_minutes": 10080, "reset_at": NOW + 9000},
                "secondary": {"used_percent": 1.5, "window_minutes": 300, "reset_after_seconds": 60},
            },
            "additional_rate_limits": {"Spark One": {"primary": {"used_percent": 20, "window_minutes": 300}}},
            "credits": {"has_credits": True, "balance": "9"},
        }
    )
    assert shown.windows == (
        Window("5h", 0.015, NOW + 60, "", NOW),
        Window("7d", 0.94, NOW + 9000, "", NOW),
        Window("spark_one/5h", 0.2, None, "", NOW),
    )


@pytest.mark.parametrize("key", ["metered_limit_name", "limit_name", "limit_id"])
def test_an_event_of_another_limit_says_nothing_of_the_account_s_own(key):
    limits = {"primary": {"used_percent": 20, "window_minutes": 300}, "secondary": None}
    assert used(heard({key: "codex-bengalfox", "rate_limits": limits})) == {"codex_bengalfox/5h": 0.2}
    assert used(heard({key: "codex", "rate_limits": limits})) == {"5h": 0.2}


def test_further_limits_come_as_a_list_too():
    slots = {"primary_window": {"used_percent": 30, "limit_window_seconds": 18_000}}
    event = {
        "additional_rate_limits": [{"metered_limit_name": "a", "rate_limit": slots}, {"rate_limit": slots}, 7]
    }
    assert used(heard(event)) == {"a/5h": 0.3}


# What is remembered


def test_a_refusal_that_says_only_that_takes_nothing_away():
    windows = ProviderWindows()
    seen({UNIFIED + "5h-utilization": "0.9", UNIFIED + "5h-reset": int(NOW) + 60}, windows=windows)
    shown = seen({UNIFIED + "5h-status": "rejected"}, windows=windows, at=NOW + 1)
    assert shown.windows == (Window("5h", 0.9, NOW + 60, "rejected", NOW + 1),)


def test_a_new_window_knows_nothing_of_the_one_before():
    windows = ProviderWindows()
    seen({UNIFIED + "5h-utilization": "0.9", UNIFIED + "5h-reset": int(NOW) + 60}, windows=windows)
    shown = seen({UNIFIED + "5h-reset": int(NOW) + 18_000}, windows=windows, at=NOW + 1)
    assert shown.windows == (Window("5h", None, NOW + 18_000, "", NOW + 1),)


def test_after_its_end_nobody_knows_what_is_used_of_a_window():
    windows = ProviderWindows()
    seen({UNIFIED + "5h-utilization": "0.9", UNIFIED + "5h-reset": int(NOW) + 60}, windows=windows)
    assert windows.shown(NOW + 59)[CLAUDE].windows[0].used == 0.9
    assert windows.shown(NOW + 60)[CLAUDE].windows == (Window("5h", None, NOW + 60, "", NOW),)


def test_a_window_that_is_not_seen_for_long_is_forgotten():
    windows = ProviderWindows()
    seen({UNIFIED + "5h-utilization": "0.9"}, windows=windows)
    shown = seen({UNIFIED + "7d-utilization": "0.1"}, windows=windows, at=NOW + 9 * 86400)
    assert used(shown) == {"7d": 0.1}


def test_a_head_is_worth_a_look_once_a_second_for_each_credential_and_after_a_clock_was_set_back():
    windows = ProviderWindows()
    assert windows.is_due(CLAUDE, NOW)
    windows.note_head(CLAUDE, [], NOW)
    assert not windows.is_due(CLAUDE, NOW)
    assert not windows.is_due(CLAUDE, NOW + 0.99)
    assert windows.is_due(CLAUDE, NOW + 1)
    assert windows.is_due(CODEX, NOW)
    assert windows.is_due(CLAUDE, NOW - 3600)


# What comes from outside


@pytest.mark.parametrize(
    "value",
    ["", "NaN", "inf", "-1", "-0.5", "1e999", "1001", "0x1", "one", "0.5, 0.6", "9" * 5000, "\xff", "½"],
)
def test_a_figure_that_is_none_is_not_known(value):
    assert used(seen({UNIFIED + "5h-utilization": value, UNIFIED + "5h-status": "allowed"})) == {"5h": None}


@pytest.mark.parametrize("value", ["", "NaN", "-5", "0", "inf", "soon", "9" * 40, "2026-11-22T00:00:00Z"])
def test_an_end_that_is_none_is_not_known(value):
    shown = seen({UNIFIED + "5h-utilization": "0.5", UNIFIED + "5h-reset": value})
    assert shown.windows[0].resets_at is None


@pytest.mark.parametrize(
    "word", ["owner@mail.example", "x" * 65, "\x1b[31mred", 'a"b', "<b>", "{", "naïve", "a\tb"]
)
def test_a_word_that_might_be_anything_is_not_kept(word):
    shown = seen({UNIFIED + "note": word, UNIFIED + "5h-status": word, UNIFIED + "5h-utilization": "0.5"})
    assert shown.other == {}
    assert shown.windows[0].status == ""


def test_a_thousand_invented_names_take_the_place_of_none_and_grow_nothing():
    windows = ProviderWindows()
    seen({UNIFIED + "5h-utilization": "0.5", UNIFIED + "status": "allowed"}, windows=windows)
    for number in range(1000):
        shown = seen(
            {
                f"{UNIFIED}w{number}-utilization": "0.5",
                f"{UNIFIED}claim{number}": "x",
                f"x-limit{number}-primary-used-percent": "1",
            },
            windows=windows,
        )
        windows.note_head(f"invented:{number}", [], NOW)
    shown = seen({UNIFIED + "5h-utilization": "0.6", UNIFIED + "status": "rejected"}, windows=windows)
    assert used(shown)["5h"] == 0.6
    assert shown.other["status"] == "rejected"
    assert len(shown.windows) == len(shown.other) == 16
    assert len(windows.shown(NOW)) == 64


def test_a_head_without_end_is_read_to_some_point():
    def fields():
        while True:
            yield b"x-codex-primary-used-percent", b"1"

    windows = ProviderWindows()
    windows.note_head(CODEX, fields(), NOW)
    assert used(windows.shown(NOW)[CODEX]) == {"primary": 0.01}


def test_what_fails_while_it_is_read_is_passed_over():
    windows = ProviderWindows()
    windows.note_head(CLAUDE, [("no", "bytes")], NOW)  # type: ignore[list-item]
    windows.note_head(CLAUDE, 7, NOW)  # type: ignore[arg-type]
    windows.note_event(CODEX, 7, NOW)  # type: ignore[arg-type]
    assert all(not shown.windows for shown in windows.shown(NOW).values())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("azAZ09-_ .", max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["rate_limits", "additional_rate_limits", "primary", "secondary", "used_percent", "reset_at",
             "window_minutes", "reset_after_seconds", "limit_name", "limit_window_seconds", "other"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["rate_limits", "additional_rate_limits", "limit_name"]), _JSON))
def test_no_event_whatsoever_breaks_anything(event):
    windows = ProviderWindows()
    windows.note_event(CODEX, event, NOW)
    for shown in windows.shown(NOW).values():
        for window in shown.windows:
            assert window.used is None or 0 <= window.used <= 1000
            assert window.resets_at is None or math.isfinite(window.resets_at)


_NAMES = st.sampled_from(
    [UNIFIED + "5h-utilization", UNIFIED + "5h-reset", UNIFIED + "-", UNIFIED, "x-codex-primary-used-percent",
     "x-codex-primary-window-minutes", "x--primary-reset-at", "x-codex-active-limit"]
)  # fmt: skip


@given(
    st.lists(st.tuples(_NAMES.map(str.encode) | st.binary(max_size=80), st.binary(max_size=200)), max_size=12)
)
def test_no_head_whatsoever_breaks_anything(fields):
    windows = ProviderWindows()
    windows.note_head(CLAUDE, fields, NOW)
    shown = windows.shown(NOW)[CLAUDE]
    assert len(shown.windows) <= 16
    assert all(window.used is None or 0 <= window.used <= 1000 for window in shown.windows)
