"""Who may do what: users, pages, paths, methods, sizes, and the order in which they are checked."""

import hashlib

import pytest
from fakes.clock import FakeClock
from gates import ALICE, API_KEY, BOB, CHATGPT, CLAUDE, CREDENTIAL, OneCredential, gateway, head, route
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.config.expiry import expires_at
from ai_mux.config.tree import Kind, Scalar
from ai_mux.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    RequestError,
    TooLarge,
    Unauthorized,
    UpgradeRequired,
)
from ai_mux.proxy import admission
from ai_mux.proxy.admission import check_provider, identify, is_probe, presented_token, still_admitted
from ai_mux.proxy.routes import Admitted, Gateway
from ai_mux.users import User
from ai_mux.wire.http1 import RequestHead
from ai_mux.wire.websocket import check_handshake

GATE = gateway()
CLOCK = FakeClock()
OPEN = gateway(users={})
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: bWFkZS11cC0xNi1ieXRlcw==",
    "Sec-WebSocket-Version: 13",
)


def admit(one: RequestHead, gate: Gateway) -> Admitted:
    """Admit a request as the exchange does: a handshake is judged after everything else."""
    admitted = admission.admit(one, gate)
    if one.upgrade:
        check_handshake(one)
    return admitted


def allowed(error: RequestError) -> str:
    return dict(error.fields)["Allow"]


# What anyone may ask


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("GET /healthz", True),
        ("HEAD /healthz", True),
        ("POST /healthz", False),
        ("GET /healthz/", False),
        ("GET /healthz?x", False),
        ("GET /healthz?", False),
        ("GET /%68ealthz", False),
        ("HEAD /claude", True),
        ("HEAD /chatgpt", True),
        ("HEAD /claude/", False),
        ("HEAD /claude?x=1", False),
        ("HEAD /claudex", False),
        ("HEAD /", False),
        ("HEAD *claude", False),
        ("GET /claude", False),
        ("POST /claude", False),
        ("HEAD /claude/v1/models", False),
    ],
)
def test_strangers_are_answered_a_health_check_and_a_probe_only(line, is_one):
    assert is_probe(head(GATE, line), GATE) is is_one


def test_a_probe_tells_nothing_about_what_is_configured():
    bare = gateway(routes=[])
    assert is_probe(head(bare, "HEAD /claude"), bare)


# Users


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ([f"Authorization: Bearer {ALICE}"], "alice"),
        ([f"authorization: bearer {ALICE}"], "alice"),
        ([f"Authorization: BEARER   {ALICE} "], "alice"),
        ([f"x-api-key: {BOB}"], "bob"),
        ([f"X-API-KEY:{BOB}"], "bob"),
        # Authorization decides, whatever x-api-key says.
        ([f"x-api-key: {BOB}", f"Authorization: Bearer {ALICE}"], "alice"),
        ([f"x-api-key: {BOB}", "Authorization: Bearer wrong"], None),
        ([f"x-api-key: {BOB}", "Authorization: Bearer"], None),
        ([f"x-api-key: {BOB}", "Authorization:"], None),
        ([f"x-api-key: {BOB}", "Authorization: Basic YTpi"], None),
        ([], None),
        (["x-api-key:"], None),
        (["Authorization: Bearer "], None),
        ([f"Authorization: {ALICE}"], None),
        ([f"Authorization: Basic {ALICE}"], None),
        ([f"Authorization: Bearer\t{ALICE}"], None),
        ([f"Authorization: Bearer{ALICE}"], None),
        ([f"Authorization: Bearer {ALICE[:-1]}"], None),
        ([f"Authorization: Bearer {ALICE}x"], None),
        ([f"Authorization: Bearer {ALICE.upper()}"], None),
        ([f"Authorization: Bearer {ALICE} {BOB}"], None),
        ([f"Authorization: Bearer {ALICE},"], None),
        ([f"x-api-key: Bearer {ALICE}"], None),
        ([f"Cookie: Authorization=Bearer {ALICE}"], None),
        ([f"Proxy-Authorization: Bearer {ALICE}"], None),
        ([f"x_api_key: {ALICE}"], None),
    ],
)
def test_a_user_is_known_by_a_token(fields, user):
    one = head(GATE, "POST /claude/v1/messages", *fields)
    if user is not None:
        assert identify(one, GATE, CLOCK).name == user
    else:
        with pytest.raises(Unauthorized):
            identify(one, GATE, CLOCK)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=24))
