"""What is served by default and what a request to a provider carries."""

import pytest

from ai_mux.credentials.credential import Credential
from ai_mux.providers import PROVIDERS
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect

claude, chatgpt = PROVIDERS["claude"], PROVIDERS["chatgpt"]


def credential(**more):
    return Credential(access=Secret("access-0"), refresh=None, expires_at=None, **more)


def served(provider):
    return {(rule.path, rule.methods, rule.upgrade) for rule in provider.paths}


def test_claude_serves_inference_only():
    assert served(claude) == {
        (b"/v1/messages", (b"POST",), False),
        (b"/v1/messages/count_tokens", (b"POST",), False),
        (b"/v1/models", (b"GET", b"HEAD"), False),
        (b"/v1/models/{id}", (b"GET", b"HEAD"), False),
    }


def test_chatgpt_serves_inference_only_with_and_without_the_version():
    assert served(chatgpt) == {
        (version + path, methods, upgrade)
        for version in (b"", b"/v1")
        for path, methods, upgrade in [
            (b"/responses", (b"POST",), True),
            (b"/responses/compact", (b"POST",), False),
            (b"/models", (b"GET", b"HEAD"), False),
        ]
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
    assert chatgpt.target(path) == target
    assert claude.target(path) == path


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/chat/completions"])
def test_chat_completions_are_impossible_with_a_subscription(path):
    assert "/chatgpt/v1/responses" in chatgpt.impossible(path)
    assert claude.impossible(path) is None


@pytest.mark.parametrize(
    "path", [b"/v1/responses", b"/v1/chat/completions/x", b"/chat", b"/v1/v1/chat/completions"]
)
def test_other_paths_are_possible(path):
    assert chatgpt.impossible(path) is None


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


def test_addresses_and_files_are_the_vendors_own():
    assert claude.base_url == "https://api.anthropic.com"
    assert claude.token_url == "https://platform.claude.com/v1/oauth/token"
    assert (claude.credential_file, claude.dialect) == (".credentials.json", Dialect.ANTHROPIC)
    assert chatgpt.base_url == "https://chatgpt.com/backend-api/codex"
    assert chatgpt.token_url == "https://auth.openai.com/oauth/token"
    assert (chatgpt.credential_file, chatgpt.dialect) == ("auth.json", Dialect.OPENAI)
    assert all(name == provider.name for name, provider in PROVIDERS.items())
