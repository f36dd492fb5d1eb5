"""What is served by default and what a request to a provider carries."""

import pytest

from ai_mux.credentials.credential import Credential
from ai_mux.providers import PROVIDERS
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import Changes

claude, chatgpt = PROVIDERS["claude"], PROVIDERS["chatgpt"]


def credential(**more):
    return Credential(access=Secret("access-0"), refresh=None, expires_at=None, **more)


def served(provider, *, api_key):
    return {(rule.path, rule.methods, rule.upgrade) for rule in provider.backend(api_key=api_key).paths}


@pytest.mark.parametrize("api_key", [False, True])
def test_claude_serves_inference_only(api_key):
    assert served(claude, api_key=api_key) == {
        (b"/v1/messages", (b"POST",), False),
        (b"/v1/messages/count_tokens", (b"POST",), False),
        (b"/v1/models", (b"GET", b"HEAD"), False),
        (b"/v1/models/{id}", (b"GET", b"HEAD"), False),
    }


SUBSCRIPTION = {
    (version + path, methods, upgrade)
    for version in (b"", b"/v1")
    for path, methods, upgrade in [
        (b"/responses", (b"POST",), True),
        (b"/responses/compact", (b"POST",), False),
        (b"/models", (b"GET", b"HEAD"), False),
    ]
}


def test_chatgpt_serves_inference_only_with_and_without_the_version():
    assert served(chatgpt, api_key=False) == SUBSCRIPTION


def test_an_openai_key_opens_the_apis_that_a_subscription_does_not_have():
    assert served(chatgpt, api_key=True) == SUBSCRIPTION | {
        (b"/v1/chat/completions", (b"POST",), False),
        (b"/v1/embeddings", (b"POST",), False),
        (b"/v1/models/{id}", (b"GET", b"HEAD"), False),
    }


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/v1/responses", b"/responses"),
        (b"/v1", b""),
        (b"/v1/", b"/"),
        (b"/v1/v1/x", b"/v1/x"),
        (b"/v10/responses", b"/v10/responses"),
        (b"/v1beta", b"/v1beta"),
        (b"/responses", b"/responses"),
        (b"", b""),
        (b"/x/v1/y", b"/x/v1/y"),
    ],
)
def test_chatgpt_removes_one_leading_version_segment(path, target):
    assert chatgpt.backend(api_key=False).target(path) == target
    for backend in (chatgpt.backend(api_key=True), *map(claude_backend, (False, True))):
        assert backend.target(path) == path


def claude_backend(api_key):
    return claude.backend(api_key=api_key)


def impossible(backend, path):
    return backend.impossible.get(backend.target(path))


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/chat/completions"])
def test_chat_completions_are_impossible_with_a_subscription(path):
    assert "/chatgpt/v1/responses" in impossible(chatgpt.backend(api_key=False), path)
    for backend in (chatgpt.backend(api_key=True), *map(claude_backend, (False, True))):
        assert impossible(backend, path) is None


@pytest.mark.parametrize(
    "path", [b"/v1/responses", b"/v1/chat/completions/x", b"/chat", b"/v1/v1/chat/completions"]
)
def test_other_paths_are_possible(path):
    assert impossible(chatgpt.backend(api_key=False), path) is None


def test_claude_requests_carry_the_token_and_the_beta():
    changes = claude.changes(credential())
    assert changes.put == ((b"Authorization", b"Bearer access-0"),)
    assert changes.include == ((b"anthropic-beta", b"oauth-2025-04-20"),)
    assert changes.drop == frozenset()


def test_chatgpt_requests_carry_token_and_account_and_nothing_that_names_another():
    changes = chatgpt.changes(credential(account_id="acct-0", fedramp=True))
    assert changes.put == (
        (b"Authorization", b"Bearer access-0"),
        (b"chatgpt-account-id", b"acct-0"),
        (b"X-OpenAI-Fedramp", b"true"),
    )
    assert changes.include == ()
    dropped = {
        b"openai-organization",
        b"openai-project",
        b"x-openai-account-routing-override",
        b"anthropic-beta",
    }
    assert changes.drop == dropped
    bare = chatgpt.changes(credential())
    assert bare.put == ((b"Authorization", b"Bearer access-0"),)
    assert bare.drop == dropped | {b"chatgpt-account-id", b"x-openai-fedramp"}


def test_an_api_key_is_all_that_a_request_with_one_carries():
    """What names account, organisation or project is for a key's user to choose, and for a login's owner."""
    key = credential(api_key=True)
    assert claude.changes(key) == Changes(put=((b"x-api-key", b"access-0"),))
    assert chatgpt.changes(key) == Changes(
        put=((b"Authorization", b"Bearer access-0"),), drop=frozenset({b"anthropic-beta"})
    )


def test_addresses_and_files_are_the_vendors_own():
    assert {claude_backend(one).base_url for one in (False, True)} == {"https://api.anthropic.com"}
    assert claude.token_url == "https://platform.claude.com/v1/oauth/token"
    assert (claude.credential_file, claude.dialect) == (".credentials.json", Dialect.ANTHROPIC)
    assert chatgpt.backend(api_key=False).base_url == "https://chatgpt.com/backend-api/codex"
    assert chatgpt.backend(api_key=True).base_url == "https://api.openai.com"
    assert chatgpt.token_url == "https://auth.openai.com/oauth/token"
    assert (chatgpt.credential_file, chatgpt.dialect) == ("auth.json", Dialect.OPENAI)
    assert all(name == provider.name for name, provider in PROVIDERS.items())