def test_no_other_token_lets_anyone_in(token):
    if token in (ALICE, BOB):
        return
    for field in (f"Authorization: Bearer {token}", f"x-api-key: {token}"):
        with pytest.raises(Unauthorized):
            identify(head(GATE, "GET /claude/v1/models", field), GATE, CLOCK)


def test_a_token_is_good_until_the_second_it_expires():
    gate = gateway(expires_at=CLOCK.wall)
    one = head(gate, "GET /claude/v1/models", f"x-api-key: {ALICE}")
    with pytest.raises(Unauthorized, match="it was valid until 2027-01-15 08:00:00 UTC"):
        identify(one, gate, CLOCK)
    assert identify(one, gate, FakeClock(wall=CLOCK.wall - 0.001)).name == "alice"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("2026-01-01", "the end of 2026-01-01 (UTC)"),
        ("2025-12-31", "the end of 2025-12-31 (UTC)"),
        ("2026-01-01T18:00:00+02:00", "2026-01-01 16:00:00 UTC"),
        ("2026-01-01T18:00:00.5Z", "2026-01-01 18:00:00.500000 UTC"),
    ],
)
def test_whose_token_has_expired_reads_the_date_or_the_time_that_was_written(written, told):
    gate = gateway(expires_at=expires_at(Scalar(line=1, kind=Kind.STRING, text=written)))
    with pytest.raises(Unauthorized) as refused:
        identify(head(gate, "GET /claude/v1/models", f"x-api-key: {ALICE}"), gate, CLOCK)
    assert f"has expired: it was valid until {told}. Ask" in refused.value.public_message


@pytest.mark.parametrize(
    ("providers", "may"), [(None, True), (["claude"], True), (["chatgpt"], False), ([], False)]
)
def test_a_user_reaches_only_their_providers(providers, may):
    user = User(name="alice", providers=None if providers is None else frozenset(providers))
    if may:
        check_provider(user, "claude")
    else:
        with pytest.raises(Forbidden, match="not for claude"):
            check_provider(user, "claude")


def test_the_token_itself_is_returned_for_the_log():
    assert presented_token(head(GATE, "GET /", f"Authorization: Bearer {ALICE}")) == ALICE.encode()
    assert presented_token(head(GATE, "GET /")) is None


# Without users

LOCAL = [
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "x.localhost:1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
]
LOCAL += ["192.168.0.7", "10.0.0.1.", "[fe80::1]:8080"]
REMOTE = [
    "mux.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "notlocalhost",
]
REMOTE += ["localhost..", "0x7f.1", "127.1", "2130706433", "evil.example.:8080", "[::1.evil]"]


@pytest.mark.parametrize("host", LOCAL)
def test_without_users_everyone_who_names_this_machine_is_anonymous(host):
    gate = gateway(users={}, guards_loopback=True)
    assert identify(head(gate, "GET /claude/v1/models", host=host), gate, CLOCK).name == "anonymous"


@pytest.mark.parametrize("host", REMOTE)
def test_without_users_a_name_that_a_stranger_may_own_is_refused_on_loopback(host):
    gate = gateway(users={}, guards_loopback=True)
    with pytest.raises((Forbidden, BadRequest)):
        identify(head(gate, "GET /claude/v1/models", host=host), gate, CLOCK)


def test_without_users_any_host_is_good_where_loopback_is_not_guarded():
    assert identify(head(OPEN, "GET /claude/v1/models"), OPEN, CLOCK).name == "anonymous"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:8080", ""])
def test_without_users_no_web_page_may_use_the_gateway(origin):
    with pytest.raises(Forbidden):
        identify(head(OPEN, "POST /claude/v1/messages", f"oRiGin: {origin}", host="localhost"), OPEN, CLOCK)


def test_with_users_a_web_page_that_has_a_token_may():
    gate = gateway(guards_loopback=True)
    fields = ["Origin: https://page.example", f"x-api-key: {ALICE}"]
    assert identify(head(gate, "POST /claude/v1/messages", *fields), gate, CLOCK).name == "alice"


