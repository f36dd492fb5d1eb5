"""How both providers' files read and are written, and what their token endpoints' answers mean."""

import json

import pytest
from fakes.renewing import jwt
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.credentials.endpoint import retry_after_s
from ai_mux.credentials.oauth import Reason
from ai_mux.errors import BrokenCredential
from ai_mux.providers.chatgpt import PROVIDER as CHATGPT
from ai_mux.providers.claude import PROVIDER as CLAUDE

claude, chatgpt = CLAUDE.issuer, CHATGPT.issuer
NOW = 1_800_000_000.0
AUTH = "https://api.openai.com/auth"


def read(issuer, document):
    return issuer.read(json.dumps(document).encode())


def after(issuer, document, answer, now=NOW):
    raw = json.dumps(document).encode()
    return json.loads(issuer.write(raw, issuer.renewed(issuer.read(raw), answer, now)))


# Claude


def claude_login(**changes):
    return {
        "claudeAiOauth": {
            "accessToken": "a0",
            "refreshToken": "r0",
            "expiresAt": 1_800_000_000_000,
            **changes,
        }
    }


@pytest.mark.parametrize(
    ("expires_at", "seconds"),
    [
        (1_800_000_000_000, NOW),
        (1_800_000_000, NOW),
        (99_999_999_999, 99_999_999_999),
        (100_000_000_000, 100_000_000),
        (1_800_000_000_500.0, NOW + 0.5),
        (0, 0),  # with a refresh token: ended, so renew
        (None, None),
        ("soon", None),
        (True, None),
    ],
)
def test_times_below_10_to_the_11_are_seconds_and_others_milliseconds(expires_at, seconds):
    assert read(claude, claude_login(expiresAt=expires_at)).expires_at == seconds


@pytest.mark.parametrize(
    ("old", "new"), [(1_700_000_000, 1_800_003_600), (1_700_000_000_000, 1_800_003_600_000)]
)
def test_a_time_is_written_back_in_the_unit_that_was_read(old, new):
    answer = {"access_token": "a1", "refresh_token": "r1", "expires_in": 3600}
    assert after(claude, claude_login(expiresAt=old), answer)["claudeAiOauth"]["expiresAt"] == new
    flat = {"access_token": "a0", "refresh_token": "r0", "expires_at": old}
    assert after(chatgpt, flat, answer)["expires_at"] == new


def test_a_time_that_was_not_there_is_written_in_the_unit_of_its_format():
    answer = {"access_token": "a1", "expires_in": 3600}
    assert after(claude, claude_login(expiresAt=0), answer)["claudeAiOauth"]["expiresAt"] == 1_800_003_600_000
    assert (
        after(chatgpt, {"access_token": "a0", "refresh_token": "r0"}, answer)["expires_at"] == 1_800_003_600
    )


@pytest.mark.parametrize("refresh", ["", None])
@pytest.mark.parametrize("end", [0, None])
def test_a_claude_token_without_refresh_token_has_no_end_unless_one_is_given(refresh, end):
    credential = read(claude, claude_login(refreshToken=refresh, expiresAt=end))
    assert (credential.refresh, credential.expires_at) == (None, None)


def test_blanked_claude_tokens_read_as_none():
    for document in (claude_login(accessToken="", refreshToken="", expiresAt=0), {}, {"claudeAiOauth": None}):
        credential = read(claude, document)
        assert not credential.access
        assert credential.refresh is None


@pytest.mark.parametrize("token", ["two words", "line\r\nbreak", "madé", 54321, ["list"], " blank-before"])
def test_what_cannot_stand_in_a_header_field_is_no_token(token):
    with pytest.raises(BrokenCredential) as caught:
        read(claude, claude_login(accessToken=token))
    assert str(token) not in str(caught.value)
    with pytest.raises(BrokenCredential):
        read(chatgpt, {"access_token": token})


def test_a_claude_renewal_asks_for_what_was_granted():
    asked = claude.request(read(claude, claude_login()), Reason.EXPIRY)
    assert asked == {
        "grant_type": "refresh_token",
        "refresh_token": "r0",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
    }
    assert claude.request(read(claude, claude_login(clientId="c1")), Reason.EXPIRY)["client_id"] == "c1"


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (3600, 3600),
        ("3600", 3600),
        (0, None),
        (-5, None),
        ("soon", None),
        (None, None),
        (True, None),
        (10**30, None),
    ],
)
def test_a_lifetime_is_believed_only_where_it_is_one(expires_in, lifetime):
    new = claude.renewed(read(claude, claude_login()), {"access_token": "a1", "expires_in": expires_in}, NOW)
    assert new.lifetime_s == lifetime
    assert new.expires_at == (None if lifetime is None else NOW + lifetime)


# ChatGPT


