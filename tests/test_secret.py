"""A secret shows nothing of itself, wherever it ends up by accident."""

import copy
import dataclasses
import hashlib
import json
import pickle
import traceback

import pytest

from ai_mux.credentials.credential import Credential
from ai_mux.secret import Secret

TOKEN = "zq7Kw0vXJ3Pm9Rt5Yb2Hg8Ld"  # no piece of it is a word
ACCIDENTS = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "format with a width": "{:>40}".format,
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s:.9}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - that way too
    "in a list": lambda secret: str([secret]),
    "in a mapping": lambda secret: repr({"token": secret}),
    "in a dataclass": lambda secret: repr(Credential(access=secret, refresh=secret, expires_at=None)),
    "in an error": lambda secret: "".join(traceback.format_exception(ValueError(secret))),
    "its attributes": lambda secret: str(getattr(secret, "__dict__", "")),
}


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS.keys())
def test_a_secret_does_not_show(accident):
    shown = accident(Secret(TOKEN))
    assert not any(TOKEN[at : at + 4] in shown for at in range(len(TOKEN) - 3))


@pytest.mark.parametrize(
    "leave", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps], ids=lambda f: f.__qualname__
)
def test_a_secret_is_not_copied_out(leave):
    with pytest.raises(TypeError) as raised:
        leave(Secret(TOKEN))
    assert TOKEN not in str(raised.value)


def test_a_credential_is_not_taken_apart():
    with pytest.raises(TypeError):
        dataclasses.asdict(Credential(access=Secret(TOKEN), refresh=None, expires_at=None))


def test_there_is_one_door_out():
    assert Secret(TOKEN).reveal() == TOKEN
    assert Secret(TOKEN).digest() == hashlib.sha256(TOKEN.encode()).digest()


def test_secrets_are_compared_by_what_they_hide():
    assert Secret(TOKEN) == Secret(TOKEN)
    assert Secret(TOKEN) != Secret(TOKEN + "x")
    assert Secret(TOKEN) != TOKEN
    assert len({Secret(TOKEN), Secret(TOKEN), Secret("other")}) == 2
    assert Secret("é\ud800") == Secret("é\ud800")


def test_an_empty_secret_is_false():
    assert not Secret("")
    assert Secret("x")


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("", "…"),
        ("abc", "…"),
        ("abcd", "a…"),
        ("a" * 16, "aaaa…"),
        ("a" * 32, "a" * 8 + "…"),
        ("a" * 400, "a" * 8 + "…"),
    ],
)
def test_a_beginning_is_at_most_8_characters_and_at_most_a_quarter(token, shown):
    assert Secret(token).beginning() == shown
