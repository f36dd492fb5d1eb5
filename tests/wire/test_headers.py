"""Which header fields pass: the whole list of changes, and nothing else.

``expected`` says in plain words what design and documentation list. The property
then holds the rules against it with fields, spellings and orders that nobody chose.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.credentials.credential import Credential
from ai_mux.providers.chatgpt import PROVIDER as CHATGPT
from ai_mux.providers.claude import PROVIDER as CLAUDE
from ai_mux.secret import Secret
from ai_mux.wire.headers import NOTABLE_IN_REQUESTS, NOTABLE_IN_RESPONSES, Changes, RequestRules, respond
from ai_mux.wire.http1 import parse_request, parse_response
from ai_mux.wire.shapes import FieldNames

TOKEN = b"made-up-access-token"
BETA = b"oauth-2025-04-20"


def credential(**other):
    return Credential(access=Secret(TOKEN.decode()), refresh=None, expires_at=None, **other)


def rules_for(changes, configured=None, host=b"origin.example", **about):
    return RequestRules(host=host, configured=configured or {}, changes=changes, **about)


CLAUDE_RULES = rules_for(CLAUDE.changes(credential()))
CHATGPT_RULES = rules_for(CHATGPT.changes(credential(account_id="acct-1", fedramp=True)))
LONELY_RULES = rules_for(CHATGPT.changes(credential()))
EVERYONES = NOTABLE_IN_REQUESTS | CLAUDE_RULES.notable | CHATGPT_RULES.notable | LONELY_RULES.notable


def sent(rules, *fields, line=b"POST /claude/x HTTP/1.1", target=b"/x", host=b"Host: mux.example"):
    """Return the fields that go upstream, after checking the rest of the head."""
    lines = [line, *fields] if host is None else [line, host, *fields]
    raw, names = b"\r\n".join(lines) + b"\r\n\r\n", FieldNames(EVERYONES | rules.notable)
    head = parse_request(raw, names)
    first = rules.apply(head, target)
    assert rules.apply(head, target) == first, "a replay sends the same"
    for _ in range(2):
        names.learn(head.shape)
    for _ in range(2):
        assert rules.apply(parse_request(raw, names), target) == first, "its shape is known by now"
    assert first.endswith(b"\r\n\r\n")
    request_line, *out = first[:-4].split(b"\r\n")
    assert request_line == line.split(b" ")[0] + b" " + target + b" HTTP/1.1"
    return out


def only(rules, *fields, **about):
    """Return what goes upstream, but for Host, credential and what is always added."""
    added = {b"host", b"authorization", b"chatgpt-account-id", b"x-openai-fedramp"}
    out = sent(rules, *fields, **about)
    return [
        line
        for line in out
        if line.partition(b":")[0].lower() not in added
        and line not in (b"Accept-Encoding: identity", b"anthropic-beta: " + BETA)
    ]


# Requests

REMOVED = [
    b"Authorization: Bearer user-token",
    b"x-api-key: user-token",
    b"X-API-KEY: user-token",
    b"Cookie: a=b",
    b"Proxy-Authorization: Basic x",
    b"Proxy-Connection: keep-alive",
    b"proxy-anything: x",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Keep-Alive: timeout=5",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Forwarded: for=1.2.3.4",
    b"X-Forwarded-For: 1.2.3.4",
    b"x-forwarded-anything: x",
    b"X-Real-IP: 1.2.3.4",
    b"X-Client-IP: 1.2.3.4",
    b"True-Client-IP: 1.2.3.4",
    b"Via: 1.1 x",
    b"CF-Connecting-IP: 1.2.3.4",
    b"cf-ray: x",
    b"CDN-Loop: x",
]


@pytest.mark.parametrize("field", REMOVED, ids=lambda field: field.decode())
@pytest.mark.parametrize("rules", [CLAUDE_RULES, CHATGPT_RULES], ids=["claude", "chatgpt"])
def test_what_is_not_for_the_provider_does_not_pass(rules, field):
    assert only(rules, b"A: b", field, b"C: d") == [b"A: b", b"C: d"]


PASSED = [
    b"User-Agent: claude-cli/2.1.197 (external, sdk-cli)",
    b"x-app:cli",
    b"originator: codex_exec",
    b"Content-Type: application/json ",
    b"content-encoding:\tzstd",
    b"Content-Length: 0",
    b"Origin: https://x.example",
    b"x-stainless-timeout: 600",
    b"X-Stainless-Read-Timeout: 600",
    b"x-client-request-id: 1",
    b"session_id: 1",
    b"x-forwarded: x",
    b"proxy: x",
    b"x-proxy-a: x",
    b"Accept-Language: *",
    b"Referer: https://x.example",
    b"Empty:",
    b"Odd: \xff\t:, ;",
    b"sec-websocket-key: x",
    b"Range: bytes=0-1",
]


@pytest.mark.parametrize("field", PASSED, ids=repr)
def test_everything_else_passes_byte_for_byte(field):
    for rules in (CLAUDE_RULES, CHATGPT_RULES):
        assert only(rules, b"A: b", field, b"a: b") == [b"A: b", field, b"a: b"]


def test_the_credential_takes_the_place_and_spelling_of_the_clients_field():
    fields = [b"A: b", b"AUTHORIZATION:bearer user-token", b"C: d", b"x-api-key: user-token"]
    out = sent(
        CLAUDE_RULES, *fields, b"accept-encoding: gzip", b"anthropic-beta: " + BETA, host=b"HOST: mux.example"
    )
    assert out == [
        b"HOST: origin.example",
        b"A: b",
        b"AUTHORIZATION: Bearer " + TOKEN,
        b"C: d",
        b"accept-encoding: gzip",
        b"anthropic-beta: " + BETA,
    ]


def test_the_credential_comes_last_where_the_client_had_no_such_field():
    out = sent(CLAUDE_RULES, b"x-api-key: user-token")
    assert out == [
        b"Host: origin.example",
        b"anthropic-beta: " + BETA,
        b"Authorization: Bearer " + TOKEN,
        b"Accept-Encoding: identity",
    ]


@pytest.mark.parametrize(
    ("fields", "beta"),
    [
        ([b"anthropic-beta: a,b"], [b"anthropic-beta: a,b," + BETA]),
        ([b"Anthropic-Beta:a, b \t"], [b"Anthropic-Beta:a, b," + BETA]),
        ([b"anthropic-beta: a", b"Anthropic-beta: b"], [b"anthropic-beta: a", b"Anthropic-beta: b," + BETA]),
        ([b"anthropic-beta: a", b"anthropic-beta:"], [b"anthropic-beta: a", b"anthropic-beta: " + BETA]),
        ([b"anthropic-beta: c:"], [b"anthropic-beta: c:," + BETA]),
        ([b"anthropic-beta: a," + BETA + b",a"], None),
        ([b"anthropic-beta: " + BETA, b"anthropic-beta: b"], None),
        ([b"anthropic-beta: b", b"anthropic-beta: x ,\t" + BETA], None),
        ([b"anthropic-beta: x" + BETA], [b"anthropic-beta: x" + BETA + b"," + BETA]),
    ],
)
def test_the_beta_without_which_no_oauth_token_is_taken_is_added_if_it_is_missing(fields, beta):
    out = [line for line in sent(CLAUDE_RULES, *fields) if line.lower().startswith(b"anthropic-beta")]
    assert out == (fields if beta is None else beta)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ([], [b"Accept-Encoding: identity"]),
        ([b"Accept-Encoding: gzip, deflate, br, zstd"], None),
        ([b"accept-encoding:gzip;q=1.0 ,\tx-gzip;q=0.5,identity; q=0"], None),
        ([b"Accept-Encoding: gzip,,br"], None),
        ([b"Accept-Encoding: GZIP"], None),
        ([b"Accept-Encoding: gzip, compress, br;q=0.5"], [b"Accept-Encoding: gzip, br;q=0.5"]),
        ([b"ACCEPT-encoding:dcb, dcz, gzip;q=0"], [b"ACCEPT-encoding: gzip;q=0"]),
        ([b"Accept-Encoding: *"], [b"Accept-Encoding: identity"]),
        ([b"Accept-Encoding: *;q=0, snappy"], [b"Accept-Encoding: identity"]),
        ([b"Accept-Encoding:"], [b"Accept-Encoding: identity"]),
        ([b"Accept-Encoding: ,"], [b"Accept-Encoding: identity"]),
        ([b"Accept-Encoding: gzipped"], [b"Accept-Encoding: identity"]),
        ([b"accept-encoding: *", b"Accept-Encoding: br"], [b"Accept-Encoding: br"]),
        ([b"Accept-Encoding: br", b"accept-encoding: *"], [b"Accept-Encoding: br"]),
        ([b"accept-Encoding: *", b"Accept-Encoding: x"], [b"accept-Encoding: identity"]),
        ([b"Accept-Encoding: " + b"x," * 200 + b"br"], [b"Accept-Encoding: br"]),
    ],
)
def test_only_known_codings_are_accepted(fields, kept):
    out = [line for line in sent(CHATGPT_RULES, *fields) if line.lower().startswith(b"accept-encoding")]
    assert out == (fields if kept is None else kept)


def test_the_account_is_the_credentials_and_never_the_clients():
    fields = [
        b"ChatGPT-Account-ID: someone",
        b"chatgpt-account-id: else",
        b"openai-organization: o",
        b"OpenAI-Project: p",
        b"x-openai-account-routing-override: us",
        b"x-openai-fedramp: false",
        b"anthropic-beta: a",
    ]
    out = sent(CHATGPT_RULES, *fields, b"Authorization: x", b"Accept-Encoding: br")
    assert out == [
        b"Host: origin.example",
        b"ChatGPT-Account-ID: acct-1",
        b"x-openai-fedramp: true",
        b"Authorization: Bearer " + TOKEN,
        b"Accept-Encoding: br",
    ]
    assert sent(LONELY_RULES, *fields, b"Authorization: x", b"Accept-Encoding: br") == [
        b"Host: origin.example",
        b"Authorization: Bearer " + TOKEN,
        b"Accept-Encoding: br",
    ]


def test_one_providers_names_are_nothing_to_another():
    fields = [b"chatgpt-account-id: a", b"openai-organization: o", b"x-openai-fedramp: true"]
    assert sent(CLAUDE_RULES, *fields)[1:4] == fields


def test_what_connection_names_is_removed_before_ours_is_set():
    fields = [
        b"Connection: Keep-Alive, X-Hop ,authorization,chatgpt-account-id",
        b"Authorization: Bearer user-token",
        b"connection: x-other,accept-encoding",
        b"x-hop: 1",
        b"X-HOP: 2",
        b"X-Other: 3",
        b"X-Stays: 4",
        b"chatgpt-account-id: someone",
        b"Accept-Encoding: gzip",
    ]
    assert sent(CHATGPT_RULES, *fields) == [
        b"Host: origin.example",
        b"Authorization: Bearer " + TOKEN,
        b"X-Stays: 4",
        b"chatgpt-account-id: acct-1",
        b"X-OpenAI-Fedramp: true",
        b"Accept-Encoding: identity",
    ]


def test_connection_cannot_remove_what_frames_or_addresses_the_request():
    named = b"Connection: host, content-length, transfer-encoding, authorization, close"
    assert only(CLAUDE_RULES, named, b"Content-Length: 3") == [b"Content-Length: 3"]
    assert only(CLAUDE_RULES, named, b"transfer-encoding: chunked") == [b"transfer-encoding: chunked"]
    assert sent(CLAUDE_RULES, named)[0] == b"Host: origin.example"


def test_the_beta_that_connection_names_is_set_anew():
    out = sent(CLAUDE_RULES, b"Connection: anthropic-beta", b"anthropic-beta: a")
    assert [line for line in out if b"beta" in line] == [b"anthropic-beta: " + BETA]


def test_the_http2_settings_of_curl_do_not_pass():
    fields = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"]
    assert only(CLAUDE_RULES, *fields) == []


def test_the_transfer_framing_is_ours():
    assert only(CLAUDE_RULES, b"Transfer-encoding:\t CHUNKED ") == [b"Transfer-encoding: chunked"]


def test_configured_fields_replace_the_clients_or_remove_them():
    configured = {b"X-Team": b"blue", b"X-Gone": None, b"X-New": b"1", b"openai-project": b"ours"}
    rules = rules_for(CHATGPT.changes(credential()), configured)
    fields = [b"x-team: red", b"A: b", b"X-TEAM: green", b"x-gone: 1", b"OpenAI-Project: theirs"]
    assert only(rules, *fields) == [b"x-team: blue", b"A: b", b"OpenAI-Project: ours", b"X-New: 1"]


def test_a_configured_beta_is_completed():
    rules = rules_for(CLAUDE.changes(credential()), {b"Anthropic-Beta": b"mine"})
    out = sent(rules, b"anthropic-beta: theirs")
    assert [line for line in out if b"beta" in line] == [b"anthropic-beta: mine," + BETA]
    rules = rules_for(CLAUDE.changes(credential()), {b"anthropic-beta": None})
    out = sent(rules, b"anthropic-beta: theirs")
    assert [line for line in out if b"beta" in line] == [b"anthropic-beta: " + BETA]


def test_an_api_key_takes_the_place_of_the_clients():
    rules = rules_for(Changes(put=((b"x-api-key", b"made-up-key"),)))
    out = sent(rules, b"X-Api-Key: user", b"Authorization: Bearer user", b"Accept-Encoding: br")
    assert out == [b"Host: origin.example", b"X-Api-Key: made-up-key", b"Accept-Encoding: br"]


# A WebSocket's handshake

HANDSHAKE_RULES = rules_for(CHATGPT.changes(credential(account_id="acct-1")), handshake=True)
ASKED_FOR = b"GET /chatgpt/v1/responses HTTP/1.1"
ASKS = [b"Connection: Upgrade", b"Upgrade: websocket"]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (ASKS, ASKS),
        # In the client's place and spelling, whatever else it said to us there.
        (
            [b"UPGRADE:WebSocket", b"A: b", b"connection:keep-alive,  upgrade", b"Keep-Alive: 5"],
            [b"UPGRADE: websocket", b"A: b", b"connection: Upgrade"],
        ),
        (
            [b"Connection: X-Hop", b"X-Hop: 1", b"Connection: upgrade", b"Upgrade: websocket"],
            [b"Connection: Upgrade", b"Upgrade: websocket"],
        ),
        (
            [b"Connection: Upgrade, connection", b"A: b", b"Upgrade: websocket"],
            [b"A: b", b"Upgrade: websocket", b"Connection: Upgrade"],
        ),
        # The two ends' own pass.
        (
            [b"Sec-WebSocket-Key:x", b"sec-websocket-version: 13 ", b"Sec-WebSocket-Protocol: a, b", *ASKS],
            [b"Sec-WebSocket-Key:x", b"sec-websocket-version: 13 ", b"Sec-WebSocket-Protocol: a, b", *ASKS],
        ),
        # Frames that are extended could not be metered.
        ([*ASKS, b"Sec-WebSocket-Extensions: x", b"sec-websocket-EXTENSIONS: y", b"A: b"], [*ASKS, b"A: b"]),
    ],
)
def test_a_handshake_keeps_its_upgrade_and_loses_its_extensions(fields, kept):
    assert only(HANDSHAKE_RULES, *fields, line=ASKED_FOR) == kept


@pytest.mark.parametrize("field", [field for field in REMOVED if not field.startswith((b"Conn", b"Upg"))])
def test_a_handshake_takes_along_no_more_than_any_request(field):
    assert only(HANDSHAKE_RULES, *ASKS, field, line=ASKED_FOR) == ASKS


def test_a_handshake_has_our_credential_and_host():
    out = sent(HANDSHAKE_RULES, *ASKS, b"authorization: Bearer user-token", line=ASKED_FOR)
    assert out == [
        b"Host: origin.example",
        *ASKS,
        b"authorization: Bearer " + TOKEN,
        b"chatgpt-account-id: acct-1",
        b"Accept-Encoding: identity",
    ]


def test_extensions_pass_where_no_websocket_is_asked_for():
    """There the field means nothing, and nothing that means nothing to us is touched."""
    field = b"Sec-WebSocket-Extensions: permessage-deflate"
    assert only(CHATGPT_RULES, field) == [field]


GONE = {b"x-api-key", b"cookie", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"expect"}
GONE |= {b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"via", b"cdn-loop"}
FAMILIES = (b"proxy-", b"x-forwarded-", b"cf-")
SUBSCRIPTION = {
    b"openai-organization",
    b"openai-project",
    b"x-openai-account-routing-override",
    b"anthropic-beta",
}
ALWAYS = {b"host", b"authorization", b"content-length", b"transfer-encoding", b"close", b"keep-alive"}


def expected(lines, *, put, gone, beta):
    """The list of design section 4, one rule after another, without a thought for speed."""
    fields = [
        (line.partition(b":")[0].lower(), line.partition(b":")[2].strip(b" \t"), line) for line in lines
    ]
    named = {
        option.strip(b" \t").lower()
        for name, value, _ in fields
        if name == b"connection"
        for option in value.split(b",")
    }
    fields = [field for field in fields if field[0] not in named - ALWAYS]
    out, placed = [], set()
    for name, _, line in fields:
        if name in put:
            if name not in placed:
                out.append(line[: len(name)] + b": " + put[name][1])
            placed.add(name)
        elif name not in gone and not name.startswith(FAMILIES):
            out.append(line)
    added = [spelled + b": " + value for name, (spelled, value) in put.items() if name not in placed]
    if not any(name == b"accept-encoding" for name, _, _ in fields):
        added.append(b"Accept-Encoding: identity")
    if beta:
        places = [index for index, line in enumerate(out) if line.lower().startswith(b"anthropic-beta:")]
        members = [
            part.strip(b" \t") for index in places for part in out[index].partition(b":")[2].split(b",")
        ]
        if not places:
            added.append(b"anthropic-beta: " + BETA)
        elif BETA not in members:
            last = out[places[-1]].rstrip(b" \t")
            out[places[-1]] = last + (b" " if last[len(b"anthropic-beta") :] == b":" else b",") + BETA
    return out, sorted(added)


def spelled(name):
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda upper: b"".join(
            name[i : i + 1].upper() if up else name[i : i + 1] for i, up in enumerate(upper)
        )
    )


known = st.sampled_from(
    [
        *sorted(
            GONE
            | SUBSCRIPTION
            | {b"x-forwarded-for", b"cf-ray", b"proxy-x", b"chatgpt-account-id", b"x-openai-fedramp"}
        ),
        b"origin",
        b"user-agent",
        b"x-stainless-timeout",
        b"content-type",
        b"cf",
        b"x-forwarded",
        b"date",
    ]
)
tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=9).map(
    str.encode
)
names = st.one_of(
    known, tokens.filter(lambda name: name not in ALWAYS | {b"accept-encoding", b"authorization"})
)
values = st.binary(max_size=9).map(
    lambda raw: bytes(b for b in raw if b == 9 or (b >= 32 and b != 127)).strip(b" \t")
)
plain = st.builds(
    lambda n, sep, v: n + sep + v, names.flatmap(spelled), st.sampled_from([b": ", b":", b":\t "]), values
)
connection = st.builds(
    lambda n, options: n + b": " + b" ,".join(options),
    spelled(b"connection"),
    st.lists(st.one_of(names, st.sampled_from(sorted(ALWAYS))).flatmap(spelled), max_size=3),
)
betas = st.sampled_from([b"anthropic-beta: a", b"Anthropic-Beta: b,c", b"anthropic-beta: " + BETA])
codings = st.sampled_from([b"accept-encoding: gzip, br", b"Accept-Encoding:zstd"])
once = st.lists(
    st.sampled_from([b"Authorization: Bearer u", b"Content-Length:\t12", b"Accept: */*"]),
    unique=True,
    max_size=3,
)


@given(st.data())
def test_the_list_of_changes_to_a_request_is_complete(data):
    fields = data.draw(st.lists(st.one_of(plain, connection, betas, codings), max_size=12)) + data.draw(once)
    fields = [field for field in fields if not field.lower().startswith(b"x-api-key")]
    fields = data.draw(st.permutations([*fields, b"Host: mux.example"]))
    token = (b"Authorization", b"Bearer " + TOKEN)
    put = {b"host": (b"Host", b"origin.example"), b"authorization": token}
    out = sent(CLAUDE_RULES, *fields, host=None)
    kept, added = expected(fields, put=put, gone=GONE, beta=True)
    assert (out[: len(kept)], sorted(out[len(kept) :])) == (kept, added)

    put |= {
        b"chatgpt-account-id": (b"chatgpt-account-id", b"acct-1"),
        b"x-openai-fedramp": (b"X-OpenAI-Fedramp", b"true"),
    }
    out = sent(CHATGPT_RULES, *fields, host=None)
    kept, added = expected(fields, put=put, gone=GONE | SUBSCRIPTION, beta=False)
    assert (out[: len(kept)], sorted(out[len(kept) :])) == (kept, added)


# Responses


def told(*fields, line=b"HTTP/1.1 200 OK", to_head=False, id_field=b"request-id", **about):
    """Return the first line and the fields that the client gets."""
    raw = b"\r\n".join([line, *fields]) + b"\r\n\r\n"
    names = FieldNames(NOTABLE_IN_RESPONSES)
    about = {"id_field": id_field, "request_id": "amx_ours", **about}
    head = parse_response(raw, names, to_head=to_head)
    out = respond(head, **about)
    for _ in range(2):
        names.learn(head.shape)
    assert respond(parse_response(raw, names, to_head=to_head), **about) == out, "its shape is known by now"
    assert out.endswith(b"\r\n\r\n")
    first, *rest = out[:-4].split(b"\r\n")
    return first, rest


OURS = b"request-id: amx_ours"


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: keep-alive",
        b"Connection: Upgrade",
        b"Keep-Alive: timeout=5",
        b"TE: x",
        b"Upgrade: h2,h2c",
        b"Proxy-Authenticate: Basic",
        b"proxy-connection: close",
        b"Set-Cookie: a=b",
        b"SET-COOKIE: c=d",
        b"Alt-Svc: h3",
        b"Strict-Transport-Security: max-age=1",
        b"NEL: {}",
        b"Report-To: {}",
    ],
)
def test_what_speaks_for_the_providers_host_or_connection_does_not_reach_the_client(field):
    assert told(b"A: b", field, b"Content-Length: 0", field) == (
        b"HTTP/1.1 200 OK",
        [b"A: b", b"Content-Length: 0", OURS],
    )


@pytest.mark.parametrize(
    "field",
    [
        b"x-ratelimit-remaining:\t5 ",
        b"anthropic-ratelimit-unified-7d_oi-status: allowed",
        b"retry-after: 50000",
        b"x-should-retry: false",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Server: x",
        b"cf-ray: x",
        b"Via: 1.1 x",
        b"Trailer: X-Sum",
        b"WWW-Authenticate: Bearer",
        b"openai-model: x",
        b"Content-Encoding: br",
        b"x-request-id: theirs",
        b"Odd: \xff",
    ],
)
def test_everything_else_reaches_the_client_byte_for_byte(field):
    assert told(field, b"Content-Length: 0", field)[1] == [field, b"Content-Length: 0", field, OURS]


@pytest.mark.parametrize("id_field", [b"request-id", b"x-request-id"])
def test_our_request_id_is_added_only_where_the_provider_sent_none(id_field):
    theirs = id_field.title() + b": theirs"
    assert told(theirs, b"Content-Length: 0", id_field=id_field)[1] == [theirs, b"Content-Length: 0"]
    assert told(b"Content-Length: 0", id_field=id_field)[1][-1] == id_field + b": amx_ours"


def test_what_the_providers_connection_names_is_removed():
    fields = [b"Connection: close, X-Hop, content-length", b"x-hop: 1", b"A: b", b"Content-Length: 0"]
    assert told(*fields)[1] == [b"A: b", b"Content-Length: 0", OURS]


@pytest.mark.parametrize(
    ("about", "passes"),
    [
        ({}, True),
        ({"decoded": True}, False),
        ({"to_head": True}, False),
        ({"line": b"HTTP/1.1 304 Not Modified"}, False),
    ],
)
def test_the_chunked_framing_is_announced_only_where_chunks_follow(about, passes):
    fields = [b"Transfer-Encoding: chunked", b"Trailer: X-Sum"]
    assert told(*fields, **about)[1] == [*(fields if passes else fields[1:]), OURS]


def test_the_client_is_told_that_its_connection_ends():
    assert told(b"connection: keep-alive", b"Content-Length: 0", close=True)[1][-2:] == [
        OURS,
        b"Connection: close",
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"HTTP/1.1 529 Over\xfcload ", b"HTTP/1.1 529 Over\xfcload "),
        (b"HTTP/1.1 200", b"HTTP/1.1 200"),
        (b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK"),
    ],
)
def test_status_and_reason_pass_and_the_version_is_ours(line, shown):
    assert told(b"Content-Length: 0", line=line)[0] == shown


SWITCHES = b"HTTP/1.1 101 Switching Protocols"


@pytest.mark.parametrize(
    ("fields", "reach"),
    [
        ([*ASKS, b"Sec-WebSocket-Accept: x"], [*ASKS, b"Sec-WebSocket-Accept: x", OURS]),
        ([b"upgrade:WebSocket", b"connection:upgrade"], [b"upgrade:WebSocket", b"connection:upgrade", OURS]),
        # What else it says there is between the provider and us.
        (
            [b"Connection: keep-alive, Upgrade", b"Keep-Alive: timeout=5", b"Upgrade: websocket"],
            [b"Upgrade: websocket", OURS, b"Connection: Upgrade"],
        ),
        (
            [b"Connection: upgrade, X-Hop", b"X-Hop: 1", b"Upgrade: websocket", b"A: b"],
            [b"Upgrade: websocket", b"A: b", OURS, b"Connection: Upgrade"],
        ),
        (
            [b"Connection: upgrade", b"Connection: close", b"Upgrade: websocket"],
            [b"Upgrade: websocket", OURS, b"Connection: Upgrade"],
        ),
        ([*ASKS, b"Set-Cookie: a=b", b"Alt-Svc: h3", b"proxy-x: y"], [*ASKS, OURS]),
        (
            [*ASKS, b"x-codex-a:  b ", b"Request-Id: theirs"],
            [*ASKS, b"x-codex-a:  b ", b"Request-Id: theirs"],
        ),
    ],
)
def test_a_101_reaches_the_client_with_its_upgrade_and_the_providers_fields(fields, reach):
    assert told(*fields, line=SWITCHES, switching=True) == (SWITCHES, reach)


def test_a_101_in_http_1_0_is_one_in_1_1():
    """RFC 9110, 2.5: the version is the hop's own, and 1.0 has no upgrades."""
    assert told(*ASKS, line=b"HTTP/1.0 101", switching=True) == (b"HTTP/1.1 101", [*ASKS, OURS])


def test_what_is_remembered_of_requests_has_an_end():
    rules = RequestRules(host=b"up.example", configured={}, changes=Changes())
    names = FieldNames(rules.notable)
    for n in range(300):
        raw = b"POST /x HTTP/1.1\r\nHost: h\r\nName-%d: v\r\n\r\n" % n
        for _ in range(2):
            names.learn(parse_request(raw, names).shape)
        rules.apply(parse_request(raw, names), b"/x")
    assert len(rules._edits) <= 64


def test_nothing_is_remembered_of_what_is_not_met_again():
    """Whoever sends ever new heads does not displace what is known of the others'."""
    rules = RequestRules(host=b"up.example", configured={}, changes=Changes())
    names = FieldNames(rules.notable)
    for n in range(3):
        rules.apply(parse_request(b"POST /x HTTP/1.1\r\nHost: h\r\nName-%d: v\r\n\r\n" % n, names), b"/x")
    assert not rules._edits