# Where requests go

SERVED = [
    ("POST /claude/v1/messages", "/v1/messages"),
    ("POST /claude/v1/messages?beta=true", "/v1/messages"),
    ("POST /claude/v1/messages/count_tokens?beta=true", "/v1/messages/count_tokens"),
    ("GET /claude/v1/models?limit=1000", "/v1/models"),
    ("HEAD /claude/v1/models", "/v1/models"),
    ("GET /claude/v1/models/claude-x-4-5@2025_01:beta.1", "/v1/models/claude-x-4-5@2025_01:beta.1"),
    ("HEAD /claude/v1/models/m", "/v1/models/m"),
    ("POST http://mux.example/claude/v1/messages", "/v1/messages"),
    ("POST /chatgpt/v1/responses", "/backend-api/codex/responses"),
    ("POST /chatgpt/responses", "/backend-api/codex/responses"),
    ("POST /chatgpt/v1/responses/compact", "/backend-api/codex/responses/compact"),
    ("POST /chatgpt/responses/compact", "/backend-api/codex/responses/compact"),
    ("GET /chatgpt/v1/models?client_version=1", "/backend-api/codex/models"),
    ("HEAD /chatgpt/models", "/backend-api/codex/models"),
]


@pytest.mark.parametrize(("line", "target"), SERVED)
def test_inference_is_served(line, target):
    for _ in range(2):  # the second time from memory
        admitted = admit(head(GATE, line), GATE)
        assert admitted.target == target.encode()
        assert admitted.route.name == ("claude" if "/claude/" in line else "chatgpt")


CLOSED = [
    "GET /claude",
    "GET /claude/",
    "GET /claude/v1",
    "POST /claude/v1/messages/",
    "POST /claude/v1/messages/batches",
    "POST /claude/v1/complete",
    "POST /claude/V1/messages",
    "POST /claude/v1/message%73",
    "POST /claude/v1/messages;x",
    "GET /claude/v1/files",
    "GET /claude/v1/models/",
    "GET /claude/v1/models/a/b",
    "GET /claude/v1/models/a%20b",
    "GET /claude/v1/models/a;b",
    "GET /claude/api/oauth/profile",
    "GET /claude/v1/organizations/me",
    "POST /chatgpt/v1/v1/responses",
    "GET /chatgpt/v1/models/gpt",
    "GET /chatgpt/wham/usage",
    "POST /chatgpt/v1",
    "POST /chatgpt/v1/embeddings",
    "GET /chatgpt/v1responses",
    "POST /chatgpt/codex/responses",
]


@pytest.mark.parametrize("line", CLOSED)
def test_nothing_else_of_the_owners_account_is(line):
    with pytest.raises(Forbidden) as refused:
        admit(head(GATE, line), GATE)
    rest = line.split("/")[2:]
    assert refused.value.public_message.startswith("/" + "/".join(rest) + " is not")
    assert "'paths'" in refused.value.public_message


