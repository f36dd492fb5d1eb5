"""The list of changes holds nothing that no case reaches: what is never tried is not proved."""

import pytest
from transparency import answers, cases, expected
from transparency.modes import MODES, Mode


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_each_listed_change_of_a_request_is_made_in_some_case(mode: Mode):
    made: set[str] = set()
    for case in cases.CASES:
        if case.mode is mode:
            made |= expected.request(case.request.head, mode, host=b"h").changes
    assert cases.listed(mode) - made == set(), "listed, and never made"
    assert made - cases.listed(mode) == set(), "made, and not listed"


def test_each_listed_change_of_a_response_is_made_in_some_case():
    made: set[str] = set()
    for answer in (*answers.USUAL, *answers.MADE):
        for provider in ("claude", "chatgpt"):
            made |= expected.response(
                answer.head, provider, chunked=answer.chunked, closes=answer.until_close
            ).changes
    assert made == answers.listed()
