"""Files that are no configuration: one clear line each, and never a token in it."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config import load
from ai_mux.errors import ConfigError

KNOWN = ("claude", "chatgpt")
SECRET = "zq7-secret-of-nobody-zq7"


@pytest.fixture
def refused(tmp_path):
    """Return the lines with which bytes are refused as a file of a given name."""

    def read(data: bytes | str, name: str = "c.yaml") -> list[str]:
        file = tmp_path / name
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        file.chmod(0o600)
        return refusal(file)

    return read


def refusal(file: Path) -> list[str]:
    """Return the lines with which a file is refused, without its directory."""
    with pytest.raises(ConfigError) as caught:
        load(file, known_providers=KNOWN)
    assert all("\n" not in line for line in caught.value.lines)
    assert all(line.startswith(str(file)) for line in caught.value.lines)
    return [line.removeprefix(f"{file.parent}/") for line in caught.value.lines]


# The file itself


def test_a_missing_file_is_one_line(tmp_path):
    assert refusal(tmp_path / "c.yaml") == [
        "c.yaml: cannot be read (No such file or directory); check that the path is right and readable"
    ]


def test_a_directory_is_one_line(tmp_path):
    assert "is a directory" in refusal(tmp_path)[0]


def test_an_unreadable_file_is_one_line(tmp_path):
    # A loop of links is unreadable for the superuser too, who may run the tests.
    (tmp_path / "c.yaml").symlink_to("c.yaml")
    assert refusal(tmp_path / "c.yaml")[0].startswith("c.yaml: cannot be read (")


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_huge_file_is_one_line(refused, name):
    assert refused(b"#" * (2**20 + 1), name) == [f"{name}: is larger than 1 MiB; is it the right file?"]


def test_a_file_without_end_is_one_line():
    assert "1 MiB" in refusal(Path("/dev/zero"))[0]


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_what_is_not_utf_8_names_the_line(refused, name):
    assert refused(b'{"log_level":\n"\xff"}', name) == [f"{name}:2: not UTF-8; save the file as UTF-8"]
    assert refused("a: b".encode("utf-16"), name) == [
        f"{name}:1: not UTF-8 but UTF-16; save the file as UTF-8"
    ]


@pytest.mark.parametrize(
    ("name", "text"), [("c.yaml", "log_level: warn"), ("c.json", '{"log_level": "warn"}')]
)
def test_a_byte_order_mark_and_carriage_returns_are_no_content(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load(tmp_path / name, known_providers=KNOWN).log_level == "warn"


@pytest.mark.parametrize("control", ["\x00", "\x1b", "\x7f", "\x85"])
def test_a_control_character_names_the_line(refused, control):
    assert refused(f"listen: ':1'\nlog_level: in{control}fo") == ["c.yaml:2: a control character; remove it"]


@pytest.mark.parametrize("escape", [r"\n", r"\u0000", r"\ud800", r"\u001b"])
@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_an_escaped_control_character_names_the_key(refused, escape, name):
    assert refused(f'{{"state_dir": "/a{escape}b"}}', name)[0].startswith(
        f"{name}:1: state_dir: holds a line break"
    )


# YAML


@pytest.mark.parametrize(
    ("text", "line", "advice"),
    [
        ("tls:\n\tenabled: true", 2, "indent with blanks"),
        ("listen: :80\nlog_level: @info", 2, "quotes"),
        ("listen: :80\nlog_level: 'info\nusers: []\n", 2, "not closed"),
        ("users: [\n{name: x}\n\n\n", 1, "not closed"),
        ("listen: a: b", 1, "indentation"),
        ("listen: [::1]:8080", 1, "indentation and quotes"),
        ("users:\n- name: a\n  token\n  x: y", 3, "key: value"),
        ("log_level: info\nlog_level: &a info", 2, "anchors and aliases"),
        ("log_level: *a", 1, "anchors and aliases"),
        ("tls: &t {enabled: no}\n<<: *t", 1, "anchors and aliases"),
        ("log_level: !!str info", 1, "tags"),
        ("log_level: !x!y info", 1, "tags"),
        ("users: !!seq []", 1, "tags"),
        ("log_level: info\n---\nlog_level: warn", 2, "second document"),
        ("%YAML 1.1\n---\ntls: {enabled: no}", 1, "YAML 1.2"),
        ("? [a]\n: b", 1, "key: value"),
        (r'state_dir: "a\qb"', 1, "escape"),
        (r'state_dir: "\U00110000"', 1, "not YAML"),
        ("tls: }", 1, "not YAML"),
    ],
)
def test_what_is_not_read_as_yaml_names_line_and_advice(refused, text, line, advice):
    lines = refused(text)
    assert len(lines) == 1
    assert lines[0].startswith(f"c.yaml:{line}: ")
    assert advice in lines[0]


def test_a_bomb_of_aliases_is_refused_at_the_first_anchor(refused):
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 10))
    assert refused("l0: &l0 [x]\n" + levels)[0].startswith("c.yaml:1: anchors")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_one_line_in_yaml(refused, opening):
    assert "nested too deeply" in refused(opening * 10_000)[0]


# JSON


@pytest.mark.parametrize(
    ("text", "line", "advice"),
    [
        ("", 1, "missing"),
        ('{"a": 1', 1, "'}' is missing"),
        ('{"users": [\n1 2]}', 2, "']' is missing"),
        ('{"users": [\n],\n}', 3, "comma too many"),
        ('{"users": [1,\n]}', 2, "commas"),
        ("{'a': 1}", 1, "double quotes"),
        ('{"a" 1}', 1, "':' is missing"),
        ('{"a":\nNaN}', 2, "value"),
        ('{"a": 01}', 1, "is missing"),
        ('{"a": "b\nc"}', 1, "line break"),
        ('{"a": "\\q"}', 1, "escape"),
        ('{"a": "b}', 1, "not closed"),
        ("{}\n{}", 2, "follows"),
        ("// no\n{}", 1, "missing"),
    ],
)
def test_what_is_not_json_names_line_and_advice(refused, text, line, advice):
    lines = refused(text, "c.json")
    assert len(lines) == 1
    assert lines[0].startswith(f"c.json:{line}: not JSON: ")
    assert advice in lines[0]


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_one_line_in_json(refused, opening):
    assert "nested too deeply" in refused(opening * 100_000, "c.json")[0]


def test_json_keeps_the_lines_of_keys(refused):
    text = '{\n"listen":\n\n":x",\r\n"users": [\n{"name": "a"}\n]}'
    assert [line.split(": ")[:2] for line in refused(text, "c.json")] == [
        ["c.json:2", "listen"],
        ["c.json:6", "users[0].token"],
    ]


# Secrets


def pieces_of_the_secret_in(lines: list[str]) -> list[str]:
    """Return every 9-character piece of the secret that stands in the lines."""
    pieces = [SECRET[i : i + 9] for i in range(len(SECRET) - 8)]
    return [piece for piece in pieces if piece in "\n".join(lines)]


# How a token gets where it does not belong: a forgotten blank, quote, colon, key or indentation.
SLIPS = [
    "users: [{name: a, token:SECRET}]",
    "users:\n- name: a\n  token:SECRET\n",
    "users:\n- name: a\n    token:SECRET\n",
    "users:\n- name: a\n  token SECRET\n  b: c\n",
    'users:\n- name: a\n  token: "SECRET\n',
    "users:\n- name: a\n  token: SECRET: x\n",
    "users:\n- name: a\n  token: [SECRET]\n",
    "users:\n- name: a\n  token: {SECRET}\n",
    "users:\n- name: a\n  token: !SECRET x\n",
    "users:\n- name: a\n  token: !SECRET!x y\n",
    "users:\n- name: a\n  token: *SECRET\n",
    "users:\n- name: a\n  token: &SECRET\n",
    "users:\n- name: a\n  token: @SECRET\n",
    "users:\n- name: a\n  token: %SECRET\n",
    "users:\n- name: a\n  token: |\n    SECRET\n",
    'users:\n- name: a\n  token: "SECRET\\q"\n',
    "users:\n- name: a\n  token: SECRET€\n",
    "users:\n- name: a\n  token: SECRET x\n",
    "users:\n- name: a\n  token_sha256: SECRET\n",
    "users:\n- name: a\n  token_file: SECRET\n",
    "users:\n- name: SECRET\n  token: SECRET\n- name: SECRET\n  token: SECRET\n",
    "users:\n- name: SECRET\n",
    "users:\n- SECRET\n",
    "users: SECRET\n",
    "token: SECRET\n",
    "SECRET\n",
    "%SECRET\n---\n",
    "%TAG !SECRET! x\n%TAG !SECRET! y\n---\na: b",
    "listen: SECRET\nstate_dir: [SECRET]\nlog_level: SECRET\nrequest_timeout: SECRET\nmax_body_size: SECRET",
    "tls: {enabled: SECRET}\nmax_connections: SECRET\nproviders: SECRET",
    "tls: {enabled: yes, cert_path: SECRET, key_path: SECRET}",
    "providers: [SECRET, {name: SECRET, paths: SECRET}, {name: claude, paths: [SECRET], headers: SECRET}]",
    "providers: [{name: claude, headers: {X: [SECRET], Y: 'SECRET€', Authorization: SECRET, Z:SECRET}}]",
    "providers: [{name: claude, base_url: 'https://a:SECRET@b', token_url: 'https://b/#SECRET'}]",
    "providers: [{name: claude, credentials: [SECRET], ca_file: SECRET}]",
    "providers: [{name: claude, base_url: 'https://b/?k=SECRET', token_url: 'https://SECRET:@b:x'}]",
    "limits: SECRET\nusage: SECRET\nadmin: SECRET\naudit: [SECRET]",
    "limits: {SECRET: 1, concurrent: SECRET, requests: SECRET, tokens: [SECRET], cost: {SECRET: 1}}",
    "limits: {requests: [60/SECRET, SECRET/min], cost: '$SECRET/week', tokens:SECRET}",
    "users: [{name: a, token: SECRET, limits: SECRET, providers: SECRET, models: 'SECRET €'}]",
    "users: [{name: a, token: SECRET, providers: [SECRET], models: [[SECRET]], expires: SECRET}]",
    "users: [{name: a, token: SECRET, expires: '2030-01-01T00:00:00SECRET', limits: [SECRET]}]",
    "usage: {enabled: SECRET, keep: SECRET, show_windows: SECRET, prices: SECRET}",
    "usage: {prices: {'SECRET €': {input: 1}, a: SECRET, b: {SECRET: 1}, c: {input: SECRET}}}",
    "usage: {prices: {SECRET: {input: -1}, SECRET: {}}}",
    "admin: {listen: SECRET, token: 'SECRET €'}",
    "admin: {listen: ':1', token: [SECRET], token_file: SECRET}",
    "admin: {listen: ':1', token_file: SECRET}",
    "users: [{name: a, token: SECRET}]\nadmin: {listen: ':1', token: SECRET}",
]


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_field_note_19_no_error_repeats_a_token(refused, slip, name):
    assert pieces_of_the_secret_in(refused(slip.replace("SECRET", SECRET), name)) == []


JSON_SLIPS = [
    '{"users": [{"name": "a", "token": "SECRET", "token:SECRET": 1, "token_file": ["SECRET"]}]}',
    '{"users": [{"name": "a" "SECRET"}]}',
    '{"users": [{"name": "a", SECRET}]}',
    '{"users": [{"name": "a", "token": SECRET}]}',
    '{"users": [{"name": "a", "token": "SECRET}]}',
    '{"users": [{"name": "a", "token": "SECRET\\q"}]}',
    '{"users": [{"name": "a", "token": "SECRET\\u0000"}]}',
    '{"users": ["SECRET"], "listen": "SECRET", "tls": "SECRET", "providers": {"SECRET": "SECRET"}} SECRET',
]


@pytest.mark.parametrize("slip", JSON_SLIPS)
def test_field_note_19_no_json_error_repeats_a_token(refused, slip):
    assert pieces_of_the_secret_in(refused(slip.replace("SECRET", SECRET), "c.json")) == []


@given(st.text(alphabet="users:nametok- \n\t{}[]\"'&*!|>%@`?,#~0123456789SECRET\\\r", max_size=80))
def test_whatever_the_text_it_is_a_configuration_or_one_error(tmp_path_factory, text):
    for name in ("any.yaml", "any.json"):
        file = tmp_path_factory.getbasetemp() / name
        file.write_text(text, newline="")
        try:
            load(file, known_providers=KNOWN)
        except ConfigError as exc:
            assert all(line.startswith(f"{file}:") for line in exc.lines)


# Unwise, not wrong


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_configuration_that_others_can_read_is_warned_about(tmp_path, mode, warned):
    file = tmp_path / "c.yaml"
    file.write_text("providers: [claude]")
    file.chmod(mode)
    warnings = load(file, known_providers=KNOWN).warnings
    assert [f"chmod o-rwx '{file}'" in line for line in warnings] == ([True] if warned else [])
    assert stat.S_IMODE(file.stat().st_mode) == mode