@pytest.mark.parametrize(
    ("line", "methods"),
    [
        ("GET /claude/v1/messages", "POST"),
        ("PUT /claude/v1/messages", "POST"),
        ("OPTIONS /claude/v1/messages", "POST"),
        ("HEAD /claude/v1/messages/count_tokens", "POST"),
        ("POST /claude/v1/models", "GET, HEAD"),
        ("DELETE /claude/v1/models/m", "GET, HEAD"),
        ("GET /chatgpt/v1/responses", "POST"),
        ("GET /chatgpt/responses/compact", "POST"),
        ("DELETE /chatgpt/v1/models", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_are_taken(line, methods):
    with pytest.raises(MethodNotAllowed) as refused:
        admit(head(GATE, line), GATE)
    assert allowed(refused.value) == methods


@pytest.mark.parametrize(
    "line", ["TRACE /claude/v1/messages", "CONNECT mux.example:443", "TRACE /nowhere", "TRACE //"]
)
@pytest.mark.parametrize("gate", [GATE, gateway(routes=[route(CLAUDE, paths=["*"])])], ids=["ruled", "open"])
def test_trace_and_connect_are_never_taken(line, gate):
    with pytest.raises(MethodNotAllowed) as refused:
        admit(head(gate, line), gate)
    assert allowed(refused.value)


TREACHEROUS = [
    "/.",
    "/..",
    "/./x",
    "/../x",
    "/%2e",
    "/%2E%2e/x",
    "/.%2e",
    "/%2e./x",
    "//x",
    "/x//",
    "/x\\y",
    "/x%5cy",
]
TREACHEROUS += [
    "/x%5Cy",
    "/x%2fy",
    "/x%2Fy",
    "/x%00",
    "/x#y",
    "/x?a#b",
    "/x?#",
    "/v1/messages/..",
    "/v1/messages#",
]
OPENED = gateway(routes=[route(CLAUDE, paths=["*"]), route(CHATGPT, paths=["*"], base_path=b"/b")])


@pytest.mark.parametrize("path", TREACHEROUS)
@pytest.mark.parametrize("prefix", ["/claude", "/chatgpt", "/nowhere", ""])
@pytest.mark.parametrize("gate", [GATE, OPENED], ids=["ruled", "open"])
def test_a_path_that_could_be_read_in_two_ways_is_refused(path, prefix, gate):
    with pytest.raises(BadRequest):
        admit(head(gate, f"GET {prefix}{path}"), gate)


@pytest.mark.parametrize(
    "path", ["/...", "/.x", "/x.", "/..x", "/x..", "/%2ex", "/a.b/c", "/%2520", "/x?../..//%2f", "/%41"]
)
def test_paths_that_only_look_like_it_pass_raw_where_they_are_open(path):
    one = head(OPENED, f"GET /claude{path}")
    assert admit(one, OPENED).target + one.query == path.encode()


def test_a_fragment_is_refused_even_on_a_path_that_was_good_before():
    gate = gateway()
    assert admit(head(gate, "POST /claude/v1/messages?beta=true"), gate)
    with pytest.raises(BadRequest):
        admit(head(gate, "POST /claude/v1/messages?beta=true#x"), gate)


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET /claudex",
        "GET /claud",
        "GET /Claude/v1/models",
        "GET /%63laude/v1/models",
        "GET /v1/messages",
        "GET /usage",
        "POST /healthz",
        "OPTIONS *",
        "GET *claude/v1/models",
        "GET /x/claude/v1/models",
    ],
)
def test_elsewhere_is_nothing(line):
    with pytest.raises(NotFound):
        admit(head(GATE, line), GATE)


def test_without_providers_every_provider_path_is_nothing():
    bare = gateway(routes=[])
    with pytest.raises(NotFound):
        admit(head(bare, "POST /claude/v1/messages"), bare)


@pytest.mark.parametrize("path", ["/chatgpt/chat/completions", "/chatgpt/v1/chat/completions"])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("gate", [GATE, OPENED], ids=["ruled", "open"])
def test_chat_completions_cannot_be_had_from_a_subscription_and_the_answer_says_why(path, method, gate):
    with pytest.raises(BadRequest) as refused:
        admit(head(gate, f"{method} {path}"), gate)
    assert "Responses" in refused.value.public_message


def test_configured_paths_replace_the_defaults_with_any_method():
    gate = gateway(routes=[route(CLAUDE, paths=["/v1/files", "/v1/beta/*"])])
    for line in (
        "GET /claude/v1/files",
        "DELETE /claude/v1/beta/",
        "PATCH /claude/v1/beta/a/b",
        "POST /claude/v1/files",
    ):
        assert admit(head(gate, line), gate).target == line.split("/claude")[1].encode()
    for line in (
        "POST /claude/v1/messages",
        "GET /claude/v1/files/x",
        "GET /claude/v1/beta",
        "GET /claude/v1/file%73",
    ):
        with pytest.raises(Forbidden):
            admit(head(gate, line), gate)


def test_open_paths_open_everything_and_an_empty_rest_is_the_root():
    assert admit(head(OPENED, "GET /claude?x=1"), OPENED).target == b"/"
    assert admit(head(OPENED, "DELETE /claude/v1/files/x"), OPENED).target == b"/v1/files/x"
    assert admit(head(OPENED, "GET /chatgpt/v1"), OPENED).target == b"/b"
    assert admit(head(OPENED, "GET /chatgpt/v1/v1/x"), OPENED).target == b"/b/v1/x"
    assert admit(head(OPENED, "GET /chatgpt/v12"), OPENED).target == b"/b/v12"


# With an API key


def keyed(**settings):
    """Return a gateway whose ChatGPT credential is an API key, and who hands that out."""
    tokens = OneCredential()
    tokens.credential = API_KEY
    return gateway(routes=[route(CHATGPT, tokens=tokens, **settings)]), tokens


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("POST /chatgpt/v1/responses", "/v1/responses"),
        ("POST /chatgpt/responses", "/responses"),
        ("POST /chatgpt/v1/responses/compact", "/v1/responses/compact"),
        ("POST /chatgpt/v1/chat/completions", "/v1/chat/completions"),
        ("POST /chatgpt/v1/embeddings", "/v1/embeddings"),
        ("GET /chatgpt/v1/models/ft:gpt-x:org::id", "/v1/models/ft:gpt-x:org::id"),
        ("HEAD /chatgpt/v1/models", "/v1/models"),
    ],
)
def test_an_openai_key_opens_inference_with_the_version_kept(line, target):
    gate, _ = keyed()
    for _ in range(2):  # the second time from memory
        admitted = admit(head(gate, line), gate)
        assert admitted.target == target.encode()
        assert admitted.destination is admitted.route.api_key