def codex(**tokens):
    return {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": "i0",
            "access_token": "a0",
            "refresh_token": "r0",
            "account_id": "acct-0",
            **tokens,
        },
        "last_refresh": "2027-01-15T08:00:00.123456789Z",  # NOW + 0.123…
        "agent_identity": {"kept": 1},
    }


def test_both_chatgpt_shapes_hold_the_same_credential():
    flat = read(
        chatgpt, {"access_token": "a0", "refresh_token": "r0", "expires_at": NOW, "account_id": "acct-0"}
    )
    nested = read(chatgpt, codex(access_token=jwt(exp=NOW)))
    for credential in (flat, nested):
        assert credential.refresh.reveal() == "r0"
        assert (credential.account_id, credential.expires_at) == ("acct-0", NOW)


def test_each_shape_is_written_back_as_it_was():
    answer = {"access_token": "a1", "refresh_token": "r1", "id_token": "i1", "expires_in": 60}
    flat = {"access_token": "a0", "refresh_token": "r0", "expires_at": 5, "account_id": "acct-0", "mine": [1]}
    assert after(chatgpt, flat, answer) == {
        **flat,
        "access_token": "a1",
        "refresh_token": "r1",
        "expires_at": int(NOW) + 60,
    }
    before = codex(oauth_provenance={"client_id": "app_other"})
    assert after(chatgpt, before, answer) == {
        **before,
        "tokens": {**before["tokens"], "access_token": "a1", "refresh_token": "r1", "id_token": "i1"},
        "last_refresh": "2027-01-15T08:00:00.000000Z",
    }


def test_the_end_is_expires_at_else_the_jwt_s_else_8_days_after_the_last_refresh():
    token = jwt(exp=NOW + 10)
    assert read(chatgpt, {"access_token": token, "expires_at": NOW + 5}).expires_at == NOW + 5
    assert read(chatgpt, {"access_token": token}).expires_at == NOW + 10
    assert read(chatgpt, codex(access_token=token)).expires_at == NOW + 10
    assert read(chatgpt, codex()).expires_at == pytest.approx(NOW + 8 * 86400, abs=1)
    assert read(chatgpt, {"access_token": "opaque"}).expires_at is None


@pytest.mark.parametrize("last", ["never", 5, None, "0000-00-00", "9999-12-31T23:59:59+00:00", {}])
def test_a_strange_last_refresh_does_no_harm(last):
    credential = read(chatgpt, {**codex(access_token=jwt(exp=NOW)), "last_refresh": last})
    assert credential.expires_at == NOW


def test_the_account_is_the_field_s_else_the_id_token_s():
    claims = {AUTH: {"chatgpt_account_id": "acct-claim", "chatgpt_account_is_fedramp": True}}
    assert read(chatgpt, codex(id_token=jwt(**claims))).account_id == "acct-0"
    credential = read(chatgpt, codex(id_token=jwt(**claims), account_id=None))
    assert (credential.account_id, credential.fedramp) == ("acct-claim", True)
    assert read(chatgpt, {"access_token": jwt(**claims)}).account_id == "acct-claim"
    assert read(chatgpt, codex(account_id="evil\r\nX: 1")).account_id is None


@pytest.mark.parametrize(
    ("document", "api_key"),
    [
        ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up"}, True),
        ({**codex(), "auth_mode": "apikey", "OPENAI_API_KEY": "sk-made-up"}, True),
        ({"OPENAI_API_KEY": "sk-made-up", "tokens": None}, True),
        ({**codex(), "OPENAI_API_KEY": "sk-made-up"}, False),
        ({"auth_mode": "chatgpt", "tokens": None}, False),
    ],
)
def test_a_login_by_api_key_is_told_apart(document, api_key):
    found = read(chatgpt, document)
    assert found.api_key is api_key
    assert (found.access.reveal() == "sk-made-up") is api_key
    if api_key:  # tokens that stand beside a key are not this credential's
        assert (found.refresh, found.expires_at, found.account_id) == (None, None, None)


@pytest.mark.parametrize("key", [{}, {"OPENAI_API_KEY": None}, {"OPENAI_API_KEY": ""}])
@pytest.mark.parametrize("tokens", [codex()["tokens"], None])
def test_a_login_by_an_api_key_that_is_not_there_is_broken_whatever_tokens_stand_beside(key, tokens):
    """Whoever chose the key did not mean the login: its account would be spent behind their back."""
    with pytest.raises(BrokenCredential, match="OPENAI_API_KEY"):
        read(chatgpt, {"auth_mode": "apikey", "tokens": tokens, **key})


@pytest.mark.parametrize(
    "key",
    [7, ["sk"], "sk-two words", "sk-line\n", "sk-é", '"sk-x"', "'sk-x'", "`sk-x", "OPENAI_API_KEY=sk-x"],
)
def test_what_cannot_be_sent_is_no_api_key(key):
    with pytest.raises(BrokenCredential) as caught:
        read(chatgpt, {"auth_mode": "apikey", "OPENAI_API_KEY": key})
    assert str(key) not in str(caught.value)


