"""What the configuration decides: origins, targets, paths and the fields to look for."""

import ssl

import pytest
from gates import API_KEY, CHATGPT, CLAUDE, CREDENTIAL, OneCredential, gateway, head, route
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.credentials.credential import Credential
from ai_mux.providers.base import PathRule
from ai_mux.proxy.routes import OpenPaths, Origin, Paths, prefix_of
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect


@pytest.mark.parametrize(
    ("host", "port", "is_tls", "authority"),
    [
        ("api.anthropic.com", 443, True, b"api.anthropic.com"),
        ("api.anthropic.com", 8443, True, b"api.anthropic.com:8443"),
        ("localhost", 80, False, b"localhost"),
        ("localhost", 443, False, b"localhost:443"),
        ("127.0.0.1", 80, True, b"127.0.0.1:80"),
        ("::1", 443, True, b"[::1]"),
        ("::1", 8080, False, b"[::1]:8080"),
    ],
)
def test_host_names_the_port_only_where_it_is_not_the_schemes_own(host, port, is_tls, authority):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_tls else None
    assert Origin(host=host, port=port, tls=tls).authority == authority


def test_two_origins_are_two_even_if_they_say_the_same():
    one, other = (Origin(host="h", port=1, tls=None) for _ in range(2))
    assert one == one
    assert one != other


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        (b"/claude", b"claude"),
        (b"/claude/", b"claude"),
        (b"/claude/v1", b"claude"),
        (b"/claudex/v1", b"claudex"),
        (b"/", b""),
        (b"", b""),
        (b"//claude", b""),
        (b"*", b""),
        (b"/%63laude/x", b"%63laude"),
    ],
)
def test_the_prefix_ends_at_a_slash_or_at_the_end(path, prefix):
    assert prefix_of(path) == prefix


@pytest.mark.parametrize(
    ("provider", "base_path", "path", "target"),
    [
        (CLAUDE, b"", b"/v1/messages", b"/v1/messages"),
        (CLAUDE, b"", b"", b"/"),
        (CLAUDE, b"", b"/", b"/"),
        (CLAUDE, b"/base", b"", b"/base"),
        (CLAUDE, b"/base", b"/v1/x", b"/base/v1/x"),
        (CHATGPT, b"/backend-api/codex", b"/v1/responses", b"/backend-api/codex/responses"),
        (CHATGPT, b"/backend-api/codex", b"/responses", b"/backend-api/codex/responses"),
        (CHATGPT, b"/backend-api/codex", b"/v1", b"/backend-api/codex"),
        (CHATGPT, b"/backend-api/codex", b"/v1/", b"/backend-api/codex/"),
        (CHATGPT, b"/backend-api/codex", b"/v1x/responses", b"/backend-api/codex/v1x/responses"),
        (CHATGPT, b"", b"/v1", b"/"),
        (CHATGPT, b"", b"/v1/v1/x", b"/v1/x"),
    ],
)
def test_the_target_is_the_base_and_the_rest(provider, base_path, path, target):
    assert route(provider, base_path=base_path).login.target(path) == target


@pytest.mark.parametrize("base_path", [b"", b"/base"])
@pytest.mark.parametrize("path", [b"/v1/responses", b"/responses", b"/v1", b"/v1/", b"/v1/v1/x"])
@pytest.mark.parametrize("provider", [CLAUDE, CHATGPT])
def test_with_an_api_key_the_version_is_kept(provider, base_path, path):
    assert route(provider, base_path=base_path).api_key.target(path) == base_path + path


def test_the_destination_follows_the_kind_of_credential():
    tokens = OneCredential()
    one = route(CHATGPT, tokens=tokens)
    assert one.destination is one.login
    tokens.credential = API_KEY
    assert one.destination is one.api_key
    tokens.credential = CREDENTIAL
    assert one.destination is one.login


def test_the_rules_name_the_host_that_the_kind_of_credential_is_for():
    one = route(CHATGPT)
    request = head(gateway(routes=[one]), "POST /chatgpt/v1/responses", "x-api-key: user")
    login, key = one.rules(CREDENTIAL).apply(request, b"/"), one.rules(API_KEY).apply(request, b"/")
    assert b"\r\nHost: origin.example:443\r\n" in login
    assert b"\r\nHost: keys.example:443\r\n" in key
    assert b"made-up-key" not in login
    assert b"made-up-access" not in key


