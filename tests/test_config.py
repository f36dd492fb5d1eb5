"""Every field of the configuration: its default, its forms, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import Config, Listen, UsageConfig, load
from ai_mux.errors import ConfigError
from ai_mux.limits import NO_LIMITS

KNOWN = ("claude", "chatgpt")


@pytest.fixture
def loaded(tmp_path):
    """Load a text as a configuration file."""

    def read(text: str, name: str = "ai-mux.yaml") -> Config:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return load(file, known_providers=KNOWN)

    return read


@pytest.fixture
def wrong(loaded):
    """Load a text that must be refused, and return the lines without the file's directory."""

    def read(text: str, name: str = "ai-mux.yaml") -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(text, name)
        assert all("\n" not in line for line in caught.value.lines)
        return [line[line.index(name) :] for line in caught.value.lines]

    return read


# The whole


def test_without_a_file_every_field_has_its_default(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(None, known_providers=KNOWN)
    assert config == Config(
        source=None,
        listen=Listen(text=":8080", host=None, port=8080, path=None),
        state_dir=Path("/home/somebody/.ai-mux"),
        log_level="info",
        request_timeout_s=None,
        refresh_check_interval_s=600.0,
        providers=(),
        users=(),
        tls=None,
        max_body_size=64 * 1024 * 1024,
        max_connections=10_000,
        stream_idle_timeout_s=300.0,
        shutdown_timeout_s=10.0,
        limits=NO_LIMITS,
        usage=UsageConfig(enabled=True, keep_s=400 * 86_400.0, show_windows=False, prices=()),
        admin=None,
        audit=None,
        warnings=config.warnings,
    )
    assert [line.startswith("providers: none") for line in config.warnings] == [True]


FIELDS = {
    "listen": "127.0.0.1:9000",
    "state_dir": "/var/lib/made-up",
    "log_level": "debug",
    "request_timeout": "2m",
    "refresh_check_interval": 30,
    "providers": ["claude", {"name": "chatgpt", "paths": "all"}],
    "users": [{"name": "alice", "token": "a-token-for-this-test-only"}],
    "tls": {"enabled": False, "cert_path": "", "key_path": ""},
    "max_body_size": "1GiB",
    "max_connections": 7,
    "stream_idle_timeout": "1.5h",
    "shutdown_timeout": "250ms",
    "limits": {"concurrent": 8},
    "usage": {"keep": "30d"},
    "admin": {"listen": "127.0.0.1:9180"},
    "audit": "/var/log/made-up.jsonl",
}


def test_every_field_is_read(loaded):
    config = loaded(json.dumps(FIELDS), "ai-mux.json")
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 9000)
    assert config.state_dir == Path("/var/lib/made-up")
    assert config.log_level == "debug"
    assert config.request_timeout_s == 120
    assert config.refresh_check_interval_s == 30
    assert [provider.name for provider in config.providers] == ["claude", "chatgpt"]
    assert [user.name for user in config.users] == ["alice"]
    assert config.tls is None
    assert config.max_body_size == 2**30
    assert config.max_connections == 7
    assert config.stream_idle_timeout_s == 5400
    assert config.shutdown_timeout_s == 0.25
    assert config.limits.concurrent == 8
    assert config.usage.keep_s == 30 * 86_400
    assert config.admin.listen.port == 9180
    assert config.audit == Path("/var/log/made-up.jsonl")
    assert config.warnings == ()


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.conf", "a"])
def test_any_other_ending_than_json_is_yaml(loaded, name):
    assert loaded("log_level: error", name).log_level == "error"


@pytest.mark.parametrize("name", ["a.json", "a.JSON"])
def test_the_ending_json_is_json(loaded, wrong, name):
    assert loaded('{\t"log_level": "error"}', name).log_level == "error"
    assert wrong("log_level: error", name)[0].startswith(f"{name}:1: not JSON")