@pytest.mark.parametrize(
    "path",
    ["/v1/files", "/v1/organization/usage", "/v1/fine_tuning/jobs", "/chat/completions", "/embeddings"],
)
def test_an_openai_key_opens_nothing_else_of_its_owners_account(path):
    gate, _ = keyed()
    with pytest.raises(Forbidden):
        admit(head(gate, f"POST /chatgpt{path}"), gate)


def test_what_the_memory_knows_of_one_kind_of_credential_is_not_believed_of_the_other():
    gate, tokens = keyed()
    line = "POST /chatgpt/v1/chat/completions"
    assert admit(head(gate, line), gate).destination.api_key
    tokens.credential = CREDENTIAL
    with pytest.raises(BadRequest):
        admit(head(gate, line), gate)
    assert admit(head(gate, "POST /chatgpt/v1/responses"), gate).target == b"/responses"
    tokens.credential = API_KEY
    assert admit(head(gate, "POST /chatgpt/v1/responses"), gate).target == b"/v1/responses"
    assert admit(head(gate, line), gate).destination.api_key


def test_configured_paths_open_the_same_for_both_kinds_but_what_a_subscription_does_not_have():
    gate, tokens = keyed(paths=["*"])
    assert admit(head(gate, "DELETE /chatgpt/v1/files/x"), gate).target == b"/v1/files/x"
    assert admit(head(gate, "GET /chatgpt/chat/completions"), gate).target == b"/chat/completions"
    tokens.credential = CREDENTIAL
    assert admit(head(gate, "DELETE /chatgpt/v1/files/x"), gate).target == b"/files/x"
    with pytest.raises(BadRequest):
        admit(head(gate, "GET /chatgpt/chat/completions"), gate)


# Sizes and upgrades


@pytest.mark.parametrize("length", [1001, 10**17])
def test_a_declared_length_over_the_limit_is_refused(length):
    with pytest.raises(TooLarge):
        admit(head(GATE, "POST /claude/v1/messages", f"Content-Length: {length}"), GATE)


@pytest.mark.parametrize("field", ["Content-Length: 1000", "Transfer-Encoding: chunked", "A: b"])
def test_what_may_still_fit_is_let_through(field):
    assert admit(head(GATE, "POST /claude/v1/messages", field), GATE)


@pytest.mark.parametrize("path", ["/chatgpt/v1/responses", "/chatgpt/responses"])
def test_a_websocket_handshake_goes_where_plain_gets_do_not(path):
    assert admit(head(GATE, f"GET {path}", *WEBSOCKET), GATE).target == b"/backend-api/codex/responses"