RULES = Paths(
    [
        PathRule(path=b"/v1/models", methods=(b"GET",)),
        PathRule(path=b"/v1/models/{id}", methods=(b"GET", b"HEAD")),
        PathRule(path=b"/v1.0/x/{id}", methods=(b"POST",)),
    ]
)


@given(st.from_regex(rb"[A-Za-z0-9._:@-]+", fullmatch=True))
def test_an_id_is_one_segment(model):
    rule = RULES.find(b"/v1/models/" + model)
    assert rule is not None
    assert rule.methods == (b"GET", b"HEAD")


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/models/",
        b"/v1/models/a/b",
        b"/v1/models/a b",
        b"/v1/models/%41",
        b"/v1/models/a\n",
        b"/v1/models/\xe4",
        b"/v1/models/{id}",
        b"/v1/modelsx",
        b"/v1/model",
        b"x/v1/models/a",
        b"/v1x0/x/a",
        b"/v1.0/x",
        b"",
    ],
)
def test_nothing_else_is_an_id(path):
    assert RULES.find(path) is None


@pytest.mark.parametrize(
    ("paths", "path", "is_open"),
    [
        (["/v1/files"], b"/v1/files", True),
        (["/v1/files"], b"/v1/files/", False),
        (["/v1/files"], b"/v1/file", False),
        (["/v1/files*"], b"/v1/files", True),
        (["/v1/files*"], b"/v1/filesystem", True),
        (["/v1/files/*"], b"/v1/files", False),
        (["/v1/files/*"], b"/v1/files/a/b", True),
        (["/v1/%41"], b"/v1/A", False),
        (["*"], b"", True),
        (["*"], b"/anything", True),
        ([], b"", False),
        ([], b"/v1/files", False),
        (["/v1/a.c"], b"/v1/abc", False),
    ],
)
def test_configured_paths_are_exact_or_prefixes_and_raw(paths, path, is_open):
    assert (path in OpenPaths(paths)) is is_open


def test_the_rules_follow_the_credential():
    one = route(CLAUDE)
    gate = gateway(routes=[one])
    request = head(gate, "POST /claude/v1/messages", "x-api-key: user")
    other = Credential(access=Secret("made-up-other"), refresh=None, expires_at=None)
    assert b"made-up-access" in one.rules(CREDENTIAL).apply(request, b"/")
    assert one.rules(CREDENTIAL) is one.rules(CREDENTIAL)
    assert b"made-up-other" in one.rules(other).apply(request, b"/")
    assert b"made-up-access" in one.rules(CREDENTIAL).apply(request, b"/")


def test_the_gateway_looks_for_the_fields_of_every_provider_and_of_the_configuration():
    gate = gateway(routes=[route(CLAUDE, configured={b"X-Team": b"blue"}), route(CHATGPT)])
    request = head(
        gate, "POST /claude/v1/messages", "x-TEAM: a", "Anthropic-Beta: b", "OpenAI-Project: c", "Other: d"
    )
    assert {b"x-team", b"anthropic-beta", b"openai-project"} <= request.fields.keys()
    assert b"other" not in request.fields


@pytest.mark.parametrize("account", [None, "acct-1"])
@pytest.mark.parametrize("fedramp", [False, True])
def test_no_credential_needs_a_field_that_the_parser_does_not_note(account, fedramp):
    one = route(CHATGPT)
    gate = gateway(routes=[one])
    credential = Credential(
        access=Secret("a"), refresh=None, expires_at=None, account_id=account, fedramp=fedramp
    )
    request = head(
        gate, "POST /chatgpt/v1/responses", "chatgpt-account-id: theirs", "x-openai-fedramp: theirs"
    )
    assert b"theirs" not in one.rules(credential).apply(request, b"/")


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (b"/claude", Dialect.ANTHROPIC),
        (b"/claude/v1/messages", Dialect.ANTHROPIC),
        (b"/chatgpt/v1/responses", Dialect.OPENAI),
        (b"/claudex", Dialect.OPENAI),
        (b"/", Dialect.OPENAI),
        (b"", Dialect.OPENAI),
    ],
)
def test_an_error_has_the_shape_of_its_path_configured_or_not(path, dialect):
    assert gateway(routes=[]).dialect(path) is dialect