def test_json_and_yaml_say_the_same(loaded):
    text = json.dumps(FIELDS, indent=2)
    from_json, from_yaml = loaded(text, "a.json"), loaded(text, "a.yaml")
    for field in set(Config.__slots__) - {"source", "warnings"}:
        assert getattr(from_json, field) == getattr(from_yaml, field)


def test_an_empty_file_is_the_defaults(loaded):
    assert loaded("# nothing yet\n").listen.text == ":8080"


def test_loading_creates_nothing(loaded, tmp_path):
    loaded(f"state_dir: {tmp_path}/state")
    assert not (tmp_path / "state").exists()


# What is not understood


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("listn: ':80'", "1: listn: unknown key; did you mean 'listen'?"),
        ("Users: []", "1: Users: unknown key; did you mean 'users'?"),
        ("tls:\n  cert_pth: x", "2: tls.cert_pth: unknown key; did you mean 'cert_path'?"),
        (
            "providers:\n- name: claude\n  base-url: x",
            "3: providers[0].base-url: unknown key; did you mean 'base_url'?",
        ),
        ("zzz: 1", "1: zzz: unknown key; remove it, or use one of listen, "),
        ("{listen:80}", "1: listen…: unknown key; put a blank after its ':'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(wrong, text, line):
    assert wrong(text)[0].startswith(f"ai-mux.yaml:{line}")


@pytest.mark.parametrize("key", ["metrics", "quota", "accounts"])
def test_a_key_that_is_not_built_is_unknown(wrong, key):
    assert "unknown key" in wrong(f"{key}: {{}}")[0]


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_duplicate_key_names_both_lines(wrong, name):
    text = '{"listen": ":1",\n"log_level": "info",\n"listen": ":2"}'
    assert wrong(text, name) == [f"{name}:3: listen: duplicate key, already in line 1; remove one"]


def test_all_problems_are_told_at_once_in_the_files_order(wrong):
    text = "tls: 5\nlog_level: loud\nusers: {}\nproviders: claude\nlisten: 8080\nshutdown_timeout: -1\n"
    lines = wrong(text)
    assert [line.split(": ")[:2] for line in lines] == [
        [f"ai-mux.yaml:{number}", key]
        for number, key in enumerate(
            ["tls", "log_level", "users", "providers", "listen", "shutdown_timeout"], start=1
        )
    ]


@pytest.mark.parametrize("key", list(FIELDS))
@pytest.mark.parametrize("value", ["", "null", "~"])
def test_a_key_without_a_value_is_an_error_and_never_a_silent_default(wrong, key, value):
    # "users:" with every entry commented out would otherwise open the server to all.
    assert wrong(f"{key}: {value}")[0].startswith(f"ai-mux.yaml:1: {key}: ")


@pytest.mark.parametrize("key", list(FIELDS))
@pytest.mark.parametrize("value", ["{a: 1}", "[[]]", "1.5", "true"])
def test_a_wrong_type_is_an_error(wrong, key, value):
    lines = wrong(f"log_level: info\n{key}: {value}" if key != "log_level" else f"\n{key}: {value}")
    assert lines[0].startswith(f"ai-mux.yaml:2: {key}")


def test_the_top_must_be_a_mapping(wrong):
    assert wrong("- claude") == ["ai-mux.yaml:1: must be a mapping ('key: value' lines), not a list"]


def test_names_in_the_environment_are_not_expanded(loaded, monkeypatch):
    monkeypatch.setenv("WHERE", "/elsewhere")
    assert loaded("state_dir: /a/${WHERE}").state_dir == Path("/a/${WHERE}")


# YAML 1.2 scalars


def test_scalars_are_those_of_yaml_1_2(loaded):
    config = loaded("max_connections: 010\nusers: [{name: no, token: it-is-1:30-and-nobody-counts}]")
    assert config.max_connections == 10
    assert config.users[0].name == "no"


def test_a_sexagesimal_number_is_a_string(wrong):
    assert "is not a duration" in wrong("request_timeout: 1:30")[0]


@pytest.mark.parametrize(
    ("word", "on"), [("yes", True), ("Yes", True), ("no", False), ("NO", False), ("false", False)]
)
def test_yes_and_no_are_taken_where_a_bool_stands(loaded, wrong, word, on):
    if on:
        assert "cert_path" in wrong(f"tls: {{enabled: {word}}}")[0]
    else:
        assert loaded(f"tls: {{enabled: {word}}}").tls is None


@pytest.mark.parametrize("word", ["on", "off", "1", '"true"', '"yes"', "y"])
def test_nothing_else_is_taken_for_a_bool(wrong, word):
    assert "tls.enabled: must be true or false" in wrong(f"tls: {{enabled: {word}}}")[0]


# Durations


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("60s", 60),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("0.5h", 1800),
        (".5s", 0.5),
        ("1.s", 1),
        ("+5s", 5),
        ("500ms", 0.5),
        ("1h0m0.25s", 3600.25),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("1ns", 1e-9),
        ("90", 90),
        ('"90"', 90),
        ("+90", 90),
        ("010", 10),
        ("9223372036s", 9223372036),
    ],
)
def test_a_duration_is_gos_notation_or_whole_seconds(loaded, written, seconds):
    assert loaded(f"request_timeout: {written}").request_timeout_s == seconds


