"""``admin``: where metrics and status are shown, and that nobody is shown them by accident."""

import hashlib
import json
from pathlib import Path

import pytest

from ai_mux.config import Config, load
from ai_mux.errors import ConfigError

TOKEN = "a-token-of-the-admin-listener"
DIGEST = hashlib.sha256(TOKEN.encode()).digest()


@pytest.fixture
def loaded(tmp_path):
    def read(admin: object, **settings: object) -> Config:
        file = tmp_path / "a.json"
        file.write_text(json.dumps({"providers": ["claude"], "admin": admin, **settings}))
        file.chmod(0o600)
        return load(file, known_providers=["claude"])

    return read


@pytest.fixture
def wrong(loaded):
    def read(admin: object, **settings: object) -> str:
        with pytest.raises(ConfigError) as caught:
            loaded(admin, **settings)
        [line] = caught.value.lines
        return line.partition("a.json:1: ")[2]

    return read


@pytest.fixture
def token_file(tmp_path):
    def write(data: bytes, mode: int = 0o600) -> Path:
        file = tmp_path / "admin.token"
        file.write_bytes(data)
        file.chmod(mode)
        return file

    return write


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:9180", "[::1]:9180", "localhost:9180", "unix:/run/made-up.sock"]
)
def test_without_a_token_it_is_for_this_machine(loaded, listen):
    admin = loaded({"listen": listen}).admin
    assert (admin.listen.text, admin.token_digest, admin.token_file) == (listen, None, None)


@pytest.mark.parametrize(
    "listen", [":9180", "0.0.0.0:9180", "[::]:9180", "192.0.2.7:9180", "host.example:9180"]
)
def test_from_elsewhere_it_needs_a_token_and_the_error_says_how(loaded, wrong, listen):
    assert wrong({"listen": listen}) == (
        "admin.listen: is reached from elsewhere, and there is no token; "
        "add admin.token or admin.token_file, or listen on 127.0.0.1 or a unix socket"
    )
    assert loaded({"listen": listen, "token": TOKEN}).admin.token_digest == DIGEST


@pytest.mark.parametrize("data", [TOKEN.encode(), TOKEN.encode() + b"\n", TOKEN.encode() + b"\r\n"])
def test_the_token_may_stand_in_a_file(loaded, token_file, data):
    file = token_file(data)
    admin = loaded({"listen": ":9180", "token_file": str(file)}).admin
    assert (admin.token_digest, admin.token_file, admin.token_key) == (DIGEST, file, "admin.token_file")


def test_the_token_is_not_kept_but_the_place_where_it_stands(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"admin:\n  listen: :9180\n  token: {TOKEN}\n")
    config = load(file, known_providers=[])
    assert (config.admin.token_key, config.admin.token_line) == ("admin.token", 3)
    assert TOKEN not in repr(config)


@pytest.mark.parametrize(
    ("admin", "line"),
    [
        ({}, "admin.listen: is missing; add one"),
        ({"listen": "9180"}, "admin.listen: must end in ':' and a port"),
        ({"listen": ":9180", "token": "short"}, "admin.token: must be a token of at least 16 characters"),
        ({"listen": ":9180", "token": ""}, "admin.token: must not be empty"),
        ({"listen": ":9180", "token": "a blank is in this token"}, "admin.token: must be a token in"),
        ({"listen": ":9180", "token_file": "/nowhere/at/all"}, "admin.token_file: cannot be read"),
        (
            {"listen": ":9180", "token": TOKEN, "token_file": "/x"},
            "admin.token_file: token and token_file excl",
        ),
        ({"listen": "127.0.0.1:9", "tokn": TOKEN}, "admin.tokn: unknown key; did you mean 'token'?"),
        ([], "admin: must be a mapping"),
        (":9180", "admin: must be a mapping"),
    ],
)
def test_what_cannot_be_used_is_refused(wrong, admin, line):
    assert wrong(admin).startswith(line)


def test_a_misspelt_token_does_not_leave_a_listener_without_one(loaded):
    with pytest.raises(ConfigError) as caught:
        loaded({"listen": ":9180", "Token": TOKEN})
    assert len(caught.value.lines) == 2


@pytest.mark.parametrize(
    ("listen", "admin", "same"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "127.0.0.1:9180", False),
        (":8080", "127.0.0.1:8080", True),
        ("0.0.0.0:8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "[::]:8080", True),
        ("127.0.0.1:8080", "localhost:8080", True),
        ("HOST.example:8080", "host.example:8080", True),
        ("127.0.0.1:8080", "[::1]:8080", False),
        ("192.0.2.7:8080", "127.0.0.1:8080", False),
        (":0", ":0", False),
        ("unix:/run/a.sock", "unix:/run/a.sock", True),
        ("unix:/run/a.sock", "unix:/run/b.sock", False),
        ("unix:/run/a.sock", "127.0.0.1:8080", False),
    ],
)
def test_it_is_not_where_requests_are_served(loaded, wrong, listen, admin, same):
    settings = {"listen": admin, "token": TOKEN}
    if same:
        assert wrong(settings, listen=listen).startswith("admin.listen: is where requests are served")
    else:
        assert loaded(settings, listen=listen).admin.listen.text == admin


@pytest.mark.parametrize("form", ["token", "token_sha256", "token_file"])
def test_no_user_has_its_token(wrong, token_file, form):
    value = {"token": TOKEN, "token_sha256": DIGEST.hex(), "token_file": str(token_file(TOKEN.encode()))}[
        form
    ]
    users = [{"name": "a", "token": TOKEN + "2"}, {"name": "b", form: value}]
    line = wrong({"listen": "127.0.0.1:9", "token": TOKEN}, users=users)
    assert line.startswith("admin.token: is also the token of users[1], who would see what everyone uses")


def test_a_token_from_the_documentation_is_warned_about(loaded):
    [warning] = loaded({"listen": ":9", "token": "made-up-token-of-prometheus"}).warnings
    assert "admin.token: its token stands in the documentation" in warning
    assert "made-up" not in warning


def test_a_token_file_that_others_can_read_is_warned_about(loaded, token_file):
    file = token_file(TOKEN.encode(), 0o644)
    [warning] = loaded({"listen": ":9", "token_file": str(file)}).warnings
    assert f"admin.token_file: others on this machine can read it; run: chmod o-rwx '{file}'" in warning