def test_a_key_in_quotes_that_is_not_used_takes_nothing_from_the_login_beside_it():
    assert read(chatgpt, {**codex(), "OPENAI_API_KEY": '"sk-x"'}).access.reveal()


def test_everything_in_a_chatgpt_answer_is_optional_and_the_old_is_kept():
    before = codex()
    assert after(chatgpt, before, {"access_token": "a1"})["tokens"] == {
        **before["tokens"],
        "access_token": "a1",
    }
    assert after(chatgpt, before, {"refresh_token": "r1"})["tokens"] == {
        **before["tokens"],
        "refresh_token": "r1",
    }
    with pytest.raises(BrokenCredential):
        after(chatgpt, before, {"id_token": "i1"})


def test_a_chatgpt_lifetime_is_counted_from_our_own_receipt():
    token = jwt(iat=5_000, exp=8_600)  # by a clock that has nothing to do with ours
    new = chatgpt.renewed(read(chatgpt, codex()), {"access_token": token}, NOW)
    assert (new.expires_at, new.lifetime_s) == (NOW + 3600, 3600)


def test_a_chatgpt_renewal_names_its_reason_and_the_login_s_own_client():
    asked = chatgpt.request(read(chatgpt, codex()), Reason.UNAUTHORIZED)
    assert asked == {
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_reason": "unauthorized_recovery",
        "refresh_token": "r0",
    }
    other = read(chatgpt, codex(oauth_provenance={"client_id": "app_other"}))
    assert chatgpt.request(other, Reason.EXPIRY)["client_id"] == "app_other"


@pytest.mark.parametrize(
    "jwt_like", ["a.b.c", "..", "a.e30.c", "a.W10.c", "a.bnVsbA.c", "x." + "e" * 9 + ".y"]
)
def test_what_only_looks_like_a_jwt_does_no_harm(jwt_like):
    assert read(chatgpt, codex(access_token=jwt_like, id_token=jwt_like)).access.reveal() == jwt_like


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
keys = st.sampled_from(
    [
        *("tokens", "access_token", "refresh_token", "id_token", "expires_at", "last_refresh", "account_id"),
        *("claudeAiOauth", "accessToken", "refreshToken", "expiresAt", "auth_mode", "OPENAI_API_KEY"),
    ]
)
documents = st.dictionaries(keys, anything | st.dictionaries(keys, anything))


@pytest.mark.parametrize("issuer", [claude, chatgpt])
@given(documents)
def test_any_document_is_read_or_refused_and_what_was_read_survives_a_renewal(issuer, document):
    raw = json.dumps(document).encode()
    try:
        credential = issuer.read(raw)
    except BrokenCredential:
        return
    if credential.api_key:
        assert credential.refresh is None  # so nothing ever renews it
        return
    new = issuer.renewed(credential, {"access_token": "a1", "refresh_token": "r1", "expires_in": 60}, NOW)
    again = issuer.read(issuer.write(raw, new))
    assert (again.access.reveal(), again.refresh.reveal()) == ("a1", "r1")
    if "expires_at" in document or issuer is claude:
        assert again.expires_at == NOW + 60


# Answers


@pytest.mark.parametrize(
    ("issuer", "status", "answer", "permanent"),
    [
        (claude, 400, {"error": "invalid_grant"}, True),
        (claude, 401, {"error": {"type": "invalid_grant"}}, True),
        (claude, 401, {}, False),
        (claude, 429, {"error": "invalid_grant"}, False),
        (claude, 500, {"error": "invalid_grant"}, False),
        (claude, 400, {"error": "invalid_request"}, False),
        (chatgpt, 401, {}, True),
        (chatgpt, 400, {"error": {"code": "refresh_token_reused"}}, True),
        (chatgpt, 400, {"code": "refresh_token_expired"}, True),
        (chatgpt, 400, {"error": ["refresh_token_expired"]}, False),
        (chatgpt, 403, {}, False),
    ],
)
def test_only_some_refusals_are_final(issuer, status, answer, permanent):
    assert issuer.is_permanent(status, answer) is permanent


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(field, seconds):
    assert retry_after_s(field, NOW) == seconds


@pytest.mark.parametrize("path", ["/s/claude/.credentials.json", "/with blank/auth.json", "/s/other.json"])
@pytest.mark.parametrize(("issuer", "name"), [(claude, "claude"), (chatgpt, "chatgpt")])
def test_the_operator_is_told_the_verb_that_logs_in_where_the_login_goes_and_that_it_needs_the_configuration(
    issuer, name, path
):
    told = issuer.login(path)
    assert f"`ai-mux login {name}`" in told
    assert "--config" in told
    assert path in told
    # Codex's own command, without its setting for a file, may leave the login in a keyring.
    assert "auth login" not in told
    assert "codex login" not in told