def test_a_websocket_that_cannot_be_relayed_is_told_so():
    with pytest.raises(UpgradeRequired):
        admit(head(GATE, "GET /chatgpt/v1/responses", *WEBSOCKET[:-1]), GATE)
    with pytest.raises(BadRequest):
        admit(head(GATE, "GET /chatgpt/v1/responses", *WEBSOCKET[:2], *WEBSOCKET[3:]), GATE)


def test_a_websocket_elsewhere_is_judged_by_its_path_first():
    for fields in (WEBSOCKET, WEBSOCKET[:2]):
        with pytest.raises(Forbidden):
            admit(head(GATE, "GET /chatgpt/v1/realtime", *fields), GATE)
        with pytest.raises(MethodNotAllowed):
            admit(head(GATE, "GET /claude/v1/messages", *fields), GATE)
        with pytest.raises(NotFound):
            admit(head(GATE, "GET /v1/responses", *fields), GATE)


def test_a_websocket_goes_to_whatever_path_is_open():
    assert admit(head(OPENED, "GET /chatgpt/v1/realtime", *WEBSOCKET), OPENED).target == b"/b/realtime"
    with pytest.raises(UpgradeRequired):
        admit(head(OPENED, "GET /chatgpt/v1/realtime", *WEBSOCKET[:2]), OPENED)


def test_an_admitted_upgrade_does_not_open_the_path_for_plain_gets():
    gate = gateway()
    for _ in range(2):
        assert admit(head(gate, "GET /chatgpt/v1/responses", *WEBSOCKET), gate)
        with pytest.raises(MethodNotAllowed):
            admit(head(gate, "GET /chatgpt/v1/responses"), gate)


@pytest.mark.parametrize(
    "fields", [(), WEBSOCKET[1:], (*WEBSOCKET, "Content-Length: 3"), ("Connection: Upgrade", "Upgrade: h2c")]
)
def test_who_meant_a_handshake_is_told_what_makes_one(fields):
    with pytest.raises(MethodNotAllowed) as refused:
        admit(head(GATE, "GET /chatgpt/v1/responses", *fields), GATE)
    assert "Upgrade: websocket, no body" in refused.value.public_message
    assert allowed(refused.value) == "POST"
    for line in ("PUT /chatgpt/v1/responses", "GET /chatgpt/v1/responses/compact"):
        with pytest.raises(MethodNotAllowed) as refused:
            admit(head(GATE, line, *fields), GATE)
        assert "websocket" not in refused.value.public_message


def test_every_handshake_is_looked_at_however_often_its_path_was_admitted():
    gate = gateway()
    for _ in range(2):
        assert admit(head(gate, "GET /chatgpt/v1/models"), gate)
        assert admit(head(gate, "GET /chatgpt/v1/models", *WEBSOCKET), gate)
        with pytest.raises(UpgradeRequired):
            admit(head(gate, "GET /chatgpt/v1/models", *WEBSOCKET[:2]), gate)


# Under another configuration

CODEX = b"/backend-api/codex"


@pytest.mark.parametrize(
    ("changed", "may"),
    [
        ({}, True),
        ({"max_body_size": 1}, True),
        ({"users": {"alice": ALICE}}, True),
        ({"users": {"renamed": ALICE, "bob": BOB}}, True),
        ({"users": {"bob": BOB}}, False),
        ({"users": {"alice": BOB}}, False),
        ({"users": {}}, False),
        ({"providers": frozenset({"chatgpt"})}, True),
        ({"providers": frozenset({"claude"})}, False),
        ({"routes": []}, False),
        ({"routes": [route(CLAUDE)]}, False),
        ({"routes": [route(CHATGPT, base_path=CODEX, paths=["/v1/responses"])]}, True),
        ({"routes": [route(CHATGPT, base_path=CODEX, paths=["*"])]}, True),
        ({"routes": [route(CHATGPT, base_path=b"/elsewhere", paths=["*"])]}, False),
        ({"routes": [route(CHATGPT, base_path=CODEX, paths=["/responses", "/v1/models"])]}, False),
        ({"routes": [route(CHATGPT, base_path=CODEX, paths=[])]}, False),
    ],
)
def test_a_tunnel_may_be_asked_through_only_where_it_might_be_opened_now(changed, may):
    handshake = head(GATE, "GET /chatgpt/v1/responses?x=1", *WEBSOCKET)
    opened = admit(handshake, GATE)
    handshake.forget()  # as once the 101 has been passed on
    digest = hashlib.sha256(ALICE.encode()).digest()
    assert (still_admitted(opened, handshake, digest, gateway(**changed)) is not None) is may


