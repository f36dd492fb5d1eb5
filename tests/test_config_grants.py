"""What a user may use, and until when: ``providers``, ``models`` and ``expires``."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import Config, load
from ai_mux.errors import ConfigError

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
DAY = 86_400


@pytest.fixture
def loaded(tmp_path):
    """Load a configuration with one user, of whom JSON says this."""

    def read(of_the_user: dict[str, object], served=("claude", "chatgpt")) -> Config:
        user = {"name": "alice", "token": "a-token-for-this-test-only", **of_the_user}
        file = tmp_path / "c.json"
        file.write_text(json.dumps({"providers": served, "users": [user]}))
        file.chmod(0o600)
        return load(file, known_providers=("claude", "chatgpt"), now_s=NOW)

    return read


@pytest.fixture
def alice(loaded):
    """Return the user of whom this is said, and nothing unwise is."""

    def read(**of_the_user: object):
        config = loaded(of_the_user)
        assert config.warnings == ()
        return config.users[0]

    return read


@pytest.fixture
def wrong(loaded):
    """Return why this may not be said of a user."""

    def read(**of_the_user: object) -> str:
        with pytest.raises(ConfigError) as caught:
            loaded(of_the_user)
        [line] = caught.value.lines
        return line.partition("c.json:1: ")[2]

    return read


def test_without_a_word_a_user_may_use_everything_for_ever(alice):
    assert (alice().providers, alice().models, alice().expires_at) == (None, None, None)


# Providers


@pytest.mark.parametrize("written", ["claude", ["claude"], ["claude", "claude"]])
def test_a_user_may_be_for_some_providers_only(alice, written):
    assert alice(providers=written).providers == {"claude"}


def test_an_unknown_provider_is_an_error_that_names_the_known_ones(wrong):
    assert wrong(providers=["claude", "gemini"]) == (
        "users[0].providers[1]: is not a provider; use one of chatgpt, claude"
    )


def test_a_provider_that_is_not_served_is_a_warning(loaded):
    config = loaded({"providers": ["claude", "chatgpt"]}, served=("claude",))
    assert config.users[0].providers == {"claude", "chatgpt"}
    [warning] = config.warnings
    assert warning.endswith(
        "c.json:1: users[0].providers: 'chatgpt' is not served; "
        "add it to the top-level 'providers', or remove it here"
    )


# Models


@pytest.mark.parametrize("written", ["gpt-5*", ["gpt-5*"]])
def test_a_user_may_be_for_some_models_only(alice, written):
    assert alice(models=written).models == ("gpt-5*",)


def test_models_are_kept_as_they_are_written_and_in_their_order(alice):
    written = ["claude-sonnet-*", "GPT-5.1[a-c]?", "ft:gpt:org::id", "claude-opus-4-1@20250805", "*"]
    assert alice(models=written).models == tuple(written)


@pytest.mark.parametrize(
    "written", ["", "a b", "a,b", " a", "a\tb", "gpt-5é", "x" * 129, 5, None, True, {"a": 1}, ["a"]]
)
def test_what_is_no_name_of_a_model_is_refused(wrong, written):
    assert wrong(models=["gpt-5", written]).startswith("users[0].models[1]: ")
    if not isinstance(written, list):
        assert wrong(models=written).startswith("users[0].models: ")


@pytest.mark.parametrize("key", ["providers", "models"])
def test_an_empty_list_is_refused_because_it_may_mean_all_or_none(wrong, key):
    assert wrong(**{key: []}) == (
        f"users[0].{key}: is empty; remove the key to allow all of them, or the user to allow none"
    )


# Expiry


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("written", "ends"),
    [
        ("2030-12-31", at(2031, 1, 1)),  # the whole day is still good
        ("2028-02-29", at(2028, 3, 1)),
        ("2030-12-31T18:00:00Z", at(2030, 12, 31, 18)),
        ("2030-12-31t18:00:00z", at(2030, 12, 31, 18)),
        ("2030-12-31 18:00:00Z", at(2030, 12, 31, 18)),
        ("2030-12-31T18:00:00+02:00", at(2030, 12, 31, 16)),
        ("2030-12-31T18:00:00-05:30", at(2030, 12, 31, 23, 30)),
        ("2030-12-31T18:00:00-00:00", at(2030, 12, 31, 18)),
        ("2030-12-31T18:00:00.5Z", at(2030, 12, 31, 18) + 0.5),
        ("2030-12-31T18:00:00.123456789Z", at(2030, 12, 31, 18, 0, 0, 123456)),
        ("9999-12-31", at(9999, 12, 31, 23, 59, 59)),
        ("9999-12-31T23:59:59-23:59", at(9999, 12, 31, 23, 59, 59)),
    ],
)
def test_a_token_ends_after_a_date_or_at_a_time(alice, written, ends):
    assert alice(expires=written).expires_at == ends


@given(st.datetimes(min_value=datetime(2028, 1, 1), timezones=st.timezones()))
def test_every_time_of_rfc_3339_is_read_exactly(tmp_path_factory, when):
    offset = when.utcoffset()
    if offset is None or offset.total_seconds() % 60 or when.astimezone(UTC).year > 9998:
        return  # RFC 3339 has no offsets of seconds
    user = {"name": "a", "token_sha256": "ab" * 32, "expires": when.isoformat()}
    file = tmp_path_factory.getbasetemp() / "expires.json"
    file.write_text(json.dumps({"users": [user]}))
    assert load(file, known_providers=[]).users[0].expires_at == when.timestamp()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("2030-12-31T18:00:00", "has no time zone; end it in Z for UTC, or in an offset like +02:00"),
        ("2030-12-31 18:00:00.5", "has no time zone"),
        ("2030-02-30", "is no day or no time that exists"),
        ("2030-13-01", "is no day or no time that exists"),
        ("2030-00-01", "is no day or no time that exists"),
        ("2030-12-31T24:00:01Z", "is no day or no time that exists"),
        ("2030-12-31T18:00:60Z", "is no day or no time that exists"),
        ("2030-12-31T18:00:00+25:00", "is no day or no time that exists"),
        ("1969-12-30", "is before 1970"),
        ("0001-01-01T00:00:00+14:00", "is before 1970"),
        *[
            (written, "is no date and no time")
            for written in [
                "tomorrow",
                "30d",
                "2030-1-1",
                "2030-12",
                "20301231",
                "31.12.2030",
                "12/31/2030",
                "2030-W01-1",
                "2030-12-31T18Z",
                "2030-12-31T18:00Z",
                "2030-12-31Z",
                "2030-12-31T18:00:00,5Z",
                "2030-12-31T18:00:00 CET",
                "2030-12-31T18:00:00+0200",
                "٢٠٣٠-12-31",
                "2030-12-31" + "0" * 5000,
            ]
        ],
        (1893456000, "put it in quotes"),
        (None, "has no value"),
        (["2030-12-31"], "must be a string"),
    ],
)
def test_what_is_no_date_and_no_time_is_refused(wrong, written, says):
    line = wrong(expires=written)
    assert line.startswith("users[0].expires: ")
    assert says in line


def test_a_date_without_quotes_is_a_string_in_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("users:\n- name: a\n  token: a-token-for-this-test-only\n  expires: 2030-12-31\n")
    assert load(file, known_providers=[]).users[0].expires_at == at(2031, 1, 1)


@pytest.mark.parametrize(
    ("written", "is_over"),
    [
        ("2027-01-14", True),
        ("2027-01-15", False),
        ("2027-01-15T08:00:00Z", True),
        ("2027-01-15T08:00:01Z", False),
        ("2027-01-15T08:59:59+01:00", True),
    ],
)
def test_what_is_over_is_a_warning(loaded, written, is_over):
    warnings = loaded({"expires": written}).warnings
    assert ["users[0].expires: is in the past" in line for line in warnings] == ([True] if is_over else [])


def test_the_machine_s_clock_says_what_is_over_unless_another_does(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"users": [{"name": "a", "token": "x" * 16, "expires": "2001-01-01"}]}))
    assert any("is in the past" in line for line in load(file, known_providers=[]).warnings)
    assert not any("is in the past" in line for line in load(file, known_providers=[], now_s=0).warnings)


@pytest.mark.parametrize(
    ("of_the_user", "said"),
    [
        ({"models": ["claude-*"]}, ["users with 'models' get a 403"]),
        ({"limits": {"tokens": ["5M/day"]}}, ["count an estimate"]),
        (
            {"limits": {"cost": ["$5/day"]}, "models": ["x"]},
            ["count an estimate", "users with 'models' get a 403"],
        ),
        ({"limits": {"requests": ["5/day"]}}, []),
        ({}, []),
    ],
)
def test_paths_do_not_go_with_models_nor_limits_of_what_is_used(loaded, of_the_user, said):
    warnings = loaded(of_the_user, [{"name": "claude", "paths": "all"}, "chatgpt"]).warnings
    assert len(warnings) == len(said)
    assert all(
        "providers[0].paths: " in line and words in line for line, words in zip(warnings, said, strict=True)
    )
    assert loaded(of_the_user, ["claude", "chatgpt"]).warnings == ()