@pytest.mark.parametrize(
    "written",
    [
        "0",
        "0s",
        "-5s",
        "-5",
        "1.5",
        "5x",
        "1d",
        "5 s",
        "1M",
        "s",
        "1h-5m",
        "0x10",
        "1e3",
        '"1_000"',
        '"1.5"',
        ".s",
        "٣s",
        "9999999h",
        "1" * 5000,
        "1" * 100 + "s",
        "0.1ns",
        "1" * 5000 + "s",
    ],
)
def test_what_is_not_a_positive_duration_is_refused(wrong, written):
    assert wrong(f"request_timeout: {written}")[0].startswith("ai-mux.yaml:1: request_timeout: ")


@given(ms=st.integers(1, 10**9))
def test_a_duration_survives_being_split_into_units(tmp_path_factory, ms):
    hours, rest = divmod(ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    file = tmp_path_factory.getbasetemp() / "split.json"
    file.write_text(json.dumps({"request_timeout": f"{hours}h{minutes}m{rest // 1000}s{rest % 1000}ms"}))
    assert load(file, known_providers=KNOWN).request_timeout_s == ms / 1000


# Sizes and counts


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("65536", 65536),
        ('"512"', 512),
        ("3KiB", 3072),
        ("64MiB", 2**26),
        ("2GiB", 2**31),
        ("3KB", 3000),
        ("64MB", 64000000),
        ("2GB", 2 * 10**9),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(loaded, written, size):
    assert loaded(f"max_body_size: {written}").max_body_size == size


@pytest.mark.parametrize(
    "written", ["0", "-1", "1.5MiB", "64mib", "64M", "64 MiB", "MiB", "1e6", "0MiB", "9" * 5000]
)
def test_what_is_not_a_positive_size_is_refused(wrong, written):
    assert wrong(f"max_body_size: {written}")[0].startswith("ai-mux.yaml:1: max_body_size: ")


@pytest.mark.parametrize("written", ["0", "-1", '"5"', "1.0", "0x10", "9" * 5000])
def test_what_is_not_a_positive_count_is_refused(wrong, written):
    assert wrong(f"max_connections: {written}")[0].startswith("ai-mux.yaml:1: max_connections: ")


# Listen


@pytest.mark.parametrize(
    ("written", "host", "port", "is_local"),
    [
        (":8080", None, 8080, False),
        (":0", None, 0, False),
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("127.9.9.9:80", "127.9.9.9", 80, True),
        ("localhost:80", "localhost", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("192.0.2.7:80", "192.0.2.7", 80, False),
        ("example.test:65535", "example.test", 65535, False),
        ("[::1]:80", "::1", 80, True),
        ("[::]:80", "::", 80, False),
        ("[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80, True),
    ],
)
def test_a_listener_is_a_host_and_a_port(loaded, written, host, port, is_local):
    listen = loaded(f'listen: "{written}"').listen
    assert (listen.host, listen.port, listen.path, listen.is_local) == (host, port, None, is_local)
    assert listen.text == written


def test_a_listener_is_a_unix_socket(loaded, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    listen = loaded("listen: unix:~/run/ai-mux.sock").listen
    assert (listen.host, listen.path, listen.is_local) == (None, Path("/home/somebody/run/ai-mux.sock"), True)


@pytest.mark.parametrize(
    "written",
    [
        "8080",
        "localhost",
        "::1:80",
        "[::1]",
        "[localhost]:80",
        "[]:80",
        ":65536",
        ":-1",
        ":http",
        "*:80",
        "a b:80",
        "999.0.0.1:80",
        "http://localhost:80",
        "unix:",
        "unix:/" + "a" * 110,
        ":٨٠",
        "-a:80",
        ":",
    ],
)
def test_what_is_no_listener_is_refused(wrong, written):
    assert wrong(f'listen: "{written}"')[0].startswith("ai-mux.yaml:1: listen: ")


def test_a_bare_port_shows_the_form_with_a_colon(wrong):
    assert '":8080"' in wrong("listen: 8080")[0]


# Paths


def test_a_home_is_expanded_and_a_relative_path_made_absolute(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    assert loaded("state_dir: ~/here").state_dir == Path("/home/somebody/here")
    assert loaded("state_dir: here").state_dir == tmp_path / "here"


@pytest.mark.parametrize("home", ["", "relative"])
@pytest.mark.parametrize("text", ["state_dir: ~/x", "listen: unix:~/x", "log_level: info"])
def test_a_tilde_without_a_home_is_an_error(wrong, monkeypatch, home, text):
    # The last text does not mention it: the default state_dir does.
    monkeypatch.setenv("HOME", home)
    assert "set HOME" in wrong(text)[0]


def test_without_a_file_a_tilde_without_a_home_is_an_error(monkeypatch):
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ConfigError, match=r"^state_dir: by default '~/\.ai-mux', and '~' stands for a home"):
        load(None, known_providers=KNOWN)


def test_a_tilde_of_an_unknown_user_is_an_error(wrong):
    assert "absolute path" in wrong("state_dir: ~nobody-has-this-name/x")[0]


def test_a_state_dir_that_is_a_file_is_refused(wrong, tmp_path):
    (tmp_path / "file").touch()
    assert "is not a directory" in wrong(f"state_dir: {tmp_path}/file")[0]


def test_a_state_dir_that_cannot_be_looked_at_is_left_to_its_use(loaded, tmp_path):
    assert loaded(f"state_dir: {tmp_path}/{'a' * 300}").state_dir.parent == tmp_path


def test_an_empty_path_is_refused(wrong):
    assert "must not be empty" in wrong('state_dir: ""')[0]


# The audit log


def test_the_audit_log_is_a_file_that_need_not_exist(loaded, tmp_path):
    assert loaded(f"audit: {tmp_path}/later/audit.jsonl").audit == tmp_path / "later" / "audit.jsonl"
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('"-"', "names no file"),
        ('"."', "is a directory"),
        ("later/", "is a directory"),
        ("ai-mux.yaml", "is the configuration itself"),
        ('""', "must not be empty"),
        ("5", "put it in quotes"),
        ("sk-made-up-key", "looks like a key or token itself"),
    ],
)
def test_what_is_no_file_for_an_audit_log_is_refused(wrong, tmp_path, monkeypatch, written, says):
    monkeypatch.chdir(tmp_path)
    [line] = wrong(f"audit: {written}")
    assert line.startswith("ai-mux.yaml:1: audit: ")
    assert says in line