def test_a_tunnel_that_needed_no_token_is_asked_through_only_where_still_nobody_needs_one():
    handshake = head(OPEN, "GET /chatgpt/v1/responses", *WEBSOCKET, host="localhost")
    opened = admit(handshake, OPEN)
    handshake.forget()
    assert still_admitted(opened, handshake, None, gateway(users={}))
    assert not still_admitted(opened, handshake, None, GATE)


# The order


@pytest.mark.parametrize(
    ("line", "fields", "error"),
    [
        # Each breaks all rules below its own as well.
        ("TRACE /nowhere/../x", ["Content-Length: 9999"], MethodNotAllowed),
        ("PUT /nowhere/../x", ["Content-Length: 9999"], BadRequest),
        ("PUT /nowhere/chat/completions", ["Content-Length: 9999"], NotFound),
        ("PUT /chatgpt/v1/chat/completions", ["Content-Length: 9999"], BadRequest),
        ("PUT /chatgpt/v1/files", ["Content-Length: 9999"], Forbidden),
        ("PUT /chatgpt/v1/responses", ["Content-Length: 9999"], MethodNotAllowed),
        ("POST /chatgpt/v1/responses", ["Content-Length: 9999"], TooLarge),
    ],
)
def test_the_first_rule_that_is_broken_answers(line, fields, error):
    with pytest.raises(error):
        admit(head(GATE, line, *fields), GATE)


@pytest.mark.parametrize(
    "line", [line for line, _ in SERVED] + CLOSED + ["TRACE /x", "GET /nowhere", "GET //", "GET /%2e%2e"]
)
def test_a_stranger_learns_nothing_from_any_path(line):
    with pytest.raises(Unauthorized) as refused:
        identify(head(GATE, line, "x-api-key: wrong"), GATE, CLOCK)
    assert refused.value.public_message == Unauthorized().public_message


# The memory


def test_what_users_ask_for_cannot_fill_the_memory():
    gate = gateway(routes=[route(CLAUDE, paths=["*"])])
    for number in range(2000):
        admit(head(gate, f"GET /claude/{number}"), gate)
    admit(head(gate, "GET /claude/" + "x" * 9000), gate)
    assert len(gate.admitted) <= 512
    assert max(len(path) for _, path in gate.admitted) <= 256


@given(
    st.lists(
        st.sampled_from([line for line, _ in SERVED] + CLOSED + ["GET /claude/v1/models/../x"]), max_size=12
    )
)
def test_the_memory_changes_no_answer(lines):
    def answers(gates):
        told = []
        for line, gate in zip(lines, gates, strict=True):
            try:
                told.append(admit(head(gate, line), gate).target)
            except RequestError as error:
                told.append((type(error), error.public_message))
        return told

    one = gateway()
    assert answers([one] * len(lines)) == answers([gateway() for _ in lines])


# What uses no tokens


@pytest.mark.parametrize(
    ("line", "free"),
    [
        ("POST /claude/v1/messages", False),
        ("POST /claude/v1/messages/count_tokens", True),
        ("GET /claude/v1/models", True),
        ("HEAD /claude/v1/models/x", True),
        ("POST /chatgpt/v1/responses", False),
        ("POST /chatgpt/responses/compact", False),
        ("GET /chatgpt/v1/models", True),
    ],
)
def test_field_note_20_counting_tokens_and_listing_models_is_free(line, free):
    for gate in (GATE, gateway(routes=[route(CLAUDE, paths=["*"]), route(CHATGPT, paths=["*"])])):
        assert admit(head(gate, line), gate).free is free


def test_what_is_not_known_to_be_free_is_not():
    gate = gateway(routes=[route(CLAUDE, paths=["*"])])
    assert not admit(head(gate, "POST /claude/v1/complete"), gate).free
    assert not admit(head(gate, "GET /claude/v1/anything", *WEBSOCKET), gate).free
    assert admit(head(gate, "DELETE /claude/v1/files/x"), gate).free
