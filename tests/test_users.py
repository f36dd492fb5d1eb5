"""Users: how they are configured, and how they are found."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import UserConfig, load
from ai_mux.errors import ConfigError
from ai_mux.limits import NO_LIMITS, Limits
from ai_mux.users import Users

TOKEN = "a-token-for-this-test-only"
SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture
def loaded(tmp_path):
    """Load a list of users, given as JSON can write it."""

    def read(*users: object):
        file = tmp_path / "users.json"
        file.write_text(json.dumps({"providers": ["claude"], "users": users}))
        file.chmod(0o600)
        return load(file, known_providers=["claude"])

    return read


@pytest.fixture
def wrong(loaded):
    """Load a list of users that must be refused, and return why."""

    def read(*users: object) -> str:
        with pytest.raises(ConfigError) as caught:
            loaded(*users)
        assert len(caught.value.lines) == 1
        return caught.value.lines[0].partition("users.json:1: ")[2]

    return read


@pytest.fixture
def token_file(tmp_path):
    """Write a token file and return its path."""

    def write(data: bytes, mode: int = 0o600) -> str:
        file = tmp_path / "token"
        file.write_bytes(data)
        file.chmod(mode)
        return str(file)

    return write


def found(users: Users, token: bytes) -> str | None:
    """Return the name of the user who is found by a token."""
    user = users.find(token)
    return None if user is None else user.name


# Finding


def test_a_user_is_found_by_the_whole_token_and_nothing_else():
    users = Users([UserConfig(name="alice", digest=hashlib.sha256(b"one").digest())])
    assert found(users, b"one") == "alice"
    for other in (b"", b"on", b"one ", b"ONE", b"two", hashlib.sha256(b"one").digest(), b"\xff\x00"):
        assert users.find(other) is None


def test_users_tell_whether_there_are_any():
    assert not Users([])
    assert Users([UserConfig(name="a", digest=b"x")])
    assert len(Users([UserConfig(name="a", digest=b"x"), UserConfig(name="b", digest=b"y")])) == 2


@given(st.dictionaries(st.binary(), st.text(), max_size=8), st.binary())
def test_every_user_is_found_and_nobody_else(tokens, stranger):
    users = Users([UserConfig(name=n, digest=hashlib.sha256(t).digest()) for t, n in tokens.items()])
    assert {token: found(users, token) for token in tokens} == tokens
    assert found(users, stranger) == tokens.get(stranger)


def test_a_user_is_found_by_the_hash_of_the_token_too():
    digest = hashlib.sha256(b"one").digest()
    users = Users([UserConfig(name="alice", digest=digest)])
    assert users.with_digest(digest) is users.find(b"one")
    assert users.with_digest(hashlib.sha256(b"two").digest()) is None


def test_who_is_found_is_known_with_all_that_they_may_use(loaded):
    config = loaded(
        {
            "name": "alice",
            "token": TOKEN,
            "limits": {"concurrent": 2},
            "providers": ["claude"],
            "models": ["claude-*"],
            "expires": "2099-12-31",
        },
        {"name": "bob", "token": TOKEN + "2"},
    )
    users = Users(config.users)
    alice, bob = users.find(TOKEN.encode()), users.find(TOKEN.encode() + b"2")
    assert (alice.limits, alice.providers, alice.models, alice.expires_at) == (
        Limits(concurrent=2),
        frozenset({"claude"}),
        ("claude-*",),
        4102444800.0,
    )
    assert (bob.limits, bob.providers, bob.models, bob.expires_at) == (NO_LIMITS, None, None, None)


# Tokens in their three forms


def test_all_three_forms_of_a_token_find_the_user(loaded, token_file):
    for form in (
        {"token": TOKEN},
        {"token_sha256": SHA256},
        {"token_sha256": SHA256.upper()},
        {"token_file": token_file(TOKEN.encode())},
        {"token_file": token_file(TOKEN.encode() + b"\n")},
        {"token_file": token_file(TOKEN.encode() + b"\r\n")},
    ):
        assert found(Users(loaded({"name": "alice", **form}).users), TOKEN.encode()) == "alice"


def test_the_token_itself_is_not_kept(loaded):
    assert TOKEN not in repr(loaded({"name": "alice", "token": TOKEN}))


@pytest.mark.parametrize("token", ["!" * 16, "~" * 16, "".join(map(chr, range(0x21, 0x7F)))])
def test_a_token_is_any_16_printable_characters(loaded, token):
    assert found(Users(loaded({"name": "a", "token": token}).users), token.encode()) == "a"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x" * 15,
        "with a blank in the middle",
        "täglich-ein-neues-token",
        "tab\tin-the-token-here",
        "x" * 9000,
    ],
)
def test_a_token_that_cannot_be_used_is_refused(wrong, token):
    assert wrong({"name": "a", "token": token}).startswith("users[0].token: ")


def test_an_all_digit_token_must_be_quoted_and_the_error_says_so(wrong):
    assert wrong({"name": "a", "token": 1234567890123456}).endswith("put it in quotes")


@pytest.mark.parametrize("digits", ["", "ab", "g" * 64, SHA256 + "0", f" {SHA256}", TOKEN])
def test_a_hash_is_64_hexadecimal_digits(wrong, digits):
    assert wrong({"name": "a", "token_sha256": digits}).startswith("users[0].token_sha256: must")


@pytest.mark.parametrize("data", [b"", b"\n", b"short\n", TOKEN.encode() + b"\n\n", b"\xff" * 20, b"a b" * 9])
def test_a_token_file_that_holds_no_token_is_refused(wrong, token_file, data):
    assert wrong({"name": "a", "token_file": token_file(data)}).startswith(
        "users[0].token_file: must be a token"
    )


def test_a_token_file_that_cannot_be_read_is_refused(wrong, tmp_path):
    assert "cannot be read" in wrong({"name": "a", "token_file": str(tmp_path / "none")})
    assert "is a directory" in wrong({"name": "a", "token_file": str(tmp_path)})


# One of each


def test_a_token_is_given_in_exactly_one_form(wrong):
    assert "no token; give exactly one of" in wrong({"name": "a"})
    assert wrong({"name": "a", "token": TOKEN, "token_sha256": SHA256}).startswith(
        "users[0].token_sha256: token and token_sha256 exclude each other"
    )


@pytest.mark.parametrize("name", ["", "  ", "a\nb", 5, None, True, ["a"]])
def test_a_name_that_is_none_is_refused(wrong, name):
    assert wrong({"name": name, "token": TOKEN}).startswith("users[0].name: ")


def test_a_user_without_a_name_is_refused(wrong):
    assert wrong({"token": TOKEN}) == "users[0].name: is missing; every user has a name"


def test_names_are_unique(wrong):
    assert "users[1].name: is also the name of users[0]" in wrong(
        {"name": "a", "token": TOKEN}, {"name": "a", "token": TOKEN + "2"}
    )


def test_tokens_are_unique_whatever_their_form(wrong, token_file):
    for same in ({"token": TOKEN}, {"token_sha256": SHA256}, {"token_file": token_file(TOKEN.encode())}):
        refused = wrong({"name": "a", "token": TOKEN}, {"name": "b", **same})
        assert refused.startswith("users[1]: has the same token as users[0]")


@pytest.mark.parametrize("user", ["alice", 5, None, [], True])
def test_a_user_is_a_mapping(wrong, user):
    assert wrong(user).startswith("users[0]: must be a mapping with name and token")


# Unwise, not wrong


@pytest.mark.parametrize(
    "token",
    ["your-secret-token-at-least-16-chars", "alice-secret-token-at-least-16", "at-least-16-characters"],
)
def test_field_note_13_a_token_from_the_documentation_is_warned_about(loaded, token):
    digest = hashlib.sha256(token.encode()).hexdigest()
    for form in ({"token": token}, {"token_sha256": digest}):
        config = loaded({"name": "alice", **form})
        assert len(config.users) == 1
        assert ["stands in the documentation" in line for line in config.warnings] == [True]
        assert token not in config.warnings[0]


def test_a_token_file_that_others_can_read_is_warned_about(loaded, token_file):
    path = token_file(TOKEN.encode(), 0o644)
    assert [
        f"chmod o-rwx '{path}'" in line for line in loaded({"name": "a", "token_file": path}).warnings
    ] == [True]
    assert loaded({"name": "a", "token_file": token_file(TOKEN.encode(), 0o640)}).warnings == ()
