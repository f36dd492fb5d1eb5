"""What the user of a token is told of a credential's trouble: of a login or of an API key, as it is."""

import pytest

from ai_mux.credentials.notices import to_user, to_waiting_user
from ai_mux.credentials.standing import State


@pytest.mark.parametrize(
    ("state", "of_a_login", "of_a_key"),
    [
        (State.MISSING, "has no login on this server yet", "has no API key on this server yet"),
        (
            State.BROKEN,
            "has a login that this server cannot read",
            "has an API key that this server cannot read",
        ),
        (State.BLANK, "is logged out on this server", None),
        (State.DEAD, "has a login that has ended", None),
        (State.ENDED, "has a token that has ended", None),
        (State.LIVE, "does not accept this server's credential", "does not accept this server's API key"),
    ],
)
def test_each_trouble_is_told_of_what_there_is(state, of_a_login, of_a_key):
    said = to_user("chatgpt", state, api_key=False)
    assert said.startswith(f"The provider chatgpt {of_a_login}. ")
    if of_a_key is not None:
        assert to_user("chatgpt", state, api_key=True) == said.replace(of_a_login, of_a_key)


@pytest.mark.parametrize("state", State)
def test_of_a_key_no_login_is_told(state):
    for said in (to_user("claude", state, api_key=True), to_waiting_user("claude", api_key=True)):
        assert "API key" in said
        assert not {"login", "logged", "token", "renewed"} & set(said.replace(".", "").split())


def test_a_login_that_is_waited_for_is_being_renewed():
    assert "login of the provider claude is being renewed" in to_waiting_user("claude", api_key=False)
